//! How do documents become a content folder?
//!
//! Items come in the order of their ids, ads in the order of (item id, ad id); the two may be interleaved
//! in any way. Columns grow in memory, where a shard's content fits by its limit, and are written at once.
//! The same sections, kept in memory, are the content of a delta.

use super::{
    columns::ColumnsWriter,
    container::{Container, Sections, ShardKey, Storage},
    content::{self, Content, ContentManifest},
    creatives::CreativesWriter,
    document::{DocAd, DocItem},
    error::SegmentError,
    folder::{FileEntry, FolderWriter},
    lines::Lines,
    lookup::Lookup,
    posting_table::Key,
    postings::PostingsWriter,
    schedules::DocZone,
};
use gavel_proto::limits::{DIMENSIONS_MAX, SHARD_ITEMS_MAX};
use roaring::RoaringBitmap;
use std::{collections::BTreeMap, path::Path};

/// What has been sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentSummary {
    /// Items.
    pub items: u32,
    /// Ads.
    pub ads: u32,
    /// Bytes of all files.
    pub bytes: u64,
    /// BLAKE3 of the manifest.
    pub hash: [u8; 32],
}

/// Collects the documents of one shard.
pub struct ContentBuilder {
    folder: FolderWriter,
    documents: Documents,
}

impl ContentBuilder {
    /// Starts a folder at `target`, which must not exist.
    pub fn new(target: &Path, key: ShardKey) -> Result<Self, SegmentError> {
        Ok(Self { folder: FolderWriter::create(target)?, documents: Documents::new(key) })
    }

    /// Adds an item; ids ascend.
    pub fn push_item(&mut self, item: DocItem) -> Result<(), SegmentError> {
        self.documents.push_item(item)
    }

    /// Makes a time zone known, before the ads whose schedules name it.
    pub fn push_zone(&mut self, zone: DocZone) -> Result<(), SegmentError> {
        self.documents.postings.zone(zone)
    }

    /// Keeps the name of a dimension, for explanations; one that is kept already is kept once.
    pub fn name_dimension(&mut self, name: &str) {
        let names = &mut self.documents.dimensions;
        if let Err(at) = names.binary_search_by(|known| known.as_str().cmp(name))
            && names.len() < DIMENSIONS_MAX
        {
            names.insert(at, name.to_owned());
        }
    }

    /// Adds an ad; (item id, ad id) ascends. Its item may come later.
    pub fn push_ad(&mut self, ad: &DocAd) -> Result<(), SegmentError> {
        self.documents.push_ad(ad)
    }

    /// Writes the folder and puts it in its place.
    pub fn seal(mut self) -> Result<ContentSummary, SegmentError> {
        let key = self.documents.key;
        let (mut manifest, files) = self.documents.finish()?;
        let (items, ads) = (manifest.items, manifest.ads);
        for ((name, kind), sections) in content::FILES.into_iter().zip(files) {
            self.folder.container(name, kind, key, sections)?;
        }
        let (hash, bytes) = self.folder.seal(|files| {
            manifest.files = files;
            manifest
        })?;
        Ok(ContentSummary { items, ads, bytes, hash })
    }
}

/// Content that lives in memory: the documents of a delta.
pub(crate) fn content_in_memory(
    key: ShardKey,
    zones: impl IntoIterator<Item = DocZone>,
    items: impl IntoIterator<Item = DocItem>,
    ads: impl IntoIterator<Item = DocAd>,
) -> Result<Content, SegmentError> {
    let mut documents = Documents::new(key);
    zones.into_iter().try_for_each(|zone| documents.postings.zone(zone))?;
    items.into_iter().try_for_each(|item| documents.push_item(item))?;
    ads.into_iter().try_for_each(|ad| documents.push_ad(&ad))?;
    let (manifest, files) = documents.finish()?;
    let mut opened = Vec::new();
    for ((name, kind), sections) in content::FILES.into_iter().zip(files) {
        let mut bytes = Vec::new();
        sections.write(kind, key, |part| {
            bytes.extend_from_slice(part);
            Ok(())
        })?;
        opened.push(Container::new(Path::new(name), Storage::owned(&bytes), kind, key)?);
    }
    let files = <[Container; 4]>::try_from(opened);
    let files = files.map_err(|_| SegmentError::Refused("a delta without its files".into()))?;
    Content::assemble(&manifest, [0; 32], files)
}

/// The columns while they grow.
struct Documents {
    key: ShardKey,
    item_id: Vec<u64>,
    advertiser: Vec<u64>,
    category_first: Vec<u32>,
    category: Vec<u64>,
    /// (item id, ad id).
    ads: Vec<(u64, u64)>,
    ad_campaign: Vec<u64>,
    /// 0: none.
    ad_group: Vec<u64>,
    columns: ColumnsWriter,
    postings: PostingsWriter,
    /// Names, sorted.
    dimensions: Vec<String>,
    creatives: CreativesWriter,
}

impl Documents {
    fn new(key: ShardKey) -> Self {
        Self {
            key,
            item_id: Vec::new(),
            advertiser: Vec::new(),
            category_first: vec![0],
            category: Vec::new(),
            ads: Vec::new(),
            ad_campaign: Vec::new(),
            ad_group: Vec::new(),
            columns: ColumnsWriter::default(),
            postings: PostingsWriter::default(),
            dimensions: Vec::new(),
            creatives: CreativesWriter::default(),
        }
    }

    fn push_item(&mut self, item: DocItem) -> Result<(), SegmentError> {
        if self.item_id.last().is_some_and(|last| *last >= item.item.0) {
            return Err(SegmentError::Refused(format!("item {} out of order", item.item)));
        }
        if self.item_id.len() as u64 == SHARD_ITEMS_MAX {
            return Err(SegmentError::Refused(format!("more than {SHARD_ITEMS_MAX} items in a shard")));
        }
        self.columns.push(self.item_id.len(), item.features)?;
        self.creatives.push(&item.creative)?;
        self.item_id.push(item.item.0);
        self.advertiser.push(item.advertiser.0);
        self.category.extend_from_slice(&item.categories);
        self.category_first.push(u32_of(self.category.len())?);
        Ok(())
    }

    fn push_ad(&mut self, ad: &DocAd) -> Result<(), SegmentError> {
        let place = (ad.item.0, ad.ad.0);
        if self.ads.last().is_some_and(|last| *last >= place) {
            return Err(SegmentError::Refused(format!("ad {} of item {} out of order", ad.ad, ad.item)));
        }
        self.postings.push(u32_of(self.ads.len())?, ad)?;
        self.ads.push(place);
        self.ad_campaign.push(ad.campaign.0);
        self.ad_group.push(ad.ad_group);
        Ok(())
    }

    /// The manifest, still without its files, and their sections.
    fn finish(self) -> Result<(ContentManifest, [Sections; 4]), SegmentError> {
        let (items, ads) = (u32_of(self.item_id.len())?, u32_of(self.ads.len())?);
        let (item_first_ad, ad_item) = self.arrows()?;
        let by_campaign = group(self.ad_campaign.iter().copied().zip(0..));
        let places: BTreeMap<u64, u32> = by_campaign.keys().copied().zip(0..).collect();
        let ad_campaign: Vec<u32> = self.ad_campaign.iter().filter_map(|c| places.get(c).copied()).collect();
        let ads_of = |item: usize| item_first_ad[item]..item_first_ad[item + 1];
        let by_advertiser = postings_of(self.advertiser.iter().copied().enumerate(), ads_of);
        let categories = self.category_first.windows(2).enumerate().flat_map(|(item, range)| {
            let values = &self.category[range[0] as usize..range[1] as usize];
            values.iter().map(move |value| (item, *value))
        });
        let by_category = postings_of(categories, ads_of);

        let mut ids = Sections::default();
        ids.push(content::ITEM_ID, &self.item_id);
        ids.push(content::ADVERTISER, &self.advertiser);
        ids.push(content::CATEGORY_FIRST, &self.category_first);
        ids.push(content::CATEGORY, &self.category);
        ids.push(content::ITEM_FIRST_AD, &item_first_ad);
        ids.push(content::AD_ID, &self.ads.iter().map(|(_, ad)| *ad).collect::<Vec<u64>>());
        ids.push(content::AD_ITEM, &ad_item);
        ids.push(content::AD_CAMPAIGN, &ad_campaign);
        Lines::write(&ad_campaign, &self.ad_group, &mut ids);
        let (mut columns, mut postings, mut creatives) =
            (Sections::default(), Sections::default(), Sections::default());
        let features = self.columns.write(items as usize, &mut columns);
        let zones = self.postings.write(ads, &by_advertiser, &by_category, &mut postings)?;
        Lookup::write(content::BY_CAMPAIGN, &by_campaign, &mut postings);
        self.creatives.write(&mut creatives)?;
        let ShardKey { generation, shard } = self.key;
        let files: Vec<FileEntry> = Vec::new();
        let dimensions = self.dimensions;
        let manifest = ContentManifest { generation, shard, items, ads, features, dimensions, zones, files };
        Ok((manifest, [ids, columns, postings, creatives]))
    }

    /// First ad of each item, and the item of each ad.
    fn arrows(&self) -> Result<(Vec<u32>, Vec<u32>), SegmentError> {
        let (mut first, mut item_of, mut at) = (vec![0], Vec::with_capacity(self.ads.len()), 0);
        for (item, id) in (0u32..).zip(&self.item_id) {
            while self.ads.get(at).is_some_and(|(of, _)| of == id) {
                item_of.push(item);
                at += 1;
            }
            first.push(at as u32);
        }
        match self.ads.get(at) {
            None => Ok((first, item_of)),
            Some((item, ad)) => Err(SegmentError::Refused(format!("ad {ad} of item {item}, which is not there"))),
        }
    }
}

/// The ads of the items that have each key; items ascend.
fn postings_of(
    keys: impl Iterator<Item = (usize, u64)>,
    ads_of: impl Fn(usize) -> std::ops::Range<u32>,
) -> BTreeMap<Key, RoaringBitmap> {
    let mut postings: BTreeMap<Key, RoaringBitmap> = BTreeMap::new();
    for (item, key) in keys {
        // One by one: a range would make a run container, which is not in the format.
        postings.entry([key, 0]).or_default().extend(ads_of(item));
    }
    postings
}

fn group(pairs: impl Iterator<Item = (u64, u32)>) -> BTreeMap<u64, Vec<u32>> {
    let mut groups: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    for (key, ordinal) in pairs {
        let members = groups.entry(key).or_default();
        if members.last() != Some(&ordinal) {
            members.push(ordinal);
        }
    }
    groups
}

fn u32_of(n: usize) -> Result<u32, SegmentError> {
    u32::try_from(n).map_err(|_| SegmentError::Refused(format!("{n} elements in a shard")))
}
