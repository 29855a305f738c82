//! How is a journal read, and audited?

use std::path::Path;

use super::super::DiskError;
use super::super::record::{self, Kind, Link};
use super::files::{contents, corrupt, first_of, names};
use crate::audit::{Book, Findings, read};
use crate::convert::Malformed;
use crate::convert::ledger::read_journal_entry;
use crate::convert::ledger_snapshot;

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

/// Audits the journal in a folder, up to an entry, or whole. The chain of hashes is verified over all files.
///
/// # Errors
/// When it cannot be read.
pub fn audit(folder: &Path, cluster_id: &str, upto: Option<u64>) -> Result<Audited, JournalError> {
    let cluster = record::cluster_number(cluster_id);
    let mut audited = Audited { book: Book::new(), ..Audited::default() };
    let mut link: Option<Link> = None;
    for name in names(folder)? {
        let path = folder.join(&name);
        if link.is_none() && first_of(&name) != Some(0) {
            audited.began_at = first_of(&name);
        }
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
                return Ok(audited);
            }
            enter(&mut audited, folder, cluster_id, &record)?;
        }
    }
    Ok(audited)
}

fn enter(
    audited: &mut Audited,
    folder: &Path,
    cluster_id: &str,
    record: &record::Record<'_>,
) -> Result<(), JournalError> {
    let index = record.head.index;
    match record.head.kind {
        Kind::Applied => {
            let expected = audited.last.map_or(0, |last| last + 1);
            if index != expected {
                audited.findings.fault(format!("entry {expected} is missing: {index} stands in its place"));
            }
            if !record.payload.is_empty() {
                let entry = read_journal_entry(record.payload);
                let (batch, answered) = entry.map_err(|e| JournalError::Entry(index, e))?;
                read(&mut audited.book, &mut audited.findings, index, &batch, &answered);
            }
            audited.last = Some(index);
        }
        Kind::Checkpoint => {
            let path = folder.join(format!("checkpoint-{index:020}.zst"));
            let state = contents(&path)?;
            if blake3::hash(&state).as_bytes().as_slice() != record.payload {
                return Err(corrupt(&path, 0, "it is not what the journal names").into());
            }
            let ledger = ledger_snapshot::decode(&state, cluster_id).map_err(|e| JournalError::Entry(index, e))?;
            audited.book = Book::from_checkpoint(&ledger);
            (audited.last, audited.began_at) = (Some(index), Some(index));
        }
        Kind::Header | Kind::Vote | Kind::Entry | Kind::Committed | Kind::Truncated | Kind::Purged | Kind::Synced => {}
    }
    Ok(())
}
