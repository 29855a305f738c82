//! Which items have the eligible ads that bid the most?
//!
//! Impression-billed ads pay for being shown, so what is worth retrieving of them does not depend on the
//! user: the exact list of the eligible ones by bid, with a quota of its own (decision 14). A pass over
//! their lines (campaigns and ad groups) from the highest bid down, which ends as soon as the quota is full.
//!
//! The quota counts items, each by its best ad: with a hundred ads an item, the list would otherwise end with the
//! first one (decision 1). However many ads bid alike, no more are held than the quota has places.
//!
//! Lines are those of the sealed content: a recent ad whose line is new to it is not in the list, and is found by
//! similarity alone until the next seal.

use crate::{segment::Bitset, shard::Shard};
use std::collections::BTreeMap;

/// Lines and ads between two looks at the deadline: some microseconds.
const LOOK: u32 = 1_024;

/// The list by bid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// The best ad of each item, by (bid desc, ordinal asc).
    pub ads: Vec<u32>,
    /// Lines that were passed: all of them if the list is what it would be without a deadline.
    pub lines: usize,
    /// False when the deadline ended the pass.
    pub finished: bool,
}

/// The `quota` items whose best eligible ad on these lines bids the most. `bids` are (line, bid), the highest bid
/// first, a line by its place in the sealed content; `expired` says when to stop.
#[must_use]
pub fn top_by_bid(
    shard: &Shard,
    eligible: &Bitset,
    bids: &[(u32, u64)],
    quota: u32,
    expired: &dyn Fn() -> bool,
) -> Listed {
    let mut listed = Listed::default();
    // Sorted, and at most as many as the quota: a look costs a few comparisons and nothing is hashed.
    let mut items: Vec<u32> = Vec::new();
    let mut steps = 0u32;
    let mut late = || {
        steps = steps.wrapping_add(1);
        steps % LOOK == 1 && expired()
    };
    for same_bid in bids.chunk_by(|a, b| a.1 == b.1) {
        let room = (quota as usize).saturating_sub(listed.ads.len());
        if room == 0 {
            break;
        }
        // The first items of this bid, each with its first ad: an item's ads lie side by side, so that items are in
        // the order of their ads.
        let mut level: BTreeMap<u32, u32> = BTreeMap::new();
        for (line, _) in same_bid {
            // Ascending: behind an ad that comes too late all others of the line do.
            for ad in shard.ads_of_line(*line) {
                if late() {
                    return listed;
                }
                let item = shard.item_of(ad);
                if level.len() == room && level.last_key_value().is_some_and(|(last, _)| item > *last) {
                    break;
                }
                if eligible.contains(ad) && items.binary_search(&item).is_err() {
                    level.entry(item).and_modify(|best| *best = ad.min(*best)).or_insert(ad);
                    if level.len() > room {
                        level.pop_last();
                    }
                }
            }
            if late() {
                return listed;
            }
        }
        listed.lines += same_bid.len();
        for item in level.keys() {
            if let Err(place) = items.binary_search(item) {
                items.insert(place, *item);
            }
        }
        listed.ads.extend(level.values());
    }
    Listed { lines: bids.len(), finished: true, ..listed }
}
