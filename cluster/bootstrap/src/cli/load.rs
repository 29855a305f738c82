//! What may be said about loading a catalogue?

use clap::Args;
use std::path::PathBuf;

/// `gavel ctl load`.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// The catalogue: a folder of items, ads, campaigns and users, or a single .jsonl or .csv file (.zst and .gz too).
    pub path: PathBuf,
    /// Shards of the generation.
    #[arg(long, default_value_t = 2)]
    pub shards: u32,
    /// Replicas of each shard.
    #[arg(long, default_value_t = 1)]
    pub replicas: u32,
    /// Folder for the work; a load that broke off goes on from it. Default: PATH.load
    #[arg(long)]
    pub work_dir: Option<PathBuf>,
    /// End when the generation is accepted, without waiting until it serves.
    #[arg(long)]
    pub no_wait: bool,
    /// Have the ledger hold the weekly budget of each campaign that the catalogue gives one.
    #[arg(long, conflicts_with = "no_wait")]
    pub budgets: bool,
}
