//! From a plan to a message, and from a message to answers that can be merged.
//!
//! An answer under another epoch is refused here and counted; so is one whose columns do not fit together or whose
//! integers could not be priced exactly: a node that sends such a thing is broken, and its shard is lost coverage.

use super::answer::{Explained, Funnel, Prediction, Predictions, ScoredFeatures, ShardBody, ShardTiming};
use crate::fanout::{CallFailure, ReplyStatus, ShardReply};
use crate::features::UserSet;
use crate::merge::{Candidate, Offer, ShardList};
use crate::request::{Blocked, Term};
use gavel_model::FeatureValue;
use gavel_proto::cut::Neighbours;
use gavel_proto::epoch::Epoch;
use gavel_proto::frequency::{Capped, Screen};
use gavel_proto::hash::{TieKey, Ties};
use gavel_proto::ids::{AdId, AdvertiserId, AuctionId, CampaignId, ItemId, MemberId, ShardId};
use gavel_proto::limits::{CANDIDATES_MAX, EXPLAINED_ADS_MAX, FEATURES_MAX, HEADS_MAX};
use gavel_proto::money::{BidType, Leased, Micros, PPM};
use gavel_proto::score::QualityRule;
use gavel_proto::{score, wire};

/// A head of this name predicts how likely a user goes on past an ad.
const CONTINUATION_HEAD: &str = "continuation";

/// What a request says about its auction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Slots.
    pub slots: u32,
    /// Ads of one advertiser.
    pub per_advertiser: u32,
    /// Ads of one category; 0 = no limit.
    pub per_category: u32,
    /// Key of the ties.
    pub tie_key: TieKey,
    /// Floor per mille.
    pub reserve_cpm_micros: u64,
    /// Whether neighbours must be of different categories.
    pub neighbours: Neighbours,
    /// What counts besides bid and event probability.
    pub quality: QualityRule,
    /// How users read the slate, and how likely they go on past an ad without a prediction of it.
    pub cascade: Option<u32>,
}

/// What an answer has to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedFor {
    /// What an auction needs.
    Candidates,
    /// And the reason of every ad.
    Reasons,
    /// Every scored ad, without a cut.
    Everything,
    /// Every scored ad of an exact retrieval.
    EverythingExactly,
}

/// One search, the same for every shard.
#[derive(Clone, Debug)]
pub struct SearchTerms {
    /// Names the auction.
    pub auction_id: AuctionId,
    /// Pinned.
    pub epoch: Epoch,
    /// Of the bundle.
    pub model_hash: [u8; 32],
    /// Of its split.
    pub partition_hash: [u8; 32],
    /// The user tower's output.
    pub query: Vec<f32>,
    /// The user-only tensors.
    pub user_part: Vec<f32>,
    /// For match features.
    pub sets: Vec<UserSet>,
    /// For targeting.
    pub terms: Vec<Term>,
    /// The request's time, for schedules.
    pub unix_s: i64,
    /// What must not be shown.
    pub blocked: Blocked,
    /// What the user has seen often enough.
    pub screen: Screen,
    /// Whether what is billed by the impression takes part.
    pub leased: Leased,
    /// Items to retrieve per shard.
    pub quota: u32,
    /// Items to rank per shard.
    pub light_keep: u32,
    /// Of the auction.
    pub shape: Shape,
    /// The heads' column of P(click), by name; an oCPC bid is billed by it.
    pub click_head: Option<String>,
    /// What to answer.
    pub asked_for: AskedFor,
    /// Items to score instead of retrieving; empty: retrieve.
    pub given: Vec<u64>,
    /// Whether candidates come with what they were scored with.
    pub features: FeatureAnswer,
}

/// Whether candidates come with what they were scored with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FeatureAnswer {
    /// They do not.
    #[default]
    Unasked,
    /// For the log.
    Asked,
}

/// The message without shards and deadline.
pub(super) fn request(terms: &SearchTerms) -> wire::SearchRequest {
    let floats = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let set = |set: &UserSet| wire::UserSet {
        feature: set.feature.clone(),
        values: set.pairs.iter().map(|(hash, _)| *hash).collect(),
        weights: set.pairs.iter().map(|(_, weight)| *weight).collect(),
    };
    let mode = match terms.asked_for {
        AskedFor::EverythingExactly => wire::RetrievalMode::RetrievalExact,
        AskedFor::Candidates | AskedFor::Reasons | AskedFor::Everything => wire::RetrievalMode::RetrievalAuto,
    };
    let (capped, without_counted) = match &terms.screen {
        Screen::Capped(capped) => (capped.clone(), false),
        Screen::WithoutCounted(beyond) => (Capped { campaigns: beyond.clone(), ads: Vec::new() }, true),
    };
    let capped_ad = |(campaign_id, ad_id)| wire::CappedAd { campaign_id, ad_id };
    wire::SearchRequest {
        auction_id: terms.auction_id.0,
        epoch: Some(terms.epoch.into()),
        shards: Vec::new(),
        deadline_us: 0,
        model_hash: terms.model_hash.to_vec(),
        partition_hash: terms.partition_hash.to_vec(),
        query_vector: floats(&terms.query),
        user_part: floats(&terms.user_part),
        user_sets: terms.sets.iter().map(set).collect(),
        terms: terms
            .terms
            .iter()
            .map(|t| wire::HashedTerm { dimension: t.dimension, values: t.values.clone(), number: t.number })
            .collect(),
        unix_s: terms.unix_s,
        blocked_advertisers: terms.blocked.advertisers.clone(),
        blocked_categories: terms.blocked.categories.clone(),
        blocked_campaigns: terms.blocked.campaigns.clone(),
        capped_campaigns: capped.campaigns,
        capped_ads: capped.ads.into_iter().map(capped_ad).collect(),
        without_counted,
        without_leased: terms.leased == Leased::Out,
        quota: terms.quota,
        light_keep: terms.light_keep,
        auction: Some(wire::AuctionShape {
            slots: terms.shape.slots,
            per_advertiser: terms.shape.per_advertiser,
            per_category: terms.shape.per_category,
            tie_key: terms.shape.tie_key.as_bytes().to_vec(),
            reserve_cpm_micros: terms.shape.reserve_cpm_micros,
            neighbours: wire::Neighbours::from(terms.shape.neighbours).into(),
            quality: Some(terms.shape.quality.into()),
            whole: terms.shape.cascade.is_some(),
        }),
        given_items: terms.given.clone(),
        mode: mode.into(),
        explain: terms.asked_for == AskedFor::Reasons,
        return_all_scored: matches!(terms.asked_for, AskedFor::Everything | AskedFor::EverythingExactly),
        features: terms.features == FeatureAnswer::Asked,
    }
}

/// What the kernel hears of a failed call.
pub(super) fn failure(status: &tonic::Status) -> CallFailure {
    match status.code() {
        tonic::Code::Unavailable => CallFailure::Unreachable,
        // tonic calls its own timeout a cancellation.
        tonic::Code::DeadlineExceeded | tonic::Code::Cancelled => CallFailure::TimedOut,
        tonic::Code::ResourceExhausted => CallFailure::Shed,
        // A connection that dies under a call is told apart from a node's own word by its source.
        tonic::Code::Unknown | tonic::Code::Internal if std::error::Error::source(status).is_some() => {
            CallFailure::Unreachable
        }
        tonic::Code::Ok
        | tonic::Code::Unknown
        | tonic::Code::InvalidArgument
        | tonic::Code::NotFound
        | tonic::Code::AlreadyExists
        | tonic::Code::PermissionDenied
        | tonic::Code::FailedPrecondition
        | tonic::Code::Aborted
        | tonic::Code::OutOfRange
        | tonic::Code::Unimplemented
        | tonic::Code::Internal
        | tonic::Code::DataLoss
        | tonic::Code::Unauthenticated => CallFailure::Fault,
    }
}

/// A node's answers, each with its body if it may be merged.
pub(super) fn answers(
    node: MemberId,
    response: wire::SearchResponse,
    terms: &SearchTerms,
) -> Vec<(ShardReply, Option<ShardBody>)> {
    response.answers.into_iter().map(|answer| one(node, answer, terms)).collect()
}

fn one(node: MemberId, answer: wire::ShardAnswer, terms: &SearchTerms) -> (ShardReply, Option<ShardBody>) {
    let shard = ShardId(answer.shard);
    let reply = |status, seen| ShardReply { shard, status, seen };
    let status = match answer.status() {
        wire::AnswerStatus::AnswerOk => ReplyStatus::Finished,
        wire::AnswerStatus::AnswerTimedOut => ReplyStatus::Partial,
        wire::AnswerStatus::AnswerVersionUnavailable | wire::AnswerStatus::AnswerNotHeld => {
            ReplyStatus::VersionUnavailable
        }
        wire::AnswerStatus::AnswerShed => ReplyStatus::Shed,
        wire::AnswerStatus::AnswerCorrupt => ReplyStatus::Corrupt,
        wire::AnswerStatus::AnswerInternal => ReplyStatus::Fault,
    };
    let has_body = matches!(status, ReplyStatus::Finished | ReplyStatus::Partial);
    if !has_body {
        tracing::debug!(%node, %shard, ?status, detail = %answer.detail, "a shard was not searched");
        return (reply(status, 0), None);
    }
    let epoch = answer.epoch.map(Epoch::from).unwrap_or_default();
    if epoch != terms.epoch {
        metrics::counter!("gavel_router_epoch_refused_total").increment(1);
        tracing::error!(%node, %shard, ?epoch, pinned = ?terms.epoch, "an answer under another epoch is refused (RQ3)");
        return (reply(ReplyStatus::VersionUnavailable, 0), None);
    }
    // The epoch is what the node was asked for; this is what it scored with. A node before this field says 0.
    let scored_with = answer.timing.as_ref().map_or(0, |t| t.model_fingerprint);
    if scored_with != 0 && scored_with != gavel_proto::epoch::fingerprint(&terms.model_hash) {
        metrics::counter!("gavel_router_epoch_refused_total").increment(1);
        tracing::error!(%node, %shard, scored_with, "an answer scored with another bundle is refused (RQ3)");
        return (reply(ReplyStatus::VersionUnavailable, 0), None);
    }
    let seen = answer.items_seen;
    match body(node, answer, terms) {
        Ok(body) => (reply(status, seen), Some(body)),
        Err(reason) => {
            metrics::counter!("gavel_router_answers_refused_total").increment(1);
            tracing::error!(%node, %shard, %reason, "an answer is refused");
            (reply(ReplyStatus::Fault, 0), None)
        }
    }
}

fn body(node: MemberId, answer: wire::ShardAnswer, terms: &SearchTerms) -> Result<ShardBody, String> {
    let shard = ShardId(answer.shard);
    let columns = answer.candidates.unwrap_or_default();
    let funnel = answer.funnel.unwrap_or_default();
    let rows = columns.ad_id.len();
    Ok(ShardBody {
        node,
        list: ShardList { shard, epoch: terms.epoch, candidates: candidates(shard, &columns, terms)? },
        predictions: Predictions { heads: columns.heads, values: columns.predictions },
        funnel: Funnel {
            items_seen: answer.items_seen,
            eligible_ads: funnel.eligible_ads,
            eligible_items: funnel.eligible_items,
            retrieved: funnel.retrieved,
            light_kept: funnel.light_kept,
            ranked: funnel.ranked,
            scored: funnel.scored,
            returned: funnel.returned,
            non_finite: funnel.non_finite,
        },
        timing: timing(answer.timing.unwrap_or_default(), shard, node),
        explained: answer.explained.into_iter().take(EXPLAINED_ADS_MAX).map(explained).collect(),
        reasons: answer.reasons.into_iter().map(|r| (r.reason, r.ads)).collect(),
        retrieved: answer.retrieved_item.into_iter().zip(answer.retrieved_similarity).collect(),
        features: answer.features.map(|features| scored(rows, features)).transpose()?,
    })
}

/// What candidates were scored with.
fn scored(rows: usize, features: wire::ScoredFeatures) -> Result<ScoredFeatures, String> {
    use wire::scored_value::Value;
    let value = |value: wire::ScoredValue| match value.value {
        None => FeatureValue::Missing,
        Some(Value::Category(hash)) => FeatureValue::Category(hash),
        Some(Value::Number(number)) => FeatureValue::Dense(number),
        Some(Value::Set(set)) => FeatureValue::Set(set.values.into_iter().zip(set.weights).collect()),
    };
    let (item, matches) = (features.item, features.matches);
    if item.len() > FEATURES_MAX || matches.len() > FEATURES_MAX {
        return Err(format!("{} item features and {} match features", item.len(), matches.len()));
    }
    let values = features.values.into_iter().map(value).collect();
    ScoredFeatures::new(rows, (item, values), (matches, features.weights))
        .ok_or_else(|| format!("the features of {rows} candidates do not fit them"))
}

fn candidates(shard: ShardId, columns: &wire::Candidates, terms: &SearchTerms) -> Result<Vec<Candidate>, String> {
    let n = columns.ad_id.len();
    let lengths = [
        columns.item_id.len(),
        columns.campaign_id.len(),
        columns.advertiser_id.len(),
        columns.limit_category.len(),
        columns.bid_type.len(),
        columns.bid_micros.len(),
        columns.weight.len(),
        columns.event_weight.len(),
        columns.value_high.len(),
        columns.value_low.len(),
        columns.reserve_micros.len(),
    ];
    let heads = columns.heads.len();
    if lengths.iter().any(|length| *length != n) || heads > HEADS_MAX || columns.predictions.len() != n * heads {
        return Err(format!("columns of {n} candidates have lengths {lengths:?}"));
    }
    // Without a cut every ad of every ranked item may come, but no more items than may be ranked are.
    if terms.asked_for == AskedFor::Candidates && n > CANDIDATES_MAX as usize {
        return Err(format!("{n} candidates"));
    }
    let click = terms.click_head.as_ref().and_then(|name| columns.heads.iter().position(|head| head == name));
    let continuation = columns.heads.iter().position(|head| head == CONTINUATION_HEAD);
    let ties = Ties::new(terms.shape.tie_key, terms.auction_id.0);
    let candidate = |i: usize| {
        let bid_type = i32::try_from(columns.bid_type[i]).ok().and_then(BidType::from_number);
        let bid_type = bid_type.ok_or_else(|| format!("bid type {}", columns.bid_type[i]))?;
        let ad = columns.ad_id[i];
        let click_weight = match (bid_type, click) {
            (BidType::Ocpc, Some(click)) => {
                score::weight(BidType::Cpc, f64::from(columns.predictions[i * heads + click]), 0.0).unwrap_or(0)
            }
            (BidType::Ocpc | BidType::Cpm | BidType::Cpc | BidType::Cpa | BidType::Ocpm, _) => 0,
        };
        let offer = Offer {
            ad: AdId(ad),
            item: ItemId(columns.item_id[i]),
            campaign: CampaignId(columns.campaign_id[i]),
            advertiser: AdvertiserId(columns.advertiser_id[i]),
            limit_category: columns.limit_category[i],
            bid_type,
            bid: Micros(columns.bid_micros[i]),
            weight: columns.weight[i],
            event_weight: columns.event_weight[i],
            click_weight,
            continuation_ppm: match (terms.shape.cascade, continuation) {
                (None, _) => 0,
                (Some(usual), None) => usual,
                (Some(_), Some(head)) => continuation_ppm(columns.predictions[i * heads + head]),
            },
            value: (i128::from(columns.value_high[i]) << 64) | i128::from(columns.value_low[i]),
            reserve: Micros(columns.reserve_micros[i]),
            tie: ties.of(ad),
            shard,
            // Checked against the limit or bounded by the message.
            row: i as u32,
        };
        Candidate::new(offer).map_err(|e| e.to_string())
    };
    (0..n).map(candidate).collect()
}

/// In parts per million, rounded once, below one.
fn continuation_ppm(predicted: f32) -> u32 {
    // A cast of what is no number gives 0: nobody goes on.
    ((f64::from(predicted) * f64::from(PPM)).round() as u32).min(PPM - 1)
}

fn timing(timing: wire::ShardTiming, shard: ShardId, node: MemberId) -> ShardTiming {
    ShardTiming {
        shard: shard.0,
        node_id: node.0,
        plan: timing.plan,
        retrieval_us: timing.retrieval_us,
        features_us: timing.features_us,
        light_us: timing.light_us,
        rank_us: timing.rank_us,
        auction_us: timing.auction_us,
        queue_us: timing.queue_us,
        plan_estimate_us: timing.plan_estimate_us,
        model_fingerprint: timing.model_fingerprint,
    }
}

fn explained(ad: wire::ExplainedAd) -> Explained {
    Explained {
        ad_id: ad.ad_id,
        item_id: ad.item_id,
        campaign_id: ad.campaign_id,
        advertiser_id: ad.advertiser_id,
        shard: ad.shard,
        reason: ad.reason,
        detail: ad.detail,
        bid_micros: ad.bid_micros,
        weight: ad.weight,
        score: ad.score,
        predictions: ad.predictions.into_iter().map(|p| Prediction { head: p.head, value: p.value }).collect(),
    }
}
