//! Who leads a group, and how does a command get into its log?
//!
//! The same for the control state and the ledger. Without a majority nothing that is proposed ever ends by itself, so
//! everything that waits has a limit in time and in number.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gavel_member::clock;
use openraft::ServerState;
use openraft::error::{CheckIsLeaderError, ClientWriteError, RaftError};
use openraft::raft::ClientWriteResponse;
use tokio::sync::Semaphore;
use tonic::Status;

use crate::consensus::{Encoded, Group, Raft, TypeConfig};
use crate::transport::{Identity, Peers};

/// A proposal that takes longer has an unknown outcome for its caller.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Proposals that may wait at once.
const PROPOSALS_MAX: usize = 64;
/// A leader that no majority has answered for so long proposes nothing: one election timeout.
const QUORUM_SILENCE_MS_MAX: u64 = 1_200;

/// This voter's part in one group.
pub struct Core {
    /// Who this is.
    pub own: Identity,
    /// Which group.
    pub group: Group,
    /// The consensus core.
    pub raft: Raft,
    /// The other voters.
    pub peers: Peers,
    /// Set while a write to the log hangs: this voter must not lead.
    pub disk_hangs: AtomicBool,
    proposals: Semaphore,
}

/// Who leads, as far as this voter knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leader {
    /// This voter.
    Own,
    /// Another.
    Other {
        /// Its id.
        id: u64,
        /// Where it is.
        address: String,
    },
    /// Nobody.
    Unknown,
}

/// Why a command was not proposed, or not seen to be.
#[derive(Debug)]
pub enum NotProposed {
    /// Ask there.
    Elsewhere(Leader),
    /// The state of the cluster does not allow it now, or the outcome is unknown.
    Status(Status),
}

impl Core {
    /// The part of a voter in a group.
    #[must_use]
    pub fn new(own: Identity, group: Group, raft: Raft, peers: Peers) -> Self {
        Self { own, group, raft, peers, disk_hangs: AtomicBool::new(false), proposals: Semaphore::new(PROPOSALS_MAX) }
    }

    /// Who leads.
    #[must_use]
    pub fn leader(&self) -> Leader {
        let metrics = self.raft.metrics().borrow().clone();
        match metrics.current_leader {
            Some(id) if id == self.own.node_id => {
                if metrics.state == ServerState::Leader && !self.disk_hangs.load(Ordering::Relaxed) {
                    Leader::Own
                } else {
                    Leader::Unknown
                }
            }
            Some(id) => {
                let logged = metrics.membership_config.membership().get_node(&id).map_or("", |node| &node.addr);
                Leader::Other { id, address: self.peers.address(id, logged).to_owned() }
            }
            None => Leader::Unknown,
        }
    }

    /// Whether a leader is known; this voter itself counts as one while a majority answers it.
    #[must_use]
    pub fn is_led(&self) -> bool {
        match self.leader() {
            Leader::Own => self.majority_answers(),
            Leader::Other { .. } => true,
            Leader::Unknown => false,
        }
    }

    /// As far as a leader can tell.
    fn majority_answers(&self) -> bool {
        self.raft.metrics().borrow().millis_since_quorum_ack.is_none_or(|ms| ms <= QUORUM_SILENCE_MS_MAX)
    }

    /// Writes a command, and waits until it is applied here.
    ///
    /// # Errors
    /// See [`NotProposed`].
    pub async fn write(&self, command: Vec<u8>) -> Result<ClientWriteResponse<TypeConfig>, NotProposed> {
        let leader = self.leader();
        if leader != Leader::Own {
            return Err(NotProposed::Elsewhere(leader));
        }
        if !self.majority_answers() {
            return Err(NotProposed::Status(Status::unavailable("no majority answers")));
        }
        let Ok(_permit) = self.proposals.try_acquire() else {
            return Err(NotProposed::Status(Status::resource_exhausted("too many proposals wait")));
        };
        let from = clock::now_us();
        let written = tokio::time::timeout(PROPOSE_TIMEOUT, self.raft.client_write(Encoded(command))).await;
        let took = Duration::from_micros(clock::now_us().0.saturating_sub(from.0));
        metrics::histogram!("gavel_control_commit_seconds", "group" => self.group.word()).record(took);
        match written {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => {
                Err(NotProposed::Elsewhere(self.leader()))
            }
            Ok(Err(error)) => Err(NotProposed::Status(Status::unavailable(error.to_string()))),
            Err(_) => Err(NotProposed::Status(Status::unavailable("unknown outcome: send it again with the same id"))),
        }
    }

    /// Returns once this voter has applied everything that was committed before the call (ReadIndex).
    ///
    /// # Errors
    /// When this voter is not the leader of a majority.
    pub async fn linearize(&self) -> Result<(), Status> {
        match tokio::time::timeout(PROPOSE_TIMEOUT, self.raft.ensure_linearizable()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(_)))) => Err(self.elsewhere()),
            Ok(Err(error)) => Err(Status::unavailable(error.to_string())),
            Err(_) => Err(Status::unavailable("no majority answers")),
        }
    }

    /// Names the leader in a status, for calls whose answer has no field for it.
    fn elsewhere(&self) -> Status {
        match self.leader() {
            Leader::Other { address, .. } => Status::unavailable(format!("not the leader: ask {address}")),
            Leader::Own | Leader::Unknown => Status::unavailable("no leader"),
        }
    }

    /// Refuses what is meant for another cluster.
    pub fn check_cluster(&self, cluster_id: &str) -> Result<(), Status> {
        if cluster_id == self.own.cluster_id {
            return Ok(());
        }
        Err(Status::failed_precondition(format!("this is cluster {:?}", self.own.cluster_id)))
    }
}
