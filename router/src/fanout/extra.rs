//! May this request send one call more than it must?
//!
//! Hedges and retries raise the load exactly when a node is slow, so both live from what first sends have paid
//! in: a shard asked pays 5 % of a hedge and 10 % of a retry. The hedge bucket starts empty, which makes
//! "hedges <= 5 % of sends" (FO1) true at every moment and not only in the long run. While nodes shed more than 1 %
//! of what they are asked, there are no hedges at all.

use gavel_proto::deadline::Instant;

/// Parts of one call.
const WHOLE: u64 = 1_000;
/// What a first send pays towards hedges: 5 %.
const HEDGE_SHARE: u64 = WHOLE / 20;
/// What a first send pays towards retries: 10 %.
const RETRY_SHARE: u64 = WHOLE / 10;
/// Calls that can be saved up for a burst, each.
const BURST: u64 = 20 * WHOLE;
/// Share of sheds above which nothing is hedged, in parts of [`WHOLE`].
const SHEDS_MAX: u64 = WHOLE / 100;
/// How much of the past a new answer replaces, as a power of two: about the last 256 answers count.
const SHEDS_MEMORY_BITS: u32 = 8;
/// Retries that time alone grants, so that a quiet router can retry at all: 3 a second.
const RETRIES_PER_SECOND: u64 = 3;

/// The two token buckets, shared by all requests of a router.
#[derive(Clone, Debug)]
pub struct ExtraCalls {
    hedges: u64,
    retries: u64,
    refilled_at: Instant,
    /// Fading share of sheds, in parts of [`WHOLE`] shifted left by the memory.
    sheds: u64,
}

impl ExtraCalls {
    /// Without a hedge, with a second's worth of retries.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self { hedges: 0, retries: RETRIES_PER_SECOND * WHOLE, refilled_at: now, sheds: 0 }
    }

    /// A shard was asked for the first time.
    pub fn sent(&mut self) {
        self.hedges = (self.hedges + HEDGE_SHARE).min(BURST);
        self.retries = (self.retries + RETRY_SHARE).min(BURST);
    }

    /// A shard was answered.
    pub fn answered(&mut self) {
        self.sheds -= self.sheds >> SHEDS_MEMORY_BITS;
    }

    /// A shard was not searched for lack of room.
    pub fn shed(&mut self) {
        self.answered();
        self.sheds += WHOLE;
    }

    /// Takes a hedge, if there is one.
    pub fn take_hedge(&mut self) -> bool {
        (self.sheds >> SHEDS_MEMORY_BITS) <= SHEDS_MAX && take(&mut self.hedges)
    }

    /// Takes a retry, if there is one.
    pub fn take_retry(&mut self, now: Instant) -> bool {
        let elapsed_us = now.0.saturating_sub(self.refilled_at.0);
        // Parts per microsecond, rounded down: the clock moves on only by what was granted.
        let granted = elapsed_us.saturating_mul(RETRIES_PER_SECOND) / 1_000;
        if granted > 0 {
            self.retries = (self.retries + granted).min(BURST);
            self.refilled_at = now;
        }
        take(&mut self.retries)
    }
}

fn take(bucket: &mut u64) -> bool {
    match bucket.checked_sub(WHOLE) {
        Some(rest) => {
            *bucket = rest;
            true
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn hedges_never_exceed_a_twentieth_of_the_sends(steps in proptest::collection::vec(any::<bool>(), 0..3_000)) {
            let mut extra = ExtraCalls::new(Instant(0));
            let (mut sends, mut hedges) = (0u64, 0u64);
            for is_send in steps {
                if is_send {
                    extra.sent();
                    sends += 1;
                } else if extra.take_hedge() {
                    hedges += 1;
                }
                prop_assert!(hedges * 20 <= sends);
            }
        }
    }

    #[test]
    fn sheds_stop_hedges_for_a_while() {
        let mut extra = ExtraCalls::new(Instant(0));
        for _ in 0..1_000 {
            extra.sent();
        }
        assert!(extra.take_hedge());
        for _ in 0..5 {
            extra.shed();
        }
        assert!(!extra.take_hedge());
        for _ in 0..1_000 {
            extra.answered();
        }
        assert!(extra.take_hedge());
    }

    #[test]
    fn a_burst_is_bounded_and_time_grants_retries() {
        let mut extra = ExtraCalls::new(Instant(0));
        for _ in 0..100_000 {
            extra.sent();
        }
        assert_eq!((0..100).filter(|_| extra.take_hedge()).count(), 20);
        assert_eq!((0..100).filter(|_| extra.take_retry(Instant(0))).count(), 20);
        assert!(!extra.take_retry(Instant(300_000)));
        assert!(extra.take_retry(Instant(700_000)));
    }
}
