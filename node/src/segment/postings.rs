//! Which ads may be shown for this request?
//!
//! For each (dimension, value) the ads that ask for it and the ads that exclude it; for each dimension the
//! ads that ask for anything on it, be it values or ranges; for each advertiser and category the ads that a
//! request takes out by it. An ad is out when it is constrained on a dimension and the request states
//! neither a value that it asks for nor a number within its ranges there, when it excludes a stated value,
//! when it is closed at this hour, or when it is blocked.
//!
//! The algebra goes over the ads in chunks of 65,536, one bitmap of 8 KiB each, which stays in the first
//! cache from the first condition to the last: a condition costs one pass there, and the count is exact.
//! Evaluating each distinct expression once and expanding to its ads was weighed and left: what it saves on
//! conditions it loses on single bits as soon as a tenth of the ads is eligible.

use super::{
    bitset::Bitset,
    container::{Container, Sections},
    document::{DocAd, DocRule},
    error::SegmentError,
    posting_table::{self, Key, Table, TableTags},
    ranges::{Ranges, RangesWriter},
    roaring_view::{CHUNK_WORDS, ChunkWords, Cursor},
    schedules::{DocZone, Schedules, SchedulesWriter},
};
use roaring::RoaringBitmap;
use std::{collections::BTreeMap, sync::Arc};

/// What a request states of one dimension, hashed.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Term {
    /// The dimension.
    pub dimension: u64,
    /// Its values.
    pub values: Vec<u64>,
    /// The place of its number in the order of numbers (`gavel_proto::targeting::order`).
    pub number: Option<u64>,
}

/// What a request says to the targeting of ads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stated<'a> {
    /// By dimension.
    pub terms: &'a [Term],
    /// The request's time.
    pub unix_s: i64,
}

/// The condition of an ad that a request does not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmet {
    /// It asks for something on this dimension, of which the request states nothing.
    Unstated(u64),
    /// It asks for other values or ranges than the request states.
    Other(u64),
    /// It excludes a stated value.
    Excluded(u64),
    /// It is closed at this hour of the week in this zone.
    Closed {
        /// Place among the names of the zones.
        zone: u32,
        /// 0 is Monday at midnight.
        hour: u8,
    },
}

const ANY: TableTags = TableTags::of(b"any");
const NONE: TableTags = TableTags::of(b"non");
/// Keys are (dimension, 0).
const BOUND: TableTags = TableTags::of(b"bnd");
/// Keys are (advertiser, 0).
const ADVERTISER: TableTags = TableTags::of(b"adv");
/// Keys are (category, 0).
const CATEGORY: TableTags = TableTags::of(b"cat");

/// Targeting of a segment, open.
pub(crate) struct Postings {
    any: Table,
    none: Table,
    bound: Table,
    advertiser: Table,
    category: Table,
    ranges: Ranges,
    schedules: Schedules,
    ads: u32,
}

/// Everything that takes ads out under one request.
struct Sweep<'a> {
    conditions: Vec<Condition<'a>>,
    /// Ads that are out whatever else they ask for.
    out: Vec<Cursor<'a>>,
    closed: Option<Arc<Bitset>>,
}

/// The conditions of one dimension under one request.
struct Condition<'a> {
    bound: Cursor<'a>,
    met: Vec<Cursor<'a>>,
    within: Option<Bitset>,
}

impl Postings {
    /// Opens and checks every posting.
    pub(crate) fn open(file: &Container, ads: u32) -> Result<Self, SegmentError> {
        let table = |tags| Table::open(file, tags, ads);
        Ok(Self {
            any: table(ANY)?,
            none: table(NONE)?,
            bound: table(BOUND)?,
            advertiser: table(ADVERTISER)?,
            category: table(CATEGORY)?,
            ranges: Ranges::open(file, ads)?,
            schedules: Schedules::open(file, ads)?,
            ads,
        })
    }

    /// The ads whose targeting admits the request and that are of none of these advertisers and categories.
    pub(crate) fn admitted(&self, stated: &Stated<'_>, advertisers: &[u64], categories: &[u64]) -> Bitset {
        let places = 0..self.bound.keys().len();
        let excluded = stated.terms.iter().flat_map(|t| t.values.iter().map(|v| [t.dimension, *v]));
        let mut out: Vec<Cursor<'_>> = excluded.filter_map(|key| self.none.find(key)).map(Cursor::new).collect();
        out.extend(advertisers.iter().filter_map(|id| self.advertiser.find([*id, 0])).map(Cursor::new));
        out.extend(categories.iter().filter_map(|hash| self.category.find([*hash, 0])).map(Cursor::new));
        let closed = (!self.schedules.is_empty()).then(|| self.schedules.closed(stated.unix_s));
        let conditions = places.map(|at| self.condition(at, stated)).collect();
        let mut admitted = Bitset::full(self.ads);
        Sweep { conditions, out, closed }.run(admitted.words_mut());
        admitted
    }

    fn condition<'a>(&'a self, place: usize, stated: &Stated<'_>) -> Condition<'a> {
        let dimension = self.bound.keys().get(place).map_or(0, |key| key[0]);
        let terms = || stated.terms.iter().filter(|term| term.dimension == dimension);
        let values = terms().flat_map(|term| &term.values);
        let met = values.filter_map(|value| self.any.find([dimension, *value])).map(Cursor::new).collect();
        let number = terms().find_map(|term| term.number);
        let within = number.map(|place| self.ranges.within(dimension, place, self.ads));
        Condition { bound: Cursor::new(self.bound.at(place)), met, within }
    }

    /// The first condition of an ad that the request does not meet; `None` when it is admitted. For
    /// explanations: one ad at a time.
    pub(crate) fn unmet(&self, ad: u32, stated: &Stated<'_>) -> Option<Unmet> {
        let has = |table: &Table, key| table.find(key).is_some_and(|posting| posting.contains(ad));
        for (place, [dimension, _]) in self.bound.keys().iter().copied().enumerate() {
            let terms = || stated.terms.iter().filter(move |term| term.dimension == dimension);
            if !self.bound.at(place).contains(ad) {
                continue;
            }
            if terms().all(|term| term.values.is_empty() && term.number.is_none()) {
                return Some(Unmet::Unstated(dimension));
            }
            let any = terms().flat_map(|term| &term.values).any(|value| has(&self.any, [dimension, *value]));
            let within = |place| self.ranges.within(dimension, place, self.ads).contains(ad);
            if !any && !terms().find_map(|term| term.number).is_some_and(within) {
                return Some(Unmet::Other(dimension));
            }
        }
        let excludes = |term: &&Term| term.values.iter().any(|value| has(&self.none, [term.dimension, *value]));
        if let Some(term) = stated.terms.iter().find(excludes) {
            return Some(Unmet::Excluded(term.dimension));
        }
        self.schedules.closed_at(ad, stated.unix_s).map(|(zone, hour)| Unmet::Closed { zone, hour })
    }

    /// The offsets of a time zone.
    pub(crate) fn zone_offsets(&self, zone: usize) -> Vec<(i64, i32)> {
        self.schedules.offsets(zone)
    }

    /// Bytes that are kept in our own memory.
    pub(crate) fn owned_bytes(&self) -> u64 {
        self.schedules.owned_bytes()
    }
}

impl Sweep<'_> {
    /// Takes the ads out, with the widest registers that there are.
    fn run(&mut self, words: &mut [u64]) {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has the instructions.
            return unsafe { self.run_wide(words) };
        }
        self.run_plain(words);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn run_wide(&mut self, words: &mut [u64]) {
        self.run_plain(words);
    }

    /// Inlined with all that it calls, so that both forms are compiled from it.
    #[inline(always)]
    fn run_plain(&mut self, all: &mut [u64]) {
        let (mut here, mut unmet): (ChunkWords, ChunkWords) = ([0; CHUNK_WORDS], [0; CHUNK_WORDS]);
        for (high, words) in (0u16..).zip(all.chunks_mut(CHUNK_WORDS)) {
            here[..words.len()].copy_from_slice(words);
            for condition in &mut self.conditions {
                condition.apply(high, &mut here, &mut unmet);
            }
            for cursor in &mut self.out {
                if let Some(chunk) = cursor.chunk(high) {
                    chunk.remove_from(&mut here);
                }
            }
            if let Some(closed) = &self.closed {
                subtract(&mut here, chunk_of(closed, high));
            }
            words.copy_from_slice(&here[..words.len()]);
        }
    }
}

impl Condition<'_> {
    /// Takes the ads of a chunk out that do not meet it.
    #[inline(always)]
    fn apply(&mut self, high: u16, here: &mut ChunkWords, unmet: &mut ChunkWords) {
        let Some(bound) = self.bound.chunk(high) else { return };
        if self.met.is_empty() && self.within.is_none() {
            return bound.remove_from(here);
        }
        bound.copy_to(unmet);
        for cursor in &mut self.met {
            if let Some(chunk) = cursor.chunk(high) {
                chunk.remove_from(unmet);
            }
        }
        if let Some(within) = &self.within {
            subtract(unmet, chunk_of(within, high));
        }
        subtract(here, unmet);
    }
}

fn chunk_of(set: &Bitset, high: u16) -> &[u64] {
    let start = usize::from(high) * CHUNK_WORDS;
    set.words().get(start..set.words().len().min(start + CHUNK_WORDS)).unwrap_or(&[])
}

#[inline(always)]
fn subtract(words: &mut ChunkWords, out: &[u64]) {
    words.iter_mut().zip(out).for_each(|(word, out)| *word &= !out);
}

/// Collects targeting while a segment is built.
#[derive(Default)]
pub(crate) struct PostingsWriter {
    any: BTreeMap<Key, RoaringBitmap>,
    none: BTreeMap<Key, RoaringBitmap>,
    bound: BTreeMap<Key, RoaringBitmap>,
    ranges: RangesWriter,
    schedules: SchedulesWriter,
}

impl PostingsWriter {
    /// Makes a time zone known, before the ads that name it.
    pub(crate) fn zone(&mut self, zone: DocZone) -> Result<(), SegmentError> {
        self.schedules.zone(zone)
    }

    /// Adds the conditions of an ad; ordinals ascend.
    pub(crate) fn push(&mut self, ordinal: u32, ad: &DocAd) -> Result<(), SegmentError> {
        for rule in &ad.targeting {
            for value in &rule.any_of {
                self.any.entry([rule.dimension, *value]).or_default().insert(ordinal);
            }
            for value in &rule.none_of {
                self.none.entry([rule.dimension, *value]).or_default().insert(ordinal);
            }
            if !rule.any_of.is_empty() || !rule.ranges.is_empty() {
                self.bound.entry([rule.dimension, 0]).or_default().insert(ordinal);
            }
        }
        self.push_ranges(ordinal, &ad.targeting);
        ad.schedule.iter().try_for_each(|schedule| self.schedules.push(ordinal, schedule))
    }

    /// Rules on one dimension are taken together.
    fn push_ranges(&mut self, ordinal: u32, rules: &[DocRule]) {
        let mut with_ranges: Vec<u64> = rules.iter().filter(|r| !r.ranges.is_empty()).map(|r| r.dimension).collect();
        with_ranges.sort_unstable();
        with_ranges.dedup();
        for dimension in with_ranges {
            let ranges = rules.iter().filter(|rule| rule.dimension == dimension).flat_map(|rule| &rule.ranges);
            self.ranges.push(ordinal, dimension, &ranges.copied().collect::<Vec<_>>());
        }
    }

    /// Writes the sections of a segment with so many ads; `advertisers` and `categories` are the ads of each.
    /// Gives the names of the time zones.
    pub(crate) fn write(
        self,
        ads: u32,
        advertisers: &BTreeMap<Key, RoaringBitmap>,
        categories: &BTreeMap<Key, RoaringBitmap>,
        out: &mut Sections,
    ) -> Result<Vec<String>, SegmentError> {
        let tables = [
            (ANY, &self.any),
            (NONE, &self.none),
            (BOUND, &self.bound),
            (ADVERTISER, advertisers),
            (CATEGORY, categories),
        ];
        tables.into_iter().try_for_each(|(tags, postings)| posting_table::write(tags, postings, out))?;
        self.ranges.write(ads, out)?;
        Ok(self.schedules.write(out))
    }
}
