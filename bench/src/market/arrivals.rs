//! Who comes when?

use super::world::World;
use super::{Days, MarketArgs};
use crate::workload::Seeded;
use gavel_proto::pacing::Forecast;

/// Milliseconds of a day.
pub const DAY_MS: u64 = 86_400_000;
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
        Self { all, forecast: Forecast::new(&counts) }
    }

    /// Days from the first visit to the last.
    pub fn days(&self) -> u64 {
        self.all.last().map_or(1, |last| last.at_ms / DAY_MS + 1)
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
