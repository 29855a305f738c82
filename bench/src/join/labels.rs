//! Which events belong to which ad?
//!
//! By the id of the token: issuer and sequence. An event counts when it came within the window of its kind after its ad
//! was served, both by the ledger's time; the first of a kind counts, the others are duplicates. The order of events
//! changes nothing.

use gavel_router::logged::{EventLine, EventWord, ScoredCandidate, ScoredLine, TokenId};
use serde::Serialize;
use std::collections::HashMap;

/// Routers' estimates of the ledger's time differ by less.
const SKEW_MS: u64 = 5_000;

/// An ad that stood on a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// Of its token.
    pub token: TokenId,
    /// The auction.
    pub auction: u64,
    /// The ad.
    pub ad: u64,
    /// Its slot.
    pub slot: u32,
    /// When it was served.
    pub served_ms: u64,
}

impl Exposure {
    /// Of a logged candidate; `None` when it stood on no page, or without a token.
    pub fn of(line: &ScoredLine, candidate: &ScoredCandidate) -> Option<Self> {
        candidate.position?;
        Some(Self {
            token: candidate.token?,
            auction: line.auction_id,
            ad: candidate.ad,
            slot: candidate.slot?,
            served_ms: line.time_ms,
        })
    }
}

/// How long after its ad an event counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Impressions, and notices of a win.
    pub impression_ms: u64,
    /// Clicks.
    pub click_ms: u64,
    /// Conversions.
    pub conversion_ms: u64,
}

impl Windows {
    const fn of(self, kind: EventWord) -> u64 {
        match kind {
            EventWord::Impression | EventWord::Win => self.impression_ms,
            EventWord::Click => self.click_ms,
            EventWord::Conversion => self.conversion_ms,
        }
    }

    /// After it nothing comes any more.
    pub fn longest_ms(self) -> u64 {
        self.impression_ms.max(self.click_ms).max(self.conversion_ms)
    }
}

/// What happened to an ad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// Somebody saw it.
    pub impression: bool,
    /// Somebody clicked on it.
    pub click: bool,
    /// Somebody did what the advertiser wants.
    pub conversion: bool,
    /// It was taken.
    pub win: bool,
}

impl Labels {
    /// Whether somebody is known to have seen it: nobody clicks on what he did not see.
    pub const fn was_seen(self) -> bool {
        self.impression || self.click || self.conversion
    }

    const fn of(&mut self, kind: EventWord) -> &mut bool {
        match kind {
            EventWord::Impression => &mut self.impression,
            EventWord::Click => &mut self.click,
            EventWord::Conversion => &mut self.conversion,
            EventWord::Win => &mut self.win,
        }
    }
}

/// What became of the events: each is in exactly one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// All of them.
    pub events: u64,
    /// The first of its kind of its ad.
    pub joined: u64,
    /// Another one of the same.
    pub duplicate: u64,
    /// After its window.
    pub late: u64,
    /// Before its ad.
    pub early: u64,
    /// No such ad was logged: its request was not sampled, or its line is gone.
    pub unmatched: u64,
    /// The token is that of a logged ad, and its auction, ad or slot is not.
    pub contradicting: u64,
}

/// The labels of every ad, in their order; `None` for one whose token came before in the list.
pub fn join(exposures: &[Exposure], events: &[EventLine], windows: Windows) -> (Vec<Option<Labels>>, Counts) {
    let mut place: HashMap<TokenId, usize> = HashMap::with_capacity(exposures.len());
    let mut labels = Vec::with_capacity(exposures.len());
    for (at, exposure) in exposures.iter().enumerate() {
        let first = *place.entry(exposure.token).or_insert(at) == at;
        labels.push(first.then(Labels::default));
    }
    let mut counts = Counts::default();
    for event in events {
        counts.events += 1;
        let at = place.get(&event.token).copied();
        let found = at.and_then(|at| Some((exposures.get(at)?, labels.get_mut(at)?.as_mut()?)));
        *fate(event, found, windows, &mut counts) += 1;
    }
    (labels, counts)
}

/// Labels the ad; where the event is counted.
fn fate<'a>(
    event: &EventLine,
    found: Option<(&Exposure, &mut Labels)>,
    windows: Windows,
    counts: &'a mut Counts,
) -> &'a mut u64 {
    let Some((exposure, labels)) = found else { return &mut counts.unmatched };
    if (event.auction_id, event.ad, event.slot) != (exposure.auction, exposure.ad, exposure.slot) {
        return &mut counts.contradicting;
    }
    if event.time_ms.saturating_add(SKEW_MS) < event.issued_ms {
        return &mut counts.early;
    }
    if event.time_ms.saturating_sub(event.issued_ms) > windows.of(event.kind) {
        return &mut counts.late;
    }
    match std::mem::replace(labels.of(event.kind), true) {
        true => &mut counts.duplicate,
        false => &mut counts.joined,
    }
}
