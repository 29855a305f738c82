//! Which ordinals belong to this key?
//!
//! A sorted table of keys, each with a run of ordinals: campaigns to their ads, advertisers and categories
//! to their items. Read in place.

use super::{
    container::{Container, Section, Sections, tag},
    error::SegmentError,
};
use std::collections::BTreeMap;
use std::ops::Range;

/// The three sections of one lookup.
#[derive(Clone, Copy)]
pub(crate) struct LookupTags {
    keys: u64,
    first: u64,
    members: u64,
}

impl LookupTags {
    /// Tags from a letter.
    pub(crate) const fn of(letter: u8) -> Self {
        Self {
            keys: tag(&[letter, b'_', b'k', b'e', b'y', b's', b' ', b' ']),
            first: tag(&[letter, b'_', b'f', b'i', b'r', b's', b't', b' ']),
            members: tag(&[letter, b'_', b'm', b'e', b'm', b'b', b'e', b'r']),
        }
    }
}

/// An open lookup.
pub(crate) struct Lookup {
    keys: Section<u64>,
    first: Section<u32>,
    members: Section<u32>,
}

impl Lookup {
    /// Writes one; members of a key must ascend.
    pub(crate) fn write(tags: LookupTags, groups: &BTreeMap<u64, Vec<u32>>, out: &mut Sections) {
        let (mut first, mut members) = (vec![0], Vec::new());
        for group in groups.values() {
            members.extend_from_slice(group);
            first.push(members.len() as u32);
        }
        out.push(tags.keys, &groups.keys().copied().collect::<Vec<u64>>());
        out.push(tags.first, &first);
        out.push(tags.members, &members);
    }

    /// Opens and checks one whose members are below `len`.
    pub(crate) fn open(file: &Container, tags: LookupTags, len: u32) -> Result<Self, SegmentError> {
        let keys = file.section::<u64>(tags.keys)?;
        let members = file.section::<u32>(tags.members)?;
        let first = file.offsets(tags.first, keys.len(), members.len())?;
        if !keys.is_sorted_by(|a, b| a < b) || members.iter().any(|m| *m >= len) {
            return Err(file.damaged("a lookup out of order"));
        }
        Ok(Self { keys, first, members })
    }

    /// The keys, ascending.
    pub(crate) fn keys(&self) -> &[u64] {
        &self.keys
    }

    /// The place of a key.
    pub(crate) fn find(&self, key: u64) -> Option<u32> {
        self.keys.binary_search(&key).ok().map(|at| at as u32)
    }

    /// The ordinals at a place.
    pub(crate) fn at(&self, place: u32) -> &[u32] {
        let first = |at: usize| self.first.get(at).copied().unwrap_or(0) as usize;
        let range: Range<usize> = first(place as usize)..first(place as usize + 1);
        self.members.get(range).unwrap_or(&[])
    }

    /// The ordinals of a key.
    pub(crate) fn of(&self, key: u64) -> &[u32] {
        self.find(key).map_or(&[], |place| self.at(place))
    }
}
