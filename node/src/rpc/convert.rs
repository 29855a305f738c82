//! What does the wire say of a search, and how is its answer said there?
//!
//! Every list has its limit here and every number is checked to be one, so that nothing behind this module
//! has to ask again.

use gavel_model::{FeatureValue, Schema};
use gavel_proto::cut::{CutRule, Neighbours, SPARE};
use gavel_proto::deadline::{Deadline, Instant};
use gavel_proto::epoch::Epoch;
use gavel_proto::hash::TieKey;
use gavel_proto::limits::{
    BLOCKED_MAX, CANDIDATES_MAX, CAPPED_MAX, DEADLINE_MS_MAX, EXCLUDED_CAMPAIGNS_MAX, FEATURES_MAX, MEASURED_ITEMS_MAX,
    MEASURED_MS_MAX, SET_VALUES_MAX, SHARDS_MAX, SLOTS_MAX, TERMS_MAX,
};
use gavel_proto::money::Leased;
use gavel_proto::score::QualityRule;
use gavel_proto::targeting::order;
use gavel_proto::wire;

use crate::config::OraclePolicy;
use crate::features::UserSets;
use crate::pipeline::search::{
    Blocked, BundleHash, CandidateFeatures, Counted, Features, Reasons, Search, ShardAnswer,
};
use crate::ranking::auction::AuctionTerms;
use crate::retrieval::Mode;
use crate::segment::Term;
use crate::staging::holdings::{LoadedBundle, Target};

/// What is wrong with a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

fn invalid<T>(reason: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid(reason.into()))
}

fn at_most(what: &str, length: usize, max: usize) -> Result<(), Invalid> {
    if length > max { invalid(format!("{length} {what} are more than {max}")) } else { Ok(()) }
}

/// The bundle that a call names.
pub fn model_hash(request: &wire::SearchRequest) -> Result<BundleHash, Invalid> {
    let hash = request.model_hash.as_slice();
    hash.try_into().map_err(|_| Invalid(format!("a model hash has 32 bytes, not {}", hash.len())))
}

/// When the creatives of a call are worthless, and which items it wants.
pub fn hydrate(request: wire::HydrateRequest, now: Instant) -> Result<(Deadline, Vec<wire::HydrateKey>), Invalid> {
    at_most("keys", request.keys.len(), SLOTS_MAX as usize)?;
    if request.deadline_us == 0 {
        return invalid("deadline_us: at least 1");
    }
    Ok((Deadline(Instant(now.0.saturating_add(request.deadline_us))), request.keys))
}

/// The shards that a call names, each once.
pub fn shards(request: &wire::SearchRequest) -> Result<Vec<u32>, Invalid> {
    at_most("shards", request.shards.len(), SHARDS_MAX as usize)?;
    let mut shards = request.shards.clone();
    shards.sort_unstable();
    shards.dedup();
    match shards.len() == request.shards.len() && !shards.is_empty() {
        true => Ok(shards),
        false => invalid("shards: name at least one, and each once"),
    }
}

/// A call after its checks against the bundle that it names.
pub fn search(
    request: wire::SearchRequest,
    bundle: &LoadedBundle,
    policy: OraclePolicy,
    now: Instant,
) -> Result<Search, Invalid> {
    let epoch: Epoch = request.epoch.map(Epoch::from).ok_or_else(|| Invalid("no epoch".to_owned()))?;
    let model_hash = model_hash(&request)?;
    let reach = reach(&request, policy)?;
    let deadline = Deadline(Instant(now.0.saturating_add(request.deadline_us)));
    let query = floats("query_vector", &request.query_vector, bundle.bundle.schema().dimension)?;
    let user_part = floats("user_part", &request.user_part, bundle.bundle.user_part_width())?;
    let auction = auction(&request)?;
    let (quota, light_keep) = (request.quota, request.light_keep as usize);
    let mode = retrieval(request.mode)?;
    at_most("blocked advertisers", request.blocked_advertisers.len(), BLOCKED_MAX)?;
    at_most("blocked categories", request.blocked_categories.len(), BLOCKED_MAX)?;
    at_most("blocked campaigns", request.blocked_campaigns.len(), BLOCKED_MAX + EXCLUDED_CAMPAIGNS_MAX)?;
    at_most("capped campaigns", request.capped_campaigns.len(), CAPPED_MAX)?;
    at_most("capped ads", request.capped_ads.len(), CAPPED_MAX)?;
    at_most("items retrieved", quota as usize, reach as usize)?;
    at_most("items ranked", light_keep, reach as usize)?;
    at_most("given items", request.given_items.len(), CANDIDATES_MAX as usize)?;
    Ok(Search {
        epoch,
        model_hash,
        deadline,
        query,
        user_part,
        user_sets: user_sets(request.user_sets)?,
        terms: terms(request.terms)?,
        unix_s: request.unix_s,
        blocked: Blocked {
            advertisers: request.blocked_advertisers,
            categories: request.blocked_categories,
            campaigns: request.blocked_campaigns,
            capped_campaigns: request.capped_campaigns,
            capped_ads: capped_ads(&request.capped_ads),
            counted: if request.without_counted { Counted::Unknown } else { Counted::Known },
            leased: if request.without_leased { Leased::Out } else { Leased::Admitted },
        },
        quota,
        light_keep,
        auction,
        mode,
        given: request.given_items,
        reasons: if request.explain { Reasons::Asked } else { Reasons::Unasked },
        features: if request.features { Features::Asked } else { Features::Unasked },
    })
}

/// In the order in which they are looked for.
fn capped_ads(ads: &[wire::CappedAd]) -> Vec<(u64, u64)> {
    let mut ads: Vec<(u64, u64)> = ads.iter().map(|capped| (capped.campaign_id, capped.ad_id)).collect();
    ads.sort_unstable();
    ads
}

/// How many items a call may ask for; checks its deadline on the way.
fn reach(request: &wire::SearchRequest, policy: OraclePolicy) -> Result<u32, Invalid> {
    let (items, deadline_us) = match (request.return_all_scored, policy) {
        (true, OraclePolicy::Answered) => (MEASURED_ITEMS_MAX, MEASURED_MS_MAX * 1_000),
        (true, OraclePolicy::Refused) => return invalid("return_all_scored is switched off on this node"),
        (false, OraclePolicy::Answered | OraclePolicy::Refused) => (CANDIDATES_MAX, DEADLINE_MS_MAX * 1_000),
    };
    if request.deadline_us == 0 || request.deadline_us > deadline_us {
        return invalid(format!("deadline_us: 1 to {deadline_us}"));
    }
    if request.quota == 0 || request.light_keep == 0 {
        return invalid("quota and light_keep: at least 1");
    }
    Ok(items)
}

fn retrieval(mode: i32) -> Result<Mode, Invalid> {
    match wire::RetrievalMode::try_from(mode) {
        Ok(wire::RetrievalMode::RetrievalAuto) => Ok(Mode::Auto),
        Ok(wire::RetrievalMode::RetrievalExact) => Ok(Mode::Exact),
        Ok(wire::RetrievalMode::RetrievalGraph) => Ok(Mode::Graph),
        Err(_) => invalid(format!("retrieval mode {mode} is unknown")),
    }
}

/// Little-endian f32s of an exact width, all finite.
fn floats(what: &str, bytes: &[u8], width: usize) -> Result<Vec<f32>, Invalid> {
    if bytes.len() != width * 4 {
        return invalid(format!("{what}: {} bytes where the bundle has {width} numbers", bytes.len()));
    }
    let numbers = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let numbers: Vec<f32> = numbers.collect();
    match numbers.iter().position(|n| !n.is_finite()) {
        Some(at) => invalid(format!("{what}: number {at} is not finite")),
        None => Ok(numbers),
    }
}

fn auction(request: &wire::SearchRequest) -> Result<AuctionTerms, Invalid> {
    let Some(shape) = &request.auction else { return invalid("no auction") };
    if shape.slots == 0 || shape.slots > SLOTS_MAX {
        return invalid(format!("slots: 1 to {SLOTS_MAX}"));
    }
    let limit = |limit: u32| (limit > 0).then_some(limit as usize);
    let rule = CutRule {
        slots: shape.slots as usize,
        per_advertiser: limit(shape.per_advertiser).unwrap_or(1),
        per_category: limit(shape.per_category),
        neighbours: shape.neighbours().into(),
        spare: SPARE,
    };
    // As many slots as there can be ads, without a limit: every ranked ad is picked.
    let all = CANDIDATES_MAX as usize;
    let whole = CutRule { slots: all, per_advertiser: all, per_category: None, neighbours: Neighbours::Any, ..rule };
    let rule = if shape.whole { whole } else { rule };
    let Ok(tie_key) = <[u8; 32]>::try_from(shape.tie_key.as_slice()).map(TieKey::from_bytes) else {
        return invalid("tie_key: 32 bytes, those of the auction's configuration");
    };
    let quality = shape.quality.map(QualityRule::from).unwrap_or_default();
    if !quality.is_within_limits() {
        return invalid("a number of the quality rule is out of range");
    }
    Ok(AuctionTerms {
        auction_id: request.auction_id,
        tie_key,
        reserve_cpm_micros: shape.reserve_cpm_micros,
        quality,
        // What was given is compared, so all of it comes back.
        cut: (!request.return_all_scored && request.given_items.is_empty()).then_some(rule),
    })
}

fn user_sets(sets: Vec<wire::UserSet>) -> Result<UserSets, Invalid> {
    at_most("user sets", sets.len(), FEATURES_MAX)?;
    let mut out = UserSets::default();
    for set in sets {
        at_most("values of a user set", set.values.len(), SET_VALUES_MAX)?;
        if set.weights.len() != set.values.len() {
            return invalid(format!("user set {:?}: values and weights differ in number", set.feature));
        }
        if !set.weights.iter().all(|weight| weight.is_finite()) {
            return invalid(format!("user set {:?}: a weight is not finite", set.feature));
        }
        out.insert(set.feature, set.values.into_iter().zip(set.weights));
    }
    Ok(out)
}

fn terms(terms: Vec<wire::HashedTerm>) -> Result<Vec<Term>, Invalid> {
    at_most("terms", terms.len(), TERMS_MAX)?;
    let checked = terms.into_iter().map(|term| {
        at_most("values of a term", term.values.len(), SET_VALUES_MAX)?;
        let number = match term.number.map(order) {
            Some(None) => return invalid("the number of a term is not finite"),
            number => number.flatten(),
        };
        Ok(Term { dimension: term.dimension, values: term.values, number })
    });
    checked.collect()
}

/// A part without an answer.
pub fn unanswered(shard: u32, epoch: Epoch, status: wire::AnswerStatus, detail: String) -> wire::ShardAnswer {
    wire::ShardAnswer {
        shard,
        status: status.into(),
        detail,
        epoch: Some(epoch.into()),
        ..wire::ShardAnswer::default()
    }
}

/// A part with its answer.
pub fn answered(
    shard: u32,
    node: u64,
    epoch: Epoch,
    status: wire::AnswerStatus,
    target: &Target,
    answer: ShardAnswer,
) -> wire::ShardAnswer {
    let (funnel, timing) = (answer.funnel, answer.timing);
    wire::ShardAnswer {
        shard,
        status: status.into(),
        detail: String::new(),
        epoch: Some(epoch.into()),
        items_seen: answer.items_seen,
        items_total: answer.items_total,
        funnel: Some(wire::ShardFunnel {
            eligible_ads: funnel.eligible_ads,
            eligible_items: funnel.eligible_items,
            retrieved: funnel.retrieved,
            light_kept: funnel.light_kept,
            ranked: funnel.ranked,
            scored: funnel.scored,
            returned: funnel.returned,
            non_finite: funnel.non_finite,
            ads_total: funnel.ads_total,
        }),
        timing: Some(wire::ShardTiming {
            shard,
            node_id: node,
            plan: answer.plan.to_owned(),
            retrieval_us: timing.retrieval_us,
            features_us: timing.features_us,
            light_us: timing.light_us,
            rank_us: timing.rank_us,
            auction_us: timing.auction_us,
            queue_us: timing.queue_us,
            plan_estimate_us: answer.plan_estimate_us,
            model_fingerprint: gavel_proto::epoch::fingerprint(&target.loaded.bundle.bundle.hash()),
        }),
        explained: answer.explained.iter().map(|ad| explained(shard, ad)).collect(),
        reasons: answer.reasons.iter().map(|(reason, ads)| reason_count(reason.name(), *ads)).collect(),
        retrieved_item: answer.retrieved.iter().map(|(item, _)| *item).collect(),
        retrieved_similarity: answer.retrieved.iter().map(|(_, similarity)| *similarity).collect(),
        features: (!answer.features.is_empty())
            .then(|| features(target.loaded.bundle.bundle.schema(), &answer.features)),
        candidates: Some(candidates(&target.loaded.bundle.head_names, answer)),
    }
}

/// What was scored, for the log.
fn features(schema: &Schema, rows: &[CandidateFeatures]) -> wire::ScoredFeatures {
    use wire::scored_value::Value;
    let value = |value: &FeatureValue| wire::ScoredValue {
        value: match value {
            FeatureValue::Missing => None,
            FeatureValue::Category(hash) => Some(Value::Category(*hash)),
            FeatureValue::Dense(number) => Some(Value::Number(*number)),
            FeatureValue::Set(pairs) => Some(Value::Set(wire::ScoredSet {
                values: pairs.iter().map(|(hash, _)| *hash).collect(),
                weights: pairs.iter().map(|(_, weight)| *weight).collect(),
            })),
        },
    };
    wire::ScoredFeatures {
        item: schema.item.iter().map(|spec| spec.name.clone()).collect(),
        values: rows.iter().flat_map(|row| &row.item.values).map(value).collect(),
        matches: schema.cross.iter().map(|spec| spec.name.clone()).collect(),
        weights: rows.iter().flat_map(|row| row.weights.iter().copied()).collect(),
    }
}

fn candidates(heads: &[String], answer: ShardAnswer) -> wire::Candidates {
    let all = &answer.candidates;
    wire::Candidates {
        ad_id: all.iter().map(|c| c.ad_id).collect(),
        item_id: answer.item_ids,
        campaign_id: all.iter().map(|c| c.campaign).collect(),
        advertiser_id: all.iter().map(|c| c.advertiser).collect(),
        limit_category: all.iter().map(|c| c.limit_category).collect(),
        bid_type: all.iter().map(|c| c.bid_type.number().unsigned_abs()).collect(),
        bid_micros: all.iter().map(|c| c.bid_micros).collect(),
        weight: all.iter().map(|c| c.weight).collect(),
        event_weight: all.iter().map(|c| c.event_weight).collect(),
        // Two halves of one i128: the high one keeps the sign, the low one is the lowest 64 bits.
        value_high: all.iter().map(|c| (c.value >> 64) as i64).collect(),
        value_low: all.iter().map(|c| c.value as u64).collect(),
        reserve_micros: all.iter().map(|c| c.reserve_micros).collect(),
        heads: heads.to_vec(),
        predictions: answer.predictions,
    }
}

fn reason_count(reason: &str, ads: u64) -> wire::ReasonCount {
    wire::ReasonCount { reason: reason.to_owned(), ads }
}

fn explained(shard: u32, ad: &crate::pipeline::search::ExplainedAd) -> wire::ExplainedAd {
    let worth = ad.explained.worth;
    let detail = if !ad.unmet.is_empty() {
        ad.unmet.clone()
    } else if worth.light_micros > 0.0 {
        format!("light value {:.3} micros an impression", worth.light_micros)
    } else {
        String::new()
    };
    wire::ExplainedAd {
        ad_id: ad.ad_id,
        item_id: ad.item_id,
        campaign_id: ad.campaign,
        advertiser_id: ad.advertiser,
        shard,
        reason: ad.explained.reason.name().to_owned(),
        detail,
        bid_micros: worth.bid_micros,
        weight: worth.weight,
        score: worth.score as f64,
        predictions: Vec::new(),
    }
}
