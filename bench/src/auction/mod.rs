//! How long does a clearing take, and does it equal its obvious twin?
//!
//! `gavel bench auction` times merge and clearing on one thread (CPU time, medians over markets), for each mechanism and
//! limit. `--check N` clears N random small auctions with ties, reserves, values, limits and full categories both by
//! the code that serves and by [`crate::truth::oracle`], which tries every price; the run fails at the first difference.
//!
//! No cluster is needed, and none is asked.

mod check;
mod speed;

pub use check::{Checked, check};
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
    /// Slots.
    #[arg(long, default_value_t = 4)]
    pub slots: usize,
    /// Markets over which the median is taken.
    #[arg(long, default_value_t = 200)]
    pub markets: u64,
    /// Random auctions to compare with the twin.
    #[arg(long, default_value_t = 0)]
    pub check: u64,
    /// Of markets and checks.
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
    /// The report cannot be written.
    #[error("{path}: {source}")]
    Write {
        /// Where to.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Both parts.
#[derive(Clone, Debug, Serialize)]
struct Report {
    candidates: usize,
    slots: usize,
    markets: u64,
    speed: Vec<Speed>,
    check: Option<Checked>,
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
    for one in &speed {
        println!("{:<28} {:7.2} us (p90 {:.2})  {}", one.what, one.median_us, one.p90_us, one.hash);
    }
    let check = match args.check {
        0 => None,
        auctions => {
            let checked = check(args.seed, auctions).map_err(AuctionError::Different)?;
            println!("{} random auctions, {} winners: 0 differences from the twin", checked.auctions, checked.winners);
            Some(checked)
        }
    };
    let report = Report { candidates: args.candidates, slots: args.slots, markets: args.markets, speed, check };
    let Some(path) = &args.json else { return Ok(()) };
    let json = serde_json::to_vec_pretty(&report).map_err(|e| AuctionError::Usage(e.to_string()))?;
    std::fs::write(path, json).map_err(|source| AuctionError::Write { path: path.clone(), source })
}
