//! Do the controllers find what can be computed by hand, and repeat what was published?
//!
//! Values and the highest rival bid are uniform on [0, 1], prices are second prices. A budget of 1/24 an auction then
//! wants the multiplier 1/2 (mu = 1), which gains 1/8; throttled at full bids it takes part in a quarter of the auctions
//! and gains 1/24; a target cost of 1/4 wants bids of half the value, which spends 1/24 and brings 1/6. The trajectory is
//! that of the PID actuator in a published run (Zhang et al., WSDM 2016; rtbcontrol, README, campaign 1458 of iPinYou).
//!
//! The controllers are those of production; only the market around them is this simple one.

use crate::workload::Seeded;
use gavel_proto::pacing::published::{ECPC, PHI, REFERENCE};
use gavel_proto::pacing::{
    Actuator, AdaptivePacing, Autobid, CurvePacing, Forecast, Gains, Throttle, convergence, participates,
};
use serde::Serialize;

/// The budget of an auction.
const RATE: f64 = 1.0 / 24.0;

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
    for auctions in [1_000, 10_000, 100_000] {
        adaptive(auctions, seed, &mut checks);
    }
    throttled(seed, &mut checks);
    curve(seed, &mut checks);
    autobid(seed, &mut checks);
    trajectory(&mut checks);
    checks
}

/// For people.
pub fn table(checks: &[Check]) -> String {
    let line = |check: &Check| {
        let holds = if check.holds { "holds" } else { "FAILS" };
        format!("{:<58} {:>12.6}  within {:.6} to {:.6}: {holds}\n", check.what, check.found, check.low, check.high)
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
    let of = |what: &str| format!("adaptive pacing, {auctions} auctions: {what}");
    let regret = (0.125 - gain / count) * count.sqrt();
    checks.push(Check::within(of("regret by the root of the auctions"), regret, -4.0, 4.0));
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
            let takes_part = participates(window * each + auction, 77, throttle.probability_ppm());
            if takes_part && value > rival && spent + rival <= auctions * RATE {
                spent += rival;
                gain += value - rival;
            }
        }
        let time = (window + 1) as f64 / windows as f64;
        worst = worst.max((spent / (auctions * RATE) - time).abs());
        throttle.observe(spent, auctions * RATE * time);
    }
    checks.push(Check::within("throttling: share of the budget spent", spent / (auctions * RATE), 0.99, 1.0));
    checks.push(Check::within("throttling: farthest from the plan", worst, 0.0, 0.02));
    checks.push(Check::near("throttling: gain of an auction (1/24)", gain / auctions, RATE, 0.001));
}

fn curve(seed: u64, checks: &mut Vec<Check>) {
    let traffic = |window: u64| 100 + 100 * (window % 720).min(720 - window % 720) / 360;
    let counts: Vec<u64> = (0..1_440).map(traffic).collect();
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
        let share = forecast.share((window + 1) as f64 / 1_440.0);
        pacing.observe(budget, spent, share);
        worst = if window > 144 { worst.max((spent / budget - share).abs()) } else { worst };
    }
    checks.push(Check::within("curve pacing: farthest from the traffic", worst, 0.0, 0.02));
    checks.push(Check::within("curve pacing: share of the budget spent", spent / budget, 0.97, 1.0));
    checks.push(Check::near("curve pacing: gain of an auction (1/8)", gain / auctions, 0.125, 0.005));
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
    checks.push(Check::within("PID trajectory: farthest from the 40 published answers", worst, 0.0, 6e-5));
    checks.push(Check::near("PID trajectory: rise, in rounds", round(found.rise), 2.0, 0.0));
    checks.push(Check::near("PID trajectory: settling, in rounds", round(found.settling), 36.0, 0.0));
    checks.push(Check::near("PID trajectory: overshoot", found.overshoot, 0.129_543_75, 1e-9));
    checks.push(Check::near("PID trajectory: error after settling", found.rmse, 0.008_552_735_585, 1e-9));
    checks.push(Check::near("PID trajectory: deviation after settling", found.deviation, 0.007_762_256_531, 1e-9));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_holds_and_a_wrong_one_is_told() {
        let checks = all(20_170_101);
        assert!(checks.len() > 20 && checks.iter().all(|check| check.holds), "{}", table(&checks));
        assert!(!Check::near("a", f64::NAN, 2.0, 0.0).holds);
        assert!(table(&[Check::within("b", 3.0, 0.0, 1.0)]).contains("FAILS"));
    }
}
