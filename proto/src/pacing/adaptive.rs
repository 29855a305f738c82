//! What does a dual controller bid, one step an auction?
//!
//! Bid `v / (1 + mu)`; after each auction `mu` moves by `-step * (rate - payment)` and stays in `[0, mu_max]`. With
//! `step` near `auctions^(-1/2)` the regret against the best fixed multiplier grows as the root of the auctions, in a
//! stationary market (Balseiro and Gur, "Learning in repeated auctions with budgets", 2019).

use super::ppm;

/// The controller of one budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdaptivePacing {
    mu: f64,
    step: f64,
    mu_max: f64,
}

impl AdaptivePacing {
    /// Starts with full bids.
    #[must_use]
    pub const fn new(step: f64, mu_max: f64) -> Self {
        Self { mu: 0.0, step, mu_max }
    }

    /// Ends an auction: what should be paid in one on average, and what was paid.
    pub fn observe(&mut self, rate: f64, payment: f64) {
        self.mu = (self.mu - self.step * (rate - payment)).clamp(0.0, self.mu_max);
    }

    /// The dual variable of the budget.
    #[must_use]
    pub const fn mu(&self) -> f64 {
        self.mu
    }

    /// What bids are multiplied with.
    #[must_use]
    pub fn multiplier(&self) -> f64 {
        1.0 / (1.0 + self.mu)
    }

    /// The same in parts per million.
    #[must_use]
    pub fn multiplier_ppm(&self) -> u32 {
        ppm(self.multiplier())
    }
}
