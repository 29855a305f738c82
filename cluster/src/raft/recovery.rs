//! What was in the log when the process ended?
//!
//! Reads the file from the front. At the first record that is not whole it looks on: a later record that
//! was written after these bytes had been fsynced proves that they were whole once, which is corruption and
//! stops the start. Without such a witness it is the tail of a write that was never acknowledged, and is
//! cut off. A record that is whole but does not follow its predecessor is corruption in any case, and so is
//! a log that ends before what it says is committed.

use serde::{Deserialize, Serialize};

use super::index::{Change, Contiguity, Index};
use super::record::{self, Kind, Link, RECORD_BYTES_MIN};
use super::{DiskError, LogId, codec};

/// First record of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the format.
    pub format: u32,
    /// The cluster's name.
    pub cluster_id: String,
    /// The voter.
    pub node_id: u64,
}

/// The format that this version writes.
pub const FORMAT: u32 = 1;

/// What a file should hold.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Whose it is.
    pub owner: Header,
    /// What an entry must follow.
    pub contiguity: Contiguity,
    /// The last entry of the snapshot beside it.
    pub covered: Option<LogId>,
}

/// What a file held.
#[derive(Debug)]
pub struct Recovered {
    /// The log.
    pub index: Index,
    /// Bytes of whole records; the rest is to be cut off.
    pub bytes: u64,
    /// What the next record must name.
    pub link: Link,
}

/// Reads a whole file.
///
/// # Errors
/// When it is corrupt, or of another voter.
pub fn recover(file: &str, bytes: &[u8], expected: &Expected) -> Result<Recovered, DiskError> {
    let Expected { owner, contiguity, covered } = expected;
    let cluster = record::cluster_number(&owner.cluster_id);
    let corrupt =
        |offset: usize, reason: String| DiskError::Corrupt { file: file.to_owned(), offset: offset as u64, reason };
    let mut index = Index::new(*contiguity);
    let (mut offset, mut link) = (0, Link::default());
    while let Some(rest) = bytes.get(offset..).filter(|rest| !rest.is_empty()) {
        let Some(record) = record::read(rest, cluster) else {
            if offset == 0 {
                return Err(corrupt(0, "no header: the file is damaged, or of another cluster".to_owned()));
            }
            if let Some(witness) = witness(bytes, offset, cluster) {
                return Err(corrupt(offset, format!("the record at byte {witness} proves that this was whole")));
            }
            break;
        };
        if record.head.prev != link {
            return Err(corrupt(offset, "the record does not follow the one before".to_owned()));
        }
        if offset == 0 {
            check_owner(file, &record, owner)?;
        }
        let change = Change::of_record(record.head.kind, record.payload).map_err(|e| corrupt(offset, e.to_string()))?;
        if let Some(change) = change {
            index.apply(&change, record.bytes).map_err(|e| corrupt(offset, e.to_string()))?;
        }
        offset += record.bytes;
        link = record.link;
    }
    // A snapshot may be installed and the log not yet purged up to it.
    if index.committed > index.last().max(*covered) {
        return Err(corrupt(offset, "the log ends before what was committed".to_owned()));
    }
    Ok(Recovered { index, bytes: offset as u64, link })
}

/// A whole record beyond `broken` that was written when `broken` was already safe.
fn witness(bytes: &[u8], broken: usize, cluster: u64) -> Option<usize> {
    let last = bytes.len().checked_sub(RECORD_BYTES_MIN)?;
    (broken + 1..=last).find(|at| {
        let record = bytes.get(*at..).and_then(|rest| record::read(rest, cluster));
        record.is_some_and(|record| record.head.durable > broken as u64)
    })
}

fn check_owner(file: &str, record: &record::Record<'_>, owner: &Header) -> Result<(), DiskError> {
    let corrupt = |reason: String| DiskError::Corrupt { file: file.to_owned(), offset: 0, reason };
    if record.head.kind != Kind::Header {
        return Err(corrupt("the first record is no header".to_owned()));
    }
    let found: Header = codec::decode(record.payload).map_err(|e| corrupt(e.to_string()))?;
    if found != *owner {
        let name = |h: &Header| format!("voter {} of cluster {:?}, format {}", h.node_id, h.cluster_id, h.format);
        return Err(DiskError::Foreign { file: file.to_owned(), found: name(&found), wanted: name(owner) });
    }
    Ok(())
}
