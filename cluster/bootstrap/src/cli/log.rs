//! What is said about the logs of routers?

use super::{share, share_or_none};
use clap::{Args, Subcommand};
use gavel_router::LogFiles;
use std::path::PathBuf;

/// What `gavel log join` reads.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// Folder for the log of what ads were scored with; none without it.
    #[arg(long)]
    pub scored_log: Option<PathBuf>,
    /// Share of the requests that is logged.
    #[arg(long, default_value_t = 0.01, value_parser = share)]
    pub scored_log_share: f64,
    /// Share of their candidates beside the page that is logged too, 0 to 1.
    #[arg(long, default_value_t = 0.1, value_parser = share_or_none)]
    pub scored_log_others: f64,
    /// Folder for the log of events; none without it.
    #[arg(long)]
    pub event_log: Option<PathBuf>,
    /// How full files of these two are kept: jsonl (compressed), or parquet, if it was built with the feature `parquet`.
    #[arg(long, value_name = "FORM", default_value = "jsonl", value_parser = LogFiles::of)]
    pub log_files: LogFiles,
}

/// What routers have logged.
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Join what was scored with what happened into the table that the next bundle is trained on.
    Join(gavel_bench::join::JoinArgs),
}
