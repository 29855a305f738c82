//! How much of what it looks for does the search of live requests find?
//!
//! Kept apart by plan and by the share of items that passed the filter, because a graph that has grown bad under narrow
//! filters does not show in a mean over all. Of each kind the recall of late is an exponential mean over some
//! [`MEMORY`] probes. It raises an alarm when it falls below the threshold, after [`SETTLED`] probes at least, and takes it
//! back when it has risen above it by a margin, so that a mean that lies at the threshold does not ring all day.
//!
//! Pure: who samples and who tells about alarms stands in the pipeline.

use super::Method;

/// Probes that the mean remembers, about.
pub const MEMORY: f32 = 64.0;
/// Probes before there is an alarm: of quotas of a hundred, a mean over so many is right to about .01.
pub const SETTLED: u32 = 16;
/// An alarm is taken back when this much of what was missing below the threshold is found again.
const MARGIN: f32 = 0.25;

/// Share of the items that may be found, in bands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Band(usize);

/// Lower ends of the bands, and the words for them in metrics: percents.
const BANDS: [(f32, &str); 5] = [(0.5, "50-100"), (0.1, "10-50"), (0.02, "2-10"), (0.005, "0.5-2"), (0.0, "0-0.5")];
/// The ways of searching that have a recall to lose, and their words on the wire.
const PLANS: usize = 3;

impl Band {
    /// The band of so many eligible of all.
    #[must_use]
    pub fn of(eligible: u32, items: u32) -> Self {
        let share = eligible as f32 / items.max(1) as f32;
        Self(BANDS.iter().position(|(from, _)| share >= *from).unwrap_or(BANDS.len() - 1))
    }

    /// The percents in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        BANDS.get(self.0).map_or("", |(_, name)| name)
    }
}

/// What one probe changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noted {
    /// Recall of late of this plan and band.
    pub recall: f32,
    /// Whether it is below the threshold.
    pub alarm: bool,
    /// Whether that is new.
    pub turned: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    mean: f32,
    probes: u32,
    alarm: bool,
}

/// Recall of late.
#[derive(Clone, Debug)]
pub struct RecallTable {
    threshold: f32,
    cells: [[Cell; BANDS.len()]; PLANS],
}

impl RecallTable {
    /// Nothing is known yet; below `threshold` there is an alarm.
    #[must_use]
    pub fn new(threshold: f32) -> Self {
        Self { threshold, cells: [[Cell::default(); BANDS.len()]; PLANS] }
    }

    /// Takes note of one probe: of `wanted` items `found` were found. Nothing where nothing was wanted.
    pub fn note(&mut self, method: Method, band: Band, found: u32, wanted: u32) -> Option<Noted> {
        let cell = self.cells.get_mut(method.way()? as usize)?.get_mut(band.0)?;
        if wanted == 0 {
            return None;
        }
        cell.probes = cell.probes.saturating_add(1);
        let seen = found.min(wanted) as f32 / wanted as f32;
        // The plain mean of the first, which would otherwise count for as much as sixty later ones.
        cell.mean += (seen - cell.mean) / (cell.probes as f32).min(MEMORY);
        let limit = if cell.alarm { self.threshold + (1.0 - self.threshold) * MARGIN } else { self.threshold };
        let alarm = cell.probes >= SETTLED && cell.mean < limit;
        let turned = alarm != cell.alarm;
        cell.alarm = alarm;
        Some(Noted { recall: cell.mean, alarm, turned })
    }
}

/// How many of the true ones were found, by what the places of both are by: those at least as good as the last of the
/// true, so that ties count for either.
#[must_use]
pub fn hits(found: &[f32], truth: &[f32]) -> u32 {
    let Some(floor) = truth.last() else { return 0 };
    found.iter().filter(|place| *place >= floor).count().min(truth.len()) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALK: Method = Method::Filtered { list: 64 };

    #[test]
    fn bands_are_shares() {
        let names = [1_000, 500, 499, 100, 99, 20, 19, 5, 4, 0].map(|eligible| Band::of(eligible, 1_000).name());
        let expected = ["50-100", "50-100", "10-50", "10-50", "2-10", "2-10", "0.5-2", "0.5-2", "0-0.5", "0-0.5"];
        assert_eq!(names, expected);
        assert_eq!(Band::of(0, 0).name(), "0-0.5");
    }

    #[test]
    fn an_alarm_rings_once_and_ends_once() {
        let mut table = RecallTable::new(0.9);
        let band = Band::of(10, 100);
        let mut turns = Vec::new();
        for found in [100; 100].into_iter().chain([50; 100]).chain([100; 300]) {
            let noted = table.note(WALK, band, found, 100).unwrap();
            if noted.turned {
                turns.push((noted.alarm, (0.9..0.93).contains(&noted.recall)));
            }
        }
        assert_eq!(turns, [(true, false), (false, true)]);
        assert!(table.note(WALK, band, 0, 0).is_none() && table.note(Method::Nothing, band, 1, 1).is_none());
    }

    #[test]
    fn plans_and_bands_do_not_speak_for_each_other() {
        let mut table = RecallTable::new(0.9);
        for _ in 0..SETTLED {
            table.note(WALK, Band::of(1, 100), 10, 100);
        }
        assert!(table.note(WALK, Band::of(1, 100), 10, 100).unwrap().alarm);
        assert_eq!(table.note(WALK, Band::of(90, 100), 99, 100).unwrap().recall, 0.99);
        assert_eq!(table.note(Method::Scan, Band::of(1, 100), 100, 100).unwrap().recall, 1.0);
    }

    #[test]
    fn a_few_probes_ring_nothing() {
        let mut table = RecallTable::new(0.9);
        let rings = |table: &mut RecallTable| table.note(WALK, Band::of(1, 1), 0, 10).unwrap().alarm;
        assert!((1..SETTLED).all(|_| !rings(&mut table)) && rings(&mut table));
    }

    #[test]
    fn ties_count_for_either() {
        let truth = [3.0, 2.0, 1.0];
        assert_eq!(hits(&[3.0, 1.0, 1.0, 0.5], &truth), 3);
        assert_eq!(hits(&[3.0, 0.5], &truth), 1);
        assert_eq!((hits(&[], &truth), hits(&truth, &[])), (0, 0));
    }
}
