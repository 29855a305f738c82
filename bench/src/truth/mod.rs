//! Is what the cluster answers what it should answer?
//!
//! `gavel bench truth` asks a router to answer a sample of real requests twice under one epoch, as served and exactly,
//! and compares: how many of the exact top items the served retrieval found (recall), and whether winners and prices
//! equal those of one auction over all ranked candidates, recomputed here by an obvious twin ([`oracle`], and [`cascade`]
//! where users cascade). What the user may not see any more is left out of all of them, and so are up to two winners that
//! could not be served.
//!
//! Only requests with enough eligible items count, and the run fails when too few of them used a graph plan: recall
//! of an exact scan is 1 by definition and would say nothing (decision 24).

pub mod cascade;
pub mod oracle;
pub mod report;
mod transport;
pub mod worth;

use crate::transport::TransportError;
use crate::workload::{self, WorkloadError};
use report::Truth;
use std::path::PathBuf;

/// What to compare, and what must hold.
#[derive(Clone, Debug, clap::Args)]
pub struct TruthArgs {
    /// HOST:PORT of a control voter; a router is found through it. Start router and nodes with --probes on.
    #[arg(long, default_value = "127.0.0.1:7001")]
    pub control: String,
    /// Requests to sample: JSONL, also .zst or .gz.
    #[arg(long)]
    pub requests: PathBuf,
    /// Requests to compare.
    #[arg(long, default_value_t = 2_000)]
    pub count: usize,
    /// Recall is the share of so many of the exact best items that was found.
    #[arg(long, default_value_t = 200)]
    pub top: u32,
    /// A request with fewer eligible items is not counted.
    #[arg(long, default_value_t = 2_000)]
    pub min_eligible: u64,
    /// Smallest share, 0 to 1, of counted requests with a graph plan; below it the run fails. 0 for small catalogues.
    #[arg(long, default_value_t = 0.3)]
    pub min_graph_share: f64,
    /// Also rank every eligible item, and report the welfare and revenue of the served slates against that, unless users
    /// cascade. Each request then takes seconds on a large catalogue: lower --count.
    #[arg(long)]
    pub exhaustive: bool,
    /// Seed of the sample.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Write the report as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// Why a comparison could not be made, or did not hold.
#[derive(Debug, thiserror::Error)]
pub enum TruthError {
    /// The requests cannot be read.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// The cluster cannot be reached.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// No router is alive.
    #[error("{0} knows no live router: start one, or wait until it has joined")]
    NoRouter(String),
    /// An answer cannot be compared.
    #[error("request {number}: {reason}")]
    Answer {
        /// Which request of the sample.
        number: usize,
        /// What is missing.
        reason: String,
    },
    /// Winners or prices differ.
    #[error("{different} of {compared} slates differ from the single auction")]
    Different {
        /// Slates that differ.
        different: u64,
        /// Slates compared.
        compared: u64,
    },
    /// Nothing was counted.
    #[error(
        "no request had {min_eligible} eligible items and whole answers ({incomplete} were incomplete): use a larger catalogue, lower --min-eligible, or mend the cluster"
    )]
    NothingCounted {
        /// Eligible items asked for.
        min_eligible: u64,
        /// Requests that a shard did not answer in full.
        incomplete: u64,
    },
    /// The graph was hardly used.
    #[error(
        "only {share:.3} of the requests used a graph plan, {wanted} is asked for: use a larger catalogue, or lower --min-graph-share"
    )]
    FewGraphs {
        /// Share found.
        share: f64,
        /// Share asked for.
        wanted: f64,
    },
    /// The report cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// Where to.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// One request, answered twice.
#[derive(Clone, Debug)]
pub struct Probed {
    /// The auction's rule.
    pub rule: oracle::Rule,
    /// How users look at the slate.
    pub users: cascade::Users,
    /// Winners as served: (ad, price in micros), by slot.
    pub slate: Vec<(u64, u64)>,
    /// Ads that won and could not be served: the auction was cleared anew without them.
    pub removed: Vec<u64>,
    /// Shards.
    pub shards: Vec<ProbedShard>,
}

/// One shard's part.
#[derive(Clone, Debug)]
pub struct ProbedShard {
    /// exact or graph, as served.
    pub plan: String,
    /// Items with an eligible ad.
    pub eligible_items: u64,
    /// Items that the served retrieval found.
    pub served: Vec<u64>,
    /// Items of the exact scan with their similarity, best first.
    pub exact: Vec<(u64, f32)>,
    /// Every ranked and scored ad of the served retrieval.
    pub scored: Vec<oracle::Ad>,
    /// Of a million users so many go on past each of them; read where users cascade.
    pub goes_on_ppm: Vec<u32>,
    /// Every ad when every eligible item is ranked; empty unless asked for.
    pub exhaustive: Vec<oracle::Ad>,
}

/// Runs the comparison and prints its table.
///
/// # Errors
/// When it cannot be made, or when a slate differs or the sample does not qualify; the report is written first.
pub async fn run(args: TruthArgs) -> Result<(), TruthError> {
    let requests = workload::read(&args.requests)?;
    let mut prober =
        transport::Prober::connect(&args.control).await?.ok_or(TruthError::NoRouter(args.control.clone()))?;
    let mut random = workload::Seeded::new(args.seed);
    let mut truth = Truth::new(args.top, args.min_eligible);
    // Small catalogues may never qualify: four tries for each request asked for.
    let mut tries = args.count.saturating_mul(4);
    while truth.requests < args.count as u64 && tries > 0 {
        tries -= 1;
        let number = (random.next_u64() % requests.len() as u64) as usize;
        let probed = prober.probe(&requests[number], random.next_u64() | 1, &args).await;
        match probed.map_err(|reason| TruthError::Answer { number, reason })? {
            Some(probed) => truth.count(&probed),
            None => truth.incomplete += 1,
        }
    }
    print!("{}", truth.table());
    if let Some(path) = &args.json {
        truth.write(path).map_err(|source| TruthError::Write { path: path.clone(), source })?;
    }
    verdict(&args, &truth)
}

fn verdict(args: &TruthArgs, truth: &Truth) -> Result<(), TruthError> {
    if truth.requests == 0 {
        return Err(TruthError::NothingCounted { min_eligible: args.min_eligible, incomplete: truth.incomplete });
    }
    if truth.slates_equal != truth.slates_compared {
        let different = truth.slates_compared - truth.slates_equal;
        return Err(TruthError::Different { different, compared: truth.slates_compared });
    }
    let share = truth.graph_share();
    if share < args.min_graph_share {
        return Err(TruthError::FewGraphs { share, wanted: args.min_graph_share });
    }
    Ok(())
}
