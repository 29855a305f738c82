//! In which order is a generation built?
//!
//! Read everything once; then campaigns and users; then shard by shard: sort, check that each ad names an item and a
//! campaign of one advertiser, and write. An item that no ad names cannot be shown, so it is refused too.

use super::blob::BlobWriter;
use super::dimensions::Dimensions;
use super::line::Document;
use super::reject::{Place, Rejects};
use super::source::{self, Numbered};
use super::spill::{Entry, Spill, Spilled};
use super::zones;
use super::{BuildOptions, Built, BuiltShard, LoadError, Progress, groups};
use crate::upload::Blob;
use gavel_proto::hash::{shard_of, value_hash};
use gavel_proto::ids::ItemId;
use gavel_proto::limits::SHARDS_MAX;
use gavel_proto::wire::{Ad, Campaign, DimensionSet, TimeZone};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Lines between two calls of the progress.
const PROGRESS_LINES: u64 = 10_000;

/// Everything that is open while lines are read.
struct Partitions {
    items: Vec<Spill>,
    ads: Vec<Spill>,
    campaigns: Spill,
    users: Spill,
    ad_ids: HashSet<u64>,
    dimensions: Dimensions,
    /// Zones that campaigns and schedules name; empty without a schedule.
    zones: BTreeSet<String>,
    schedules: u64,
    lines: u64,
}

/// What an ad needs to know of its campaign.
struct Payer {
    advertiser: u64,
    /// Empty: none named.
    time_zone: Arc<str>,
    /// Ascending.
    ad_groups: Arc<[u64]>,
}

/// Builds the blobs of a generation from a file or a folder. Blocking: run it off the async threads.
///
/// # Errors
/// When there is nothing to read, nothing is left, there are too many ad groups, or the disk fails. Bad lines are no errors.
pub fn build(path: &Path, options: &BuildOptions, progress: &mut dyn Progress) -> Result<Built, LoadError> {
    if options.shards == 0 || options.shards > SHARDS_MAX {
        return Err(LoadError::Shards(options.shards));
    }
    let work = &options.work_dir;
    fs::create_dir_all(work).map_err(|e| LoadError::Io(work.clone(), e))?;
    let files = source::files(path)?;
    let mut rejects = Rejects::new(&files);
    let mut partitions = Partitions::create(work, options.shards, Dimensions::of(path)?)?;
    let total = files.iter().filter_map(|f| fs::metadata(f).ok()).map(|m| m.len()).sum();
    let read = Arc::new(AtomicU64::new(0));
    for (file, input) in (0..).zip(&files) {
        source::for_each_line(input, &read, |numbered| {
            partitions.take(file, numbered, options.shards, &mut rejects)?;
            if partitions.lines.is_multiple_of(PROGRESS_LINES) {
                progress.step("read", read.load(Ordering::Relaxed), total);
            }
            Ok(())
        })?;
    }
    progress.step("read", total, total);
    let lines = partitions.lines;
    let (zones, dimensions) = (partitions.zone_tables(), partitions.dimensions.to_wire());
    let (campaigns_blob, payers) = write_campaigns(work, partitions.campaigns.into_sorted()?, &mut rejects)?;
    let (users_blob, users) = write_users(work, dimensions, partitions.users.into_sorted()?, &mut rejects)?;
    let mut shards = Vec::new();
    for (shard, (items, ads)) in partitions.items.into_iter().zip(partitions.ads).enumerate() {
        let (items, ads) = (items.into_sorted()?, ads.into_sorted()?);
        let mut blob = BlobWriter::create(&work.join(format!("shard-{shard}.blob")))?;
        if !zones.is_empty() {
            blob.zones(zones.clone())?;
        }
        shards.push(write_shard(blob, items, ads, &payers, &mut rejects)?);
        progress.step("sort", shard as u64 + 1, options.shards.into());
    }
    let rejected = rejects.count;
    let reject_files = rejects.finish()?;
    if shards.iter().all(|s| s.items == 0) {
        let named: Vec<String> = reject_files.iter().map(|f| f.display().to_string()).collect();
        return Err(LoadError::Empty { lines, rejects: named.join(", ") });
    }
    let campaigns = payers.len() as u64;
    Ok(Built { shards, campaigns_blob, users_blob, campaigns, users, lines, rejected, reject_files })
}

impl Partitions {
    fn create(work: &Path, shards: u32, dimensions: Dimensions) -> Result<Self, LoadError> {
        let many = |kind: &str| -> Result<Vec<Spill>, LoadError> {
            (0..shards).map(|shard| Spill::create(&work.join(format!("{kind}-{shard}.spill")))).collect()
        };
        Ok(Self {
            items: many("items")?,
            ads: many("ads")?,
            campaigns: Spill::create(&work.join("campaigns.spill"))?,
            users: Spill::create(&work.join("users.spill"))?,
            ad_ids: HashSet::new(),
            dimensions,
            zones: BTreeSet::new(),
            schedules: 0,
            lines: 0,
        })
    }

    /// Puts one line where it belongs.
    fn take(&mut self, file: u32, numbered: Numbered, shards: u32, rejects: &mut Rejects) -> Result<(), LoadError> {
        self.lines += 1;
        let place = Place { file, line: numbered.number };
        let shard = |item: u64| shard_of(ItemId(item), shards).0 as usize;
        match numbered.line.and_then(super::line::Line::into_document) {
            Err(reason) => rejects.push(place, &reason, &numbered.text),
            Ok(Document::Item(item)) => {
                self.items[shard(item.item_id)].push([item.item_id, 0, item.advertiser_id, 0], place, &item)
            }
            Ok(Document::Ad(mut ad)) => match self.admit(&mut ad) {
                Err(reason) => rejects.push(place, &reason, ""),
                Ok(()) => {
                    let keys = [ad.item_id, ad.ad_id, ad.campaign_id, ad.ad_group_id];
                    self.ads[shard(ad.item_id)].push(keys, place, &ad)
                }
            },
            Ok(Document::Campaign(campaign)) => {
                self.note_zone(&campaign.time_zone);
                self.campaigns.push([campaign.campaign_id, 0, campaign.advertiser_id, 0], place, &campaign)
            }
            Ok(Document::User(user)) => self.users.push([value_hash(&user.user_id), 0, 0, 0], place, &user),
        }
    }
}

impl Partitions {
    /// Checks an ad against the others and the dimensions.
    fn admit(&mut self, ad: &mut Ad) -> Result<(), String> {
        self.dimensions.check(ad).map_err(|reason| format!("ad {}: {reason}", ad.ad_id))?;
        if !self.ad_ids.insert(ad.ad_id) {
            return Err(format!("ad {} stands on an earlier line", ad.ad_id));
        }
        if let Some(schedule) = &ad.schedule {
            self.schedules += 1;
            self.note_zone(&schedule.time_zone);
        }
        Ok(())
    }

    fn note_zone(&mut self, name: &str) {
        if !name.is_empty() && !self.zones.contains(name) {
            self.zones.insert(name.to_owned());
        }
    }

    /// The offsets of every zone that a schedule may need, in the order of their names.
    fn zone_tables(&self) -> Vec<TimeZone> {
        if self.schedules == 0 {
            return Vec::new();
        }
        let named = self.zones.iter().map(String::as_str).filter(|name| *name != zones::UTC);
        named.chain([zones::UTC]).map(zones::table).collect()
    }
}

/// The first of entries with one key is taken, the others are refused.
fn without_repeats(kind: &str, entries: &[Entry], rejects: &mut Rejects) -> Result<Vec<Entry>, LoadError> {
    let mut kept: Vec<Entry> = Vec::with_capacity(entries.len());
    // Sorted by keys, then by advertiser: a repeat may stand before its first line, which is then the one refused.
    for entry in entries {
        if kept.last().is_some_and(|last| last.key == entry.key) {
            rejects.push(entry.place, &format!("{kind} {} stands on another line too", entry.key), "")?;
        } else {
            kept.push(*entry);
        }
    }
    Ok(kept)
}

fn write_campaigns(
    work: &Path,
    spilled: Spilled,
    rejects: &mut Rejects,
) -> Result<(Blob, HashMap<u64, Payer>), LoadError> {
    let mut blob = BlobWriter::create(&work.join("campaigns.blob"))?;
    let (mut payers, mut total_groups) = (HashMap::new(), 0);
    let (none, no_groups): (Arc<str>, Arc<[u64]>) = (Arc::from(""), Arc::from([]));
    for entry in without_repeats("campaign", &spilled.entries, rejects)? {
        let campaign: Campaign = spilled.get(&entry)?;
        total_groups = groups::total(total_groups, &campaign)?;
        let named = !campaign.time_zone.is_empty();
        let time_zone = if named { Arc::from(campaign.time_zone.as_str()) } else { Arc::clone(&none) };
        let ids = campaign.ad_groups.iter().map(|group| group.ad_group_id);
        let ad_groups = if campaign.ad_groups.is_empty() { Arc::clone(&no_groups) } else { ids.collect() };
        payers.insert(entry.key, Payer { advertiser: entry.third, time_zone, ad_groups });
        blob.campaign(campaign)?;
    }
    spilled.remove();
    Ok((blob.finish()?, payers))
}

fn write_users(
    work: &Path,
    dimensions: DimensionSet,
    spilled: Spilled,
    rejects: &mut Rejects,
) -> Result<(Blob, u64), LoadError> {
    let mut blob = BlobWriter::create(&work.join("users.blob"))?;
    blob.dimensions(dimensions)?;
    let mut count = 0;
    for entry in without_repeats("user of hash", &spilled.entries, rejects)? {
        blob.user(spilled.get(&entry)?)?;
        count += 1;
    }
    spilled.remove();
    Ok((blob.finish()?, count))
}

fn write_shard(
    mut blob: BlobWriter,
    items: Spilled,
    ads: Spilled,
    payers: &HashMap<u64, Payer>,
    rejects: &mut Rejects,
) -> Result<BuiltShard, LoadError> {
    let kept_items = without_repeats("item", &items.entries, rejects)?;
    let owners: HashMap<u64, u64> = kept_items.iter().map(|e| (e.key, e.third)).collect();
    let mut kept_ads = Vec::with_capacity(ads.entries.len());
    for ad in &ads.entries {
        match refusal(ad, &owners, payers) {
            Some(reason) => rejects.push(ad.place, &reason, "")?,
            None => kept_ads.push(*ad),
        }
    }
    let mut written = 0;
    let mut rest = kept_ads.as_slice();
    for item in &kept_items {
        let own = rest.partition_point(|ad| ad.key == item.key);
        if own == 0 {
            rejects.push(item.place, &format!("no ad names item {}", item.key), "")?;
            continue;
        }
        blob.item(items.get(item)?)?;
        for ad in &rest[..own] {
            blob.ad(with_zone(ads.get(ad)?, payers))?;
        }
        written += 1;
        rest = &rest[own..];
    }
    let built = BuiltShard { blob: blob.finish()?, items: written, ads: kept_ads.len() as u64 };
    items.remove();
    ads.remove();
    Ok(built)
}

/// The ad with the time zone of its schedule: its own, its campaign's, or UTC.
fn with_zone(mut ad: Ad, payers: &HashMap<u64, Payer>) -> Ad {
    if let Some(schedule) = ad.schedule.as_mut().filter(|schedule| schedule.time_zone.is_empty()) {
        let of_campaign = payers.get(&ad.campaign_id).map(|payer| &*payer.time_zone).filter(|zone| !zone.is_empty());
        of_campaign.unwrap_or(zones::UTC).clone_into(&mut schedule.time_zone);
    }
    ad
}

/// Why an ad cannot be used, if it cannot.
fn refusal(ad: &Entry, owners: &HashMap<u64, u64>, payers: &HashMap<u64, Payer>) -> Option<String> {
    let (item, campaign, group) = (ad.key, ad.third, ad.fourth);
    let Some(owner) = owners.get(&item) else {
        return Some(format!("ad {}: there is no item {item}", ad.second));
    };
    match payers.get(&campaign) {
        None => Some(format!("ad {}: there is no campaign {campaign}", ad.second)),
        Some(Payer { advertiser, .. }) if advertiser != owner => Some(format!(
            "ad {}: item {item} is of advertiser {owner}, campaign {campaign} of advertiser {advertiser}",
            ad.second
        )),
        Some(Payer { ad_groups, .. }) if group != 0 && ad_groups.binary_search(&group).is_err() => {
            Some(format!("ad {}: campaign {campaign} has no ad group {group}", ad.second))
        }
        Some(_) => None,
    }
}
