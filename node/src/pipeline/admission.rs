//! Is there still time to search this?
//!
//! A search that will miss its deadline in the queue costs the ones behind it their deadlines too. So a
//! part is let in only when what waits before it, at the recent cost of a part, leaves it time to run.
//! The recent cost is an exponential average: one slow search does not close the door.

use std::sync::atomic::{AtomicU64, Ordering};

/// The newest cost counts an eighth: a change of load shows within some ten searches.
const NEWEST_SHARE: u64 = 8;

/// The recent cost of a part of a search.
#[derive(Debug, Default)]
pub struct Admission {
    cost_us: AtomicU64,
}

/// There is no time to search: shed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoTime {
    /// What it would take, queue included.
    pub needed_us: u64,
    /// What is left.
    pub left_us: u64,
}

impl Admission {
    /// Lets a part in that arrives behind `queued` parts for `threads` threads.
    ///
    /// # Errors
    /// [`NoTime`] when it would end after its deadline.
    pub fn admit(&self, queued: usize, threads: usize, left_us: u64) -> Result<(), NoTime> {
        let cost = self.cost_us.load(Ordering::Relaxed);
        let rounds = if queued == 0 { 0 } else { 1 + queued as u64 / threads.max(1) as u64 };
        let needed_us = cost.saturating_mul(rounds);
        if needed_us > left_us || left_us == 0 { Err(NoTime { needed_us, left_us }) } else { Ok(()) }
    }

    /// Learns what a part took.
    pub fn learn(&self, took_us: u64) {
        // A lost update between two threads loses one sample of an average.
        let before = self.cost_us.load(Ordering::Relaxed);
        let after = if before == 0 { took_us } else { before - before / NEWEST_SHARE + took_us / NEWEST_SHARE };
        self.cost_us.store(after, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_eats_the_deadline_is_not_joined() {
        let admission = Admission::default();
        assert_eq!(admission.admit(1_000, 1, 1), Ok(()), "nothing is known yet");
        admission.learn(1_000);
        assert_eq!(admission.admit(3, 2, 2_000), Ok(()));
        assert_eq!(admission.admit(4, 2, 2_000), Err(NoTime { needed_us: 3_000, left_us: 2_000 }));
        assert!(admission.admit(0, 2, 0).is_err());
        assert_eq!(admission.admit(0, 2, 1), Ok(()), "or a bad cost would never be unlearned");
        for _ in 0..100 {
            admission.learn(10);
        }
        assert_eq!(admission.admit(4, 2, 100), Ok(()));
    }
}
