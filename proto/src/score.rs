//! How much is an impression of this ad worth, as one integer?
//!
//! The score unit is currency micros per impression times 1e15 (decision 10). The node computes the
//! weight of an ad once, in f64, and rounds it once; from then on there are only integers, so that every
//! process orders ads the same way and prices are exact.

use crate::limits::BID_MICROS_MAX;
use crate::money::{BidType, Micros, PPM};
use crate::wire;
use serde::{Deserialize, Serialize};

/// Score units per currency micro of expected value.
pub const UNIT: f64 = 1e15;
/// The weight of a CPM bid: a thousandth of [`UNIT`], exactly.
pub const CPM_WEIGHT: u64 = 1_000_000_000_000;

/// The ranking weight: score units per micro of bid.
///
/// `click` is P(click), `conversion` is P(conversion given click), both in `[0, 1]`. `None` when a
/// needed probability is not finite, out of range, or rounds to a weight of zero.
#[must_use]
pub fn weight(bid_type: BidType, click: f64, conversion: f64) -> Option<u64> {
    let probability = |p: f64| (p.is_finite() && (0.0..=1.0).contains(&p)).then_some(p);
    let w = match bid_type {
        BidType::Cpm => return Some(CPM_WEIGHT),
        BidType::Cpc => UNIT * probability(click)?,
        BidType::Cpa | BidType::Ocpm | BidType::Ocpc => UNIT * probability(click)? * probability(conversion)?,
    }
    .round();
    // 1e15 is below 2^53, so the cast is exact.
    (w >= 1.0).then_some(w as u64)
}

/// The additive value of a cost per event with probability `p`, in score units, rounded once.
/// `None` when `p` is not a probability.
#[must_use]
pub fn additive_value(micros_per_event: i64, p: f64) -> Option<i128> {
    (p.is_finite() && (0.0..=1.0).contains(&p)).then(|| {
        let per_micro = (UNIT * p).round() as i128;
        i128::from(micros_per_event) * per_micro
    })
}

/// What an impression is worth besides its bid and the probability of the bid's event.
///
/// `weight = 1e15 * e * (pivot / e)^(1 - alpha) * q^beta` with `e` the event probability (squashing: Lahaie and Pennock,
/// EC 2007) and `q` the probability of a long click; the additive value is what a long click is worth to the user less
/// what a hide costs. The pivot keeps squashed bids comparable with those billed by impressions and with values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct QualityRule {
    /// 1 - alpha in parts per million: 0 ranks by expected revenue, a million by bid alone.
    pub squashing_ppm: u32,
    /// The event probability, in parts per million, that squashing leaves as it is; 0 = [`PIVOT_PPM_DEFAULT`].
    pub squashing_pivot_ppm: u32,
    /// beta in parts per million; 0 = quality is not used.
    pub quality_ppm: u32,
    /// What a hide costs, micros; 0 = not counted.
    pub hide_cost_micros: u64,
    /// What a long click is worth to the user, micros; 0 = not counted.
    pub user_value_micros: u64,
    /// The least score of an ad, in micros per mille: bid, quality and value together; 0 = none.
    pub score_floor_cpm_micros: u64,
}

/// One click in a hundred impressions: about the rate of the corpora that come with the project.
pub const PIVOT_PPM_DEFAULT: u32 = 10_000;
/// Largest exponent of quality: with 4, half the quality is a sixteenth of the weight.
pub const QUALITY_PPM_MAX: u32 = 4 * PPM;

/// The two weights of an ad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weights {
    /// Ranks and prices: score units per micro of bid.
    pub rank: u64,
    /// Bills: 1e15 times the probability of the bid's event; [`CPM_WEIGHT`] for CPM.
    pub event: u64,
}

impl QualityRule {
    /// Whether every number is within its limit, so that no score leaves its bounds.
    #[must_use]
    pub fn is_within_limits(&self) -> bool {
        let micros = [self.hide_cost_micros, self.user_value_micros, self.score_floor_cpm_micros];
        self.squashing_ppm <= PPM
            && self.squashing_pivot_ppm <= PPM
            && self.quality_ppm <= QUALITY_PPM_MAX
            && micros.iter().all(|micros| *micros <= BID_MICROS_MAX)
    }

    /// Both weights, each rounded once. `quality` is P(long click), 1 without such a prediction. `None` as [`weight`].
    #[must_use]
    pub fn weights(&self, bid_type: BidType, click: f64, conversion: f64, quality: f64) -> Option<Weights> {
        let event = weight(bid_type, click, conversion)?;
        let mut factor = 1.0;
        if self.squashing_ppm > 0 && bid_type != BidType::Cpm {
            let pivot = if self.squashing_pivot_ppm == 0 { PIVOT_PPM_DEFAULT } else { self.squashing_pivot_ppm };
            // Both in 1e-15: their ratio is that of the probabilities.
            let pivot = f64::from(pivot) * (UNIT / f64::from(PPM));
            factor *= (pivot / event as f64).powf(f64::from(self.squashing_ppm) / f64::from(PPM));
        }
        if self.quality_ppm > 0 {
            let quality = (quality.is_finite() && (0.0..=1.0).contains(&quality)).then_some(quality)?;
            factor *= quality.powf(f64::from(self.quality_ppm) / f64::from(PPM));
        }
        // Untouched weights stay exact; others stay within the unit, as every sum behind them expects.
        let rank = if factor == 1.0 { event as f64 } else { (event as f64 * factor).round().min(UNIT) };
        (rank >= 1.0).then_some(Weights { rank: rank as u64, event })
    }

    /// The additive value in score units; `None` when a prediction that counts is no probability.
    #[must_use]
    pub fn value(&self, long_click: Option<f64>, hide: Option<f64>) -> Option<i128> {
        let part = |micros: u64, p: Option<f64>| match p {
            Some(p) if micros > 0 => additive_value(i64::try_from(micros).ok()?, p),
            Some(_) | None => Some(0),
        };
        Some(part(self.user_value_micros, long_click)? - part(self.hide_cost_micros, hide)?)
    }

    /// The reserve of an ad that the least score implies: `ceil((floor - value) / weight)`, where no floor is a floor
    /// of 0, so that no ad costs more than it brings.
    #[must_use]
    pub fn reserve(&self, weight: u64, value: i128) -> u64 {
        let missing = i128::from(self.score_floor_cpm_micros) * i128::from(CPM_WEIGHT) - value;
        if missing <= 0 || weight == 0 {
            return 0;
        }
        u64::try_from(missing.unsigned_abs().div_ceil(u128::from(weight))).unwrap_or(u64::MAX)
    }
}

impl From<wire::QualityRule> for QualityRule {
    fn from(q: wire::QualityRule) -> Self {
        Self {
            squashing_ppm: q.squashing_ppm,
            squashing_pivot_ppm: q.squashing_pivot_ppm,
            quality_ppm: q.quality_ppm,
            hide_cost_micros: q.hide_cost_micros,
            user_value_micros: q.user_value_micros,
            score_floor_cpm_micros: q.score_floor_cpm_micros,
        }
    }
}

impl From<QualityRule> for wire::QualityRule {
    fn from(q: QualityRule) -> Self {
        Self {
            squashing_ppm: q.squashing_ppm,
            squashing_pivot_ppm: q.squashing_pivot_ppm,
            quality_ppm: q.quality_ppm,
            hide_cost_micros: q.hide_cost_micros,
            user_value_micros: q.user_value_micros,
            score_floor_cpm_micros: q.score_floor_cpm_micros,
        }
    }
}

/// The auction score `paced bid * weight + value`, exact.
///
/// `None` only on overflow of i128, which the limits on bids rule out.
#[must_use]
pub fn score(paced_bid: Micros, weight: u64, value: i128) -> Option<i128> {
    let product = u128::from(paced_bid.0) * u128::from(weight);
    i128::try_from(product).ok()?.checked_add(value)
}

/// The reserve of an ad in its own event that a floor per mille implies: `ceil(floor * 1e12 / weight)`.
#[must_use]
pub fn reserve_from_cpm(floor_cpm_micros: u64, weight: u64) -> u64 {
    if floor_cpm_micros == 0 || weight == 0 {
        return 0;
    }
    let units = u128::from(floor_cpm_micros) * u128::from(CPM_WEIGHT);
    u64::try_from(units.div_ceil(u128::from(weight))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CPC 2.00 at 1.5 % is 30 per mille; CPM 25 is 25; a target CPA of 40 at 1 % and 8 % is 32 (auction chapter, section 0).
    #[test]
    fn bid_types_meet_in_one_unit() {
        let per_mille = |bid: u64, t, p, c| {
            let s = score(Micros(bid), weight(t, p, c).expect("valid"), 0).expect("fits");
            s / 1_000_000_000_000_000 * 1000 / 1_000_000
        };
        assert_eq!(per_mille(2_000_000, BidType::Cpc, 0.015, 0.0), 30);
        assert_eq!(per_mille(25_000_000, BidType::Cpm, 0.0, 0.0), 25);
        assert_eq!(per_mille(40_000_000, BidType::Cpa, 0.01, 0.08), 32);
    }

    #[test]
    fn what_is_no_probability_has_no_weight() {
        for p in [f64::NAN, f64::INFINITY, -0.1, 1.1, 1e-20] {
            assert_eq!(weight(BidType::Cpc, p, 0.5), None);
        }
    }

    /// Lahaie and Pennock: at alpha 1/2 the second bidder wins and pays the root of 2 (auction chapter, 1.3); the pivot
    /// scales both weights alike.
    #[test]
    fn squashing_brings_bids_closer() {
        let rank = |squashing_ppm, click| {
            let rule = QualityRule { squashing_ppm, squashing_pivot_ppm: 200_000, ..QualityRule::default() };
            rule.weights(BidType::Cpc, click, 0.0, 1.0).expect("valid")
        };
        assert_eq!(rank(0, 0.1), Weights { rank: 100_000_000_000_000, event: 100_000_000_000_000 });
        assert_eq!(rank(500_000, 0.2).rank, 200_000_000_000_000, "the pivot stays");
        assert_eq!(rank(500_000, 0.1).rank, 141_421_356_237_310);
        assert_eq!(rank(1_000_000, 0.1).rank, rank(1_000_000, 0.3).rank, "by bid alone");
        let cpm = QualityRule { squashing_ppm: 500_000, ..QualityRule::default() }.weights(BidType::Cpm, 0.1, 0.0, 1.0);
        assert_eq!(cpm, Some(Weights { rank: CPM_WEIGHT, event: CPM_WEIGHT }));
    }

    #[test]
    fn quality_multiplies_and_values_add() {
        let rule =
            QualityRule { quality_ppm: 2_000_000, hide_cost_micros: 5, user_value_micros: 3, ..QualityRule::default() };
        assert_eq!(rule.weights(BidType::Cpc, 0.1, 0.0, 0.5).map(|w| w.rank), Some(25_000_000_000_000));
        assert_eq!(rule.weights(BidType::Cpc, 0.1, 0.0, f64::NAN), None);
        assert_eq!(rule.weights(BidType::Cpc, 0.1, 0.0, 0.0), None, "nothing is left of the weight");
        assert_eq!(rule.value(Some(0.5), Some(0.25)), Some(250_000_000_000_000));
        assert_eq!(rule.value(None, Some(0.25)), Some(-1_250_000_000_000_000));
        assert_eq!(rule.value(Some(2.0), None), None);
    }

    #[test]
    fn a_least_score_is_a_reserve_of_every_ad() {
        let rule = QualityRule { score_floor_cpm_micros: 10, ..QualityRule::default() };
        assert_eq!(rule.reserve(CPM_WEIGHT, 0), 10);
        assert_eq!(rule.reserve(CPM_WEIGHT, 3 * i128::from(CPM_WEIGHT)), 7);
        assert_eq!(rule.reserve(CPM_WEIGHT, 11 * i128::from(CPM_WEIGHT)), 0);
        assert_eq!(QualityRule::default().reserve(7, -8), 2, "no ad costs more than it brings");
        assert_eq!(QualityRule::default().reserve(7, 0), 0);
    }

    #[test]
    fn a_floor_becomes_a_reserve_rounded_up() {
        assert_eq!(reserve_from_cpm(1_000_000, CPM_WEIGHT), 1_000_000);
        assert_eq!(reserve_from_cpm(1, 3_000_000_000_000), 1);
        assert_eq!(reserve_from_cpm(0, 5), 0);
    }
}
