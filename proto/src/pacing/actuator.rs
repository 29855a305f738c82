//! How is a ratio, such as the cost of a click, kept at a reference?
//!
//! `phi = P * e + I * sum of e + D * (x_before - x)` with `e = reference - x`, kept within bounds; bids are multiplied
//! with `exp(phi)` (Zhang, Rong, Wang, Zhu and Wang, "Feedback control of real-time display advertising", WSDM 2016).

/// The gains of the three terms, and the bounds of phi.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gains {
    /// P.
    pub proportional: f64,
    /// I.
    pub integral: f64,
    /// D.
    pub derivative: f64,
    /// Smallest phi.
    pub low: f64,
    /// Largest phi.
    pub high: f64,
}

/// The controller of one ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Actuator {
    gains: Gains,
    reference: f64,
    sum: f64,
    before: Option<f64>,
    phi: f64,
}

impl Actuator {
    /// Starts at phi 0.
    #[must_use]
    pub const fn new(gains: Gains, reference: f64) -> Self {
        Self { gains, reference, sum: 0.0, before: None, phi: 0.0 }
    }

    /// Ends a round in which the ratio was `x`.
    pub fn observe(&mut self, x: f64) {
        let error = self.reference - x;
        self.sum += error;
        let change = self.before.map_or(0.0, |before| before - x);
        let Gains { proportional, integral, derivative, low, high } = self.gains;
        self.phi = (proportional * error + integral * self.sum + derivative * change).clamp(low, high);
        self.before = Some(x);
    }

    /// The logarithm of the multiplier.
    #[must_use]
    pub const fn phi(&self) -> f64 {
        self.phi
    }

    /// What bids are multiplied with.
    #[must_use]
    pub fn multiplier(&self) -> f64 {
        self.phi.exp()
    }
}
