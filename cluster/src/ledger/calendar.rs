//! To which day, week or life of a campaign does an instant belong?
//!
//! Budgets begin anew at midnight, and on Monday, in the campaign's zone. The zone comes as a table of offsets, written
//! by whoever set the budget, so that no voter needs a database of zones and all of them agree.

use gavel_proto::limits::ZONE_OFFSETS_MAX;

const MS_A_DAY: i64 = 86_400_000;
/// 1970-01-01 was a Thursday: three days after a Monday.
const DAYS_SINCE_MONDAY: i64 = 3;
/// No zone is farther from UTC.
const OFFSET_S_MAX: i32 = 15 * 3_600;

/// Over which time a budget counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Span {
    /// A day of the campaign's zone.
    Day,
    /// A week from Monday.
    Week,
    /// As long as the campaign lives.
    Lifetime,
}

impl Span {
    /// Every span, in the order of their numbers on the wire, 1 to 3.
    pub const ALL: [Self; 3] = [Self::Day, Self::Week, Self::Lifetime];
}

/// One day, week or life: what an account is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period {
    /// Its length.
    pub span: Span,
    /// Days since 1970, weeks since the Monday before it; 0 for a life.
    pub number: i64,
}

impl Period {
    /// The instant, milliseconds of UTC, after which the period is over in every zone; `None` for a life.
    #[must_use]
    pub fn over_ms(&self) -> Option<i64> {
        let days = match self.span {
            Span::Day => self.number + 1,
            Span::Week => (self.number + 1) * 7 - DAYS_SINCE_MONDAY,
            Span::Lifetime => return None,
        };
        Some(days * MS_A_DAY + i64::from(OFFSET_S_MAX) * 1_000)
    }
}

/// A time zone as a table: from each instant on, seconds east of UTC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone(Vec<(i64, i32)>);

impl Zone {
    /// A zone of (unix seconds, offset), ascending; empty is UTC. `None` when it is out of order or beyond the limits.
    #[must_use]
    pub fn new(offsets: Vec<(i64, i32)>) -> Option<Self> {
        let ascending = offsets.windows(2).all(|w| w[0].0 < w[1].0);
        let possible = offsets.iter().all(|(_, offset)| offset.abs() <= OFFSET_S_MAX);
        (ascending && possible && offsets.len() <= ZONE_OFFSETS_MAX).then_some(Self(offsets))
    }

    /// The table.
    #[must_use]
    pub fn offsets(&self) -> &[(i64, i32)] {
        &self.0
    }

    /// The period of a span in which an instant, milliseconds of UTC, lies.
    #[must_use]
    pub fn period(&self, span: Span, ms: u64) -> Period {
        let day = self.local_ms(ms).div_euclid(MS_A_DAY);
        let number = match span {
            Span::Day => day,
            Span::Week => (day + DAYS_SINCE_MONDAY).div_euclid(7),
            Span::Lifetime => 0,
        };
        Period { span, number }
    }

    /// How much of the period of an instant has passed, and how long it is by the offset that holds then; `None` for a
    /// life. A day on which clocks change is an hour longer or shorter.
    #[must_use]
    pub fn elapsed_ms(&self, span: Span, ms: u64) -> Option<(u64, u64)> {
        let local = self.local_ms(ms);
        let (length, since) = match span {
            Span::Day => (MS_A_DAY, 0),
            Span::Week => (7 * MS_A_DAY, DAYS_SINCE_MONDAY * MS_A_DAY),
            Span::Lifetime => return None,
        };
        let elapsed = (local + since).rem_euclid(length);
        Some((elapsed.unsigned_abs(), length.unsigned_abs()))
    }

    /// Milliseconds of the zone's own clock.
    fn local_ms(&self, ms: u64) -> i64 {
        let ms = i64::try_from(ms).unwrap_or(i64::MAX / 2);
        let at = self.0.partition_point(|(start, _)| start.saturating_mul(1_000) <= ms);
        let offset = self.0.get(at.saturating_sub(1)).map_or(0, |(_, offset)| i64::from(*offset));
        ms + offset * 1_000
    }
}
