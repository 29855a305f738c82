//! What of the ledger does the pacer look at?
//!
//! Of each campaign with a budget the accounts that pay now, and what open leases may still serve. The ledger is copied in
//! pages, so that nobody who applies entries waits for a look at a million campaigns; each campaign is as one entry left it.

use std::collections::BTreeMap;

use gavel_proto::ids::CampaignId;
use gavel_proto::money::Nanos;

use crate::ledger::calendar::Period;
use crate::ledger::types::LeaseStage;
use crate::ledger::{Account, Ledger};

/// An account that pays now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paying {
    /// Which day, week or life.
    pub period: Period,
    /// How it stands.
    pub account: Account,
    /// When its period began, milliseconds since 1970, and how long it is; `None` for a life.
    pub span_ms: Option<(u64, u64)>,
}

/// One campaign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Books {
    /// Which.
    pub campaign: CampaignId,
    /// Its accounts.
    pub paying: Vec<Paying>,
    /// What routers may still serve from open leases.
    pub leased: Nanos,
}

/// The unposted rests of open leases after one, at most so many leases; and the last of them, if there may be more.
#[must_use]
pub fn leased(ledger: &Ledger, after: u64, max: usize) -> (Vec<(CampaignId, Nanos)>, Option<u64>) {
    let mut rests = Vec::new();
    let mut last = None;
    for (at, (id, lease)) in ledger.leases.range(after.saturating_add(1)..).take(max).enumerate() {
        if lease.stage == LeaseStage::Open {
            rests.push((lease.campaign, Nanos(lease.amount.0 - lease.posted.0)));
        }
        last = (at + 1 == max).then_some(*id);
    }
    (rests, last)
}

/// The campaigns after one, at most so many.
#[must_use]
pub fn page(
    ledger: &Ledger,
    after: Option<CampaignId>,
    max: usize,
    leased: &BTreeMap<CampaignId, Nanos>,
) -> Vec<Books> {
    let from = after.map_or(0, |id| id.0.saturating_add(1));
    let from = if after == Some(CampaignId(u64::MAX)) { return Vec::new() } else { CampaignId(from) };
    let one = |(id, campaign): (&CampaignId, &crate::ledger::types::Campaign)| {
        let paying = campaign.periods(ledger.wall_ms).map(|(period, budget)| {
            let fresh = Account { deposited: budget, available: budget, ..Account::default() };
            let span = campaign.zone.elapsed_ms(period.span, ledger.wall_ms);
            Paying {
                period,
                account: ledger.accounts.get(&(*id, period)).copied().unwrap_or(fresh),
                span_ms: span.map(|(elapsed, length)| (ledger.wall_ms.saturating_sub(elapsed), length)),
            }
        });
        let leased = leased.get(id).copied().unwrap_or(Nanos::ZERO);
        Books { campaign: *id, paying: paying.collect(), leased }
    };
    ledger.campaigns.range(from..).take(max).map(one).collect()
}
