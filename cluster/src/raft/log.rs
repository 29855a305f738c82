//! How does openraft see the log?
//!
//! Each change is applied to the index in memory and handed to the writer's thread; entries are readable at
//! once and acknowledged when they are safe. What is waited for here is waited for without blocking a thread.

use std::fmt::Debug;
use std::ops::RangeBounds;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader, StorageIOError};
use tokio::sync::{mpsc, oneshot};

use super::index::{Change, Index};
use super::recovery::{self, Expected};
use super::stall::WriteClock;
use super::writer::{self, Done, Job, LogFile, Work};
use super::{DiskError, Entry, LogId, StorageError, TypeConfig, Vote};

/// The log's file in the data folder.
const FILE_NAME: &str = "raft.log";

/// The log of this voter.
#[derive(Clone)]
pub struct LogStore {
    index: Arc<Mutex<Index>>,
    jobs: mpsc::Sender<Job>,
    writes: Arc<WriteClock>,
}

impl LogStore {
    /// Opens the log in `folder`, or makes an empty one.
    ///
    /// # Errors
    /// When the file is corrupt, of another voter, or the disk fails.
    pub fn open(folder: &Path, expected: &Expected) -> Result<Self, DiskError> {
        let path: PathBuf = folder.join(FILE_NAME);
        let shown = path.display().to_string();
        let (file, index) = match std::fs::read(&path) {
            Ok(bytes) => {
                let recovered = recovery::recover(&shown, &bytes, expected)?;
                let cut = bytes.len() as u64 - recovered.bytes;
                if cut > 0 {
                    tracing::warn!(bytes = cut, "cut off a write that was never acknowledged");
                }
                (LogFile::open(&path, &expected.owner, recovered.bytes, recovered.link)?, recovered.index)
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let index = Index::new(expected.contiguity);
                (LogFile::create(&path, &expected.owner, &index)?, index)
            }
            Err(e) => return Err(DiskError::io(format!("read {shown}"))(e)),
        };
        let writes = Arc::<WriteClock>::default();
        let jobs = writer::start(file, expected.owner.clone(), Arc::clone(&writes))?;
        Ok(Self { index: Arc::new(Mutex::new(index)), jobs, writes })
    }

    /// Since when a write runs.
    #[must_use]
    pub fn writes(&self) -> Arc<WriteClock> {
        Arc::clone(&self.writes)
    }

    /// True when nothing was ever written.
    #[must_use]
    pub fn is_pristine(&self) -> bool {
        self.index().is_pristine()
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        // The index is changed in single steps; a panic elsewhere leaves it whole.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, work: Work, done: Done) -> Result<(), StorageError> {
        self.jobs.send(Job { work, done }).await.map_err(|_| broken("the log's thread has ended"))
    }

    async fn send_and_wait(&self, work: Work) -> Result<(), StorageError> {
        let (sender, done) = oneshot::channel();
        self.send(work, Done::Caller(sender)).await?;
        done.await.map_err(|_| broken("the log's thread has ended"))
    }

    fn change(&self, change: &Change) -> Result<(), StorageError> {
        self.index().apply(change, 0).map_err(|unfit| broken(&unfit.to_string()))
    }
}

fn broken(why: &str) -> StorageError {
    StorageIOError::write_logs(&std::io::Error::other(why.to_owned())).into()
}

/// Bytes that an entry takes in a message, about.
fn weight(entry: &Entry) -> usize {
    const ENVELOPE_BYTES: usize = 64;
    match &entry.payload {
        openraft::EntryPayload::Normal(command) => ENVELOPE_BYTES + command.0.len(),
        openraft::EntryPayload::Blank | openraft::EntryPayload::Membership(_) => 2 * ENVELOPE_BYTES,
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, StorageError> {
        Ok(self.index().range(range))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        Ok(self.index().batch(start, end))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let index = self.index();
        Ok(LogState { last_purged_log_id: index.purged, last_log_id: index.last() })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let change = Change::Vote(*vote);
        self.change(&change)?;
        self.send_and_wait(Work::Safe(vec![change])).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.index().vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        let change = Change::Committed(committed);
        self.change(&change)?;
        self.send(Work::Lazy(change), Done::Nobody).await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.index().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut changes = Vec::new();
        for entry in entries {
            let bytes = weight(&entry);
            let change = Change::Append(entry);
            self.index().apply(&change, bytes).map_err(|unfit| broken(&unfit.to_string()))?;
            changes.push(change);
        }
        self.send(Work::Safe(changes), Done::Core(callback)).await
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let change = Change::Truncated(log_id.index);
        self.change(&change)?;
        self.send_and_wait(Work::Safe(vec![change])).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.change(&Change::Purged(log_id))?;
        let whole = Box::new(self.index().clone());
        self.send_and_wait(Work::Rewrite(whole)).await
    }
}
