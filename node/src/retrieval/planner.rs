//! Scan, walk among the allowed, or walk everywhere and keep the allowed?
//!
//! * A **scan** compares every eligible item: a fixed cost for the bitmap, and one for each item that rises
//!   as they get sparse, because memory is then waited for.
//! * A **filtered** walk goes to eligible items only, across the others where it must. It costs about the same
//!   at every pass rate at which it works at all.
//! * A **plain** walk goes everywhere with a list so much longer that enough of it is eligible: the list is
//!   divided by the pass rate. At high pass rates it saves looking at neighbours of neighbours.
//!
//! Both walks depend on how the eligible lie, not only on how many they are: around the query for the plain one,
//! around each other for the filtered one. Where a scan is not cheap anyway some neighbourhoods are looked
//! at first ([`Density`]); a filter that has nothing to do with the vectors has its pass rate in both places.
//!
//! Costs come from the folder's [`Calibration`], and each way's are multiplied by what this shard's searches
//! have taken of late against what was expected of them ([`Observed`]). The cheapest way that is to be trusted
//! is taken: a walk over few items finds most of them on the way, so below a floor a scan is the choice.

use crate::segment::{
    Calibration, Density, Observed, Way,
    calibrate::{FILTERED_LISTS, FILTERED_SHARES, PLAIN_LISTS, SCAN_SHARES},
};

/// Lists shorter than this lose recall on clustered vectors.
const LIST_MIN: usize = 64;
/// Below so many eligible items a list, a walk has nothing to skip.
const ITEMS_PER_LIST: u32 = 3;
/// Below this pass rate a walk among the allowed loses touch: sixteen of a node's thousand neighbours of
/// neighbours are allowed.
const FILTERED_PASS_MIN: f32 = 0.015;
/// Below this pass rate a list that is to hold enough eligible items is a large part of a graph.
const PLAIN_PASS_MIN: f32 = 0.05;
/// Scans that are expected to be quicker than this are not worth a look at the graph.
const LOOK_NS: f32 = 30_000.0;
/// What is compared again in full precision: twice the results and some.
const RESCORED_PER_RESULT: u32 = 2;
const RESCORED_MORE: u32 = 16;

/// How a request wants its items found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    /// The cheapest way.
    #[default]
    Auto,
    /// Scan every eligible item, in full precision where there is such a column: the oracle.
    Exact,
    /// Walk the graph, for measuring.
    Graph,
}

/// How the items were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Nothing is eligible.
    Nothing,
    /// Every eligible item was compared.
    Scan,
    /// The graph was walked among the eligible with a list of this length.
    Filtered {
        /// Candidates.
        list: usize,
    },
    /// The graph was walked everywhere with a list of this length, and the eligible were kept.
    Plain {
        /// Candidates.
        list: usize,
    },
}

impl Method {
    /// The way whose costs it has.
    #[must_use]
    pub const fn way(self) -> Option<Way> {
        match self {
            Self::Nothing => None,
            Self::Scan => Some(Way::Scan),
            Self::Filtered { .. } => Some(Way::Filtered),
            Self::Plain { .. } => Some(Way::Plain),
        }
    }

    /// True when the graph is used.
    #[must_use]
    pub const fn is_walk(self) -> bool {
        matches!(self, Self::Filtered { .. } | Self::Plain { .. })
    }
}

/// What is asked of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Eligible items.
    pub eligible: u32,
    /// Of so many.
    pub items: u32,
    /// Items wanted.
    pub quota: u32,
}

/// A decision and the estimates it rests on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// What is done.
    pub method: Method,
    /// What each way was expected to cost, as observed of late: scan, filtered, plain.
    pub estimates_us: [f32; 3],
    /// What the calibration alone said of the method that is taken.
    pub calibrated_us: f32,
}

impl Plan {
    /// What the method that is taken is expected to cost.
    #[must_use]
    pub fn estimate_us(&self) -> f32 {
        self.method.way().map_or(0.0, |way| self.estimates_us[way as usize])
    }
}

/// Finds to be compared again for so many results.
#[must_use]
pub const fn rescored(quota: u32) -> u32 {
    quota.saturating_mul(RESCORED_PER_RESULT).saturating_add(RESCORED_MORE)
}

/// Nanoseconds of a scan.
fn scan_ns(ask: Ask, costs: &Calibration) -> f32 {
    ask.items.div_ceil(64) as f32 * costs.word_ns
        + ask.eligible as f32 * along(pass_rate(ask), &SCAN_SHARES.map(f32::ln), &costs.scan_ns, f32::ln)
}

fn pass_rate(ask: Ask) -> f32 {
    ask.eligible as f32 / ask.items.max(1) as f32
}

/// Nanoseconds of the quickest walk there could be for this list, however the eligible lie.
fn walk_floor_ns(list: usize, costs: &Calibration) -> f32 {
    let plain = along(list as f32, &PLAIN_LISTS.map(|l| l as f32), &costs.plain_ns, |x| x);
    let filtered =
        costs.filtered_ns.map(|points| along(list as f32, &FILTERED_LISTS.map(|l| l as f32), &points, |x| x));
    filtered.into_iter().fold(plain, f32::min)
}

/// Whether the answer could be a walk under a filter, so that [`Density`] is worth looking at.
#[must_use]
pub fn worth_a_look(mode: Mode, ask: Ask, costs: &Calibration) -> bool {
    let list = list(ask, costs);
    let filtered = ask.eligible < ask.items && ask.eligible / ITEMS_PER_LIST >= list as u32;
    // Ratios of what was observed are within a factor of three, but seldom of two apart.
    filtered && mode != Mode::Exact && scan_ns(ask, costs) > (walk_floor_ns(list, costs) / 2.0).max(LOOK_NS)
}

/// Plans a search.
#[must_use]
pub fn plan(mode: Mode, ask: Ask, density: Option<Density>, costs: &Calibration, observed: Observed) -> Plan {
    let pass = pass_rate(ask);
    let Density { around_query, among_allowed } =
        density.unwrap_or(Density { around_query: pass, among_allowed: pass });
    let list = list(ask, costs);
    let longer = longer(ask, list, around_query);
    let again = if costs.rescore_ns > 0.0 { rescored(ask.quota) as f32 * costs.rescore_ns } else { 0.0 };
    let scan = scan_ns(ask, costs);
    let by_list = costs.filtered_ns.map(|points| along(list as f32, &FILTERED_LISTS.map(|l| l as f32), &points, |x| x));
    let filtered = along(among_allowed, &FILTERED_SHARES.map(f32::ln), &by_list, f32::ln);
    let plain = along(longer as f32, &PLAIN_LISTS.map(|l| l as f32), &costs.plain_ns, |x| x);
    let calibrated = [scan, filtered, plain].map(|ns| (ns.max(0.0) + again) / 1_000.0);
    let estimates_us = observed.corrected(calibrated);
    let ways = [Method::Scan, Method::Filtered { list }, Method::Plain { list: longer }];
    let many = ask.eligible / ITEMS_PER_LIST >= list as u32;
    let trusted = [true, many && among_allowed >= FILTERED_PASS_MIN, many && around_query >= PLAIN_PASS_MIN];
    let cheapest = |open: [bool; 3]| {
        let candidates = ways.into_iter().zip(estimates_us).zip(open).filter(|(_, open)| *open);
        candidates.min_by(|((_, a), _), ((_, b), _)| a.total_cmp(b)).map_or(Method::Scan, |((method, _), _)| method)
    };
    let method = match mode {
        _ if ask.eligible == 0 || ask.quota == 0 => Method::Nothing,
        Mode::Exact => Method::Scan,
        Mode::Auto => cheapest(trusted),
        Mode::Graph => cheapest([false, true, around_query >= PLAIN_PASS_MIN]),
    };
    let calibrated_us = method.way().map_or(0.0, |way| calibrated[way as usize]);
    Plan { method, estimates_us, calibrated_us }
}

/// Candidates that hold as many eligible ones, where this share is.
pub(crate) fn longer(ask: Ask, list: usize, share: f32) -> usize {
    ((list as f32 / share.max(f32::MIN_POSITIVE)) as usize).min(ask.items as usize).max(list)
}

/// Candidates for a quota.
pub(crate) fn list(ask: Ask, costs: &Calibration) -> usize {
    let results = (ask.quota as f32 * costs.list_per_result) as usize;
    let again = if costs.rescore_ns > 0.0 { rescored(ask.quota) as usize } else { 0 };
    results.max(again).max(LIST_MIN)
}

/// The value at `x` between points at `scale(x)` rising or falling; level or straight on beyond their ends.
fn along(x: f32, points: &[f32], values: &[f32], scale: impl Fn(f32) -> f32) -> f32 {
    let x = scale(x.max(f32::MIN_POSITIVE));
    let rising = points.first() < points.last();
    let pairs = || points.windows(2).zip(values.windows(2));
    let inside = |ends: &[f32]| if rising { x <= ends[1] } else { x >= ends[1] };
    let chosen = pairs().find(|(ends, _)| inside(ends)).or_else(|| pairs().next_back());
    let Some((&[from, to], &[start, end])) =
        chosen.and_then(|(e, v)| Some((<&[f32; 2]>::try_from(e).ok()?, <&[f32; 2]>::try_from(v).ok()?)))
    else {
        return values.first().copied().unwrap_or(0.0);
    };
    let share = (x - from) / (to - from);
    // A list that is longer than all that were timed goes on costing; a share beyond both ends does not.
    let share = if rising { share } else { share.clamp(0.0, 1.0) };
    (start + (end - start) * share).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs() -> Calibration {
        Calibration {
            word_ns: 1.0,
            scan_ns: [5.0, 6.0, 8.0, 12.0, 20.0],
            plain_ns: [20_000.0, 60_000.0, 220_000.0, 900_000.0],
            filtered_ns: [[40_000.0, 240_000.0]; 5],
            rescore_ns: 0.0,
            list_per_result: 2.0,
        }
    }

    fn method(mode: Mode, eligible: u32, observed: Observed) -> Method {
        plan(mode, Ask { eligible, items: 100_000, quota: 64 }, None, &costs(), observed).method
    }

    #[test]
    fn each_way_has_its_share() {
        let method = |mode, eligible| method(mode, eligible, Observed::default());
        assert_eq!(method(Mode::Auto, 0), Method::Nothing);
        assert_eq!(method(Mode::Auto, 1_000), Method::Scan);
        assert_eq!(method(Mode::Auto, 8_000), Method::Scan);
        assert_eq!(method(Mode::Auto, 20_000), Method::Filtered { list: 128 });
        assert_eq!(method(Mode::Auto, 100_000), Method::Plain { list: 128 });
        assert_eq!(method(Mode::Exact, 100_000), Method::Scan);
        assert_eq!(method(Mode::Graph, 5), Method::Filtered { list: 128 });
    }

    #[test]
    fn how_the_eligible_lie_decides_between_walks() {
        let ask = Ask { eligible: 20_000, items: 100_000, quota: 64 };
        assert!(worth_a_look(Mode::Auto, ask, &costs()) && !worth_a_look(Mode::Exact, ask, &costs()));
        assert!(!worth_a_look(Mode::Auto, Ask { eligible: 1_000, ..ask }, &costs()));
        let method = |around_query, among_allowed| {
            let density = Some(Density { around_query, among_allowed });
            plan(Mode::Auto, ask, density, &costs(), Observed::default()).method
        };
        assert_eq!(method(1.0, 1.0), Method::Plain { list: 128 });
        assert_eq!(method(0.0, 0.9), Method::Filtered { list: 128 });
        assert_eq!(method(0.0, 0.001), Method::Scan);
    }

    #[test]
    fn what_is_observed_moves_the_choice_and_wears_off() {
        let mut observed = Observed::default();
        for _ in 0..50 {
            observed = observed.with(Way::Filtered, 100.0, 1_000.0);
        }
        assert_eq!(method(Mode::Auto, 20_000, observed), Method::Scan);
        for _ in 0..2_000 {
            observed = observed.with(Way::Scan, 100.0, 100.0);
        }
        assert_eq!(method(Mode::Auto, 20_000, observed), Method::Filtered { list: 128 });
    }

    #[test]
    fn costs_go_along_straight_lines() {
        let points = PLAIN_LISTS.map(|l| l as f32);
        let at = |list: f32| along(list, &points, &costs().plain_ns, |x| x);
        assert_eq!((at(64.0), at(256.0), at(160.0)), (20_000.0, 60_000.0, 40_000.0));
        assert!(at(8_192.0) > 1_700_000.0 && at(1.0) >= 0.0);
        let share = |share: f32| along(share, &SCAN_SHARES.map(f32::ln), &costs().scan_ns, f32::ln);
        assert_eq!((share(1.0), share(0.25), share(0.000_01)), (5.0, 6.0, 20.0));
        assert!((share(0.5) - 5.5).abs() < 1e-3);
    }
}
