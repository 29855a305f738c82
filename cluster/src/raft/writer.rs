//! Who writes the log file, and when is a write safe?
//!
//! One thread, so that votes and entries reach the disk in the order in which they were decided
//! (openraft#1960), and so that no fsync blocks the consensus core. What waits together is written together
//! with one fdatasync. A disk that fails once has lost what it promised: the process stops, because a retried
//! fsync reports success for pages that were dropped.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openraft::storage::LogFlushed;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

use super::index::{Change, Index};
use super::record::{self, Head, Kind, Link};
use super::recovery::{FORMAT, Header};
use super::stall::WriteClock;
use super::{DiskError, EXIT_DISK_FAILED, TypeConfig, codec};
use gavel_member::{clock, disk};

/// Jobs that may wait; the core waits for each of its writes, so there are never many.
const JOBS_MAX: usize = 1_024;
/// An fsync that takes longer is worth a line in the log.
const SLOW_FSYNC_US: u64 = 500_000;

/// Something to write.
pub struct Job {
    /// What.
    pub work: Work,
    /// Whom to tell.
    pub done: Done,
}

/// What to write.
pub enum Work {
    /// Changes at the end of the file, safe before anybody is told.
    Safe(Vec<Change>),
    /// A change at the end of the file that the next fsync may cover.
    Lazy(Change),
    /// The whole log in a new file in place of the old one.
    Rewrite(Box<Index>),
}

/// Whom to tell.
pub enum Done {
    /// The consensus core.
    Core(LogFlushed<TypeConfig>),
    /// A caller that waits.
    Caller(oneshot::Sender<()>),
    /// Nobody.
    Nobody,
}

/// The file as the writer knows it.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    cluster: u64,
    written: u64,
    durable: u64,
    link: Link,
}

impl LogFile {
    /// Opens a file whose first `bytes` are whole records, cuts off the rest and makes both safe.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn open(path: &Path, owner: &Header, bytes: u64, link: Link) -> Result<Self, DiskError> {
        let failed = |what: &str| DiskError::io(format!("{what} {}", path.display()));
        let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(failed("open"))?;
        file.set_len(bytes).map_err(failed("truncate"))?;
        file.sync_all().map_err(failed("fsync"))?;
        file.seek(SeekFrom::Start(bytes)).map_err(failed("seek"))?;
        let cluster = record::cluster_number(&owner.cluster_id);
        Ok(Self { path: path.to_owned(), file, cluster, written: bytes, durable: bytes, link })
    }

    /// Writes a log whole to a new file and puts it in place of the one at `path`.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn replace(path: &Path, owner: &Header, index: &Index) -> Result<Self, DiskError> {
        let failed = |what: &str| DiskError::io(format!("{what} {}", path.display()));
        let beside = path.with_extension("tmp");
        let file = File::create(&beside).map_err(failed("create beside"))?;
        let cluster = record::cluster_number(&owner.cluster_id);
        let mut this = Self { path: path.to_owned(), file, cluster, written: 0, durable: 0, link: Link::default() };
        let header = codec::encode(owner).map_err(|e| this.unencodable(&e))?;
        let mut out = Vec::new();
        this.put(Kind::Header, 0, 0, &header, &mut out);
        for change in index.changes() {
            this.put_change(&change, &mut out)?;
        }
        this.file.write_all(&out).map_err(failed("write"))?;
        this.sync()?;
        std::fs::rename(&beside, path).map_err(failed("rename to"))?;
        disk::sync_folder_of(path).map_err(failed("fsync the folder of"))?;
        Ok(this)
    }

    /// An empty log.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn create(path: &Path, owner: &Header, empty: &Index) -> Result<Self, DiskError> {
        debug_assert_eq!(owner.format, FORMAT, "only this version's format is written");
        Self::replace(path, owner, empty)
    }

    /// Appends changes without making them safe.
    fn append(&mut self, changes: &[Change]) -> Result<(), DiskError> {
        let mut out = Vec::new();
        for change in changes {
            self.put_change(change, &mut out)?;
        }
        self.file.write_all(&out).map_err(DiskError::io(format!("write {}", self.path.display())))
    }

    /// Makes everything written safe, and leaves a witness of it in the file.
    fn sync(&mut self) -> Result<(), DiskError> {
        let from = clock::now_us();
        self.file.sync_data().map_err(DiskError::io(format!("fsync {}", self.path.display())))?;
        let took = clock::now_us().0.saturating_sub(from.0);
        metrics::histogram!("gavel_control_fsync_seconds").record(std::time::Duration::from_micros(took));
        if took > SLOW_FSYNC_US {
            tracing::warn!(fsync_us = took, "the disk is slow");
        }
        self.durable = self.written;
        let mut out = Vec::new();
        self.put(Kind::Synced, 0, 0, &[], &mut out);
        self.file.write_all(&out).map_err(DiskError::io(format!("write {}", self.path.display())))
    }

    fn put_change(&mut self, change: &Change, out: &mut Vec<u8>) -> Result<(), DiskError> {
        let (kind, term, index, payload) = change.to_record().map_err(|e| self.unencodable(&e))?;
        self.put(kind, term, index, &payload, out);
        Ok(())
    }

    fn put(&mut self, kind: Kind, term: u64, index: u64, payload: &[u8], out: &mut Vec<u8>) {
        let before = out.len();
        let head = Head { kind, cluster: self.cluster, term, index, durable: self.durable, prev: self.link };
        self.link = record::write(head, payload, out);
        self.written += (out.len() - before) as u64;
    }

    fn unencodable(&self, error: &codec::CodecError) -> DiskError {
        DiskError::Io { what: self.path.display().to_string(), source: std::io::Error::other(error.to_string()) }
    }
}

/// Starts the thread; it ends when the last sender has gone.
///
/// # Errors
/// When the system gives no thread.
pub fn start(file: LogFile, owner: Header, writes: Arc<WriteClock>) -> Result<Sender<Job>, DiskError> {
    let (sender, jobs) = channel(JOBS_MAX);
    let thread = std::thread::Builder::new().name("gavel-raft-log".to_owned());
    thread.spawn(move || write_on(file, &owner, &writes, jobs)).map_err(DiskError::io("start the log's thread"))?;
    Ok(sender)
}

fn write_on(mut file: LogFile, owner: &Header, writes: &WriteClock, mut jobs: Receiver<Job>) {
    while let Some(first) = jobs.blocking_recv() {
        let waiting = std::iter::from_fn(|| jobs.try_recv().ok());
        let batch: Vec<Job> = std::iter::once(first).chain(waiting).collect();
        writes.begin(clock::now_us());
        let written = write_batch(&mut file, owner, &batch);
        writes.end();
        match written {
            Ok(()) => batch.into_iter().for_each(|job| tell(job.done)),
            Err(error) => {
                tracing::error!(%error, "the disk failed: stopping");
                std::process::exit(EXIT_DISK_FAILED);
            }
        }
    }
}

fn write_batch(file: &mut LogFile, owner: &Header, batch: &[Job]) -> Result<(), DiskError> {
    let mut unsynced = false;
    for job in batch {
        match &job.work {
            Work::Safe(changes) => {
                file.append(changes)?;
                unsynced = true;
            }
            Work::Lazy(change) => file.append(std::slice::from_ref(change))?,
            Work::Rewrite(index) => {
                *file = LogFile::replace(&file.path, owner, index)?;
                unsynced = false;
            }
        }
    }
    if unsynced { file.sync() } else { Ok(()) }
}

fn tell(done: Done) {
    match done {
        Done::Core(callback) => callback.log_io_completed(Ok(())),
        // A caller that has gone no longer wants to know.
        Done::Caller(sender) => drop(sender.send(())),
        Done::Nobody => {}
    }
}
