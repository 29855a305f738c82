//! Which eligible ads bid the most?
//!
//! Impression-billed ads pay for being shown, so what is worth retrieving of them does not depend on the
//! user: the exact list of the eligible ones by bid, with a quota of its own (decision 14). A pass over
//! their campaigns from the highest bid down, which ends as soon as the quota is full.

use crate::{segment::Bitset, shard::Shard};

/// The `quota` eligible ads of these campaigns with the highest bids, by (bid desc, ordinal asc).
/// `bids` are (campaign, bid), the highest bid first.
#[must_use]
pub fn top_by_bid(shard: &Shard, eligible: &Bitset, bids: &[(u64, u64)], quota: u32) -> Vec<u32> {
    let mut ads = Vec::new();
    for same_bid in bids.chunk_by(|a, b| a.1 == b.1) {
        if ads.len() >= quota as usize {
            break;
        }
        let from = ads.len();
        let found = same_bid.iter().flat_map(|(campaign, _)| shard.ads_of_campaign(*campaign));
        ads.extend(found.filter(|ad| eligible.contains(*ad)));
        if let Some(level) = ads.get_mut(from..) {
            level.sort_unstable();
        }
    }
    ads.truncate(quota as usize);
    ads
}
