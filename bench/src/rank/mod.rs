//! What does ranking cost, and what does a ranker say of rows in a file?
//!
//! `gavel bench rank` opens a bundle as a server does (checksums, golden rows) and runs requests on one thread: the
//! user part once, then the part of each candidate on stored activations, with calibration. `--split off` runs the
//! unsplit graph instead. Features are encoded before the clock starts, as a runtime that is compared is given encoded
//! inputs. `--scores` writes raw outputs and predictions of every row through the same path.
//!
//! No cluster is needed, and none is asked.

mod measure;
mod report;
mod request;
mod rows;
mod scores;

pub use report::Report;

use gavel_model::{Bundle, BundleError, ModelError};
use std::path::PathBuf;

/// Most candidates of one request.
const CANDIDATES_MAX: usize = 100_000;
/// Longest run, seconds.
const SECONDS_MAX: f64 = 3_600.0;

/// Which form of the ranker runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Split {
    /// User part, stored activations, part of each candidate: as a cluster serves.
    #[default]
    On,
    /// The whole graph for each candidate.
    Off,
}

/// What to measure, on which rows.
#[derive(Clone, Debug, clap::Args)]
pub struct RankArgs {
    /// The folder with bundle.toml.
    #[arg(long)]
    pub bundle: PathBuf,
    /// Candidates of one request; the rows' items are repeated until there are as many.
    #[arg(long, default_value_t = 500)]
    pub candidates: usize,
    /// Measured seconds; 0 measures nothing.
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// Rows in the form of golden rows, JSONL, also .zst or .gz; without it the bundle's golden rows.
    #[arg(long)]
    pub rows: Option<PathBuf>,
    /// Write raw outputs and predictions of every row, JSONL.
    #[arg(long)]
    pub scores: Option<PathBuf>,
    /// Whether the ranker runs in its three parts or whole.
    #[arg(long, value_enum, default_value_t = Split::On)]
    pub split: Split,
    /// Write the report as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum RankError {
    /// An option has a value that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The bundle would not be served.
    #[error("{path}: {source}")]
    Bundle {
        /// Its folder.
        path: PathBuf,
        /// Why.
        source: BundleError,
    },
    /// A row cannot be scored.
    #[error("{path}:{line}: {reason}")]
    Row {
        /// Which file.
        path: PathBuf,
        /// Which line, 1-based.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The bundle refuses its own inputs.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Scores, measures and prints, as asked.
///
/// # Errors
/// When the bundle would not be served, or a row or file is wrong.
pub fn run(args: &RankArgs) -> Result<(), RankError> {
    check(args)?;
    let of_bundle = |source| RankError::Bundle { path: args.bundle.clone(), source };
    let bundle = Bundle::open(&args.bundle).map_err(of_bundle)?;
    let golden = bundle.verify_golden().map_err(of_bundle)?;
    if let Some(to) = &args.scores {
        let count = scores::write(&bundle, args.rows.as_deref(), to, args.split)?;
        println!("{count} rows scored into {}", to.display());
    }
    if args.seconds == 0.0 {
        return Ok(());
    }
    let requests = request::build(&bundle, args.rows.as_deref(), args.candidates)?;
    let measured = measure::run(&bundle, &requests, args.split, args.seconds)?;
    let report = Report::new(&bundle, golden, args, &requests, measured);
    print!("{}", report.table());
    match &args.json {
        Some(path) => report.write(path).map_err(|source| RankError::Io { path: path.clone(), source }),
        None => Ok(()),
    }
}

fn check(args: &RankArgs) -> Result<(), RankError> {
    if !(1..=CANDIDATES_MAX).contains(&args.candidates) {
        return Err(RankError::Usage(format!("--candidates is a number from 1 to {CANDIDATES_MAX}")));
    }
    if !(0.0..=SECONDS_MAX).contains(&args.seconds) {
        return Err(RankError::Usage(format!("--seconds is a number from 0 to {SECONDS_MAX}")));
    }
    if args.seconds == 0.0 && args.scores.is_none() {
        return Err(RankError::Usage("--seconds 0 measures nothing: name a file for --scores".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
