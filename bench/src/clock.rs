//! Which time is it, for measuring alone?

use std::time::Instant;

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
