//! What does a voter answer to members and operators?
//!
//! Joins, beats and proposals belong to the leader; another voter says who that is. The View and the blobs come
//! from any voter. Everything that waits has a limit in time and in number, because without a majority nothing
//! that is proposed ever ends by itself.

mod admin;
mod blob;
mod campaigns;
mod core;
mod delivery;
mod ledger;
mod member;
mod pacing;
mod registry;

pub use admin::AdminEndpoint;
pub use blob::BlobEndpoint;
pub use campaigns::CampaignEndpoint;
pub use core::{Core, Leader, NotProposed};
pub use delivery::{DeliveryEndpoint, Effect, Followers};
pub use ledger::{LedgerEndpoint, LedgerVoter, drive};
pub use member::MemberEndpoint;
pub use pacing::{Desk, PacingEndpoint};

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gavel_member::{Shutdown, clock};
use gavel_proto::limits::COMMAND_BYTES_MAX;
use gavel_proto::wire;
use prost::Message;
use tokio::sync::{Notify, watch};
use tonic::Status;

use crate::catalogue::Catalogue;
use crate::consensus::{Answer, LogId};
use crate::convert;
use crate::publish;
use crate::raft::machine::Machine;
use crate::reconcile::Hearing;
use crate::state::command::Body;
use crate::state::types::Outcome;
use crate::transport::Identity;

/// A voter that knows no leader for longer tells members nothing: an election takes a second or two.
const LEADERLESS_MAX: Duration = Duration::from_secs(3);

/// What the endpoints of one voter share.
pub struct Voter {
    /// Who this is.
    pub own: Identity,
    /// Where this voter listens.
    pub address: String,
    /// Its part in the group of the control state.
    pub core: Arc<Core>,
    /// The state.
    pub machine: Machine,
    /// The picture that members follow.
    pub view: watch::Sender<Arc<wire::View>>,
    /// Whether this voter hears a leader that a majority hears.
    pub led: watch::Sender<bool>,
    /// Set once this voter may vote.
    pub admitted: Arc<AtomicBool>,
    /// Wakes the reconciling leader when a beat said something new.
    pub news: Notify,
    /// The wish to stop, which ends streams.
    pub shutdown: Shutdown,
    /// Who has heard what is said of campaigns.
    pub followers: Followers,
    /// The campaigns of the generation that serves, once this voter has read them as the leader.
    pub catalogue: watch::Sender<Option<Arc<Catalogue>>>,
    hearing: Mutex<Hearing>,
    /// Where nodes said their bytes are; for status only, so no part of what is decided by.
    memory: Mutex<BTreeMap<u64, wire::NodeMemory>>,
    /// How far members said that bundles are; for status only.
    progress: Mutex<BTreeMap<u64, Vec<wire::ModelPhase>>>,
}

/// A command that was applied.
#[derive(Debug)]
pub struct Written {
    /// Where it lies.
    pub log_id: LogId,
    /// What came of it.
    pub data: Outcome,
}

impl Voter {
    /// The shared part of a voter.
    #[must_use]
    pub fn new(
        core: Arc<Core>,
        address: String,
        machine: Machine,
        admitted: Arc<AtomicBool>,
        shutdown: Shutdown,
    ) -> Self {
        let view = convert::view::to_wire(&publish::view(&machine.applied().state));
        Self {
            own: core.own.clone(),
            address,
            core,
            machine,
            view: watch::Sender::new(Arc::new(view)),
            led: watch::Sender::new(false),
            admitted,
            news: Notify::new(),
            shutdown,
            followers: Followers::default(),
            catalogue: watch::Sender::new(None),
            hearing: Mutex::default(),
            memory: Mutex::default(),
            progress: Mutex::default(),
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
        self.core.leader()
    }

    /// Whether a leader is known; this voter itself counts as one while a majority answers it.
    #[must_use]
    pub fn is_led(&self) -> bool {
        self.core.is_led()
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

    /// Proposes one of the leader's own commands.
    ///
    /// # Errors
    /// See [`NotProposed`].
    pub async fn propose_own(&self, body: &Body) -> Result<Written, NotProposed> {
        self.propose(convert::command::to_wire("", clock::wall_ms(), body)).await
    }

    /// Proposes a command and waits until it is applied here.
    ///
    /// # Errors
    /// See [`NotProposed`].
    pub async fn propose(&self, command: wire::Command) -> Result<Written, NotProposed> {
        convert::command::parse(&command).map_err(|e| NotProposed::Status(Status::invalid_argument(e.to_string())))?;
        let bytes = command.encode_to_vec();
        if bytes.len() > COMMAND_BYTES_MAX {
            return Err(NotProposed::Status(Status::invalid_argument("the command is too large")));
        }
        let written = self.core.write(bytes).await?;
        let data = match written.data {
            Answer::Control(outcome) => outcome,
            Answer::Nothing | Answer::Ledger(_) => {
                return Err(NotProposed::Status(Status::internal("an answer of another group")));
            }
        };
        Ok(Written { log_id: written.log_id, data })
    }

    /// Returns once this voter has applied everything that was committed before the call (ReadIndex).
    ///
    /// # Errors
    /// When this voter is not the leader of a majority.
    pub async fn linearize(&self) -> Result<(), Status> {
        self.core.linearize().await
    }

    /// Refuses what is meant for another cluster.
    fn check_cluster(&self, cluster_id: &str) -> Result<(), Status> {
        self.core.check_cluster(cluster_id)
    }
}
