//! How do the public shopping records become a catalogue of ads?
//!
//! `gavel bench corpus` reads the `cj-ads` tables (derived from completejourney, CC0) and writes a catalogue
//! folder in the format of `docs/catalogue-format.md`: items, ads, campaigns, users and timed requests.
//!
//! The rules, in one place each:
//! * `campaign`: who advertises, with which bid type, bid, budget and breadth;
//! * `targeting`: in which stores an ad may be shown;
//! * `history`: what a user has bought, as weighted sets;
//! * `taxonomy`: from departments to ids of the IAB Ad Product Taxonomy;
//! * `selection`: which (product, store) pairs belong to which size;
//! * `distinct`: items recombined from real rows, for scale, labelled synthetic.
//!
//! Every statistic is of the weeks up to [`LAST_TRAINING_WEEK`]; requests are of the four weeks after.
//! The pairs (3 million) are streamed; only products, campaigns and histories are kept in memory.

mod build;
pub(crate) mod campaign;
mod distinct;
mod history;
pub(crate) mod records;
mod selection;
pub(crate) mod source;
pub(crate) mod targeting;
mod taxonomy;
mod write;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use thiserror::Error;

pub use build::{Summary, run};

/// Statistics end with this week; the four weeks after it are for requests and for judging models.
pub const LAST_TRAINING_WEEK: u32 = 40;

/// How many ads a corpus has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CorpusSize {
    /// 20,000 products of 1,000 manufacturers, one ad each, compressed hard: small enough for a repository.
    Demo,
    /// One ad per promoted product: 56,517.
    S,
    /// The 1,000,000 (product, store) pairs promoted in most weeks.
    M,
    /// Every (product, store) pair: 2,966,014.
    L,
}

/// Arguments of `gavel bench corpus`.
#[derive(Clone, Debug, Args)]
pub struct CorpusArgs {
    /// How many ads.
    #[arg(long, value_enum, default_value = "s")]
    pub size: CorpusSize,
    /// Folder to write; made if absent.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Instead of real items, N distinct ones recombined from real feature rows (synthetic, for scale only).
    #[arg(long, value_name = "N")]
    pub distinct: Option<u64>,
    /// Seed of breadth, bid type and recombination.
    #[arg(long, default_value_t = 20_170_101)]
    pub seed: u64,
    /// Folder that holds `cj-ads/`.
    #[arg(long, value_name = "DIR", env = "GAVEL_DATA", default_value = "../shared/data")]
    pub data: PathBuf,
}

/// Why a corpus could not be built.
#[derive(Debug, Error)]
pub enum CorpusError {
    /// The source tables are not on this machine.
    #[error(
        "{path} is absent: the corpus is built from the cj-ads tables; name their parent folder with --data or GAVEL_DATA (the demo catalogue is in the repository and needs no data)"
    )]
    NoData {
        /// The file that was looked for.
        path: PathBuf,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line of a source table is not what its header promises.
    #[error("{path}, line {line}: {reason}")]
    Line {
        /// The table.
        path: PathBuf,
        /// 1 is the header.
        line: u64,
        /// What is wrong.
        reason: String,
    },
}
