//! Why does a voter not run, and with which code does its process end?

use gavel_member::identity::IdentityError;
use gavel_member::serve::ServeError;

use crate::raft::{DiskError, EXIT_DISK_FAILED};

/// Why a voter does not run.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The configuration contradicts itself.
    #[error("configuration: {0}")]
    Config(String),
    /// The data folder is not ours to use.
    #[error("data folder: {0}")]
    Identity(#[from] IdentityError),
    /// A file is damaged or of another voter, or the disk failed.
    #[error("disk: {0}")]
    Disk(#[from] DiskError),
    /// The address is taken, or not ours.
    #[error("{0}")]
    Serve(#[from] ServeError),
    /// The consensus core ended.
    #[error("consensus: {0}")]
    Raft(String),
    /// The cluster knows this voter with another disk: a voter that forgot its log must not vote.
    #[error("voter {0} lost its disk: it must join under a new id")]
    Wiped(u64),
}

impl ControlError {
    /// The exit code of a process that ends for this reason.
    #[must_use]
    pub const fn exit_code(&self) -> i32 {
        match self {
            Self::Config(_) => 64,
            Self::Disk(DiskError::Corrupt { .. } | DiskError::Foreign { .. }) => 65,
            Self::Identity(_) | Self::Wiped(_) => 66,
            Self::Serve(_) => 69,
            Self::Disk(DiskError::Io { .. }) | Self::Raft(_) => EXIT_DISK_FAILED,
        }
    }
}
