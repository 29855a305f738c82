//! What is an ad worth in retrieval, before anybody knows how likely a click is?
//!
//! The inner product estimates the logarithm of a click's odds, so what a click brings enters as a logarithm, too: the CPC
//! bid, or the bid per conversion times the prior rate of conversions (decision 14). The bundle's weight brings it to the
//! unit of its similarities. Ads that are billed by the thousand impressions have a list of their own and no value here,
//! nor have ads that do not bid: the logarithm of nothing is never taken.

use super::delivery::DeliveryRow;
use super::light::{LightChance, LightModel};

/// The bundle's weight of values, and what else it says about them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValueModel {
    /// Similarity that a value e times as high outweighs; never 0.
    pub weight: f32,
    /// What an event is worth.
    pub light: LightModel,
}

impl ValueModel {
    /// The weighted value of an ad with this row; none if it does not bid or bids by the thousand impressions.
    #[must_use]
    pub fn value(&self, row: &DeliveryRow) -> Option<f32> {
        if row.is_by_impression() || !row.bids() {
            return None;
        }
        // What an impression brings that is clicked for certain. Below a millionth of a micro nobody is worth less.
        let clicked = LightChance { click: 1.0, conversion: self.light.prior_conversion.into() };
        let of_a_click = clicked.value(row).max(1e-6);
        Some(self.weight * of_a_click.ln() as f32)
    }

    /// The weighted value of the best of these rows.
    #[must_use]
    pub fn best<'a>(&self, rows: impl IntoIterator<Item = &'a DeliveryRow>) -> Option<f32> {
        rows.into_iter().filter_map(|row| self.value(row)).max_by(f32::total_cmp)
    }
}

#[cfg(test)]
mod tests {
    use gavel_proto::money::{BidType, Micros};

    use super::super::delivery::CampaignStatus;
    use super::*;

    fn row(bid_type: BidType, bid: u64) -> DeliveryRow {
        DeliveryRow {
            campaign: 1,
            bid_type,
            bid: Micros(bid),
            multiplier_ppm: 1_000_000,
            status: CampaignStatus::Active,
            ..DeliveryRow::UNKNOWN
        }
    }

    #[test]
    fn a_conversion_bid_is_worth_its_prior() {
        let model = ValueModel { weight: 0.5, light: LightModel { prior_conversion: 0.01 } };
        let (click, conversion) = (row(BidType::Cpc, 1_000), row(BidType::Cpa, 100_000));
        assert_eq!(model.value(&click), Some(0.5 * 1_000f32.ln()));
        assert!((model.value(&conversion).unwrap() - model.value(&click).unwrap()).abs() < 1e-5);
        assert_eq!(model.best([&row(BidType::Cpc, 10), &click]), model.value(&click));
    }

    #[test]
    fn nothing_is_never_a_logarithm() {
        let model = ValueModel { weight: 1.0, light: LightModel { prior_conversion: 0.0 } };
        let paused = DeliveryRow { status: CampaignStatus::Paused, ..row(BidType::Cpc, 5) };
        for without in [row(BidType::Cpc, 0), row(BidType::Cpm, 5), paused, DeliveryRow::UNKNOWN] {
            assert_eq!(model.value(&without), None);
        }
        assert!(model.value(&row(BidType::Cpa, 5)).unwrap().is_finite(), "a prior of nothing");
    }
}
