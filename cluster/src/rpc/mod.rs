//! What does a voter answer to members and operators?
//!
//! Joins, beats and proposals belong to the leader; another voter says who that is. The View and the blobs come
//! from any voter. Everything that waits has a limit in time and in number, because without a majority nothing
//! that is proposed ever ends by itself.

mod admin;
mod blob;
mod member;
mod registry;

pub use admin::AdminEndpoint;
pub use blob::BlobEndpoint;
pub use member::MemberEndpoint;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gavel_member::{Shutdown, clock};
use gavel_proto::limits::COMMAND_BYTES_MAX;
use gavel_proto::wire;
use openraft::error::{CheckIsLeaderError, ClientWriteError, RaftError};
use openraft::{ServerState, raft::ClientWriteResponse};
use prost::Message;
use tokio::sync::{Notify, Semaphore, watch};
use tonic::Status;

use crate::consensus::{Encoded, Raft, TypeConfig};
use crate::convert;
use crate::publish;
use crate::raft::machine::Machine;
use crate::reconcile::Hearing;
use crate::state::command::Body;
use crate::transport::{Identity, Peers};

/// A proposal that takes longer has an unknown outcome for its caller.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Proposals that may wait at once.
const PROPOSALS_MAX: usize = 64;
/// A leader that no majority has answered for so long proposes nothing: one election timeout.
const QUORUM_SILENCE_MS_MAX: u64 = 1_200;
/// A voter that knows no leader for longer tells members nothing: an election takes a second or two.
const LEADERLESS_MAX: Duration = Duration::from_secs(3);

/// What the endpoints of one voter share.
pub struct Voter {
    /// Who this is.
    pub own: Identity,
    /// Where this voter listens.
    pub address: String,
    /// The consensus core.
    pub raft: Raft,
    /// The state.
    pub machine: Machine,
    /// The other voters.
    pub peers: Peers,
    /// The picture that members follow.
    pub view: watch::Sender<Arc<wire::View>>,
    /// Whether this voter hears a leader that a majority hears.
    pub led: watch::Sender<bool>,
    /// Set once this voter may vote.
    pub admitted: Arc<AtomicBool>,
    /// Set while a write to the log hangs: this voter must not lead.
    pub disk_hangs: AtomicBool,
    /// Wakes the reconciling leader when a beat said something new.
    pub news: Notify,
    /// The wish to stop, which ends streams.
    pub shutdown: Shutdown,
    hearing: Mutex<Hearing>,
    /// Where nodes said their bytes are; for status only, so no part of what is decided by.
    memory: Mutex<BTreeMap<u64, wire::NodeMemory>>,
    /// How far members said that bundles are; for status only.
    progress: Mutex<BTreeMap<u64, Vec<wire::ModelPhase>>>,
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

impl Voter {
    /// The shared part of a voter.
    #[must_use]
    pub fn new(
        own: Identity,
        address: String,
        raft: Raft,
        machine: Machine,
        peers: Peers,
        admitted: Arc<AtomicBool>,
        shutdown: Shutdown,
    ) -> Self {
        let view = convert::view::to_wire(&publish::view(&machine.applied().state));
        Self {
            own,
            address,
            raft,
            machine,
            peers,
            view: watch::Sender::new(Arc::new(view)),
            led: watch::Sender::new(false),
            admitted,
            disk_hangs: AtomicBool::new(false),
            news: Notify::new(),
            shutdown,
            hearing: Mutex::default(),
            memory: Mutex::default(),
            progress: Mutex::default(),
            proposals: Semaphore::new(PROPOSALS_MAX),
        }
    }

    /// Where the bytes of nodes are, as far as this voter has heard as the leader.
    pub fn memory(&self) -> MutexGuard<'_, BTreeMap<u64, wire::NodeMemory>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far bundles are on members, as far as this voter has heard as the leader.
    pub fn progress(&self) -> MutexGuard<'_, BTreeMap<u64, Vec<wire::ModelPhase>>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this voter has heard as the leader.
    pub fn hearing(&self) -> MutexGuard<'_, Hearing> {
        self.hearing.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Returns once no leader has been known for a while.
    pub async fn leaderless(&self) {
        let mut led = self.led.subscribe();
        loop {
            // The sender lives as long as `self`: a wait ends by the value or by the time.
            let _ = led.wait_for(|led| !led).await;
            if tokio::time::timeout(LEADERLESS_MAX, led.wait_for(|led| *led)).await.is_err() {
                return;
            }
        }
    }

    /// As far as a leader can tell.
    fn majority_answers(&self) -> bool {
        self.raft.metrics().borrow().millis_since_quorum_ack.is_none_or(|ms| ms <= QUORUM_SILENCE_MS_MAX)
    }

    /// Proposes one of the leader's own commands.
    ///
    /// # Errors
    /// See [`NotProposed`].
    pub async fn propose_own(&self, body: &Body) -> Result<ClientWriteResponse<TypeConfig>, NotProposed> {
        self.propose(convert::command::to_wire("", clock::wall_ms(), body)).await
    }

    /// Proposes a command and waits until it is applied here.
    ///
    /// # Errors
    /// See [`NotProposed`].
    pub async fn propose(&self, command: wire::Command) -> Result<ClientWriteResponse<TypeConfig>, NotProposed> {
        convert::command::parse(&command).map_err(|e| NotProposed::Status(Status::invalid_argument(e.to_string())))?;
        let bytes = command.encode_to_vec();
        if bytes.len() > COMMAND_BYTES_MAX {
            return Err(NotProposed::Status(Status::invalid_argument("the command is too large")));
        }
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
        let written = tokio::time::timeout(PROPOSE_TIMEOUT, self.raft.client_write(Encoded(bytes))).await;
        let took = Duration::from_micros(clock::now_us().0.saturating_sub(from.0));
        metrics::histogram!("gavel_control_commit_seconds").record(took);
        match written {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => {
                Err(NotProposed::Elsewhere(self.leader()))
            }
            Ok(Err(error)) => Err(NotProposed::Status(Status::unavailable(error.to_string()))),
            Err(_) => {
                Err(NotProposed::Status(Status::unavailable("unknown outcome: send it again with the same command_id")))
            }
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
    fn check_cluster(&self, cluster_id: &str) -> Result<(), Status> {
        if cluster_id == self.own.cluster_id {
            return Ok(());
        }
        Err(Status::failed_precondition(format!("this is cluster {:?}", self.own.cluster_id)))
    }
}
