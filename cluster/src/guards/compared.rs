//! What did a shadow show, in the sentence that its history keeps?
//!
//! The figures of a rollout go with the rollout. What a shadow was made for is its comparison, so the sum of what was
//! heard of it is said in words when it ends, and an operator finds it beside the version afterwards.

use super::{Shadow, Windows};
use crate::state::types::Rollout;

impl Windows {
    /// All windows of a shadow that are still remembered, added up.
    #[must_use]
    pub fn compared(&self, rollout: &Rollout) -> Shadow {
        let mut sum = Shadow::default();
        self.0.iter().filter(|(_, w)| w.version == rollout.version).for_each(|(_, w)| sum.add(&w.shadow));
        sum
    }
}

/// A comparison: means a request, and the candidate as a multiple of the active bundle; 0 where nothing was seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compared {
    /// Mean of Spearman's coefficient.
    pub rank_correlation: f64,
    /// Sum of predictions.
    pub prediction_ratio: f64,
    /// Sum of the winners' expected revenue.
    pub revenue_ratio: f64,
    /// What the active ranker takes for a request's candidates.
    pub active_rank_ms: f64,
    /// What the candidate's takes for the same.
    pub candidate_rank_ms: f64,
}

impl Shadow {
    /// The sums as an operator reads them.
    #[must_use]
    pub fn figures(&self) -> Compared {
        let times = |before: f64, found: f64| if before > 0.0 { found / before } else { 0.0 };
        let each = |sum: f64| sum / self.requests.max(1) as f64;
        Compared {
            rank_correlation: each(self.rank_correlation_sum),
            prediction_ratio: times(self.active_prediction_sum, self.candidate_prediction_sum),
            revenue_ratio: times(self.active_revenue_sum, self.candidate_revenue_sum),
            active_rank_ms: each(self.active_rank_us as f64 / 1e3),
            candidate_rank_ms: each(self.candidate_rank_us as f64 / 1e3),
        }
    }

    /// The comparison in words, for the history and for whoever watches.
    #[must_use]
    pub fn in_words(&self) -> String {
        let Compared { rank_correlation, prediction_ratio, revenue_ratio, active_rank_ms, candidate_rank_ms } =
            self.figures();
        format!(
            "{} requests compared, {} not scored: rank correlation {rank_correlation:.4}, predictions \
             {prediction_ratio:.3} times, expected revenue {revenue_ratio:.3} times, ranker's time \
             {candidate_rank_ms:.2} ms against {active_rank_ms:.2} ms",
            self.requests, self.failed,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_is_said_in_multiples_of_what_serves() {
        let shadow = Shadow {
            requests: 4,
            failed: 1,
            candidates: 100,
            rank_correlation_sum: 3.8,
            active_prediction_sum: 2.0,
            candidate_prediction_sum: 3.0,
            active_revenue_sum: 10.0,
            candidate_revenue_sum: 9.0,
            active_rank_us: 4_000,
            candidate_rank_us: 6_000,
        };
        let words = shadow.in_words();
        for figure in ["4 requests", "1 not scored", "0.9500", "1.500 times", "0.900 times", "1.50 ms against 1.00 ms"]
        {
            assert!(words.contains(figure), "{figure}: {words}");
        }
        assert!(Shadow::default().in_words().contains("0 requests"), "nothing is divided by nothing");
    }
}
