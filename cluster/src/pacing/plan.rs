//! Is one budget ahead of its day's curve or behind?
//!
//! A plan spreads what is left of a budget over what is left of its period's traffic, from where it was begun: at the start
//! of a period that is the whole curve. It is begun anew where a leader takes over, which then neither punishes nor makes up
//! for what came before it, and goes on from the multiplier that stands; and where its budget changes: a multiplier below 1
//! is then moved by as much as the rest to be spent, over the elasticity of spending.

use gavel_proto::money::Nanos;
use gavel_proto::pacing::CurvePacing;

use crate::ledger::calendar::{Period, Span};

/// By how much spending grows with the multiplier, in logarithms: between 1 and 2 in a dense market.
const ELASTICITY: f64 = 1.5;
/// Less than this share of a period's traffic is no curve any more.
const SHARE_MIN: f64 = 1e-6;

/// Paces one account.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Of which day or week.
    period: Period,
    budget: Nanos,
    pacing: CurvePacing,
    /// Where it was begun: what was spent, and the share of the traffic that had come.
    begun_spent: f64,
    begun_share: f64,
    /// At the end of the last round.
    spent: f64,
    /// Of the multipliers of its rounds.
    sum: f64,
    rounds: u32,
}

/// How an account stands at the end of a round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// Which day or week.
    pub period: Period,
    /// Its budget.
    pub budget: Nanos,
    /// Charged and in flight.
    pub spent: f64,
    /// The share of the period's traffic that has come.
    pub share: f64,
}

impl Plan {
    /// Begins where an account stands, with a multiplier.
    #[must_use]
    pub fn begin(at: &Standing, multiplier: f64) -> Self {
        Self {
            period: at.period,
            budget: at.budget,
            pacing: CurvePacing::new(multiplier),
            begun_spent: at.spent.min(at.budget.0 as f64),
            begun_share: at.share,
            spent: at.spent,
            sum: 0.0,
            rounds: 0,
        }
    }

    /// Ends a round; a new period goes on with the mean multiplier of the one before, from its very beginning.
    pub fn observe(&mut self, at: &Standing) {
        if at.period != self.period {
            let mean = if self.rounds == 0 { self.multiplier() } else { self.sum / f64::from(self.rounds) };
            *self = Self::begin(&Standing { spent: 0.0, share: 0.0, ..*at }, mean);
        } else if at.budget != self.budget {
            *self = Self::begin(at, self.fitting(at));
        }
        self.spent = at.spent;
        let traffic = (1.0 - self.begun_share).max(SHARE_MIN);
        let budget = self.budget.0 as f64 - self.begun_spent;
        self.pacing.observe(budget, at.spent - self.begun_spent, (at.share - self.begun_share) / traffic);
        self.sum += self.multiplier();
        self.rounds = self.rounds.saturating_add(1);
    }

    /// The multiplier for another budget. At 1 nothing was held back, so that nothing is known of how much less would do.
    fn fitting(&self, at: &Standing) -> f64 {
        let multiplier = self.multiplier();
        if multiplier >= 1.0 {
            return multiplier;
        }
        let rest = |budget: Nanos, spent: f64| (budget.0 as f64 - spent).max(1.0);
        let ratio = rest(at.budget, at.spent) / rest(self.budget, self.spent);
        (multiplier * ratio.powf(1.0 / ELASTICITY)).min(1.0)
    }

    /// Of days or of weeks.
    #[must_use]
    pub const fn span(&self) -> Span {
        self.period.span
    }

    /// What bids, or the share of auctions, are multiplied with.
    #[must_use]
    pub fn multiplier(&self) -> f64 {
        self.pacing.multiplier()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: i64, budget: i64, spent: f64, share: f64) -> Standing {
        Standing { period: Period { span: Span::Day, number }, budget: Nanos(budget), spent, share }
    }

    #[test]
    fn a_plan_that_begins_in_the_middle_spreads_the_rest() {
        let mut plan = Plan::begin(&at(1, 100, 20.0, 0.5), 0.5);
        plan.observe(&at(1, 100, 20.0, 0.5));
        assert!((plan.multiplier() - 0.5).abs() < 1e-9, "it stands on its curve: {}", plan.multiplier());
        plan.observe(&at(1, 100, 60.0, 0.75));
        assert!((plan.multiplier() - 0.5).abs() < 1e-9, "half of the rest at half of the traffic that was left");
        plan.observe(&at(1, 100, 70.0, 0.75));
        assert!(plan.multiplier() < 0.5, "ahead");
    }

    #[test]
    fn another_budget_moves_what_is_held_back_and_a_new_day_begins_at_the_mean() {
        let mut plan = Plan::begin(&at(1, 100, 0.0, 0.0), 1.0);
        plan.observe(&at(1, 100, 50.0, 0.1));
        let slow = plan.multiplier();
        assert!(slow < 0.5, "{slow}");
        plan.observe(&at(1, 150, 50.0, 0.1));
        let fast = plan.multiplier();
        assert!((fast / slow - 2f64.powf(1.0 / 1.5)).abs() < 1e-9, "twice as much is left: {slow} {fast}");
        plan.observe(&at(1, 100_000, 50.0, 0.1));
        assert!((plan.multiplier() - 1.0).abs() < 1e-9);
        plan.observe(&at(1, 60, 50.0, 0.1));
        assert!((plan.multiplier() - 1.0).abs() < 1e-9, "it may have had more than it needed");
        plan.observe(&at(2, 60, 0.0, 0.0));
        assert!((plan.multiplier() - 1.0).abs() < 1e-9);
        plan.observe(&at(2, 60, 30.0, 0.1));
        let second = plan.multiplier();
        plan.observe(&at(3, 60, 0.0, 0.0));
        let mean = (1.0 + second) / 2.0;
        assert!((plan.multiplier() - mean).abs() < 1e-9, "{} for {mean}", plan.multiplier());
    }
}
