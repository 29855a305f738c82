//! Is this one record, whole and ours?
//!
//! ```text
//! len u32 | kind u8 | cluster u64 | term u64 | index u64 | durable u64 | prev 16 B | payload | crc32 u32
//! ```
//! `len` counts what follows it; all integers are little-endian. `prev` is the start of the BLAKE3 of the
//! record before, so a record that was lost, moved or repeated breaks the chain. `durable` is how many bytes of
//! the file had been fsynced when the record was written: whatever is broken below it was broken later.

use crate::state::types::Hash32;

/// Bytes before the payload.
const HEAD_BYTES: usize = 4 + 1 + 8 + 8 + 8 + 8 + 16;
/// Bytes after it.
const CRC_BYTES: usize = 4;
/// Bytes of the smallest record.
pub const RECORD_BYTES_MIN: usize = HEAD_BYTES + CRC_BYTES;
/// Bytes of a record: an entry is at most one internal message.
pub const RECORD_BYTES_MAX: usize = 8 * 1024 * 1024;

const _: () = assert!(
    RECORD_BYTES_MAX > gavel_proto::limits::INTERNAL_MESSAGE_BYTES_MAX + RECORD_BYTES_MIN,
    "what a peer may send can be stored"
);

/// The start of the BLAKE3 of a record.
pub type Link = [u8; 16];

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Whose file this is; first in it.
    Header,
    /// A vote.
    Vote,
    /// An entry.
    Entry,
    /// Up to where the log is committed.
    Committed,
    /// Entries from an index on are gone.
    Truncated,
    /// Entries up to an index are gone.
    Purged,
    /// Nothing but its `durable`: written after each fsync.
    Synced,
    /// An entry of a journal: what was applied, and what was answered.
    Applied,
    /// In a journal: the state came as a snapshot, whose hash this is.
    Checkpoint,
}

impl Kind {
    const fn byte(self) -> u8 {
        match self {
            Self::Header => 1,
            Self::Vote => 2,
            Self::Entry => 3,
            Self::Committed => 4,
            Self::Truncated => 5,
            Self::Purged => 6,
            Self::Synced => 7,
            Self::Applied => 8,
            Self::Checkpoint => 9,
        }
    }

    const fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Header,
            2 => Self::Vote,
            3 => Self::Entry,
            4 => Self::Committed,
            5 => Self::Truncated,
            6 => Self::Purged,
            7 => Self::Synced,
            8 => Self::Applied,
            9 => Self::Checkpoint,
            _ => return None,
        })
    }
}

/// What stands before the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What the record says.
    pub kind: Kind,
    /// Start of the BLAKE3 of the cluster's name.
    pub cluster: u64,
    /// Of the entry; 0 for others.
    pub term: u64,
    /// Of the entry; 0 for others.
    pub index: u64,
    /// Bytes of the file that were safe when this was written.
    pub durable: u64,
    /// The record before.
    pub prev: Link,
}

/// A record that was read.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// What stands before the payload.
    pub head: Head,
    /// bincode.
    pub payload: &'a [u8],
    /// Bytes of the whole record.
    pub bytes: usize,
    /// What the next record must name.
    pub link: Link,
}

/// Writes a record to the end of `out` and says what the next one must name.
pub fn write(head: Head, payload: &[u8], out: &mut Vec<u8>) -> Link {
    let start = out.len();
    // The caller's payload is at most RECORD_BYTES_MAX, far below 4 GiB.
    let len = u32::try_from(RECORD_BYTES_MIN + payload.len() - 4).unwrap_or(u32::MAX);
    out.extend_from_slice(&len.to_le_bytes());
    out.push(head.kind.byte());
    for word in [head.cluster, head.term, head.index, head.durable] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(&head.prev);
    out.extend_from_slice(payload);
    let crc = crc32fast::hash(&out[start..]);
    out.extend_from_slice(&crc.to_le_bytes());
    link(&out[start..])
}

/// The record at the start of `bytes`; `None` when there is none that is whole and of this cluster.
#[must_use]
pub fn read(bytes: &[u8], cluster: u64) -> Option<Record<'_>> {
    let total = (word32(bytes, 0)? as usize).checked_add(4)?;
    if !(RECORD_BYTES_MIN..=RECORD_BYTES_MAX + RECORD_BYTES_MIN).contains(&total) || word64(bytes, 5)? != cluster {
        return None;
    }
    let whole = bytes.get(..total)?;
    let (body, crc) = whole.split_at(total - CRC_BYTES);
    let kind = Kind::of(*whole.get(4)?)?;
    if crc32fast::hash(body) != word32(crc, 0)? {
        return None;
    }
    let head = Head {
        kind,
        cluster,
        term: word64(body, 13)?,
        index: word64(body, 21)?,
        durable: word64(body, 29)?,
        prev: body.get(37..53)?.try_into().ok()?,
    };
    Some(Record { head, payload: body.get(HEAD_BYTES..)?, bytes: total, link: link(whole) })
}

/// The number that stands for a cluster's name in a record.
#[must_use]
pub fn cluster_number(cluster_id: &str) -> u64 {
    let hash: Hash32 = *blake3::hash(cluster_id.as_bytes()).as_bytes();
    word64(&hash, 0).unwrap_or_default()
}

fn link(record: &[u8]) -> Link {
    let mut link = Link::default();
    link.copy_from_slice(&blake3::hash(record).as_bytes()[..16]);
    link
}

fn word32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn word64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
