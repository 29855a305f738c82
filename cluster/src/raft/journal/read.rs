//! How is a journal read, and audited?
//!
//! From the ledger's beginning, or, when the files before have gone, from the sealed checkpoint that stands where the
//! rest begins. Every other checkpoint on the way is compared with the balances at its entry.

use std::path::Path;

use super::super::DiskError;
use super::super::record::{self, Kind, Link};
use super::files::{checkpoint_name, checkpoints, contents, corrupt, first_of, names};
use crate::audit::{Book, Findings, read};
use crate::convert::Malformed;
use crate::convert::ledger::read_journal_entry;
use crate::convert::ledger_snapshot;
use crate::ledger::Ledger;

/// Why a journal cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A file is missing, damaged, or does not follow the one before.
    #[error("{0}")]
    Disk(#[from] DiskError),
    /// An entry is of another version.
    #[error("entry {0} of the journal: {1}")]
    Entry(u64, #[source] Malformed),
}

/// What an audit leads to.
#[derive(Clone, Debug, Default)]
pub struct Audited {
    /// Every balance.
    pub book: Book,
    /// What was found.
    pub findings: Findings,
    /// The last entry that was read.
    pub last: Option<u64>,
    /// The entry of the checkpoint that it began from; `None` for the beginning of the ledger.
    pub began_at: Option<u64>,
}

/// A folder that is being audited.
struct Reader<'a> {
    folder: &'a Path,
    cluster_id: &'a str,
    audited: Audited,
    /// States on the way, ascending.
    states: Vec<u64>,
    /// Of the state that it began from, until its record is found in the chain.
    unproven: Option<[u8; 32]>,
}

/// Audits the journal in a folder, up to an entry, or whole. The chain of hashes is verified over all files.
///
/// # Errors
/// When it cannot be read.
pub fn audit(folder: &Path, cluster_id: &str, upto: Option<u64>) -> Result<Audited, JournalError> {
    let cluster = record::cluster_number(cluster_id);
    let mut reader = Reader::begin(folder, cluster_id)?;
    let mut link: Option<Link> = None;
    'files: for name in names(folder)? {
        let path = folder.join(&name);
        let bytes = contents(&path)?;
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            // The end of a file that is being written may be half a record.
            let Some(record) = record::read(rest, cluster) else { break };
            if link.is_some_and(|link| record.head.prev != link) {
                return Err(corrupt(&path, at, "the record does not follow the one before").into());
            }
            link = Some(record.link);
            at += record.bytes;
            if upto.is_some_and(|upto| record.head.index > upto) {
                break 'files;
            }
            reader.enter(&record)?;
        }
    }
    reader.end(upto)
}

impl<'a> Reader<'a> {
    fn begin(folder: &'a Path, cluster_id: &'a str) -> Result<Self, JournalError> {
        let states = checkpoints(folder)?;
        let audited = Audited { book: Book::new(), ..Audited::default() };
        let mut this = Self { folder, cluster_id, audited, states, unproven: None };
        let first = names(folder)?.first().and_then(|name| first_of(name)).unwrap_or(0);
        if first > 0 {
            let state = this.states.iter().copied().find(|index| index + 1 >= first);
            let missing =
                || corrupt(folder, 0, &format!("it begins at entry {first}, and no checkpoint stands before it"));
            let index = state.ok_or_else(missing)?;
            let (ledger, hash) = this.state(index)?;
            this.audited.book = Book::from_checkpoint(&ledger);
            (this.audited.last, this.audited.began_at, this.unproven) = (Some(index), Some(index), Some(hash));
        }
        Ok(this)
    }

    fn enter(&mut self, record: &record::Record<'_>) -> Result<(), JournalError> {
        let index = record.head.index;
        match record.head.kind {
            Kind::Applied => self.entry(index, record.payload),
            Kind::Checkpoint => self.checkpoint(index, record.payload),
            Kind::Header
            | Kind::Vote
            | Kind::Entry
            | Kind::Committed
            | Kind::Truncated
            | Kind::Purged
            | Kind::Synced => Ok(()),
        }
    }

    fn entry(&mut self, index: u64, payload: &[u8]) -> Result<(), JournalError> {
        let audited = &mut self.audited;
        if audited.began_at.is_some_and(|began| index <= began) {
            return Ok(());
        }
        let expected = audited.last.map_or(0, |last| last + 1);
        if index != expected {
            audited.findings.fault(|| format!("entry {expected} is missing: {index} stands in its place"));
        }
        if !payload.is_empty() {
            let (batch, answered) = read_journal_entry(payload).map_err(|e| JournalError::Entry(index, e))?;
            read(&mut audited.book, &mut audited.findings, index, &batch, &answered);
        }
        audited.last = Some(index);
        if self.states.binary_search(&index).is_ok() {
            let (ledger, _) = self.state(index)?;
            for difference in self.audited.book.differences(&ledger) {
                self.audited.findings.fault(|| format!("the checkpoint at {index}: {difference}"));
            }
        }
        Ok(())
    }

    /// A state in the chain: the one that it began from, one in place of entries that are missing, or one in passing.
    fn checkpoint(&mut self, index: u64, named: &[u8]) -> Result<(), JournalError> {
        let path = self.folder.join(checkpoint_name(index));
        let other = || corrupt(&path, 0, "it is not what the journal names");
        if self.audited.began_at == Some(index)
            && let Some(hash) = self.unproven.take()
        {
            return if hash == named { Ok(()) } else { Err(other().into()) };
        }
        let in_passing = self.audited.last.is_some_and(|last| index <= last);
        if in_passing && !self.states.contains(&index) {
            // It has gone since: audits begin behind it.
            return Ok(());
        }
        let (ledger, hash) = self.state(index)?;
        if hash != named {
            return Err(other().into());
        }
        if !in_passing {
            self.audited.book = Book::from_checkpoint(&ledger);
            (self.audited.last, self.audited.began_at) = (Some(index), Some(index));
        }
        Ok(())
    }

    /// A state and its hash.
    fn state(&self, index: u64) -> Result<(Ledger, [u8; 32]), JournalError> {
        let bytes = contents(&self.folder.join(checkpoint_name(index)))?;
        let ledger = ledger_snapshot::decode(&bytes, self.cluster_id).map_err(|e| JournalError::Entry(index, e))?;
        Ok((ledger, *blake3::hash(&bytes).as_bytes()))
    }

    fn end(mut self, upto: Option<u64>) -> Result<Audited, JournalError> {
        // Whoever asked for less may not have come to it.
        if self.unproven.is_some() && upto.is_none() {
            return Err(corrupt(self.folder, 0, "the journal does not name the checkpoint that it begins from").into());
        }
        let last = self.audited.last.unwrap_or(0);
        self.audited.book.look_at_all(last, &mut self.audited.findings);
        Ok(self.audited)
    }
}
