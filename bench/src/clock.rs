//! Which time is it, for measuring alone?

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Time on the wall.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures; nothing decides by it")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// CPU time that this thread has spent, nanoseconds.
pub(crate) fn cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec that the call writes; it reads nothing else of ours.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) } != 0;
    if failed { 0 } else { time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64 }
}

/// Microseconds since this was first asked, on the monotonic clock.
pub(crate) fn monotonic_us() -> u64 {
    static ZERO: OnceLock<Instant> = OnceLock::new();
    let zero = *ZERO.get_or_init(now);
    u64::try_from(zero.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Microseconds since 1970, to find the same moment in logs.
#[expect(clippy::disallowed_methods, reason = "logs of other processes are dated by the wall clock")]
pub(crate) fn wall_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX))
}
