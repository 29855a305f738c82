//! Do accounts and leases do what a published banker's accounts do?
//!
//! The figures are those of RTBkit's `banker_account_test.cc`; a USD is 1,000 nanos here. A budget is its campaign account,
//! a lease its child account, and a charge what it commits. These of its parts have no counterpart, and are not here:
//!
//! * columns that only grow, accepted as "same or past version": its copies exchange totals, ours apply one log;
//! * increases and decreases of a budget as columns: an account has what was put in, the journal has the changes;
//! * `authorize`, `detach` and `cancel`: a router holds by itself, from its purse (`router/src/ledger/purse.rs`); the ledger
//!   sees what is charged in the end, and refuses what the lease does not hold;
//! * `recuperate` of a spend account: what is charged is posted in the account that the lease came from;
//! * accounts below a child account (leaves of a strategy): a lease is lent on to nobody.

use gavel_proto::money::Micros;

use super::*;
use crate::ledger::campaign::available;

const USD: i64 = 1_000;

fn budget(usd: i64) -> Event {
    let (campaign, advertiser, zone) = (CampaignId(1), AdvertiserId(9), Zone::default());
    Event::SetCampaign { campaign, advertiser, budgets: lifetime(usd * USD), zone }
}

/// An account with so much in it, and two routers.
fn begun(usd: i64) -> Both {
    let mut both = Both::begin(lifetime(usd * USD), Zone::default());
    assert_eq!(both.one(Event::GrantIssuer { member: MemberId(8), incarnation: 1 }), Verdict::Issuer(2));
    both
}

/// What the budget has neither leased nor charged.
fn balance(both: &Both) -> i64 {
    let campaign = CampaignId(1);
    available(&both.ledger, campaign, &both.ledger.campaigns[&campaign], both.ledger.wall_ms).0
}

/// A lease of so much: five seconds of spending, or all that is left when that is too little to share.
fn lease(both: &mut Both, issuer: u64, nanos: i64) -> u64 {
    let (rate, price_max) = (Nanos(nanos / 5), Nanos(nanos));
    let wish = LeaseWish { issuer, wish: 0, campaign: CampaignId(1), rate, price_max, routers: 1, heir: Heir::Own };
    match both.one(Event::OpenLease(wish)) {
        Verdict::Lease { id, amount, .. } => {
            assert_eq!(amount, Nanos(nanos));
            id
        }
        other @ (Verdict::Done | Verdict::Duplicate | Verdict::Issuer(_) | Verdict::Refused(_)) => {
            panic!("a lease of {nanos}: {other:?}")
        }
    }
}

/// What a lease holds and was not charged.
fn left(both: &Both, lease: u64) -> i64 {
    let lease = &both.ledger.leases[&lease];
    lease.amount.0 - lease.posted.0
}

fn close(both: &mut Both, issuer: u64, lease: u64, issued: i64) {
    assert_eq!(both.one(Event::CloseLease { issuer, lease, issued: Nanos(issued) }), Verdict::Done);
}

#[test]
fn a_budget_goes_up_and_down_and_not_below_what_is_allocated() {
    let mut both = begun(8);
    assert_eq!(balance(&both), 8 * USD);
    for usd in [7, 8, 13, 10] {
        assert_eq!(both.one(budget(usd)), Verdict::Done);
        assert_eq!(balance(&both), usd * USD);
    }
    let lent = lease(&mut both, 1, 10 * USD);
    assert_eq!(both.one(budget(13)), Verdict::Done);
    assert_eq!((balance(&both), left(&both, lent)), (3 * USD, 10 * USD));
    assert_eq!(both.one(budget(9)), Verdict::Refused(Refusal::BelowCommitted));
    assert_eq!(balance(&both), 3 * USD, "a refusal changes nothing");
    assert_eq!(both.one(budget(10)), Verdict::Done);
    assert_eq!(balance(&both), 0);
    // What is charged is committed like what is allocated.
    assert_eq!(both.one(Event::Charge(charge(1, USD, MORNING_MS, Source::Lease(lent)))), Verdict::Done);
    close(&mut both, 1, lent, USD);
    assert_eq!(both.one(budget(0)), Verdict::Refused(Refusal::BelowCommitted));
    assert_eq!(both.one(budget(1)), Verdict::Done);
    assert_eq!(both.account(Span::Lifetime, 0), [USD, 0, 0, USD, 0]);
}

/// Five rounds: two are held, one ad is cancelled, the other costs half of its bid, and everything else comes back.
#[test]
fn what_is_allocated_is_spent_or_comes_back() {
    let mut both = begun(10);
    for round in 0..5 {
        let lent = lease(&mut both, 1, 2 * USD);
        let spent = i64::try_from(round).expect("small") * USD / 2;
        assert_eq!((balance(&both), left(&both, lent)), (8 * USD - spent, 2 * USD));
        let too_much = Charge { bid: Nanos(3 * USD), ..charge(100, 2 * USD + 1, MORNING_MS, Source::Lease(lent)) };
        assert_eq!(both.one(Event::Charge(too_much)), Verdict::Refused(Refusal::ExceedsLease));
        let paid = charge(round, USD / 2, MORNING_MS, Source::Lease(lent));
        assert_eq!(both.one(Event::Charge(paid)), Verdict::Done);
        close(&mut both, 1, lent, USD / 2);
        assert_eq!((balance(&both), left(&both, lent)), (10 * USD - spent - USD / 2, 0));
    }
    assert_eq!(both.account(Span::Lifetime, 0), [10 * USD, 7_500, 0, 2_500, 0]);
}

#[test]
fn a_child_that_has_spent_gets_more_from_the_campaign() {
    let mut both = begun(10);
    let (strategy, strategy2) = (lease(&mut both, 1, 2 * USD), lease(&mut both, 2, 2 * USD));
    assert_eq!(balance(&both), 6 * USD);
    assert_eq!(both.one(Event::Charge(charge(1, USD, MORNING_MS, Source::Lease(strategy)))), Verdict::Done);
    assert_eq!(left(&both, strategy), USD);
    // A lease is not filled up: the next one stands beside it.
    let next = lease(&mut both, 1, USD);
    assert_eq!(left(&both, strategy) + left(&both, next), 2 * USD);
    assert_eq!((balance(&both), left(&both, strategy2)), (5 * USD, 2 * USD));
}

#[test]
fn a_child_that_is_closed_gives_back_what_it_holds() {
    let mut both = begun(10);
    let (first, other) = (lease(&mut both, 1, 2 * USD), lease(&mut both, 2, 2 * USD));
    let second = lease(&mut both, 1, USD);
    assert_eq!(balance(&both), 5 * USD, "three for one router, two for the other");
    close(&mut both, 1, first, 0);
    close(&mut both, 1, second, 0);
    assert_eq!((balance(&both), left(&both, other)), (8 * USD, 2 * USD));
    close(&mut both, 2, other, 0);
    assert_eq!(balance(&both), 10 * USD);
}

#[test]
fn money_is_written_in_millionths() {
    assert_eq!(Micros::parse("10"), Ok(Micros(10_000_000)));
}
