//! Where do events go so that they can be joined with what was scored?
//!
//! Every event that was taken leaves a line, whatever its answer: a click on an ad that pays for impressions costs
//! nothing and says as much as another. What was forged or malformed leaves none, and neither does what was answered with
//! `unavailable`, because it is sent again.

use crate::config::LogFiles;
use crate::line_log::{LineLog, LogNames};
use crate::logged::{EventLine, EventWord, FORMAT, TokenId};
use crate::packing::{Log, packing};
use gavel_member::token::Token;
use gavel_proto::wire::EventKind;
use std::path::Path;

/// Lines that wait: a few hundred bytes each.
const NAMES: LogNames = LogNames {
    files: "events",
    logged: "gavel_router_events_logged_total",
    dropped: "gavel_router_events_dropped_total",
    queue: 16_384,
};

/// Takes events off the path of their answers.
#[derive(Debug)]
pub struct EventLog {
    log: Option<LineLog<EventLine>>,
}

impl EventLog {
    /// A log that takes nothing.
    #[must_use]
    pub const fn off() -> Self {
        Self { log: None }
    }

    /// Writes below `folder`.
    ///
    /// # Errors
    /// When the folder cannot be made or written to.
    pub fn start(folder: &Path, files: LogFiles) -> std::io::Result<Self> {
        let line = |line| serde_json::to_string(&line).ok();
        Ok(Self { log: Some(LineLog::start(folder, NAMES, packing(files, Log::Events), line)?) })
    }

    /// Logs an event and its answer. A token that this router cannot open, because its key came after ours, is dropped
    /// and counted.
    pub(super) fn take(&self, kind: EventKind, token: Option<&Token>, answer: &str, time_ms: u64) {
        let Some(log) = &self.log else { return };
        let line = token.and_then(|token| line(kind, token, answer, time_ms));
        match line {
            Some(line) => log.take(line),
            None => metrics::counter!(NAMES.dropped).increment(1),
        }
    }
}

/// The line; `None` when there is no such event.
fn line(kind: EventKind, token: &Token, answer: &str, time_ms: u64) -> Option<EventLine> {
    Some(EventLine {
        format: FORMAT,
        kind: word(kind)?,
        answer: answer.to_owned(),
        time_ms,
        issued_ms: token.issued_ms,
        token: TokenId { issuer: token.issuer, sequence: token.sequence },
        auction_id: token.auction,
        request: token.request,
        ad: token.ad,
        campaign: token.campaign,
        slot: token.slot.into(),
        billed: word(token.billed)?,
        price_nanos: token.price_nanos,
    })
}

const fn word(kind: EventKind) -> Option<EventWord> {
    match kind {
        EventKind::EventImpression => Some(EventWord::Impression),
        EventKind::EventClick => Some(EventWord::Click),
        EventKind::EventConversion => Some(EventWord::Conversion),
        EventKind::EventWin => Some(EventWord::Win),
        EventKind::Unspecified => None,
    }
}
