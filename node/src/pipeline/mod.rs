//! What happens to one search on one shard, in order?
//!
//! Targeting and retrieval, the light cut, match features, the ranker, auction score and cut. [`funnel`] is
//! that life on one screen; everything it calls is a kernel of another module or the segment layer.
//!
//! A search has a deadline and keeps it: what is found until then is answered, with the number of items
//! that the answer stands for scaled down to what was really considered (RQ4). The work runs on plain
//! threads with scratch memory of their own ([`executor`]), never on the async runtime.

pub mod admission;
pub mod executor;
pub mod probe;
pub mod search;
pub mod thread;

mod answer;
mod candidates;

mod light;
mod measure;
mod table;

use gavel_model::blocks::{BoundRanker, RankBuffers, rank_in_blocks};
use gavel_model::{ModelError, Scratch};
use gavel_proto::deadline::Instant;
use gavel_proto::money::Leased;

use crate::features::{MatchColumn, match_features};
use crate::ranking::auction::{Candidate, score_and_cut};
use crate::ranking::explain::{Account, Reason, Unwatched, Witness};
use crate::ranking::light::{LightItem, light_cut, note_all};
use crate::retrieval::{RetrievalQuery, RetrievalScratch};
use crate::segment::{Bitset, SegmentError, TargetingQuery};
use crate::staging::holdings::Target;
use candidates::Found;
use measure::Laps;
use search::{Counted, Reasons, Search, ShardAnswer, Timing};
use table::ShardTable;

/// Buffers of one thread; they grow to what the largest search needs and stay there.
#[derive(Default)]
pub struct SearchScratch {
    retrieval: RetrievalScratch,
    model: Scratch,
    rank: RankBuffers,
    logits: light::LightBuffers,
    light: Vec<LightItem>,
    items: Vec<u32>,
    cross: Vec<f32>,
    predictions: Vec<f32>,
    candidates: Vec<Candidate>,
    found: probe::FoundItems,
}

/// Why a part of a search has no answer.
#[derive(Debug, thiserror::Error)]
pub enum SearchFault {
    /// The segment layer failed.
    #[error("retrieval: {0}")]
    Retrieval(#[from] SegmentError),
    /// The model refused inputs whose widths were checked: a fault of ours.
    #[error("ranker: {0}")]
    Ranker(#[from] ModelError),
    /// The reasons of all ads are one answer: a part of them would not add up.
    #[error("the deadline passed before every ad had its reason")]
    Late,
}

/// What the clock says.
pub type Clock = fn() -> Instant;

/// Searches one shard.
///
/// # Errors
/// When the segment or the model fails. A deadline is no error, unless reasons are asked for.
pub fn search_shard(
    scratch: &mut SearchScratch,
    target: &Target,
    search: &Search,
    clock: Clock,
) -> Result<ShardAnswer, SearchFault> {
    let target = &target.in_auction(search.auction.auction_id, search.unix_s);
    let shard = &target.loaded.shard;
    match search.reasons {
        Reasons::Unasked => Ok(funnel(scratch, target, search, clock, |_| Some(Unwatched))?.0),
        Reasons::Asked => {
            let query = targeting(target, search);
            let account = |found: &Found| {
                let (admitted, eligible) = (shard.admitted(&query), &found.eligible.ads);
                let barrier =
                    |ad| if eligible.contains(ad) { None } else { table::barrier(target, ad, &query, &admitted) };
                Account::new(shard.ads(), barrier, || search.deadline.passed(clock()))
            };
            let (mut answer, account) = funnel(scratch, target, search, clock, account)?;
            answer::explain(&mut answer, shard, &account, &query);
            Ok(answer)
        }
    }
}

fn targeting<'a>(target: &'a Target, search: &'a Search) -> TargetingQuery<'a> {
    TargetingQuery {
        terms: &search.terms,
        unix_s: search.unix_s,
        blocked_advertisers: &search.blocked.advertisers,
        blocked_categories: &search.blocked.categories,
        blocked_campaigns: &search.blocked.campaigns,
        capped_campaigns: &search.blocked.capped_campaigns,
        capped_ads: &search.blocked.capped_ads,
        counted: match search.blocked.counted {
            Counted::Known => None,
            Counted::Unknown => Some(&target.delivery.counted),
        },
        leased: match search.blocked.leased {
            Leased::Admitted => None,
            Leased::Out => Some(&target.delivery.leased),
        },
        excluded: Some(&target.silent),
    }
}

/// The life of a search on a shard.
fn funnel<W: Witness>(
    scratch: &mut SearchScratch,
    target: &Target,
    search: &Search,
    clock: Clock,
    witness: impl FnOnce(&Found) -> Option<W>,
) -> Result<(ShardAnswer, W), SearchFault> {
    let (shard, bundle) = (&target.loaded.shard, &target.loaded.bundle);
    let (mut timing, mut laps) = (Timing::default(), Laps::start(clock));
    let late = || search.deadline.passed(clock());

    let order = candidates::ValueOrder::of(target);
    let among = |item, ads: &Bitset| order.as_ref().map_or(0.0, |order| order.among(item, ads));
    let query = RetrievalQuery {
        vector: &search.query,
        targeting: targeting(target, search),
        quota: search.quota,
        mode: search.mode,
        values: order.as_ref().map(|order| order.values(&among)),
        expired: &late,
        cpu_us: &thread::cpu_us,
    };
    let found = match search.given.as_slice() {
        [] => candidates::find(shard, &target.delivery, &query, &mut scratch.retrieval)?,
        given => candidates::given(shard, &query, given, &mut scratch.retrieval)?,
    };
    scratch.found.keep(&found);
    let mut witness = witness(&found).ok_or(SearchFault::Late)?;
    let table = ShardTable { shard, delivery: &target.delivery, eligible: &found.eligible.ads };
    timing.retrieval_us = laps.lap();

    let retrieved = light::retrieved(
        &bundle.bundle,
        shard,
        &found.items,
        &search.user_part,
        (&mut scratch.model, &mut scratch.logits),
    )?;
    let kept = &mut scratch.light;
    let light = light_cut(&table, bundle.light, retrieved, search.light_keep, kept, &mut witness);
    scratch.items.clear();
    scratch.items.extend(scratch.light.iter().map(|kept| kept.item));
    timing.light_us = laps.lap();

    let columns: Vec<MatchColumn<'_>> = answer::match_columns(bundle, shard.content());
    let missing = match_features(&columns, &search.user_sets, scratch.items.iter().copied(), &mut scratch.cross);
    timing.features_us = laps.lap();

    let mut ranker = BoundRanker { bundle: &bundle.bundle, scratch: &mut scratch.model, user_part: &search.user_part };
    let (items, cross, buffers) = (&scratch.items, &scratch.cross, &mut scratch.rank);
    let activations = |item, out: &mut Vec<f32>| light::append_behind(&bundle.bundle, shard, item, out);
    let ranked = rank_in_blocks(&mut ranker, items, activations, cross, late, buffers, &mut scratch.predictions)?;
    for unranked in &scratch.light[ranked..] {
        note_all(&table, unranked.item, Reason::CutLight, unranked.value, &mut witness);
    }
    timing.rank_us = laps.lap();

    let (ranked_items, predictions) = (&scratch.items[..ranked], &scratch.predictions);
    let candidates = &mut scratch.candidates;
    let scored =
        score_and_cut(&table, ranked_items, predictions, bundle.roles, &search.auction, candidates, &mut witness);
    timing.auction_us = laps.lap();

    measure::count(&light, &columns, &missing);
    let stages = answer::Stages { found: &found, light, ranked, scored, timing };
    Ok((answer::answer(target, search, &stages, scratch), witness))
}

#[cfg(test)]
mod altered_demo;
#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_value;
