//! How do counts survive a restart?
//!
//! Every change goes behind the last one into `log-N`, written by a thread of its own some milliseconds after it was
//! answered and synced every [`SYNC_MS`]. When the logs have grown, all tables are written as `snapshot-N`, which holds
//! everything of the logs before `N`: the log is rotated first, each table is copied under its lock with the number of
//! its last change, and the changes of `log-N` up to that number are skipped when both are read. Then the older files go.
//!
//! What may be lost: at `kill -9` what is still in the queue, at a power cut the last [`SYNC_MS`]; both only on this
//! disk, and the other node of the user has them. A damaged record ends the reading of its file ([`frame`]).

pub mod frame;
mod write;

use super::convert;
use super::kernel::{Counter, Op};
use super::store::Tables;
use gavel_proto::wire::FrequencyRecord;
use prost::Message;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Between two syncs while something changes.
pub const SYNC_MS: u64 = 100;
/// Changes that may wait for the thread: some seconds of a busy node, while a snapshot is written.
const QUEUE_MAX: usize = 65_536;

/// Why counts cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct JournalError {
    path: PathBuf,
    source: io::Error,
}

impl JournalError {
    fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self { path, source }
    }
}

/// A change.
#[derive(Debug)]
pub enum Entry {
    /// Something was counted or given back.
    Op(Arc<Op>),
    /// A user's counts came from another node.
    User(u64, Vec<Counter>),
}

/// A record as it was read.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Of which part of the users.
    pub table: usize,
    /// Its number there.
    pub sequence: u64,
    /// Something that was counted.
    pub op: Option<Op>,
    /// Users with their counts.
    pub users: Vec<(u64, Vec<Counter>)>,
    /// Where it stood.
    pub origin: Origin,
}

/// Where a record stood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// In a log: it comes once, after those with smaller numbers.
    #[default]
    Log,
    /// In a snapshot, which may say a table in several records of one number.
    Snapshot,
}

/// What the thread is told.
enum Order {
    Keep { table: u32, sequence: u64, entry: Entry },
    Stop,
}

/// The way to the disk.
#[derive(Debug)]
pub struct Journal {
    orders: SyncSender<Order>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Journal {
    /// Goes on with a new file of this number.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn start(folder: &Path, next: u64, tables: Arc<Tables>) -> Result<Self, JournalError> {
        let (orders, inbox) = sync_channel(QUEUE_MAX);
        let writer = write::Writer::create(folder, next, tables).map_err(JournalError::at(folder))?;
        let thread = std::thread::Builder::new().name("counts".to_owned()).spawn(move || writer.run(&inbox));
        let thread = thread.map_err(JournalError::at(folder))?;
        Ok(Self { orders, thread: Mutex::new(Some(thread)) })
    }

    /// Keeps a change. One that finds no room is dropped and counted: a disk that hangs must not hold up requests.
    pub fn push(&self, table: usize, sequence: u64, entry: Entry) {
        let table = u32::try_from(table).unwrap_or(u32::MAX);
        if let Err(TrySendError::Full(_)) = self.orders.try_send(Order::Keep { table, sequence, entry }) {
            metrics::counter!("gavel_frequency_unlogged_total").increment(1);
        }
    }

    /// Writes what waits, and ends; blocks.
    pub fn close(&self) {
        // A thread that has ended has said why.
        let _ = self.orders.send(Order::Stop);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _ = thread.map(JoinHandle::join);
    }
}

/// Hands every record on the disk to `take`, in order; answers the number of the next file.
///
/// # Errors
/// When the folder cannot be used. Damage is told and gone on from.
pub fn recover(folder: &Path, mut take: impl FnMut(Recovered)) -> Result<u64, JournalError> {
    std::fs::create_dir_all(folder).map_err(JournalError::at(folder))?;
    let (snapshots, logs) = (numbered(folder, "snapshot-")?, numbered(folder, "log-")?);
    let mut from = 0;
    // A newer one is whole: it has its name only since it was.
    if let Some(newest) = snapshots.last() {
        let path = folder.join(format!("snapshot-{newest}"));
        if read(&path, Tail::Whole, &mut take).map_err(JournalError::at(&path))? {
            from = *newest;
        }
    }
    for number in logs.iter().filter(|number| **number >= from) {
        let path = folder.join(format!("log-{number}"));
        read(&path, Tail::MayBeTorn, &mut take).map_err(JournalError::at(&path))?;
    }
    Ok(logs.iter().chain(&snapshots).max().map_or(1, |last| last + 1))
}

/// May a file end in the middle of a record?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tail {
    /// Its writer may have been killed.
    MayBeTorn,
    /// No: it was renamed into place.
    Whole,
}

/// Reads one file; true when it was whole.
fn read(path: &Path, tail: Tail, take: &mut impl FnMut(Recovered)) -> io::Result<bool> {
    let mut input = BufReader::new(File::open(path)?);
    let mut ended = false;
    let fault = loop {
        match frame::read(&mut input)? {
            frame::Read::End => break (tail == Tail::Whole && !ended).then(|| "it has no end".to_owned()),
            // What was cut off at a kill had not been synced.
            frame::Read::Torn if tail == Tail::MayBeTorn => break None,
            frame::Read::Torn => break Some("it ends within a record".to_owned()),
            frame::Read::Damaged => break Some("a record does not have its checksum".to_owned()),
            frame::Read::Record(bytes) => {
                let record = FrequencyRecord::decode(bytes.as_slice()).map_err(|error| error.to_string());
                let origin = if tail == Tail::Whole { Origin::Snapshot } else { Origin::Log };
                match record.and_then(|record| Ok((record.end, recovered(&record, origin)?))) {
                    Ok((true, _)) => ended = true,
                    Ok((false, record)) => take(record),
                    Err(reason) => break Some(reason),
                }
            }
        }
    };
    if let Some(reason) = &fault {
        tracing::error!(path = %path.display(), %reason, "counts on disk are damaged: what follows there is not read");
        metrics::counter!("gavel_damaged_on_disk_total").increment(1);
    }
    Ok(fault.is_none())
}

fn recovered(record: &FrequencyRecord, origin: Origin) -> Result<Recovered, String> {
    Ok(Recovered {
        origin,
        table: record.table as usize,
        sequence: record.sequence,
        op: record.op.as_ref().map(convert::op).transpose()?,
        users: record.users.iter().map(convert::user).collect::<Result<_, _>>()?,
    })
}

/// The numbers behind a prefix, ascending.
fn numbered(folder: &Path, prefix: &str) -> Result<Vec<u64>, JournalError> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(JournalError::at(folder))? {
        let name = entry.map_err(JournalError::at(folder))?.file_name();
        numbers.extend(name.to_string_lossy().strip_prefix(prefix).and_then(|n| n.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests;
