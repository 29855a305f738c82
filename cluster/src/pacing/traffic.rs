//! How much of a day's or a week's traffic comes until a time?
//!
//! Routers count the requests that they answered by the hour. An hour of the day is expected to be as it was on average
//! over the last week; one that nobody has seen is as the average of those that were. Before anything was seen the traffic
//! passes as the clock does.

use std::collections::BTreeMap;

use gavel_proto::pacing::Forecast;

const HOUR_MS: u64 = 3_600_000;
const HOURS: usize = 24;
/// Hours that are looked back on.
const WEEK: u64 = 7 * 24;

/// What an hour of the day, UTC, brings.
#[derive(Clone, Debug, PartialEq)]
pub struct Traffic([f64; HOURS]);

impl Traffic {
    /// From requests by hours since 1970. The first hour and the one that runs are not whole.
    #[must_use]
    pub fn of(hours: &BTreeMap<u64, u64>, now_ms: u64) -> Self {
        let now = now_ms / HOUR_MS;
        let first = hours.keys().next().copied().unwrap_or(now);
        let mut sums = [(0u64, 0u32); HOURS];
        for hour in (first + 1).max(now.saturating_sub(WEEK))..now {
            let (sum, count) = &mut sums[(hour % HOURS as u64) as usize];
            // An hour without a request was quiet, not unseen.
            *sum = sum.saturating_add(hours.get(&hour).copied().unwrap_or(0));
            *count += 1;
        }
        let mean = |(sum, count): &(u64, u32)| (*count > 0).then(|| *sum as f64 / f64::from(*count));
        let means: Vec<Option<f64>> = sums.iter().map(mean).collect();
        let seen = means.iter().flatten();
        let level = seen.clone().sum::<f64>() / seen.count().max(1) as f64;
        let mut expected = [level; HOURS];
        expected.iter_mut().zip(&means).for_each(|(hour, mean)| *hour = mean.unwrap_or(level));
        Self(expected)
    }

    /// The curve of a period that begins at an instant.
    #[must_use]
    pub fn forecast(&self, start_ms: u64, length_ms: u64) -> Forecast {
        let (first, into) = (start_ms / HOUR_MS, (start_ms % HOUR_MS) as f64 / HOUR_MS as f64);
        let at = |hour: u64| self.0[(hour % HOURS as u64) as usize];
        // Zones may begin their days within an hour: each part is then of two.
        let part = |hour| (at(hour) * (1.0 - into) + at(hour + 1) * into) * 1e3;
        // Not negative and far below the cast's range.
        let counts: Vec<u64> = (first..first + length_ms / HOUR_MS).map(|hour| part(hour) as u64).collect();
        Forecast::new(&counts)
    }
}

/// Curves of periods, made once a round.
#[derive(Debug)]
pub struct Curves {
    traffic: Traffic,
    made: BTreeMap<(u64, u64), Forecast>,
}

impl Curves {
    /// Of this traffic.
    #[must_use]
    pub const fn new(traffic: Traffic) -> Self {
        Self { traffic, made: BTreeMap::new() }
    }

    /// The share of a period's traffic that has come.
    pub fn share(&mut self, (start_ms, length_ms): (u64, u64), now_ms: u64) -> f64 {
        let traffic = &self.traffic;
        let curve = self.made.entry((start_ms, length_ms)).or_insert_with(|| traffic.forecast(start_ms, length_ms));
        curve.share(now_ms.saturating_sub(start_ms) as f64 / length_ms.max(1) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * HOUR_MS;

    #[test]
    fn without_anything_seen_the_clock_is_the_curve() {
        let mut curves = Curves::new(Traffic::of(&BTreeMap::new(), 90 * DAY));
        for (hours, share) in [(0, 0.0), (6, 0.25), (24, 1.0)] {
            let found = curves.share((90 * DAY, DAY), 90 * DAY + hours * HOUR_MS);
            assert!((found - share).abs() < 1e-6, "{hours}: {found}");
        }
    }

    /// Nights bring a third of what days do, for two days; a zone half an hour off begins its day there.
    #[test]
    fn the_curve_is_that_of_the_days_before() {
        let count = |hour: u64| if hour % 24 < 12 { 100 } else { 300 };
        let hours: BTreeMap<u64, u64> = (88 * 24..90 * 24).map(|hour| (hour, count(hour))).collect();
        let mut curves = Curves::new(Traffic::of(&hours, 90 * DAY));
        let noon = curves.share((90 * DAY, DAY), 90 * DAY + 12 * HOUR_MS);
        assert!((noon - 0.25).abs() < 1e-3, "{noon}");
        let half = curves.share((90 * DAY + HOUR_MS / 2, DAY), 90 * DAY + HOUR_MS / 2 + 12 * HOUR_MS);
        assert!((half - (0.25 + 0.5 * 200.0 / 4_800.0)).abs() < 1e-3, "{half}");
        let week = curves.share((90 * DAY, 7 * DAY), 90 * DAY + 84 * HOUR_MS);
        assert!((week - (3.0 + 0.25) / 7.0).abs() < 1e-3, "{week}");
    }

    #[test]
    fn hours_that_nobody_saw_are_like_the_others() {
        let hours: BTreeMap<u64, u64> = [(89 * 24, 7), (89 * 24 + 1, 50), (89 * 24 + 2, 150)].into();
        let Traffic(expected) = Traffic::of(&hours, 89 * DAY + 3 * HOUR_MS);
        assert_eq!((expected[0], expected[1], expected[2], expected[9]), (100.0, 50.0, 150.0, 100.0));
    }
}
