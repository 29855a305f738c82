//! What has each campaign spent, and what is left of its budgets?
//!
//! The ledger that serves (`gavel_control::ledger`), entry by entry in virtual time, with its own checks after each of
//! them: at no entry is more charged than the budget. Clicks and conversions come late, and are charged to the day or week
//! of their ads while its budget lasts; what comes beyond is delivered for nothing. So is an impression whose report comes
//! when its lease has ended, or never.
//!
//! A lease that has ended gives back what it still holds: for ads that nobody saw, which are never billed and held until
//! then, and for what was delivered for nothing, which cannot be more than the rest.

use super::arrivals::{DAY_MS, WEEK};
use super::world::MarketCampaign;
use gavel_control::ledger::calendar::{Period, Zone};
use gavel_control::ledger::check::Violation;
use gavel_control::ledger::command::{Batch, Event};
use gavel_control::ledger::types::{Charge, ChargeId, EventKind, LeaseStage, Origin, Source, Verdict};
use gavel_control::ledger::{Ledger, RETURN_MS, apply};
use gavel_control::pacing::books::{Books, leased, page};
use gavel_proto::ids::{AdvertiserId, CampaignId};
use gavel_proto::limits::LEDGER_AMOUNT_NANOS_MAX;
use gavel_proto::money::Nanos;
use std::collections::BTreeMap;

/// Where virtual time begins on the ledger's wall: midnight of a Monday, UTC, so that days and weeks are those of the run.
const BASE_MS: u64 = 20_304 * DAY_MS;

/// Are budgets kept?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budgets {
    /// Nobody runs out: what would be spent.
    Unlimited,
    /// A campaign ends when its budget does.
    Kept,
}

/// The sums of one campaign over the run, in nanos.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// All its budgets.
    pub budget: i64,
    pub charged: i64,
    /// Delivered for nothing.
    pub free: i64,
    /// That were charged.
    pub events: u64,
    /// Charged beyond the budget of a period, whatever others have left.
    pub beyond: i64,
    /// Held to the end by leases that nobody reported: their routers had died, or had got another issuer.
    pub unreported: i64,
    /// Held to the end by leases that were reported: issued, and not charged in time.
    pub unposted: i64,
    /// Held by leases for impressions that nobody saw.
    pub unseen: i64,
}

impl Account {
    /// What leases gave back when their time was over, besides what was held for impressions that nobody saw.
    pub const fn given_back(&self) -> i64 {
        self.unreported + self.unposted - self.unseen
    }
}

/// An event that is billed, as the token of its ad names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Billed {
    pub issuer: u64,
    pub sequence: u64,
    pub kind: EventKind,
    /// The campaign's place in the world.
    pub place: u32,
    /// In virtual time.
    pub issued_ms: u64,
    /// The lease that holds its price, and the wall time of the grant; else the budget pays.
    pub lease: Option<(u64, u64)>,
    pub nanos: i64,
    pub bid_nanos: i64,
}

/// The ledger of a run.
#[derive(Debug)]
pub struct Accounts {
    ledger: Ledger,
    /// Virtual time of the last entry.
    now_ms: u64,
    /// By place, ascending.
    ids: Vec<CampaignId>,
    pub total: Vec<Account>,
    /// How long a budget is for.
    period_ms: u64,
    /// By place: the budget of a period, and what was charged to each.
    periods: Vec<(i64, BTreeMap<u64, i64>)>,
    /// The most that open leases held at once.
    pub leased_max: i64,
}

impl Accounts {
    /// Sets the budgets of campaigns, ascending by id: one a day, or one a week, for so many of them.
    pub fn open(
        campaigns: &[MarketCampaign],
        budgets: Budgets,
        (period_days, periods): (u64, u64),
    ) -> Result<Self, Violation> {
        let budget = |campaign: &MarketCampaign| match budgets {
            Budgets::Unlimited => LEDGER_AMOUNT_NANOS_MAX,
            Budgets::Kept => campaign.budget_nanos.clamp(1, LEDGER_AMOUNT_NANOS_MAX),
        };
        let set = |campaign: &MarketCampaign| {
            let budget = Some(Nanos(budget(campaign)));
            Event::SetCampaign {
                campaign: CampaignId(campaign.id),
                advertiser: AdvertiserId(campaign.advertiser),
                budgets: if period_days == WEEK { [None, budget, None] } else { [budget, None, None] },
                zone: Zone::default(),
            }
        };
        let count = i64::try_from(periods).unwrap_or(i64::MAX);
        let total = |campaign| Account { budget: budget(campaign).saturating_mul(count), ..Account::default() };
        let mut this = Self {
            ledger: Ledger::genesis("market"),
            now_ms: 0,
            ids: campaigns.iter().map(|campaign| CampaignId(campaign.id)).collect(),
            total: campaigns.iter().map(total).collect(),
            period_ms: period_days * DAY_MS,
            periods: campaigns.iter().map(|campaign| (budget(campaign), BTreeMap::new())).collect(),
            leased_max: 0,
        };
        this.enter(0, campaigns.iter().map(set).collect())?;
        Ok(this)
    }

    /// Applies an entry at an instant; one that lies before the last entry's is applied at that.
    pub fn enter(&mut self, at_ms: u64, events: Vec<Event>) -> Result<Vec<Verdict>, Violation> {
        let passed_ms = at_ms.saturating_sub(self.now_ms);
        self.now_ms += passed_ms;
        // Leases alone end by the interval; each minute of it the ledger looks at everything.
        let elapsed_ms = if self.ledger.leases.is_empty() { 0 } else { passed_ms };
        self.note_ended(self.ledger.clock_ms + elapsed_ms);
        apply(&mut self.ledger, &Batch { elapsed_ms, wall_ms: BASE_MS + self.now_ms, events })
    }

    /// Charges an event: in full or not at all. Whether it was.
    pub fn charge(&mut self, at_ms: u64, billed: &Billed) -> Result<bool, Violation> {
        let charge = self.charge_of(billed);
        let period = charge.period_ms.saturating_sub(BASE_MS) / self.period_ms;
        let is_charged = self.enter(at_ms, vec![Event::Charge(charge)])?.first() == Some(&Verdict::Done);
        if is_charged {
            self.count(billed, period);
        } else {
            self.deliver_free(billed);
        }
        Ok(is_charged)
    }

    /// Counts what was charged to a period.
    fn count(&mut self, billed: &Billed, period: u64) {
        let place = billed.place as usize;
        let (budget, charged) = &mut self.periods[place];
        let charged = charged.entry(period).or_default();
        *charged += billed.nanos;
        let total = &mut self.total[place];
        total.charged += billed.nanos;
        total.events += 1;
        total.beyond += (*charged - *budget).clamp(0, billed.nanos);
    }

    /// An event happened, and the ledger does not hear of it or refuses it.
    pub fn deliver_free(&mut self, billed: &Billed) {
        self.total[billed.place as usize].free += billed.nanos;
    }

    /// An ad that nobody saw is not billed; what its lease holds for it is back when the lease's time is over.
    pub fn pass_unseen(&mut self, billed: &Billed) {
        if billed.lease.is_some() {
            self.total[billed.place as usize].unseen += billed.nanos;
        }
    }

    /// What is neither charged nor leased of the budget that pays now.
    pub fn left(&self, campaign: CampaignId) -> i64 {
        let Some(held) = self.ledger.campaigns.get(&campaign) else { return 0 };
        let left = |(period, budget): (Period, Nanos)| {
            self.ledger.accounts.get(&(campaign, period)).map_or(budget.0, |account| account.available.0)
        };
        held.periods(self.ledger.wall_ms).map(left).min().unwrap_or(0)
    }

    /// What the pacer looks at, by place.
    pub fn books(&mut self) -> Vec<Books> {
        let mut rests: BTreeMap<CampaignId, Nanos> = BTreeMap::new();
        for (campaign, rest) in leased(&self.ledger, 0, usize::MAX).0 {
            rests.entry(campaign).or_default().0 += rest.0;
        }
        self.leased_max = self.leased_max.max(rests.values().map(|rest| rest.0).sum());
        page(&self.ledger, None, self.ids.len(), &rests)
    }

    /// Nothing comes any more: the time of every lease passes.
    pub fn close(&mut self) -> Result<(), Violation> {
        self.enter(self.now_ms + RETURN_MS, Vec::new()).map(drop)
    }

    /// Counts what leases give back whose time will be over.
    fn note_ended(&mut self, clock_ms: u64) {
        // In the order of their ids, which is that of their grants.
        for lease in self.ledger.leases.values() {
            if clock_ms < lease.granted_clock_ms + RETURN_MS {
                break;
            }
            let Ok(place) = self.ids.binary_search(&lease.campaign) else { continue };
            let rest = lease.amount.0 - lease.posted.0;
            match lease.stage {
                LeaseStage::Open => self.total[place].unreported += rest,
                LeaseStage::Reported => self.total[place].unposted += rest,
            }
        }
    }

    fn charge_of(&self, billed: &Billed) -> Charge {
        let issued_ms = BASE_MS + billed.issued_ms;
        let (source, period_ms) = match billed.lease {
            Some((lease, wall_ms)) => (Source::Lease(lease), wall_ms),
            None => (Source::Budget, issued_ms),
        };
        Charge {
            id: ChargeId { issuer: billed.issuer, sequence: billed.sequence, kind: billed.kind },
            campaign: self.ids[billed.place as usize],
            issued_ms,
            expires_ms: issued_ms + billed.kind.window_ms(),
            period_ms,
            price: Nanos(billed.nanos),
            bid: Nanos(billed.bid_nanos),
            source,
            origin: Origin::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gavel_control::ledger::command::{Heir, LeaseWish};
    use gavel_proto::ids::MemberId;
    use gavel_proto::money::BidType;

    /// One campaign with a budget a day, and one issuer.
    fn accounts(budget_nanos: i64, days: u64) -> Accounts {
        let campaign = MarketCampaign { id: 9, advertiser: 1, bid_type: BidType::Cpc, bid_micros: 5, budget_nanos };
        let mut accounts = Accounts::open(&[campaign], Budgets::Kept, (1, days)).expect("opens");
        let grant = Event::GrantIssuer { member: MemberId(1), incarnation: 1 };
        assert_eq!(accounts.enter(0, vec![grant]), Ok(vec![Verdict::Issuer(1)]));
        accounts
    }

    fn billed(sequence: u64, issued_ms: u64, nanos: i64) -> Billed {
        let (kind, bid_nanos) = (EventKind::Click, i64::from(u32::MAX));
        Billed { issuer: 1, sequence, kind, place: 0, issued_ms, lease: None, nanos, bid_nanos }
    }

    #[test]
    fn nothing_is_charged_beyond_the_budget_and_late_events_go_to_their_day() {
        let mut accounts = accounts(10, 2);
        let mut charge = |at_ms, event: Billed| accounts.charge(at_ms, &event).expect("the ledger holds");
        assert!(charge(1_000, billed(1, 0, 7)) && !charge(2_000, billed(2, 0, 5)));
        // The click of yesterday's ad: yesterday has three left, today all.
        assert!(charge(DAY_MS + 1, billed(3, DAY_MS - 1, 3)) && charge(DAY_MS + 1, billed(4, DAY_MS, 1)));
        assert_eq!(accounts.left(CampaignId(9)), 9);
        let sums = Account { budget: 20, charged: 11, free: 5, events: 3, ..Account::default() };
        assert_eq!(accounts.total, [sums]);
    }

    /// Were the ledger wrong: yesterday's two too many are not made up for by what today has left.
    #[test]
    fn a_budget_that_is_exceeded_is_seen_whatever_other_days_have_left() {
        let mut accounts = accounts(10, 2);
        for (nanos, day, beyond) in [(9, 0, 0), (3, 0, 2), (4, 1, 2), (5, 0, 7)] {
            accounts.count(&billed(1, 0, nanos), day);
            assert_eq!(accounts.total[0].beyond, beyond, "{nanos} of day {day}");
        }
        assert_eq!((accounts.total[0].charged, accounts.total[0].budget), (21, 20));
    }

    /// What a lease gives back by time bounds what was delivered for nothing from it, reported or not; what nobody saw is no
    /// part of that.
    #[test]
    fn a_lease_that_ends_says_what_may_have_been_free() {
        let mut accounts = accounts(1_000, 1);
        let wish = |wish| {
            let (rate, price_max) = (Nanos::ZERO, Nanos(40));
            let campaign = CampaignId(9);
            Event::OpenLease(LeaseWish { issuer: 1, wish, campaign, rate, price_max, routers: 1, heir: Heir::Own })
        };
        let granted = accounts.enter(0, vec![wish(1), wish(2)]).expect("two leases");
        let lease = |id| Verdict::Lease { id, amount: Nanos(40), wall_ms: BASE_MS };
        assert_eq!(granted, [lease(1), lease(2)]);
        assert_eq!((accounts.left(CampaignId(9)), accounts.books()[0].leased), (920, Nanos(80)));
        let seen = |sequence, lease| {
            let kind = EventKind::Impression;
            Billed { kind, lease: Some((lease, BASE_MS)), ..billed(sequence, 100, 15) }
        };
        assert_eq!(accounts.charge(200, &seen(1, 1)), Ok(true));
        accounts.pass_unseen(&Billed { nanos: 8, ..seen(3, 1) });
        accounts.pass_unseen(&Billed { lease: None, ..seen(4, 1) });
        accounts.enter(300, vec![Event::CloseLease { issuer: 1, lease: 1, issued: Nanos(38) }]).expect("reports");
        // One of the first lease is reported too late; nothing is ever heard of the second, and its router has died.
        assert_eq!(accounts.charge(RETURN_MS, &seen(2, 1)), Ok(false));
        let total = accounts.total[0];
        assert_eq!((total.charged, total.free), (15, 15));
        assert_eq!((total.unposted, total.unreported, total.unseen), (23, 40, 8));
        assert_eq!((total.given_back(), accounts.leased_max, accounts.left(CampaignId(9))), (55, 80, 985));
    }

    /// Pinterest's example: $100 at $0.10 an impression pay for 1,000 impressions; 1,100 were shown, 100 of them for
    /// nothing, which is an over-delivery of a tenth, and each came to $0.0909.
    #[test]
    fn the_published_over_delivery() {
        const CENT: i64 = 10_000_000;
        let mut accounts = accounts(10_000 * CENT, 1);
        for sequence in 0..1_100 {
            let shown = Billed { kind: EventKind::Impression, ..billed(sequence, 0, 10 * CENT) };
            accounts.charge(0, &shown).expect("the ledger holds");
        }
        let total = accounts.total[0];
        assert_eq!((total.events, total.charged, total.free), (1_000, 10_000 * CENT, 1_000 * CENT));
        assert!((total.free as f64 / total.budget as f64 - 0.1).abs() < 1e-12);
        assert!((total.charged as f64 / 1_100.0 / 1e9 - 0.0909).abs() < 5e-5);
        // Policies elsewhere let a day spend twice its budget and a month 30.4 times ($200 and $3,040 of $100 a day). A
        // day's budget is hard here, and there is none over a month.
        assert_eq!(accounts.left(CampaignId(9)), 0);
    }

    /// A budget breaks truthfulness (lecture notes on pacing equilibria): of two goods worth 2 each at prices of 1.6 and
    /// 1.7 a budget of 3 pays for one, and the first is the better one, at a gain of 0.4.
    #[test]
    fn the_published_budget_that_pays_for_one_good() {
        const TENTH: i64 = 100_000_000;
        let gain = |prices: [i64; 2]| {
            let mut accounts = accounts(30 * TENTH, 1);
            let worth = (1u64..).zip(prices).map(|(sequence, price)| {
                let good = Billed { bid_nanos: 20 * TENTH, ..billed(sequence, 0, price * TENTH) };
                if accounts.charge(0, &good).expect("the ledger holds") { 20 - price } else { 0 }
            });
            worth.sum::<i64>()
        };
        assert_eq!((gain([16, 17]), gain([17, 16])), (4, 3));
    }
}
