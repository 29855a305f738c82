//! How does the whole state travel and lie on disk?
//!
//! One message, its lists ordered, so that equal states have equal bytes and the digest is BLAKE3 of them
//! (ST1). Decoding checks what a well-meant but wrong file could break: the cluster, the limits, and that
//! what is named exists. The caller has verified the bytes before they come here.

use std::collections::BTreeMap;

use gavel_proto::limits::{MEMBERS_MAX, RECEIPTS_MAX};
use gavel_proto::wire;
use prost::Message;

use super::{Malformed, command, delivery, envelope, hash32, malformed, ready, role, rollout, view};
use crate::consensus::{LogId, StoredMembership};
use crate::state::types::{Generation, Member, Model, ModelPlace, Outcome, Receipt, ShardSource};
use crate::state::{EVENTS_MAX, State};

/// Where in the log a state stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Position {
    /// The last entry in it.
    pub last: Option<LogId>,
    /// The voters as of that entry.
    pub membership: StoredMembership,
}

/// BLAKE3 of a state's bytes, position left out.
#[must_use]
pub fn digest(state: &State) -> [u8; 32] {
    *blake3::hash(&encode(state, &Position::default())).as_bytes()
}

/// A state's bytes.
#[must_use]
pub fn encode(state: &State, position: &Position) -> Vec<u8> {
    let mut receipts: Vec<(&String, &Receipt)> = state.receipts.iter().collect();
    receipts.sort_unstable_by_key(|(_, receipt)| receipt.index);
    let members = state.members.values().map(|m| wire::MemberRecord {
        member: Some(view::member(m)),
        member_key: m.key.clone(),
        ready: Some(ready::to_wire(m.id, m.incarnation, &m.ready)),
    });
    // A voter that does not know of made keys would read the rules without one, and its state would differ for good: it
    // finds none in their old place, and refuses the whole.
    let auction = Some(view::auction(&state.auction));
    let is_public = state.auction.tie_key.public().is_some();
    let (auction, keyed_auction) = if is_public { (auction, None) } else { (None, auction) };
    let snapshot = wire::StateSnapshot {
        cluster_id: state.cluster_id.clone(),
        map_epoch: state.map_epoch,
        members: members.collect(),
        generations: state.generations.values().map(generation_record).collect(),
        models: state.models.values().map(model_record).collect(),
        auction,
        placements: state.placements.values().map(view::placement).collect(),
        active_generation: state.active_generation.unwrap_or_default(),
        pending_generation: state.pending_generation.unwrap_or_default(),
        active_model: state.active_model.unwrap_or_default(),
        previous_model: state.previous_model.unwrap_or_default(),
        pending_model: state.pending_model.unwrap_or_default(),
        receipts: receipts.into_iter().map(|(id, receipt)| receipt_to_wire(id, receipt)).collect(),
        applied_ms: state.applied_ms,
        last_applied: position.last.map(envelope::log_id_to_wire),
        membership: Some(envelope::membership_to_wire(position.membership.membership())),
        membership_log_id: position.membership.log_id().map(envelope::log_id_to_wire),
        delivery_version: state.delivery.version,
        delivery: Some(delivery::to_wire(&state.delivery)),
        formation: state.formation,
        rollout: state.rollout.as_ref().map(rollout::record_to_wire),
        history: state.history.iter().map(rollout::event_to_wire).collect(),
        model_policy: Some(rollout::policy_to_wire(&state.model_policy)),
        keyed_auction,
    };
    snapshot.encode_to_vec()
}

/// Reads a state of `cluster_id`.
///
/// # Errors
/// When the bytes are no state, of another cluster, beyond the limits, or name what they do not hold.
pub fn decode(bytes: &[u8], cluster_id: &str) -> Result<(State, Position), Malformed> {
    let m = wire::StateSnapshot::decode(bytes).map_err(|_| malformed("snapshot"))?;
    if m.cluster_id != cluster_id {
        return Err(malformed("cluster_id"));
    }
    if m.members.len() > MEMBERS_MAX || m.receipts.len() > RECEIPTS_MAX || m.history.len() > EVENTS_MAX {
        return Err(malformed("snapshot beyond the limits"));
    }
    let auction = m.keyed_auction.as_ref().or(m.auction.as_ref()).ok_or(malformed("auction"))?;
    let some = |number: u64| (number != 0).then_some(number);
    let state = State {
        cluster_id: m.cluster_id.clone(),
        formation: m.formation,
        map_epoch: m.map_epoch,
        members: keyed(m.members.iter().map(member_record), |member| member.id)?,
        generations: keyed(m.generations.iter().map(generation), |generation| generation.number)?,
        models: keyed(m.models.iter().map(|record| model(record, &m)), |model| model.version)?,
        auction: command::auction(auction)?,
        placements: m.placements.iter().map(|p| (p.name.clone(), command::placement(p))).collect(),
        active_generation: some(m.active_generation),
        pending_generation: some(m.pending_generation),
        active_model: some(m.active_model),
        previous_model: some(m.previous_model),
        pending_model: some(m.pending_model),
        rollout: m.rollout.as_ref().map(rollout::record).transpose()?,
        history: m.history.iter().map(rollout::event).collect::<Result<_, _>>()?,
        model_policy: m.model_policy.as_ref().map(rollout::policy).transpose()?.unwrap_or_default(),
        delivery: delivery::parse(m.delivery.as_ref(), m.delivery_version)?,
        receipts: m.receipts.iter().map(receipt).collect::<Result<_, _>>()?,
        applied_ms: m.applied_ms,
    };
    let candidate = state.rollout.as_ref().map(|r| r.version);
    let models = [state.active_model, state.previous_model, state.pending_model, candidate];
    let generations = [state.active_generation, state.pending_generation];
    let named = models.iter().flatten().all(|v| state.models.contains_key(v))
        && generations.iter().flatten().all(|g| state.generations.contains_key(g));
    if !named {
        return Err(malformed("snapshot names what it does not hold"));
    }
    let position = Position {
        last: m.last_applied.map(envelope::log_id),
        membership: envelope::stored_membership(m.membership.as_ref(), m.membership_log_id),
    };
    Ok((state, position))
}

/// Collects values under their keys.
fn keyed<T>(
    values: impl Iterator<Item = Result<T, Malformed>>,
    key: impl Fn(&T) -> u64,
) -> Result<BTreeMap<u64, T>, Malformed> {
    values.map(|value| value.map(|value| (key(&value), value))).collect()
}

fn member_record(record: &wire::MemberRecord) -> Result<Member, Malformed> {
    let m = record.member.as_ref().ok_or(malformed("members.member"))?;
    let ready = record.ready.as_ref().ok_or(malformed("members.ready"))?;
    Ok(Member {
        id: m.member_id,
        key: record.member_key.clone(),
        role: role(m.role)?,
        address: m.address.clone(),
        name: m.name.clone(),
        incarnation: m.incarnation,
        alive: m.alive,
        draining: m.draining,
        ready: ready::parse(&ready::Lists::from(ready))?,
    })
}

fn generation_record(g: &Generation) -> wire::GenerationRecord {
    let shards = (0u32..).zip(g.shards.iter().zip(&g.replicas)).map(|(shard, (source, replicas))| wire::ShardView {
        shard,
        items: source.items,
        ads: source.ads,
        replicas: replicas.clone(),
        serving: Vec::new(),
    });
    wire::GenerationRecord { generation: Some(view::generation(g)), shards: shards.collect(), replicas: g.copies }
}

fn generation(record: &wire::GenerationRecord) -> Result<Generation, Malformed> {
    let m = record.generation.as_ref().ok_or(malformed("generations.generation"))?;
    let shards: Vec<ShardSource> = command::sources(m)?;
    let replicas: Vec<Vec<u64>> = record.shards.iter().map(|s| s.replicas.clone()).collect();
    if replicas.len() != shards.len() {
        return Err(malformed("generations.shards"));
    }
    let campaigns = crate::state::command::Blob {
        hash: hash32(&m.campaigns_blob, "campaigns_blob")?,
        bytes: m.campaigns_blob_bytes,
        rows: m.campaigns,
    };
    let (copies, users) = (record.replicas, command::users(m)?);
    Ok(Generation { number: m.generation, shards, campaigns, users, copies, replicas })
}

fn model_record(m: &Model) -> wire::ModelRecord {
    let place = rollout::place_to_wire(m.place).into();
    wire::ModelRecord { model: Some(view::model(m)), place, staged_ms: m.staged_ms, report: m.report.clone() }
}

fn model(record: &wire::ModelRecord, snapshot: &wire::StateSnapshot) -> Result<Model, Malformed> {
    let m = record.model.as_ref().ok_or(malformed("models.model"))?;
    // Before places were kept, members held what was named.
    let named = [snapshot.active_model, snapshot.previous_model, snapshot.pending_model].contains(&m.version);
    let before = if named { ModelPlace::Staged } else { ModelPlace::Registered };
    Ok(Model {
        version: m.version,
        hash: hash32(&m.hash, "models.hash")?,
        bytes: m.bytes,
        name: m.name.clone(),
        uploader: m.uploader.clone(),
        published_ms: m.published_ms,
        signature: rollout::signature(&m.key, &m.signature)?,
        place: rollout::place(record.place).unwrap_or(before),
        staged_ms: record.staged_ms,
        report: record.report.clone(),
    })
}

fn receipt_to_wire(id: &str, receipt: &Receipt) -> wire::CommandReceipt {
    let (accepted, reason, number) = match &receipt.outcome {
        Outcome::Done(number) => (true, String::new(), *number),
        Outcome::Refused(reason) => (false, reason.clone(), 0),
    };
    wire::CommandReceipt {
        command_id: id.to_owned(),
        accepted,
        reason,
        number,
        log_index: receipt.index,
        command_digest: receipt.digest.to_vec(),
    }
}

fn receipt(m: &wire::CommandReceipt) -> Result<(String, Receipt), Malformed> {
    let outcome = if m.accepted { Outcome::Done(m.number) } else { Outcome::Refused(m.reason.clone()) };
    let digest = hash32(&m.command_digest, "receipts.command_digest")?;
    Ok((m.command_id.clone(), Receipt { digest, index: m.log_index, outcome }))
}
