//! When does this process have to stop?
//!
//! One signal, cloned into every task. Once triggered it stays triggered, so a task that asks late still stops.

use std::sync::Arc;
use tokio::sync::watch;

/// A wish to stop, shared by everything in the process.
#[derive(Clone, Debug)]
pub struct Shutdown {
    wish: Arc<watch::Sender<bool>>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// A signal that nobody has given yet.
    #[must_use]
    pub fn new() -> Self {
        Self { wish: Arc::new(watch::Sender::new(false)) }
    }

    /// Asks everything to stop.
    pub fn trigger(&self) {
        self.wish.send_replace(true);
    }

    /// True once somebody has asked.
    #[must_use]
    pub fn is_triggered(&self) -> bool {
        *self.wish.borrow()
    }

    /// Returns once somebody has asked.
    pub async fn wait(&self) {
        let mut seen = self.wish.subscribe();
        // The sender lives as long as `self`, so this ends only by the wish.
        let _ = seen.wait_for(|stop| *stop).await;
    }

    /// Triggers on SIGINT or SIGTERM. Call it inside the runtime.
    pub fn on_signals(&self) {
        let this = self.clone();
        tokio::spawn(async move {
            let Ok(mut term) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) else {
                tracing::warn!("SIGTERM cannot be watched");
                return;
            };
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = term.recv() => {}
            }
            this.trigger();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_late_listener_still_stops() {
        let shutdown = Shutdown::new();
        assert!(!shutdown.is_triggered());
        shutdown.clone().trigger();
        shutdown.wait().await;
        assert!(shutdown.is_triggered());
    }
}
