//! Which of the wishes of a request may be proposed, and which are answered at once?

use gavel_member::token::Token;
use gavel_proto::ids::{AdId, AuctionId, CampaignId};
use gavel_proto::money::Nanos;
use gavel_proto::wire;
use wire::ledger_wish::Body;

use crate::convert::ledger::{close_lease, grant, kind, open_lease, set_budgets, verdict_to_wire};
use crate::ledger::command::Event;
use crate::ledger::types::{Charge, ChargeId, Origin, Source, Verdict};

/// A request's wishes.
#[derive(Debug, Default)]
pub struct Parsed {
    /// What is to be proposed.
    pub events: Vec<Event>,
    /// For each wish its answer, or the place of its event.
    places: Vec<Place>,
}

#[derive(Debug)]
enum Place {
    Event(usize),
    /// A refund, and of how much.
    Refund(usize, Nanos),
    Answered(&'static str),
}

impl Parsed {
    /// Opens tokens and reads wishes.
    #[must_use]
    pub fn of(wishes: &[wire::LedgerWish], keys: &[wire::TokenKey]) -> Self {
        let mut parsed = Self::default();
        for wish in wishes {
            let place = match event(wish, keys) {
                Ok(event) => {
                    let at = parsed.events.len();
                    let amount = if let Event::Refund { amount, .. } = &event { Some(*amount) } else { None };
                    parsed.events.push(event);
                    amount.map_or(Place::Event(at), |amount| Place::Refund(at, amount))
                }
                Err(word) => Place::Answered(word),
            };
            parsed.places.push(place);
        }
        parsed
    }

    /// The answers to all wishes, given those to the events.
    #[must_use]
    pub fn answers(&self, verdicts: &[Verdict]) -> Vec<wire::LedgerVerdict> {
        let answer = |place: &Place| match place {
            Place::Event(at) => verdicts.get(*at).map(verdict_to_wire).unwrap_or_default(),
            Place::Refund(at, amount) => verdicts.get(*at).map(|v| refunded(v, *amount)).unwrap_or_default(),
            Place::Answered(word) => wire::LedgerVerdict {
                answer: wire::LedgerAnswer::LedgerRefused.into(),
                reason: (*word).to_owned(),
                ..Default::default()
            },
        };
        self.places.iter().map(answer).collect()
    }
}

/// The answer to a refund: whoever asked for the whole charge does not know how much that is.
fn refunded(verdict: &Verdict, amount: Nanos) -> wire::LedgerVerdict {
    let amount_nanos = if *verdict == Verdict::Done { amount.0 } else { 0 };
    wire::LedgerVerdict { amount_nanos, ..verdict_to_wire(verdict) }
}

/// The event of a wish, or the word that answers it.
fn event(wish: &wire::LedgerWish, keys: &[wire::TokenKey]) -> Result<Event, &'static str> {
    match wish.body.as_ref().ok_or("invalid")? {
        Body::GrantIssuer(m) => Ok(grant(*m)),
        Body::SetBudgets(m) => set_budgets(m).map_err(|_| "invalid"),
        Body::OpenLease(m) => Ok(open_lease(*m)),
        Body::CloseLease(m) => Ok(close_lease(*m)),
        Body::Event(m) => {
            let token = Token::open(&m.token, keys).map_err(|_| "forged")?;
            // An impression of an ad that pays for clicks is counted elsewhere and costs nothing.
            if m.kind() != token.billed {
                return Err("not_billed");
            }
            Ok(Event::Charge(charge(&token)?))
        }
        Body::Refund(m) => {
            let token = Token::open(&m.token, keys).map_err(|_| "forged")?;
            let amount = if m.amount_nanos == 0 { token.price_nanos } else { m.amount_nanos };
            Ok(Event::Refund { charge: charge(&token)?, amount: Nanos(amount) })
        }
    }
}

/// What a token charges.
fn charge(token: &Token) -> Result<Charge, &'static str> {
    let kind = kind(token.billed.into()).map_err(|_| "invalid")?;
    Ok(Charge {
        id: ChargeId { issuer: token.issuer, sequence: token.sequence, kind },
        campaign: CampaignId(token.campaign),
        issued_ms: token.issued_ms,
        expires_ms: token.expires_ms,
        period_ms: token.period_ms,
        price: Nanos(token.price_nanos),
        bid: Nanos(token.bid_nanos),
        source: if token.lease == 0 { Source::Budget } else { Source::Lease(token.lease) },
        origin: Origin { auction: AuctionId(token.auction), ad: AdId(token.ad) },
    })
}
