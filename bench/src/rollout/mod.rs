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
mod load;
mod logs;
mod report;
mod staged;
mod storm;

use crate::fleet::{self, Fleet, FleetArgs, FleetError, Size};
use crate::workload;
use std::path::PathBuf;

/// How long, how hard, and with which faults.
#[derive(Clone, Debug, clap::Args)]
pub struct RolloutArgs {
    /// Instead of the storm: so many rounds of load with and without staging, side by side.
    #[arg(long, value_name = "ROUNDS", value_parser = clap::value_parser!(u64).range(1..))]
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
    #[arg(long, default_value_t = Size::STORM.shards)]
    pub shards: u32,
    /// Replicas of each.
    #[arg(long, default_value_t = Size::STORM.replicas)]
    pub replicas: u32,
    /// Candidates ranked, over all shards.
    #[arg(long, default_value_t = Size::STORM.ranked)]
    pub ranked: u32,
    /// Items retrieved, over all shards.
    #[arg(long, default_value_t = Size::STORM.retrieved)]
    pub retrieved: u32,
    /// Where the cluster comes from; its bundle is the first of three.
    #[command(flatten)]
    pub fleet: FleetArgs,
    /// Requests to replay; by default those of the catalogue.
    #[arg(long)]
    pub requests: Option<PathBuf>,
    /// Seed of the arrivals.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Write the report as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// Runs the storm and prints its report; true when every promise was kept.
///
/// # Errors
/// When the cluster cannot be started or asked.
pub async fn run(args: RolloutArgs) -> Result<bool, FleetError> {
    fleet::unless_interrupted(Box::pin(run_whole(args))).await
}

async fn run_whole(args: RolloutArgs) -> Result<bool, FleetError> {
    let requests = args.requests.clone().unwrap_or_else(|| args.fleet.catalogue.join("requests.jsonl.zst"));
    let requests = workload::read(&requests)?;
    if let Some(rounds) = args.while_staging {
        let found = staged::run(&args, rounds, requests).await?;
        print!("{}", found.table());
        write(&args, &found)?;
        return Ok(found.is_kept());
    }
    let RolloutArgs { shards, replicas, ranked, retrieved, .. } = args;
    let mut fleet = Fleet::start(&args.fleet, Size { shards, replicas, ranked, retrieved, ..Size::STORM })?;
    for seed in [1, 2] {
        let bundle = fleet.bundle(&args.fleet, seed)?;
        fleet.ctl(&["model", "publish", &bundle.display().to_string(), "--no-skew"])?;
        eprintln!("bundle {} is staged", seed + 1);
    }
    let outcome = storm::run(&args, &mut fleet, requests).await;
    fleet.stop();
    let seen = outcome?;
    let log_folder = fleet.logs();
    let found = tokio::task::spawn_blocking(move || evidence::gather(&seen, &log_folder)).await;
    let report = found.map_err(|e| FleetError::Process(e.to_string()))??;
    print!("{}", report.table());
    write(&args, &report)?;
    Ok(report.is_kept())
}

/// Writes a report as JSON where the arguments ask for it.
fn write(args: &RolloutArgs, report: &impl serde::Serialize) -> Result<(), FleetError> {
    let Some(path) = &args.json else { return Ok(()) };
    let text = serde_json::to_string_pretty(report).map_err(std::io::Error::other);
    text.and_then(|text| std::fs::write(path, text + "\n")).map_err(FleetError::io(path))
}
