//! How does readiness travel?
//!
//! Heartbeats, log entries and snapshots carry the same lists; they become ordered sets here, so that the
//! order in which a member lists things never changes the state. What is too long is cut here, and not refused: a
//! member that says too much must not stand in the way of what everybody else is ready for.

use gavel_proto::limits::{READY_OTHERS_MAX, READY_SHARDS_MAX, STRING_BYTES_MAX};
use gavel_proto::wire;

use super::{Malformed, hash32};
use crate::state::types::{Ready, Refusal, ShardCount, ShardKey, StagingPhase};

/// The lists of a message.
pub struct Lists<'a> {
    /// Shards.
    pub shards: &'a [wire::ReadyShard],
    /// Bundle hashes.
    pub models: &'a [Vec<u8>],
    /// Generations.
    pub generations: &'a [u64],
    /// Refusals.
    pub refusals: &'a [wire::Refusal],
    /// Bundles on their way.
    pub phases: &'a [wire::ModelPhase],
}

impl<'a> From<&'a wire::ReportReady> for Lists<'a> {
    fn from(m: &'a wire::ReportReady) -> Self {
        Self {
            shards: &m.ready_shards,
            models: &m.ready_models,
            generations: &m.ready_generations,
            refusals: &m.refusals,
            phases: &m.model_phases,
        }
    }
}

impl<'a> From<&'a wire::HeartbeatRequest> for Lists<'a> {
    fn from(m: &'a wire::HeartbeatRequest) -> Self {
        Self {
            shards: &m.ready_shards,
            models: &m.ready_models,
            generations: &m.ready_generations,
            refusals: &m.refusals,
            phases: &m.model_phases,
        }
    }
}

/// Reads the lists.
///
/// # Errors
/// When a hash has another length than 32.
pub fn parse(lists: &Lists<'_>) -> Result<Ready, Malformed> {
    let mut ready = Ready::default();
    for shard in lists.shards.iter().take(READY_SHARDS_MAX) {
        let model = hash32(&shard.model_hash, "ready_shards.model_hash")?;
        let key = ShardKey { shard: shard.shard, generation: shard.generation, model };
        ready.shards.insert(key, ShardCount { items: shard.items, ads: shard.ads });
    }
    for model in lists.models.iter().take(READY_OTHERS_MAX) {
        ready.models.insert(hash32(model, "ready_models")?);
    }
    ready.generations.extend(lists.generations.iter().take(READY_OTHERS_MAX));
    for refusal in lists.refusals.iter().take(READY_OTHERS_MAX) {
        let subject = refusal.subject.iter().copied().take(STRING_BYTES_MAX).collect();
        let reason = &refusal.reason[..refusal.reason.floor_char_boundary(STRING_BYTES_MAX)];
        ready.refusals.insert(subject, Refusal { reason: reason.to_owned(), rests: refusal.rests });
    }
    for on_its_way in lists.phases.iter().take(READY_OTHERS_MAX) {
        let phase = match wire::StagingPhase::try_from(on_its_way.phase) {
            Ok(wire::StagingPhase::StagingFetching) => StagingPhase::Fetching,
            Ok(wire::StagingPhase::StagingBuilding) => StagingPhase::Building,
            Ok(wire::StagingPhase::Unspecified) | Err(_) => continue,
        };
        ready.phases.insert(hash32(&on_its_way.hash, "model_phases")?, phase);
    }
    Ok(ready)
}

/// Writes the lists, ordered.
#[must_use]
pub fn to_wire(member_id: u64, incarnation: u64, ready: &Ready) -> wire::ReportReady {
    let phases = ready.phases.iter().map(|(hash, phase)| {
        let phase = match phase {
            StagingPhase::Fetching => wire::StagingPhase::StagingFetching,
            StagingPhase::Building => wire::StagingPhase::StagingBuilding,
        };
        wire::ModelPhase { hash: hash.to_vec(), phase: phase.into(), done: 0, total: 0 }
    });
    let shards = ready.shards.iter().map(|(key, count)| wire::ReadyShard {
        shard: key.shard,
        generation: key.generation,
        model_hash: key.model.to_vec(),
        items: count.items,
        ads: count.ads,
    });
    let refusals = ready.refusals.iter().map(|(subject, why)| wire::Refusal {
        subject: subject.clone(),
        reason: why.reason.clone(),
        rests: why.rests,
    });
    wire::ReportReady {
        member_id,
        incarnation,
        ready_shards: shards.collect(),
        ready_models: ready.models.iter().map(|hash| hash.to_vec()).collect(),
        ready_generations: ready.generations.iter().copied().collect(),
        refusals: refusals.collect(),
        model_phases: phases.collect(),
    }
}
