//! What does an autobidder bid for an impression of value `v`?
//!
//! It wants the most value subject to `spend <= budget` (dual variable lambda) and `spend <= target * value`
//! (dual variable mu). In a truthful auction the best bid is `v * (1 + mu * target) / (lambda + mu)`: with the budget
//! alone `v / lambda`, with the target alone `(target + 1 / mu) * v`. Each dual variable falls while its
//! constraint has room and rises while it is broken, one step an auction or interval.
//!
//! "Most conversions within a budget" has no target; "target cost per conversion" may have no budget; value is the
//! predicted probability of a conversion, or its expected worth.

/// The dual controller of one campaign.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Autobid {
    target: Option<f64>,
    rate: Option<f64>,
    lambda: f64,
    mu: f64,
    step: f64,
}

/// Neither dual variable goes below it: at 0 together the bid would have no bound.
const DUAL_MIN: f64 = 1e-3;
/// Smallest margin over the target that a bid goes on from, in targets: below it the way back would take long.
const MARGIN_MIN: f64 = 0.01;
/// Where both begin: the bid of one unit of money for one of value.
const DUAL_START: f64 = 1.0;

impl Autobid {
    /// With a budget of `rate` an observation and at most `target` paid for a unit of value; both in one unit of
    /// money. `step` near the inverse root of the observations.
    #[must_use]
    pub fn new(rate: Option<f64>, target: Option<f64>, step: f64) -> Self {
        let start = |constraint: Option<f64>| if constraint.is_some() { DUAL_START } else { 0.0 };
        Self { target, rate, lambda: start(rate), mu: start(target), step }
    }

    /// Goes on from a bid of the target alone: `bid = target + 1 / mu`. At or below the target the margin is small.
    #[must_use]
    pub fn bidding(self, bid_per_value: f64) -> Self {
        let Some(target) = self.target.filter(|_| self.rate.is_none()) else { return self };
        let margin = (bid_per_value - target).max(target * MARGIN_MIN);
        Self { mu: if margin.is_finite() { (1.0 / margin).max(DUAL_MIN) } else { self.mu }, ..self }
    }

    /// Ends an observation: what was paid, and what it was worth.
    pub fn observe(&mut self, paid: f64, value: f64) {
        if let Some(rate) = self.rate {
            self.lambda = (self.lambda - self.step * (rate - paid)).max(DUAL_MIN);
        }
        if let Some(target) = self.target {
            self.mu = (self.mu - self.step * (target * value - paid)).max(DUAL_MIN);
        }
    }

    /// What a unit of value is bid.
    #[must_use]
    pub fn bid_per_value(&self) -> f64 {
        let duals = self.lambda + self.mu;
        // Without any constraint a unit of money is bid for a unit of value.
        if duals <= 0.0 { 1.0 } else { (1.0 + self.mu * self.target.unwrap_or(0.0)) / duals }
    }
}
