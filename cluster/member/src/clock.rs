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

/// Milliseconds since 1970 by the wall clock; 0 when the clock stands before that.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is where the clock is read")]
pub fn wall_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
