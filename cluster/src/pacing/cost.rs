//! What does a campaign bid whose conversions are to cost a target on average?
//!
//! The dual controller of `gavel_proto::pacing::Autobid` with the target alone, money in targets: the bid is the target and
//! a margin, which shrinks while conversions cost more than the target and grows while they cost less. In an auction
//! where the price is below the bid the best bid is above the target (twice, where rivals are uniform). An observation
//! is a round's expected spend and events at serving, which know no delay and little noise, in events of a usual round.
//! What the budget allows multiplies the bid afterwards.

use gavel_proto::pacing::Autobid;

/// Of a usual round. The gain of the loop at a margin of one target is as much, and its answer takes 1/0.2 rounds.
const STEP: f64 = 0.2;
/// Bids of no more than so many targets, and of no less than a tenth. Ours: a margin beyond it buys little.
const TARGETS_MAX: f64 = 4.0;
const TARGETS_MIN: f64 = 0.1;
/// Weight of a round in what is usual.
const USUAL: f64 = 0.05;

/// Steers one campaign's cost of an event.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetCost {
    target_micros: u64,
    autobid: Autobid,
    usual: f64,
    before: Option<(i64, u64)>,
}

impl TargetCost {
    /// Begins with the bid that stands, if there is one; else with twice the target.
    #[must_use]
    pub fn new(target_micros: u64, standing_micros: Option<u64>) -> Self {
        let targets = standing_micros.map(|bid| bid as f64 / target_micros.max(1) as f64);
        let autobid = Autobid::new(None, Some(1.0), STEP);
        let autobid = targets.map_or(autobid, |bid| autobid.bidding(bid));
        Self { target_micros, autobid, usual: 0.0, before: None }
    }

    /// The target that it steers to.
    #[must_use]
    pub const fn target_micros(&self) -> u64 {
        self.target_micros
    }

    /// Ends a round: expected spend in nanos and events in thousand-millionths, ever.
    pub fn observe(&mut self, spend_nanos: i64, events_nano: u64) {
        let Some((spend, events)) = self.before.replace((spend_nanos, events_nano)) else { return };
        // A router that has gone takes its sums with it: nothing is learnt of that round.
        let (Some(spend), Some(events)) = (spend_nanos.checked_sub(spend), events_nano.checked_sub(events)) else {
            return;
        };
        if spend < 0 || (spend == 0 && events == 0) {
            return;
        }
        let events = events as f64 / 1e9;
        let paid = spend as f64 / 1e3 / self.target_micros.max(1) as f64;
        // A router that is first heard late brings days in one round, which must not become what is usual.
        let most = self.usual / STEP;
        self.usual =
            if self.usual == 0.0 { events.max(paid) } else { self.usual + USUAL * (events.min(most) - self.usual) };
        let usual = self.usual.max(f64::MIN_POSITIVE);
        // One round may be far from usual: it moves the margin by no more than a whole one.
        let bounded = |x: f64| (x / usual).min(1.0 / STEP);
        self.autobid.observe(bounded(paid), bounded(events));
    }

    /// What an event is bid.
    #[must_use]
    pub fn bid_micros(&self) -> u64 {
        let targets = self.autobid.bid_per_value().clamp(TARGETS_MIN, TARGETS_MAX);
        // Positive, and a bid's limit above.
        ((targets * self.target_micros as f64) as u64).clamp(1, gavel_proto::limits::BID_MICROS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gavel_proto::hash::mix64;

    /// Values and rivals' bids uniform, second price, a target of a quarter of the largest value: the best bid is twice
    /// the target, and what it buys costs the target. Rounds of 50 auctions.
    #[test]
    fn it_finds_the_closed_form_market() {
        let mut seed = 7u64;
        let mut draw = || {
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            (mix64(seed) >> 11) as f64 / (1u64 << 53) as f64
        };
        let target_micros = 250_000;
        let mut cost = TargetCost::new(target_micros, Some(1_000_000));
        let (mut spend, mut events) = (0i64, 0u64);
        let (mut late, mut bids) = ((0, 0), 0.0);
        for round in 0..4_000 {
            for _ in 0..50 {
                // The chance of a conversion is the value; the rival bids up to one unit for the impression.
                let (chance, rival) = (draw(), draw());
                if chance * cost.bid_micros() as f64 / 1e6 > rival {
                    spend += (rival * 1e9) as i64;
                    events += (chance * 1e9) as u64;
                }
            }
            cost.observe(spend, events);
            if round == 2_000 {
                late = (spend, events);
            }
            bids += if round >= 2_000 { cost.bid_micros() as f64 } else { 0.0 };
        }
        let paid = (spend - late.0) as f64 / (events - late.1) as f64;
        assert!((paid - 0.25).abs() < 0.01, "{paid}");
        let bid = bids / 2_000.0 / target_micros as f64;
        assert!((bid - 2.0).abs() < 0.15, "{bid} targets");
    }

    #[test]
    fn days_in_one_round_are_not_usual() {
        let (mut cost, mut rounds) = (TargetCost::new(1_000, None), 0i64);
        let mut pass = |cost: &mut TargetCost, more: i64| {
            rounds += more;
            // An event a round, at the target.
            cost.observe(rounds * 1_000_000, rounds.unsigned_abs() * 1_000_000_000);
        };
        (0..100).for_each(|_| pass(&mut cost, 1));
        let (usual, bid) = (cost.usual, cost.bid_micros());
        assert!((usual - 1.0).abs() < 1e-9, "{usual}");
        pass(&mut cost, 10_000);
        assert!(cost.usual <= usual * 1.2 + 1e-9, "{}", cost.usual);
        assert_eq!(cost.bid_micros(), bid, "it cost what it should");
    }

    #[test]
    fn it_goes_on_from_what_stands() {
        assert_eq!(TargetCost::new(1_000, None).bid_micros(), 2_000);
        let stands = TargetCost::new(1_000, Some(1_250)).bid_micros();
        assert!(stands.abs_diff(1_250) <= 1, "{stands}");
        let mut gone = TargetCost::new(1_000, None);
        gone.observe(5_000, 5);
        gone.observe(1_000, 1);
        assert_eq!(gone.bid_micros(), 2_000, "a router's sums went with it");
    }
}
