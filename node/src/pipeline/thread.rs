//! What does the system know of this thread: its CPU time and its priority?
//!
//! Wall time on a shared machine says how long a search waited; the figure that capacity is planned with is
//! the thread's own CPU time. Staging runs for minutes beside the searches, so its thread steps back.

pub use gavel_member::thread::lower_priority;

/// Microseconds of CPU time of the calling thread; 0 where the system does not say.
#[must_use]
pub fn cpu_us() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid, writable timespec for the length of the call.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    if failed != 0 {
        return 0;
    }
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000
}

#[cfg(test)]
mod tests {
    #[test]
    fn work_takes_cpu_time() {
        let before = super::cpu_us();
        let sum = (0..3_000_000u64).fold(0u64, |sum, n| std::hint::black_box(sum.rotate_left(3) ^ n));
        std::hint::black_box(sum);
        assert!(super::cpu_us() > before);
    }
}
