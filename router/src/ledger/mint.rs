//! What goes out with a winner?

use super::bank::Bank;
use super::purse::Hold;
use crate::auction::Winner;
use crate::merge::Candidate;
use gavel_member::token::{self, Token};
use gavel_proto::ids::CampaignId;
use gavel_proto::money::BidType;
use gavel_proto::wire::EventKind;

/// An impression counts so long after its ad was served: the ledger keeps a lease's money for a minute after its use.
const IMPRESSION_MS: u64 = 60_000;
/// A click counts for a day.
const CLICK_MS: u64 = 24 * 3_600_000;
/// A conversion counts for a week.
const CONVERSION_MS: u64 = 7 * CLICK_MS;

/// What was held for one winner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Index into the ranking.
    pub candidate: usize,
    /// Whose money.
    pub campaign: CampaignId,
    /// What stands behind it.
    pub hold: Hold,
}

/// An ad that stands on the page.
#[derive(Clone, Copy, Debug)]
pub struct Sale<'a> {
    /// The ad.
    pub candidate: &'a Candidate,
    /// Its slot and its price in place.
    pub winner: Winner,
    /// The auction.
    pub auction: u64,
    /// Hash of the request's id.
    pub request: u64,
    /// Version of the bundle that scored it.
    pub model: u64,
    /// The step of the rollout that runs; 0 = none.
    pub trial: u64,
    /// What was held; `None` for what is billed later.
    pub hold: Option<Hold>,
}

/// The event that a bid type bills.
pub const fn billed_event(bid_type: BidType) -> EventKind {
    match bid_type {
        BidType::Cpm | BidType::Ocpm => EventKind::EventImpression,
        BidType::Cpc | BidType::Ocpc => EventKind::EventClick,
        BidType::Cpa => EventKind::EventConversion,
    }
}

/// The price of one billed event in nanos. A price per mille in micros is one impression's in nanos.
#[must_use]
pub fn nanos(bid_type: BidType, billed_micros: u64) -> i64 {
    let factor = match billed_event(bid_type) {
        EventKind::EventImpression | EventKind::EventWin | EventKind::Unspecified => 1,
        EventKind::EventClick | EventKind::EventConversion => 1_000,
    };
    i64::try_from(billed_micros).unwrap_or(i64::MAX).saturating_mul(factor)
}

impl Bank {
    /// The token of an ad, as text; empty when nothing of it is to be charged.
    #[must_use]
    pub fn token(&self, sale: &Sale<'_>) -> String {
        let Some(grant) = self.grant() else { return String::new() };
        let offer = sale.candidate.offer();
        let issued_ms = grant.wall_ms(self.now_ms());
        let billed = billed_event(offer.bid_type);
        let (lease, period_ms) = match sale.hold {
            Some(Hold::Lease { id, wall_ms, .. }) => (id, wall_ms),
            Some(Hold::Unbudgeted) | None => (0, issued_ms),
        };
        let window = match billed {
            EventKind::EventImpression | EventKind::EventWin | EventKind::Unspecified => IMPRESSION_MS,
            EventKind::EventClick => CLICK_MS,
            EventKind::EventConversion => CONVERSION_MS,
        };
        let token = Token {
            issuer: grant.issuer,
            sequence: self.next_sequence(),
            billed,
            campaign: offer.campaign.0,
            ad: offer.ad.0,
            slot: u8::try_from(sale.winner.slot).unwrap_or(u8::MAX),
            auction: sale.auction,
            request: sale.request,
            issued_ms,
            expires_ms: issued_ms + window,
            period_ms,
            price_nanos: nanos(offer.bid_type, sale.winner.billed.0),
            bid_nanos: nanos(offer.bid_type, sale.candidate.billed(offer.bid).0),
            lease,
            model: sale.model,
            trial: sale.trial,
        };
        let sealed = grant.keys.last().map(|key| token.seal(key));
        metrics::counter!("gavel_router_tokens_total").increment(1);
        sealed.and_then(Result::ok).map(|bytes| token::to_text(&bytes)).unwrap_or_default()
    }
}
