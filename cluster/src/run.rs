//! How does a voter start, and how does it stop?
//!
//! Disk first (a damaged file ends the start), then the consensus cores of both groups, then the socket; what goes on afterwards
//! are tasks: admission and formation with this voter's own beat, the look for a leader, the View's publisher, the
//! leader's reconciliation and pacing, the sweep of the blobs. All of them run where the caller's runtime runs; fsync and hashing have threads of their own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use gavel_member::serve::{self, Exposure};
use gavel_member::{Shutdown, identity, transport};
use gavel_proto::limits::BLOBS_BYTES_MAX;
use gavel_proto::wire::admin_service_server::AdminServiceServer;
use gavel_proto::wire::blob_service_server::BlobServiceServer;
use gavel_proto::wire::campaign_service_server::CampaignServiceServer;
use gavel_proto::wire::control_service_server::ControlServiceServer;
use gavel_proto::wire::delivery_service_server::DeliveryServiceServer;
use gavel_proto::wire::ledger_service_server::LedgerServiceServer;
use gavel_proto::wire::pacing_service_server::PacingServiceServer;
use gavel_proto::wire::raft_service_server::RaftServiceServer;
use openraft::SnapshotPolicy;
use tokio::task::JoinHandle;
use tonic::service::Routes;

use crate::blobs::{BlobFolder, Shelf, Store, StoreLocation};
use crate::error::ControlError;
use crate::ledger::Ledger;
use crate::raft::group::Replicated;
use crate::raft::index::Contiguity;
use crate::raft::journal::Journal;
use crate::raft::log::LogStore;
use crate::raft::machine::Machine;
use crate::raft::recovery::{Expected, FORMAT, Header};
use crate::raft::stall::WriteClock;
use crate::raft::{DiskError, Raft};
use crate::rpc::{
    AdminEndpoint, BlobEndpoint, CampaignEndpoint, Core, DeliveryEndpoint, Desk, LedgerEndpoint, LedgerVoter,
    MemberEndpoint, PacingEndpoint, Voter, drive,
};
use crate::transport::{Identity, Peers, RaftEndpoint};
use crate::{formation, lead, pace};

/// How a voter is set up.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// The cluster's name, stamped on every file and message.
    pub cluster_id: String,
    /// This voter: 1 to n of the initial set.
    pub node_id: u64,
    /// Its disk.
    pub data_dir: PathBuf,
    /// HOST:PORT to listen on; port 0 for any, which only a lone voter can use.
    pub listen: String,
    /// All voters of the initial set with their addresses, this one included or not.
    pub peers: Vec<(u64, String)>,
    /// The object store of bundles and catalogues; without one they are on the voters' disks.
    pub blob_store: Option<StoreLocation>,
    /// How fast things go.
    pub pace: Pace,
}

impl ControlConfig {
    /// A voter at the usual pace.
    #[must_use]
    pub fn new(cluster_id: &str, node_id: u64, data_dir: PathBuf, listen: &str, peers: Vec<(u64, String)>) -> Self {
        Self {
            cluster_id: cluster_id.to_owned(),
            node_id,
            data_dir,
            listen: listen.to_owned(),
            peers,
            blob_store: None,
            pace: Pace::default(),
        }
    }
}

/// How fast consensus goes. The defaults are the calibrated ones; tests make snapshots more often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Between two heartbeats; also the deadline of an append.
    pub heartbeat_ms: u64,
    /// Least silence before an election; each voter adds a step by its rank.
    pub election_ms_min: u64,
    /// Most silence before an election.
    pub election_ms_max: u64,
    /// Entries between two snapshots.
    pub snapshot_every: u64,
    /// Entries kept behind a snapshot, for followers that lag a little.
    pub entries_kept: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            heartbeat_ms: 150,
            election_ms_min: 600,
            election_ms_max: 1_200,
            snapshot_every: 5_000,
            entries_kept: 2_000,
        }
    }
}

/// A voter that runs.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// Ends when the voter has stopped, with the reason if it was not asked to.
    pub task: JoinHandle<Result<(), ControlError>>,
    /// For the process that embeds it, and for tests.
    pub voter: Arc<Voter>,
}

/// Starts a voter and returns once it listens.
///
/// # Errors
/// When the configuration, the disk or the address cannot be used.
pub async fn run(config: ControlConfig, shutdown: Shutdown) -> Result<Running, ControlError> {
    check(&config)?;
    std::fs::create_dir_all(&config.data_dir)
        .map_err(DiskError::io(format!("create {}", config.data_dir.display())))?;
    let identity = identity::Identity::open(&config.data_dir, &config.cluster_id)?;
    let bound = serve::bind(&config.listen).await?;
    let own = Identity { cluster_id: config.cluster_id.clone(), node_id: config.node_id };
    let (addresses, address) = addresses(&config, bound.address);

    let blobs = shelf(&config)?;
    let control = seat(&config, &own, &addresses, config.data_dir.clone(), None).await?;
    let books = config.data_dir.join("ledger");
    let journal = Journal::open(&books.join("journal"), &config.cluster_id)?;
    let ledger = seat::<Ledger>(&config, &own, &addresses, books, Some(journal)).await?;
    if formation::lost_ledger(&config.data_dir, ledger.pristine) {
        return Err(ControlError::Wiped(config.node_id));
    }
    let pristine = control.pristine;
    let admitted = formation::remembered(&config.data_dir, pristine);
    let rafts = (control.core.raft.clone(), ledger.core.raft.clone());
    let raft_endpoint = RaftEndpoint::new(own, rafts.0, rafts.1, Arc::clone(&admitted));
    for (core, writes) in [(&control.core, control.writes), (&ledger.core, ledger.writes)] {
        lead::watch_disk(Arc::downgrade(core), writes)
            .map_err(DiskError::io("start the thread that watches the disk"))?;
    }
    let (books, wishes) = LedgerVoter::new(ledger.core, ledger.machine);
    let books = Arc::new(books);
    let voter = Arc::new(Voter::new(control.core, address, control.machine, admitted, shutdown.clone()));
    let desk = Arc::new(Desk::default());
    let pacing = PacingEndpoint { voter: Arc::clone(&voter), books: Arc::clone(&books), desk: Arc::clone(&desk) };
    let routes = routes(&voter, blobs.clone(), raft_endpoint, Arc::clone(&books), pacing);
    let serving = bound.serve(routes, Exposure::Internal, shutdown.clone()).await?;

    let address = serving.address;
    let disk_mark = formation::disk_mark(&identity.member_key);
    let folder = config.data_dir;
    let admission = formation::Admission { voter: Arc::clone(&voter), addresses, folder, disk_mark };
    let running = Arc::clone(&voter);
    let task = tokio::spawn(async move {
        // The lock on the folder is held until everything has stopped.
        let _identity = identity;
        let driving = drive(Arc::clone(&books), wishes, Arc::clone(&running), admission.addresses.clone());
        let pacing = pace::pace_on(&running, &books, &desk);
        let working = async {
            tokio::select! { () = driving => {}, () = pacing => {} }
        };
        // On the heap: it holds what every task of the voter holds.
        let (voter, ledger) = (Arc::clone(&running), Arc::clone(&books));
        Box::pin(serve_on(voter, ledger, working, admission, blobs, serving, shutdown)).await
    });
    Ok(Running { address, task, voter })
}

/// The blobs' folder, and the store behind it. A store that is away does not keep a voter from running.
fn shelf(config: &ControlConfig) -> Result<Shelf, ControlError> {
    let folder = BlobFolder::open(&config.data_dir.join("blobs"), BLOBS_BYTES_MAX)
        .map_err(DiskError::io("open the blobs' folder"))?;
    let store = config.blob_store.as_ref().map(|location| Store::open(location, &config.cluster_id));
    let shelf = Shelf::new(folder, store.transpose().map_err(|e| ControlError::Config(e.to_string()))?);
    if config.blob_store.is_some() {
        let asked = shelf.clone();
        tokio::spawn(async move {
            if let Err(error) = asked.ask_store().await {
                tracing::error!(%error, "uploads are refused until the object store answers");
            }
        });
    }
    Ok(shelf)
}

/// Runs the voter's tasks until the shutdown, or until one of them ends it.
async fn serve_on(
    voter: Arc<Voter>,
    books: Arc<LedgerVoter>,
    working: impl Future<Output = ()>,
    admission: formation::Admission,
    blobs: Shelf,
    serving: serve::Serving,
    shutdown: Shutdown,
) -> Result<(), ControlError> {
    let health = serving.health();
    let ended = tokio::select! {
        ended = formation::run(&admission) => ended,
        () = lead::look_for_leader(&voter) => Ok(()),
        () = lead::publish_on(&voter, &health) => Ok(()),
        () = lead::sweep_on(&voter, &blobs) => Ok(()),
        () = lead::reconcile_on(&voter) => Ok(()),
        () = lead::follow_catalogue(&voter, &blobs, &admission.addresses) => Ok(()),
        () = working => Ok(()),
        () = formation::remember_ledger_on(&books, &admission.folder) => Ok(()),
        reason = lead::core_ended(&voter.core) => Err(ControlError::Raft(reason)),
        reason = lead::core_ended(&books.core) => Err(ControlError::Raft(format!("the ledger: {reason}"))),
        () = shutdown.wait() => Ok(()),
    };
    if let Err(error) = &ended {
        tracing::error!(%error, "the voter ends");
    }
    shutdown.trigger();
    // The core may have panicked; there is nothing left to do about it.
    drop(voter.core.raft.shutdown().await);
    drop(books.core.raft.shutdown().await);
    drop(serving.task.await);
    ended
}

/// This voter's part in one group, opened.
struct Seat<S> {
    core: Arc<Core>,
    machine: Machine<S>,
    writes: Arc<WriteClock>,
    /// Nothing was ever written.
    pristine: bool,
}

/// Opens the files of a group and starts its consensus core.
async fn seat<S: Replicated>(
    config: &ControlConfig,
    own: &Identity,
    addresses: &BTreeMap<u64, String>,
    folder: PathBuf,
    journal: Option<Journal>,
) -> Result<Seat<S>, ControlError> {
    std::fs::create_dir_all(&folder).map_err(DiskError::io(format!("create {}", folder.display())))?;
    let machine = Machine::<S>::open_with(&folder, &config.cluster_id, journal)?;
    let expected = Expected {
        owner: Header { format: FORMAT, cluster_id: config.cluster_id.clone(), node_id: config.node_id },
        contiguity: Contiguity::Kept,
        covered: machine.covered(),
    };
    let log = LogStore::open(&folder, &expected)?;
    let pristine = log.is_pristine() && machine.covered().is_none();
    let writes = log.writes();
    let peers = Peers::new(own.clone(), S::GROUP, addresses.clone());
    let raft = Raft::new(config.node_id, Arc::new(raft_config(config)?), peers.clone(), log, machine.clone())
        .await
        .map_err(|e| ControlError::Raft(e.to_string()))?;
    Ok(Seat { core: Arc::new(Core::new(own.clone(), S::GROUP, raft, peers)), machine, writes, pristine })
}

fn check(config: &ControlConfig) -> Result<(), ControlError> {
    let ids: BTreeMap<u64, &String> = config.peers.iter().map(|(id, address)| (*id, address)).collect();
    let wrong = |what: String| Err(ControlError::Config(what));
    if config.node_id == 0 || ids.contains_key(&0) || ids.len() != config.peers.len() {
        return wrong("voter ids are distinct and begin at 1".to_owned());
    }
    let voters = ids.len() + usize::from(!ids.contains_key(&config.node_id));
    if ![1, 3, 5].contains(&voters) {
        return wrong(format!("{voters} voters: there must be 1, 3 or 5"));
    }
    let reachable = |address: &str| transport::control_channel(address).is_ok();
    if let Some((id, address)) = ids.iter().find(|(id, address)| **id != config.node_id && !reachable(address)) {
        return wrong(format!("the address {address:?} of voter {id} is not HOST:PORT"));
    }
    if config.cluster_id.is_empty() || config.cluster_id.len() > gavel_proto::limits::STRING_BYTES_MAX {
        return wrong("cluster_id has 1 to 256 bytes".to_owned());
    }
    Ok(())
}

/// The voters' addresses and our own; ours is the bound one where the configuration names no port.
fn addresses(config: &ControlConfig, bound: SocketAddr) -> (BTreeMap<u64, String>, String) {
    let mut addresses: BTreeMap<u64, String> = config.peers.iter().cloned().collect();
    let own = addresses.entry(config.node_id).or_insert_with(|| bound.to_string());
    if own.ends_with(":0") {
        *own = bound.to_string();
    }
    let own = own.clone();
    (addresses, own)
}

fn raft_config(config: &ControlConfig) -> Result<openraft::Config, ControlError> {
    let pace = config.pace;
    let mut ids: Vec<u64> = config.peers.iter().map(|(id, _)| *id).collect();
    ids.sort_unstable();
    let rank = ids.iter().position(|id| *id == config.node_id).unwrap_or(0) as u64;
    // openraft draws the timeout once per process: ranks that do not overlap cannot tie for ever.
    let step = (pace.election_ms_max - pace.election_ms_min) / (ids.len().max(1) as u64);
    let election_timeout_min = pace.election_ms_min + rank * step;
    let wish = openraft::Config {
        cluster_name: config.cluster_id.clone(),
        heartbeat_interval: pace.heartbeat_ms,
        election_timeout_min,
        election_timeout_max: election_timeout_min + step,
        install_snapshot_timeout: 10_000,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(pace.snapshot_every),
        max_in_snapshot_log_to_keep: pace.entries_kept,
        ..openraft::Config::default()
    };
    wish.validate().map_err(|e| ControlError::Config(e.to_string()))
}

fn routes(
    voter: &Arc<Voter>,
    blobs: Shelf,
    raft: RaftEndpoint,
    books: Arc<LedgerVoter>,
    pacing: PacingEndpoint,
) -> Routes {
    let message = transport::MESSAGE_BYTES_MAX;
    let chunk = transport::CHUNK_MESSAGE_BYTES_MAX;
    let mut routes = Routes::builder();
    routes
        .add_service(RaftServiceServer::new(raft).max_decoding_message_size(message).max_encoding_message_size(message))
        .add_service(
            ControlServiceServer::new(MemberEndpoint(Arc::clone(voter)))
                .max_decoding_message_size(message)
                .max_encoding_message_size(message),
        )
        .add_service(
            CampaignServiceServer::new(CampaignEndpoint::new(Arc::clone(voter), Arc::clone(&books)))
                .max_decoding_message_size(message)
                .max_encoding_message_size(message),
        )
        .add_service(
            DeliveryServiceServer::new(DeliveryEndpoint(Arc::clone(voter)))
                .max_decoding_message_size(message)
                .max_encoding_message_size(message),
        )
        .add_service(
            LedgerServiceServer::new(LedgerEndpoint(books))
                .max_decoding_message_size(message)
                .max_encoding_message_size(message),
        )
        .add_service(
            PacingServiceServer::new(pacing).max_decoding_message_size(message).max_encoding_message_size(message),
        )
        .add_service(
            AdminServiceServer::new(AdminEndpoint(Arc::clone(voter)))
                .max_decoding_message_size(message)
                .max_encoding_message_size(message),
        )
        .add_service(
            BlobServiceServer::new(BlobEndpoint { voter: Arc::clone(voter), blobs })
                .max_decoding_message_size(chunk)
                .max_encoding_message_size(chunk),
        );
    routes.routes()
}
