//! How do the ledger's entries and answers travel?

use gavel_proto::ids::{AdId, AdvertiserId, AuctionId, CampaignId, MemberId};
use gavel_proto::limits::{LEDGER_EVENTS_MAX, ZONE_OFFSETS_MAX};
use gavel_proto::money::Nanos;
use gavel_proto::wire;
use prost::Message;
use wire::ledger_event::Body;

use super::{Malformed, malformed};
use crate::ledger::calendar::Zone;
use crate::ledger::command::{Batch, Event, Heir, LeaseWish};
use crate::ledger::types::{Charge, ChargeId, EventKind, Origin, Refusal, Source, TokenKey, Verdict};

/// Reads an entry.
///
/// # Errors
/// When it is no batch, or beyond the limits.
pub fn decode(bytes: &[u8]) -> Result<Batch, Malformed> {
    let m = wire::LedgerBatch::decode(bytes).map_err(|_| malformed("ledger batch"))?;
    if m.events.len() > LEDGER_EVENTS_MAX {
        return Err(malformed("events"));
    }
    let events = m.events.iter().map(event).collect::<Result<_, _>>()?;
    Ok(Batch { elapsed_ms: m.elapsed_ms, wall_ms: m.wall_ms, events })
}

/// Writes an entry.
#[must_use]
pub fn encode(batch: &Batch) -> Vec<u8> {
    let events = batch.events.iter().map(event_to_wire).collect();
    wire::LedgerBatch { elapsed_ms: batch.elapsed_ms, wall_ms: batch.wall_ms, events }.encode_to_vec()
}

/// Bytes that events take in an entry, a little more than less.
#[must_use]
pub fn events_bytes(events: &[Event]) -> usize {
    // Tag and length of each stand before it.
    events.iter().map(|event| event_to_wire(event).encoded_len() + EVENT_FRAME_BYTES).sum()
}

fn event(m: &wire::LedgerEvent) -> Result<Event, Malformed> {
    Ok(match m.body.as_ref().ok_or(malformed("events.body"))? {
        Body::GrantIssuer(m) => grant(*m),
        Body::SetBudgets(m) => set_budgets(m)?,
        Body::OpenLease(m) => open_lease(*m),
        Body::CloseLease(m) => close_lease(*m),
        Body::Charge(m) => Event::Charge(charge(m)?),
        Body::Refund(m) => {
            let charge = charge(m.charge.as_ref().ok_or(malformed("refund.charge"))?)?;
            Event::Refund { charge, amount: Nanos(m.amount_nanos) }
        }
        Body::AddKey(m) => Event::AddKey(key(m)?),
    })
}

fn event_to_wire(event: &Event) -> wire::LedgerEvent {
    let body = match event {
        Event::GrantIssuer { member, incarnation } => {
            Body::GrantIssuer(wire::GrantIssuer { member_id: member.0, incarnation: *incarnation })
        }
        Event::SetCampaign { campaign, advertiser, budgets, zone } => {
            Body::SetBudgets(budgets_to_wire(*campaign, *advertiser, budgets, zone))
        }
        Event::OpenLease(wish) => Body::OpenLease(wire::OpenLease {
            issuer: wish.issuer,
            campaign_id: wish.campaign.0,
            rate_nanos: wish.rate.0,
            price_max_nanos: wish.price_max.0,
            routers: wish.routers,
            heir: wish.heir == Heir::Own,
            wish: wish.wish,
        }),
        Event::CloseLease { issuer, lease, issued } => {
            Body::CloseLease(wire::CloseLease { issuer: *issuer, lease: *lease, issued_nanos: issued.0 })
        }
        Event::Charge(charge) => Body::Charge(charge_to_wire(charge)),
        Event::Refund { charge, amount } => {
            Body::Refund(wire::Refund { charge: Some(charge_to_wire(charge)), amount_nanos: amount.0 })
        }
        Event::AddKey(key) => Body::AddKey(key_to_wire(key)),
    };
    wire::LedgerEvent { body: Some(body) }
}

/// Tag and length of an event inside an entry: a tag of one byte and a length below a MiB.
const EVENT_FRAME_BYTES: usize = 4;

/// Reads a wish for an issuer.
#[must_use]
pub const fn grant(m: wire::GrantIssuer) -> Event {
    Event::GrantIssuer { member: MemberId(m.member_id), incarnation: m.incarnation }
}

/// Reads a wish for a lease.
#[must_use]
pub const fn open_lease(m: wire::OpenLease) -> Event {
    Event::OpenLease(LeaseWish {
        issuer: m.issuer,
        wish: m.wish,
        campaign: CampaignId(m.campaign_id),
        rate: Nanos(m.rate_nanos),
        price_max: Nanos(m.price_max_nanos),
        routers: m.routers,
        heir: if m.heir { Heir::Own } else { Heir::Other },
    })
}

/// Reads a report.
#[must_use]
pub const fn close_lease(m: wire::CloseLease) -> Event {
    Event::CloseLease { issuer: m.issuer, lease: m.lease, issued: Nanos(m.issued_nanos) }
}

/// Reads budgets.
///
/// # Errors
/// When the zone is none.
pub fn set_budgets(m: &wire::SetBudgets) -> Result<Event, Malformed> {
    let too_many = m.zone_starts.len() > ZONE_OFFSETS_MAX || m.zone_starts.len() != m.zone_offsets.len();
    let table = m.zone_starts.iter().copied().zip(m.zone_offsets.iter().copied()).collect();
    let zone = Zone::new(table).filter(|_| !too_many).ok_or(malformed("zone"))?;
    Ok(Event::SetCampaign {
        campaign: CampaignId(m.campaign_id),
        advertiser: AdvertiserId(m.advertiser_id),
        budgets: [m.day_nanos, m.week_nanos, m.lifetime_nanos].map(|nanos| nanos.map(Nanos)),
        zone,
    })
}

/// Writes budgets.
#[must_use]
pub fn budgets_to_wire(
    campaign: CampaignId,
    advertiser: AdvertiserId,
    budgets: &[Option<Nanos>; 3],
    zone: &Zone,
) -> wire::SetBudgets {
    let [day, week, lifetime] = budgets.map(|budget| budget.map(|nanos| nanos.0));
    wire::SetBudgets {
        campaign_id: campaign.0,
        advertiser_id: advertiser.0,
        day_nanos: day,
        week_nanos: week,
        lifetime_nanos: lifetime,
        zone_starts: zone.offsets().iter().map(|(start, _)| *start).collect(),
        zone_offsets: zone.offsets().iter().map(|(_, offset)| *offset).collect(),
    }
}

fn charge(m: &wire::Charge) -> Result<Charge, Malformed> {
    Ok(Charge {
        id: ChargeId { issuer: m.issuer, sequence: m.sequence, kind: kind(m.kind)? },
        campaign: CampaignId(m.campaign_id),
        issued_ms: m.issued_ms,
        expires_ms: m.expires_ms,
        period_ms: m.period_ms,
        price: Nanos(m.price_nanos),
        bid: Nanos(m.bid_nanos),
        source: if m.lease == 0 { Source::Budget } else { Source::Lease(m.lease) },
        origin: Origin { auction: AuctionId(m.auction_id), ad: AdId(m.ad_id) },
    })
}

fn charge_to_wire(charge: &Charge) -> wire::Charge {
    wire::Charge {
        issuer: charge.id.issuer,
        sequence: charge.id.sequence,
        kind: kind_to_wire(charge.id.kind).into(),
        campaign_id: charge.campaign.0,
        issued_ms: charge.issued_ms,
        expires_ms: charge.expires_ms,
        period_ms: charge.period_ms,
        price_nanos: charge.price.0,
        bid_nanos: charge.bid.0,
        lease: match charge.source {
            Source::Lease(lease) => lease,
            Source::Budget => 0,
        },
        auction_id: charge.origin.auction.0,
        ad_id: charge.origin.ad.0,
    }
}

/// Reads a kind of event.
///
/// # Errors
/// When it is none.
pub fn kind(number: i32) -> Result<EventKind, Malformed> {
    match wire::EventKind::try_from(number) {
        Ok(wire::EventKind::EventImpression) => Ok(EventKind::Impression),
        Ok(wire::EventKind::EventClick) => Ok(EventKind::Click),
        Ok(wire::EventKind::EventConversion) => Ok(EventKind::Conversion),
        // A notice of a win is never billed.
        Ok(wire::EventKind::EventWin | wire::EventKind::Unspecified) | Err(_) => Err(malformed("kind")),
    }
}

/// Writes a kind of event.
#[must_use]
pub const fn kind_to_wire(kind: EventKind) -> wire::EventKind {
    match kind {
        EventKind::Impression => wire::EventKind::EventImpression,
        EventKind::Click => wire::EventKind::EventClick,
        EventKind::Conversion => wire::EventKind::EventConversion,
    }
}

/// Reads a key.
///
/// # Errors
/// When its secret is none.
pub fn key(m: &wire::TokenKey) -> Result<TokenKey, Malformed> {
    Ok(TokenKey { id: m.id, secret: super::hash32(&m.secret, "key.secret")?, since_ms: m.since_ms })
}

/// Writes a key.
#[must_use]
pub fn key_to_wire(key: &TokenKey) -> wire::TokenKey {
    wire::TokenKey { id: key.id, secret: key.secret.to_vec(), since_ms: key.since_ms }
}

/// Writes an answer.
#[must_use]
pub fn verdict_to_wire(verdict: &Verdict) -> wire::LedgerVerdict {
    let of = |answer: wire::LedgerAnswer| wire::LedgerVerdict { answer: answer.into(), ..Default::default() };
    match verdict {
        Verdict::Done => of(wire::LedgerAnswer::LedgerDone),
        Verdict::Duplicate => of(wire::LedgerAnswer::LedgerDuplicate),
        Verdict::Issuer(id) => wire::LedgerVerdict { id: *id, ..of(wire::LedgerAnswer::LedgerIssuer) },
        Verdict::Lease { id, amount, wall_ms } => wire::LedgerVerdict {
            id: *id,
            amount_nanos: amount.0,
            wall_ms: *wall_ms,
            ..of(wire::LedgerAnswer::LedgerLease)
        },
        Verdict::Refused(refusal) => wire::LedgerVerdict {
            refusal: number(*refusal),
            reason: refusal.word().to_owned(),
            ..of(wire::LedgerAnswer::LedgerRefused)
        },
    }
}

/// Reads an answer.
///
/// # Errors
/// When it is none.
pub fn verdict(m: &wire::LedgerVerdict) -> Result<Verdict, Malformed> {
    Ok(match wire::LedgerAnswer::try_from(m.answer) {
        Ok(wire::LedgerAnswer::LedgerDone) => Verdict::Done,
        Ok(wire::LedgerAnswer::LedgerDuplicate) => Verdict::Duplicate,
        Ok(wire::LedgerAnswer::LedgerIssuer) => Verdict::Issuer(m.id),
        Ok(wire::LedgerAnswer::LedgerLease) => {
            Verdict::Lease { id: m.id, amount: Nanos(m.amount_nanos), wall_ms: m.wall_ms }
        }
        Ok(wire::LedgerAnswer::LedgerRefused) => {
            let at = (m.refusal as usize).checked_sub(1).ok_or(malformed("refusal"))?;
            Verdict::Refused(*Refusal::ALL.get(at).ok_or(malformed("refusal"))?)
        }
        Ok(wire::LedgerAnswer::Unspecified) | Err(_) => return Err(malformed("answer")),
    })
}

fn number(refusal: Refusal) -> u32 {
    Refusal::ALL.iter().zip(1..).find(|(known, _)| **known == refusal).map_or(0, |(_, number)| number)
}

/// Writes an entry of the journal.
#[must_use]
pub fn journal_entry(command: &[u8], verdicts: &[Verdict]) -> Vec<u8> {
    let verdicts = verdicts.iter().map(|v| wire::LedgerVerdict { reason: String::new(), ..verdict_to_wire(v) });
    wire::JournalEntry { command: command.to_vec(), verdicts: verdicts.collect() }.encode_to_vec()
}

/// Reads an entry of the journal.
///
/// # Errors
/// When it is none.
pub fn read_journal_entry(bytes: &[u8]) -> Result<(Batch, Vec<Verdict>), Malformed> {
    let m = wire::JournalEntry::decode(bytes).map_err(|_| malformed("journal entry"))?;
    Ok((decode(&m.command)?, m.verdicts.iter().map(verdict).collect::<Result<_, _>>()?))
}
