//! How do the stages of a search become its answer?

use gavel_proto::limits::EXPLAINED_ADS_MAX;

use super::SearchScratch;
use super::candidates::Found;
use super::search::{CandidateFeatures, ExplainedAd, Features, Funnel, Outcome, Search, ShardAnswer, Timing};
use crate::features::{ItemColumns, MatchColumn};
use crate::ranking::auction::{Candidate, ScoreFunnel};
use crate::ranking::explain::{Account, Reason};
use crate::ranking::light::LightFunnel;
use crate::retrieval::Method;
use crate::segment::{Content, TargetingQuery};
use crate::shard::Shard;
use crate::staging::holdings::{LoadedBundle, Target};

/// Ads explained by one shard: with the usual four shards, what one explain answer may carry.
const EXPLAINED_ADS: usize = EXPLAINED_ADS_MAX / 4;

/// What each stage said.
pub struct Stages<'a> {
    /// Retrieval.
    pub found: &'a Found,
    /// The light cut.
    pub light: LightFunnel,
    /// Items ranked before the deadline.
    pub ranked: usize,
    /// The auction score.
    pub scored: ScoreFunnel,
    /// Times.
    pub timing: Timing,
}

/// The answer of a shard; candidates and predictions are in the scratch.
pub fn answer(target: &Target, search: &Search, stages: &Stages<'_>, scratch: &SearchScratch) -> ShardAnswer {
    let (shard, found) = (&target.loaded.shard, stages.found);
    let kept = stages.light.kept as usize;
    let whole = found.finished && stages.ranked == kept;
    let heads = target.loaded.bundle.roles.heads;
    let rows = scratch.candidates.iter().map(|candidate| candidate.row as usize * heads);
    let predictions = rows.flat_map(|start| scratch.predictions[start..start + heads].iter().copied()).collect();
    let retrieved = match search.auction.cut {
        Some(_) => Vec::new(),
        None => found.items[..found.nearest]
            .iter()
            .zip(&found.places)
            .map(|((item, _), place)| (shard.item_id(*item).0, *place))
            .collect(),
    };
    ShardAnswer {
        outcome: if whole { Outcome::Finished } else { Outcome::TimedOut },
        items_seen: items_seen(found.items_seen.into(), stages.ranked as u64, kept as u64),
        items_total: shard.items().into(),
        plan: plan_name(found.plan.method),
        plan_estimate_us: found.plan.estimate_us() as u64,
        funnel: Funnel {
            ads_total: shard.ads().into(),
            eligible_ads: found.eligible.count.into(),
            eligible_items: found.eligible_items.into(),
            retrieved: found.items.len() as u64,
            light_kept: stages.light.kept,
            ranked: stages.ranked as u64,
            scored: stages.scored.scored,
            returned: stages.scored.returned,
            non_finite: stages.scored.non_finite + stages.light.non_finite,
        },
        timing: stages.timing,
        candidates: scratch.candidates.clone(),
        item_ids: scratch.candidates.iter().map(|candidate| shard.item_id(candidate.item).0).collect(),
        predictions,
        retrieved,
        reasons: Vec::new(),
        explained: Vec::new(),
        features: match search.features {
            Features::Unasked => Vec::new(),
            Features::Asked => features(target, search, scratch),
        },
    }
}

/// What the bundle knew of each candidate: the item's values as they were embedded, and the weights that its match
/// features were made of.
fn features(target: &Target, search: &Search, scratch: &SearchScratch) -> Vec<CandidateFeatures> {
    let (shard, bundle) = (&target.loaded.shard, &target.loaded.bundle);
    let specs = &bundle.bundle.schema().item;
    let matches = match_columns(bundle, shard.content());
    // A document that came after the seal is in a content of its own: two bindings at most.
    let mut bound: Vec<(&Content, ItemColumns<'_>)> = Vec::with_capacity(2);
    let of = |candidate: &Candidate| {
        let (content, place) = shard.item(candidate.item);
        let at = bound.iter().position(|(of, _)| std::ptr::eq(*of, content)).unwrap_or_else(|| {
            bound.push((content, ItemColumns::bind(specs, content)));
            bound.len() - 1
        });
        CandidateFeatures {
            item: bound[at].1.row(place),
            weights: matches.iter().map(|bound| bound.weight(&search.user_sets, candidate.item)).collect(),
        }
    };
    scratch.candidates.iter().map(of).collect()
}

/// The word on the wire.
pub const fn plan_name(method: Method) -> &'static str {
    match method {
        Method::Nothing => "none",
        Method::Scan => "exact",
        Method::Filtered { .. } => "graph",
        Method::Plain { .. } => "graph_post",
    }
}

/// Items that the answer stands for: of what retrieval has seen, the share whose best were ranked.
fn items_seen(seen: u64, ranked: u64, kept: u64) -> u64 {
    if ranked >= kept { seen } else { (u128::from(seen) * u128::from(ranked) / u128::from(kept)) as u64 }
}

/// Adds the reasons.
pub fn explain(answer: &mut ShardAnswer, shard: &Shard, account: &Account, query: &TargetingQuery<'_>) {
    answer.reasons = account.counts();
    let nearest = account.nearest(EXPLAINED_ADS).into_iter().map(|explained| {
        let item = shard.item_of(explained.ad);
        let by_targeting = explained.reason == Reason::NotEligibleTargeting;
        ExplainedAd {
            unmet: if by_targeting { shard.unmet(explained.ad, query).unwrap_or_default() } else { String::new() },
            explained,
            ad_id: shard.ad_id(explained.ad).0,
            item_id: shard.item_id(item).0,
            campaign: shard.campaign(explained.ad).0,
            advertiser: shard.advertiser(item).0,
        }
    });
    answer.explained = nearest.collect();
}

/// Binds the bundle's match features to the columns of a content.
pub fn match_columns<'a>(bundle: &'a LoadedBundle, content: &'a Content) -> Vec<MatchColumn<'a>> {
    let specs = bundle.bundle.schema().cross.iter();
    specs.map(|spec| MatchColumn { spec, column: content.category_column(&spec.item) }).collect()
}

#[cfg(test)]
mod tests {
    use super::items_seen;

    #[test]
    fn an_answer_never_stands_for_more_than_was_ranked() {
        assert_eq!(items_seen(1_000, 50, 50), 1_000);
        assert_eq!(items_seen(1_000, 0, 0), 1_000, "nothing was eligible, and that was found out");
        assert_eq!(items_seen(1_000, 0, 50), 0);
        assert_eq!(items_seen(999, 1, 2), 499);
        assert_eq!(items_seen(u64::MAX, 1, 2), u64::MAX / 2);
    }
}
