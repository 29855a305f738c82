//! Which items does each of the two lists bring?
//!
//! What an ad billed by the thousand impressions is worth does not depend on the user, so these ads come
//! from an exact list by bid with a quota of its own; all others come from the inner product with the user
//! (decision 14). An item that only the first list has found gets its similarity from its vector, so that
//! the light order values its other ads like everybody's.

use std::collections::HashSet;
use std::sync::Arc;

use crate::ranking::value::ValueModel;
use crate::retrieval::{Mode, Plan, RetrievalQuery, RetrievalScratch, Retrieved, Values, retrieve_among, top_by_bid};
use crate::segment::{Bitset, EligibleAds, SegmentError};
use crate::shard::Shard;
use crate::staging::holdings::{ShardDelivery, Target};
use gavel_proto::ids::ItemId;

/// The impression list's share of the quota, on top of it: with one campaign in seven billed by the thousand
/// impressions (decision 23), a quarter leaves it better covered than the rest.
const IMPRESSION_SHARE: u32 = 4;

/// What both lists brought.
pub struct Found {
    /// Items with their similarity: those of the inner product, nearest first, then those of the list by bid.
    pub items: Vec<(u32, f32)>,
    /// How many of them the inner product brought.
    pub nearest: usize,
    /// What the places of these are by: similarity, and value where the bundle weighs it.
    pub places: Vec<f32>,
    /// Every ad that may take part.
    pub eligible: EligibleAds,
    /// Items with such an ad; one that both lists could bring counts in each.
    pub eligible_items: u32,
    /// How the inner product was searched, and what that was expected to cost.
    pub plan: Plan,
    /// Items that the answer stands for: both lists have passed them.
    pub items_seen: u32,
    /// False when the deadline ended either search.
    pub finished: bool,
}

/// Retrieves the items of a search.
pub fn find(
    shard: &Shard,
    delivery: &ShardDelivery,
    query: &RetrievalQuery<'_>,
    scratch: &mut RetrievalScratch,
) -> Result<Found, SegmentError> {
    let eligible = shard.eligible(&query.targeting);
    if delivery.impression_bids.is_empty() {
        let found = retrieve_among(shard, eligible, query, scratch)?;
        let (eligible, eligible_items) = (found.eligible, found.eligible_items);
        let (plan, items_seen, finished) = (found.plan, found.items_seen, found.finished);
        let (nearest, items, places) = (found.items.len(), found.items, found.places);
        return Ok(Found { items, nearest, places, eligible, eligible_items, plan, items_seen, finished });
    }
    let others = by_nearness(&eligible.ads, delivery);
    let mut impressions = eligible.ads.clone();
    impressions.subtract(&others);
    let quota = query.quota.div_ceil(IMPRESSION_SHARE);
    let bids = &delivery.impression_bids;
    let listed = top_by_bid(shard, &impressions, bids, quota, query.expired);
    // A list that ended early has passed items as far as it has passed lines.
    let listed_seen = u64::from(shard.items()) * listed.lines as u64 / bids.len().max(1) as u64;
    let count = others.count();
    let mut found = retrieve_among(shard, EligibleAds { ads: others, count }, query, scratch)?;
    let more = retrieve_listed(shard, query, &listed.ads, &found.items, scratch)?;
    let nearest = found.items.len();
    found.items.extend(more.items);
    let (sealed, newer) = shard.items_of(&impressions);
    Ok(Found {
        items: found.items,
        nearest,
        places: found.places,
        eligible,
        eligible_items: found.eligible_items + sealed.count() + newer.count(),
        plan: found.plan,
        items_seen: found.items_seen.min(more.items_seen).min(listed_seen as u32),
        finished: found.finished && more.finished && listed.finished,
    })
}

/// Items that the caller names, as far as they are here and have an eligible ad.
pub fn given(
    shard: &Shard,
    query: &RetrievalQuery<'_>,
    items: &[u64],
    scratch: &mut RetrievalScratch,
) -> Result<Found, SegmentError> {
    let (eligible, sealed) = (shard.eligible(&query.targeting), shard.content());
    let mut ads = Bitset::empty(shard.ads());
    for item in items.iter().filter_map(|id| sealed.find_item(ItemId(*id))) {
        sealed.ads_of(item).filter(|ad| eligible.ads.contains(*ad)).for_each(|ad| ads.insert(ad));
    }
    let count = ads.count();
    let exactly = RetrievalQuery { quota: count.max(1), mode: Mode::Exact, ..*query };
    let found = retrieve_among(shard, EligibleAds { ads, count }, &exactly, scratch)?;
    Ok(Found {
        nearest: found.items.len(),
        items: found.items,
        places: found.places,
        eligible: found.eligible,
        eligible_items: found.eligible_items,
        plan: found.plan,
        items_seen: found.items_seen,
        finished: found.finished,
    })
}

/// What the inner product alone finds: the part of [`find`] that can miss something.
pub fn nearest(
    shard: &Shard,
    delivery: &ShardDelivery,
    query: &RetrievalQuery<'_>,
    scratch: &mut RetrievalScratch,
) -> Result<Retrieved, SegmentError> {
    let ads = by_nearness(&shard.eligible(&query.targeting).ads, delivery);
    let count = ads.count();
    retrieve_among(shard, EligibleAds { ads, count }, query, scratch)
}

/// The ads that are not on the list by bid.
fn by_nearness(eligible: &Bitset, delivery: &ShardDelivery) -> Bitset {
    let mut others = eligible.clone();
    others.subtract(&delivery.impression_ads);
    others
}

/// What items are worth to a search, where the bundle weighs value.
pub struct ValueOrder<'a> {
    target: &'a Target,
    model: ValueModel,
    bounds: Arc<[f32]>,
}

impl<'a> ValueOrder<'a> {
    /// Of a shard under its bids.
    pub fn of(target: &'a Target) -> Option<Self> {
        let bounds = target.delivery.values(&target.loaded)?;
        Some(Self { target, model: target.loaded.bundle.value?, bounds })
    }

    /// What an item is worth by its best ad among these.
    pub fn among(&self, item: u32, ads: &Bitset) -> f32 {
        let shard = &self.target.loaded.shard;
        let rows = shard.ads_of(item).filter(|ad| ads.contains(*ad)).map(|ad| self.target.delivery.row(shard, ad));
        self.model.best(rows).unwrap_or(0.0)
    }

    /// For retrieval; `among` is [`Self::among`].
    pub fn values<'b>(&'b self, among: &'b dyn Fn(u32, &Bitset) -> f32) -> Values<'b> {
        Values { bounds: &self.bounds, among }
    }
}

/// The items of the listed ads that are not there yet.
fn retrieve_listed(
    shard: &Shard,
    query: &RetrievalQuery<'_>,
    listed: &[u32],
    items: &[(u32, f32)],
    scratch: &mut RetrievalScratch,
) -> Result<Retrieved, SegmentError> {
    let found: HashSet<u32> = items.iter().map(|(item, _)| *item).collect();
    let mut ads = Bitset::empty(shard.ads());
    for ad in listed.iter().filter(|ad| !found.contains(&shard.item_of(**ad))) {
        ads.insert(*ad);
    }
    let count = ads.count();
    // The same comparison as every other item's, to the bit: a scan of just these.
    let exactly = RetrievalQuery { quota: count, mode: Mode::Exact, values: None, ..*query };
    retrieve_among(shard, EligibleAds { ads, count }, &exactly, scratch)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{ITEMS, STAGED};
    use super::super::targeting;
    use super::*;
    use std::cell::Cell;

    /// What is given is scored as it would be had it been retrieved, and nothing else is.
    #[test]
    fn given_items_are_found_with_the_similarity_of_a_retrieval() {
        let (target, search) = (STAGED.target(), STAGED.search());
        let shard = &target.loaded.shard;
        let query = RetrievalQuery {
            vector: &search.query,
            targeting: targeting(&target, &search),
            quota: search.quota,
            mode: Mode::Exact,
            values: None,
            expired: &|| false,
            cpu_us: &|| 0,
        };
        let mut scratch = RetrievalScratch::default();
        let all = find(shard, &target.delivery, &query, &mut scratch).unwrap();
        let wanted = &all.items[..2];
        let ids: Vec<u64> = wanted.iter().map(|(item, _)| shard.item_id(*item).0).chain([u64::MAX]).collect();
        let found = given(shard, &query, &ids, &mut scratch).unwrap();
        let sorted = |items: &[(u32, f32)]| {
            let mut items = items.to_vec();
            items.sort_by_key(|(item, _)| *item);
            items
        };
        assert_eq!(sorted(&found.items), sorted(wanted));
        assert!(found.finished && found.eligible.count >= 2);
    }

    #[test]
    fn a_deadline_in_either_search_is_told() {
        let (target, search) = (STAGED.target(), STAGED.search());
        let find_within = |looks: u32| {
            let left = Cell::new(looks);
            let expired = || left.replace(left.get().saturating_sub(1)) == 0;
            let query = RetrievalQuery {
                vector: &search.query,
                targeting: targeting(&target, &search),
                quota: search.quota,
                mode: Mode::Exact,
                values: None,
                expired: &expired,
                cpu_us: &|| 0,
            };
            find(&target.loaded.shard, &target.delivery, &query, &mut RetrievalScratch::default()).unwrap()
        };
        let whole = find_within(u32::MAX);
        assert!(whole.finished && u64::from(whole.items_seen) == ITEMS && whole.items.len() > whole.nearest);
        let cut: Vec<Found> = (0..).map(find_within).take_while(|found| found.items != whole.items).collect();
        for found in &cut {
            assert!(!found.finished && u64::from(found.items_seen) < ITEMS);
        }
        let second = cut.last().expect("some look is the last");
        assert_eq!(second.items, whole.items[..whole.nearest], "the last look is that of the list by bid");
    }
}
