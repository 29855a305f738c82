//! What do the campaigns of one content folder bid in one delivery version, and which of its ads are silent?
//!
//! Everything that a search needs of bids is made when a version arrives, off the request path: rows by line (a
//! campaign with one of its ad groups, or with none), the ads that do not bid, and the list by bid of those billed by
//! the thousand impressions. A version that follows another does work for the campaigns that changed and copies or
//! shares the rest.
//!
//! Campaigns that bid at some times only are silent at the others. The set of silent ads stays the same from one start or
//! end of a schedule to the next, so it is kept for the stretch that searches are in.

use std::cmp::Reverse;
use std::ops::Range;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use gavel_proto::delivery::Schedule;
use gavel_proto::money::PPM;
use gavel_proto::pacing::participates;

use super::holdings::LoadedShard;
use super::values::ValueTables;
use crate::ranking::delivery::{Counting, Delivery, DeliveryRow, ResolvedDelivery};
use crate::segment::{Bitset, Content};
use crate::shard::Shard;

/// One delivery version as the ads of one content folder see it.
pub struct ShardDelivery {
    /// Bids by the place of a line.
    pub resolved: ResolvedDelivery,
    /// Lines that bid by the thousand impressions, by their places, with their paced bids, the highest first.
    pub impression_bids: Vec<(u32, u64)>,
    /// The ads of these.
    pub impression_ads: Arc<Bitset>,
    /// Ads whose impressions are counted for a frequency rule of the catalogue: the same in all its versions.
    pub counted: Arc<Bitset>,
    /// Ads that are billed by the impression: the same in all versions.
    pub leased: Arc<Bitset>,
    /// Ads that do not bid at any time: paused, without budget, bid 0, or of an unknown campaign or ad group.
    silent: Arc<Bitset>,
    /// Campaigns that take part in a share of the auctions, in parts per million; ascending.
    throttled: Vec<(u64, u32)>,
    /// Campaigns that bid, and when; ascending.
    timed: Vec<(u64, Schedule)>,
    stretch: ArcSwapOption<Stretch>,
    values: ValueTables,
}

/// The silent ads from one instant up to another.
struct Stretch {
    from: i64,
    until: i64,
    silent: Arc<Bitset>,
}

impl ShardDelivery {
    /// Resolves a version for a content folder.
    #[must_use]
    pub fn new(content: &Content, delivery: &Arc<Delivery>) -> Self {
        let resolved = ResolvedDelivery::new(Arc::clone(delivery), content.lines());
        let lines = content.lines().len() as u32;
        let rows = || (0..lines).map(|line| (line, resolved.row(line)));
        let ads_of = |is_in: fn(&DeliveryRow) -> bool| {
            content.ads_of_lines(rows().filter(|(_, row)| is_in(row)).map(|(line, _)| line))
        };
        let silent = ads_of(|row| !row.bids());
        let mut impression_bids: Vec<(u32, u64)> = rows().filter_map(impression_bid).collect();
        impression_bids.sort_by_key(highest_first);
        let impression_ads = content.ads_of_lines(impression_bids.iter().map(|(line, _)| *line));
        let counted = ads_of(|row| row.counting == Counting::Counted);
        let leased = ads_of(DeliveryRow::is_leased);
        let campaigns = || (0..).zip(content.campaigns()).map(|(place, id)| (*id, content.campaign_lines(place)));
        let speaking = || campaigns().filter_map(|campaign| speaking(&resolved, campaign));
        let timed = speaking().filter_map(timed).collect();
        let throttled = speaking().filter_map(throttled).collect();
        Self {
            resolved,
            impression_bids,
            impression_ads: Arc::new(impression_ads),
            counted: Arc::new(counted),
            leased: Arc::new(leased),
            silent: Arc::new(silent),
            throttled,
            timed,
            stretch: ArcSwapOption::empty(),
            values: ValueTables::default(),
        }
    }

    /// The version after this one, in which only these campaigns may differ; ascending.
    #[must_use]
    pub fn following(&self, content: &Content, delivery: &Arc<Delivery>, changed: &[u64]) -> Self {
        let resolved = self.resolved.of_version(Arc::clone(delivery));
        let lines_of = |campaign: &u64| Some((*campaign, content.campaign_lines(content.find_campaign(*campaign)?)));
        let campaigns: Vec<(u64, Range<u32>)> = changed.iter().filter_map(lines_of).collect();
        // Campaigns ascend, and so do their lines.
        let lines: Vec<u32> = campaigns.iter().flat_map(|(_, lines)| lines.clone()).collect();
        let mut next = Self {
            resolved,
            impression_bids: self.impression_bids.clone(),
            impression_ads: Arc::clone(&self.impression_ads),
            counted: Arc::clone(&self.counted),
            leased: Arc::clone(&self.leased),
            silent: Arc::clone(&self.silent),
            throttled: self.throttled.clone(),
            timed: self.timed.clone(),
            stretch: ArcSwapOption::empty(),
            values: self.values.following(),
        };
        if campaigns.is_empty() {
            return next;
        }
        let is_changed = |campaign: u64| campaigns.binary_search_by_key(&campaign, |(id, _)| *id).is_ok();
        next.impression_bids.retain(|(line, _)| lines.binary_search(line).is_err());
        next.timed.retain(|(campaign, _)| !is_changed(*campaign));
        next.throttled.retain(|(campaign, _)| !is_changed(*campaign));
        let (silent, listed) = (Arc::make_mut(&mut next.silent), Arc::make_mut(&mut next.impression_ads));
        for line in lines {
            let row = next.resolved.row(line);
            for ad in content.ads_of_line(line) {
                place(silent, *ad, !row.bids());
                place(listed, *ad, row.bids() && row.is_by_impression());
            }
            next.impression_bids.extend(impression_bid((line, row)));
        }
        for speaking in campaigns.into_iter().filter_map(|campaign| speaking(&next.resolved, campaign)) {
            next.timed.extend(timed(speaking));
            next.throttled.extend(throttled(speaking));
        }
        // Both were sorted but for the few at the end.
        next.impression_bids.sort_by_key(highest_first);
        next.timed.sort_by_key(|(campaign, _)| *campaign);
        next.throttled.sort_by_key(|(campaign, _)| *campaign);
        next
    }

    /// Its number.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.resolved.delivery().version()
    }

    /// The ads that bid at no time.
    #[must_use]
    pub fn silent(&self) -> Arc<Bitset> {
        Arc::clone(&self.silent)
    }

    /// The ads that do not bid at an instant.
    #[must_use]
    pub fn silent_at(&self, content: &Content, unix_s: i64) -> Arc<Bitset> {
        if self.timed.is_empty() {
            return Arc::clone(&self.silent);
        }
        let held = self.stretch.load();
        if let Some(stretch) = held.as_deref().filter(|s| s.from <= unix_s && unix_s < s.until) {
            return Arc::clone(&stretch.silent);
        }
        let stretch = self.stretch_at(content, unix_s);
        let silent = Arc::clone(&stretch.silent);
        self.stretch.store(Some(Arc::new(stretch)));
        silent
    }

    fn stretch_at(&self, content: &Content, unix_s: i64) -> Stretch {
        let (mut from, mut until) = (i64::MIN, i64::MAX);
        let mut silent = Bitset::clone(&self.silent);
        for (campaign, schedule) in &self.timed {
            for edge in [schedule.starts_s, schedule.ends_s].into_iter().filter(|edge| *edge != 0) {
                if edge <= unix_s {
                    from = from.max(edge);
                } else {
                    until = until.min(edge);
                }
            }
            if !schedule.runs_at(unix_s) {
                content.ads_of_campaign_id(*campaign).iter().for_each(|ad| silent.insert(*ad));
            }
        }
        Stretch { from, until, silent: Arc::new(silent) }
    }

    /// `silent` with the ads of campaigns that take no part in this auction: a hash of both decides, so every shard and a
    /// replay decide alike, and before the cut.
    #[must_use]
    pub fn silent_in(&self, silent: &Arc<Bitset>, content: &Content, auction: u64) -> Arc<Bitset> {
        let mut out =
            self.throttled.iter().filter(|(campaign, ppm)| !participates(auction, *campaign, *ppm)).peekable();
        if out.peek().is_none() {
            return Arc::clone(silent);
        }
        let mut silent = Bitset::clone(silent);
        for (campaign, _) in out {
            content.ads_of_campaign_id(*campaign).iter().for_each(|ad| silent.insert(*ad));
        }
        Arc::new(silent)
    }

    /// What each item of a shard is worth at best; none if the bundle does not weigh value.
    #[must_use]
    pub fn values(&self, loaded: &LoadedShard) -> Option<Arc<[f32]>> {
        self.values.of(&loaded.shard, self, &loaded.bundle)
    }

    /// What an ad bids.
    #[inline]
    #[must_use]
    pub fn row(&self, shard: &Shard, ad: u32) -> &DeliveryRow {
        let sealed = shard.content();
        if ad < sealed.ads() {
            return self.resolved.row(sealed.line_place(ad));
        }
        // A recent document's line may be new to the sealed content: it is looked up.
        let ((campaign, ad_group), delivery) = (shard.line(ad), self.resolved.delivery());
        delivery.row(delivery.row_of(campaign, ad_group))
    }
}

fn impression_bid((line, row): (u32, &DeliveryRow)) -> Option<(u32, u64)> {
    (row.bids() && row.is_by_impression()).then(|| (line, row.paced().0))
}

/// A campaign with a row of its lines that bids, if one does: schedule and throttle are the campaign's, so the same in
/// all of them.
fn speaking(resolved: &ResolvedDelivery, (campaign, mut lines): (u64, Range<u32>)) -> Option<(u64, &DeliveryRow)> {
    lines.find(|line| resolved.row(*line).bids()).map(|line| (campaign, resolved.row(line)))
}

fn timed((campaign, row): (u64, &DeliveryRow)) -> Option<(u64, Schedule)> {
    (!row.schedule.is_open()).then_some((campaign, row.schedule))
}

fn throttled((campaign, row): (u64, &DeliveryRow)) -> Option<(u64, u32)> {
    (row.throttle_ppm < PPM).then_some((campaign, row.throttle_ppm))
}

fn highest_first((line, bid): &(u32, u64)) -> (Reverse<u64>, u32) {
    (Reverse(*bid), *line)
}

fn place(ads: &mut Bitset, ad: u32, is_in: bool) {
    if is_in { ads.insert(ad) } else { ads.remove(ad) }
}

#[cfg(test)]
mod tests;
