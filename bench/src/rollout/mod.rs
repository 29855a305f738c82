//! Does a cluster stay on one model version per answer while versions change all the time and processes die?
//!
//! `gavel bench rollout` starts a cluster of its own (three voters, four nodes, two routers; eight shards with two
//! replicas each), publishes three bundles with different embedding spaces, puts load on it, and activates and rolls
//! back without a pause to speak of; with `--kill` it also ends nodes, routers and the leader by `kill -9` and starts
//! them again. Then it counts ([`evidence`]):
//!
//! * on every response, whether each shard was scored with the bundle of the version that the response names;
//! * in the logs of the nodes, apart from all responses, whether all answers of one auction came from one bundle, and
//!   from a folder that this bundle made;
//! * how long after its entry was applied each activation was what each router pinned;
//! * which requests failed, and which of them were under way at a killed process or sent to a dead router.
//!
//! It ends only the processes that it started.

mod evidence;
pub(crate) mod fleet;
mod load;
mod logs;
mod report;
mod staged;
mod storm;

use crate::transport::TransportError;
use crate::workload::{self, WorkloadError};
use fleet::{Fleet, Size};
use gavel_client::ClientError;
use std::path::{Path, PathBuf};

/// How long, how hard, and with which faults.
#[derive(Clone, Debug, clap::Args)]
pub struct RolloutArgs {
    /// Instead of the storm: so many rounds of load with and without staging, side by side.
    #[arg(long, value_name = "ROUNDS")]
    pub while_staging: Option<u64>,
    /// Activations and rollbacks together.
    #[arg(long, default_value_t = 200)]
    pub activations: u64,
    /// Seconds over which they are spread.
    #[arg(long, default_value_t = 300.0)]
    pub seconds: f64,
    /// Offered rate, requests a second.
    #[arg(long, default_value_t = 100.0)]
    pub qps: f64,
    /// End nodes, routers and the leader by kill -9, in turn, and start them again.
    #[arg(long)]
    pub kill: bool,
    /// Seconds between two kills.
    #[arg(long, default_value_t = 10.0)]
    pub kill_every: f64,
    /// Shards of the catalogue, on four nodes.
    #[arg(long, default_value_t = 8)]
    pub shards: u32,
    /// Replicas of each.
    #[arg(long, default_value_t = 2)]
    pub replicas: u32,
    /// Candidates ranked, over all shards.
    #[arg(long, default_value_t = 80)]
    pub ranked: u32,
    /// Items retrieved, over all shards.
    #[arg(long, default_value_t = 160)]
    pub retrieved: u32,
    /// The first of the three bundles.
    #[arg(long, default_value = "cluster/bootstrap/demo/bundle")]
    pub bundle: PathBuf,
    /// The catalogue.
    #[arg(long, default_value = "cluster/bootstrap/demo/catalogue")]
    pub catalogue: PathBuf,
    /// Requests to replay; by default those of the catalogue.
    #[arg(long)]
    pub requests: Option<PathBuf>,
    /// Keep logs and data here; by default a temporary folder that is removed.
    #[arg(long)]
    pub work_dir: Option<PathBuf>,
    /// Seed of the arrivals.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Write the report as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    /// The requests cannot be read.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// A router cannot be reached.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A voter cannot be reached, or said no.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A bundle cannot be varied.
    #[error("a bundle cannot be varied: {0}")]
    Bundle(String),
    /// A process did not do what it should.
    #[error("{0}")]
    Process(String),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl RolloutError {
    fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }
}

/// The reference cluster of the reliability chapter. Staging takes what it needs: a process that comes back holds up
/// the next kill, not the load.
pub const fn storm_size(args: &RolloutArgs) -> Size {
    Size { controls: 3, nodes: 4, routers: 2, shards: args.shards, replicas: args.replicas, staging_cpu_share: 1.0 }
}

/// Runs the storm and prints its report; true when every promise was kept.
///
/// # Errors
/// When the cluster cannot be started or asked.
pub async fn run(args: RolloutArgs) -> Result<bool, RolloutError> {
    let kind = tokio::signal::unix::SignalKind::terminate();
    let mut terminated = tokio::signal::unix::signal(kind).map_err(RolloutError::io(Path::new("SIGTERM")))?;
    // The processes end with the value that holds them, so an interrupted run must drop it.
    tokio::select! {
        ran = run_whole(args) => ran,
        _ = tokio::signal::ctrl_c() => Err(RolloutError::Process("interrupted".to_owned())),
        _ = terminated.recv() => Err(RolloutError::Process("terminated".to_owned())),
    }
}

async fn run_whole(args: RolloutArgs) -> Result<bool, RolloutError> {
    let requests = args.requests.clone().unwrap_or_else(|| args.catalogue.join("requests.jsonl.zst"));
    let requests = workload::read(&requests)?;
    if let Some(rounds) = args.while_staging {
        let found = staged::run(&args, rounds, requests).await?;
        print!("{}", found.table());
        write(&args, &found)?;
        return Ok(found.is_kept());
    }
    let mut fleet = Fleet::start(&args, storm_size(&args))?;
    for seed in [1, 2] {
        let bundle = fleet.bundle(&args, seed)?;
        fleet.ctl(&["model", "publish", &bundle.display().to_string(), "--no-skew"])?;
        eprintln!("bundle {} is staged", seed + 1);
    }
    let outcome = storm::run(&args, &mut fleet, requests).await;
    fleet.stop();
    let seen = outcome?;
    let log_folder = fleet.logs();
    let found = tokio::task::spawn_blocking(move || evidence::gather(&seen, &log_folder)).await;
    let report = found.map_err(|e| RolloutError::Process(e.to_string()))??;
    print!("{}", report.table());
    write(&args, &report)?;
    Ok(report.is_kept())
}

/// Writes a report as JSON where the arguments ask for it.
fn write(args: &RolloutArgs, report: &impl serde::Serialize) -> Result<(), RolloutError> {
    let Some(path) = &args.json else { return Ok(()) };
    let text = serde_json::to_string_pretty(report).map_err(std::io::Error::other);
    text.and_then(|text| std::fs::write(path, text + "\n")).map_err(RolloutError::io(path))
}
