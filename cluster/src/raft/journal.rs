//! What was applied, in which order, for as long as anybody may ask?
//!
//! The raft log is purged behind each snapshot; the journal keeps every applied entry of the ledger with its answers, in
//! files whose records name the record before by its BLAKE3, across files as well. A file that is full is compressed;
//! after 400 days it goes, as soon as a sealed checkpoint stands where the rest begins: a state a week is one. One thread writes. What is appended need not be safe at once, because after a crash the log
//! still has it and it is applied again; a snapshot, behind which the log is purged, waits until the journal is safe up
//! to it. A voter that takes a snapshot from the leader has nothing before it: its journal then holds the snapshot, as a
//! sealed checkpoint, in place of what is missing.

mod files;
mod read;

pub use read::{Audited, JournalError, audit};

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gavel_member::clock;
use tokio::sync::{mpsc, oneshot};

use super::{DiskError, EXIT_DISK_FAILED};
use files::Files;

/// Jobs that may wait.
const JOBS_MAX: usize = 1_024;

/// What a line of the journal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineKind {
    /// An entry that was applied; empty when it was none of the group's own.
    Applied,
    /// The BLAKE3 of a state that came as a snapshot.
    Checkpoint,
}

/// A line of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Of the entry.
    pub term: u64,
    /// Of the entry, or the last that a checkpoint holds.
    pub index: u64,
    /// What it is.
    pub kind: LineKind,
    /// A `JournalEntry`, or a hash.
    pub payload: Vec<u8>,
}

enum Job {
    Append(Vec<Line>),
    Checkpoint { term: u64, index: u64, state: Arc<Vec<u8>> },
    Seal { term: u64, index: u64, state: Arc<Vec<u8>> },
    Safe { index: u64, done: oneshot::Sender<()> },
}

/// The journal of this voter; clones share it.
#[derive(Clone, Debug)]
pub struct Journal {
    folder: PathBuf,
    /// The last index when it was opened.
    opened_at: Option<u64>,
    jobs: mpsc::Sender<Job>,
}

impl Journal {
    /// Opens the journal in `folder`, cuts off what was not written whole, and starts its thread.
    ///
    /// # Errors
    /// When it is damaged or of another cluster, or the disk fails.
    pub fn open(folder: &Path, cluster_id: &str) -> Result<Self, DiskError> {
        let files = Files::open(folder, cluster_id)?;
        let opened_at = files.last();
        let (jobs, waiting) = mpsc::channel(JOBS_MAX);
        let thread = std::thread::Builder::new().name("gavel-journal".to_owned());
        thread.spawn(move || write_on(files, waiting)).map_err(DiskError::io("start the journal's thread"))?;
        Ok(Self { folder: folder.to_owned(), opened_at, jobs })
    }

    /// Where its files are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether it holds everything up to the snapshot that this voter starts from.
    ///
    /// # Errors
    /// When it ends before it: the log behind the snapshot is purged, and what is missing cannot be had again.
    pub fn covers(&self, snapshot: Option<u64>) -> Result<(), DiskError> {
        if self.opened_at < snapshot {
            let (file, reason) = (self.folder.display().to_string(), "the journal ends before the snapshot".to_owned());
            return Err(DiskError::Corrupt { file, offset: 0, reason });
        }
        Ok(())
    }

    /// Appends entries; those that it holds already are passed over.
    pub async fn append(&self, lines: Vec<Line>) {
        self.send(Job::Append(lines)).await;
    }

    /// Notes that the state came as a snapshot.
    pub async fn checkpoint(&self, term: u64, index: u64, state: Arc<Vec<u8>>) {
        self.send(Job::Checkpoint { term, index, state }).await;
        self.safe_up_to(index).await;
    }

    /// Offers a state of this voter, as of an entry that was appended: one a week is sealed for later audits.
    pub async fn offer(&self, term: u64, index: u64, state: Arc<Vec<u8>>) {
        self.send(Job::Seal { term, index, state }).await;
    }

    /// Returns once everything up to an index is safe on disk.
    pub async fn safe_up_to(&self, index: u64) {
        let (done, safe) = oneshot::channel();
        self.send(Job::Safe { index, done }).await;
        // The thread ends with the process.
        let _ = safe.await;
    }

    async fn send(&self, job: Job) {
        // The thread ends with the process, too.
        let _ = self.jobs.send(job).await;
    }
}

fn write_on(mut files: Files, mut jobs: mpsc::Receiver<Job>) {
    while let Some(job) = jobs.blocking_recv() {
        let written = match job {
            Job::Append(lines) => lines.iter().try_for_each(|line| files.append(line)),
            Job::Checkpoint { term, index, state } => files.checkpoint(term, index, &state),
            Job::Seal { term, index, state } => files.seal(term, index, &state, clock::wall_ms()),
            Job::Safe { index, done } => files.sync().map(|()| {
                debug_assert!(files.last() >= Some(index), "what is applied was appended before");
                // Whoever asked may have gone.
                let _ = done.send(());
            }),
        };
        if let Err(error) = written {
            tracing::error!(%error, "the disk failed: stopping");
            std::process::exit(EXIT_DISK_FAILED);
        }
    }
}

#[cfg(test)]
mod tests;
