//! In which share of the auctions does a throttled campaign take part?
//!
//! Once a minute the probability grows by a tenth when the campaign is behind its plan and shrinks by a tenth when it
//! is ahead (Agarwal, Ghosh, Wei and You, "Budget pacing for targeted online advertisements at LinkedIn", KDD 2014).
//! It bids in full where it takes part. Whether it does is a hash of (auction, campaign): every process decides alike,
//! and a replay too.

use super::ppm;
use crate::hash::combine;
use crate::money::PPM;

/// The published rate of adjustment.
const ADJUSTMENT: f64 = 0.1;
/// Where a day begins: slowly, so that the first minutes do not spend the morning.
const START: f64 = 0.1;
/// Never less: a factor of a tenth moves nothing from 0.
const LEAST: f64 = 1e-4;

/// The probability of one campaign.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Throttle {
    probability: f64,
}

impl Default for Throttle {
    fn default() -> Self {
        Self { probability: START }
    }
}

impl Throttle {
    /// Ends a minute: what was spent and what the plan says by now.
    pub fn observe(&mut self, spent: f64, planned: f64) {
        let factor = if spent <= planned { 1.0 + ADJUSTMENT } else { 1.0 - ADJUSTMENT };
        self.probability = (self.probability * factor).clamp(LEAST, 1.0);
    }

    /// The share of the auctions, parts per million.
    #[must_use]
    pub fn probability_ppm(&self) -> u32 {
        ppm(self.probability)
    }
}

/// Whether a campaign of this probability takes part in this auction.
#[must_use]
pub fn participates(auction: u64, campaign: u64, probability_ppm: u32) -> bool {
    const NAME: u64 = 0x7468_726f_7474_6c65;
    // The high bits of a mixed word, scaled without the bias of a remainder.
    let dice = (u128::from(combine(combine(NAME, auction), campaign)) * u128::from(PPM)) >> 64;
    dice < u128::from(probability_ppm)
}
