//! Who writes the files?
//!
//! One thread. A disk that fails costs durability, not requests: the fault is told once and counted, and the thread
//! begins a new file with a snapshot as soon as that succeeds.

use super::frame::{self, RECORD_BYTES_MAX};
use super::{Entry, Order, SYNC_MS, numbered};
use crate::frequency::convert;
use crate::frequency::store::{TABLES, Tables, copy_of};
use gavel_member::clock::now_us;
use gavel_member::disk::sync_folder_of;
use gavel_proto::wire::{FrequencyRecord, UserCounts};
use prost::Message;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// Logs smaller than this are not worth a snapshot.
const LOG_BYTES_MIN: u64 = if cfg!(test) { 64 * 1024 } else { 16 * 1024 * 1024 };
/// Encoded bytes of users in one record of a snapshot: above the largest user, far below a record.
const PART_BYTES: usize = RECORD_BYTES_MAX / 4;
/// Between two tries of a disk that failed.
const RETRY_US: u64 = 5_000_000;

/// The files.
pub(super) struct Writer {
    folder: PathBuf,
    tables: Arc<Tables>,
    log: Option<File>,
    number: u64,
    log_bytes: u64,
    snapshot_bytes: u64,
    unsynced: bool,
    synced_us: u64,
    failed_us: Option<u64>,
}

impl Writer {
    pub(super) fn create(folder: &Path, number: u64, tables: Arc<Tables>) -> io::Result<Self> {
        let bytes_of = |prefix: &str| {
            let numbers = numbered(folder, prefix).unwrap_or_default();
            let files = numbers.iter().filter_map(|n| std::fs::metadata(folder.join(format!("{prefix}{n}"))).ok());
            files.map(|file| file.len()).sum()
        };
        let mut writer = Self {
            folder: folder.to_path_buf(),
            tables,
            log: None,
            number,
            // Of earlier starts, which the next snapshot stands for as well.
            log_bytes: bytes_of("log-"),
            snapshot_bytes: bytes_of("snapshot-"),
            unsynced: false,
            synced_us: now_us().0,
            failed_us: None,
        };
        writer.log = Some(writer.create_log(number)?);
        Ok(writer)
    }

    /// Writes until it is told to stop.
    pub(super) fn run(mut self, inbox: &Receiver<Order>) {
        let mut bytes = Vec::new();
        loop {
            let stops = self.gather(inbox, &mut bytes);
            if let Err(error) = self.write(&bytes, stops) {
                self.fail(&error);
            }
            bytes.clear();
            if stops {
                return;
            }
        }
    }

    /// What waits, as records; true when nothing comes any more.
    fn gather(&self, inbox: &Receiver<Order>, bytes: &mut Vec<u8>) -> bool {
        let mut next = match inbox.recv_timeout(Duration::from_millis(SYNC_MS)) {
            Ok(order) => order,
            Err(RecvTimeoutError::Timeout) => return false,
            Err(RecvTimeoutError::Disconnected) => return true,
        };
        loop {
            let Order::Keep { table, sequence, entry } = next else { return true };
            let record = FrequencyRecord { table, sequence, ..of(entry) };
            frame::append(&record.encode_to_vec(), bytes);
            if bytes.len() >= PART_BYTES {
                return false;
            }
            match inbox.try_recv() {
                Ok(order) => next = order,
                Err(_) => return false,
            }
        }
    }

    fn write(&mut self, bytes: &[u8], stops: bool) -> io::Result<()> {
        let now = now_us().0;
        if let Some(failed) = self.failed_us {
            if !stops && now.saturating_sub(failed) < RETRY_US {
                return Ok(());
            }
            // What was dropped meanwhile is in the tables.
            self.snapshot()?;
            self.failed_us = None;
            return Ok(());
        }
        if let Some(log) = self.log.as_mut().filter(|_| !bytes.is_empty()) {
            log.write_all(bytes)?;
            self.log_bytes += bytes.len() as u64;
            self.unsynced = true;
        }
        if self.unsynced && (stops || now.saturating_sub(self.synced_us) >= SYNC_MS * 1_000) {
            if let Some(log) = &self.log {
                log.sync_data()?;
            }
            (self.unsynced, self.synced_us) = (false, now);
        }
        if self.log_bytes > LOG_BYTES_MIN.max(2 * self.snapshot_bytes) { self.snapshot() } else { Ok(()) }
    }

    fn fail(&mut self, error: &io::Error) {
        if self.failed_us.is_none() {
            tracing::error!(%error, folder = %self.folder.display(), "counts are not kept on disk: a restart loses some");
        }
        metrics::counter!("gavel_frequency_journal_failures_total").increment(1);
        self.failed_us = Some(now_us().0);
    }

    fn create_log(&self, number: u64) -> io::Result<File> {
        let path = self.folder.join(format!("log-{number}"));
        let file = File::create(&path)?;
        sync_folder_of(&path)?;
        Ok(file)
    }

    /// Writes all tables and begins a new log; older files go.
    fn snapshot(&mut self) -> io::Result<()> {
        let began = now_us().0;
        self.number += 1;
        self.log = Some(self.create_log(self.number)?);
        (self.log_bytes, self.unsynced) = (0, false);
        let beside = self.folder.join("snapshot.tmp");
        let mut file = File::create(&beside)?;
        self.snapshot_bytes = 0;
        let mut bytes = Vec::new();
        for table in 0..TABLES {
            self.write_table(table, &mut bytes);
            file.write_all(&bytes)?;
            self.snapshot_bytes += bytes.len() as u64;
            bytes.clear();
        }
        frame::append(&FrequencyRecord { end: true, ..FrequencyRecord::default() }.encode_to_vec(), &mut bytes);
        file.write_all(&bytes)?;
        file.sync_all()?;
        let path = self.folder.join(format!("snapshot-{}", self.number));
        std::fs::rename(&beside, &path)?;
        sync_folder_of(&path)?;
        self.remove_older();
        tracing::debug!(
            bytes = self.snapshot_bytes,
            took_us = now_us().0 - began,
            "a snapshot of the counts is written"
        );
        Ok(())
    }

    /// One table, copied under its lock, in records that stay below the limit, all with the number of its last change.
    fn write_table(&self, table: usize, bytes: &mut Vec<u8>) {
        let (sequence, users) = {
            let slot = self.tables.lock(table);
            let users: Vec<_> = slot.table.users().map(|user| copy_of(&slot, user)).collect();
            (slot.sequence, users)
        };
        if sequence == 0 {
            return;
        }
        let mut parts: Vec<Vec<UserCounts>> = vec![Vec::new()];
        let mut part_bytes = 0;
        for user in users.iter().map(convert::user_to_wire) {
            part_bytes += user.encoded_len();
            if part_bytes > PART_BYTES {
                parts.push(Vec::new());
                part_bytes = 0;
            }
            if let Some(part) = parts.last_mut() {
                part.push(user);
            }
        }
        for users in parts {
            let record = FrequencyRecord { table: table as u32, sequence, users, ..FrequencyRecord::default() };
            frame::append(&record.encode_to_vec(), bytes);
        }
    }

    fn remove_older(&self) {
        for prefix in ["log-", "snapshot-"] {
            let numbers = numbered(&self.folder, prefix).unwrap_or_default();
            for number in numbers.into_iter().filter(|number| *number < self.number) {
                // What stays is removed by the next one.
                let _ = std::fs::remove_file(self.folder.join(format!("{prefix}{number}")));
            }
        }
    }
}

fn of(entry: Entry) -> FrequencyRecord {
    match entry {
        Entry::Op(op) => FrequencyRecord { op: Some(convert::op_to_wire(&op)), ..FrequencyRecord::default() },
        Entry::User(user, counters) => {
            let users = vec![convert::user_to_wire(&(user, counters))];
            FrequencyRecord { users, ..FrequencyRecord::default() }
        }
    }
}
