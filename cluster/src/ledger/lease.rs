//! How much may a router serve by itself, and when is what it did not use back?
//!
//! A lease moves money from available to pending before anything is served, so that what all routers serve together can
//! always be charged. Its router stops issuing after [`LEASE_MS`] on its own clock, counted from before it asked; charges
//! may come for a minute more; then, two seconds of skew later, the ledger takes the rest back by interval time. A router
//! that dies strands its lease for no longer.

use std::collections::BTreeMap;

use gavel_proto::ids::CampaignId;
use gavel_proto::limits::{LEDGER_AMOUNT_NANOS_MAX, LEDGER_LEASES_MAX};
use gavel_proto::money::Nanos;

use super::account::{Account, Step};
use super::check::{Invariant, Violation};
use super::command::{Heir, LeaseWish};
use super::types::{Charge, Lease, LeaseStage, Refusal, Verdict};
use super::{Ledger, campaign, check, roster};

/// For so long a router issues tokens from a lease: above twice the worst failover of 4.8 s (reliability 5.3).
pub const LEASE_MS: u64 = 15_000;
/// So long after the grant the rest goes back: the lease, a minute for charges, two seconds of skew.
pub const RETURN_MS: u64 = LEASE_MS + 60_000 + 2_000;
/// Leases of one router for one campaign that are not reported: the one in use and the next (decision 18).
const OPEN_MAX: usize = 2;
/// Seconds of spending that a lease holds.
const RATE_S: i64 = 5;

const _: () = assert!(LEASE_MS > 2 * 4_800, "a lease outlives a failover");

/// Grants a lease, or says why not.
pub fn open(ledger: &mut Ledger, wish: &LeaseWish) -> Result<Verdict, Refusal> {
    roster::check_issuer(ledger, wish.issuer, ledger.wall_ms)?;
    let possible = |x: Nanos| (0..=LEDGER_AMOUNT_NANOS_MAX).contains(&x.0);
    if wish.price_max.0 <= 0 || !possible(wish.price_max) || !possible(wish.rate) || wish.routers == 0 {
        return Err(Refusal::Invalid);
    }
    let owner = ledger.campaigns.get(&wish.campaign).ok_or(Refusal::UnknownCampaign)?;
    let open = ledger.unreported.get(&(wish.issuer, wish.campaign)).map_or(&[][..], Vec::as_slice);
    let asked_before = open.iter().filter_map(|id| Some((*id, ledger.leases.get(id)?)));
    if let Some((id, lease)) = asked_before.into_iter().find(|(_, lease)| wish.wish != 0 && lease.wish == wish.wish) {
        // Whoever did not hear the answer asks again: a second lease would lie idle until its time is over.
        return Ok(Verdict::Lease { id, amount: lease.amount, wall_ms: lease.granted_wall_ms });
    }
    if open.len() >= OPEN_MAX {
        return Err(Refusal::TooManyLeases);
    }
    if ledger.leases.len() >= LEDGER_LEASES_MAX {
        return Err(Refusal::Full);
    }
    let remaining = campaign::available(ledger, wish.campaign, owner, ledger.wall_ms);
    let amount = size(wish, remaining).ok_or(Refusal::OverBudget)?;
    let held = campaign::stepped(ledger, wish.campaign, owner, ledger.wall_ms, Step::Hold(amount));
    let held = held.ok_or(Refusal::OverBudget)?;
    let (id, wall_ms) = (ledger.next_lease, ledger.wall_ms);
    let lease = Lease {
        issuer: wish.issuer,
        campaign: wish.campaign,
        periods: held.iter().map(|((_, period), _)| *period).collect(),
        amount,
        posted: Nanos::ZERO,
        granted_clock_ms: ledger.clock_ms,
        granted_wall_ms: wall_ms,
        wish: wish.wish,
        stage: LeaseStage::Open,
    };
    ledger.accounts.extend(held);
    ledger.leases.insert(id, lease);
    ledger.unreported.entry((wish.issuer, wish.campaign)).or_default().push(id);
    ledger.next_lease += 1;
    Ok(Verdict::Lease { id, amount, wall_ms })
}

/// L = min(max(5 s of spending, largest price), remaining / 4R); below the largest price the heir gets the rest
/// (decision 18). `None` when not even one impression fits.
#[must_use]
pub fn size(wish: &LeaseWish, remaining: Nanos) -> Option<Nanos> {
    let wanted = wish.rate.0.saturating_mul(RATE_S).max(wish.price_max.0);
    let share = remaining.0 / i64::from(wish.routers).saturating_mul(4);
    let amount = wanted.min(share);
    if amount >= wish.price_max.0 {
        return Some(Nanos(amount));
    }
    (wish.heir == Heir::Own && remaining >= wish.price_max).then_some(remaining)
}

/// A router's last word on a lease: what it did not issue goes back at once.
pub fn report(ledger: &mut Ledger, issuer: u64, id: u64, issued: Nanos) -> Result<Verdict, Refusal> {
    let lease = ledger.leases.get(&id).ok_or_else(|| absent(ledger.next_lease, id))?;
    if lease.issuer != issuer {
        return Err(Refusal::LeaseForeign);
    }
    if lease.stage == LeaseStage::Reported {
        return Ok(Verdict::Duplicate);
    }
    if issued > lease.amount || issued < lease.posted {
        return Err(Refusal::ExceedsLease);
    }
    let rest = lease.amount.minus(issued).ok_or(Refusal::ExceedsLease)?;
    let mut accounts = Vec::new();
    for period in &lease.periods {
        let account = ledger.accounts.get(&(lease.campaign, *period)).copied().unwrap_or_default();
        let after = account.after(Step::Release(rest)).ok_or(Refusal::ExceedsLease)?;
        accounts.push(((lease.campaign, *period), after));
    }
    ledger.accounts.extend(accounts);
    if let Some(lease) = ledger.leases.get_mut(&id) {
        (lease.amount, lease.stage) = (issued, LeaseStage::Reported);
        let of = (lease.issuer, lease.campaign);
        no_longer_open(ledger, of, id);
    }
    Ok(Verdict::Done)
}

/// Charges a lease.
pub fn post(ledger: &mut Ledger, id: u64, charge: &Charge) -> Result<(), Refusal> {
    let lease = ledger.leases.get(&id).ok_or_else(|| absent(ledger.next_lease, id))?;
    let is_own = lease.issuer == charge.id.issuer && lease.campaign == charge.campaign;
    if !is_own || lease.granted_wall_ms != charge.period_ms {
        return Err(Refusal::LeaseForeign);
    }
    // M7.
    let posted = lease.posted.plus(charge.price).filter(|posted| *posted <= lease.amount);
    let posted = posted.ok_or(Refusal::ExceedsLease)?;
    let mut accounts = Vec::new();
    for period in &lease.periods {
        let account = ledger.accounts.get(&(lease.campaign, *period)).copied().unwrap_or_default();
        let after = account.after(Step::PostHeld(charge.price)).ok_or(Refusal::ExceedsLease)?;
        accounts.push(((lease.campaign, *period), after));
    }
    ledger.accounts.extend(accounts);
    if let Some(lease) = ledger.leases.get_mut(&id) {
        lease.posted = posted;
    }
    Ok(())
}

/// Takes back what leases that have ended still hold. They end in the order of their ids.
pub fn expire(ledger: &mut Ledger) -> Result<(), Violation> {
    while let Some((id, lease)) = ledger.leases.iter().next().filter(|(_, lease)| ledger.has_ended(lease)) {
        check::within_lease(*id, lease)?;
        let (id, lease) = (*id, lease.clone());
        for period in &lease.periods {
            let rest = Step::Release(Nanos(lease.amount.0 - lease.posted.0));
            let account: Option<&mut Account> = ledger.accounts.get_mut(&(lease.campaign, *period));
            let after = account.as_deref().and_then(|account| account.after(rest));
            let (Some(account), Some(after)) = (account, after) else {
                return Err(Violation::new(Invariant::M6, format!("lease {id} holds what is not pending: {lease:?}")));
            };
            *account = after;
        }
        ledger.leases.remove(&id);
        no_longer_open(ledger, (lease.issuer, lease.campaign), id);
        check::touched(ledger, lease.campaign)?;
    }
    Ok(())
}

/// A lease is reported or over.
fn no_longer_open(ledger: &mut Ledger, of: (u64, CampaignId), id: u64) {
    if let Some(open) = ledger.unreported.get_mut(&of) {
        open.retain(|held| *held != id);
        if open.is_empty() {
            ledger.unreported.remove(&of);
        }
    }
}

/// The leases that are not reported, by issuer and campaign, ascending.
#[must_use]
pub fn unreported(leases: &BTreeMap<u64, Lease>) -> BTreeMap<(u64, CampaignId), Vec<u64>> {
    let mut found: BTreeMap<(u64, CampaignId), Vec<u64>> = BTreeMap::new();
    for (id, lease) in leases.iter().filter(|(_, lease)| lease.stage == LeaseStage::Open) {
        found.entry((lease.issuer, lease.campaign)).or_default().push(*id);
    }
    found
}

/// Why a lease is not there.
const fn absent(next: u64, id: u64) -> Refusal {
    if id < next { Refusal::LeaseClosed } else { Refusal::LeaseUnknown }
}
