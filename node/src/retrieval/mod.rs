//! Which few hundred of this shard's items could win this request?
//!
//! Targeting gives the eligible ads exactly; the items that have one are searched by the way that the
//! planner takes; the delta is always scanned. Where the model folder has a second, more precise column, the
//! best finds are compared again with it. What comes back is items with their similarity, nearest first, and the
//! eligible ads, from which the caller takes each item's best. Finds of all ways have the same similarity
//! to the bit, because all compare through the same kernels.
//!
//! Where the bundle weighs value, an item's place is its similarity plus its weighted value under the bids of the request
//! ([`Values`]). A search goes by what an item is worth at best, and its finds are put in order by what they are worth
//! to this request; the similarity that comes back is without it.
//!
//! A deadline that passes leaves what was found so far and says so (decision 22); it is never an error.

pub mod bids;
pub mod planner;
pub mod recall;
pub(crate) mod search;

pub use bids::{Listed, top_by_bid};
pub use planner::{Ask, Method, Mode, Plan};
pub(crate) use search::Found;

use crate::{
    segment::{
        Bitset, EligibleAds, SegmentError, TargetingQuery, TopK, model_folder::Asked, model_folder::PreparedQuery,
        observed, scan::Bonus, walk::WalkScratch,
    },
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
    /// What to add to similarities for what items are worth; none where the bundle does not weigh value.
    pub values: Option<Values<'a>>,
    /// True once the deadline has passed; asked every few hundred comparisons.
    pub expired: &'a dyn Fn() -> bool,
    /// CPU microseconds of the calling thread: what a search took corrects what the next is expected to take. Not wall
    /// time: on a busy machine that would make the way that is taken look dear beside those that are not.
    pub cpu_us: &'a dyn Fn() -> u64,
}

/// Weighted values of items, in the unit of similarities.
#[derive(Clone, Copy)]
pub struct Values<'a> {
    /// By item ordinal: what each is worth at best, whichever of its ads is eligible.
    pub bounds: &'a [f32],
    /// What an item is worth by its best ad among these; not more than its bound.
    pub among: &'a dyn Fn(u32, &Bitset) -> f32,
}

/// Memory that is used again.
#[derive(Default)]
pub struct RetrievalScratch {
    top: TopK,
    best: TopK,
    walk: WalkScratch,
}

/// What a shard found.
#[derive(Clone, Debug, PartialEq)]
pub struct Retrieved {
    /// Items with their similarity, in the order of their places, ties by ordinal; at most the quota.
    pub items: Vec<(u32, f32)>,
    /// What their places are by, parallel to the items: similarity and value.
    pub places: Vec<f32>,
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
    let prepared = model.prepare_query(query.vector)?;
    let (sealed, newer) = shard.items_of(&eligible.ads);
    let (sealed_count, newer_count) = (sealed.count(), newer.count());
    let ask = Ask { eligible: sealed_count, items: sealed.len(), quota: query.quota };
    let (exact, full) = (query.mode == Mode::Exact, model.rescore_format().is_some());
    // The oracle knows what each eligible item is worth; a search goes by the bounds.
    let worth = query.values.filter(|_| exact).map(|values| worth(shard, values, &eligible.ads, (&sealed, &newer)));
    let bonus: Bonus<'_> = worth.as_deref().or(query.values.map(|values| values.bounds));
    let asked = |allowed| Asked { query: &prepared, allowed, bonus, expired: query.expired };
    let RetrievalScratch { top, best, walk } = scratch;
    let plan = search::plan(model, asked(&sealed), (query.mode, ask), walk, top);
    // The oracle compares in full precision at once.
    let again = !exact && (full || query.values.is_some());
    top.reset(if again { planner::rescored(query.quota) } else { query.quota } as usize);
    // The delta first: it is small, and a deadline then costs sealed items only.
    let in_delta = if exact {
        model.scan_full_rows(asked(&newer), (shard.delta_rows(), shard.delta_full_rows()), top)
    } else {
        model.scan_rows(asked(&newer), shard.delta_rows(), top)
    };
    let timed = !exact && observed::is_timed(plan.calibrated_us);
    let start = if timed { (query.cpu_us)() } else { 0 };
    let in_sealed = match query.mode {
        Mode::Exact => model.scan_full(asked(&sealed), top),
        Mode::Auto | Mode::Graph => search::search_sealed(model, asked(&sealed), (plan.method, ask), walk, top),
    };
    let (items, places) = if again || query.values.is_some() {
        order_again(shard, query, (&prepared, &eligible.ads), top.sorted(), best)
    } else {
        let found = top.sorted();
        (found.iter().map(|(place, item)| (*item, *place)).collect(), found.iter().map(|(place, _)| *place).collect())
    };
    if let (Some(way), true, true) = (plan.method.way(), in_sealed.finished, timed) {
        model.observe(way, plan.calibrated_us, (query.cpu_us)().saturating_sub(start) as f32);
    }
    Ok(Retrieved {
        items,
        places,
        eligible,
        eligible_items: sealed_count + newer_count,
        plan,
        items_seen: in_sealed.seen + in_delta.seen,
        finished: in_sealed.finished && in_delta.finished,
    })
}

/// What each of the eligible items is worth, by ordinal.
fn worth(shard: &Shard, values: Values<'_>, eligible: &Bitset, (sealed, newer): (&Bitset, &Bitset)) -> Vec<f32> {
    let mut worth = vec![0.0; shard.items() as usize];
    let offset = sealed.len();
    for item in sealed.iter().chain(newer.iter().map(|item| item + offset)) {
        if let Some(value) = worth.get_mut(item as usize) {
            *value = (values.among)(item, eligible);
        }
    }
    worth
}

/// The finds compared again as precisely as they are stored, and put in order by that and by what they are worth to this
/// request: items with their similarity, and their places.
fn order_again(
    shard: &Shard,
    query: &RetrievalQuery<'_>,
    (prepared, eligible): (&PreparedQuery, &Bitset),
    found: &[(f32, u32)],
    best: &mut TopK,
) -> (Vec<(u32, f32)>, Vec<f32>) {
    best.reset(found.len());
    shard.model().compare(prepared, found, (shard.delta_rows(), shard.delta_full_rows()), best);
    let value = |item| query.values.map_or(0.0, |values| (values.among)(item, eligible));
    let mut placed: Vec<(f32, u32, f32)> =
        best.sorted().iter().map(|(similarity, item)| (*similarity + value(*item), *item, *similarity)).collect();
    placed.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    placed.truncate(query.quota as usize);
    (placed.iter().map(|(_, item, similarity)| (*item, *similarity)).collect(), placed.iter().map(|p| p.0).collect())
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_changes;
