//! What time is it?
//!
//! The only place that reads a clock: kernels get the time as an argument, shells ask here. Monotonic
//! microseconds count from the first call in this process, so they mean nothing to another process.

use gavel_proto::deadline::Instant;
use std::sync::OnceLock;

/// Microseconds of this process's monotonic clock.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is where the clock is read")]
pub fn now_us() -> Instant {
    static ZERO: OnceLock<std::time::Instant> = OnceLock::new();
    let zero = *ZERO.get_or_init(std::time::Instant::now);
    Instant(u64::try_from(zero.elapsed().as_micros()).unwrap_or(u64::MAX))
}

/// Milliseconds since the machine started, the time that it slept included: what a lease is counted in, because a
/// router that was suspended must not spend what the ledger took back meanwhile. 0 where the system has no such clock.
#[must_use]
pub fn boot_ms() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a local value of the type that the call writes.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    if failed != 0 {
        return 0;
    }
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}

/// Milliseconds since 1970 by the wall clock; 0 when the clock stands before that.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is where the clock is read")]
pub fn wall_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
