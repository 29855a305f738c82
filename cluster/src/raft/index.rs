//! What does the log hold?
//!
//! The whole log in memory, as the file says it is: a control log is a few thousand small entries. The same
//! changes are applied here and written to the file, and recovery applies the file's changes here, so the
//! two cannot mean different things. A hole is never accepted (openraft#1795).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::record::Kind;
use super::{Encoded, Entry, LogId, Membership, Vote, codec};
use openraft::EntryPayload;

/// Bytes of entries that are handed out at once, so that an append message stays below the limit.
const BATCH_BYTES_MAX: usize = gavel_proto::limits::INTERNAL_MESSAGE_BYTES_MAX / 2;

/// What an entry must follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contiguity {
    /// The entry before it, from 0 on, as in every real log.
    Kept,
    /// Nothing: openraft's own test suite writes where it likes, also into a purged range.
    Unchecked,
}

/// A change of the log.
#[derive(Clone, Debug)]
pub enum Change {
    /// A vote.
    Vote(Vote),
    /// An entry at the end.
    Append(Entry),
    /// Up to where the log is committed.
    Committed(Option<LogId>),
    /// Entries from an index on are gone.
    Truncated(u64),
    /// Entries up to an index are gone.
    Purged(LogId),
}

/// An entry's payload on disk.
#[derive(Serialize, Deserialize)]
enum Stored {
    Blank,
    Command(Vec<u8>),
    Membership(Membership),
}

/// A change that does not fit what is there.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(String);

/// The log in memory.
#[derive(Clone, Debug)]
pub struct Index {
    contiguity: Contiguity,
    /// By index, with their length on disk.
    entries: BTreeMap<u64, (Entry, usize)>,
    /// The last vote.
    pub vote: Option<Vote>,
    /// Up to where the log is committed.
    pub committed: Option<LogId>,
    /// Up to where entries are gone.
    pub purged: Option<LogId>,
}

impl Index {
    /// A log without anything.
    #[must_use]
    pub const fn new(contiguity: Contiguity) -> Self {
        Self { contiguity, entries: BTreeMap::new(), vote: None, committed: None, purged: None }
    }

    /// The last entry, or the last that is gone.
    #[must_use]
    pub fn last(&self) -> Option<LogId> {
        self.entries.values().next_back().map(|(entry, _)| entry.log_id).or(self.purged)
    }

    /// True when nothing was ever written.
    #[must_use]
    pub fn is_pristine(&self) -> bool {
        self.vote.is_none() && self.last().is_none()
    }

    /// Applies a change; `bytes` is its length on disk.
    ///
    /// # Errors
    /// When an entry would leave a hole or go back in term, or a committed one would go.
    pub fn apply(&mut self, change: &Change, bytes: usize) -> Result<(), Unfit> {
        match change {
            Change::Vote(vote) => self.vote = Some(*vote),
            Change::Committed(committed) => self.committed = *committed,
            Change::Truncated(since) if self.committed.is_some_and(|id| id.index >= *since) => {
                return Err(Unfit(format!("entry {since} is committed and cannot be truncated")));
            }
            Change::Truncated(since) => {
                self.entries.split_off(since);
            }
            Change::Purged(upto) => {
                self.entries = self.entries.split_off(&(upto.index + 1));
                self.purged = Some(*upto);
            }
            Change::Append(entry) => {
                self.check_next(entry.log_id)?;
                self.entries.insert(entry.log_id.index, (entry.clone(), bytes));
            }
        }
        Ok(())
    }

    fn check_next(&self, next: LogId) -> Result<(), Unfit> {
        match self.last() {
            _ if self.contiguity == Contiguity::Unchecked => Ok(()),
            None if next.index == 0 => Ok(()),
            None => Err(Unfit(format!("an empty log cannot begin at {next}"))),
            Some(last) if next.index == last.index + 1 && next.leader_id >= last.leader_id => Ok(()),
            Some(last) => Err(Unfit(format!("{next} does not follow {last}"))),
        }
    }

    /// Entries of a range.
    pub fn range(&self, range: impl std::ops::RangeBounds<u64>) -> Vec<Entry> {
        self.entries.range(range).map(|(_, (entry, _))| entry.clone()).collect()
    }

    /// The first entries of a range that fit one message; at least one if there is any.
    #[must_use]
    pub fn batch(&self, start: u64, end: u64) -> Vec<Entry> {
        let mut bytes = 0;
        let fits = |(_, (_, length)): &(&u64, &(Entry, usize))| {
            let first = bytes == 0;
            bytes += length;
            first || bytes <= BATCH_BYTES_MAX
        };
        self.entries.range(start..end).take_while(fits).map(|(_, (entry, _))| entry.clone()).collect()
    }

    /// The fewest changes that make this log from nothing.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        let mut changes: Vec<Change> = self.purged.map(Change::Purged).into_iter().collect();
        changes.extend(self.vote.map(Change::Vote));
        changes.extend(self.entries.values().map(|(entry, _)| Change::Append(entry.clone())));
        changes.extend(self.committed.map(|id| Change::Committed(Some(id))));
        changes
    }
}

impl Change {
    /// Kind, term, index and payload of the record that says it.
    ///
    /// # Errors
    /// When an entry is larger than a record may be.
    pub fn to_record(&self) -> Result<(Kind, u64, u64, Vec<u8>), codec::CodecError> {
        Ok(match self {
            Self::Vote(vote) => (Kind::Vote, 0, 0, codec::encode(vote)?),
            Self::Committed(committed) => (Kind::Committed, 0, 0, codec::encode(committed)?),
            Self::Truncated(since) => (Kind::Truncated, 0, 0, codec::encode(since)?),
            Self::Purged(upto) => (Kind::Purged, 0, 0, codec::encode(upto)?),
            Self::Append(entry) => {
                let stored = match &entry.payload {
                    EntryPayload::Blank => Stored::Blank,
                    EntryPayload::Normal(command) => Stored::Command(command.0.clone()),
                    EntryPayload::Membership(membership) => Stored::Membership(membership.clone()),
                };
                let id = entry.log_id;
                (Kind::Entry, id.leader_id.term, id.index, codec::encode(&(id, stored))?)
            }
        })
    }

    /// The change that a record says; `None` for the kinds that change nothing.
    ///
    /// # Errors
    /// When the payload is not what the kind promises.
    pub fn of_record(kind: Kind, payload: &[u8]) -> Result<Option<Self>, codec::CodecError> {
        Ok(Some(match kind {
            Kind::Header | Kind::Synced => return Ok(None),
            Kind::Applied | Kind::Checkpoint => return Err(codec::CodecError::foreign()),
            Kind::Vote => Self::Vote(codec::decode(payload)?),
            Kind::Committed => Self::Committed(codec::decode(payload)?),
            Kind::Truncated => Self::Truncated(codec::decode(payload)?),
            Kind::Purged => Self::Purged(codec::decode(payload)?),
            Kind::Entry => {
                let (log_id, stored): (LogId, Stored) = codec::decode(payload)?;
                let payload = match stored {
                    Stored::Blank => EntryPayload::Blank,
                    Stored::Command(bytes) => EntryPayload::Normal(Encoded(bytes)),
                    Stored::Membership(membership) => EntryPayload::Membership(membership),
                };
                Self::Append(Entry { log_id, payload })
            }
        }))
    }
}
