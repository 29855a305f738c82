//! What does a member hear from a voter?
//!
//! The View comes whole on every change and every few seconds besides, the same work whether anything happens
//! or not; a slow reader skips pictures and never sees an old one after a new one. A voter without a leader ends its
//! streams, because what it would go on to say grows old: the member then asks another voter.

use std::sync::Arc;
use std::time::Duration;

use gavel_member::clock;
use gavel_proto::limits::{READY_OTHERS_MAX, READY_SHARDS_MAX};
use gavel_proto::wire;
use gavel_proto::wire::control_service_server::ControlService;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Leader, NotProposed, Voter};
use crate::convert::{ready, role, rollout};
use crate::guards::Counting;
use crate::reconcile::{Heard, News};
use crate::state::command::{Body, RegisterMember};
use crate::state::types::Outcome;

/// Between two whole Views when nothing changes.
const RESEND: Duration = Duration::from_secs(5);
/// Views that wait for a slow reader.
const VIEWS_WAITING_MAX: usize = 2;

/// Answers members.
pub struct MemberEndpoint(pub Arc<Voter>);

#[tonic::async_trait]
impl ControlService for MemberEndpoint {
    type WatchViewStream = ReceiverStream<Result<wire::View, Status>>;

    async fn join(&self, request: Request<wire::JoinRequest>) -> Result<Response<wire::JoinResponse>, Status> {
        let request = request.into_inner();
        self.0.check_cluster(&request.cluster_id)?;
        let role = role(request.role).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let wish = RegisterMember {
            key: request.member_key,
            role,
            address: request.address,
            name: request.name,
            incarnation: request.incarnation,
        };
        match self.0.propose_own(&Body::RegisterMember(wish)).await.map(|written| written.data) {
            Ok(Outcome::Done(member_id)) => {
                self.0.hearing().hear(member_id, silent(request.incarnation));
                Ok(Response::new(wire::JoinResponse { member_id, ..self.leader_named() }))
            }
            Ok(Outcome::Refused(reason)) => Err(Status::failed_precondition(reason)),
            Err(NotProposed::Elsewhere(Leader::Unknown)) => Err(Status::unavailable("no leader")),
            Err(NotProposed::Elsewhere(_)) => Ok(Response::new(self.leader_named())),
            Err(NotProposed::Status(status)) => Err(status),
        }
    }

    async fn heartbeat(
        &self,
        request: Request<wire::HeartbeatRequest>,
    ) -> Result<Response<wire::HeartbeatResponse>, Status> {
        let beat = request.into_inner();
        match self.0.leader() {
            Leader::Own => {}
            Leader::Other { address, .. } => {
                return Ok(Response::new(wire::HeartbeatResponse { known: false, leader_address: address }));
            }
            Leader::Unknown => return Err(Status::unavailable("no leader")),
        }
        let incarnation = self.0.machine.applied().state.members.get(&beat.member_id).map(|m| m.incarnation);
        if incarnation != Some(beat.incarnation) {
            return Ok(Response::new(wire::HeartbeatResponse { known: false, leader_address: self.0.address.clone() }));
        }
        let ready = ready::parse(&ready::Lists::from(&beat)).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let heard = Heard {
            at: clock::now_us(),
            incarnation: beat.incarnation,
            draining: beat.draining,
            ready: Some(ready),
            resident_bytes: beat.resident_bytes,
        };
        match beat.memory {
            // Members that beat are known, so there is one entry a member; what is too long is cut.
            Some(mut memory) => {
                memory.shards.truncate(READY_SHARDS_MAX);
                self.0.memory().insert(beat.member_id, memory);
            }
            None => drop(self.0.memory().remove(&beat.member_id)),
        }
        let mut phases = beat.model_phases;
        phases.truncate(READY_OTHERS_MAX);
        self.0.progress().insert(beat.member_id, phases);
        let counting = Counting { router: beat.member_id, incarnation: beat.incarnation };
        let rollout = self.0.machine.applied().state.rollout.clone();
        let mut hearing = self.0.hearing();
        hearing.attend(rollout.as_ref());
        let window = beat.rollout.as_ref().map(rollout::window);
        let news = [
            hearing.hear(beat.member_id, heard),
            window.map_or(News::No, |window| hearing.hear_window(counting, window)),
        ];
        drop(hearing);
        if news.contains(&News::Yes) {
            self.0.news.notify_one();
        }
        Ok(Response::new(wire::HeartbeatResponse { known: true, leader_address: self.0.address.clone() }))
    }

    async fn watch_view(
        &self,
        request: Request<wire::WatchViewRequest>,
    ) -> Result<Response<Self::WatchViewStream>, Status> {
        self.0.check_cluster(&request.into_inner().cluster_id)?;
        let (sender, views) = mpsc::channel(VIEWS_WAITING_MAX);
        let voter = Arc::clone(&self.0);
        tokio::spawn(async move {
            let send = send_views(&voter, sender);
            tokio::select! {
                () = send => {}
                () = voter.leaderless() => {}
                () = voter.shutdown.wait() => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(views)))
    }
}

impl MemberEndpoint {
    /// An answer that only says who leads.
    fn leader_named(&self) -> wire::JoinResponse {
        let (leader_hint, leader_address) = match self.0.leader() {
            Leader::Own => (self.0.own.node_id, self.0.address.clone()),
            Leader::Other { id, address } => (id, address),
            Leader::Unknown => (0, String::new()),
        };
        wire::JoinResponse { member_id: 0, leader_hint, leader_address }
    }
}

/// A member that has only joined: it counts as heard, and as ready for nothing new.
fn silent(incarnation: u64) -> Heard {
    Heard { at: clock::now_us(), incarnation, draining: false, ready: None, resident_bytes: 0 }
}

/// Sends the View until the reader has gone.
async fn send_views(voter: &Voter, sender: mpsc::Sender<Result<wire::View, Status>>) {
    let mut views = voter.view.subscribe();
    loop {
        let view = views.borrow_and_update().clone();
        if sender.send(Ok(view.as_ref().clone())).await.is_err() {
            return;
        }
        // Either a change or the time for a whole one; both send.
        if let Ok(Err(_)) = tokio::time::timeout(RESEND, views.changed()).await {
            return;
        }
    }
}
