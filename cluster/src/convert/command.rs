//! How does a command travel and lie in the log?
//!
//! As its prost bytes. The digest that tells a retry from another command under the same id is taken over
//! the encoded body alone: a retry may carry another id of its proposer's clock, never another wish.

use gavel_proto::hash::TieKey;
use gavel_proto::limits::STRING_BYTES_MAX;
use gavel_proto::score::QualityRule;
use gavel_proto::wire;
use prost::Message;

use super::{Malformed, delivery, hash32, malformed, ready, role, role_to_wire, rollout, view};
use crate::state::command::{
    BeginGeneration, Blob, Body, Command, EndedBy, Liveness, PublishModel, RegisterMember, SetAlive, Staging,
};
use crate::state::types::{Auction, Mechanism, Placement, ShardSource};
use wire::command::Body as WireBody;

/// Reads a command from the bytes of a log entry.
///
/// # Errors
/// When the bytes are no command of this version.
pub fn decode(bytes: &[u8]) -> Result<Command, Malformed> {
    parse(&wire::Command::decode(bytes).map_err(|_| malformed("command"))?)
}

/// Reads a command.
///
/// # Errors
/// Names the first field at fault.
pub fn parse(command: &wire::Command) -> Result<Command, Malformed> {
    if command.command_id.len() > STRING_BYTES_MAX {
        return Err(malformed("command_id"));
    }
    let body = command.body.as_ref().ok_or(malformed("command.body"))?;
    let alone = wire::Command { command_id: String::new(), proposed_ms: 0, body: Some(body.clone()) };
    Ok(Command {
        id: command.command_id.clone(),
        digest: *blake3::hash(&alone.encode_to_vec()).as_bytes(),
        proposed_ms: command.proposed_ms,
        body: parse_body(body)?,
    })
}

fn parse_body(body: &WireBody) -> Result<Body, Malformed> {
    Ok(match body {
        WireBody::RegisterMember(m) => Body::RegisterMember(RegisterMember {
            key: m.member_key.clone(),
            role: role(m.role)?,
            address: m.address.clone(),
            name: m.name.clone(),
            incarnation: m.incarnation,
        }),
        WireBody::SetAlive(m) => Body::SetAlive(SetAlive {
            member: m.member_id,
            incarnation: m.incarnation,
            liveness: liveness(m.alive, m.draining),
        }),
        WireBody::PublishModel(m) => Body::PublishModel(publish_model(m)?),
        WireBody::StageModel(m) => Body::StageModel { version: m.version },
        WireBody::RetireModel(m) => Body::RetireModel { version: m.version },
        WireBody::BeginRollout(m) => Body::BeginRollout {
            version: m.version,
            expect_active: m.expect_active,
            plan: rollout::plan(m.plan.as_ref().ok_or(malformed("begin_rollout.plan"))?)?,
        },
        WireBody::StepRollout(m) => Body::StepRollout { version: m.version, step: m.step },
        WireBody::EndRollout(m) => Body::EndRollout {
            version: m.version,
            reason: m.reason.clone(),
            by: if m.guard { EndedBy::Guard } else { EndedBy::Operator },
        },
        WireBody::SetModelPolicy(m) => {
            Body::SetModelPolicy(rollout::policy(m.policy.as_ref().ok_or(malformed("set_model_policy.policy"))?)?)
        }
        WireBody::ActivateModel(m) => Body::ActivateModel { version: m.version, expect_active: m.expect_active },
        WireBody::RollbackModel(m) => Body::RollbackModel { expect_active: m.expect_active },
        WireBody::BeginGeneration(m) => Body::BeginGeneration(begin_generation(m)?),
        WireBody::ActivateGeneration(m) => Body::ActivateGeneration { generation: m.generation },
        WireBody::SetAuction(m) => {
            Body::SetAuction(auction(m.auction.as_ref().ok_or(malformed("set_auction.auction"))?)?)
        }
        WireBody::SetTieKey(m) => {
            let key = TieKey::from_bytes(hash32(&m.tie_key, "set_tie_key.tie_key")?);
            Body::SetTieKey { key, replaces: m.replaces }
        }
        WireBody::SetPlacement(m) => {
            let wish = m.placement.as_ref().ok_or(malformed("set_placement.placement"))?;
            if m.remove {
                Body::RemovePlacement { name: wish.name.clone() }
            } else {
                Body::SetPlacement(placement(wish))
            }
        }
        WireBody::ReportReady(m) => Body::ReportReady {
            member: m.member_id,
            incarnation: m.incarnation,
            ready: ready::parse(&ready::Lists::from(m))?,
        },
        WireBody::PublishDelivery(m) => Body::PublishDelivery(delivery::wish(m)?),
        WireBody::RemoveMember(m) => Body::RemoveMember { member: m.member_id },
    })
}

fn publish_model(m: &wire::PublishModel) -> Result<PublishModel, Malformed> {
    Ok(PublishModel {
        hash: hash32(&m.hash, "publish_model.hash")?,
        bytes: m.bytes,
        name: m.name.clone(),
        uploader: m.uploader.clone(),
        staging: if m.register_only { Staging::Later } else { Staging::AtOnce },
        version: m.version,
        signature: rollout::signature(&m.key, &m.signature)?,
        report: m.report.clone(),
    })
}

fn publish_model_to_wire(wish: &PublishModel) -> wire::PublishModel {
    let (key, signature) = rollout::signature_to_wire(wish.signature.as_ref());
    wire::PublishModel {
        hash: wish.hash.to_vec(),
        bytes: wish.bytes,
        name: wish.name.clone(),
        uploader: wish.uploader.clone(),
        register_only: wish.staging == Staging::Later,
        version: wish.version,
        signature,
        key,
        report: wish.report.clone(),
    }
}

/// Writes a command.
#[must_use]
pub fn to_wire(id: &str, proposed_ms: u64, body: &Body) -> wire::Command {
    wire::Command { command_id: id.to_owned(), proposed_ms, body: Some(body_to_wire(body)) }
}

fn body_to_wire(body: &Body) -> WireBody {
    match body {
        Body::SetAlive(wish) => WireBody::SetAlive(wire::SetAlive {
            member_id: wish.member,
            incarnation: wish.incarnation,
            alive: wish.liveness != Liveness::Dead,
            draining: wish.liveness == Liveness::Draining,
        }),
        Body::RegisterMember(wish) => WireBody::RegisterMember(wire::RegisterMember {
            member_key: wish.key.clone(),
            role: role_to_wire(wish.role).into(),
            address: wish.address.clone(),
            name: wish.name.clone(),
            incarnation: wish.incarnation,
        }),
        Body::ReportReady { member, incarnation, ready } => {
            WireBody::ReportReady(ready::to_wire(*member, *incarnation, ready))
        }
        Body::RemoveMember { member } => WireBody::RemoveMember(wire::RemoveMember { member_id: *member }),
        Body::PublishModel(wish) => WireBody::PublishModel(publish_model_to_wire(wish)),
        Body::StageModel { version } => WireBody::StageModel(wire::StageModel { version: *version }),
        Body::RetireModel { version } => WireBody::RetireModel(wire::RetireModel { version: *version }),
        Body::BeginRollout { version, expect_active, plan } => {
            let plan = Some(rollout::plan_to_wire(plan));
            WireBody::BeginRollout(wire::BeginRollout { version: *version, expect_active: *expect_active, plan })
        }
        Body::StepRollout { version, step } => {
            WireBody::StepRollout(wire::StepRollout { version: *version, step: *step })
        }
        Body::EndRollout { version, reason, by } => {
            let guard = *by == EndedBy::Guard;
            WireBody::EndRollout(wire::EndRollout { version: *version, reason: reason.clone(), guard })
        }
        Body::SetModelPolicy(wish) => {
            WireBody::SetModelPolicy(wire::SetModelPolicy { policy: Some(rollout::policy_to_wire(wish)) })
        }
        Body::ActivateModel { version, expect_active } => {
            WireBody::ActivateModel(wire::ActivateModel { version: *version, expect_active: *expect_active })
        }
        Body::RollbackModel { expect_active } => {
            WireBody::RollbackModel(wire::RollbackModel { expect_active: *expect_active })
        }
        Body::BeginGeneration(wish) => WireBody::BeginGeneration(wire::BeginGeneration {
            generation: Some(view::catalogue(0, &wish.shards, wish.campaigns, wish.users)),
            replicas: wish.replicas,
        }),
        Body::ActivateGeneration { generation } => {
            WireBody::ActivateGeneration(wire::ActivateGeneration { generation: *generation })
        }
        Body::SetAuction(wish) => WireBody::SetAuction(wire::SetAuction { auction: Some(view::auction(wish)) }),
        Body::SetTieKey { key, replaces } => {
            WireBody::SetTieKey(wire::SetTieKey { tie_key: key.as_bytes().to_vec(), replaces: *replaces })
        }
        Body::SetPlacement(wish) => {
            WireBody::SetPlacement(wire::SetPlacement { placement: Some(view::placement(wish)), remove: false })
        }
        Body::PublishDelivery(wish) => WireBody::PublishDelivery(delivery::wish_to_wire(wish)),
        Body::RemovePlacement { name } => {
            let placement = wire::Placement { name: name.clone(), ..wire::Placement::default() };
            WireBody::SetPlacement(wire::SetPlacement { placement: Some(placement), remove: true })
        }
    }
}

const fn liveness(alive: bool, draining: bool) -> Liveness {
    match (alive, draining) {
        (false, _) => Liveness::Dead,
        (true, false) => Liveness::Serving,
        (true, true) => Liveness::Draining,
    }
}

fn begin_generation(m: &wire::BeginGeneration) -> Result<BeginGeneration, Malformed> {
    let wish = m.generation.as_ref().ok_or(malformed("begin_generation.generation"))?;
    let campaigns = Blob {
        hash: hash32(&wish.campaigns_blob, "campaigns_blob")?,
        bytes: wish.campaigns_blob_bytes,
        rows: wish.campaigns,
    };
    Ok(BeginGeneration { shards: sources(wish)?, campaigns, users: users(wish)?, replicas: m.replicas })
}

/// The users' blob; absent when its hash is.
pub(super) fn users(wish: &wire::Generation) -> Result<Option<Blob>, Malformed> {
    if wish.users_blob.is_empty() {
        return Ok(None);
    }
    let hash = hash32(&wish.users_blob, "users_blob")?;
    Ok(Some(Blob { hash, bytes: wish.users_blob_bytes, rows: wish.users }))
}

/// The shards' blobs in order: each shard once, none missing.
pub(super) fn sources(wish: &wire::Generation) -> Result<Vec<ShardSource>, Malformed> {
    let mut blobs: Vec<&wire::ShardBlob> = wish.shard_blobs.iter().collect();
    blobs.sort_unstable_by_key(|blob| blob.shard);
    let whole = blobs.len() == wish.shards as usize && (0u32..).zip(&blobs).all(|(shard, blob)| blob.shard == shard);
    if !whole {
        return Err(malformed("shard_blobs"));
    }
    let source = |blob: &&wire::ShardBlob| {
        let hash = hash32(&blob.hash, "shard_blobs.hash")?;
        Ok(ShardSource { hash, bytes: blob.bytes, items: blob.items, ads: blob.ads })
    };
    blobs.iter().map(source).collect()
}

/// Reads auction rules.
pub(super) fn auction(m: &wire::AuctionConfig) -> Result<Auction, Malformed> {
    let mechanism = match wire::Mechanism::try_from(m.mechanism) {
        Ok(wire::Mechanism::Gsp) => Mechanism::Gsp,
        Ok(wire::Mechanism::Vcg) => Mechanism::Vcg,
        Ok(wire::Mechanism::FirstPrice) => Mechanism::FirstPrice,
        Ok(wire::Mechanism::Unspecified) | Err(_) => return Err(malformed("mechanism")),
    };
    Ok(Auction {
        mechanism,
        tie_key: TieKey::of_config(&m.tie_key, m.public_tie_key).ok_or(malformed("tie_key"))?,
        per_advertiser: m.per_advertiser,
        per_category: m.per_category,
        position_factors_ppm: m.position_factors_ppm.clone(),
        reserve_cpm_micros: m.reserve_cpm_micros,
        ranked_total: m.ranked_total,
        retrieved_total: m.retrieved_total,
        shadow_bid: m.shadow_bid,
        neighbours: m.neighbours().into(),
        quality: m.quality.map(QualityRule::from).unwrap_or_default(),
        cascade_ppm: m.cascade_ppm,
        gap_effect_ppm: m.gap_effect_ppm.clone(),
        page_threshold_cpm_micros: m.page_threshold_cpm_micros,
    })
}

/// Reads a placement.
pub(super) fn placement(m: &wire::Placement) -> Placement {
    Placement {
        name: m.name.clone(),
        slots: m.slots,
        first_position: m.first_position,
        min_gap: m.min_gap,
        max_load_ppm: m.max_load_ppm,
        reserve_cpm_micros: m.reserve_cpm_micros,
        category_spacing: m.category_spacing,
    }
}
