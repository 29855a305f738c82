//! How much is an impression of this ad worth, as one integer?
//!
//! The score unit is currency micros per impression times 1e15 (decision 10). The node computes the
//! weight of an ad once, in f64, and rounds it once; from then on there are only integers, so that every
//! process orders ads the same way and prices are exact.

use crate::money::{BidType, Micros};

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

    #[test]
    fn a_floor_becomes_a_reserve_rounded_up() {
        assert_eq!(reserve_from_cpm(1_000_000, CPM_WEIGHT), 1_000_000);
        assert_eq!(reserve_from_cpm(1, 3_000_000_000_000), 1);
        assert_eq!(reserve_from_cpm(0, 5), 0);
    }
}
