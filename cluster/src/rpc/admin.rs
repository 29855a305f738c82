//! What can an operator ask?
//!
//! Every write carries a command id, so that an operator whose call timed out sends the same one again. The
//! commands that only the leader may conclude (who lives, who is ready) are not taken from outside.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use gavel_member::{clock, signing};
use gavel_proto::limits::STRING_BYTES_MAX;
use gavel_proto::wire;
use gavel_proto::wire::admin_service_server::AdminService;
use tonic::{Request, Response, Status};

use super::{Leader, NotProposed, Voter};
use crate::convert::{hash32, ready};
use crate::state::types::{Outcome, Ready};
use wire::command::Body;

/// Answers operators.
pub struct AdminEndpoint(pub Arc<Voter>);

/// Commands that are the leader's conclusions, or have an RPC of their own.
fn is_internal(body: &Body) -> bool {
    match body {
        Body::RegisterMember(_)
        | Body::SetAlive(_)
        | Body::ReportReady(_)
        | Body::StepRollout(_)
        | Body::PublishDelivery(_) => true,
        // A guard speaks through the leader; an operator ends a rollout in their own name.
        Body::EndRollout(wish) => wish.guard,
        Body::PublishModel(_)
        | Body::ActivateModel(_)
        | Body::BeginGeneration(_)
        | Body::ActivateGeneration(_)
        | Body::SetAuction(_)
        | Body::SetTieKey(_)
        | Body::SetPlacement(_)
        | Body::RemoveMember(_)
        | Body::RollbackModel(_)
        | Body::StageModel(_)
        | Body::RetireModel(_)
        | Body::BeginRollout(_)
        | Body::SetModelPolicy(_) => false,
    }
}

#[tonic::async_trait]
impl AdminService for AdminEndpoint {
    async fn propose(&self, request: Request<wire::ProposeRequest>) -> Result<Response<wire::ProposeResponse>, Status> {
        let request = request.into_inner();
        self.0.check_cluster(&request.cluster_id)?;
        if request.command_id.is_empty() || request.command_id.len() > STRING_BYTES_MAX {
            return Err(Status::invalid_argument("command_id must have 1 to 256 bytes"));
        }
        let body = request.command.and_then(|command| command.body);
        let body = body.ok_or_else(|| Status::invalid_argument("command.body is missing"))?;
        if is_internal(&body) {
            return Err(Status::invalid_argument("this command is the leader's own"));
        }
        if let Body::PublishModel(wish) = &body {
            check_signature(wish)?;
        }
        let command = wire::Command { command_id: request.command_id, proposed_ms: clock::wall_ms(), body: Some(body) };
        match self.0.propose(command).await {
            Ok(written) => {
                Ok(Response::new(proposed(written.log_id.leader_id.term, written.log_id.index, written.data)))
            }
            Err(NotProposed::Elsewhere(Leader::Other { address, .. })) => Ok(Response::new(wire::ProposeResponse {
                accepted: false,
                reason: "not_leader".to_owned(),
                leader_address: address,
                ..wire::ProposeResponse::default()
            })),
            Err(NotProposed::Elsewhere(Leader::Own | Leader::Unknown)) => Err(Status::unavailable("no leader")),
            Err(NotProposed::Status(status)) => Err(status),
        }
    }

    async fn status(&self, request: Request<wire::StatusRequest>) -> Result<Response<wire::StatusResponse>, Status> {
        if request.into_inner().linearizable {
            self.0.linearize().await?;
        }
        Ok(Response::new(status_of(&self.0).await))
    }
}

/// A signature is checked here and by every member, never in `apply`.
fn check_signature(wish: &wire::PublishModel) -> Result<(), Status> {
    let is_signed = !wish.key.is_empty() || !wish.signature.is_empty();
    let hash = hash32(&wish.hash, "publish_model.hash").map_err(|e| Status::invalid_argument(e.to_string()))?;
    if is_signed && !signing::is_signed(&wish.key, &wish.signature, &hash, wish.version) {
        return Err(Status::invalid_argument("the signature is not of this bundle and version"));
    }
    Ok(())
}

fn proposed(log_term: u64, log_index: u64, outcome: Outcome) -> wire::ProposeResponse {
    let (accepted, reason, number) = match outcome {
        Outcome::Done(number) => (true, String::new(), number),
        Outcome::Refused(reason) => (false, reason, 0),
    };
    wire::ProposeResponse { log_term, log_index, accepted, reason, leader_address: String::new(), number }
}

async fn status_of(voter: &Voter) -> wire::StatusResponse {
    let digest = voter.machine.digest().await;
    let metrics = voter.core.raft.metrics().borrow().clone();
    let view = crate::convert::view::for_operators(&crate::publish::view(&voter.machine.applied().state));
    let replication = metrics.replication.unwrap_or_default();
    let voters = metrics.membership_config.membership().nodes().map(|(id, node)| wire::VoterStatus {
        id: *id,
        address: voter.core.peers.address(*id, &node.addr).to_owned(),
        leader: metrics.current_leader == Some(*id),
        matched_index: replication.get(id).copied().flatten().map_or(0, |matched| matched.index),
    });
    let now = clock::now_us();
    let memory = voter.memory().clone();
    let hearing = voter.hearing();
    let health = view.members.iter().filter_map(|member| {
        let heard = hearing.last(member.member_id)?;
        let unheard = Ready::default();
        let ready = ready::to_wire(member.member_id, heard.incarnation, heard.ready.as_ref().unwrap_or(&unheard));
        Some(wire::MemberHealth {
            member_id: member.member_id,
            heartbeat_age_ms: now.0.saturating_sub(heard.at.0) / 1_000,
            ready_shards: ready.ready_shards,
            ready_models: ready.ready_models,
            refusals: ready.refusals,
            resident_bytes: heard.resident_bytes,
            ready_generations: ready.ready_generations,
            memory: memory.get(&member.member_id).cloned(),
        })
    });
    let health = health.collect();
    drop(hearing);
    let (models, history, rollout) = super::registry::status(voter);
    wire::StatusResponse {
        view: Some(view),
        applied_index: digest.index,
        term: metrics.current_term,
        leader_id: metrics.current_leader.unwrap_or_default(),
        voters: voters.collect(),
        health,
        state_digest: digest.hash.to_vec(),
        admitted: voter.admitted.load(Ordering::Acquire),
        models,
        history,
        rollout,
    }
}
