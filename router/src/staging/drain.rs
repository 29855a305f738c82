//! When has the last request left a bundle that no longer gets any?
//!
//! Requests hold what they pinned, so a bundle that went out of the pins is in use until the last of them has ended. All
//! that was ever pinned of one bundle shares one [`Drain`]; its end is the end of the drain.

use gavel_member::clock::now_us;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Lives as long as a request may use the bundle.
#[derive(Debug)]
pub struct Drain {
    version: u64,
    /// When it went out of the pins, microseconds; 0 while it is in them.
    since_us: AtomicU64,
}

impl Drain {
    /// Of a bundle that comes into the pins.
    pub fn new(version: u64) -> Arc<Self> {
        Arc::new(Self { version, since_us: AtomicU64::new(0) })
    }

    /// Of which version.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// From now on no request begins with it.
    pub fn leave(&self) {
        self.since_us.store(now_us().0.max(1), Ordering::Release);
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        let since_us = *self.since_us.get_mut();
        // The process ends with what serves.
        if since_us == 0 {
            return;
        }
        let took_us = now_us().0.saturating_sub(since_us);
        let _span = tracing::info_span!("drain", version = self.version).entered();
        tracing::info!(took_us, "the last request of a bundle has ended");
        metrics::histogram!("gavel_router_drain_us").record(took_us as f64);
    }
}
