//! Do the controllers find what can be computed by hand, and repeat what was published?
//!
//! Values and the highest rival bid are uniform on [0, 1], prices are second prices. A budget of 1/24 an auction then
//! wants the multiplier 1/2 (mu = 1), which gains 1/8 and brings 1/6; throttled at full bids it takes part in a quarter of
//! the auctions and gains 1/24; a target cost of 1/4 wants bids of half the value, which spends 1/24 and brings 1/6, and at
//! first prices bids of a quarter of it.
//!
//! Each figure names the code that it runs:
//! * *pacer*: `gavel_control::pacing::Pacer`, which a cluster's leader runs, by its multiplier (with a bid for conversions that
//!   is "most conversions within the budget") and by throttling;
//! * *target cost*: `gavel_control::pacing::cost::TargetCost`, which the pacer asks what to bid;
//! * *curve pacing*, *autobidding*: `gavel_proto::pacing::{CurvePacing, Autobid}`, the controllers inside these two, alone;
//! * *published*: adaptive pacing, throttling by tenths, and the PID actuator, which no cluster runs. The trajectory is that of
//!   the actuator in a published run (Zhang et al., WSDM 2016; rtbcontrol, README, campaign 1458 of iPinYou).
//!
//! Only the market around them is this simple one.

use crate::workload::Seeded;
use gavel_control::ledger::Account;
use gavel_control::ledger::account::Step;
use gavel_control::ledger::calendar::{Period, Span};
use gavel_control::pacing::books::{Books, Paying};
use gavel_control::pacing::cost::TargetCost;
use gavel_control::pacing::heard::Sold;
use gavel_control::pacing::{Budget, Decision, Goal, Look, Means, Pacer};
use gavel_proto::ids::CampaignId;
use gavel_proto::money::{Micros, Nanos, PPM};
use gavel_proto::pacing::published::{ECPC, PHI, REFERENCE};
use gavel_proto::pacing::{
    Actuator, AdaptivePacing, Autobid, CurvePacing, Forecast, Gains, Throttle, convergence, participates,
};
use serde::Serialize;

/// The budget of an auction.
const RATE: f64 = 1.0 / 24.0;
/// Windows of a day, each as long as a minute.
const WINDOWS: usize = 1_440;
/// Whoever takes part in a share of the auctions.
const CAMPAIGN: CampaignId = CampaignId(77);
/// A unit of money in nanos.
const UNIT: f64 = 1e9;

/// One figure beside what it should be.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    pub what: String,
    pub found: f64,
    pub low: f64,
    pub high: f64,
    pub holds: bool,
}

impl Check {
    fn within(what: impl Into<String>, found: f64, low: f64, high: f64) -> Self {
        Self { what: what.into(), found, low, high, holds: (low..=high).contains(&found) }
    }

    fn near(what: impl Into<String>, found: f64, wanted: f64, by: f64) -> Self {
        Self::within(what, found, wanted - by, wanted + by)
    }
}

/// Every figure.
pub fn all(seed: u64) -> Vec<Check> {
    let mut checks = Vec::new();
    // Of fewer not even bids in full until the budget is gone would regret more than is let pass.
    for auctions in [10_000, 30_000, 100_000] {
        adaptive(auctions, seed, &mut checks);
    }
    throttled(seed, &mut checks);
    curve(seed, &mut checks);
    by_multiplier(seed, &mut checks);
    by_throttling(seed, &mut checks);
    autobid(seed, &mut checks);
    target_cost(seed, &mut checks);
    trajectory(&mut checks);
    checks
}

/// For people.
pub fn table(checks: &[Check]) -> String {
    let line = |check: &Check| {
        let holds = if check.holds { "holds" } else { "FAILS" };
        format!("{:<76} {:>12.6}  within {:.6} to {:.6}: {holds}\n", check.what, check.found, check.low, check.high)
    };
    checks.iter().map(line).collect()
}

struct Uniform(Seeded);

impl Uniform {
    fn new(seed: u64) -> Self {
        Self(Seeded::new(seed))
    }

    fn draw(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn adaptive(auctions: u32, seed: u64, checks: &mut Vec<Check>) {
    let (mut random, count) = (Uniform::new(seed), f64::from(auctions));
    let mut pacing = AdaptivePacing::new(count.powf(-0.5), 20.0);
    let (mut left, mut gain, mut mu) = (count * RATE, 0.0, 0.0);
    for auction in 0..auctions {
        let (value, rival) = (random.draw(), random.draw());
        let wins = value * pacing.multiplier() > rival && left >= rival;
        let paid = if wins { rival } else { 0.0 };
        left -= paid;
        gain += if wins { value - paid } else { 0.0 };
        pacing.observe(RATE, paid);
        mu += if auction >= auctions / 2 { pacing.mu() } else { 0.0 };
    }
    let of = |what: &str| format!("published adaptive pacing, {auctions} auctions: {what}");
    let regret = (0.125 - gain / count) * count.sqrt();
    // Between 1.5 and 3 by a hundred seeds each; bids in full regret a twelfth an auction, 8.3 by the root of 10,000.
    checks.push(Check::within(of("regret by the root of the auctions"), regret, 0.0, 3.5));
    checks.push(Check::within(of("share of the budget spent"), 1.0 - left / (count * RATE), 0.99, 1.0));
    if auctions >= 100_000 {
        checks.push(Check::near(of("mu over the second half"), mu / f64::from(auctions / 2), 1.0, 0.15));
    }
}

fn throttled(seed: u64, checks: &mut Vec<Check>) {
    let (windows, each) = (1_440u64, 200u64);
    let auctions = (windows * each) as f64;
    let (mut random, mut throttle) = (Uniform::new(seed), Throttle::default());
    let (mut spent, mut gain, mut worst) = (0.0, 0.0, 0.0f64);
    for window in 0..windows {
        for auction in 0..each {
            let (value, rival) = (random.draw(), random.draw());
            let takes_part = participates(window * each + auction, CAMPAIGN.0, throttle.probability_ppm());
            if takes_part && value > rival && spent + rival <= auctions * RATE {
                spent += rival;
                gain += value - rival;
            }
        }
        let time = (window + 1) as f64 / windows as f64;
        worst = worst.max((spent / (auctions * RATE) - time).abs());
        throttle.observe(spent, auctions * RATE * time);
    }
    checks.push(Check::within("published throttling: share of the budget spent", spent / (auctions * RATE), 0.99, 1.0));
    checks.push(Check::within("published throttling: farthest from the plan", worst, 0.0, 0.02));
    checks.push(Check::near("published throttling: gain of an auction (1/24)", gain / auctions, RATE, 0.001));
}

/// Auctions of each window: traffic that rises and falls twice.
fn traffic() -> Vec<u64> {
    (0..WINDOWS as u64).map(|window| 100 + 100 * (window % 720).min(720 - window % 720) / 360).collect()
}

fn curve(seed: u64, checks: &mut Vec<Check>) {
    let counts = traffic();
    let (forecast, auctions) = (Forecast::new(&counts), counts.iter().sum::<u64>() as f64);
    let (mut random, mut pacing) = (Uniform::new(seed), CurvePacing::new(1.0));
    let (budget, mut spent, mut gain, mut worst) = (auctions * RATE, 0.0, 0.0, 0.0f64);
    for (window, count) in counts.iter().enumerate() {
        for _ in 0..*count {
            let (value, rival) = (random.draw(), random.draw());
            if value * pacing.multiplier() > rival && spent + rival <= budget {
                spent += rival;
                gain += value - rival;
            }
        }
        let share = forecast.share((window + 1) as f64 / WINDOWS as f64);
        pacing.observe(budget, spent, share);
        worst = if window > 144 { worst.max((spent / budget - share).abs()) } else { worst };
    }
    checks.push(Check::within("curve pacing: farthest from the traffic", worst, 0.0, 0.02));
    checks.push(Check::within("curve pacing: share of the budget spent", spent / budget, 0.97, 1.0));
    checks.push(Check::near("curve pacing: gain of an auction (1/8)", gain / auctions, 0.125, 0.005));
}

/// A day under the pacer.
#[derive(Default)]
struct Day {
    /// Farthest from the traffic after warm-up, as a share of the budget.
    worst: f64,
    /// Of the budget.
    spent: f64,
    /// Of an auction, over the day.
    gain: f64,
    /// Of an auction, over the second half: what bids were multiplied with, the share taken part in, spent, and won.
    multiplier: f64,
    taken: f64,
    paid: f64,
    value: f64,
}

/// One campaign with a day's budget in the ledger's account, and a round of the pacer after each window.
fn paced_day(seed: u64, means: Means) -> Day {
    let counts = traffic();
    let (forecast, auctions) = (Forecast::new(&counts), counts.iter().sum::<u64>() as f64);
    let budget = Nanos((auctions * RATE * UNIT) as i64);
    let mut account = Account { deposited: budget, available: budget, ..Account::default() };
    let (mut random, mut pacer, mut standing) = (Uniform::new(seed), Pacer::default(), Decision::default());
    let (mut day, mut number, mut late) = (Day::default(), 0, 0.0);
    for (window, count) in counts.iter().enumerate() {
        let is_late = window >= WINDOWS / 2;
        for _ in 0..*count {
            let (value, rival) = (random.draw(), random.draw());
            let takes_part = participates(number, CAMPAIGN.0, standing.throttle_ppm);
            let bid = Micros((value * 1e6) as u64).paced(standing.multiplier_ppm).0 as f64 / 1e6;
            let wins = takes_part && standing.budget == Budget::Left && bid > rival;
            let after = account.after(Step::Post(Nanos((rival * UNIT) as i64))).filter(|_| wins);
            let (paid, won) = if after.is_some() { (rival, value) } else { (0.0, 0.0) };
            account = after.unwrap_or(account);
            day.gain += won - paid;
            number += 1;
            if is_late {
                late += 1.0;
                day.taken += f64::from(u8::from(takes_part));
                day.multiplier += f64::from(standing.multiplier_ppm) / f64::from(PPM);
                (day.paid, day.value) = (day.paid + paid, day.value + won);
            }
        }
        let share = forecast.share((window + 1) as f64 / WINDOWS as f64);
        standing = round(&mut pacer, account, share, (standing, means));
        day.spent = account.posted.0 as f64 / budget.0 as f64;
        day.worst = if window > WINDOWS / 10 { day.worst.max((day.spent - share).abs()) } else { 0.0 };
    }
    day.gain /= auctions;
    for sum in [&mut day.multiplier, &mut day.taken, &mut day.paid, &mut day.value] {
        *sum /= late;
    }
    day
}

/// A round of the pacer for the campaign.
fn round(pacer: &mut Pacer, account: Account, share: f64, (standing, means): (Decision, Means)) -> Decision {
    let paying =
        Paying { period: Period { span: Span::Day, number: 0 }, account, span_ms: Some((0, super::arrivals::DAY_MS)) };
    let books = Books { campaign: CAMPAIGN, paying: vec![paying], leased: Nanos::ZERO };
    let look = Look {
        books: &books,
        now: vec![(0, share)],
        sold: Some(Sold { spend_nanos: 0, events_nano: 0, price_nanos: 1 }),
        standing: Some(standing),
        means,
        goal: Goal::Bid,
    };
    let decision = pacer.decide(&look).unwrap_or(standing);
    pacer.end_round();
    decision
}

fn by_multiplier(seed: u64, checks: &mut Vec<Check>) {
    let day = paced_day(seed, Means::Bid);
    checks.push(Check::within("pacer, multiplier: farthest from the traffic", day.worst, 0.0, 0.05));
    checks.push(Check::within("pacer, multiplier: share of the budget spent", day.spent, 0.97, 1.0));
    checks.push(Check::near("pacer, multiplier: gain of an auction (1/8)", day.gain, 0.125, 0.005));
    checks.push(Check::near("pacer, most conversions: bid by value (1/2)", day.multiplier, 0.5, 0.03));
    checks.push(Check::near("pacer, most conversions: spend of an auction (1/24)", day.paid, RATE, 0.03 * RATE));
    checks.push(Check::near("pacer, most conversions: value of an auction (1/6)", day.value, 1.0 / 6.0, 0.02 / 6.0));
}

fn by_throttling(seed: u64, checks: &mut Vec<Check>) {
    let day = paced_day(seed, Means::Participation);
    // A share of full bids is spent in larger lumps than scaled bids are.
    checks.push(Check::within("pacer, throttling: farthest from the traffic", day.worst, 0.0, 0.06));
    checks.push(Check::within("pacer, throttling: share of the budget spent", day.spent, 0.97, 1.0));
    checks.push(Check::near("pacer, throttling: share of the auctions (1/4)", day.taken, 0.25, 0.015));
    checks.push(Check::near("pacer, throttling: gain of an auction (1/24)", day.gain, RATE, 0.002));
}

/// Which price does the winner pay?
#[derive(Clone, Copy)]
enum Prices {
    First,
    Second,
}

/// What the second half of a run under a target cost of 1/4 paid and brought.
struct Bought {
    /// Of a unit of value.
    cost: f64,
    /// By value.
    bid: f64,
    /// Of an auction.
    paid: f64,
    value: f64,
}

/// Rounds of 50 auctions, as many as the pacer has in five hours.
fn buy(seed: u64, prices: Prices) -> Bought {
    const ROUNDS: u32 = 4_000;
    const EACH: u32 = 50;
    let (mut random, mut target) = (Uniform::new(seed), TargetCost::new(250_000, None));
    let (mut spend_nanos, mut events_nano, mut half, mut bids) = (0i64, 0u64, (0, 0), 0.0);
    for number in 0..ROUNDS {
        let bid_by_value = target.bid_micros() as f64 / 1e6;
        for _ in 0..EACH {
            let (value, rival) = (random.draw(), random.draw());
            let bid = value * bid_by_value;
            if bid > rival {
                let paid = match prices {
                    Prices::First => bid,
                    Prices::Second => rival,
                };
                spend_nanos += (paid * UNIT) as i64;
                events_nano += (value * 1e9) as u64;
            }
        }
        target.observe(spend_nanos, events_nano);
        if number + 1 == ROUNDS / 2 {
            half = (spend_nanos, events_nano);
        }
        bids += if number >= ROUNDS / 2 { bid_by_value } else { 0.0 };
    }
    let (paid, value) = ((spend_nanos - half.0) as f64 / UNIT, (events_nano - half.1) as f64 / 1e9);
    let rounds = f64::from(ROUNDS / 2);
    let auctions = rounds * f64::from(EACH);
    Bought { cost: paid / value, bid: bids / rounds, paid: paid / auctions, value: value / auctions }
}

fn target_cost(seed: u64, checks: &mut Vec<Check>) {
    let second = buy(seed, Prices::Second);
    checks.push(Check::near("target cost, second price: cost of a unit of value (1/4)", second.cost, 0.25, 0.01));
    checks.push(Check::near("target cost, second price: bid by value (1/2)", second.bid, 0.5, 0.03));
    checks.push(Check::near("target cost, second price: spend of an auction (1/24)", second.paid, RATE, 0.03 * RATE));
    let sixth = 1.0 / 6.0;
    checks.push(Check::near("target cost, second price: value of an auction (1/6)", second.value, sixth, 0.02 * sixth));
    // What is bid is paid: the margin over the target shrinks for ever and is never gone.
    let first = buy(seed, Prices::First);
    checks.push(Check::within("target cost, first price: cost of a unit of value (1/4)", first.cost, 0.25, 0.2625));
    checks.push(Check::within("target cost, first price: bid by value (1/4)", first.bid, 0.25, 0.2625));
}

fn autobid(seed: u64, checks: &mut Vec<Check>) {
    let auctions = 400_000u32;
    let cases = [("target cost 1/4", None, Some(0.25)), ("budget 1/24", Some(RATE), None)];
    for (name, rate, target) in cases {
        let (mut random, mut bidder) = (Uniform::new(seed), Autobid::new(rate, target, 0.01));
        let (mut spent, mut worth, mut bid) = (0.0, 0.0, 0.0);
        for auction in 0..auctions {
            let (value, rival) = (random.draw(), random.draw());
            let wins = value * bidder.bid_per_value() > rival;
            let (paid, won) = if wins { (rival, value) } else { (0.0, 0.0) };
            bidder.observe(paid, won);
            if auction >= auctions / 2 {
                (spent, worth, bid) = (spent + paid, worth + won, bid + bidder.bid_per_value());
            }
        }
        let mean = |sum: f64| sum / f64::from(auctions / 2);
        checks.push(Check::near(format!("autobidding, {name}: bid by value (1/2)"), mean(bid), 0.5, 0.03));
        checks.push(Check::near(
            format!("autobidding, {name}: spend of an auction (1/24)"),
            mean(spent),
            RATE,
            0.03 * RATE,
        ));
        checks.push(Check::near(
            format!("autobidding, {name}: value of an auction (1/6)"),
            mean(worth),
            1.0 / 6.0,
            0.02 / 6.0,
        ));
    }
}

fn trajectory(checks: &mut Vec<Check>) {
    let gains = Gains { proportional: 0.0005, integral: 1e-6, derivative: 1e-4, low: -2.0, high: 5.0 };
    let (mut actuator, mut worst) = (Actuator::new(gains, REFERENCE), 0.0f64);
    for (x, phi) in ECPC.iter().zip(PHI) {
        worst = worst.max((actuator.phi() - phi).abs());
        actuator.observe(*x);
    }
    let found = convergence(&ECPC, REFERENCE);
    let round = |round: Option<usize>| round.map_or(f64::NAN, |round| round as f64);
    checks.push(Check::within("published PID trajectory: farthest from the 40 published answers", worst, 0.0, 6e-5));
    checks.push(Check::near("published PID trajectory: rise, in rounds", round(found.rise), 2.0, 0.0));
    checks.push(Check::near("published PID trajectory: settling, in rounds", round(found.settling), 36.0, 0.0));
    checks.push(Check::near("published PID trajectory: overshoot", found.overshoot, 0.129_543_75, 1e-9));
    checks.push(Check::near("published PID trajectory: error after settling", found.rmse, 0.008_552_735_585, 1e-9));
    checks.push(Check::near(
        "published PID trajectory: deviation after settling",
        found.deviation,
        0.007_762_256_531,
        1e-9,
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_holds_and_a_wrong_one_is_told() {
        let checks = all(20_170_101);
        assert!(checks.len() == 41 && checks.iter().all(|check| check.holds), "{}", table(&checks));
        assert!(!Check::near("a", f64::NAN, 2.0, 0.0).holds);
        assert!(table(&[Check::within("b", 3.0, 0.0, 1.0)]).contains("FAILS"));
    }
}
