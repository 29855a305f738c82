//! What becomes of the full files of a log?
//!
//! Compressed lines, or columns where the build has them and the operator wants them: one choice for all logs that are
//! joined into the table that the next bundle is trained on. The log of clearings is read line by line and has none.

use crate::config::LogFiles;
use crate::line_log::Packing;
#[cfg(feature = "parquet")]
use crate::{
    logged::{EventLine, ScoredLine},
    parquet_log::pack,
};

/// A log that may be kept as columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Log {
    /// Of what happened to ads.
    Events,
    /// Of what ads were scored with.
    Scored,
}

/// What becomes of the full files of a log.
#[must_use]
pub const fn packing(files: LogFiles, log: Log) -> Packing {
    match (files, log) {
        (LogFiles::Jsonl, Log::Events | Log::Scored) => Packing::Compressed,
        #[cfg(feature = "parquet")]
        (LogFiles::Parquet, Log::Events) => Packing::Columns(pack::<EventLine>),
        #[cfg(feature = "parquet")]
        (LogFiles::Parquet, Log::Scored) => Packing::Columns(pack::<ScoredLine>),
    }
}
