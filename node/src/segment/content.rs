//! What does this shard hold, and which of its ads may be shown?
//!
//! The sealed, model-independent half of a shard: ids, features, targeting and creatives, read in place.
//! Items stand in the order of their ids and ads in the order of (item id, ad id); an ordinal is a place in
//! that order, so an item's ads are a range. Everything that an accessor relies on has been checked when
//! the folder was opened; an ordinal that does not exist answers a default, never a panic.

use super::{
    bitset::Bitset,
    columns::{ColumnName, Columns, SetColumn},
    container::{Container, FileKind, Section, ShardKey, Storage, tag},
    creatives::Creatives,
    document::Creative,
    error::SegmentError,
    folder::{FileEntry, open_container, read_manifest},
    lines::Lines,
    lookup::{Lookup, LookupTags},
    postings::{Postings, Stated, Term, Unmet},
    residency::Residency,
    schedules::DocZone,
};
use gavel_proto::hash::value_hash;
use gavel_proto::ids::{AdId, AdvertiserId, CampaignId, ItemId};
use serde::{Deserialize, Serialize};
use std::{ops::Range, path::Path, sync::Arc};

pub(super) const ITEM_ID: u64 = tag(b"item_id ");
pub(super) const ADVERTISER: u64 = tag(b"advertis");
pub(super) const CATEGORY_FIRST: u64 = tag(b"cat_frst");
pub(super) const CATEGORY: u64 = tag(b"category");
pub(super) const ITEM_FIRST_AD: u64 = tag(b"item_ad ");
pub(super) const AD_ID: u64 = tag(b"ad_id   ");
pub(super) const AD_ITEM: u64 = tag(b"ad_item ");
pub(super) const AD_CAMPAIGN: u64 = tag(b"ad_camp ");
pub(super) const BY_CAMPAIGN: LookupTags = LookupTags::of(b'c');

/// The four files of a content folder.
pub(super) const FILES: [(&str, FileKind); 4] = [
    ("ids", FileKind::Ids),
    ("columns", FileKind::Columns),
    ("postings", FileKind::Postings),
    ("creatives", FileKind::Creatives),
];

/// What a content folder says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ContentManifest {
    pub(super) generation: u64,
    pub(super) shard: u32,
    pub(super) items: u32,
    pub(super) ads: u32,
    pub(super) features: Vec<ColumnName>,
    /// Names of the dimensions that ads target, and of their time zones, for explanations.
    pub(super) dimensions: Vec<String>,
    pub(super) zones: Vec<String>,
    pub(super) files: Vec<FileEntry>,
}

/// Which ads a request may see.
#[derive(Clone, Copy, Debug, Default)]
pub struct TargetingQuery<'a> {
    /// What the request states, hashed.
    pub terms: &'a [Term],
    /// The request's time, for schedules.
    pub unix_s: i64,
    /// Advertisers that may not appear.
    pub blocked_advertisers: &'a [u64],
    /// Hashed categories that may not appear.
    pub blocked_categories: &'a [u64],
    /// Campaigns that are paused or out of budget at the router, or that the request excludes.
    pub blocked_campaigns: &'a [u64],
    /// Campaigns that the user has seen often enough.
    pub capped_campaigns: &'a [u64],
    /// Single ads likewise, as (campaign, ad), ascending.
    pub capped_ads: &'a [(u64, u64)],
    /// Every ad whose impressions are counted, when nobody can say which are capped.
    pub counted: Option<&'a Bitset>,
    /// Every ad that is billed by the impression, when nothing can be charged for it.
    pub leased: Option<&'a Bitset>,
    /// Ads that the delivery state takes out (paused, bid 0); see [`Content::ads_of_lines`].
    pub excluded: Option<&'a Bitset>,
}

impl<'a> TargetingQuery<'a> {
    const fn stated(&self) -> Stated<'a> {
        Stated { terms: self.terms, unix_s: self.unix_s }
    }

    /// The sets of ads that take no part, whatever their targeting says.
    pub(crate) fn taken_out(&self) -> impl Iterator<Item = &'a Bitset> + use<'a> {
        [self.counted, self.leased, self.excluded].into_iter().flatten()
    }
}

/// Eligible ads with their exact count.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct EligibleAds {
    /// By ad ordinal.
    pub ads: Bitset,
    /// Members.
    pub count: u32,
}

/// Why an ad is not eligible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its targeting does not admit the request.
    Targeting,
    /// Its advertiser is blocked.
    Advertiser,
    /// One of its categories is blocked.
    Category,
    /// Its campaign is blocked.
    Campaign,
    /// The user has seen it often enough, or nobody knows how often.
    Capped,
    /// It is billed by the impression, and nothing can be charged for it.
    Unleased,
    /// The delivery state takes it out.
    Excluded,
}

/// An open content folder.
pub struct Content {
    key: ShardKey,
    hash: [u8; 32],
    item_id: Section<u64>,
    advertiser: Section<u64>,
    category_first: Section<u32>,
    category: Section<u64>,
    item_first_ad: Section<u32>,
    ad_id: Section<u64>,
    ad_item: Section<u32>,
    ad_campaign: Section<u32>,
    columns: Columns,
    postings: Postings,
    campaigns: Lookup,
    /// None where no ad names an ad group.
    pub(super) lines: Option<Lines>,
    dimensions: Vec<(u64, String)>,
    zones: Vec<String>,
    creatives: Creatives,
    storages: Vec<Arc<Storage>>,
    /// Every item has exactly one ad, so the two ordinals are one.
    one_ad_each: bool,
}

impl Content {
    /// Opens a sealed folder of this shard: verifies every byte, then maps it and checks its structure.
    pub fn open(folder: &Path, key: ShardKey) -> Result<Self, SegmentError> {
        let (manifest, hash) = read_manifest::<ContentManifest>(folder)?;
        let found = ShardKey { generation: manifest.generation, shard: manifest.shard };
        if found != key {
            return Err(SegmentError::foreign(folder, format!("{found:?} is not {key:?}")));
        }
        let open = |(name, kind)| open_container(folder, &manifest.files, name, kind, key);
        let [ids, columns, postings, creatives] = FILES.map(open);
        Self::assemble(&manifest, hash, [ids?, columns?, postings?, creatives?])
    }

    pub(super) fn assemble(
        manifest: &ContentManifest,
        hash: [u8; 32],
        files: [Container; 4],
    ) -> Result<Self, SegmentError> {
        let [ids, columns, postings, creatives] = &files;
        let (items, ads) = (manifest.items as usize, manifest.ads as usize);
        let category = ids.section::<u64>(CATEGORY)?;
        let ad_campaign = ids.section_of::<u32>(AD_CAMPAIGN, ads)?;
        let campaigns = Lookup::open(postings, BY_CAMPAIGN, manifest.ads)?;
        let mut content = Self {
            key: ShardKey { generation: manifest.generation, shard: manifest.shard },
            hash,
            item_id: ids.section_of(ITEM_ID, items)?,
            advertiser: ids.section_of(ADVERTISER, items)?,
            category_first: ids.offsets(CATEGORY_FIRST, items, category.len())?,
            category,
            item_first_ad: ids.offsets(ITEM_FIRST_AD, items, ads)?,
            ad_id: ids.section_of(AD_ID, ads)?,
            ad_item: ids.section_of(AD_ITEM, ads)?,
            lines: Lines::open(ids, &ad_campaign, campaigns.keys().len())?,
            ad_campaign,
            columns: Columns::open(columns, manifest.features.clone(), items)?,
            postings: Postings::open(postings, manifest.ads)?,
            campaigns,
            dimensions: manifest.dimensions.iter().map(|name| (value_hash(name), name.clone())).collect(),
            zones: manifest.zones.clone(),
            creatives: Creatives::open(creatives, items)?,
            storages: files.iter().map(|f| Arc::clone(f.storage())).collect(),
            one_ad_each: false,
        };
        let arrows = (0..manifest.items).all(|i| content.ads_of(i).all(|ad| content.item_of(ad) == i));
        let campaigns = content.campaigns.keys().len();
        if !content.item_id.is_sorted_by(|a, b| a < b)
            || !arrows
            || content.ad_campaign.iter().any(|c| *c as usize >= campaigns)
        {
            return Err(ids.damaged("ids out of order"));
        }
        content.one_ad_each = (0..manifest.items).all(|item| content.ads_of(item) == (item..item + 1));
        Ok(content)
    }

    /// Generation and shard.
    #[must_use]
    pub const fn key(&self) -> ShardKey {
        self.key
    }

    /// BLAKE3 of the manifest, which names every byte of the folder.
    #[must_use]
    pub const fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// Number of items.
    #[must_use]
    pub fn items(&self) -> u32 {
        self.item_id.len() as u32
    }

    /// Number of ads.
    #[must_use]
    pub fn ads(&self) -> u32 {
        self.ad_id.len() as u32
    }

    /// The id of an item.
    #[must_use]
    pub fn item_id(&self, item: u32) -> ItemId {
        ItemId(at(&self.item_id, item))
    }

    /// The ordinal of an item.
    #[must_use]
    pub fn find_item(&self, item: ItemId) -> Option<u32> {
        self.item_id.binary_search(&item.0).ok().map(|place| place as u32)
    }

    /// Who pays for an item's ads.
    #[must_use]
    pub fn advertiser(&self, item: u32) -> AdvertiserId {
        AdvertiserId(at(&self.advertiser, item))
    }

    /// The hashed categories of an item.
    #[must_use]
    pub fn categories(&self, item: u32) -> &[u64] {
        self.category.get(range(&self.category_first, item)).unwrap_or(&[])
    }

    /// The hash of the category that an item's ads are limited by; 0 = none.
    #[must_use]
    pub fn limit_category(&self, item: u32) -> u64 {
        self.categories(item).first().copied().unwrap_or(0)
    }

    /// The ads of an item.
    #[must_use]
    pub fn ads_of(&self, item: u32) -> Range<u32> {
        let range = range(&self.item_first_ad, item);
        range.start as u32..range.end as u32
    }

    /// The item of an ad.
    #[inline]
    #[must_use]
    pub fn item_of(&self, ad: u32) -> u32 {
        at(&self.ad_item, ad)
    }

    /// The id of an ad.
    #[must_use]
    pub fn ad_id(&self, ad: u32) -> AdId {
        AdId(at(&self.ad_id, ad))
    }

    /// The place of an ad's campaign in [`Self::campaigns`].
    #[inline]
    #[must_use]
    pub fn campaign_place(&self, ad: u32) -> u32 {
        at(&self.ad_campaign, ad)
    }

    /// The campaign of an ad.
    #[must_use]
    pub fn campaign(&self, ad: u32) -> CampaignId {
        CampaignId(at(self.campaigns.keys(), self.campaign_place(ad)))
    }

    /// The campaigns of this shard, ascending.
    #[must_use]
    pub fn campaigns(&self) -> &[u64] {
        self.campaigns.keys()
    }

    /// The place of a campaign.
    #[must_use]
    pub fn find_campaign(&self, campaign: u64) -> Option<u32> {
        self.campaigns.find(campaign)
    }

    /// The ads of the campaign at a place, ascending.
    #[must_use]
    pub fn ads_of_campaign(&self, place: u32) -> &[u32] {
        self.campaigns.at(place)
    }

    /// The ads of a campaign, ascending.
    #[must_use]
    pub fn ads_of_campaign_id(&self, campaign: u64) -> &[u32] {
        self.campaigns.of(campaign)
    }

    /// Names and kinds of the features, sorted by name.
    #[must_use]
    pub fn features(&self) -> &[ColumnName] {
        self.columns.names()
    }

    /// A column of hashes by item, 0 = missing.
    #[must_use]
    pub fn category_column(&self, name: &str) -> Option<&[u64]> {
        self.columns.category(name)
    }

    /// A column of numbers by item, NaN = missing.
    #[must_use]
    pub fn dense_column(&self, name: &str) -> Option<&[f32]> {
        self.columns.dense(name)
    }

    /// A column of weighted sets by item.
    #[must_use]
    pub fn set_column(&self, name: &str) -> Option<SetColumn<'_>> {
        self.columns.set(name)
    }

    /// What is shown of an item; decompresses a block.
    pub fn creative(&self, item: u32) -> Result<Creative, SegmentError> {
        let creative = self.creatives.get(item);
        creative.ok_or_else(|| SegmentError::Refused(format!("no creative of item ordinal {item}")))
    }

    /// The time zones of its schedules.
    #[must_use]
    pub fn zones(&self) -> Vec<DocZone> {
        let offsets = (0..).map(|zone| self.postings.zone_offsets(zone));
        self.zones.iter().zip(offsets).map(|(name, offsets)| DocZone { name: name.clone(), offsets }).collect()
    }

    /// The ads that a request may see, exactly.
    #[must_use]
    pub fn eligible(&self, query: &TargetingQuery<'_>) -> EligibleAds {
        let (advertisers, categories) = (query.blocked_advertisers, query.blocked_categories);
        let mut ads = self.postings.admitted(&query.stated(), advertisers, categories);
        for campaign in query.blocked_campaigns.iter().chain(query.capped_campaigns) {
            self.campaigns.of(*campaign).iter().for_each(|ad| ads.remove(*ad));
        }
        for (campaign, capped) in query.capped_ads {
            let of_id = |ad: &&u32| self.ad_id(**ad).0 == *capped;
            self.campaigns.of(*campaign).iter().filter(of_id).for_each(|ad| ads.remove(*ad));
        }
        query.taken_out().for_each(|out| ads.subtract(out));
        let count = ads.count();
        EligibleAds { ads, count }
    }

    /// The ads whose targeting alone admits the request.
    #[must_use]
    pub fn admitted(&self, query: &TargetingQuery<'_>) -> Bitset {
        self.postings.admitted(&query.stated(), &[], &[])
    }

    /// What the targeting of an ad does not admit in the request, in words; `None` when it admits it.
    #[must_use]
    pub fn unmet(&self, ad: u32, query: &TargetingQuery<'_>) -> Option<String> {
        let name = |dimension: u64| {
            let known = self.dimensions.iter().find(|(hash, _)| *hash == dimension);
            known.map_or_else(|| format!("dimension {dimension:#x}"), |(_, name)| name.clone())
        };
        self.postings.unmet(ad, &query.stated()).map(|unmet| match unmet {
            Unmet::Unstated(dimension) => format!("{}: asked for, and the request states nothing", name(dimension)),
            Unmet::Other(dimension) => format!("{}: asks for other values than the request states", name(dimension)),
            Unmet::Excluded(dimension) => format!("{}: excludes a value that the request states", name(dimension)),
            Unmet::Closed { zone, hour } => {
                const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
                let zone = self.zones.get(zone as usize).map_or("", String::as_str);
                format!("schedule: closed on {} at {:02}h in {zone}", DAYS[usize::from(hour / 24) % 7], hour % 24)
            }
        })
    }

    /// By which list of the request an ad is blocked, if it is. For explanations: one ad at a time.
    #[must_use]
    pub fn blocked(&self, ad: u32, query: &TargetingQuery<'_>) -> Option<Refusal> {
        let item = self.item_of(ad);
        let mut categories = self.categories(item).iter();
        if query.blocked_advertisers.contains(&self.advertiser(item).0) {
            Some(Refusal::Advertiser)
        } else if categories.any(|hash| query.blocked_categories.contains(hash)) {
            Some(Refusal::Category)
        } else {
            let campaign = self.campaign(ad).0;
            let capped = || {
                query.capped_campaigns.contains(&campaign)
                    || query.capped_ads.binary_search(&(campaign, self.ad_id(ad).0)).is_ok()
            };
            let blocked = query.blocked_campaigns.contains(&campaign).then_some(Refusal::Campaign);
            blocked.or_else(|| capped().then_some(Refusal::Capped))
        }
    }

    /// The items that have one of these ads.
    #[must_use]
    pub fn items_of(&self, ads: &Bitset) -> Bitset {
        if self.one_ad_each {
            return ads.clone();
        }
        let mut items = Bitset::empty(self.items());
        // The column is looked up once, not for each ad.
        let item_of: &[u32] = &self.ad_item;
        ads.iter().for_each(|ad| items.insert(at(item_of, ad)));
        items
    }

    /// How much of it is in memory.
    #[must_use]
    pub fn residency(&self) -> Residency {
        let owned = self.postings.owned_bytes();
        Residency::of(self.storages.iter().map(Arc::as_ref)).plus(Residency { owned, ..Residency::default() })
    }

    /// Reads every page, so that the first request does not wait for the disk.
    pub fn prefault(&self) {
        self.storages.iter().for_each(|s| super::residency::prefault(s));
    }
}

pub(super) fn at<T: Copy + Default>(column: &[T], ordinal: u32) -> T {
    column.get(ordinal as usize).copied().unwrap_or_default()
}

pub(super) fn range(first: &[u32], ordinal: u32) -> Range<usize> {
    let start = first.get(ordinal as usize).copied().unwrap_or(0) as usize;
    let end = first.get(ordinal as usize + 1).map_or(start, |end| *end as usize);
    start..end
}
