//! Scan or walk?
//!
//! A scan costs one comparison an eligible item. A walk costs what was measured when the folder was sealed,
//! more for a longer list, and divided by the pass rate: the predicate keeps items out of the result but
//! not out of the way, so the walk goes on until enough of what it passes is eligible. The cheaper one is
//! taken; a walk over few items would find most of them on the way, so below a floor the scan is.

use crate::segment::Calibration;

/// Lists shorter than this lose recall on clustered vectors.
const LIST_MIN: usize = 128;
/// Candidates a result: recall is lost at the end of the list. Over a million distinct items, half of them eligible,
/// two found .94 of the best 200 and three .96.
const LIST_PER_RESULT: usize = 3;
/// Below so many eligible items a list, a walk has nothing to skip.
const ITEMS_PER_LIST: u32 = 4;
/// Below this pass rate the measured model is not to be trusted any more.
const PASS_RATE_MIN: f32 = 0.02;

/// How a request wants its items found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    /// The cheaper way.
    #[default]
    Auto,
    /// Scan every eligible item: the oracle.
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
    /// The graph was walked with a list of this length.
    Walk {
        /// Candidates.
        list: usize,
    },
}

/// A decision and the estimates it rests on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// What is done.
    pub method: Method,
    /// What a scan is expected to cost.
    pub scan_us: f32,
    /// What a walk is expected to cost.
    pub walk_us: f32,
}

/// Plans a search for `quota` of `eligible` among `items`.
#[must_use]
pub fn plan(mode: Mode, eligible: u32, items: u32, quota: u32, costs: Calibration) -> Plan {
    let list = (quota as usize * LIST_PER_RESULT).max(LIST_MIN);
    let pass_rate = eligible as f32 / items.max(1) as f32;
    let longer = list as f32 / Calibration::LIST as f32;
    let scan_us = eligible as f32 * costs.scan_ns / 1_000.0;
    let walk_us = costs.walk_ns * longer / pass_rate.max(f32::MIN_POSITIVE) / 1_000.0;
    let few = (eligible / ITEMS_PER_LIST) as usize <= list || pass_rate < PASS_RATE_MIN;
    let method = match mode {
        _ if eligible == 0 || quota == 0 => Method::Nothing,
        Mode::Graph => Method::Walk { list },
        Mode::Auto if !few && walk_us < scan_us => Method::Walk { list },
        Mode::Exact | Mode::Auto => Method::Scan,
    };
    Plan { method, scan_us, walk_us }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_walk_is_for_many() {
        let costs = Calibration { scan_ns: 10.0, walk_ns: 100_000.0 };
        let method = |eligible| plan(Mode::Auto, eligible, 100_000, 64, costs).method;
        assert_eq!(method(0), Method::Nothing);
        assert_eq!(method(1_000), Method::Scan);
        // 10 ns x 30,000 = 300 us against 150 us / 0.3.
        assert_eq!(method(30_000), Method::Scan);
        assert_eq!(method(40_000), Method::Walk { list: 192 });
        assert_eq!(plan(Mode::Exact, 100_000, 100_000, 64, costs).method, Method::Scan);
        assert_eq!(plan(Mode::Graph, 5, 100_000, 200, costs).method, Method::Walk { list: 600 });
    }
}
