//! May this bundle take the place of that one, as far as can be told without a cluster?
//!
//! For a team's own CI. [`against`] asks whether the schema fits what is served now, whether the golden rows hold, what
//! the predictions on a table of rows are worth and how far they are from those of the other bundle, and what ranking
//! costs ([`metrics`]). [`skew`] asks what a mixed pair would cost: a user tower of one version against an index of the
//! other, which a cluster never serves and which a deployment by hand does.
//!
//! A table is JSON lines in the form of golden rows; `labels` beside them (`{"click": 1}`) and `weight` make offline
//! metrics possible.

pub mod against;
pub mod metrics;
pub mod skew;

use gavel_model::{Bundle, BundleError, ModelError};
use std::path::{Path, PathBuf};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// A bundle cannot be opened.
    #[error("{path}: {source}")]
    Bundle {
        /// Which.
        path: PathBuf,
        /// Why.
        source: BundleError,
    },
    /// A row cannot be read.
    #[error("{path}:{line}: {reason}")]
    Row {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// Why.
        reason: String,
    },
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A bundle refused its own rows: a fault of ours.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// There is too little to compare.
    #[error("{0}")]
    Empty(&'static str),
}

fn open(path: &Path) -> Result<Bundle, GateError> {
    Bundle::open(path).map_err(|source| GateError::Bundle { path: path.to_path_buf(), source })
}
