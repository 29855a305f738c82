//! What does each campaign bid in this delivery version?
//!
//! Content never changes, bids do. One version of all campaigns is an immutable sorted table; for each
//! content folder the row of every campaign is resolved once per version, so that the request path finds
//! an ad's bid by index and never by search.
//!
//! The node keeps the last [`VERSIONS_KEPT`] versions: a router may pin a version that is some hundred
//! milliseconds old, and is told when it is older than that.

use std::sync::Arc;

use gavel_proto::money::{BidType, Micros};

/// Versions kept (decision 7).
pub const VERSIONS_KEPT: usize = 16;

/// May a campaign bid at all?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CampaignStatus {
    /// Its ads take part.
    Active,
    /// Its ads neither win nor set a price.
    Paused,
}

/// Are impressions counted by user?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Counting {
    /// No frequency rule asks for it.
    #[default]
    Uncounted,
    /// A rule of the campaign, or one over its advertiser.
    Counted,
}

/// One campaign in one delivery version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryRow {
    /// Which campaign.
    pub campaign: u64,
    /// The event its bid is stated in.
    pub bid_type: BidType,
    /// The bid before pacing.
    pub bid: Micros,
    /// Pacing multiplier in parts per million.
    pub multiplier_ppm: u32,
    /// Paused or not.
    pub status: CampaignStatus,
    /// Least price per event that its advertiser's contract asks; 0 = none.
    pub reserve_micros: u64,
    /// Whether its impressions are counted.
    pub counting: Counting,
}

impl DeliveryRow {
    /// A campaign that this version does not know: it never bids.
    pub const UNKNOWN: Self = Self {
        campaign: 0,
        bid_type: BidType::Cpm,
        bid: Micros(0),
        multiplier_ppm: 0,
        status: CampaignStatus::Paused,
        reserve_micros: 0,
        counting: Counting::Uncounted,
    };

    /// The bid after pacing.
    #[must_use]
    pub fn paced(&self) -> Micros {
        self.bid.paced(self.multiplier_ppm)
    }

    /// True when what an impression is worth does not depend on the user.
    #[must_use]
    pub const fn is_by_impression(&self) -> bool {
        match self.bid_type {
            BidType::Cpm => true,
            BidType::Cpc | BidType::Cpa | BidType::Ocpm | BidType::Ocpc => false,
        }
    }

    /// True when its ads take part in auctions.
    #[must_use]
    pub fn bids(&self) -> bool {
        self.status == CampaignStatus::Active && self.paced() > Micros(0)
    }
}

/// All campaigns of one version.
#[derive(Debug, PartialEq, Eq)]
pub struct Delivery {
    version: u64,
    /// Sorted by campaign; row 0 is [`DeliveryRow::UNKNOWN`].
    rows: Vec<DeliveryRow>,
}

impl Delivery {
    /// A version from its campaigns; of a campaign that is given twice the last row stands.
    #[must_use]
    pub fn new(version: u64, campaigns: impl IntoIterator<Item = DeliveryRow>) -> Self {
        let mut rows: Vec<DeliveryRow> = campaigns.into_iter().collect();
        // Stable, so the last of equals is the newest.
        rows.sort_by_key(|row| row.campaign);
        rows.reverse();
        rows.dedup_by_key(|row| row.campaign);
        rows.push(DeliveryRow::UNKNOWN);
        rows.reverse();
        Self { version, rows }
    }

    /// Its number.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Campaigns in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len() - 1
    }

    /// True without campaigns.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The row number of a campaign; 0 when it is unknown.
    #[must_use]
    pub fn row_of(&self, campaign: u64) -> u32 {
        let known = &self.rows[1..];
        known.binary_search_by_key(&campaign, |row| row.campaign).map_or(0, |found| found as u32 + 1)
    }

    /// A row by its number.
    #[must_use]
    pub fn row(&self, number: u32) -> &DeliveryRow {
        self.rows.get(number as usize).unwrap_or(&DeliveryRow::UNKNOWN)
    }
}

/// One version, resolved for the campaigns of one content folder.
#[derive(Debug)]
pub struct ResolvedDelivery {
    delivery: Arc<Delivery>,
    /// Row number by the content's campaign ordinal.
    row_numbers: Vec<u32>,
}

impl ResolvedDelivery {
    /// Looks every campaign of a content up, once.
    #[must_use]
    pub fn new(delivery: Arc<Delivery>, campaigns: impl IntoIterator<Item = u64>) -> Self {
        let row_numbers = campaigns.into_iter().map(|campaign| delivery.row_of(campaign)).collect();
        Self { delivery, row_numbers }
    }

    /// The version.
    #[must_use]
    pub fn delivery(&self) -> &Arc<Delivery> {
        &self.delivery
    }

    /// The row of a content's campaign ordinal.
    #[must_use]
    pub fn row(&self, campaign_ordinal: u32) -> &DeliveryRow {
        self.row_numbers
            .get(campaign_ordinal as usize)
            .map_or(&DeliveryRow::UNKNOWN, |number| self.delivery.row(*number))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(campaign: u64, bid: u64) -> DeliveryRow {
        DeliveryRow {
            campaign,
            bid_type: BidType::Cpc,
            bid: Micros(bid),
            multiplier_ppm: 500_000,
            status: CampaignStatus::Active,
            reserve_micros: 0,
            counting: Counting::Uncounted,
        }
    }

    proptest! {
        /// The twin is a search from the back of the list as it came.
        #[test]
        fn finds_what_a_scan_finds(ids in prop::collection::vec(0u64..30, 0..40), asked in prop::collection::vec(0u64..40, 0..40)) {
            let rows: Vec<_> = ids.iter().enumerate().map(|(i, id)| row(*id, i as u64)).collect();
            let delivery = Arc::new(Delivery::new(3, rows.clone()));
            let resolved = ResolvedDelivery::new(delivery, asked.clone());
            for (ordinal, campaign) in asked.iter().enumerate() {
                let twin = rows.iter().rev().find(|r| r.campaign == *campaign).unwrap_or(&DeliveryRow::UNKNOWN);
                prop_assert_eq!(resolved.row(ordinal as u32), twin);
            }
            prop_assert_eq!(resolved.row(1_000), &DeliveryRow::UNKNOWN);
        }
    }

    #[test]
    fn a_bid_that_pacing_rounds_to_nothing_does_not_bid() {
        assert!(!row(1, 1).bids());
        assert!(row(1, 2).bids());
        assert!(!DeliveryRow { status: CampaignStatus::Paused, ..row(1, 9) }.bids());
    }
}
