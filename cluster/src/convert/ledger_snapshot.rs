//! How does the whole ledger travel and lie on disk?
//!
//! One message, its lists ordered, so that equal ledgers have equal bytes and the digest is BLAKE3 of them (ST1).

use gavel_proto::ids::{AdvertiserId, CampaignId, MemberId};
use gavel_proto::limits::{LEDGER_CAMPAIGNS_MAX, LEDGER_ISSUERS_MAX, LEDGER_KEYS_MAX, LEDGER_LEASES_MAX};
use gavel_proto::money::Nanos;
use gavel_proto::wire;
use prost::Message;

use super::{Malformed, ledger as events, malformed};
use crate::ledger::calendar::{Period, Span};
use crate::ledger::command::Event;
use crate::ledger::seen::{Bits, CHUNK_WORDS, Seen};
use crate::ledger::types::{Campaign, Issuer, Lease, LeaseStage};
use crate::ledger::{Account, Counts, Ledger, SeenKey, unreported};

/// BLAKE3 of a ledger's bytes.
#[must_use]
pub fn digest(ledger: &Ledger) -> [u8; 32] {
    *blake3::hash(&encode(ledger, 0)).as_bytes()
}

/// A ledger's bytes; `index` is for a reader of the journal, 0 for none.
#[must_use]
pub fn encode(ledger: &Ledger, index: u64) -> Vec<u8> {
    let snapshot = wire::LedgerSnapshot {
        cluster_id: ledger.cluster_id.clone(),
        entries: ledger.entries,
        clock_ms: ledger.clock_ms,
        wall_ms: ledger.wall_ms,
        campaigns: ledger.campaigns.iter().map(|(id, campaign)| campaign_record(*id, campaign)).collect(),
        accounts: ledger.accounts.iter().map(|((id, period), a)| account_to_wire(*id, *period, a)).collect(),
        leases: ledger.leases.iter().map(|(id, lease)| lease_record(*id, lease)).collect(),
        issuers: ledger.issuers.iter().map(|(id, issuer)| issuer_record(*id, issuer)).collect(),
        seen: ledger.seen.iter().map(seen_record).collect(),
        keys: ledger.keys.iter().map(events::key_to_wire).collect(),
        next_lease: ledger.next_lease,
        next_issuer: ledger.next_issuer,
        counts: Some(counts_to_wire(ledger.counts)),
        applied_index: index,
    };
    snapshot.encode_to_vec()
}

/// Reads a ledger of `cluster_id`.
///
/// # Errors
/// When the bytes are no ledger, of another cluster, or beyond the limits.
pub fn decode(bytes: &[u8], cluster_id: &str) -> Result<Ledger, Malformed> {
    let m = wire::LedgerSnapshot::decode(bytes).map_err(|_| malformed("ledger snapshot"))?;
    if m.cluster_id != cluster_id {
        return Err(malformed("cluster_id"));
    }
    let too_many = m.campaigns.len() > LEDGER_CAMPAIGNS_MAX
        || m.leases.len() > LEDGER_LEASES_MAX
        || m.issuers.len() > LEDGER_ISSUERS_MAX
        || m.keys.len() > LEDGER_KEYS_MAX;
    if too_many {
        return Err(malformed("ledger snapshot beyond the limits"));
    }
    let counts = m.counts.unwrap_or_default();
    let leases = m.leases.iter().map(lease).collect::<Result<_, _>>()?;
    Ok(Ledger {
        cluster_id: m.cluster_id,
        entries: m.entries,
        clock_ms: m.clock_ms,
        wall_ms: m.wall_ms,
        campaigns: m.campaigns.iter().map(campaign).collect::<Result<_, _>>()?,
        accounts: m.accounts.iter().map(account).collect::<Result<_, _>>()?,
        unreported: unreported(&leases),
        leases,
        issuers: m.issuers.iter().map(issuer).collect(),
        seen: m.seen.iter().map(seen).collect::<Result<_, _>>()?,
        keys: m.keys.iter().map(events::key).collect::<Result<_, _>>()?,
        next_lease: m.next_lease,
        next_issuer: m.next_issuer,
        counts: Counts {
            charges: counts.charges,
            forgotten: counts.forgotten,
            refunds: counts.refunds,
            free: counts.free,
        },
    })
}

/// The index that a snapshot for a reader of the journal stands at.
///
/// # Errors
/// When the bytes are no ledger.
pub fn index_of(bytes: &[u8]) -> Result<u64, Malformed> {
    Ok(wire::LedgerSnapshot::decode(bytes).map_err(|_| malformed("ledger snapshot"))?.applied_index)
}

/// Writes what happened in all.
#[must_use]
pub const fn counts_to_wire(counts: Counts) -> wire::LedgerCounts {
    let Counts { charges, forgotten, refunds, free } = counts;
    wire::LedgerCounts { charges, forgotten, refunds, free }
}

/// Writes an account.
#[must_use]
pub fn account_to_wire(campaign: CampaignId, period: Period, account: &Account) -> wire::LedgerAccount {
    wire::LedgerAccount {
        campaign_id: campaign.0,
        span: span_to_wire(period.span).into(),
        number: period.number,
        deposited_nanos: account.deposited.0,
        available_nanos: account.available.0,
        pending_nanos: account.pending.0,
        posted_nanos: account.posted.0,
        refunded_nanos: account.refunded.0,
    }
}

fn account(m: &wire::LedgerAccount) -> Result<((CampaignId, Period), Account), Malformed> {
    let account = Account {
        deposited: Nanos(m.deposited_nanos),
        available: Nanos(m.available_nanos),
        pending: Nanos(m.pending_nanos),
        posted: Nanos(m.posted_nanos),
        refunded: Nanos(m.refunded_nanos),
    };
    Ok(((CampaignId(m.campaign_id), period(m)?), account))
}

fn period(m: &wire::LedgerAccount) -> Result<Period, Malformed> {
    let span = match wire::BudgetSpan::try_from(m.span) {
        Ok(wire::BudgetSpan::BudgetDay) => Span::Day,
        Ok(wire::BudgetSpan::BudgetWeek) => Span::Week,
        Ok(wire::BudgetSpan::BudgetLifetime) => Span::Lifetime,
        Ok(wire::BudgetSpan::Unspecified) | Err(_) => return Err(malformed("span")),
    };
    Ok(Period { span, number: m.number })
}

const fn span_to_wire(span: Span) -> wire::BudgetSpan {
    match span {
        Span::Day => wire::BudgetSpan::BudgetDay,
        Span::Week => wire::BudgetSpan::BudgetWeek,
        Span::Lifetime => wire::BudgetSpan::BudgetLifetime,
    }
}

fn campaign_record(id: CampaignId, campaign: &Campaign) -> wire::CampaignRecord {
    let closed = Span::ALL.into_iter().zip(&campaign.closed);
    wire::CampaignRecord {
        budgets: Some(events::budgets_to_wire(id, campaign.advertiser, &campaign.budgets, &campaign.zone)),
        charged_nanos: campaign.charged.0,
        free_events: campaign.free_events,
        free_nanos: campaign.free.0,
        closed: closed.map(|(span, sum)| account_to_wire(id, Period { span, number: 0 }, sum)).collect(),
    }
}

fn campaign(m: &wire::CampaignRecord) -> Result<(CampaignId, Campaign), Malformed> {
    let budgets = m.budgets.as_ref().ok_or(malformed("campaigns.budgets"))?;
    let Event::SetCampaign { campaign, advertiser, budgets, zone } = events::set_budgets(budgets)? else {
        return Err(malformed("campaigns.budgets"));
    };
    let closed: Vec<Account> = m.closed.iter().map(|m| Ok(account(m)?.1)).collect::<Result<_, Malformed>>()?;
    let closed = closed.try_into().map_err(|_| malformed("campaigns.closed"))?;
    let (charged, free) = (Nanos(m.charged_nanos), Nanos(m.free_nanos));
    Ok((campaign, Campaign { advertiser, budgets, zone, charged, free_events: m.free_events, free, closed }))
}

fn lease_record(id: u64, lease: &Lease) -> wire::LeaseRecord {
    let period = |period: &Period| wire::LedgerAccount {
        span: span_to_wire(period.span).into(),
        number: period.number,
        ..Default::default()
    };
    wire::LeaseRecord {
        lease: id,
        issuer: lease.issuer,
        campaign_id: lease.campaign.0,
        amount_nanos: lease.amount.0,
        posted_nanos: lease.posted.0,
        granted_clock_ms: lease.granted_clock_ms,
        granted_wall_ms: lease.granted_wall_ms,
        reported: lease.stage == LeaseStage::Reported,
        wish: lease.wish,
        periods: lease.periods.iter().map(period).collect(),
    }
}

fn lease(m: &wire::LeaseRecord) -> Result<(u64, Lease), Malformed> {
    let lease = Lease {
        issuer: m.issuer,
        campaign: CampaignId(m.campaign_id),
        periods: m.periods.iter().map(period).collect::<Result<_, _>>()?,
        amount: Nanos(m.amount_nanos),
        posted: Nanos(m.posted_nanos),
        granted_clock_ms: m.granted_clock_ms,
        granted_wall_ms: m.granted_wall_ms,
        wish: m.wish,
        stage: if m.reported { LeaseStage::Reported } else { LeaseStage::Open },
    };
    Ok((m.lease, lease))
}

const fn issuer_record(id: u64, issuer: &Issuer) -> wire::IssuerRecord {
    wire::IssuerRecord {
        issuer: id,
        member_id: issuer.member.0,
        incarnation: issuer.incarnation,
        granted_ms: issuer.granted_ms,
    }
}

fn issuer(m: &wire::IssuerRecord) -> (u64, Issuer) {
    let (member, granted_ms) = (MemberId(m.member_id), m.granted_ms);
    (m.issuer, Issuer { member, incarnation: m.incarnation, granted_ms })
}

fn seen_record((key, seen): (&SeenKey, &Seen)) -> wire::SeenRecord {
    let chunks = |bits: &Bits| {
        let chunk = |(chunk, words): (u64, &[u64; CHUNK_WORDS])| wire::SeenChunk { chunk, words: words.to_vec() };
        bits.chunks().map(chunk).collect()
    };
    wire::SeenRecord {
        hour: key.0,
        issuer: key.1,
        kind: events::kind_to_wire(key.2).into(),
        charged: chunks(&seen.charged),
        free: chunks(&seen.free),
        refunded: chunks(&seen.refunded),
    }
}

fn seen(m: &wire::SeenRecord) -> Result<(SeenKey, Seen), Malformed> {
    let bits = |chunks: &[wire::SeenChunk]| {
        let mut bits = Bits::default();
        for chunk in chunks {
            let words = chunk.words.as_slice().try_into().map_err(|_| malformed("seen.words"))?;
            bits.insert_chunk(chunk.chunk, words);
        }
        Ok(bits)
    };
    let seen = Seen { charged: bits(&m.charged)?, free: bits(&m.free)?, refunded: bits(&m.refunded)? };
    Ok(((m.hour, m.issuer, events::kind(m.kind)?), seen))
}

/// An account for people and reports, of a campaign.
#[must_use]
pub fn balance(ledger: &Ledger, id: CampaignId, campaign: &Campaign) -> wire::CampaignBalance {
    let AdvertiserId(advertiser_id) = campaign.advertiser;
    wire::CampaignBalance {
        campaign_id: id.0,
        advertiser_id,
        accounts: ledger.accounts_of(id).map(|(period, account)| account_to_wire(id, period, account)).collect(),
        charged_nanos: campaign.charged.0,
        free_events: campaign.free_events,
        free_nanos: campaign.free.0,
    }
}
