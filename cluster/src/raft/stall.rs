//! Does the disk still answer?
//!
//! A write that hangs does not fail, so nobody would hear of it: a leader would keep its place and acknowledge
//! nothing by itself. The writer's thread says since when it has been writing, and another thread asks here what
//! follows from that.

use std::sync::atomic::{AtomicU64, Ordering};

use gavel_proto::deadline::Instant;

/// A write that takes longer: somebody else should lead (reliability F13).
const STEP_DOWN_US: u64 = 5_000_000;
/// A write that takes longer does not come back: a supervisor, or another machine, has better luck.
const EXIT_US: u64 = 20_000_000;

const _: () = assert!(STEP_DOWN_US < EXIT_US, "the others elect while this one still answers");

/// Since when a write runs.
#[derive(Debug, Default)]
pub struct WriteClock {
    /// Microseconds, one more than the clock's; 0 for none.
    since: AtomicU64,
}

/// What to do about a write that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Nothing.
    Go,
    /// Lead nobody until it ends.
    StepDown,
    /// End the process.
    Exit,
}

impl WriteClock {
    /// A write begins.
    pub fn begin(&self, now: Instant) {
        self.since.store(now.0 + 1, Ordering::Relaxed);
    }

    /// It has ended.
    pub fn end(&self) {
        self.since.store(0, Ordering::Relaxed);
    }

    /// What to do now.
    #[must_use]
    pub fn advice(&self, now: Instant) -> Advice {
        let ran = match self.since.load(Ordering::Relaxed) {
            0 => 0,
            since => (now.0 + 1).saturating_sub(since),
        };
        match ran {
            0..STEP_DOWN_US => Advice::Go,
            STEP_DOWN_US..EXIT_US => Advice::StepDown,
            EXIT_US.. => Advice::Exit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_hangs_costs_the_lead_and_then_the_process() {
        let writes = WriteClock::default();
        let at = |seconds: u64| Instant(seconds * 1_000_000);
        assert_eq!(writes.advice(at(100)), Advice::Go, "nothing runs");
        writes.begin(at(100));
        let advised = [104, 105, 119, 120].map(|seconds| writes.advice(at(seconds)));
        assert_eq!(advised, [Advice::Go, Advice::StepDown, Advice::StepDown, Advice::Exit]);
        writes.end();
        assert_eq!(writes.advice(at(200)), Advice::Go);
    }
}
