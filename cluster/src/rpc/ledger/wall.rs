//! Which wall time may a leader write into the ledger?
//!
//! Wall time opens days and weeks and never goes back, so a leader whose clock is wrong by a day would hand out
//! tomorrow's budgets for good. Within its term a leader's wall clock is held against its own boot clock, which nobody
//! sets: a step forward is not followed. When it begins to lead, the ledger's time is minutes old at most, unless the
//! whole cluster was away: a larger gap is believed once a majority of the voters' clocks agree. Until then wall time
//! stands, leases go on by interval time, and an ERROR says which clock to look at.

use gavel_proto::deadline::Instant;

/// A clock that is set by more than this in one go has been wrong, before or after.
const STEP_MS: u64 = 5_000;
/// An idle leader writes every ten seconds, and an election takes a few: a gap of more than this needs a reason.
const GAP_MS: u64 = 60_000;
/// Clocks that differ by no more agree.
const AGREE_MS: u64 = 30_000;

/// The wall time of one leader.
#[derive(Debug, Default)]
pub struct Wall {
    term: u64,
    /// What both clocks said when they last agreed.
    at: Instant,
    wall_ms: u64,
    /// The gap since the leader before is small, or others agree.
    believed: bool,
}

impl Wall {
    /// What a leader of `term` may say, whose clocks say `now` and `own_ms`, to a ledger that stands at `ledger_ms`.
    pub fn claim(&mut self, term: u64, (now, own_ms): (Instant, u64), ledger_ms: u64) -> u64 {
        if self.term != term {
            *self = Self { term, at: now, wall_ms: own_ms, believed: false };
        }
        let passed = self.wall_ms.saturating_add(now.0.saturating_sub(self.at.0) / 1_000);
        let own_ms = if own_ms > passed.saturating_add(STEP_MS) {
            passed
        } else {
            // A clock that is corrected a little, or set back, is followed: the ledger's time does not go back.
            (self.at, self.wall_ms) = (now, own_ms);
            own_ms
        };
        self.believed |= ledger_ms == 0 || own_ms <= ledger_ms.saturating_add(GAP_MS);
        if self.believed { own_ms } else { ledger_ms }
    }

    /// Whether other voters should be asked what time it is.
    pub const fn needs_witnesses(&self) -> bool {
        self.term != 0 && !self.believed
    }

    /// What the others' clocks say, of `voters` in all; whether they are believed now.
    pub fn witness(&mut self, own_ms: u64, others_ms: &[u64], voters: usize) -> bool {
        let agree = 1 + others_ms.iter().filter(|other| other.abs_diff(own_ms) <= AGREE_MS).count();
        self.believed |= agree * 2 > voters;
        self.believed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 86_400_000;

    fn at(ms: u64) -> Instant {
        Instant(ms * 1_000)
    }

    /// It opened the next day, for good.
    #[test]
    fn a_clock_that_is_set_forward_is_not_followed() {
        let mut wall = Wall::default();
        let base = 100 * DAY_MS;
        assert_eq!(wall.claim(3, (at(10), base), base - 12_000), base);
        assert_eq!(wall.claim(3, (at(1_010), base + 1_000), base), base + 1_000);
        assert_eq!(wall.claim(3, (at(2_010), base + 2_000 + DAY_MS), base + 1_000), base + 2_000, "a step of a day");
        assert_eq!(wall.claim(3, (at(60_010), base + 60_000 + DAY_MS), base + 2_000), base + 60_000);
        assert_eq!(wall.claim(3, (at(61_010), base + 61_040), base + 60_000), base + 61_040, "set right again");
        // A clock that drifts is never a step.
        let mut drifting = base + 61_040;
        for second in 62..4_000 {
            drifting += 1_010;
            assert_eq!(wall.claim(3, (at(second * 1_000 + 10), drifting), drifting - 1_010), drifting);
        }
        // One that is set back moves nothing: the ledger takes the larger.
        assert_eq!(wall.claim(3, (at(4_000_010), base), drifting), base);
    }

    #[test]
    fn a_leader_that_begins_far_ahead_needs_others_who_agree() {
        let (mut wall, base) = (Wall::default(), 100 * DAY_MS);
        assert_eq!(wall.claim(1, (at(5), base), 0), base, "the first entry ever");
        assert!(!wall.needs_witnesses());
        let ahead = base + DAY_MS;
        assert_eq!(wall.claim(2, (at(10), ahead), base), base, "time stands");
        assert!(wall.needs_witnesses());
        assert!(!wall.witness(ahead, &[base + 1_000, base + 900], 3), "this clock is the wrong one");
        assert_eq!(wall.claim(2, (at(20), ahead + 10), base), base);
        // The whole cluster was away for a day.
        assert!(wall.witness(ahead, &[ahead + 2_000], 3), "two of three");
        assert_eq!(wall.claim(2, (at(30), ahead + 20), base), ahead + 20);
        assert!(Wall::default().witness(ahead, &[], 1), "a lone voter has nobody to ask");
    }
}
