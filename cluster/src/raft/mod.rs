//! How do the voters come to agree, and what do they keep on disk?
//!
//! openraft decides; this module gives it a log, a state machine and its types. Vote, entries and the
//! committed index go through one thread into one file, so that one fdatasync orders them all; the state
//! machine keeps the state in memory and a snapshot on disk, and is rebuilt from snapshot plus log.
//!
//! Promises: an acknowledged entry is on the disks of a majority; a torn tail is cut off; anything else that
//! is wrong with a file stops the process. It never repairs, and it never retries an fsync.

#![allow(clippy::result_large_err, reason = "the error type is openraft's, and its traits ask for it unboxed")]

pub mod codec;
pub mod group;
pub mod index;
pub mod journal;
pub mod log;
pub mod machine;
pub mod record;
pub mod recovery;
pub mod snapshot;
pub mod stall;
mod writer;

#[cfg(test)]
mod tests;

pub use crate::consensus::{
    Answer, Encoded, Entry, Group, LogId, Membership, Raft, SnapshotBytes, SnapshotMeta, StorageError,
    StoredMembership, TypeConfig, Vote,
};

/// The process stops with this code when the disk broke a promise (`EX_IOERR` is 74, this is ours).
pub const EXIT_DISK_FAILED: i32 = 70;

/// Why a voter's files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What came back.
        #[source]
        source: std::io::Error,
    },
    /// Bytes that were safe on disk are not what was written.
    #[error("{file} is corrupt at byte {offset}: {reason}")]
    Corrupt {
        /// The file.
        file: String,
        /// Where.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// The folder belongs to somebody else.
    #[error("{file} belongs to {found}, not to {wanted}")]
    Foreign {
        /// The file.
        file: String,
        /// Whose it is.
        found: String,
        /// Who we are.
        wanted: String,
    },
}

impl DiskError {
    /// Names what was tried.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
