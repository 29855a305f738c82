//! Is the ledger what the auditor says, whatever happens in whatever order?
//!
//! The auditor is the oracle: other code, every charge in one map, 128 bits. Histories are drawn from a seed: budgets,
//! leases, charges, events again and out of order, refunds, and time that stands still, passes, or jumps over days.

mod audit;
mod banker;

use std::collections::BTreeMap;

use gavel_proto::hash::combine;
use gavel_proto::ids::{AdvertiserId, CampaignId, MemberId};
use gavel_proto::money::Nanos;

use super::calendar::{Period, Span, Zone};
use super::check::{Invariant, scan};
use super::command::{Batch, Event, Heir, LeaseWish};
use super::types::{Charge, ChargeId, EventKind, Origin, Refusal, Source, Verdict};
use super::{HOUR_MS, Ledger, apply};
use crate::audit::{Book, Findings, read};

const DAY_MS: u64 = 24 * HOUR_MS;
/// A Wednesday, 2026-11-25 10:00 UTC.
const MORNING_MS: u64 = 1_795_600_800_000;

/// A ledger with the auditor beside it.
struct Both {
    ledger: Ledger,
    book: Book,
    findings: Findings,
    index: u64,
}

impl Both {
    fn new() -> Self {
        Self { ledger: Ledger::genesis("test"), book: Book::new(), findings: Findings::default(), index: 0 }
    }

    /// Applies one entry, and has it audited.
    fn entry(&mut self, elapsed_ms: u64, wall_ms: u64, events: Vec<Event>) -> Vec<Verdict> {
        let batch = Batch { elapsed_ms, wall_ms, events };
        self.index += 1;
        let verdicts = apply(&mut self.ledger, &batch).expect("the invariants hold");
        read(&mut self.book, &mut self.findings, self.index, &batch, &verdicts);
        assert_eq!(self.findings.faults, Vec::<String>::new());
        verdicts
    }

    fn one(&mut self, event: Event) -> Verdict {
        self.entry(0, self.ledger.wall_ms, vec![event]).remove(0)
    }

    fn begin(budgets: [Option<Nanos>; 3], zone: Zone) -> Self {
        let mut both = Self::new();
        both.entry(0, MORNING_MS, Vec::new());
        assert_eq!(both.one(Event::GrantIssuer { member: MemberId(7), incarnation: 1 }), Verdict::Issuer(1));
        let set = Event::SetCampaign { campaign: CampaignId(1), advertiser: AdvertiserId(9), budgets, zone };
        assert_eq!(both.one(set), Verdict::Done);
        both
    }

    fn account(&self, span: Span, number: i64) -> [i64; 5] {
        let account = self.ledger.accounts[&(CampaignId(1), Period { span, number })];
        [account.deposited, account.available, account.pending, account.posted, account.refunded].map(|n| n.0)
    }
}

fn charge(sequence: u64, price: i64, issued_ms: u64, source: Source) -> Charge {
    let kind = if source == Source::Budget { EventKind::Click } else { EventKind::Impression };
    let expires_ms = issued_ms + kind.window_ms();
    Charge {
        id: ChargeId { issuer: 1, sequence, kind },
        campaign: CampaignId(1),
        issued_ms,
        expires_ms,
        period_ms: issued_ms,
        price: Nanos(price),
        bid: Nanos(1_000),
        source,
        origin: Origin::default(),
    }
}

fn wish(price_max: i64, heir: Heir) -> Event {
    let (rate, price_max) = (Nanos::ZERO, Nanos(price_max));
    Event::OpenLease(LeaseWish { issuer: 1, wish: 0, campaign: CampaignId(1), rate, price_max, routers: 2, heir })
}

/// A click of a token issued at a time, whose day pays.
fn click(sequence: u64, price: i64, issued_ms: u64) -> Event {
    Event::Charge(charge(sequence, price, issued_ms, Source::Budget))
}

const fn lifetime(nanos: i64) -> [Option<Nanos>; 3] {
    [None, None, Some(Nanos(nanos))]
}

#[test]
fn a_click_is_charged_once_and_free_when_the_budget_is_gone() {
    let mut both = Both::begin(lifetime(1_000), Zone::default());
    let click = |sequence, price| Event::Charge(charge(sequence, price, MORNING_MS, Source::Budget));
    assert_eq!(both.one(click(1, 700)), Verdict::Done);
    assert_eq!(both.one(click(1, 700)), Verdict::Duplicate);
    assert_eq!(both.one(click(2, 301)), Verdict::Refused(Refusal::OverBudget));
    // It stays free though a smaller one still fits, and though the budget grows.
    assert_eq!(both.one(click(3, 300)), Verdict::Done);
    let more = Event::SetCampaign {
        campaign: CampaignId(1),
        advertiser: AdvertiserId(9),
        budgets: lifetime(5_000),
        zone: Zone::default(),
    };
    assert_eq!(both.one(more), Verdict::Done);
    assert_eq!(both.one(click(2, 301)), Verdict::Refused(Refusal::OverBudget));
    assert_eq!(both.account(Span::Lifetime, 0), [5_000, 4_000, 0, 1_000, 0]);
    let campaign = &both.ledger.campaigns[&CampaignId(1)];
    assert_eq!((campaign.free_events, campaign.free), (1, Nanos(301)));
}

#[test]
fn a_price_above_the_bid_and_a_token_of_nobody_are_refused() {
    let mut both = Both::begin(lifetime(1_000_000), Zone::default());
    let good = charge(1, 10, MORNING_MS, Source::Budget);
    let refused = [
        (Charge { price: Nanos(1_001), ..good }, Refusal::Price),
        (Charge { price: Nanos(-1), ..good }, Refusal::Price),
        (Charge { id: ChargeId { issuer: 2, ..good.id }, ..good }, Refusal::UnknownIssuer),
        (Charge { campaign: CampaignId(2), ..good }, Refusal::UnknownCampaign),
        (Charge { issued_ms: MORNING_MS + 3 * HOUR_MS, ..good }, Refusal::Early),
        (Charge { expires_ms: MORNING_MS + 8 * DAY_MS, ..good }, Refusal::Invalid),
        (Charge { expires_ms: MORNING_MS - 1, ..good }, Refusal::Expired),
        (Charge { period_ms: MORNING_MS - DAY_MS, ..good }, Refusal::Invalid),
        (Charge { source: Source::Lease(1), ..good }, Refusal::LeaseUnknown),
    ];
    for (charge, refusal) in refused {
        assert_eq!(both.one(Event::Charge(charge)), Verdict::Refused(refusal), "{charge:?}");
    }
}

#[test]
fn a_lease_holds_money_until_its_time_is_over() {
    let mut both = Both::begin(lifetime(10_000), Zone::default());
    let wall_ms = MORNING_MS;
    // min(max(5 s of nothing, 100), 10,000 / 8), and then again; a third one is too many.
    assert_eq!(both.one(wish(100, Heir::Other)), Verdict::Lease { id: 1, amount: Nanos(100), wall_ms });
    assert_eq!(both.one(wish(1_000, Heir::Other)), Verdict::Lease { id: 2, amount: Nanos(1_000), wall_ms });
    assert_eq!(both.one(wish(100, Heir::Other)), Verdict::Refused(Refusal::TooManyLeases));
    let on = |lease, sequence, price| Event::Charge(charge(sequence, price, MORNING_MS, Source::Lease(lease)));
    assert_eq!(both.one(on(1, 1, 60)), Verdict::Done);
    assert_eq!(both.one(on(1, 2, 60)), Verdict::Refused(Refusal::ExceedsLease));
    assert_eq!(both.account(Span::Lifetime, 0), [10_000, 8_900, 1_040, 60, 0]);
    // The router reports that it issued tokens of 300 from the second: the rest is back at once.
    let report = Event::CloseLease { issuer: 1, lease: 2, issued: Nanos(300) };
    assert_eq!(both.one(report.clone()), Verdict::Done);
    assert_eq!(both.one(report), Verdict::Duplicate);
    assert_eq!(both.account(Span::Lifetime, 0), [10_000, 9_600, 340, 60, 0]);
    assert_eq!(both.entry(76_999, MORNING_MS, vec![on(2, 3, 300)]), [Verdict::Done]);
    // A wall clock that jumps ends no lease; the interval does.
    both.entry(0, MORNING_MS + HOUR_MS, Vec::new());
    assert_eq!(both.ledger.leases.len(), 2);
    let late = Charge { period_ms: MORNING_MS, ..charge(4, 40, MORNING_MS + HOUR_MS, Source::Lease(1)) };
    assert_eq!(both.entry(1, 0, vec![Event::Charge(late)]), [Verdict::Refused(Refusal::LeaseClosed)]);
    assert_eq!(both.one(on(1, 1, 60)), Verdict::Duplicate);
    assert_eq!(both.account(Span::Lifetime, 0), [10_000, 9_640, 0, 360, 0]);
}

/// Whoever did not hear of a lease asks again. There were two leases then, and the first lay idle until its time was over.
#[test]
fn a_question_that_is_asked_again_is_answered_by_the_same_lease() {
    let mut both = Both::begin(lifetime(10_000), Zone::default());
    let ask = |wish| {
        let (rate, price_max, heir) = (Nanos::ZERO, Nanos(100), Heir::Other);
        Event::OpenLease(LeaseWish { issuer: 1, wish, campaign: CampaignId(1), rate, price_max, routers: 2, heir })
    };
    let first = Verdict::Lease { id: 1, amount: Nanos(100), wall_ms: MORNING_MS };
    assert_eq!(both.one(ask(5)), first);
    both.entry(1_000, MORNING_MS + 1_000, Vec::new());
    assert_eq!(both.one(ask(5)), first, "as it was granted then");
    assert_eq!(both.account(Span::Lifetime, 0), [10_000, 9_900, 100, 0, 0]);
    let second = Verdict::Lease { id: 2, amount: Nanos(100), wall_ms: MORNING_MS + 1_000 };
    assert_eq!(both.one(ask(6)), second);
    assert_eq!((both.one(ask(5)), both.one(ask(6))), (first, second), "though two are open");
    assert_eq!(both.one(ask(7)), Verdict::Refused(Refusal::TooManyLeases));
    // Once it is reported the question is over, too.
    both.one(Event::CloseLease { issuer: 1, lease: 1, issued: Nanos(0) });
    assert!(matches!(both.one(ask(5)), Verdict::Lease { id: 3, .. }));
}

/// Bitmaps of impressions, which are most of them, were kept for eight days as those of conversions are.
#[test]
fn each_kind_of_token_is_remembered_for_its_own_window_and_a_day() {
    let mut both = Both::begin(lifetime(10_000), Zone::default());
    both.one(wish(100, Heir::Other));
    let conversion = |sequence| {
        let id = ChargeId { issuer: 1, sequence, kind: EventKind::Conversion };
        let expires_ms = MORNING_MS + EventKind::Conversion.window_ms();
        Charge { id, expires_ms, ..charge(sequence, 10, MORNING_MS, Source::Budget) }
    };
    let impression = charge(1, 10, MORNING_MS, Source::Lease(1));
    let charged = [Event::Charge(impression), click(2, 10, MORNING_MS), Event::Charge(conversion(3))];
    assert_eq!(both.entry(0, MORNING_MS, charged.to_vec()), [Verdict::Done, Verdict::Done, Verdict::Done]);
    let late = Verdict::Refused(Refusal::Late);
    // The hour of issue, the window, and a day.
    for (hours, known) in [(25, 3), (26, 2), (48, 2), (49, 1), (192, 1), (193, 0)] {
        let answers = both.entry(0, MORNING_MS + hours * HOUR_MS, charged.to_vec());
        let duplicates = answers.iter().filter(|answer| **answer == Verdict::Duplicate).count();
        assert_eq!((duplicates, both.ledger.seen.len()), (known, known), "after {hours} hours: {answers:?}");
        assert!(answers.iter().all(|answer| *answer == Verdict::Duplicate || *answer == late), "{answers:?}");
        assert_eq!(both.book.differences(&both.ledger), Vec::<String>::new());
    }
    assert_eq!(both.ledger.counts.forgotten, 3);
    let too_long =
        Charge { expires_ms: both.ledger.wall_ms + 61_000, ..charge(9, 1, both.ledger.wall_ms, Source::Lease(1)) };
    assert_eq!(both.one(Event::Charge(too_long)), Verdict::Refused(Refusal::UnknownIssuer), "a day-old issuer");
}

/// Something that a ledger holds wrong.
type Wrong = fn(&mut Ledger);

/// The auditor looked at accounts and at the number of leases alone.
#[test]
fn whatever_a_ledger_holds_wrong_is_a_difference() {
    let whole = || {
        let mut both = Both::begin(lifetime(1_000), Zone::default());
        both.one(click(1, 300, MORNING_MS));
        both.one(wish(50, Heir::Other));
        both
    };
    assert_eq!(whole().book.differences(&whole().ledger), Vec::<String>::new());
    let damage: [(&str, Wrong); 12] = [
        ("wall time", |l| l.wall_ms += 1),
        ("interval time", |l| l.clock_ms += 1),
        ("the next lease", |l| l.next_lease += 1),
        ("the next issuer", |l| l.next_issuer += 1),
        ("an issuer", |l| l.issuers.get_mut(&1).expect("one").granted_ms += 1),
        ("a campaign's budget", |l| l.campaigns.get_mut(&CampaignId(1)).expect("one").budgets[2] = Some(Nanos(9))),
        ("another advertiser", |l| l.campaigns.get_mut(&CampaignId(1)).expect("one").advertiser.0 = 1),
        ("what is closed", |l| l.campaigns.get_mut(&CampaignId(1)).expect("one").closed[0].posted.0 = 5),
        ("a lease of somebody else", |l| l.leases.get_mut(&1).expect("one").issuer = 2),
        ("a token that is forgotten", |l| l.seen.clear()),
        ("a token that is refunded", |l| l.seen.values_mut().for_each(|seen| seen.refunded.insert(1))),
        ("a token too many", |l| l.seen.values_mut().for_each(|seen| seen.charged.insert(2))),
    ];
    for (what, damage) in damage {
        let mut both = whole();
        damage(&mut both.ledger);
        assert!(!both.book.differences(&both.ledger).is_empty(), "{what}");
    }
}

#[test]
fn the_rest_goes_to_one_router_and_nobody_else() {
    let mut both = Both::begin(lifetime(799), Zone::default());
    // 799 / 8 is below the largest price of 100.
    assert_eq!(both.one(wish(100, Heir::Other)), Verdict::Refused(Refusal::OverBudget));
    let all = Verdict::Lease { id: 1, amount: Nanos(799), wall_ms: MORNING_MS };
    assert_eq!(both.one(wish(100, Heir::Own)), all);
    assert_eq!(both.one(wish(100, Heir::Own)), Verdict::Refused(Refusal::OverBudget));
}

#[test]
fn a_day_begins_at_the_campaigns_midnight_and_late_charges_go_to_their_own() {
    // Five hours west of UTC; 2026-11-25 is day 20,782.
    let zone = Zone::new(vec![(0, -5 * 3_600)]).expect("a zone");
    let mut both = Both::begin([Some(Nanos(100)), None, Some(Nanos(1_000))], zone);
    let click = |sequence, price, at| Event::Charge(charge(sequence, price, at, Source::Budget));
    assert_eq!(both.one(click(1, 80, MORNING_MS)), Verdict::Done);
    assert_eq!(both.one(click(2, 80, MORNING_MS)), Verdict::Refused(Refusal::OverBudget));
    let (before, after) = (MORNING_MS + 18 * HOUR_MS, MORNING_MS + 19 * HOUR_MS);
    assert_eq!(both.entry(0, before, vec![click(3, 80, before)]), [Verdict::Refused(Refusal::OverBudget)]);
    assert_eq!(both.entry(0, after, vec![click(4, 80, after)]), [Verdict::Done], "midnight");
    assert_eq!(both.one(click(5, 20, before)), Verdict::Done, "of the day before");
    assert_eq!(both.account(Span::Day, 20_782), [100, 0, 0, 100, 0]);
    assert_eq!(both.account(Span::Day, 20_783), [100, 20, 0, 80, 0]);
    assert_eq!(both.account(Span::Lifetime, 0), [1_000, 820, 0, 180, 0]);
    // A clock that goes back opens no day again.
    both.entry(0, MORNING_MS, vec![click(6, 20, after)]);
    assert_eq!(both.account(Span::Day, 20_783), [100, 0, 0, 100, 0]);
    // Much later the days are closed, what was charged is kept, and nothing of them can be charged.
    let later = after + 12 * DAY_MS;
    assert_eq!(both.entry(0, later, vec![click(7, 1, after)]), [Verdict::Refused(Refusal::Late)]);
    let campaign = &both.ledger.campaigns[&CampaignId(1)];
    assert_eq!(campaign.closed[0].posted, Nanos(200));
    assert_eq!((both.ledger.seen.len(), both.ledger.counts.forgotten), (0, 4));
    assert_eq!(both.one(click(1, 80, MORNING_MS)), Verdict::Refused(Refusal::Late));
    assert_eq!(both.account(Span::Lifetime, 0), [1_000, 800, 0, 200, 0]);
}

#[test]
fn a_refund_happens_once_and_is_not_spent_again() {
    let mut both = Both::begin(lifetime(100), Zone::default());
    let click = charge(1, 100, MORNING_MS, Source::Budget);
    let refund = |amount| Event::Refund { charge: click, amount: Nanos(amount) };
    assert_eq!(both.one(refund(10)), Verdict::Refused(Refusal::NotCharged));
    both.one(Event::Charge(click));
    assert_eq!(both.one(refund(101)), Verdict::Refused(Refusal::ExceedsCharge));
    assert_eq!(both.one(refund(30)), Verdict::Done);
    assert_eq!(both.one(refund(30)), Verdict::Duplicate);
    assert_eq!(both.one(Event::Charge(click)), Verdict::Duplicate);
    let next = Event::Charge(charge(2, 1, MORNING_MS, Source::Budget));
    assert_eq!(both.one(next), Verdict::Refused(Refusal::OverBudget));
    assert_eq!(both.account(Span::Lifetime, 0), [100, 0, 0, 70, 30]);
}

#[test]
fn a_budget_cannot_be_less_than_what_is_charged_and_leased() {
    let mut both = Both::begin(lifetime(1_000), Zone::default());
    both.one(Event::Charge(charge(1, 300, MORNING_MS, Source::Budget)));
    both.one(wish(50, Heir::Other));
    let set = |nanos| Event::SetCampaign {
        campaign: CampaignId(1),
        advertiser: AdvertiserId(9),
        budgets: lifetime(nanos),
        zone: Zone::default(),
    };
    assert_eq!(both.one(set(349)), Verdict::Refused(Refusal::BelowCommitted));
    assert_eq!(both.one(set(350)), Verdict::Done);
    assert_eq!(both.account(Span::Lifetime, 0), [350, 0, 50, 300, 0]);
}

/// Something that goes wrong with a ledger, at an account.
type Damage = fn(&mut Ledger, (CampaignId, Period));

/// Each kind of damage is found by the look at everything, under its own name.
#[test]
fn a_ledger_that_does_not_add_up_is_noticed() {
    let whole = || {
        let mut both = Both::begin(lifetime(1_000), Zone::default());
        both.one(Event::Charge(charge(1, 300, MORNING_MS, Source::Budget)));
        both.one(wish(50, Heir::Other));
        both.ledger
    };
    assert_eq!(scan(&whole()), Ok(()));
    let key = (CampaignId(1), Period { span: Span::Lifetime, number: 0 });
    let damage: [(&str, Damage, Invariant); 7] = [
        ("money from nowhere", |l, k| l.accounts.get_mut(&k).expect("one").available.0 += 1, Invariant::M2),
        (
            "more charged than there is",
            |l, k| {
                let account = l.accounts.get_mut(&k).expect("one");
                (account.posted.0, account.available.0) = (1_001, -51);
            },
            Invariant::M1,
        ),
        ("a lease that has gone", |l, _| l.leases.clear(), Invariant::M6),
        ("a lease past its end", |l, _| l.clock_ms += 80_000, Invariant::M6),
        ("a lease that is overdrawn", |l, _| l.leases.get_mut(&1).expect("one").posted.0 = 51, Invariant::M7),
        ("a charge without a bit", |l, _| l.counts.charges += 1, Invariant::M5),
        ("a charge that is free", |l, _| l.seen.values_mut().for_each(|seen| seen.free.insert(1)), Invariant::M3),
    ];
    for (what, damage, invariant) in damage {
        let mut ledger = whole();
        damage(&mut ledger, key);
        assert_eq!(scan(&ledger).map_err(|v| v.invariant), Err(invariant), "{what}");
    }
    let mut ledger = whole();
    ledger.campaigns.get_mut(&CampaignId(1)).expect("one").charged.0 = 299;
    assert_eq!(scan(&ledger).map_err(|v| v.invariant), Err(Invariant::M4));
}

/// Draws.
struct Dice(u64, u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.1 += 1;
        combine(self.0, self.1) % n
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// One random event; what it refers to may or may not exist.
fn draw(dice: &mut Dice, ledger: &Ledger, charges: &mut Vec<Charge>) -> Event {
    let (campaign, issuer) = (CampaignId(dice.below(3)), dice.below(4));
    match dice.below(20) {
        0 => Event::GrantIssuer { member: MemberId(dice.below(3)), incarnation: dice.below(2) },
        1 => {
            let mut budget =
                || (dice.below(3) > 0).then(|| Nanos(dice.of(&[0, 50, 500, 5_000]) + dice.below(90) as i64));
            let budgets = [budget(), budget(), budget()];
            let zone = Zone::new(vec![(0, dice.of(&[0, -36_000, 50_400])), (MORNING_MS as i64 / 1_000, 3_600)]);
            let zone = zone.expect("a zone");
            Event::SetCampaign { campaign, advertiser: AdvertiserId(campaign.0), budgets, zone }
        }
        2..=4 => Event::OpenLease(LeaseWish {
            issuer,
            wish: dice.below(4),
            campaign,
            rate: Nanos(dice.below(40) as i64),
            price_max: Nanos(1 + dice.below(60) as i64),
            routers: 1 + dice.below(3) as u32,
            heir: dice.of(&[Heir::Own, Heir::Other]),
        }),
        5 => {
            let lease = dice.below(ledger.next_lease + 1);
            let issuer = ledger.leases.get(&lease).map_or(issuer, |lease| lease.issuer);
            Event::CloseLease { issuer, lease, issued: Nanos(dice.below(80) as i64) }
        }
        6..=8 if !charges.is_empty() => Event::Charge(charges[dice.below(charges.len() as u64) as usize]),
        9 if !charges.is_empty() => {
            let charge = charges[dice.below(charges.len() as u64) as usize];
            Event::Refund { charge, amount: Nanos(dice.below(70) as i64) }
        }
        at => {
            let back = dice.of(&[0, 0, 0, HOUR_MS, 30 * HOUR_MS, 9 * DAY_MS]);
            let issued_ms = ledger.wall_ms.saturating_sub(back);
            let open: Vec<u64> = ledger.leases.keys().copied().collect();
            let lease = if open.is_empty() { None } else { Some(dice.of(&open)) };
            let lease = lease.filter(|_| at > 13).or((dice.below(9) == 0).then_some(ledger.next_lease));
            let (mut issuer, mut campaign, mut period_ms) = (issuer, campaign, issued_ms);
            if let Some(lease) = lease.and_then(|id| ledger.leases.get(&id)).filter(|_| dice.below(9) > 0) {
                (issuer, campaign, period_ms) = (lease.issuer, lease.campaign, lease.granted_wall_ms);
            }
            let price = Nanos(dice.below(60) as i64);
            let kind = dice.of(&[EventKind::Impression, EventKind::Click, EventKind::Conversion]);
            let charge = Charge {
                id: ChargeId { issuer, sequence: charges.len() as u64, kind },
                campaign,
                issued_ms,
                expires_ms: issued_ms + dice.of(&[kind.window_ms(), kind.window_ms(), 7 * DAY_MS]),
                period_ms,
                price,
                bid: Nanos(58),
                source: lease.map_or(Source::Budget, Source::Lease),
                origin: Origin::default(),
            };
            charges.push(charge);
            Event::Charge(charge)
        }
    }
}

/// 400 histories of some 600 events: the auditor agrees with every answer and every balance at every entry, equal logs
/// give equal states, and sending everything again changes nothing.
#[test]
fn random_histories_are_what_the_auditor_says() {
    let mut heard: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 0..400 {
        let (mut dice, mut both, mut charges, mut log) = (Dice(seed, 0), Both::new(), Vec::new(), Vec::new());
        let mut wall = MORNING_MS;
        for _ in 0..200 {
            let step = dice.of(&[0, 0, 0, 10, 400, 20_000, 80_000, HOUR_MS, DAY_MS, 9 * DAY_MS]);
            let step = if step >= HOUR_MS && dice.below(4) > 0 { 900 } else { step };
            wall = if dice.below(20) == 0 { MORNING_MS } else { both.ledger.wall_ms.max(wall) + step };
            let mut ahead = both.ledger.clone();
            ahead.wall_ms = ahead.wall_ms.max(wall);
            let events: Vec<Event> = (0..dice.below(6)).map(|_| draw(&mut dice, &ahead, &mut charges)).collect();
            log.push(Batch { elapsed_ms: step.min(90_000), wall_ms: wall, events: events.clone() });
            for verdict in both.entry(step.min(90_000), wall, events) {
                let word = match verdict {
                    Verdict::Refused(refusal) => refusal.word().to_owned(),
                    Verdict::Done | Verdict::Duplicate | Verdict::Issuer(_) | Verdict::Lease { .. } => {
                        format!("{verdict:?}").chars().take_while(|c| c.is_alphabetic()).collect()
                    }
                };
                *heard.entry(word).or_default() += 1;
            }
            assert_eq!(scan(&both.ledger), Ok(()), "seed {seed}");
            assert_eq!(both.book.differences(&both.ledger), Vec::<String>::new(), "seed {seed}");
        }
        let mut again = Ledger::genesis("test");
        for batch in &log {
            apply(&mut again, batch).expect("the invariants hold");
        }
        assert_eq!(again, both.ledger, "seed {seed}: equal logs");
        assert_repetition_changes_nothing(&mut dice, both, &charges);
    }
    for word in ["Done", "Duplicate", "Lease", "over_budget", "late", "expired", "lease_closed", "exceeds_lease"] {
        assert!(heard.get(word).is_some_and(|count| *count > 100), "{word} was hardly ever heard: {heard:?}");
    }
}

/// B1: every event that was charged or free, once more and in another order.
fn assert_repetition_changes_nothing(dice: &mut Dice, mut both: Both, charges: &[Charge]) {
    let settled = |charge: &&Charge| {
        let seen = both.ledger.seen.get(&super::charge::seen_key(charge));
        seen.is_some_and(|s| s.charged.contains(charge.id.sequence) || s.free.contains(charge.id.sequence))
    };
    let mut again: Vec<Event> = charges.iter().filter(settled).map(|charge| Event::Charge(*charge)).collect();
    for at in 0..again.len() {
        let other = dice.below(again.len() as u64) as usize;
        again.swap(at, other);
    }
    let before = both.ledger.clone();
    both.entry(0, 0, again);
    assert_eq!(Ledger { entries: before.entries, ..both.ledger }, before);
}
