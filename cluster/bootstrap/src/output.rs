//! How do answers and states look as JSON?
//!
//! The same field names as the router's HTTP endpoint, so that what one prints can be fed to what reads the other.

use gavel_proto::hash::TieKey;
use gavel_proto::wire;
use serde_json::{Value, json};

/// By bit.
const REASONS: [wire::DegradedReason; 8] = [
    wire::DegradedReason::DegradedTimeout,
    wire::DegradedReason::DegradedAdaptiveTimeout,
    wire::DegradedReason::DegradedShardDown,
    wire::DegradedReason::DegradedShed,
    wire::DegradedReason::DegradedVersionUnavailable,
    wire::DegradedReason::DegradedCorruptSegment,
    wire::DegradedReason::DegradedModelFallback,
    wire::DegradedReason::DegradedNoBudgetAuthority,
];

/// A slate with everything that came with it.
pub fn slate(response: &wire::AdResponse) -> Value {
    json!({
        "request_id": response.request_id,
        "slate": response.slate.iter().map(entry).collect::<Vec<_>>(),
        "coverage": response.coverage.as_ref().map(coverage),
        "epoch": response.epoch.map(|e| json!({
            "map_epoch": e.map_epoch,
            "generation": e.generation,
            "model_version": e.model_version,
            "delivery_version": e.delivery_version,
        })),
        "funnel": response.funnel.map(funnel),
        "timings": response.timings.as_ref().map(timings),
        "auction_id": response.auction_id,
    })
}

fn entry(entry: &wire::SlateEntry) -> Value {
    match &entry.entry {
        Some(wire::slate_entry::Entry::Ad(ad)) => winner(entry.position, ad),
        Some(wire::slate_entry::Entry::OrganicId(id)) => json!({"position": entry.position, "organic_id": id}),
        None => json!({"position": entry.position}),
    }
}

fn winner(position: u32, ad: &wire::Winner) -> Value {
    json!({
        "position": position,
        "ad": ad.ad_id,
        "item": ad.item_id,
        "campaign": ad.campaign_id,
        "advertiser": ad.advertiser_id,
        "slot": ad.slot,
        "bid_type": word(ad.bid_type().as_str_name(), "BID_TYPE_"),
        "price_micros": ad.price_micros,
        "bid_micros": ad.bid_micros,
        "predictions": predictions(&ad.predictions),
        "creative": ad.creative.as_ref().map(|c| json!({"title": c.title, "url": c.url, "image_url": c.image_url})),
    })
}

fn predictions(all: &[wire::Prediction]) -> Value {
    all.iter().map(|p| json!({"head": p.head, "value": p.value})).collect()
}

fn coverage(c: &wire::Coverage) -> Value {
    let reasons = REASONS.iter().filter(|r| c.degraded_reasons & (**r as u32) != 0);
    json!({
        "fraction": c.fraction,
        "shards_total": c.shards_total,
        "shards_ok": c.shards_ok,
        "shards_timed_out": c.shards_timed_out,
        "shards_failed": c.shards_failed,
        "shards_version_unavailable": c.shards_version_unavailable,
        "degraded_reasons": reasons.map(|r| word(r.as_str_name(), "DEGRADED_")).collect::<Vec<_>>(),
    })
}

fn funnel(f: wire::FunnelCounts) -> Value {
    json!({
        "items_seen": f.items_seen,
        "eligible": f.eligible,
        "retrieved": f.retrieved,
        "light_kept": f.light_kept,
        "ranked": f.ranked,
        "scored": f.scored,
        "returned": f.returned,
        "merged": f.merged,
        "winners": f.winners,
        "placed": f.placed,
    })
}

fn timings(t: &wire::StageTimings) -> Value {
    let shard = |s: &wire::ShardTiming| {
        json!({
            "shard": s.shard,
            "node": s.node_id,
            "plan": s.plan,
            "queue_us": s.queue_us,
            "plan_estimate_us": s.plan_estimate_us,
            "retrieval_us": s.retrieval_us,
            "features_us": s.features_us,
            "light_us": s.light_us,
            "rank_us": s.rank_us,
            "auction_us": s.auction_us,
            "model": format!("{:016x}", s.model_fingerprint),
        })
    };
    json!({
        "features_us": t.features_us,
        "user_tower_us": t.user_tower_us,
        "fanout_us": t.fanout_us,
        "merge_us": t.merge_us,
        "auction_us": t.auction_us,
        "allocation_us": t.allocation_us,
        "total_us": t.total_us,
        "shards": t.shards.iter().map(shard).collect::<Vec<_>>(),
    })
}

/// Every reason of one request.
pub fn explained(response: &wire::ExplainResponse) -> Value {
    let ad = |a: &wire::ExplainedAd| {
        json!({
            "ad": a.ad_id,
            "item": a.item_id,
            "campaign": a.campaign_id,
            "advertiser": a.advertiser_id,
            "shard": a.shard,
            "reason": a.reason,
            "detail": a.detail,
            "bid_micros": a.bid_micros,
            "weight": a.weight,
            "score": a.score,
            "predictions": predictions(&a.predictions),
        })
    };
    json!({
        "response": response.response.as_ref().map(slate),
        "reasons": response.reasons.iter().map(|r| json!({"reason": r.reason, "ads": r.ads})).collect::<Vec<_>>(),
        "ads": response.ads.iter().map(ad).collect::<Vec<_>>(),
        "clearing": response.clearing,
    })
}

/// The state of the cluster.
pub fn status(status: &wire::StatusResponse) -> Value {
    let view = status.view.clone().unwrap_or_default();
    let health = |id: u64| status.health.iter().find(|h| h.member_id == id);
    let voter = |v: &wire::VoterStatus| json!({"id": v.id, "address": v.address, "leader": v.leader, "matched_index": v.matched_index});
    json!({
        "cluster_id": view.cluster_id,
        "map_epoch": view.map_epoch,
        "leader_id": status.leader_id,
        "term": status.term,
        "applied_index": status.applied_index,
        "state_digest": hex(&status.state_digest),
        "voters": status.voters.iter().map(voter).collect::<Vec<_>>(),
        "members": view.members.iter().map(|m| member(m, health(m.member_id))).collect::<Vec<_>>(),
        "shards": view.shards.iter().map(shard).collect::<Vec<_>>(),
        "pending_shards": view.pending_shards.iter().map(shard).collect::<Vec<_>>(),
        "active_generation": view.active_generation.as_ref().map(generation),
        "pending_generation": view.pending_generation.as_ref().map(generation),
        "active_model": view.active_model.as_ref().map(model),
        "previous_model": view.previous_model.as_ref().map(model),
        "pending_model": view.pending_model.as_ref().map(model),
        "delivery_version": view.delivery_version,
        "auction": view.auction.as_ref().map(auction),
        "placements": view.placements.iter().map(placement).collect::<Vec<_>>(),
    })
}

fn member(m: &wire::MemberView, health: Option<&wire::MemberHealth>) -> Value {
    let refusal = |r: &wire::Refusal| json!({"subject": hex(&r.subject), "reason": r.reason, "rests": r.rests});
    json!({
        "member_id": m.member_id,
        "role": word(m.role().as_str_name(), "ROLE_"),
        "address": m.address,
        "name": m.name,
        "incarnation": m.incarnation,
        "alive": m.alive,
        "draining": m.draining,
        "heartbeat_age_ms": health.map(|h| h.heartbeat_age_ms),
        "resident_bytes": health.map(|h| h.resident_bytes),
        "memory": health.and_then(|h| h.memory.as_ref()).map(memory),
        "ready_shards": health.map(|h| h.ready_shards.len()),
        "ready_models": health.map(|h| h.ready_models.iter().map(|m| hex(m)).collect::<Vec<_>>()),
        "ready_generations": health.map(|h| h.ready_generations.clone()),
        "refusals": health.map(|h| h.refusals.iter().map(refusal).collect::<Vec<_>>()),
    })
}

fn memory(m: &wire::NodeMemory) -> Value {
    let shard = |s: &wire::ShardMemory| {
        json!({"shard": s.shard, "generation": s.generation, "mapped_bytes": s.mapped_bytes,
               "resident_bytes": s.resident_bytes, "owned_bytes": s.owned_bytes})
    };
    json!({"limit_bytes": m.limit_bytes, "shards": m.shards.iter().map(shard).collect::<Vec<_>>()})
}

fn shard(s: &wire::ShardView) -> Value {
    json!({"shard": s.shard, "items": s.items, "ads": s.ads, "replicas": s.replicas, "serving": s.serving})
}

fn generation(g: &wire::Generation) -> Value {
    json!({"generation": g.generation, "shards": g.shards, "campaigns": g.campaigns, "users": g.users})
}

fn model(m: &wire::ModelView) -> Value {
    json!({"version": m.version, "name": m.name, "hash": hex(&m.hash), "bytes": m.bytes})
}

/// Which key makes the ties; `None` when it is none. Voters answer with the id of one that was made, and not with it.
pub fn tie_key_id(a: &wire::AuctionConfig) -> Option<u64> {
    if a.tie_key_id == 0 { TieKey::of_config(&a.tie_key, a.public_tie_key).map(TieKey::id) } else { Some(a.tie_key_id) }
}

/// The rules of the auction; of the key of the ties its id alone.
pub fn auction(a: &wire::AuctionConfig) -> Value {
    json!({
        "mechanism": word(a.mechanism().as_str_name(), "MECHANISM_"),
        "per_advertiser": a.per_advertiser,
        "per_category": a.per_category,
        "position_factors_ppm": a.position_factors_ppm,
        "reserve_cpm_micros": a.reserve_cpm_micros,
        "ranked_total": a.ranked_total,
        "retrieved_total": a.retrieved_total,
        "shadow_bid": a.shadow_bid,
        "neighbours": word(a.neighbours().as_str_name(), "NEIGHBOURS_"),
        "cascade_ppm": a.cascade_ppm,
        "gap_effect_ppm": a.gap_effect_ppm,
        "page_threshold_cpm_micros": a.page_threshold_cpm_micros,
        "tie_key_id": tie_key_id(a),
        "tie_key_public": a.tie_key.is_empty() && a.tie_key_id == 0,
        "quality": a.quality.map(|q| json!({
            "squashing_ppm": q.squashing_ppm,
            "squashing_pivot_ppm": q.squashing_pivot_ppm,
            "quality_ppm": q.quality_ppm,
            "hide_cost_micros": q.hide_cost_micros,
            "user_value_micros": q.user_value_micros,
            "score_floor_cpm_micros": q.score_floor_cpm_micros,
        })),
    })
}

/// A placement.
pub fn placement(p: &wire::Placement) -> Value {
    json!({
        "name": p.name,
        "slots": p.slots,
        "first_position": p.first_position,
        "min_gap": p.min_gap,
        "max_load_ppm": p.max_load_ppm,
        "reserve_cpm_micros": p.reserve_cpm_micros,
        "category_spacing": p.category_spacing,
    })
}

/// Bytes as people compare them.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The word of an enum's value without its prefix.
fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase()
}
