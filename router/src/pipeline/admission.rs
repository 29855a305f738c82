//! Is there room for one more request?
//!
//! A bound on requests in flight, and a lower one on those that scan every ad (explaining, probing), so that they can
//! never crowd out the others. A request that finds no room is refused at once, so the newest is shed and those
//! that wait already are not made later. Close to the bound late calls are no longer hedged: more calls would make
//! the overload worse.

use crate::fanout::Hedging;
use crate::request::RequestError;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// Explained requests and probes at a time: each keeps a search thread of every shard for as long as it may.
const SCANS_MAX: usize = 2;

/// Bounds the requests in flight.
#[derive(Debug)]
pub struct Gate {
    room: Arc<Semaphore>,
    bound: usize,
    scans: Semaphore,
}

/// A request that is in; leaves when dropped.
#[derive(Debug)]
pub struct Admitted {
    _permit: OwnedSemaphorePermit,
    hedging: Hedging,
}

impl Gate {
    /// Room for so many requests at once.
    #[must_use]
    pub fn new(bound: usize) -> Self {
        let bound = bound.clamp(1, Semaphore::MAX_PERMITS);
        Self { room: Arc::new(Semaphore::new(bound)), bound, scans: Semaphore::new(SCANS_MAX) }
    }

    /// Lets a request in that scans every ad; it enters like any other as well.
    ///
    /// # Errors
    /// [`RequestError::Full`] without room.
    pub fn enter_scan(&self) -> Result<SemaphorePermit<'_>, RequestError> {
        self.scans.try_acquire().map_err(|_| RequestError::Full("explained requests and probes"))
    }

    /// Lets a request in.
    ///
    /// # Errors
    /// [`RequestError::Full`] without room.
    pub fn enter(&self) -> Result<Admitted, RequestError> {
        let permit =
            Arc::clone(&self.room).try_acquire_owned().map_err(|_| RequestError::Full("requests in flight"))?;
        let free = self.room.available_permits();
        metrics::gauge!("gavel_router_in_flight").set((self.bound - free.min(self.bound)) as f64);
        // Less than a tenth left counts as saturated.
        let hedging = if free * 10 < self.bound { Hedging::Off } else { Hedging::On };
        Ok(Admitted { _permit: permit, hedging })
    }
}

impl Admitted {
    /// Whether this request's late calls may be hedged.
    #[must_use]
    pub const fn hedging(&self) -> Hedging {
        self.hedging
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_shed_and_hedges_stop_before() {
        let gate = Gate::new(20);
        let mut inside: Vec<Admitted> = (0..20).map(|_| gate.enter().expect("room")).collect();
        assert_eq!(inside[0].hedging(), Hedging::On);
        assert_eq!(inside[19].hedging(), Hedging::Off);
        assert_eq!(gate.enter().expect_err("full"), RequestError::Full("requests in flight"));
        inside.pop();
        assert!(gate.enter().is_ok());
        let scans: Vec<_> = (0..SCANS_MAX).map(|_| gate.enter_scan().expect("room")).collect();
        assert!(gate.enter_scan().is_err() && gate.enter().is_ok());
        drop(scans);
        assert!(gate.enter_scan().is_ok());
    }
}
