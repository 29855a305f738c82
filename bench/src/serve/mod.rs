//! How many requests does a running cluster answer, how fast, and at what cost in CPU?
//!
//! `gavel bench serve` replays real requests open-loop against every router of a cluster, warms up first, then prints
//! one table: offered and achieved rate, latency quantiles from the scheduled arrival, errors by code, coverage, CPU
//! time per request of each role, where that time goes, and how many candidates each stage kept. With `--max` it
//! looks for the highest rate whose p99 stays below a bound.

pub mod cpu;
pub mod load;
pub mod report;

use crate::transport::{self, TransportError};
use crate::workload::{self, WorkloadError};
use report::Report;
use std::path::PathBuf;

/// What to replay, where, and how fast.
#[derive(Clone, Debug, clap::Args)]
pub struct ServeArgs {
    /// HOST:PORT of a control voter; routers and nodes are found through it.
    #[arg(long, default_value = "127.0.0.1:7001")]
    pub control: String,
    /// Requests to replay: JSONL, also .zst or .gz.
    #[arg(long)]
    pub requests: PathBuf,
    /// Offered rate, requests a second.
    #[arg(long, default_value_t = 200.0)]
    pub qps: f64,
    /// Measured seconds.
    #[arg(long, default_value_t = 20.0)]
    pub seconds: f64,
    /// Seconds of load before anything is counted.
    #[arg(long, default_value_t = 5.0)]
    pub warmup: f64,
    /// Deadline of each request, milliseconds (10 to 500).
    #[arg(long, default_value_t = 100)]
    pub deadline_ms: u32,
    /// Ads per request; 0 keeps what the file says.
    #[arg(long, default_value_t = 0)]
    pub slots: u32,
    /// Look for the highest rate with p99 at most --p99-ms, starting from --qps.
    #[arg(long)]
    pub max: bool,
    /// The bound of --max, milliseconds.
    #[arg(long, default_value_t = 50.0)]
    pub p99_ms: f64,
    /// Seed of the arrival schedule.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Write the report as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// Why a run could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The requests cannot be read.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// The cluster cannot be reached.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// No router is alive.
    #[error("{0} knows no live router: start one, or wait until it has joined")]
    NoRouter(String),
    /// An argument makes no sense.
    #[error("{0}")]
    Argument(&'static str),
    /// The report cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// Where to.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Smallest relative step of the search for the highest rate: finer than the noise of two shared cores.
const SEARCH_STEP: f64 = 0.05;

/// Runs the benchmark and prints its table.
///
/// # Errors
/// When the requests cannot be read, the cluster cannot be reached, or the report cannot be written.
pub async fn run(args: ServeArgs) -> Result<(), ServeError> {
    if !(args.qps > 0.0 && args.seconds > 0.0 && args.warmup >= 0.0) {
        return Err(ServeError::Argument("--qps and --seconds must be above 0, --warmup not below"));
    }
    let mut requests = workload::read(&args.requests)?;
    if args.slots > 0 {
        requests.iter_mut().for_each(|r| r.slots = args.slots);
    }
    let members = transport::members(&args.control).await?;
    let target =
        load::Target::connect(&members, args.deadline_ms).await?.ok_or(ServeError::NoRouter(args.control.clone()))?;
    load::run(&target, &requests, &workload::arrivals(args.qps, args.warmup, args.seed ^ 1)).await;
    let report = if args.max {
        search(&args, &target, &requests, &members).await
    } else {
        measure(&args, &target, &requests, &members, args.qps).await
    };
    print!("{}", report.table());
    if let Some(path) = &args.json {
        report.write(path).map_err(|source| ServeError::Write { path: path.clone(), source })?;
    }
    Ok(())
}

async fn measure(
    args: &ServeArgs,
    target: &load::Target,
    requests: &[workload::TimedRequest],
    members: &[transport::Member],
    qps: f64,
) -> Report {
    let schedule = workload::arrivals(qps, args.seconds, args.seed);
    let before = cpu::sample(members).await;
    let outcome = load::run(target, requests, &schedule).await;
    let after = cpu::sample(members).await;
    Report::of(qps, &outcome, &cpu::spent(&before, &after))
}

/// Doubles the rate while the bound holds, then bisects; answers the best rate that held.
async fn search(
    args: &ServeArgs,
    target: &load::Target,
    requests: &[workload::TimedRequest],
    members: &[transport::Member],
) -> Report {
    // Arrivals are random: a short run may schedule fewer than offered, so what was scheduled is what must be answered.
    let holds =
        |r: &Report| r.p99_ms <= args.p99_ms && r.errors * 1_000 <= r.answered && r.answered * 100 >= r.scheduled * 97;
    let (mut qps, mut best, mut high) = (args.qps, None::<Report>, None::<f64>);
    loop {
        let report = measure(args, target, requests, members, qps).await;
        eprintln!("  {:.0} requests/s offered: p99 {:.1} ms, {} errors", qps, report.p99_ms, report.errors);
        let held = holds(&report);
        if held || best.is_none() && qps < 2.0 {
            best = Some(report);
        } else {
            high = Some(qps);
            if best.is_none() {
                qps /= 2.0;
                continue;
            }
        }
        let low = best.as_ref().map_or(qps, |r| r.offered_qps);
        match high {
            None => qps *= 1.6,
            Some(high) if high / low > 1.0 + 2.0 * SEARCH_STEP => qps = (low * high).sqrt(),
            Some(_) => break,
        }
        if !held && qps < 2.0 {
            break;
        }
    }
    match best {
        Some(report) => report,
        None => measure(args, target, requests, members, qps).await,
    }
}
