//! Which ads have this number within one of their ranges?
//!
//! Each end of a range is an event at its place in the order of numbers: there its ad changes sides. An ad's
//! ranges are made disjoint first, so the ads within at a number are those that changed an odd number of
//! times up to it, however many ranges each has. Now and then the whole set is stored as a checkpoint: a
//! number costs the checkpoint before it and the events since, which are at most one ad in
//! [`SHARE`]. With as few checkpoints as that, they take at most 2 × SHARE bits an ad.

use super::{
    bitset::Bitset,
    container::{Container, Section, Sections, tag},
    error::SegmentError,
    posting_table::{self, Key, Table, TableTags},
};
use gavel_proto::targeting::Interval;
use roaring::RoaringBitmap;
use std::collections::BTreeMap;

const EVENTS: u64 = tag(b"rng_keys");
const FIRST: u64 = tag(b"rng_frst");
const ADS: u64 = tag(b"rng_ads ");
const CHECKPOINTS: TableTags = TableTags::of(b"chk");
/// A checkpoint once this share of the ads has changed sides: at a million ads 31 thousand single bits are
/// as much work as two passes over the bitmap.
const SHARE: u64 = 32;

/// The ranges of a segment.
pub(crate) struct Ranges {
    /// (dimension, place), ascending.
    events: Section<Key>,
    first: Section<u32>,
    ads: Section<u32>,
    checkpoints: Table,
}

impl Ranges {
    /// Opens and checks.
    pub(crate) fn open(file: &Container, ads: u32) -> Result<Self, SegmentError> {
        let events = file.section::<Key>(EVENTS)?;
        let members = file.section::<u32>(ADS)?;
        let first = file.offsets(FIRST, events.len(), members.len())?;
        if !events.is_sorted_by(|a, b| a < b) || members.iter().any(|ad| *ad >= ads) {
            return Err(file.damaged("ranges out of order"));
        }
        Ok(Self { events, first, ads: members, checkpoints: Table::open(file, CHECKPOINTS, ads)? })
    }

    /// The ads with the number at `place` within a range on this dimension, over `len` ads.
    pub(crate) fn within(&self, dimension: u64, place: u64, len: u32) -> Bitset {
        let mut within = Bitset::empty(len);
        let upto = |keys: &[Key]| keys.partition_point(|key| *key <= [dimension, place]);
        let mut from = self.events.partition_point(|key| *key < [dimension, 0]);
        let checkpoint = upto(self.checkpoints.keys()).checked_sub(1);
        let checkpoint = checkpoint.filter(|at| self.checkpoints.keys().get(*at).is_some_and(|k| k[0] == dimension));
        if let Some(at) = checkpoint {
            self.checkpoints.at(at).add_to(&mut within);
            from = self.checkpoints.keys().get(at).map_or(from, |key| self.events.partition_point(|e| e <= key));
        }
        let offset = |event: usize| self.first.get(event).copied().unwrap_or(0) as usize;
        let changed = self.ads.get(offset(from)..offset(upto(&self.events).max(from))).unwrap_or(&[]);
        let words = within.words_mut();
        for ad in changed {
            if let Some(word) = words.get_mut((ad / 64) as usize) {
                *word ^= 1 << (ad % 64);
            }
        }
        within
    }
}

/// Collects ranges while a segment is built.
#[derive(Default)]
pub(crate) struct RangesWriter {
    events: BTreeMap<Key, Vec<u32>>,
}

impl RangesWriter {
    /// Adds the ranges of an ad on one dimension; ads ascend.
    pub(crate) fn push(&mut self, ad: u32, dimension: u64, ranges: &[Interval]) {
        for Interval { from, to } in disjoint(ranges) {
            self.events.entry([dimension, from]).or_default().push(ad);
            if to < u64::MAX {
                self.events.entry([dimension, to]).or_default().push(ad);
            }
        }
    }

    /// Writes the sections of a segment with so many ads.
    pub(crate) fn write(self, ads: u32, out: &mut Sections) -> Result<(), SegmentError> {
        let (mut first, mut members) = (vec![0u32], Vec::new());
        let mut checkpoints: BTreeMap<Key, RoaringBitmap> = BTreeMap::new();
        let (mut within, mut since, mut dimension) = (RoaringBitmap::new(), 0u64, None);
        for (key, changed) in &self.events {
            if dimension != Some(key[0]) {
                (within, since, dimension) = (RoaringBitmap::new(), 0, Some(key[0]));
            }
            for ad in changed {
                if !within.remove(*ad) {
                    within.insert(*ad);
                }
            }
            since += changed.len() as u64;
            if since * SHARE > u64::from(ads) {
                checkpoints.insert(*key, within.clone());
                since = 0;
            }
            members.extend_from_slice(changed);
            let end = u32::try_from(members.len());
            first.push(end.map_err(|_| SegmentError::Refused("more than 4 billion ends of ranges".into()))?);
        }
        out.push(EVENTS, &self.events.keys().copied().collect::<Vec<Key>>());
        out.push(FIRST, &first);
        out.push(ADS, &members);
        posting_table::write(CHECKPOINTS, &checkpoints, out)
    }
}

/// The same numbers as intervals that neither overlap nor touch.
fn disjoint(ranges: &[Interval]) -> Vec<Interval> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    let mut out: Vec<Interval> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match out.last_mut().filter(|last| range.from <= last.to) {
            Some(last) => last.to = last.to.max(range.to),
            None => out.push(range),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touching_ranges_become_one() {
        let of = |from, to| Interval { from, to };
        assert_eq!(disjoint(&[of(5, 7), of(1, 3), of(3, 4), of(6, 6)]), [of(1, 4), of(5, 7)]);
        assert_eq!(disjoint(&[of(1, u64::MAX), of(2, 3)]), [of(1, u64::MAX)]);
    }
}
