//! Which few hundred of this shard's items could win this request?
//!
//! Targeting gives the eligible ads exactly; the items that have one are searched by the way that the
//! planner takes; the delta is always scanned. What comes back is items with their similarity, nearest
//! first, and the eligible ads, from which the caller takes each item's best. Finds of both ways have the
//! same similarity to the bit, because both compare through the same kernel.
//!
//! A deadline that passes leaves what was found so far and says so (decision 22); it is never an error.

pub mod bids;
pub mod planner;

pub use bids::top_by_bid;
pub use planner::{Method, Mode, Plan};

use crate::{
    segment::{EligibleAds, SegmentError, TargetingQuery, TopK, scan::Bonus},
    shard::Shard,
};

/// What a request asks of a shard.
#[derive(Clone, Copy)]
pub struct RetrievalQuery<'a> {
    /// The query vector, finite and of the model's dimension.
    pub vector: &'a [f32],
    /// Which ads may be shown.
    pub targeting: TargetingQuery<'a>,
    /// Items wanted.
    pub quota: u32,
    /// How to find them.
    pub mode: Mode,
    /// What to add to each item's similarity (its expected value, weighted); by item ordinal.
    pub bonus: Bonus<'a>,
    /// True once the deadline has passed; asked every 256 comparisons.
    pub expired: &'a dyn Fn() -> bool,
}

/// Memory that is used again.
#[derive(Default)]
pub struct RetrievalScratch {
    top: TopK,
}

/// What a shard found.
#[derive(Clone, Debug, PartialEq)]
pub struct Retrieved {
    /// Items with their similarity, nearest first, ties by ordinal; at most the quota.
    pub items: Vec<(u32, f32)>,
    /// The eligible ads, by ordinal.
    pub eligible: EligibleAds,
    /// Items that have one.
    pub eligible_items: u32,
    /// How they were found and what that was expected to cost.
    pub plan: Plan,
    /// Items that the answer stands for.
    pub items_seen: u32,
    /// False when the deadline ended the search.
    pub finished: bool,
}

/// Finds the items of a request.
pub fn retrieve(
    shard: &Shard,
    query: &RetrievalQuery<'_>,
    scratch: &mut RetrievalScratch,
) -> Result<Retrieved, SegmentError> {
    let eligible = shard.eligible(&query.targeting);
    retrieve_among(shard, eligible, query, scratch)
}

/// The same among ads that the caller has narrowed further, say to those billed by clicks;
/// `query.targeting` is not read.
pub fn retrieve_among(
    shard: &Shard,
    eligible: EligibleAds,
    query: &RetrievalQuery<'_>,
    scratch: &mut RetrievalScratch,
) -> Result<Retrieved, SegmentError> {
    let model = shard.model();
    let vector = model.prepare_query(query.vector)?;
    let (sealed, newer) = shard.items_of(&eligible.ads);
    let (sealed_count, newer_count) = (sealed.count(), newer.count());
    let plan = planner::plan(query.mode, sealed_count, sealed.len(), query.quota, model.calibration());
    let top = &mut scratch.top;
    top.reset(query.quota as usize);
    // The delta first: it is small, and a deadline then costs sealed items only.
    let offset = sealed.len();
    let in_delta = model.scan_rows(&vector, shard.delta_rows(), (&newer, offset), query.bonus, query.expired, top);
    let in_sealed = match plan.method {
        Method::Nothing => crate::segment::Searched { seen: sealed.len(), finished: true },
        Method::Scan => model.scan(&vector, &sealed, query.bonus, query.expired, top),
        Method::Walk { list } => model.walk(&vector, list, &sealed, query.bonus, query.expired, top)?,
    };
    let items = top.sorted().iter().map(|(similarity, item)| (*item, *similarity)).collect();
    Ok(Retrieved {
        items,
        eligible,
        eligible_items: sealed_count + newer_count,
        plan,
        items_seen: in_sealed.seen + in_delta.seen,
        finished: in_sealed.finished && in_delta.finished,
    })
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_changes;
