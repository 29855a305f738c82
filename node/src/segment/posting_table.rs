//! Where is the posting of this key?
//!
//! Sorted keys, the end of each posting, and the postings: one table of the targeting of a segment. Read in
//! place; every posting is checked once when the table is opened.

use super::{
    container::{Container, Section, Sections, tag},
    error::SegmentError,
    roaring_view::{RoaringView, store},
};
use roaring::RoaringBitmap;
use std::collections::BTreeMap;

/// A dimension and a value of it, hashed; what has no second part says 0.
pub(crate) type Key = [u64; 2];

/// The three sections of a table.
#[derive(Clone, Copy)]
pub(crate) struct TableTags {
    keys: u64,
    ends: u64,
    bytes: u64,
}

impl TableTags {
    /// Tags from three letters.
    pub(crate) const fn of(name: &[u8; 3]) -> Self {
        let [a, b, c] = *name;
        Self {
            keys: tag(&[a, b, c, b'_', b'k', b'e', b'y', b's']),
            ends: tag(&[a, b, c, b'_', b'e', b'n', b'd', b's']),
            bytes: tag(&[a, b, c, b'_', b'b', b'y', b't', b'e']),
        }
    }
}

/// An open table.
pub(crate) struct Table {
    keys: Section<Key>,
    ends: Section<u64>,
    bytes: Section<u8>,
}

impl Table {
    /// Opens a table of postings of ads below `ads`.
    pub(crate) fn open(file: &Container, tags: TableTags, ads: u32) -> Result<Self, SegmentError> {
        let keys = file.section::<Key>(tags.keys)?;
        let ends = file.section_of::<u64>(tags.ends, keys.len())?;
        let bytes = file.section::<u8>(tags.bytes)?;
        let table = Self { keys, ends, bytes };
        let ends_last = table.ends.last().copied().unwrap_or(0);
        if !table.keys.is_sorted_by(|a, b| a < b) || !table.ends.is_sorted() || ends_last != table.bytes.len() as u64 {
            return Err(file.damaged("postings out of order"));
        }
        if (0..table.keys.len()).any(|place| !table.at(place).is_sound(ads)) {
            return Err(file.damaged("a posting"));
        }
        Ok(table)
    }

    /// The keys, ascending.
    pub(crate) fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// The posting at a place of the keys.
    pub(crate) fn at(&self, place: usize) -> RoaringView<'_> {
        let end = |at: usize| self.ends.get(at).copied().unwrap_or(0) as usize;
        let start = if place == 0 { 0 } else { end(place - 1) };
        RoaringView::new(self.bytes.get(start..end(place)).unwrap_or(&[]))
    }

    /// The posting of a key.
    pub(crate) fn find(&self, key: Key) -> Option<RoaringView<'_>> {
        self.keys.binary_search(&key).ok().map(|place| self.at(place))
    }
}

/// Writes a table.
pub(crate) fn write(
    tags: TableTags,
    postings: &BTreeMap<Key, RoaringBitmap>,
    out: &mut Sections,
) -> Result<(), SegmentError> {
    let (mut ends, mut bytes) = (Vec::new(), Vec::new());
    for posting in postings.values() {
        store(posting, &mut bytes).map_err(|e| SegmentError::Refused(format!("posting: {e}")))?;
        ends.push(bytes.len() as u64);
    }
    out.push(tags.keys, &postings.keys().copied().collect::<Vec<Key>>());
    out.push(tags.ends, &ends);
    out.push(tags.bytes, &bytes);
    Ok(())
}
