//! How long after its commit is a pause or a bid in force everywhere, and is a paused campaign ever in an auction after?
//!
//! `gavel bench delivery` starts a cluster of its own (three voters, four nodes, two routers), puts load on it, and
//! pauses, resumes and rebids campaigns that have just won, one change after the other. The leader answers a change once
//! every live router and node uses it, and says how long that took from the commit. Then the clearing logs of the routers
//! are read, apart from all responses: of every request that began after a pause was in force and ended before the
//! campaign was resumed, no candidate may be the campaign's. A candidate may win and may set a price, so none is asked for
//! more than that.
//!
//! It ends only the processes that it started.

mod load;
mod report;
mod storm;

use crate::fleet::{self, Fleet, FleetArgs, FleetError, Size};
use crate::workload;
use std::path::PathBuf;

/// How many changes, under which load.
#[derive(Clone, Debug, clap::Args)]
pub struct DeliveryArgs {
    /// Changes: a third each are pauses, resumes and bids.
    #[arg(long, default_value_t = 300)]
    pub changes: u64,
    /// Requests for ads that are under way at once.
    #[arg(long, default_value_t = 4)]
    pub askers: usize,
    /// Milliseconds between two changes.
    #[arg(long, default_value_t = 100)]
    pub pause_ms: u64,
    /// Where the cluster comes from.
    #[command(flatten)]
    pub fleet: FleetArgs,
    /// Write the report as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// Changes, and looks what came of it; true when all were in force in time and no paused campaign was in an auction.
///
/// # Errors
/// When the cluster cannot be started or asked.
pub async fn run(args: DeliveryArgs) -> Result<bool, FleetError> {
    fleet::unless_interrupted(Box::pin(run_whole(args))).await
}

async fn run_whole(args: DeliveryArgs) -> Result<bool, FleetError> {
    let requests = workload::read(&args.fleet.catalogue.join("requests.jsonl.zst"))?;
    let mut fleet = Fleet::start(&args.fleet, Size { log_clearings: true, ..Size::STORM })?;
    let found = storm::run(&args, &fleet, requests).await;
    fleet.stop();
    let report = found?;
    print!("{}", report.table());
    if let Some(path) = &args.json {
        report.write(path).map_err(FleetError::io(path))?;
    }
    Ok(report.is_kept())
}
