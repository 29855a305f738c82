//! How does a campaign spend its budget over a day, and what does an autobidder bid?
//!
//! Controllers: each is told what was spent, and says with which multiplier or probability to go on.
//! Who calls them owns the clock: "now" is the share of the day's traffic that a [`Forecast`] says has passed, so
//! that a quiet night is no reason to bid higher.
//!
//! * [`CurvePacing`]: the production pacing of budgets. A bid multiplier (or, for throttling, a probability) that keeps
//!   the spend curve on the traffic curve.
//! * [`Autobid`]: most value within a budget, a target cost per conversion, or both (dual of the linear program); in
//!   production with the target alone.
//! * [`AdaptivePacing`]: the published dual controller, one step an auction (Balseiro and Gur, Management Science 2019).
//! * [`Throttle`]: the published probabilistic one (Agarwal, Ghosh, Wei and You, KDD 2014).
//! * [`Actuator`]: a PID controller of a ratio such as the cost per click (Zhang et al., WSDM 2016). No cluster runs these
//!   three: the simulator compares with them.
//! * [`Flight`], [`Arrival`] and [`Line`]: what was served and may still be charged, and how the pacer hears of it.
//!
//! Multipliers leave as parts per million: what they multiply is an integer bid, rounded down before ranking.
//! Inside are floats, which money never sees.

mod actuator;
mod adaptive;
pub mod arrival;
mod autobid;
mod convergence;
mod curve;
pub mod flight;
mod forecast;
pub mod published;
pub mod served;
mod throttle;

pub use actuator::{Actuator, Gains};
pub use adaptive::AdaptivePacing;
pub use arrival::{Arrival, Arrivals, Delays};
pub use autobid::Autobid;
pub use convergence::{Convergence, convergence};
pub use curve::CurvePacing;
pub use flight::Flight;
pub use forecast::Forecast;
pub use served::Line;
pub use throttle::{Throttle, participates};

use crate::money::PPM;

/// A share in parts per million, at least one of them: a campaign with a budget is never bid out of the market, or
/// nothing would tell it when the market has changed.
fn ppm(share: f64) -> u32 {
    // Clamped into the range of the cast; what is no number becomes the smallest.
    ((share * f64::from(PPM)).clamp(1.0, f64::from(PPM))) as u32
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_equilibria;
