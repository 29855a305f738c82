//! How long do the check and the reservation of frequency caps take, on real nodes, and what does a user cost?
//!
//! `gavel bench frequency` starts a voter and two nodes of its own, each a process, counts something for every user, so
//! that tables, journal and copies are those of a filled node, and then asks open-loop, as a router does: for each
//! request one check of a user, and one reservation for a slate. A call is timed from when it is due in this process
//! to its answer, over loopback, with the copy to the other node and the journal going on behind it.

mod load;
mod report;
mod transport;

use crate::fleet::{self, Fleet, FleetError, Size};
use std::path::PathBuf;

/// How much, and how fast.
#[derive(Clone, Debug, clap::Args)]
pub struct FrequencyArgs {
    /// Users that are counted.
    #[arg(long, default_value_t = 100_000)]
    pub users: u64,
    /// Measured seconds.
    #[arg(long, default_value_t = 20.0)]
    pub seconds: f64,
    /// Requests a second; each is one check and one reservation.
    #[arg(long, default_value_t = 500)]
    pub rate: u32,
    /// Ads of a reservation; each counts for ad, campaign and advertiser.
    #[arg(long, default_value_t = 4)]
    pub ads: u64,
    /// Seed of users and ads.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Keep logs and data here; by default a temporary folder that is removed.
    #[arg(long)]
    pub work_dir: Option<PathBuf>,
    /// Write the report as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// Fills, measures and reports.
///
/// # Errors
/// When the processes cannot be started or asked.
pub async fn run(args: FrequencyArgs) -> Result<(), FleetError> {
    fleet::unless_interrupted(Box::pin(run_whole(args))).await
}

async fn run_whole(args: FrequencyArgs) -> Result<(), FleetError> {
    let mut fleet = Fleet::bare(args.work_dir.as_deref(), Size { controls: 1, nodes: 2, routers: 0, ..Size::STORM })?;
    let measured = load::run(&args, &fleet).await;
    fleet.stop();
    let report = measured?;
    print!("{}", report.table());
    if let Some(path) = &args.json {
        report.write(path).map_err(FleetError::io(path))?;
    }
    Ok(())
}
