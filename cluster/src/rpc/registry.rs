//! What is there to say about models, replica by replica?
//!
//! The registry and its history come from the state. What a replica does with a bundle is what it has reported; how
//! far it is, and what the guards look at, only the leader has heard.

use gavel_proto::wire;

use super::Voter;
use crate::convert::{rollout, view};
use crate::guards::{Judged, judge};
use crate::state::types::{Member, Model, ModelPlace, Role, StagingPhase};
use crate::state::{Overdue, State};

/// The registry, its history, and the rollout that runs.
pub fn status(voter: &Voter) -> (Vec<wire::ModelStatus>, Vec<wire::RolloutEvent>, Option<wire::RolloutStatus>) {
    let (applied, hearing, progress) = (voter.machine.applied(), voter.hearing(), voter.progress());
    let state = &applied.state;
    let far = |member: u64, hash: &[u8; 32]| {
        let phases = progress.get(&member).map(Vec::as_slice).unwrap_or_default();
        phases.iter().find(|p| p.hash == hash).map_or((0, 0), |p| (p.done, p.total))
    };
    let models = state.models.values().map(|model| {
        let members = state.members.values().filter(|m| m.role != Role::Control && m.alive);
        let replicas = members.map(|member| {
            let (done, total) = far(member.id, &model.hash);
            let (now, reason) = state_of(state, member, model);
            wire::ReplicaModel { member_id: member.id, state: now.into(), reason, done, total }
        });
        let is_staged = model.place == ModelPlace::Staged;
        wire::ModelStatus {
            model: Some(view::model(model)),
            place: rollout::place_to_wire(model.place).into(),
            replicas: if is_staged { replicas.collect() } else { Vec::new() },
            report: model.report.clone(),
            lacks: if is_staged {
                state.model_lacks(model.hash, Overdue::No).unwrap_or_default()
            } else {
                String::new()
            },
        }
    });
    let runs = state.rollout.as_ref().map(|runs| {
        let seen = hearing.seen(runs);
        let waits_for = match judge(runs, &seen) {
            Judged::Wait(for_what) => for_what,
            Judged::Pass => "its time".to_owned(),
            Judged::Breach(reason) => reason,
        };
        wire::RolloutStatus {
            version: runs.version,
            baseline: runs.baseline,
            step: runs.step,
            step_since_ms: runs.since_ms,
            plan: Some(rollout::plan_to_wire(&runs.plan)),
            sum: Some(rollout::window_to_wire(&seen)),
            waits_for,
        }
    });
    (models.collect(), state.history.iter().map(rollout::event_to_wire).collect(), runs)
}

/// How far a member is with a bundle, and why no further.
fn state_of(state: &State, member: &Member, model: &Model) -> (wire::ReplicaState, String) {
    let refusal = member.ready.refusals.get(model.hash.as_slice());
    if let Some(refusal) = refusal.filter(|refusal| !refusal.rests) {
        return (wire::ReplicaState::ReplicaRefused, refusal.reason.clone());
    }
    let whole = member.ready.models.contains(&model.hash) && shards_of(state, member, model);
    let now = match member.ready.phases.get(&model.hash) {
        _ if whole => wire::ReplicaState::ReplicaReady,
        Some(StagingPhase::Fetching) => wire::ReplicaState::ReplicaFetching,
        Some(StagingPhase::Building) => wire::ReplicaState::ReplicaStaging,
        None if member.ready.models.contains(&model.hash) => wire::ReplicaState::ReplicaStaging,
        None => wire::ReplicaState::ReplicaAbsent,
    };
    (now, refusal.map(|refusal| format!("tried again: {}", refusal.reason)).unwrap_or_default())
}

/// True when every shard of the active generation that is placed on the member is ready under the bundle.
fn shards_of(state: &State, member: &Member, model: &Model) -> bool {
    let Some(active) = state.active().filter(|_| member.role == Role::Node) else { return true };
    let placed = (0u32..).zip(&active.replicas).filter(|(_, replicas)| replicas.contains(&member.id));
    placed.into_iter().all(|(shard, _)| state.serving(active, shard, model.hash).contains(&member.id))
}
