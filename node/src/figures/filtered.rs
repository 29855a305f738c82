//! What does a filter cost, by each way and by the planner's choice?
//!
//! Two kinds of filters for each share: random, where an item passes by the hash of its ordinal, and clustered,
//! where those nearest to some row pass: the filter is then correlated with the vectors, and most queries lie far
//! from all that passes.

use super::{AnnSetup, Dataset, FILTERED_RESULTS, FilteredRow, WayFigures, sealed::Judge};
use crate::pipeline::thread::cpu_us;
use crate::retrieval::{Ask, Found, Method, planner, search};
use crate::segment::{Bitset, ModelFolder, SegmentError};
use gavel_proto::hash::mix64;

/// Filters of each kind and share.
const FILTERS: usize = 4;
/// Times that each way is run; the quickest counts.
pub(super) const TURNS: usize = 3;
/// What a way has to find to be one that the planner could have taken.
const RECALL_MIN: f64 = 0.95;
/// A list longer than this is not walked with for a comparison: it would be most of the run.
const PLAIN_LIST_MAX: usize = 20_000;

pub(super) fn rows(
    model: &ModelFolder,
    data: Dataset<'_>,
    setup: &AnnSetup,
    judge: &Judge,
    share: f64,
) -> Result<Vec<FilteredRow>, SegmentError> {
    let random = |n: usize| {
        let mut allowed = Bitset::empty(model.items());
        let limit = (share * u64::MAX as f64) as u64;
        (0..model.items()).filter(|i| mix64(u64::from(*i) << 8 | n as u64) <= limit).for_each(|i| allowed.insert(i));
        allowed
    };
    let clustered = |n: usize| {
        let rows = data.base.len() / data.dimension;
        let pivot = mix64(n as u64 + 77) as usize % rows;
        let pivot = data.base.get(pivot * data.dimension..(pivot + 1) * data.dimension).unwrap_or(&[]);
        let count = (share * rows as f64).round().max(1.0) as u32;
        let mut allowed = Bitset::empty(model.items());
        judge.nearest(pivot, &Bitset::full(model.items()), count).iter().for_each(|item| allowed.insert(*item));
        allowed
    };
    let kinds: [(&'static str, &dyn Fn(usize) -> Bitset); 2] = [("random", &random), ("clustered", &clustered)];
    kinds.into_iter().map(|(kind, filter)| row(model, data, setup, judge, (share, kind), filter)).collect()
}

/// A query under its filter, and the truth.
struct Case<'a> {
    query: &'a [f32],
    filter: usize,
    truth: Vec<u32>,
}

fn row(
    model: &ModelFolder,
    data: Dataset<'_>,
    setup: &AnnSetup,
    judge: &Judge,
    (share, kind): (f64, &'static str),
    filter: &dyn Fn(usize) -> Bitset,
) -> Result<FilteredRow, SegmentError> {
    let filters: Vec<(Bitset, Ask)> = (0..FILTERS)
        .map(|n| {
            let allowed = filter(n);
            let ask = Ask { eligible: allowed.count(), items: allowed.len(), quota: FILTERED_RESULTS };
            (allowed, ask)
        })
        .collect();
    let cases: Vec<Case<'_>> = data
        .queries
        .chunks_exact(data.dimension)
        .take(setup.filtered_queries)
        .enumerate()
        .map(|(n, query)| {
            let filter = n % FILTERS;
            Case { query, filter, truth: judge.nearest(query, &filters[filter].0, FILTERED_RESULTS) }
        })
        .collect();
    let mut choices = [0; 3];
    let mut estimates = 0.0;
    let run = Run { model, judge, filters: &filters, cases: &cases };
    let list = planner::list(filters[0].1, model.calibration());
    let pass = filters[0].1.eligible as f32 / filters[0].1.items.max(1) as f32;
    let longer = planner::longer(filters[0].1, list, pass);
    let scan = run.way(|_| Method::Scan)?;
    let filtered = run.way(|_| Method::Filtered { list })?;
    let plain = if longer <= PLAIN_LIST_MAX { Some(run.way(|_| Method::Plain { list: longer })?) } else { None };
    let planned = run.planned(&mut |plan| {
        estimates += f64::from(plan.estimate_us());
        if let Some(way) = plan.method.way() {
            choices[way as usize] += 1;
        }
    })?;
    let plans = choices.iter().sum::<usize>().max(1);
    Ok(FilteredRow {
        share,
        kind,
        scan,
        filtered,
        plain,
        planned,
        choices,
        estimate_us: estimates / plans as f64,
        ratio: ratio(planned.us, [Some(scan), Some(filtered), plain]),
    })
}

/// A time against the best of the ways that find enough.
pub(super) fn ratio(us: f64, ways: [Option<WayFigures>; 3]) -> Option<f64> {
    let good = ways.into_iter().flatten().filter(|way| way.recall >= RECALL_MIN).map(|way| way.us);
    good.min_by(f64::total_cmp).map(|best| us / best)
}

struct Run<'a> {
    model: &'a ModelFolder,
    judge: &'a Judge,
    filters: &'a [(Bitset, Ask)],
    cases: &'a [Case<'a>],
}

impl Run<'_> {
    fn way(&self, method: impl Fn(Ask) -> Method) -> Result<WayFigures, SegmentError> {
        self.turns(&mut |case, found| {
            let (allowed, ask) = &self.filters[case.filter];
            search::nearest(self.model, case.query, allowed, (Some(method(*ask)), *ask), (found, cpu_us)).map(drop)
        })
    }

    /// As a request does: plan, search, take note.
    fn planned(&self, seen: &mut dyn FnMut(&planner::Plan)) -> Result<WayFigures, SegmentError> {
        self.turns(&mut |case, found| {
            let (allowed, ask) = &self.filters[case.filter];
            if let Some(plan) = search::nearest(self.model, case.query, allowed, (None, *ask), (found, cpu_us))? {
                seen(&plan);
            }
            Ok(())
        })
    }

    fn turns(
        &self,
        each: &mut dyn FnMut(&Case<'_>, &mut Found) -> Result<(), SegmentError>,
    ) -> Result<WayFigures, SegmentError> {
        let (mut best, mut hits, mut wanted) = (f64::INFINITY, 0, 0);
        let mut found = Found::default();
        for turn in 0..TURNS {
            let mut spent = 0;
            for case in self.cases {
                let start = cpu_us();
                each(case, &mut found)?;
                spent += cpu_us() - start;
                if turn == 0 {
                    hits += self.judge.hits(case.query, found.items(), &case.truth);
                    wanted += case.truth.len();
                }
            }
            best = best.min(spent as f64 / self.cases.len().max(1) as f64);
        }
        Ok(WayFigures { us: best, recall: hits as f64 / wanted.max(1) as f64 })
    }
}
