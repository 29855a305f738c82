//! Between messages and the router's own types.

use crate::auction::Mechanism;
use crate::convert::draft_value;
use crate::merge::Candidate;
use crate::pipeline::{Probed, ProbedShard};
use crate::request::{Draft, DraftOrganic, DraftTerm, DraftValue, RequestError};
use crate::respond::{Answer, Entry, Explanation, SlateEntry, Timings, WinnerReport};
use crate::transport::{Explained, Prediction, ShardTiming};
use gavel_proto::limits::FEATURES_MAX;
use gavel_proto::wire;
use std::collections::BTreeMap;

/// A request as written.
pub(super) fn draft(request: wire::AdRequest) -> Result<Draft, RequestError> {
    let term = |t: wire::RequestTerm| DraftTerm { dimension: t.dimension, values: t.values, number: t.number };
    let organic = |o: wire::OrganicItem| DraftOrganic { id: o.id, utility: o.utility };
    Ok(Draft {
        request_id: request.request_id,
        user_id: request.user_id,
        user_features: features("user_features", request.user_features)?,
        placement: request.placement,
        context: features("context", request.context)?,
        terms: request.terms.into_iter().map(term).collect(),
        slots: request.slots,
        organic: request.organic.into_iter().map(organic).collect(),
        deadline_ms: u64::from(request.deadline_ms),
        min_coverage: request.min_coverage,
        blocked_advertisers: request.blocked_advertisers,
        blocked_categories: request.blocked_categories,
        blocked_campaigns: request.blocked_campaigns,
        seed: request.seed,
        ts: request.ts,
    })
}

fn features(side: &str, features: Vec<wire::Feature>) -> Result<BTreeMap<String, DraftValue>, RequestError> {
    if features.len() > FEATURES_MAX {
        let found = features.len();
        return Err(RequestError::Invalid(format!("{side} has {found} entries: give at most {FEATURES_MAX}")));
    }
    let mut out = BTreeMap::new();
    for feature in features {
        let Some(value) = feature.value.and_then(draft_value) else {
            let text = format!("{side}.{} has no value: set category, dense or set", feature.name);
            return Err(RequestError::Invalid(text));
        };
        if let Some(twice) = out.insert(feature.name, value) {
            return Err(RequestError::Invalid(format!("{side} names one feature twice, the first time as {twice:?}")));
        }
    }
    Ok(out)
}

/// The microseconds of a `grpc-timeout` header: digits and one of H, M, S, m, u, n.
pub(super) fn timeout_us(text: &str) -> Option<u64> {
    let (unit_at, unit) = text.char_indices().next_back()?;
    let digits = &text[..unit_at];
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    let us = match unit {
        'H' => count * 3_600_000_000,
        'M' => count * 60_000_000,
        'S' => count * 1_000_000,
        'm' => count * 1_000,
        'u' => count,
        'n' => count / 1_000,
        _ => return None,
    };
    Some(us)
}

/// An answer as a message.
pub(super) fn answer(answer: Answer) -> wire::AdResponse {
    let (coverage, epoch, funnel) = (answer.coverage, answer.epoch, answer.funnel);
    wire::AdResponse {
        request_id: answer.request_id,
        slate: answer.slate.into_iter().map(entry).collect(),
        coverage: Some(wire::Coverage {
            fraction: coverage.fraction,
            shards_total: coverage.shards_total,
            shards_ok: coverage.shards_ok,
            shards_timed_out: coverage.shards_timed_out,
            shards_failed: coverage.shards_failed,
            shards_version_unavailable: coverage.shards_version_unavailable,
            degraded_reasons: coverage.degraded_reasons,
        }),
        epoch: Some(wire::Epoch {
            map_epoch: epoch.map_epoch,
            generation: epoch.generation,
            model_version: epoch.model_version,
            delivery_version: epoch.delivery_version,
        }),
        funnel: Some(wire::FunnelCounts {
            items_seen: funnel.items_seen,
            eligible: funnel.eligible,
            retrieved: funnel.retrieved,
            light_kept: funnel.light_kept,
            ranked: funnel.ranked,
            scored: funnel.scored,
            returned: funnel.returned,
            merged: funnel.merged,
            winners: funnel.winners,
            placed: funnel.placed,
        }),
        timings: Some(timings(answer.timings)),
        auction_id: answer.auction_id,
    }
}

fn entry(entry: SlateEntry) -> wire::SlateEntry {
    let what = match entry.entry {
        Entry::Ad(winner) => wire::slate_entry::Entry::Ad(self::winner(*winner)),
        Entry::Organic { organic_id } => wire::slate_entry::Entry::OrganicId(organic_id),
    };
    wire::SlateEntry { position: entry.position, entry: Some(what) }
}

fn winner(winner: WinnerReport) -> wire::Winner {
    wire::Winner {
        ad_id: winner.ad_id,
        item_id: winner.item_id,
        campaign_id: winner.campaign_id,
        advertiser_id: winner.advertiser_id,
        slot: winner.slot,
        bid_type: winner.bid_type_number,
        price_micros: winner.price_micros,
        bid_micros: winner.bid_micros,
        predictions: winner.predictions.into_iter().map(prediction).collect(),
        token: winner.token,
        creative: winner.creative.map(|c| wire::Creative { title: c.title, url: c.url, image_url: c.image_url }),
    }
}

fn prediction(prediction: Prediction) -> wire::Prediction {
    wire::Prediction { head: prediction.head, value: prediction.value }
}

fn timings(timings: Timings) -> wire::StageTimings {
    let shard = |t: ShardTiming| wire::ShardTiming {
        shard: t.shard,
        node_id: t.node_id,
        plan: t.plan,
        retrieval_us: t.retrieval_us,
        features_us: t.features_us,
        light_us: t.light_us,
        rank_us: t.rank_us,
        auction_us: t.auction_us,
        queue_us: t.queue_us,
        plan_estimate_us: t.plan_estimate_us,
        model_fingerprint: t.model_fingerprint,
    };
    wire::StageTimings {
        features_us: timings.features_us,
        user_tower_us: timings.user_tower_us,
        fanout_us: timings.fanout_us,
        merge_us: timings.merge_us,
        auction_us: timings.auction_us,
        allocation_us: timings.allocation_us,
        total_us: timings.total_us,
        shards: timings.shards.into_iter().map(shard).collect(),
    }
}

/// An explanation as a message.
pub(super) fn explanation(explanation: Explanation) -> wire::ExplainResponse {
    let ad = |e: Explained| wire::ExplainedAd {
        ad_id: e.ad_id,
        item_id: e.item_id,
        campaign_id: e.campaign_id,
        advertiser_id: e.advertiser_id,
        shard: e.shard,
        reason: e.reason,
        detail: e.detail,
        bid_micros: e.bid_micros,
        weight: e.weight,
        score: e.score,
        predictions: e.predictions.into_iter().map(prediction).collect(),
    };
    let reasons = explanation.reasons.into_iter();
    wire::ExplainResponse {
        response: Some(answer(explanation.response)),
        ads: explanation.ads.into_iter().map(ad).collect(),
        reasons: reasons.map(|r| wire::ReasonCount { reason: r.reason, ads: r.ads }).collect(),
        clearing: explanation.clearing,
    }
}

/// A probe's answer as a message.
pub(super) fn probed(probed: Probed) -> wire::ProbeResponse {
    let mechanism = match probed.auction.mechanism {
        Mechanism::Gsp => wire::Mechanism::Gsp,
        Mechanism::Vcg => wire::Mechanism::Vcg,
        Mechanism::FirstPrice => wire::Mechanism::FirstPrice,
    };
    let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    wire::ProbeResponse {
        response: Some(answer(probed.answer)),
        rule: Some(wire::ProbeRule {
            mechanism: u32::try_from(i32::from(mechanism)).unwrap_or(0),
            slots: narrow(probed.slots),
            per_advertiser: narrow(probed.auction.per_advertiser),
            per_category: narrow(probed.auction.per_category.unwrap_or(0)),
            position_factors_ppm: probed.auction.position_factors_ppm,
            tie_key: probed.auction.tie_key.as_bytes().to_vec(),
            auction_id: probed.auction_id.0,
            neighbours: wire::Neighbours::from(probed.auction.neighbours).into(),
            cascade_ppm: probed.auction.cascade_ppm.unwrap_or(0),
            page_threshold_cpm_micros: probed.auction.page_threshold_cpm_micros,
        }),
        shards: probed.shards.into_iter().map(shard).collect(),
        removed_ad: probed.removed.into_iter().map(|ad| ad.0).collect(),
    }
}

fn shard(shard: ProbedShard) -> wire::ProbeShard {
    wire::ProbeShard {
        shard: shard.shard.0,
        plan: shard.plan,
        eligible_items: shard.eligible_items,
        served_item: shard.served,
        exact_item: shard.exact.iter().map(|(item, _)| *item).collect(),
        exact_similarity: shard.exact.iter().map(|(_, similarity)| *similarity).collect(),
        scored: shard.scored.iter().map(scored).collect(),
        exhaustive: shard.exhaustive.iter().map(scored).collect(),
    }
}

fn scored(candidate: &Candidate) -> wire::ProbeAd {
    let offer = candidate.offer();
    wire::ProbeAd {
        ad_id: offer.ad.0,
        item_id: offer.item.0,
        advertiser_id: offer.advertiser.0,
        limit_category: offer.limit_category,
        bid_type: u32::try_from(offer.bid_type.number()).unwrap_or(0),
        bid_micros: offer.bid.0,
        weight: offer.weight,
        // The two halves of an i128.
        value_high: (offer.value >> 64) as i64,
        value_low: offer.value as u64,
        reserve_micros: offer.reserve.0,
        event_weight: offer.event_weight,
        click_weight: offer.click_weight,
        continuation_ppm: offer.continuation_ppm,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_and_nonsense_is_not() {
        for (text, us) in [("100m", 100_000), ("1S", 1_000_000), ("2M", 120_000_000), ("5u", 5), ("1500n", 1)] {
            assert_eq!(timeout_us(text), Some(us), "{text}");
        }
        for text in ["", "m", "100", "1x", "-1m", "123456789m", "1é"] {
            assert_eq!(timeout_us(text), None, "{text}");
        }
    }

    #[test]
    fn a_feature_needs_a_value_and_a_name_of_its_own() {
        let value = wire::FeatureValue { value: Some(wire::feature_value::Value::Dense(1.0)) };
        let feature = |value| wire::Feature { name: "age".into(), value };
        let request = |context| wire::AdRequest { context, ..wire::AdRequest::default() };
        assert!(draft(request(vec![feature(None)])).is_err());
        assert!(draft(request(vec![feature(Some(value.clone())), feature(Some(value.clone()))])).is_err());
        assert_eq!(draft(request(vec![feature(Some(value))])).expect("legal").context["age"], DraftValue::Dense(1.0));
    }
}
