//! What does searching this folder cost, and how long a list does it need?
//!
//! Measured when the folder is sealed, over its own rows, and kept in its manifest, so that the planner
//! works with numbers of this machine and these vectors. Costs are sampled at a few points, because none of
//! them is a constant: a sparse scan waits for memory where a dense one does not, and a walk pays for its
//! start before its list. Between two points the planner goes along a straight line.
//!
//! Queries are halfway between two rows. A point is the median of three rounds, each of some queries: one
//! interruption does not move it.

use super::{
    bitset::Bitset,
    error::SegmentError,
    model_folder::{Asked, Searcher},
    scan::TopK,
    walk::{Through, WalkScratch},
};
use serde::{Deserialize, Serialize};

/// Shares of all items at which a scan is timed, falling.
pub const SCAN_SHARES: [f32; 5] = [1.0, 0.25, 0.0625, 0.015_625, 0.003_906_25];
/// Lists with which a plain walk is timed.
pub const PLAIN_LISTS: [usize; 4] = [64, 256, 1_024, 4_096];
/// Shares that are allowed where a filtered walk is timed, falling.
pub const FILTERED_SHARES: [f32; 5] = [0.5, 0.25, 0.125, 0.0625, 0.031_25];
/// Lists with which it is.
pub const FILTERED_LISTS: [usize; 2] = [64, 512];

/// Rounds of a point.
const ROUNDS: usize = 3;
/// Queries of a round of walks.
const QUERIES: u32 = 8;
/// Comparisons of a round of scans, about: a large folder is scanned by fewer queries.
const COMPARISONS: u32 = 1 << 20;
/// Results that a list is tried for.
const RESULTS: usize = 64;
/// Candidates a result that are tried, and the mean share of the nearest that must be found.
const FACTORS: [f32; 4] = [2.0, 3.0, 4.0, 6.0];
const RECALL: f32 = 0.99;

/// What searching costs on the machine that sealed the folder, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Of looking at 64 ordinals of a bitmap.
    pub word_ns: f32,
    /// Of one comparison in a scan, at [`SCAN_SHARES`].
    pub scan_ns: [f32; SCAN_SHARES.len()],
    /// Of a walk that goes everywhere, at [`PLAIN_LISTS`].
    pub plain_ns: [f32; PLAIN_LISTS.len()],
    /// Of a walk over the allowed, at [`FILTERED_SHARES`], each at [`FILTERED_LISTS`].
    pub filtered_ns: [[f32; FILTERED_LISTS.len()]; FILTERED_SHARES.len()],
    /// Of comparing one find in full precision; 0 without a column of it.
    pub rescore_ns: f32,
    /// Candidates of a list for each result that is wanted.
    pub list_per_result: f32,
}

/// Times searches.
pub(super) fn calibrate(searcher: &Searcher, cpu_us: &dyn Fn() -> u64) -> Result<Calibration, SegmentError> {
    let rows = searcher.rows();
    let mut timer = Timer { searcher, cpu_us, top: TopK::default(), scratch: WalkScratch::default() };
    let mut costs = Calibration { list_per_result: 3.0, ..Calibration::default() };
    if rows == 0 {
        return Ok(costs);
    }
    costs.word_ns = timer.words(rows)?;
    for (share, ns) in SCAN_SHARES.iter().zip(&mut costs.scan_ns) {
        *ns = timer.scan(&sample(rows, *share), costs.word_ns)?;
    }
    let all = Bitset::full(rows);
    for (list, ns) in PLAIN_LISTS.iter().zip(&mut costs.plain_ns) {
        *ns = timer.walk(Through::All(&all), *list)?;
    }
    for (share, points) in FILTERED_SHARES.iter().zip(&mut costs.filtered_ns) {
        let some = sample(rows, *share);
        for (list, ns) in FILTERED_LISTS.iter().zip(points) {
            *ns = timer.walk(Through::Allowed(&some), *list)?;
        }
    }
    costs.rescore_ns = timer.rescore(rows)?;
    costs.list_per_result = timer.list_per_result(&all)?;
    Ok(costs)
}

/// About this share of the items, scattered: by the top bits of a multiplicative hash.
fn sample(rows: u32, share: f32) -> Bitset {
    let mut some = Bitset::empty(rows);
    let limit = (f64::from(share) * f64::from(u32::MAX)) as u32;
    (0..rows).filter(|item| item.wrapping_mul(0x9e37_79b1) <= limit).for_each(|item| some.insert(item));
    some
}

struct Timer<'a> {
    searcher: &'a Searcher,
    cpu_us: &'a dyn Fn() -> u64,
    top: TopK,
    scratch: WalkScratch,
}

impl Timer<'_> {
    /// The median over rounds of the nanoseconds of a query.
    fn rounds(
        &mut self,
        queries: u32,
        mut each: impl FnMut(&mut Self, &[f32]) -> Result<(), SegmentError>,
    ) -> Result<f32, SegmentError> {
        let mut times = [0f32; ROUNDS];
        for (round, time) in (0u32..).zip(&mut times) {
            let vectors: Vec<_> = (0..queries).map(|n| self.searcher.between(round * queries + n)).collect();
            let start = (self.cpu_us)();
            for vector in &vectors {
                each(self, vector)?;
            }
            *time = (self.cpu_us)().saturating_sub(start) as f32 * 1_000.0 / queries as f32;
        }
        times.sort_by(f32::total_cmp);
        Ok(times[ROUNDS / 2])
    }

    fn words(&mut self, rows: u32) -> Result<f32, SegmentError> {
        let none = Bitset::empty(rows);
        let words = rows.div_ceil(64);
        let queries = (COMPARISONS / words).clamp(1, 1_000);
        let scan = |timer: &mut Self, vector: &[f32]| timer.scan_once(vector, &none);
        Ok(self.rounds(queries, scan)? / words as f32)
    }

    fn scan(&mut self, some: &Bitset, word_ns: f32) -> Result<f32, SegmentError> {
        let count = some.count().max(1);
        let queries = (COMPARISONS / count).clamp(1, 100);
        let ns = self.rounds(queries, |timer, vector| timer.scan_once(vector, some))?;
        Ok((ns - word_ns * some.len().div_ceil(64) as f32).max(0.0) / count as f32)
    }

    fn scan_once(&mut self, vector: &[f32], some: &Bitset) -> Result<(), SegmentError> {
        let query = self.searcher.encode(vector);
        self.top.reset(RESULTS);
        self.searcher.scan(Asked { query: &query, allowed: some, bonus: None, expired: &|| false }, &mut self.top);
        Ok(())
    }

    fn walk(&mut self, through: Through<'_>, list: usize) -> Result<f32, SegmentError> {
        self.rounds(QUERIES, |timer, vector| timer.walk_once(vector, through, list, RESULTS))
    }

    fn walk_once(
        &mut self,
        vector: &[f32],
        through: Through<'_>,
        list: usize,
        results: usize,
    ) -> Result<(), SegmentError> {
        let query = self.searcher.encode(vector);
        let (Through::All(allowed) | Through::Allowed(allowed)) = through;
        let asked = Asked { query: &query, allowed, bonus: None, expired: &|| false };
        self.top.reset(results);
        self.searcher.walk(asked, through, list, &mut self.scratch, &mut self.top);
        Ok(())
    }

    fn rescore(&mut self, rows: u32) -> Result<f32, SegmentError> {
        let mut turn = 0u32;
        let ns = self.rounds(QUERIES, |timer, vector| {
            turn += 1;
            let spread = (0..RESULTS as u32).map(|n| (turn * 31 + n).wrapping_mul(0x9e37_79b1) % rows);
            let found: Vec<(f32, u32)> = spread.map(|item| (0.0, item)).collect();
            timer.top.reset(RESULTS);
            timer.searcher.rescore(vector, &found, &mut timer.top);
            Ok(())
        })?;
        Ok(if self.searcher.has_full_rows() { ns / RESULTS as f32 } else { 0.0 })
    }

    /// The shortest list of those tried that finds enough of the nearest.
    fn list_per_result(&mut self, all: &Bitset) -> Result<f32, SegmentError> {
        let queries = (16 * COMPARISONS / all.len().max(1)).clamp(4, 16);
        let vectors: Vec<_> = (0..queries).map(|n| self.searcher.between(1_000 + n)).collect();
        let mut truth = Vec::new();
        for vector in &vectors {
            self.scan_once(vector, all)?;
            truth.push(self.ordinals());
        }
        for factor in FACTORS {
            let (mut hits, mut wanted) = (0, 0);
            for (vector, truth) in vectors.iter().zip(&truth) {
                self.walk_once(vector, Through::All(all), (RESULTS as f32 * factor) as usize, RESULTS)?;
                let found = self.ordinals();
                wanted += truth.len();
                hits += truth.iter().filter(|item| found.binary_search(item).is_ok()).count();
            }
            if hits as f32 >= RECALL * wanted as f32 {
                return Ok(factor);
            }
        }
        Ok(FACTORS[FACTORS.len() - 1])
    }

    fn ordinals(&mut self) -> Vec<u32> {
        let mut items: Vec<u32> = self.top.sorted().iter().map(|(_, item)| *item).collect();
        items.sort_unstable();
        items
    }
}
