//! Who comes when?

use super::world::World;
use super::{Days, MarketArgs};
use crate::workload::Seeded;
use gavel_proto::pacing::Forecast;

/// Milliseconds of a day.
pub const DAY_MS: u64 = 86_400_000;
/// Days of a week, over which the recorded budgets are.
pub const WEEK: u64 = 7;
const HOURS: usize = 24;
const HOUR_MS: u64 = DAY_MS / HOURS as u64;
const HOUR_S: u64 = HOUR_MS / 1_000;

/// One visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrival {
    /// Since the first midnight.
    pub at_ms: u64,
    pub household: u64,
    pub store: u32,
}

/// All visits in order, with what is expected of a day.
pub struct Arrivals {
    pub all: Vec<Arrival>,
    /// The hourly curve of the recorded visits: what pacing expects of every day.
    pub forecast: Forecast,
    /// Days of a budget: the market day's are a day's, the panel's a week's, as they were recorded.
    pub period_days: u64,
    /// Budgets' periods that are played, whole ones.
    pub periods: u64,
}

impl Arrivals {
    /// The visits that the arguments ask for.
    pub fn draw(args: &MarketArgs, world: &World) -> Self {
        let mut by_hour: Vec<Vec<(u64, u32)>> = vec![Vec::new(); HOURS];
        for (ts, household, store) in &world.visits {
            by_hour[(ts / HOUR_S) as usize % HOURS].push((*household, *store));
        }
        let counts: Vec<u64> = by_hour.iter().map(|visits| visits.len() as u64).collect();
        let mut all = match args.days {
            Days::Panel => panel(world),
            Days::Market => day(args, &by_hour, world.visits.len() as u64),
        };
        all.sort_unstable();
        let period_days = period_days(args.days);
        let days = all.last().map_or(1, |last| last.at_ms / DAY_MS + 1);
        let periods = (days / period_days).max(1);
        // What comes after the last whole period has no budget of its own.
        all.retain(|arrival| arrival.at_ms < periods * period_days * DAY_MS);
        Self { all, forecast: Forecast::new(&counts), period_days, periods }
    }

    /// The budget's period of an instant.
    pub const fn period(&self, at_ms: u64) -> u64 {
        at_ms / (self.period_days * DAY_MS)
    }

    /// Milliseconds of everything that is played.
    pub const fn length_ms(&self) -> u64 {
        self.periods * self.period_days * DAY_MS
    }

    /// The share of its period's traffic that has come at an instant; every day is expected to be alike.
    pub fn share(&self, at_ms: u64) -> f64 {
        let days = (at_ms / DAY_MS % self.period_days) as f64;
        (days + self.forecast.share((at_ms % DAY_MS) as f64 / DAY_MS as f64)) / self.period_days as f64
    }

    /// What should be spent at an instant, as a share of all budgets.
    pub fn target(&self, at_ms: u64) -> f64 {
        if at_ms >= self.length_ms() {
            return 1.0;
        }
        (self.period(at_ms) as f64 + self.share(at_ms)) / self.periods as f64
    }
}

/// Days of a budget.
pub const fn period_days(days: Days) -> u64 {
    match days {
        Days::Market => 1,
        Days::Panel => WEEK,
    }
}

fn panel(world: &World) -> Vec<Arrival> {
    let first = world.visits.iter().map(|(ts, _, _)| ts * 1_000 / DAY_MS * DAY_MS).min().unwrap_or(0);
    let one = |(ts, household, store): &(u64, u64, u32)| Arrival {
        at_ms: ts * 1_000 - first,
        household: *household,
        store: *store,
    };
    world.visits.iter().map(one).collect()
}

/// Each hour has its share; its visits are drawn from the recorded ones of that hour, at uniform times.
fn day(args: &MarketArgs, by_hour: &[Vec<(u64, u32)>], recorded: u64) -> Vec<Arrival> {
    let mut random = Seeded::new(args.seed);
    let mut all = Vec::with_capacity(args.arrivals as usize);
    for (hour, visits) in (0..).zip(by_hour) {
        let count = args.arrivals * visits.len() as u64 / recorded.max(1);
        for _ in 0..count {
            let (household, store) = visits[(random.next_u64() % visits.len() as u64) as usize];
            all.push(Arrival { at_ms: hour * HOUR_MS + random.next_u64() % HOUR_MS, household, store });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_week_is_seven_days_alike() {
        let mut counts = [1u64; HOURS];
        counts[12] = 25;
        let forecast = Forecast::new(&counts);
        let arrivals = Arrivals { all: Vec::new(), forecast, period_days: WEEK, periods: 2 };
        let near = |found: f64, wanted: f64| assert!((found - wanted).abs() < 1e-4, "{found} for {wanted}");
        near(arrivals.share(0), 0.0);
        near(arrivals.share(2 * DAY_MS + DAY_MS / 2), (2.0 + 0.25) / 7.0);
        near(arrivals.target(9 * DAY_MS), 9.0 / 14.0);
        near(arrivals.target(14 * DAY_MS), 1.0);
        assert_eq!([arrivals.period(7 * DAY_MS - 1), arrivals.period(7 * DAY_MS)], [0, 1]);
    }
}
