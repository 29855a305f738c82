//! Is every event charged once, whatever dies, and does nobody pay more than the budget?
//!
//! `gavel bench ledger` starts a cluster of its own (three voters, four nodes, two routers), gives every campaign of the
//! demo a budget, some of them too small for what comes, and asks the routers for ads. Each winner's token is sent back
//! 1 to 5 times as its billed event, over routers drawn at random, out of order, and every copy again until it is
//! answered; with `--kill` nodes, routers and the leaders of both groups are ended by `kill -9` and started again
//! meanwhile. One of a hundred impressions is never reported. Then the routers end in peace, and three things that know
//! nothing of each other are compared:
//!
//! * the oracle: what this process was answered, token by token ([`oracle`]);
//! * the balances of every voter, and the digests of their states;
//! * `gavel ctl ledger audit`, which computes all balances anew from the journal of every voter, and looks at every
//!   entry whether a budget was ever exceeded; charges are compared with it token by token ([`audited`]).
//!
//! What was served of ads that pay for impressions and is not charged, because it was never reported, a router had died
//! or an event came too late, is held against what the leases of its campaign held by the journal (decision 18:
//! over-delivery is at most the open leases).
//!
//! It ends only the processes that it started.

mod audited;
mod kills;
mod load;
mod oracle;
mod report;
mod storm;

use crate::fleet::{self, Fleet, FleetArgs, FleetError, Size};
use crate::workload;
use std::path::PathBuf;

/// How many charges, and with which faults.
#[derive(Clone, Debug, clap::Args)]
pub struct LedgerArgs {
    /// Distinct charges; each is sent 1 to 5 times.
    #[arg(long, default_value_t = 10_000)]
    pub charges: u64,
    /// End nodes, routers and leaders by kill -9, in turn, and start them again.
    #[arg(long)]
    pub kill: bool,
    /// Seconds between two kills.
    #[arg(long, default_value_t = 6.0)]
    pub kill_every: f64,
    /// Requests for ads that are under way at once.
    #[arg(long, default_value_t = 12)]
    pub askers: usize,
    /// Where the cluster comes from.
    #[command(flatten)]
    pub fleet: FleetArgs,
    /// Seed of copies, routers and budgets.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Write the report as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// Charges, kills and compares; true when every promise was kept.
///
/// # Errors
/// When the cluster cannot be started or asked.
pub async fn run(args: LedgerArgs) -> Result<bool, FleetError> {
    fleet::unless_interrupted(Box::pin(run_whole(args))).await
}

async fn run_whole(args: LedgerArgs) -> Result<bool, FleetError> {
    let requests = workload::read(&args.fleet.catalogue.join("requests.jsonl.zst"))?;
    let mut fleet = Fleet::start(&args.fleet, Size::STORM)?;
    let outcome = storm::run(&args, &mut fleet, requests).await;
    let found = match outcome {
        Ok(seen) => storm::compare(&fleet, seen).await,
        Err(error) => Err(error),
    };
    fleet.stop();
    let report = found?;
    print!("{}", report.table());
    if let Some(path) = &args.json {
        report.write(path).map_err(FleetError::io(path))?;
    }
    Ok(report.is_kept())
}
