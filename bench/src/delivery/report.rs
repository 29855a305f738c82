//! What came of the changes, for people and for programs?

use serde::Serialize;
use std::fmt::Write as _;
use std::path::Path;

/// What is promised of a change: in force everywhere after so long, but for one in a hundred (docs/campaigns.md).
const IN_FORCE_P99_MS_MAX: f64 = 200.0;

/// One run, in numbers.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Changes made.
    pub changes: u64,
    /// Pauses that were resumed again.
    pub pauses: u64,
    /// Changes that were not in force everywhere within the wait.
    pub not_in_force: u64,
    /// Milliseconds from the commit until every live router and node used it, as the leader heard it.
    pub in_force_ms: Spread,
    /// Milliseconds from sending the wish to that answer: commit included.
    pub answered_ms: Spread,
    /// Milliseconds from sending a pause to the last request that began then and still had the campaign in its auction.
    pub last_seen_ms: Spread,
    /// Requests answered.
    pub requests: u64,
    /// Requests that failed.
    pub failed_requests: u64,
    /// Answers below full coverage.
    pub partial_answers: u64,
    /// Clearings read from the routers' logs.
    pub clearings: u64,
    /// Lines of them that could not be read.
    pub unreadable: u64,
    /// Clearings of requests that began after a pause was in force and ended before it was resumed.
    pub checked: u64,
    /// Of these, with a candidate of the paused campaign: it could have set a price.
    pub paused_candidates: u64,
    /// Of these, with a winner of the paused campaign.
    pub paused_winners: u64,
}

/// Median, 99 in a hundred, and most.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Spread {
    /// Half are below.
    pub p50: f64,
    /// All but one in a hundred are below.
    pub p99: f64,
    /// None is above.
    pub max: f64,
}

/// The spread of microseconds, in milliseconds.
pub fn spread(us: &mut [u64]) -> Spread {
    us.sort_unstable();
    let at = |share: f64| {
        let rank = (share * us.len() as f64).ceil() as usize;
        us.get(rank.saturating_sub(1)).map_or(0.0, |us| *us as f64 / 1e3)
    };
    Spread { p50: at(0.5), p99: at(0.99), max: at(1.0) }
}

impl Report {
    /// Every promise was kept, and something was looked at.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        let in_time = self.not_in_force == 0 && self.in_force_ms.p99 <= IN_FORCE_P99_MS_MAX;
        in_time && self.paused_candidates == 0 && self.checked > 0 && self.unreadable == 0
    }

    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "{name:<58}{value:>24}");
        };
        let ms = |s: Spread| format!("{:.1} / {:.1} / {:.1}", s.p50, s.p99, s.max);
        line("changes, of which pauses", format!("{} / {}", self.changes, self.pauses));
        line("not in force in time", self.not_in_force.to_string());
        line("commit to in force everywhere, ms p50 / p99 / max", ms(self.in_force_ms));
        line("sent to in force everywhere, ms p50 / p99 / max", ms(self.answered_ms));
        line("pause sent to last auction with it, ms p50 / p99 / max", ms(self.last_seen_ms));
        line(
            "requests / failed / partial",
            format!("{} / {} / {}", self.requests, self.failed_requests, self.partial_answers),
        );
        line("clearings read / unreadable", format!("{} / {}", self.clearings, self.unreadable));
        line("of them while something was paused", self.checked.to_string());
        line(
            "with a candidate / a winner of what was paused",
            format!("{} / {}", self.paused_candidates, self.paused_winners),
        );
        text
    }

    /// For programs.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        std::fs::write(path, serde_json::to_string_pretty(self).map_err(std::io::Error::other)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_of_what_there_is() {
        let mut us: Vec<u64> = (1..=100).map(|ms| ms * 1_000).collect();
        let Spread { p50, p99, max } = spread(&mut us);
        assert_eq!((p50, p99, max), (50.0, 99.0, 100.0));
        assert_eq!(spread(&mut []).max, 0.0);
        let kept = Report { checked: 1, ..Report::default() };
        assert!(kept.is_kept() && !Report::default().is_kept());
        assert!(!Report { paused_candidates: 1, ..kept.clone() }.is_kept());
        assert!(!Report { in_force_ms: Spread { p99: 201.0, ..Spread::default() }, ..kept }.is_kept());
    }
}
