//! How does the picture travel?

use gavel_proto::wire;

use super::{role_to_wire, rollout};
use crate::publish::{Candidate, Shard, View};
use crate::state::command::Blob;
use crate::state::types::{Auction, Generation, Mechanism, Member, Model, Placement, ShardSource};

/// The message that members get.
#[must_use]
pub fn to_wire(view: &View<'_>) -> wire::View {
    wire::View {
        cluster_id: view.cluster_id.to_owned(),
        map_epoch: view.map_epoch,
        members: view.members.iter().map(|m| member(m)).collect(),
        shards: view.shards.iter().map(shard).collect(),
        active_generation: view.active_generation.map(generation),
        pending_generation: view.pending_generation.map(generation),
        active_model: view.active_model.map(model),
        previous_model: view.previous_model.map(model),
        pending_model: view.pending_model.map(model),
        auction: Some(auction(view.auction)),
        placements: view.placements.iter().map(|p| placement(p)).collect(),
        delivery_version: view.delivery_version,
        pending_shards: view.pending_shards.iter().map(shard).collect(),
        formation: view.formation,
        staged_models: view.staged_models.iter().map(|m| model(m)).collect(),
        rollout: view.rollout.as_ref().map(candidate),
        model_policy: Some(rollout::policy_to_wire(view.model_policy)),
    }
}

/// The same for operators. Who computes ties has their key by the message above; here a made one is named by its id.
#[must_use]
pub fn for_operators(view: &View<'_>) -> wire::View {
    let mut shown = to_wire(view);
    if let Some(auction) = shown.auction.as_mut().filter(|auction| !auction.tie_key.is_empty()) {
        auction.tie_key = Vec::new();
        auction.tie_key_id = view.auction.tie_key.id();
    }
    shown
}

/// A member, without its key: that is a secret between it and the voters.
pub(super) fn member(m: &Member) -> wire::MemberView {
    wire::MemberView {
        member_id: m.id,
        role: role_to_wire(m.role).into(),
        address: m.address.clone(),
        name: m.name.clone(),
        incarnation: m.incarnation,
        alive: m.alive,
        draining: m.draining,
    }
}

fn candidate(c: &Candidate<'_>) -> wire::RolloutView {
    let serving = |(shard, serving): &(u32, Vec<u64>)| wire::ShardServing { shard: *shard, serving: serving.clone() };
    wire::RolloutView {
        model: Some(model(c.model)),
        mode: rollout::mode_to_wire(c.mode).into(),
        share_ppm: c.share_ppm,
        step: c.step,
        window_ms: c.window_ms,
        serving: c.serving.iter().map(serving).collect(),
    }
}

fn shard(s: &Shard<'_>) -> wire::ShardView {
    wire::ShardView {
        shard: s.shard,
        items: s.items,
        ads: s.ads,
        replicas: s.replicas.to_vec(),
        serving: s.serving.clone(),
    }
}

pub(super) fn generation(g: &Generation) -> wire::Generation {
    catalogue(g.number, &g.shards, g.campaigns, g.users)
}

/// A catalogue under its number; 0 while it has none.
pub(super) fn catalogue(
    number: u64,
    sources: &[ShardSource],
    campaigns: Blob,
    users: Option<Blob>,
) -> wire::Generation {
    let blobs = (0u32..).zip(sources).map(|(shard, source)| wire::ShardBlob {
        shard,
        hash: source.hash.to_vec(),
        bytes: source.bytes,
        items: source.items,
        ads: source.ads,
    });
    let shard_blobs: Vec<wire::ShardBlob> = blobs.collect();
    let counted = users.unwrap_or_default();
    wire::Generation {
        generation: number,
        shards: u32::try_from(shard_blobs.len()).unwrap_or(u32::MAX),
        shard_blobs,
        campaigns_blob: campaigns.hash.to_vec(),
        users_blob: users.map(|blob| blob.hash.to_vec()).unwrap_or_default(),
        users: counted.rows,
        campaigns: campaigns.rows,
        users_blob_bytes: counted.bytes,
        campaigns_blob_bytes: campaigns.bytes,
    }
}

/// A model, without what only the registry knows.
pub fn model(m: &Model) -> wire::ModelView {
    let (key, signature) = rollout::signature_to_wire(m.signature.as_ref());
    wire::ModelView {
        version: m.version,
        hash: m.hash.to_vec(),
        bytes: m.bytes,
        name: m.name.clone(),
        uploader: m.uploader.clone(),
        published_ms: m.published_ms,
        signature,
        key,
    }
}

pub(super) fn auction(a: &Auction) -> wire::AuctionConfig {
    let mechanism = match a.mechanism {
        Mechanism::Gsp => wire::Mechanism::Gsp,
        Mechanism::Vcg => wire::Mechanism::Vcg,
        Mechanism::FirstPrice => wire::Mechanism::FirstPrice,
    };
    let public_tie_key = a.tie_key.public();
    wire::AuctionConfig {
        mechanism: mechanism.into(),
        public_tie_key: public_tie_key.unwrap_or_default(),
        per_advertiser: a.per_advertiser,
        per_category: a.per_category,
        position_factors_ppm: a.position_factors_ppm.clone(),
        reserve_cpm_micros: a.reserve_cpm_micros,
        ranked_total: a.ranked_total,
        retrieved_total: a.retrieved_total,
        shadow_bid: a.shadow_bid,
        neighbours: wire::Neighbours::from(a.neighbours).into(),
        quality: Some(a.quality.into()),
        cascade_ppm: a.cascade_ppm,
        gap_effect_ppm: a.gap_effect_ppm.clone(),
        page_threshold_cpm_micros: a.page_threshold_cpm_micros,
        tie_key: if public_tie_key.is_some() { Vec::new() } else { a.tie_key.as_bytes().to_vec() },
        tie_key_id: 0,
    }
}

pub(super) fn placement(p: &Placement) -> wire::Placement {
    wire::Placement {
        name: p.name.clone(),
        slots: p.slots,
        first_position: p.first_position,
        min_gap: p.min_gap,
        max_load_ppm: p.max_load_ppm,
        reserve_cpm_micros: p.reserve_cpm_micros,
        category_spacing: p.category_spacing,
    }
}
