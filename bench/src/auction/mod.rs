//! How long does a clearing take, and does it equal its obvious twin?
//!
//! `gavel bench auction` times merge and clearing on one thread (CPU time, medians over markets), for each mechanism and
//! limit. `--check N` clears N random small auctions with ties, reserves above bids, page thresholds, values, limits, full
//! categories, every bid type, cascading users, shards and their cuts, both by the code that serves and by a twin that tries every price
//! or slate ([`crate::truth::oracle`], [`crate::truth::cascade`]); the run fails at the first difference. `--pages N`
//! compares the greedy merge of ads and organic items with the best of all pages.
//!
//! No cluster is needed, and none is asked.

mod case;
mod check;
mod pages;
mod speed;

pub use check::{Checked, check};
pub use pages::{Closeness, Pages};
pub use speed::Speed;

use serde::Serialize;
use std::path::PathBuf;

/// Most of anything that may be asked for.
const CANDIDATES_MAX: usize = 10_000;
const SLOTS_MAX: usize = 16;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct AuctionArgs {
    /// Candidates of one auction, from four shards.
    #[arg(long, default_value_t = 500)]
    pub candidates: usize,
    /// Slots of one auction, 1 to 16.
    #[arg(long, default_value_t = 4)]
    pub slots: usize,
    /// Markets over which the median is taken.
    #[arg(long, default_value_t = 200)]
    pub markets: u64,
    /// Compare so many random auctions with their twin, and fail when one differs; 0 compares none.
    #[arg(long, default_value_t = 0)]
    pub check: u64,
    /// Compare the greedy merge with the best page on so many random pages; 0 compares none.
    #[arg(long, default_value_t = 0)]
    pub pages: u64,
    /// Seed of markets, checks and pages.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Write the report as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// Why the benchmark ended.
#[derive(Debug, thiserror::Error)]
pub enum AuctionError {
    /// An option has a value that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The two clearings differ.
    #[error("the clearing differs from its twin: {0}")]
    Different(String),
    /// The greedy merge made a page that the rules do not allow.
    #[error("a page breaks its rules: {0}")]
    Page(String),
    /// The report cannot be written.
    #[error("{path}: {source}")]
    Write {
        /// Where to.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// All parts.
#[derive(Clone, Debug, Serialize)]
struct Report {
    candidates: usize,
    slots: usize,
    markets: u64,
    speed: Vec<Speed>,
    check: Option<Checked>,
    pages: Option<Pages>,
}

/// Runs it and prints its table.
///
/// # Errors
/// When an option makes no sense, a clearing differs, or the report cannot be written.
pub fn run(args: &AuctionArgs) -> Result<(), AuctionError> {
    if args.slots == 0 || args.slots > SLOTS_MAX || args.candidates < args.slots || args.candidates > CANDIDATES_MAX {
        return Err(AuctionError::Usage(format!(
            "--slots is 1 to {SLOTS_MAX}, --candidates that many to {CANDIDATES_MAX}"
        )));
    }
    let speed = speed::measure(args)?;
    speed.iter().for_each(|one| println!("{}", one.line()));
    let (check, pages) = (checked(args)?, compared(args)?);
    let report = Report { candidates: args.candidates, slots: args.slots, markets: args.markets, speed, check, pages };
    let Some(path) = &args.json else { return Ok(()) };
    let json = serde_json::to_vec_pretty(&report).map_err(|e| AuctionError::Usage(e.to_string()))?;
    std::fs::write(path, json).map_err(|source| AuctionError::Write { path: path.clone(), source })
}

/// The comparison of auctions with their twin, if it is asked for.
fn checked(args: &AuctionArgs) -> Result<Option<Checked>, AuctionError> {
    if args.check == 0 {
        return Ok(None);
    }
    let checked = check(args.seed, args.check).map_err(AuctionError::Different)?;
    println!("{} random auctions, {} winners: 0 differences from the twin", checked.auctions, checked.winners);
    println!("{}", checked.kinds());
    Ok(Some(checked))
}

/// The comparison of greedy pages with the best ones, if it is asked for.
fn compared(args: &AuctionArgs) -> Result<Option<Pages>, AuctionError> {
    if args.pages == 0 {
        return Ok(None);
    }
    let found = pages::compare(args.seed, args.pages).map_err(AuctionError::Page)?;
    println!("{} random pages, the greedy one against the best:", found.tried);
    println!("  all that are worth anything       {}", found.all.line());
    println!("  without gap effects and spacings  {}", found.plain.line());
    Ok(Some(found))
}
