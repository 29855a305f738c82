//! Does the ledger still add up?
//!
//! Every event is followed by a look at what it touched, and every 10,000 entries, and every minute, by a look at
//! everything. A violation cannot be mended by going on: the voter stops before it acknowledges anything more.

use std::collections::BTreeMap;

use gavel_proto::ids::CampaignId;

use super::Ledger;
use super::calendar::{Period, Span};
use super::types::Lease;

/// What must hold; the numbers are those of the documentation. M9, of pauses, is held where ads are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// Charged and leased money is within the budget.
    M1,
    /// Nothing appears and nothing disappears.
    M2,
    /// An event is charged once at most.
    M3,
    /// What was charged changes only by a refund.
    M4,
    /// As many charges as bits.
    M5,
    /// What is pending is in leases that have not ended.
    M6,
    /// No lease is charged beyond what it holds.
    M7,
    /// No price is above its bid.
    M8,
}

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{invariant:?} does not hold: {detail}")]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// What was found.
    pub detail: String,
}

impl Violation {
    /// A violation.
    #[must_use]
    pub const fn new(invariant: Invariant, detail: String) -> Self {
        Self { invariant, detail }
    }
}

/// What one event on a campaign may have touched.
///
/// # Errors
/// The first invariant that does not hold.
pub fn touched(ledger: &Ledger, campaign: CampaignId) -> Result<(), Violation> {
    ledger.accounts_of(campaign).try_for_each(|(_, account)| account.check())
}

/// Everything.
///
/// # Errors
/// The first invariant that does not hold.
pub fn scan(ledger: &Ledger) -> Result<(), Violation> {
    ledger.accounts.values().try_for_each(super::Account::check)?;
    ledger.leases.iter().try_for_each(|(id, lease)| within_lease(*id, lease))?;
    pending_is_leased(ledger)?;
    charges_are_bits(ledger)?;
    charges_are_posted(ledger)
}

/// M7.
pub fn within_lease(id: u64, lease: &Lease) -> Result<(), Violation> {
    if lease.posted > lease.amount || lease.posted.0 < 0 {
        return Err(Violation::new(Invariant::M7, format!("lease {id}: {lease:?}")));
    }
    Ok(())
}

/// M6: what is pending in an account is the unposted rest of its leases, and none of them has ended.
fn pending_is_leased(ledger: &Ledger) -> Result<(), Violation> {
    let mut leased: BTreeMap<(CampaignId, Period), i128> = BTreeMap::new();
    for (id, lease) in &ledger.leases {
        if ledger.has_ended(lease) {
            return Err(Violation::new(Invariant::M6, format!("lease {id} has ended and is there")));
        }
        for period in &lease.periods {
            *leased.entry((lease.campaign, *period)).or_default() += i128::from(lease.amount.0 - lease.posted.0);
        }
    }
    for (key, account) in &ledger.accounts {
        let held = leased.remove(key).unwrap_or(0);
        if held != i128::from(account.pending.0) {
            return Err(Violation::new(Invariant::M6, format!("{key:?}: leases hold {held}, pending is {account:?}")));
        }
    }
    if leased.values().any(|held| *held != 0) {
        return Err(Violation::new(Invariant::M6, "a lease holds money of no account".to_owned()));
    }
    Ok(())
}

/// M3 and M5: no event is both charged and free, what was refunded was charged, and there is one bit a charge.
fn charges_are_bits(ledger: &Ledger) -> Result<(), Violation> {
    let mut count = ledger.counts.forgotten;
    for (key, seen) in &ledger.seen {
        if !seen.charged.is_apart(&seen.free) || !seen.refunded.is_within(&seen.charged) {
            return Err(Violation::new(Invariant::M3, format!("{key:?}")));
        }
        count += seen.charged.count();
    }
    if count != ledger.counts.charges {
        let counted = ledger.counts.charges;
        return Err(Violation::new(Invariant::M5, format!("{count} bits for {counted} charges")));
    }
    Ok(())
}

/// M4: over each span that a campaign always had a budget for, what was ever charged is posted or refunded; over none
/// is it more.
fn charges_are_posted(ledger: &Ledger) -> Result<(), Violation> {
    for (id, campaign) in &ledger.campaigns {
        for (at, span) in Span::ALL.into_iter().enumerate() {
            let open = ledger.accounts_of(*id).filter(|(period, _)| period.span == span).map(|(_, account)| account);
            let kept = open.chain([&campaign.closed[at]]);
            let sum: i128 = kept.map(|a| i128::from(a.posted.0) + i128::from(a.refunded.0)).sum();
            if sum > i128::from(campaign.charged.0) {
                return Err(Violation::new(Invariant::M4, format!("campaign {id}, {span:?}: {sum} posted")));
            }
        }
    }
    Ok(())
}
