//! How does a process become part of the cluster, and stay?
//!
//! [`Member::start`] takes the last View from disk, then joins, beats and follows the View in the background. It
//! never waits for the control plane: a process with a View on disk can serve before any voter answers.

use crate::delivery::{self, DeliveryFeed};
use crate::heartbeat::Heartbeat;
use crate::identity::{Identity, IdentityError};
use crate::view::{self, ViewFeed};
use crate::{ReadyState, Shutdown};
use gavel_proto::wire::{Role, View};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What a member is told at its start.
#[derive(Clone, Debug)]
pub struct MemberConfig {
    /// The cluster; a voter of another one refuses us.
    pub cluster_id: String,
    /// Where the process keeps its files.
    pub data_dir: PathBuf,
    /// Addresses of voters, at least one.
    pub control: Vec<String>,
    /// Where others reach our gRPC endpoint.
    pub address: String,
    /// For people.
    pub name: String,
}

/// Why a process cannot become a member.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// No voter was named.
    #[error("no control address was given")]
    NoControl,
    /// The data folder is not ours. Not transparent: the process finds its exit code along the sources.
    #[error("data folder: {0}")]
    Identity(#[from] IdentityError),
}

/// Addresses under which voters may be found: those we were told, and those that the View names.
#[derive(Debug)]
pub struct Voters {
    told: Vec<String>,
    seen: Mutex<Vec<String>>,
}

impl Voters {
    /// Starts with the addresses of the configuration; `None` when there are none.
    #[must_use]
    pub fn new(told: Vec<String>) -> Option<Self> {
        (!told.is_empty()).then_some(Self { told, seen: Mutex::new(Vec::new()) })
    }

    /// Takes the voters that the View names.
    pub fn learn(&self, view: &View) {
        let control = view.members.iter().filter(|m| m.role() == Role::Control && !m.address.is_empty());
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = control.map(|m| m.address.clone()).collect();
    }

    /// All of them, each once; never empty.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        let mut all = self.told.clone();
        for address in self.seen.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if !all.contains(address) {
                all.push(address.clone());
            }
        }
        all
    }
}

/// A member that joins, beats and follows the View in the background.
#[derive(Debug)]
pub struct Member {
    /// The newest View.
    pub view: Arc<ViewFeed>,
    /// What is said of campaigns.
    pub delivery: Arc<DeliveryFeed>,
    /// What the process is ready for; it writes, the heartbeat reads.
    pub ready: Arc<ReadyState>,
    /// Where voters are.
    pub voters: Arc<Voters>,
    /// 0 until the first join of this data folder; afterwards the id that the cluster knows.
    pub member_id: watch::Receiver<u64>,
    /// The incarnation of this process.
    pub incarnation: u64,
    /// End after the shutdown; see [`Member::left`].
    pub tasks: Vec<JoinHandle<()>>,
    _identity: Identity,
}

impl Member {
    /// Opens the data folder and starts. Call it inside the runtime, after the gRPC port is bound.
    ///
    /// # Errors
    /// When no voter is named or the data folder is not ours.
    pub fn start(config: MemberConfig, role: Role, shutdown: &Shutdown) -> Result<Self, MemberError> {
        let identity = Identity::open(&config.data_dir, &config.cluster_id)?;
        Self::start_as(config, role, identity, shutdown)
    }

    /// The same for a process that has opened its folder already.
    ///
    /// # Errors
    /// When no voter is named.
    pub fn start_as(
        config: MemberConfig,
        role: Role,
        identity: Identity,
        shutdown: &Shutdown,
    ) -> Result<Self, MemberError> {
        let voters = Arc::new(Voters::new(config.control.clone()).ok_or(MemberError::NoControl)?);
        let feed = Arc::new(ViewFeed::default());
        let said = Arc::new(DeliveryFeed::default());
        let ready = Arc::new(ReadyState::new());
        let (id_sender, member_id) = watch::channel(0);
        if let Some(last) = view::load_last(&config.data_dir, &config.cluster_id) {
            id_sender.send_replace(last.member_id);
            if let Some(held) = last.view.and_then(|v| feed.offer(v)) {
                voters.learn(&held);
                tracing::info!(map_epoch = held.map_epoch, "starting from the View on disk");
            }
        }
        if let Some(book) = delivery::load_last(&config.data_dir) {
            tracing::info!(version = book.version, campaigns = book.rows().len(), "starting from the delivery on disk");
            said.offer(book);
        }
        let heartbeat = Heartbeat {
            config: config.clone(),
            role,
            member_key: identity.member_key.clone(),
            incarnation: identity.incarnation,
            voters: Arc::clone(&voters),
            feed: Arc::clone(&feed),
            ready: Arc::clone(&ready),
            member_id: id_sender,
        };
        // The View is followed until it has said that this member leaves.
        let (shutdown, left) = (shutdown.clone(), Shutdown::new());
        let hear = delivery::follow(
            config.clone(),
            identity.incarnation,
            Arc::clone(&voters),
            Arc::clone(&said),
            member_id.clone(),
            left.clone(),
        );
        let follow = view::follow(config, Arc::clone(&voters), Arc::clone(&feed), member_id.clone(), left.clone());
        let beats = async move {
            heartbeat.run(shutdown).await;
            left.trigger();
        };
        let tasks = vec![tokio::spawn(beats), tokio::spawn(follow), tokio::spawn(hear)];
        Ok(Self {
            view: feed,
            delivery: said,
            ready,
            voters,
            member_id,
            incarnation: identity.incarnation,
            tasks,
            _identity: identity,
        })
    }

    /// Returns after the shutdown, once the View has told everybody that this member leaves, or a second later when
    /// the control plane is away. A server stops to listen after this, not before.
    pub async fn left(&mut self) {
        for task in self.tasks.drain(..) {
            // It reports its own faults.
            let _ = task.await;
        }
    }

    /// The id that the cluster knows this member by; 0 before its first join.
    #[must_use]
    pub fn id(&self) -> u64 {
        *self.member_id.borrow()
    }
}
