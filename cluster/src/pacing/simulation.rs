//! By how much do clicks exceed their budgets under the throttle?
//!
//! A day of campaigns that pay for clicks in virtual time: a diurnal curve, twice as many clicks as the budget pays for, a
//! click a minute after its ad on average, reports every two seconds, rounds every five, decisions that count a second
//! later. Money moves by the ledger's own accounts. `cargo test --release --workspace --lib -- pacing::simulation --nocapture`
//! prints the figures of the documentation.

use std::collections::{BTreeMap, BinaryHeap};

use super::books::{Books, Paying};
use super::heard::{Begins, Heard, ProcessId, Report};
use super::traffic::{Curves, Traffic};
use super::{Budget, Decision, Goal, Look, Means, Pacer};
use crate::ledger::Account;
use crate::ledger::account::Step;
use crate::ledger::calendar::{Period, Span};
use gavel_proto::hash::mix64;
use gavel_proto::ids::CampaignId;
use gavel_proto::money::{BidType, Nanos, PPM};
use gavel_proto::pacing::{Delays, Flight, Line};

const DAY_S: u32 = 86_400;
const START_S: u32 = 20_000 * DAY_S;
const CAMPAIGNS: u64 = 12;
/// Of one click, before it is known which: half to one and a half.
const PRICE: f64 = 1e9;
const CLICK_RATE: f64 = 0.02;
const ROUTER: ProcessId = ProcessId { member: 9, incarnation: 1 };

/// What a run leaves out, and how late clicks come.
#[derive(Clone, Copy)]
struct Variant {
    name: &'static str,
    paced: Paced,
    flight: Counted,
    delay_s: f64,
    /// What predictions say, of what is true.
    predicted: f64,
}

#[derive(Clone, Copy, PartialEq)]
enum Paced {
    Yes,
    No,
}

#[derive(Clone, Copy, PartialEq)]
enum Counted {
    Yes,
    No,
}

/// Seeded numbers in [0, 1).
struct Uniform(u64);

impl Uniform {
    fn draw(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (mix64(self.0) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// One campaign of the day.
struct Campaign {
    id: CampaignId,
    account: Account,
    free: i64,
    ads_a_second: f64,
    decision: Decision,
    next: Decision,
    flight: Flight,
    expected: i64,
    /// Clicks that come: when, at what price, and when their ads were served. The soonest first.
    clicks: BinaryHeap<std::cmp::Reverse<(u32, i64, u32)>>,
    worst: f64,
}

impl Campaign {
    /// Budgets of 400 to 2,000 clicks.
    fn new(number: u64) -> Self {
        let clicks = 400.0 + 1_600.0 * number as f64 / (CAMPAIGNS - 1) as f64;
        let budget = Nanos((clicks * PRICE) as i64);
        Self {
            id: CampaignId(number + 1),
            account: Account { deposited: budget, available: budget, ..Account::default() },
            free: 0,
            ads_a_second: 2.0 * clicks / CLICK_RATE / f64::from(DAY_S),
            decision: Decision::default(),
            next: Decision::default(),
            flight: Flight::default(),
            expected: 0,
            clicks: BinaryHeap::new(),
            worst: 0.0,
        }
    }

    fn serve(&mut self, now_s: u32, level: f64, random: &mut Uniform, variant: &Variant) {
        if self.decision.budget == Budget::Gone {
            return;
        }
        let chance = f64::from(self.decision.throttle_ppm) / f64::from(PPM);
        let mut ads = self.ads_a_second * level * chance;
        while random.draw() < ads {
            ads -= 1.0;
            let price = (PRICE * (0.5 + random.draw())) as i64;
            let expected = (price as f64 * CLICK_RATE * variant.predicted) as i64;
            self.flight.record(now_s, expected);
            self.expected += expected;
            if random.draw() < CLICK_RATE {
                let delay = (-(1.0 - random.draw()).ln() * variant.delay_s) as u32;
                self.clicks.push(std::cmp::Reverse((now_s + delay.min(DAY_S - 1), price, now_s)));
            }
        }
    }

    /// Charges what comes, or delivers it free.
    fn click(&mut self, now_s: u32, delays: &mut Delays) {
        while let Some(std::cmp::Reverse((at, price, served))) = self.clicks.peek().copied().filter(|c| c.0.0 <= now_s)
        {
            self.clicks.pop();
            match self.account.after(Step::Post(Nanos(price))) {
                Some(after) => {
                    self.account = after;
                    delays.count(u64::from(at - served) * 1_000);
                }
                None => self.free += price,
            }
        }
    }

    fn line(&mut self, now_s: u32) -> Line {
        self.flight.compact(now_s, DAY_S);
        Line {
            campaign: self.id,
            bid_type: BidType::Cpc,
            spend_nanos: self.expected,
            events_nano: 0,
            price_nanos: PRICE as i64,
            buckets: self.flight.since(0).collect(),
        }
    }

    fn books(&self) -> Books {
        let start_ms = u64::from(START_S) * 1_000;
        let paying = Paying {
            period: Period { span: Span::Day, number: 20_000 },
            account: self.account,
            span_ms: Some((start_ms, u64::from(DAY_S) * 1_000)),
        };
        Books { campaign: self.id, paying: vec![paying], leased: Nanos::ZERO }
    }
}

/// Of all campaigns: free over budget, charged over budget, and the worst distance from the curve after a tenth of it.
struct Outcome {
    over: f64,
    used: f64,
    worst: f64,
}

fn play(variant: &Variant) -> Outcome {
    let (mut heard, mut pacer, mut delays) = (Heard::default(), Pacer::default(), Delays::default());
    let mut random = Uniform(11);
    let mut campaigns: Vec<Campaign> = (0..CAMPAIGNS).map(Campaign::new).collect();
    // Three times as much in the evening as in the morning; yesterday was the same.
    let level = |now_s: u32| 1.0 - 0.5 * (f64::from(now_s % DAY_S) / f64::from(DAY_S) * std::f64::consts::TAU).sin();
    let hour = |n: u32| (u64::from(START_S / 3_600 - 25 + n), (1e4 * level(n * 3_600 + 1_800 + DAY_S - 3_600)) as u64);
    let traffic = Traffic::of(&(0..25).map(hour).collect::<BTreeMap<_, _>>(), u64::from(START_S) * 1_000);
    let mut curves = Curves::new(traffic);
    for now_s in START_S..START_S + DAY_S {
        for campaign in &mut campaigns {
            campaign.decision = campaign.next;
            campaign.serve(now_s, level(now_s), &mut random, variant);
            campaign.click(now_s, &mut delays);
        }
        if now_s % 2 == 0 {
            let lines = campaigns.iter_mut().map(|campaign| campaign.line(now_s)).collect();
            heard.hear(ROUTER, Begins::Anew, Report { lines, clicks: delays, ..Report::default() }, now_s);
        }
        if now_s % 5 == 0 {
            let arrivals = heard.arrivals();
            for campaign in &mut campaigns {
                let books = campaign.books();
                let in_flight = match variant.flight {
                    Counted::Yes => heard.in_flight(campaign.id, START_S, now_s, &arrivals),
                    Counted::No => 0,
                };
                let share = curves.share(books.paying[0].span_ms.unwrap(), u64::from(now_s) * 1_000);
                let look = Look {
                    books: &books,
                    now: vec![(in_flight, share)],
                    sold: heard.sold(campaign.id),
                    standing: Some(campaign.next),
                    means: Means::Participation,
                    goal: Goal::Bid,
                };
                let decision = pacer.decide(&look).unwrap_or(campaign.next);
                campaign.next = match variant.paced {
                    Paced::Yes => decision,
                    Paced::No => Decision { throttle_ppm: PPM, ..decision },
                };
                let spent = campaign.account.posted.0 as f64 / campaign.account.deposited.0 as f64;
                campaign.worst = if share > 0.1 { campaign.worst.max((spent - share).abs()) } else { 0.0 };
            }
            pacer.end_round();
        }
    }
    campaigns.iter_mut().for_each(|campaign| campaign.click(START_S + 3 * DAY_S, &mut delays));
    let budget: i64 = campaigns.iter().map(|c| c.account.deposited.0).sum();
    let share = |nanos: i64| nanos as f64 / budget as f64;
    Outcome {
        over: share(campaigns.iter().map(|c| c.free).sum()),
        used: share(campaigns.iter().map(|c| c.account.posted.0).sum()),
        worst: campaigns.iter().map(|c| c.worst).fold(0.0, f64::max),
    }
}

fn variants() -> [Variant; 10] {
    let minute =
        Variant { name: "paced, in flight", paced: Paced::Yes, flight: Counted::Yes, delay_s: 60.0, predicted: 1.0 };
    [
        minute,
        Variant { name: "paced, charges alone", flight: Counted::No, ..minute },
        Variant { name: "unpaced, in flight", paced: Paced::No, ..minute },
        Variant { name: "unpaced, charges alone", paced: Paced::No, flight: Counted::No, ..minute },
        Variant { name: "paced, in flight, clicks after ten minutes", delay_s: 600.0, ..minute },
        Variant {
            name: "paced, charges alone, clicks after ten minutes",
            flight: Counted::No,
            delay_s: 600.0,
            ..minute
        },
        Variant { name: "unpaced, in flight, clicks after ten minutes", paced: Paced::No, delay_s: 600.0, ..minute },
        Variant {
            name: "unpaced, charges alone, clicks after ten minutes",
            paced: Paced::No,
            flight: Counted::No,
            delay_s: 600.0,
            ..minute
        },
        Variant { name: "paced, in flight, predicted twice too high", predicted: 2.0, ..minute },
        Variant { name: "paced, in flight, predicted twice too low", predicted: 0.5, ..minute },
    ]
}

#[test]
fn clicks_exceed_their_budgets_by_less_than_a_hundredth() {
    let outcomes = variants().map(|variant| (variant, play(&variant)));
    for (variant, outcome) in &outcomes {
        println!(
            "{}: over {:.4} %, used {:.2} %, farthest from the curve {:.1} %",
            variant.name,
            outcome.over * 100.0,
            outcome.used * 100.0,
            outcome.worst * 100.0
        );
        if variant.paced == Paced::Yes && variant.flight == Counted::Yes {
            assert!(outcome.over < 0.01, "{}: {}", variant.name, outcome.over);
            assert!(outcome.used > 0.97, "{}: {}", variant.name, outcome.used);
        }
        // The documentation's tables say 2.7 to 3.5 % and 51 to 52 %.
        match variant.paced {
            Paced::Yes => assert!(outcome.worst < 0.05, "{}: {}", variant.name, outcome.worst),
            Paced::No => assert!(outcome.worst > 0.3, "{}: {}", variant.name, outcome.worst),
        }
    }
    // Where clicks are late, what is in flight counts: 0.192 % for 0.485 %, and 0.307 % for 1.786 %.
    let late = |paced: Paced, flight: Counted| {
        let is_it = |v: &Variant| v.delay_s > 60.0 && v.paced == paced && v.flight == flight;
        outcomes.iter().find(|(variant, _)| is_it(variant)).unwrap().1.over
    };
    for (paced, share) in [(Paced::Yes, 0.6), (Paced::No, 0.5)] {
        let (counted, charges) = (late(paced, Counted::Yes), late(paced, Counted::No));
        assert!(counted < share * charges, "{counted} with what is in flight, {charges} without");
    }
}
