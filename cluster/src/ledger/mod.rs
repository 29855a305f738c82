//! Who owes what, whatever fails?
//!
//! The ledger is a replicated state machine of its own: `apply` is a function of (state, entry) and of nothing else, in
//! integers (nanos of the currency), without a clock. Accounts are budgets over periods ([`account`]); routers hold
//! leases for what is billed at the impression ([`lease`]); an event is charged once, by the id of its token ([`charge`],
//! [`seen`]); days begin by replicated time ([`calendar`]).
//!
//! Two times are replicated. *Interval time* is the sum of what proposers saw pass on their own clocks; leases end by
//! it, and a wall clock that jumps moves none. *Wall time* never goes back; days, hours of issue and attribution
//! windows are counted in it.
//!
//! M1 to M8 are checked after every event and, over everything, every so often ([`check`]); M9, of pauses, is held where
//! ads are served. What does not hold stops the voter: it is never answered and gone on from. The auditor
//! (`crate::audit`) computes the same balances from the journal by other code.

pub mod account;
pub mod calendar;
pub mod check;
pub mod command;
pub mod seen;
pub mod types;

mod campaign;
mod charge;
mod lease;
mod roster;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use account::Account;
use calendar::Period;
use check::Violation;
use command::{Batch, Event};
use gavel_proto::ids::CampaignId;
pub use lease::{LEASE_MS, RETURN_MS, unreported};
use seen::Seen;
use types::{Campaign, EventKind, Issuer, Lease, TokenKey, Verdict};

/// Milliseconds of an hour.
pub const HOUR_MS: u64 = 3_600_000;
/// Longest attribution window: that of conversions, a week.
pub const ATTRIBUTION_MS: u64 = 7 * 24 * HOUR_MS;
/// After the window an event may be sent again for so long before it is forgotten.
const RETRY_MS: u64 = 24 * HOUR_MS;
/// Entries between two looks at everything.
const SCAN_ENTRIES: u64 = 10_000;
/// Interval time between two looks at everything.
const SCAN_MS: u64 = 60_000;

/// The bitmaps' keys: hour of issue first, so that what is old is at the front.
pub type SeenKey = (u64, u64, EventKind);

/// What happened in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Charges posted.
    pub charges: u64,
    /// Of those, charges whose bitmaps are gone.
    pub forgotten: u64,
    /// Refunds.
    pub refunds: u64,
    /// Events delivered free.
    pub free: u64,
}

/// Everything that the voters agree on about money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// The cluster's name.
    pub cluster_id: String,
    /// Entries applied.
    pub entries: u64,
    /// Interval time.
    pub clock_ms: u64,
    /// Wall time.
    pub wall_ms: u64,
    /// By id.
    pub campaigns: BTreeMap<CampaignId, Campaign>,
    /// Open ones.
    pub accounts: BTreeMap<(CampaignId, Period), Account>,
    /// By id, which is also the order of their ends.
    pub leases: BTreeMap<u64, Lease>,
    /// Leases that are not reported, ascending, by issuer and campaign; follows from `leases`.
    pub(crate) unreported: BTreeMap<(u64, CampaignId), Vec<u64>>,
    /// By id.
    pub issuers: BTreeMap<u64, Issuer>,
    /// What is known of tokens.
    pub seen: BTreeMap<SeenKey, Seen>,
    /// Oldest first; the last seals.
    pub keys: Vec<TokenKey>,
    /// The next lease.
    pub next_lease: u64,
    /// The next issuer.
    pub next_issuer: u64,
    /// What happened in all.
    pub counts: Counts,
}

impl Ledger {
    /// The ledger before its first entry.
    #[must_use]
    pub fn genesis(cluster_id: &str) -> Self {
        Self {
            cluster_id: cluster_id.to_owned(),
            entries: 0,
            clock_ms: 0,
            wall_ms: 0,
            campaigns: BTreeMap::new(),
            accounts: BTreeMap::new(),
            leases: BTreeMap::new(),
            unreported: BTreeMap::new(),
            issuers: BTreeMap::new(),
            seen: BTreeMap::new(),
            keys: Vec::new(),
            next_lease: 1,
            next_issuer: 1,
            counts: Counts::default(),
        }
    }

    /// The open accounts of a campaign.
    pub fn accounts_of(&self, campaign: CampaignId) -> impl Iterator<Item = (Period, &Account)> {
        let range = (campaign, FIRST_PERIOD)..=(campaign, LAST_PERIOD);
        self.accounts.range(range).map(|((_, period), account)| (*period, account))
    }

    /// Whether a lease's time, with everything that may still come on it, is over.
    #[must_use]
    pub fn has_ended(&self, lease: &Lease) -> bool {
        self.clock_ms >= lease.granted_clock_ms + RETURN_MS
    }
}

const FIRST_PERIOD: Period = Period { span: calendar::Span::Day, number: i64::MIN };
const LAST_PERIOD: Period = Period { span: calendar::Span::Lifetime, number: i64::MAX };

/// Applies one entry: an answer for each of its events.
///
/// # Errors
/// An invariant that does not hold: the voter must stop.
pub fn apply(ledger: &mut Ledger, batch: &Batch) -> Result<Vec<Verdict>, Violation> {
    let before = (ledger.clock_ms / SCAN_MS, ledger.wall_ms / HOUR_MS);
    ledger.entries += 1;
    ledger.clock_ms = ledger.clock_ms.saturating_add(batch.elapsed_ms);
    ledger.wall_ms = ledger.wall_ms.max(batch.wall_ms);
    lease::expire(ledger)?;
    if ledger.wall_ms / HOUR_MS != before.1 {
        roster::forget(ledger);
        campaign::close_periods(ledger);
    }
    let verdicts = batch.events.iter().map(|event| perform(ledger, event)).collect::<Result<_, _>>()?;
    if ledger.entries.is_multiple_of(SCAN_ENTRIES) || ledger.clock_ms / SCAN_MS != before.0 {
        check::scan(ledger)?;
    }
    Ok(verdicts)
}

/// Dispatches to the module that knows the rules.
fn perform(ledger: &mut Ledger, event: &Event) -> Result<Verdict, Violation> {
    let (answer, campaign) = match event {
        Event::GrantIssuer { member, incarnation } => (roster::grant(ledger, *member, *incarnation), None),
        Event::AddKey(key) => (roster::add_key(ledger, key), None),
        Event::SetCampaign { campaign, advertiser, budgets, zone } => {
            (campaign::set(ledger, *campaign, *advertiser, *budgets, zone), Some(*campaign))
        }
        Event::OpenLease(wish) => (lease::open(ledger, wish), Some(wish.campaign)),
        Event::CloseLease { issuer, lease, issued } => {
            let campaign = ledger.leases.get(lease).map(|lease| lease.campaign);
            (lease::report(ledger, *issuer, *lease, *issued), campaign)
        }
        Event::Charge(charge) => (charge::charge(ledger, charge), Some(charge.campaign)),
        Event::Refund { charge, amount } => (charge::refund(ledger, charge, *amount), Some(charge.campaign)),
    };
    campaign.map_or(Ok(()), |campaign| check::touched(ledger, campaign))?;
    Ok(answer.unwrap_or_else(Verdict::Refused))
}
