//! What was this ad scored with, and what did it cost?
//!
//! A share of the requests leaves one line each: the user's features as the model saw them, every ad on the page and a
//! share of the other candidates with the item's features as their node had embedded them, predictions, bids, prices and
//! reasons. Nothing is looked up for it: nodes send the features along with the candidates of a request that is sampled,
//! and the router keeps what it has. Joined with the log of events it is the table that the next bundle is trained on.
//!
//! Which requests are sampled depends on the auction id alone, which of their other candidates on auction and ad.

mod line;

pub use line::{Course, Scored, Shares};

use crate::config::LogFiles;
use crate::ledger::Bank;
use crate::line_log::{LineLog, LogNames};
use crate::packing::{Log, packing};
use gavel_proto::hash::mix64;
use gavel_proto::ids::AuctionId;
use gavel_proto::money::PPM;
use std::path::Path;
use std::sync::Arc;

/// Requests that wait: with large sets some tens of KiB each, so a few MiB.
const NAMES: LogNames = LogNames {
    files: "scored",
    logged: "gavel_router_scored_logged_total",
    dropped: "gavel_router_scored_dropped_total",
    queue: 256,
};
/// Tells its dice from those of the clearing log.
const SALT: u64 = 0x7363_6f72_6564_5f31;

/// Takes scored requests off the request path.
pub struct ScoredLog {
    log: Option<LineLog<Box<Scored>>>,
    shares: Shares,
}

impl ScoredLog {
    /// A log that takes nothing.
    #[must_use]
    pub const fn off() -> Self {
        Self { log: None, shares: Shares { requests_ppm: 0, others_ppm: 0 } }
    }

    /// Writes below `folder`; the bank opens tokens for their ids.
    ///
    /// # Errors
    /// When the folder cannot be made or written to.
    pub fn start(folder: &Path, files: LogFiles, shares: Shares, bank: Arc<Bank>) -> std::io::Result<Self> {
        let line = move |scored: Box<Scored>| serde_json::to_string(&scored.line(&bank, shares)).ok();
        Ok(Self { log: Some(LineLog::start(folder, NAMES, packing(files, Log::Scored), line)?), shares })
    }

    /// Whether this auction is sampled.
    #[must_use]
    pub fn samples(&self, auction: AuctionId) -> bool {
        self.log.is_some() && mix64(auction.0 ^ SALT) % u64::from(PPM) < u64::from(self.shares.requests_ppm)
    }

    /// Hands a request over.
    pub fn take(&self, scored: Scored) {
        if let Some(log) = &self.log {
            log.take(Box::new(scored));
        }
    }
}
