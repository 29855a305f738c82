//! Who hears what routers served?
//!
//! The voter that leads the control state; another one names it. What it hears is its own and of its term.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gavel_proto::wire;
use gavel_proto::wire::pacing_service_server::PacingService;
use tonic::{Request, Response, Status};

use super::{Leader, LedgerVoter, Voter};
use crate::convert::pacing::report;
use crate::pacing::heard::{Begins, Heard, Known, ProcessId};
use crate::state::types::{Member, Role};

/// What this voter heard of what routers served.
#[derive(Debug, Default)]
pub struct Desk(Mutex<Heard>);

impl Desk {
    /// What was heard; the pacer holds it for one campaign at a time, and for a page of them where it forgets.
    pub fn heard(&self) -> MutexGuard<'_, Heard> {
        // Each report is taken in one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers routers.
pub struct PacingEndpoint {
    /// Who leads.
    pub voter: Arc<Voter>,
    /// Whose time buckets are of.
    pub books: Arc<LedgerVoter>,
    /// Where reports are kept.
    pub desk: Arc<Desk>,
}

#[tonic::async_trait]
impl PacingService for PacingEndpoint {
    async fn report_served(&self, request: Request<wire::ServedReport>) -> Result<Response<wire::ServedReply>, Status> {
        let request = request.into_inner();
        self.voter.check_cluster(&request.cluster_id)?;
        match self.voter.leader() {
            Leader::Own => {}
            Leader::Other { address, .. } => {
                return Ok(Response::new(wire::ServedReply { leader_address: address, known: false }));
            }
            Leader::Unknown => return Err(Status::unavailable("no leader")),
        }
        let is_its = |member: &Member| member.role == Role::Router && member.incarnation == request.incarnation;
        if !self.voter.machine.applied().state.members.get(&request.member_id).is_some_and(is_its) {
            return Err(Status::failed_precondition("no router of this incarnation has joined"));
        }
        let read = report(&request).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let begins = if request.whole { Begins::Anew } else { Begins::Further };
        let by = ProcessId { member: request.member_id, incarnation: request.incarnation };
        let now_s = u32::try_from(self.books.machine.applied().state.wall_ms / 1_000).unwrap_or(u32::MAX);
        let term = self.voter.core.raft.metrics().borrow().current_term;
        let mut heard = self.desk.heard();
        heard.attend(term);
        let known = heard.hear(by, begins, read, now_s) == Known::Yes;
        Ok(Response::new(wire::ServedReply { leader_address: String::new(), known }))
    }
}
