//! What goes out with a winner?

use super::bank::Bank;
use super::purse::Hold;
use crate::auction::Winner;
use crate::merge::Candidate;
use gavel_member::token::{self, Token};
use gavel_proto::ids::CampaignId;
use gavel_proto::money::BidType;
use gavel_proto::pacing::arrival::window_s;
use gavel_proto::wire::EventKind;

/// A probability of 1: weights are of 1e15, position factors of a million.
const CERTAIN: u128 = 1_000_000_000_000_000 * 1_000_000;

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
    /// How often its slot is seen, of a million.
    pub factor_ppm: u32,
}

/// What an ad is expected to cost and to bring once it is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// In which event it bids.
    pub bid_type: BidType,
    /// What it is billed for.
    pub billed: EventKind,
    /// Price times probability.
    pub spend_nanos: i64,
    /// Probability of the bid's event, in thousand-millionths.
    pub events_nano: u64,
    /// What must be left in the budget for one more: the price of a click or a conversion; the bid of an impression, at
    /// which it is held.
    pub price_nanos: i64,
}

/// The event that a bid type bills.
const fn billed_event(bid_type: BidType) -> EventKind {
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

impl Sale<'_> {
    /// What it is expected to cost and to bring: a click or a conversion is as likely as its slot is seen.
    #[must_use]
    pub fn delivered(&self) -> Delivered {
        let offer = self.candidate.offer();
        let price_nanos = nanos(offer.bid_type, self.winner.billed.0);
        let seen = |weight: u64| u128::from(weight) * u128::from(self.factor_ppm);
        // Of 1e15 and a million.
        let chance = match offer.bid_type {
            BidType::Cpm | BidType::Ocpm => CERTAIN,
            BidType::Cpc | BidType::Cpa => seen(offer.event_weight),
            BidType::Ocpc => seen(offer.click_weight),
        };
        let spend = u128::from(price_nanos.unsigned_abs()) * chance.min(CERTAIN) / CERTAIN;
        Delivered {
            bid_type: offer.bid_type,
            billed: billed_event(offer.bid_type),
            // At most the price.
            spend_nanos: i64::try_from(spend).unwrap_or(price_nanos),
            events_nano: u64::try_from(seen(offer.event_weight) * 1_000_000_000 / CERTAIN).unwrap_or(u64::MAX),
            price_nanos: match billed_event(offer.bid_type) {
                EventKind::EventImpression => nanos(offer.bid_type, self.candidate.billed(offer.bid).0),
                EventKind::EventClick | EventKind::EventConversion | EventKind::EventWin | EventKind::Unspecified => {
                    price_nanos
                }
            },
        }
    }
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
            expires_ms: issued_ms + u64::from(window_s(offer.bid_type)) * 1_000,
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
