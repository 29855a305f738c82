//! How is the spend curve kept on the traffic curve?
//!
//! Let `e` be what should have been spent by now less what was, as a share of the budget, and `u` the logarithm of
//! the multiplier. Each interval moves `u` by `k1 * change of e + k2 * e * traffic of the interval`. In traffic time,
//! with `beta` the elasticity of spend in the multiplier, that is a second-order system: its frequency is the root of
//! `beta * k2` and its damping `k1 * sqrt(beta / k2) / 2`. With beta between 1 and 2 (a second price in a
//! dense market) the gains below give a frequency of 16 to 22 a day, critical damping at beta 1.5, and an answer to a
//! disturbance within a tenth of the day. They are small enough that one event of a four-hundredth of the budget
//! moves the multiplier by a twentieth.
//!
//! What is in flight (expected spend of clicks and conversions that have not come yet) counts as spent: else a
//! campaign billed by late events would overspend by all that is under way.

use super::ppm;

/// Of the change of the error.
const GAIN_CHANGE: f64 = 20.0;
/// Of the error.
const GAIN_ERROR: f64 = 260.0;
/// Largest step of one interval: a factor of e, so that one large charge is no jump to nothing.
const STEP_MAX: f64 = 1.0;
/// Smallest logarithm: a multiplier of a thousandth.
const LOG_MIN: f64 = -6.9;

/// Paces one budget over one period.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CurvePacing {
    log: f64,
    error: f64,
    share: f64,
}

impl CurvePacing {
    /// Starts a period at a multiplier of `start`, such as the mean of the period before; 1 bids in full.
    #[must_use]
    pub fn new(start: f64) -> Self {
        Self { log: start.clamp(LOG_MIN.exp(), 1.0).ln(), error: 0.0, share: 0.0 }
    }

    /// Ends an interval: `spent` of `budget`, in-flight spend included, at this share of the period's traffic.
    pub fn observe(&mut self, budget: f64, spent: f64, share: f64) {
        if !(budget > 0.0 && spent.is_finite() && share.is_finite()) {
            return;
        }
        let error = share - spent / budget;
        let step = GAIN_CHANGE * (error - self.error) + GAIN_ERROR * error * (share - self.share);
        self.log = (self.log + step.clamp(-STEP_MAX, STEP_MAX)).clamp(LOG_MIN, 0.0);
        (self.error, self.share) = (error, share);
    }

    /// The multiplier, above 0 and at most 1.
    #[must_use]
    pub fn multiplier(&self) -> f64 {
        self.log.exp()
    }

    /// The same in parts per million.
    #[must_use]
    pub fn multiplier_ppm(&self) -> u32 {
        ppm(self.multiplier())
    }
}
