//! What do routers hold of budgets that are billed at the impression, and what is lost when one dies?
//!
//! Each router has the purses that serve (`gavel_router::ledger::purse`), and asks the ledger that serves for its leases, in
//! virtual time. It reports leases that are over and asks for others once a second, a fifth as often as in a cluster.
//! Any router may answer a visit. An impression that was seen is reported some seconds later to the router that served
//! it, and a few are never reported.
//!
//! A router that is killed loses its purses: its leases hold their money until their time is over. While it is down
//! others answer its visits, and what was to be reported to it never is: beacons are not sent again. Clicks and
//! conversions are, to another router.
//!
//! On the panel's days no lease would live until the next visit; there, as where nobody runs out, budgets themselves are held.

use super::accounts::Accounts;
use crate::workload::Seeded;
use gavel_control::ledger::check::Violation;
use gavel_control::ledger::command::{Event, Heir, LeaseWish};
use gavel_control::ledger::types::Verdict;
use gavel_proto::hash::combine;
use gavel_proto::ids::{CampaignId, MemberId};
use gavel_proto::money::{BidType, Nanos};
use gavel_router::ledger::purse::{Granted, Hold, PURSES, Purse, Report, Wish, purse_of};
use gavel_router::merge::{Candidate, Ranking};
use serde::Serialize;
use std::cmp::Reverse;

/// Between two rounds of reports and wishes.
const ROUND_MS: u64 = 1_000;
/// The same where there are no leases, for the issuer alone.
const ROUND_UNLEASED_MS: u64 = 3_600_000;
/// A router asks for another issuer after so long, when the ledger does not confirm the old one any more.
const GRANT_MS: u64 = 12 * 3_600_000;
/// A router that was killed is back after so long; whole rounds. Ours.
const DOWN_MS: u64 = 10 * ROUND_MS;
/// Mean time until an impression is reported: an ad is seen for a second, and looked for before that. Ours.
const REPORT_MS: f64 = 5_000.0;
/// The share of the impressions that are never reported. Ours.
const LOST: f64 = 0.001;

const _: () = assert!(DOWN_MS.is_multiple_of(ROUND_MS), "who is back has an issuer before it answers");

/// What stands behind an impression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// So much of a lease, granted at that wall time.
    Lease { id: u64, wall_ms: u64, nanos: i64 },
    /// The budget itself.
    Budget,
}

/// From what are impressions paid?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paying {
    Leases,
    Budgets,
}

/// What became of leases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Leasing {
    pub routers: usize,
    pub leases: u64,
    pub crashes: u64,
    /// Winners that no lease had the money for and that were taken out of their auctions, each once.
    pub unleased: u64,
    /// Visits that came when every router was down.
    pub unanswered: u64,
    /// Seen and never reported, in nanos.
    pub lost_nanos: i64,
    /// Reported to a router that was down.
    pub unheard_nanos: i64,
    /// Reported too late.
    pub late_nanos: i64,
    /// The most that open leases held at once.
    pub open_max_nanos: i64,
}

#[derive(Clone, Debug, Default)]
struct Router {
    /// By campaign.
    purses: [Purse; PURSES],
    /// 0 before the first grant of a process.
    issuer: u64,
    granted_ms: u64,
    incarnation: u64,
    sequence: u64,
    killed_ms: u64,
    back_ms: u64,
}

impl Router {
    fn purse(&mut self, campaign: CampaignId) -> &mut Purse {
        &mut self.purses[purse_of(campaign)]
    }

    fn is_down(&self, at_ms: u64) -> bool {
        (self.killed_ms..self.back_ms).contains(&at_ms)
    }
}

/// The routers of a run.
#[derive(Debug)]
pub struct Routers {
    paying: Paying,
    all: Vec<Router>,
    /// Instants at which a router is killed, the next one last.
    kills: Vec<u64>,
    random: Seeded,
    next_round_ms: u64,
    pub leasing: Leasing,
}

impl Routers {
    /// So many routers, of which one is killed at so many instants of the run; where budgets pay there is one, which lives.
    pub fn open(paying: Paying, count: usize, (kills, length_ms): (u64, u64), seed: u64) -> Self {
        let mut random = Seeded::new(combine(seed, 0x0072_6f75_7465_7273));
        let (count, kills) = match paying {
            Paying::Leases => (count.max(1), kills),
            Paying::Budgets => (1, 0),
        };
        let mut kills: Vec<u64> = (0..kills).map(|_| random.next_u64() % length_ms.max(1)).collect();
        kills.sort_unstable_by_key(|at_ms| Reverse(*at_ms));
        let leasing = Leasing { routers: count, ..Leasing::default() };
        Self { paying, all: vec![Router::default(); count], kills, random, next_round_ms: 0, leasing }
    }

    /// The router that answers a visit; `None` when all are down.
    pub fn pick(&mut self, at_ms: u64) -> Option<usize> {
        let (count, first) = (self.all.len(), self.random.next_u64() as usize % self.all.len());
        // One that is down is passed over for the next.
        let live = (0..count).map(|step| (first + step) % count).find(|router| !self.is_down(*router, at_ms));
        self.leasing.unanswered += u64::from(live.is_none());
        live
    }

    /// Whether a router is down at an instant.
    pub fn is_down(&self, router: usize, at_ms: u64) -> bool {
        self.all[router].is_down(at_ms)
    }

    /// The issuer of a router and the next number of its tokens.
    pub fn number(&mut self, router: usize) -> (u64, u64) {
        let router = &mut self.all[router];
        router.sequence += 1;
        (router.issuer, router.sequence)
    }

    /// When an impression that was seen is reported; `None` for never.
    pub fn reported_ms(&mut self, at_ms: u64) -> Option<u64> {
        let is_lost = self.random.unit() <= LOST;
        // Not negative, and some minutes at most.
        let delay_ms = (-self.random.unit().ln() * REPORT_MS) as u64;
        (!is_lost).then_some(at_ms + delay_ms)
    }

    /// The next round, if it is due.
    pub fn due_ms(&self, until_ms: u64) -> Option<u64> {
        Some(self.next_round_ms).filter(|at_ms| *at_ms <= until_ms)
    }

    /// Kills whom it is time for; every other router reports, and asks.
    pub fn round(&mut self, at_ms: u64, accounts: &mut Accounts) -> Result<(), Violation> {
        self.next_round_ms = at_ms
            + match self.paying {
                Paying::Leases => ROUND_MS,
                Paying::Budgets => ROUND_UNLEASED_MS,
            };
        while self.kills.last().is_some_and(|kill_ms| *kill_ms <= at_ms) {
            self.kills.pop();
            let router = self.random.next_u64() as usize % self.all.len();
            self.kill(router, at_ms);
        }
        let live: Vec<usize> = (0..self.all.len()).filter(|router| !self.is_down(*router, at_ms)).collect();
        for router in &live {
            self.grant(*router, at_ms, accounts)?;
            self.report(*router, at_ms, accounts)?;
            self.ask(*router, &live, at_ms, accounts)?;
        }
        Ok(())
    }

    /// The run is over: routers that live report everything, as one that ends does.
    pub fn close(&mut self, at_ms: u64, accounts: &mut Accounts) -> Result<(), Violation> {
        self.leasing.open_max_nanos = accounts.leased_max;
        for router in self.all.iter_mut().filter(|router| !router.is_down(at_ms)) {
            let issuer = router.issuer;
            let reports: Vec<Report> = router.purses.iter_mut().flat_map(Purse::last_reports).collect();
            accounts.enter(at_ms, reports.iter().map(|report| closing(issuer, report)).collect())?;
        }
        Ok(())
    }

    /// Candidates that are billed at their impression: leases for them are asked for.
    pub fn see(&mut self, router: usize, ranking: &Ranking, at_ms: u64) {
        if self.paying == Paying::Budgets {
            return;
        }
        let router = &mut self.all[router];
        for candidate in ranking.iter().filter(|candidate| is_held(candidate.offer().bid_type)) {
            let campaign = candidate.offer().campaign;
            router.purse(campaign).see(campaign, held_at_most(candidate), at_ms);
        }
    }

    /// Holds the price of an impression.
    pub fn hold(&mut self, router: usize, candidate: &Candidate, at_ms: u64, accounts: &Accounts) -> Option<Held> {
        let (campaign, most) = (candidate.offer().campaign, held_at_most(candidate));
        match self.paying {
            Paying::Budgets => (accounts.left(campaign) >= most).then_some(Held::Budget),
            Paying::Leases => match self.all[router].purse(campaign).hold(campaign, most, at_ms) {
                Some(Hold::Lease { id, wall_ms, nanos }) => Some(Held::Lease { id, wall_ms, nanos }),
                // Every campaign has a budget.
                Some(Hold::Unbudgeted) | None => None,
            },
        }
    }

    /// Gives back what was held beyond a price.
    pub fn release(&mut self, router: usize, candidate: &Candidate, held: Held, price: i64) {
        match held {
            Held::Lease { id, nanos, .. } => {
                let campaign = candidate.offer().campaign;
                self.all[router].purse(campaign).release(campaign, id, nanos - price);
            }
            Held::Budget => {}
        }
    }

    fn kill(&mut self, router: usize, at_ms: u64) {
        if self.is_down(router, at_ms) {
            return;
        }
        let router = &mut self.all[router];
        router.purses = Default::default();
        (router.issuer, router.incarnation) = (0, router.incarnation + 1);
        (router.killed_ms, router.back_ms) = (at_ms, at_ms + DOWN_MS);
        self.leasing.crashes += 1;
    }

    /// An issuer for this process; the same one while the ledger confirms it.
    fn grant(&mut self, at: usize, at_ms: u64, accounts: &mut Accounts) -> Result<(), Violation> {
        let router = &mut self.all[at];
        if router.issuer != 0 && at_ms < router.granted_ms + GRANT_MS {
            return Ok(());
        }
        let wish = Event::GrantIssuer { member: member(at), incarnation: router.incarnation };
        if let Some(Verdict::Issuer(issuer)) = accounts.enter(at_ms, vec![wish])?.first() {
            // Leases are bound to their issuer: those of the old one end by themselves.
            router.purses.iter_mut().for_each(Purse::clear);
            (router.issuer, router.granted_ms) = (*issuer, at_ms);
        }
        Ok(())
    }

    /// Reports the leases that are over.
    fn report(&mut self, at: usize, at_ms: u64, accounts: &mut Accounts) -> Result<(), Violation> {
        let router = &mut self.all[at];
        let reports: Vec<Report> = router.purses.iter_mut().flat_map(|purse| purse.reports(at_ms)).collect();
        if reports.is_empty() {
            return Ok(());
        }
        let issuer = router.issuer;
        accounts.enter(at_ms, reports.iter().map(|report| closing(issuer, report)).collect()).map(drop)
    }

    /// Asks for the leases that are wanted.
    fn ask(&mut self, at: usize, live: &[usize], at_ms: u64, accounts: &mut Accounts) -> Result<(), Violation> {
        let router = &mut self.all[at];
        let wishes: Vec<Wish> = router.purses.iter_mut().flat_map(|purse| purse.wishes(at_ms)).collect();
        if wishes.is_empty() {
            return Ok(());
        }
        let opens = wishes.iter().map(|wish| Event::OpenLease(lease_wish(wish, router.issuer, at, live))).collect();
        for (wish, verdict) in wishes.iter().zip(accounts.enter(at_ms, opens)?) {
            let granted = granted(&verdict);
            self.leasing.leases += u64::from(matches!(granted, Granted::Lease { .. }));
            router.purse(wish.campaign).granted(wish.campaign, granted, at_ms);
        }
        Ok(())
    }
}

/// Whether routers hold the price before they serve.
pub const fn is_held(bid_type: BidType) -> bool {
    bid_type.is_billed_by_impression()
}

/// The most that one impression may cost, in nanos: a price per mille in micros is one impression's in nanos.
fn held_at_most(candidate: &Candidate) -> i64 {
    i64::try_from(candidate.billed(candidate.offer().bid).0).unwrap_or(i64::MAX)
}

const fn member(router: usize) -> MemberId {
    MemberId(router as u64 + 1)
}

/// A router's last word on a lease.
fn closing(issuer: u64, report: &Report) -> Event {
    Event::CloseLease { issuer, lease: report.lease, issued: Nanos(report.issued) }
}

/// What a router asks of the ledger: the heir of a campaign's rest is the one with the highest hash of both.
fn lease_wish(wish: &Wish, issuer: u64, own: usize, live: &[usize]) -> LeaseWish {
    let heir = live.iter().max_by_key(|router| combine(wish.campaign.0, member(**router).0));
    LeaseWish {
        issuer,
        wish: wish.number,
        campaign: wish.campaign,
        rate: Nanos(wish.rate),
        price_max: Nanos(wish.price_max.max(1)),
        routers: u32::try_from(live.len()).unwrap_or(u32::MAX),
        heir: if heir.is_none_or(|heir| *heir == own) { Heir::Own } else { Heir::Other },
    }
}

fn granted(verdict: &Verdict) -> Granted {
    match verdict {
        Verdict::Lease { id, amount, wall_ms } => Granted::Lease { id: *id, amount: amount.0, wall_ms: *wall_ms },
        Verdict::Refused(_) | Verdict::Done | Verdict::Duplicate | Verdict::Issuer(_) => Granted::Refused,
    }
}
