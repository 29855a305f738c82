//! Where do clearings go so that they can be cleared again?
//!
//! To files of one line a clearing ([`crate::line_log`]): a request that is sampled hands its inputs over and goes on.
//!
//! Which requests are sampled depends on the auction id alone, so that a replayed request is sampled again.

use crate::clearing::{ClearingInputs, Served, served_line};
use crate::line_log::{LineLog, LogNames, Packing};
use gavel_proto::hash::mix64;
use gavel_proto::ids::AuctionId;
use gavel_proto::money::PPM;
use std::path::Path;

/// Clearings that wait: at some tens of KiB each, a few MiB.
const NAMES: LogNames = LogNames {
    files: "clearings",
    logged: "gavel_router_clearings_logged_total",
    dropped: "gavel_router_clearings_dropped_total",
    queue: 256,
};

/// Takes clearings off the request path.
#[derive(Debug)]
pub struct ClearingLog {
    log: Option<LineLog<Box<(ClearingInputs, Served)>>>,
    share_ppm: u32,
}

impl ClearingLog {
    /// A log that takes nothing.
    #[must_use]
    pub const fn off() -> Self {
        Self { log: None, share_ppm: 0 }
    }

    /// Writes below `folder`, of so many auctions in a million.
    ///
    /// # Errors
    /// When the folder cannot be made or written to.
    pub fn start(folder: &Path, share_ppm: u32) -> std::io::Result<Self> {
        let line = |clearing: Box<(ClearingInputs, Served)>| {
            let (inputs, served) = *clearing;
            served_line(inputs, &served).ok()
        };
        Ok(Self { log: Some(LineLog::start(folder, NAMES, Packing::Compressed, line)?), share_ppm: share_ppm.min(PPM) })
    }

    /// Whether this auction is sampled.
    #[must_use]
    pub fn samples(&self, auction: AuctionId) -> bool {
        // The ids are random already, or an operator's choice; the mix tells them from what ties are made of.
        let dice = mix64(auction.0 ^ 0x7361_6d70_6c65_7264) % u64::from(PPM);
        self.log.is_some() && dice < u64::from(self.share_ppm)
    }

    /// Hands a clearing over.
    pub fn take(&self, inputs: ClearingInputs, served: Served) {
        if let Some(log) = &self.log {
            log.take(Box::new((inputs, served)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_auctions_is_sampled_and_the_same_one_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = ClearingLog::start(folder.path(), 250_000).expect("starts");
        let sampled = (0..40_000).filter(|id| log.samples(AuctionId(*id))).count();
        assert!((9_500..10_500).contains(&sampled), "{sampled}");
        assert!((0..100).all(|id| log.samples(AuctionId(id)) == log.samples(AuctionId(id))));
        assert!(!ClearingLog::off().samples(AuctionId(1)));
    }
}
