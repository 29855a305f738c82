//! How long may this hop take?
//!
//! A deadline is a point on the caller's monotonic clock in microseconds; kernels get the time as an
//! argument. Every hop keeps a reserve for its own work, so each deadline is strictly smaller than its
//! caller's (RQ2).

use crate::limits::{DEADLINE_MS_DEFAULT, DEADLINE_MS_MAX, DEADLINE_MS_MIN};

/// Microseconds of a monotonic clock whose zero is the process's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(pub u64);

/// The point after which an answer is worthless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(pub Instant);

impl Deadline {
    /// The deadline of a request that arrived `now` and asked for `deadline_ms` (0 = the default).
    /// `None` when the wish is outside the legal range.
    #[must_use]
    pub fn of_request(now: Instant, deadline_ms: u64) -> Option<Self> {
        let ms = if deadline_ms == 0 { DEADLINE_MS_DEFAULT } else { deadline_ms };
        (DEADLINE_MS_MIN..=DEADLINE_MS_MAX).contains(&ms).then(|| Self(Instant(now.0 + ms * 1_000)))
    }

    /// Microseconds left; 0 once it has passed.
    #[must_use]
    pub const fn left_us(self, now: Instant) -> u64 {
        self.0.0.saturating_sub(now.0)
    }

    /// True once nothing is left.
    #[must_use]
    pub const fn passed(self, now: Instant) -> bool {
        self.left_us(now) == 0
    }

    /// What the shards get of it: all but max(10 %, 5 ms) for merge, auction and the way back.
    #[must_use]
    pub fn for_shards(self, now: Instant) -> Option<u64> {
        let left = self.left_us(now);
        let reserve = (left / 10).max(5_000);
        (left > reserve).then(|| left - reserve)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_always_gets_less_than_the_router() {
        for ms in DEADLINE_MS_MIN..=DEADLINE_MS_MAX {
            let d = Deadline::of_request(Instant(7), ms).expect("legal");
            let left = d.for_shards(Instant(7)).expect("positive");
            assert!(left < d.left_us(Instant(7)));
        }
        assert_eq!(Deadline::of_request(Instant(0), 501), None);
        assert_eq!(Deadline::of_request(Instant(0), 3), None);
        let d = Deadline::of_request(Instant(0), 10).expect("legal");
        assert_eq!(d.for_shards(Instant(6_000)), None);
    }
}
