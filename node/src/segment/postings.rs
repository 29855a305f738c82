//! Which ads may be shown for this request?
//!
//! For each (dimension, value) the ads that ask for it and the ads that exclude it; for each dimension the
//! ads that ask for anything on it. An ad is out when it is constrained on a dimension and asks for none of
//! the request's values there, or when it excludes one of them. The algebra runs over a plain bitmap, so
//! the count is exact and its cost does not depend on how many ads match.

use super::{
    bitset::Bitset,
    container::{Container, Section, Sections, tag},
    document::DocRule,
    error::SegmentError,
    roaring_view::{RoaringView, store},
};
use roaring::RoaringBitmap;
use std::collections::BTreeMap;

/// What a request states of one dimension, hashed.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Term {
    /// The dimension.
    pub dimension: u64,
    /// Its values.
    pub values: Vec<u64>,
}

type Key = [u64; 2];

/// The postings of one kind: sorted keys, offsets, stored bitmaps.
struct Table {
    keys: Section<Key>,
    ends: Section<u64>,
    bytes: Section<u8>,
}

#[derive(Clone, Copy)]
struct TableTags {
    keys: u64,
    ends: u64,
    bytes: u64,
}

const ANY: TableTags = TableTags { keys: tag(b"any_keys"), ends: tag(b"any_ends"), bytes: tag(b"any_byte") };
const NONE: TableTags = TableTags { keys: tag(b"non_keys"), ends: tag(b"non_ends"), bytes: tag(b"non_byte") };
/// Keys are (dimension, 0).
const BOUND: TableTags = TableTags { keys: tag(b"bnd_keys"), ends: tag(b"bnd_ends"), bytes: tag(b"bnd_byte") };

/// Targeting of a segment, open.
pub(crate) struct Postings {
    any: Table,
    none: Table,
    bound: Table,
    ads: u32,
}

impl Postings {
    /// Opens and checks every posting.
    pub(crate) fn open(file: &Container, ads: u32) -> Result<Self, SegmentError> {
        let table = |tags| Table::open(file, tags, ads);
        Ok(Self { any: table(ANY)?, none: table(NONE)?, bound: table(BOUND)?, ads })
    }

    /// The ads whose targeting admits these terms.
    pub(crate) fn admitted(&self, terms: &[Term]) -> Bitset {
        let mut admitted = Bitset::full(self.ads);
        let mut unmet = Bitset::empty(self.ads);
        for (place, key) in self.bound.keys.iter().enumerate() {
            unmet.words_mut().fill(0);
            self.bound.at(place).add_to(&mut unmet);
            for value in values(terms, key[0]) {
                if let Some(asked) = self.any.find([key[0], value]) {
                    asked.remove_from(&mut unmet);
                }
            }
            admitted.subtract(&unmet);
        }
        for term in terms {
            for value in &term.values {
                if let Some(excluded) = self.none.find([term.dimension, *value]) {
                    excluded.remove_from(&mut admitted);
                }
            }
        }
        admitted
    }

    /// Whether the targeting of one ad admits these terms; for explanations.
    pub(crate) fn admits(&self, ad: u32, terms: &[Term]) -> bool {
        let has = |table: &Table, key| table.find(key).is_some_and(|posting| posting.contains(ad));
        let met = self.bound.keys.iter().enumerate().all(|(place, key)| {
            !self.bound.at(place).contains(ad) || values(terms, key[0]).any(|value| has(&self.any, [key[0], value]))
        });
        let excluded = terms.iter().any(|t| t.values.iter().any(|v| has(&self.none, [t.dimension, *v])));
        met && !excluded
    }
}

fn values(terms: &[Term], dimension: u64) -> impl Iterator<Item = u64> + '_ {
    terms.iter().filter(move |t| t.dimension == dimension).flat_map(|t| t.values.iter().copied())
}

impl Table {
    fn open(file: &Container, tags: TableTags, ads: u32) -> Result<Self, SegmentError> {
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

    fn at(&self, place: usize) -> RoaringView<'_> {
        let end = |at: usize| self.ends.get(at).copied().unwrap_or(0) as usize;
        let start = if place == 0 { 0 } else { end(place - 1) };
        RoaringView::new(self.bytes.get(start..end(place)).unwrap_or(&[]))
    }

    fn find(&self, key: Key) -> Option<RoaringView<'_>> {
        self.keys.binary_search(&key).ok().map(|place| self.at(place))
    }
}

/// Collects targeting while a segment is built.
#[derive(Default)]
pub(crate) struct PostingsWriter {
    any: BTreeMap<Key, RoaringBitmap>,
    none: BTreeMap<Key, RoaringBitmap>,
    bound: BTreeMap<Key, RoaringBitmap>,
}

impl PostingsWriter {
    /// Adds the conditions of an ad; ordinals ascend.
    pub(crate) fn push(&mut self, ad: u32, rules: &[DocRule]) {
        for rule in rules {
            for value in &rule.any_of {
                self.any.entry([rule.dimension, *value]).or_default().insert(ad);
            }
            for value in &rule.none_of {
                self.none.entry([rule.dimension, *value]).or_default().insert(ad);
            }
            if !rule.any_of.is_empty() {
                self.bound.entry([rule.dimension, 0]).or_default().insert(ad);
            }
        }
    }

    /// Writes the sections.
    pub(crate) fn write(self, out: &mut Sections) -> Result<(), SegmentError> {
        for (tags, table) in [(ANY, self.any), (NONE, self.none), (BOUND, self.bound)] {
            let (mut ends, mut bytes) = (Vec::new(), Vec::new());
            for posting in table.values() {
                store(posting, &mut bytes).map_err(|e| SegmentError::Refused(format!("posting: {e}")))?;
                ends.push(bytes.len() as u64);
            }
            out.push(tags.keys, &table.keys().copied().collect::<Vec<Key>>());
            out.push(tags.ends, &ends);
            out.push(tags.bytes, &bytes);
        }
        Ok(())
    }
}
