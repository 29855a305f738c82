//! How much of a core may staging take once there is something to serve?
//!
//! A stated share: after each piece of work the thread rests until what it has computed is no more than the share of
//! the time that has passed. The scheduler's priority alone would not do: beside searches that leave a core idle now
//! and then, a low priority still fills every gap, and the next search finds caches and memory busy.

use std::time::Duration;

use gavel_member::{Shutdown, clock};
use gavel_proto::deadline::Instant;

/// The longest rest without a look at the shutdown.
const REST_MAX: Duration = Duration::from_millis(100);

/// The CPU time of the calling thread in microseconds.
pub type CpuClock = fn() -> u64;

/// Keeps one thread to its share.
pub struct Pace {
    share: f64,
    cpu_us: CpuClock,
    since: Option<(Instant, u64)>,
}

impl Pace {
    /// A pace that is not kept yet.
    #[must_use]
    pub const fn new(share: f64, cpu_us: CpuClock) -> Self {
        Self { share, cpu_us, since: None }
    }

    /// From now on the share is kept; what was computed before does not count.
    pub fn begin(&mut self) {
        self.since = Some((clock::now_us(), (self.cpu_us)()));
    }

    /// Rests until the share is kept, or the process stops.
    pub fn rest(&mut self, shutdown: &Shutdown) {
        let Some((since, cpu)) = self.since else { return };
        let due = since.0 + due_us((self.cpu_us)().saturating_sub(cpu), self.share);
        loop {
            let left = Duration::from_micros(due.saturating_sub(clock::now_us().0));
            if left.is_zero() || shutdown.is_triggered() {
                break;
            }
            std::thread::sleep(left.min(REST_MAX));
        }
        self.begin();
    }
}

/// How long a thread that has computed for so long has to have taken.
fn due_us(cpu_us: u64, share: f64) -> u64 {
    // A share is above 0 and at most 1.
    (cpu_us as f64 / share.clamp(0.01, 1.0)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_takes_four_times_as_long() {
        assert_eq!((due_us(1_000, 0.25), due_us(1_000, 1.0), due_us(0, 0.25)), (4_000, 1_000, 0));
        assert_eq!(due_us(1_000, 0.0), 100_000, "a share of nothing would never end");
    }

    #[test]
    fn a_thread_rests_until_its_share_is_kept() {
        thread_local!(static CPU: std::cell::Cell<u64> = const { std::cell::Cell::new(0) });
        let mut pace = Pace::new(0.5, || CPU.get());
        let shutdown = Shutdown::new();
        pace.rest(&shutdown);
        pace.begin();
        let from = clock::now_us();
        CPU.set(5_000);
        pace.rest(&shutdown);
        assert!(clock::now_us().0 - from.0 >= 10_000);
    }
}
