//! What does each campaign bid in this delivery version?
//!
//! Content never changes, bids do. One version of all campaigns is an immutable sorted table; for each
//! content folder the row of every campaign is resolved once, so that the request path finds an ad's bid by index and
//! never by search. The table of a generation's catalogue is the base; what was said of campaigns since is laid over it.
//! The campaigns of a generation never change, so neither do their places: a version that follows another copies its
//! table, lays anew what has changed, and shares what was resolved.
//!
//! The node keeps the last [`VERSIONS_KEPT`] versions: a router may pin a version that is some hundred
//! milliseconds old, and is told when it is older than that.

use std::sync::Arc;

use gavel_proto::delivery::{Book, Override, Schedule, Status};
use gavel_proto::money::{BidType, Micros, PPM};

/// Versions kept (decision 7).
pub const VERSIONS_KEPT: usize = 16;

/// May a campaign bid at all?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CampaignStatus {
    /// Its ads take part.
    Active,
    /// Its ads neither win nor set a price.
    Paused,
    /// The same, because nothing is left to spend.
    OutOfBudget,
}

/// Can the router charge for impressions?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Leased {
    /// Yes, or nobody ever asked it to.
    #[default]
    Admitted,
    /// No: what is billed by the impression takes no part, and sets no price.
    Out,
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
    /// Whether it may bid.
    pub status: CampaignStatus,
    /// When it runs.
    pub schedule: Schedule,
    /// The share of the auctions that it takes part in, in parts per million.
    pub throttle_ppm: u32,
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
        schedule: Schedule { starts_s: 0, ends_s: 0 },
        throttle_ppm: PPM,
        reserve_micros: 0,
        counting: Counting::Uncounted,
    };

    /// What stands when this was said of the catalogue's row.
    #[must_use]
    pub fn overlaid(&self, said: Option<&Override>) -> Self {
        let Some(said) = said else { return *self };
        let status = match said.status {
            Some(Status::Active) => CampaignStatus::Active,
            Some(Status::Paused) => CampaignStatus::Paused,
            None => self.status,
        };
        Self {
            bid: said.in_force_bid().map_or(self.bid, Micros),
            multiplier_ppm: said.multiplier_ppm.unwrap_or(self.multiplier_ppm),
            status: match (status, said.out_of_budget) {
                (CampaignStatus::Active, true) => CampaignStatus::OutOfBudget,
                (status, _) => status,
            },
            schedule: said.schedule,
            throttle_ppm: said.throttle_ppm.unwrap_or(self.throttle_ppm),
            ..*self
        }
    }

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

    /// True when it pays for impressions, for which a router holds money beforehand.
    #[must_use]
    pub const fn is_leased(&self) -> bool {
        match self.bid_type {
            BidType::Cpm | BidType::Ocpm => true,
            BidType::Cpc | BidType::Cpa | BidType::Ocpc => false,
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

    /// The version of a book: what it says, laid over the catalogue. With the campaigns that may differ from the version
    /// before, where that is one of the same catalogue and the book remembers them.
    #[must_use]
    pub fn overlaid(catalogue: &Self, before: Option<&Self>, book: &Book) -> (Self, Option<Vec<u64>>) {
        let before = before.filter(|before| before.version <= book.version);
        let known = before.and_then(|before| Some((before, book.changed_since(before.version)?)));
        let mut rows = known.as_ref().map_or(&catalogue.rows, |(before, _)| &before.rows).clone();
        let mut lay = |campaign: u64| {
            let place = catalogue.row_of(campaign);
            // What is said of a campaign that the catalogue does not have is not heard.
            if place != 0
                && let Some(row) = rows.get_mut(place as usize)
            {
                *row = catalogue.row(place).overlaid(book.get(campaign));
            }
        };
        let changed = known.map(|(_, changed)| changed);
        match &changed {
            Some(changed) => changed.iter().for_each(|campaign| lay(*campaign)),
            None => book.rows().iter().for_each(|(campaign, _)| lay(*campaign)),
        }
        (Self { version: book.version, rows }, changed)
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
    row_numbers: Arc<[u32]>,
}

impl ResolvedDelivery {
    /// Looks every campaign of a content up, once.
    #[must_use]
    pub fn new(delivery: Arc<Delivery>, campaigns: impl IntoIterator<Item = u64>) -> Self {
        let row_numbers = campaigns.into_iter().map(|campaign| delivery.row_of(campaign)).collect();
        Self { delivery, row_numbers }
    }

    /// The same places in another version of the same catalogue.
    #[must_use]
    pub fn of_version(&self, delivery: Arc<Delivery>) -> Self {
        Self { delivery, row_numbers: Arc::clone(&self.row_numbers) }
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
    use gavel_proto::delivery::{BidStrategy, News, Read};
    use proptest::prelude::*;

    use super::*;

    fn row(campaign: u64, bid: u64) -> DeliveryRow {
        DeliveryRow {
            campaign,
            bid_type: BidType::Cpc,
            bid: Micros(bid),
            multiplier_ppm: 500_000,
            status: CampaignStatus::Active,
            ..DeliveryRow::UNKNOWN
        }
    }

    fn news(since: u64, version: u64, rows: Vec<(u64, Override)>) -> News {
        News { formation: 1, version, since, rows }
    }

    proptest! {
        /// The twin lays everything over the catalogue anew.
        #[test]
        fn a_version_after_another_equals_one_from_the_catalogue(
            ids in prop::collection::btree_set(0u64..30, 0..25),
            rounds in prop::collection::vec(prop::collection::vec((0u64..30, 0u64..5), 0..6), 1..40),
            told in 1usize..4,
        ) {
            let catalogue = Delivery::new(0, ids.into_iter().map(|id| row(id, id + 1)));
            let mut book = Book::new(1, 1, Vec::new());
            let mut held = Delivery::overlaid(&catalogue, None, &book).0;
            for (at, round) in rounds.into_iter().enumerate() {
                let rows = round.into_iter().map(|(id, bid)| {
                    let status = [None, Some(Status::Paused), Some(Status::Active)][bid as usize % 3];
                    (id, Override { bid_micros: Some(bid).filter(|b| *b > 0), status, ..Override::default() })
                });
                match book.read(news(book.version, book.version + 1, rows.collect())) {
                    Read::Book(next) => book = next,
                    refused @ (Read::Old | Read::Gap) => prop_assert!(false, "{refused:?}"),
                }
                if at % told == 0 {
                    let (next, changed) = Delivery::overlaid(&catalogue, Some(&held), &book);
                    let twin = Delivery::overlaid(&catalogue, None, &book).0;
                    prop_assert_eq!(&next, &twin);
                    let changed = changed.expect("the book remembers");
                    for (before, after) in held.rows.iter().zip(&next.rows) {
                        prop_assert!(before == after || changed.contains(&after.campaign));
                    }
                    held = next;
                }
            }
        }

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

    #[test]
    fn what_is_said_stands_over_the_catalogue() {
        let check = |said: Override| row(1, 100).overlaid(Some(&said));
        assert_eq!(check(Override::default()), row(1, 100));
        assert_eq!(check(Override { bid_micros: Some(7), ..Override::default() }).bid, Micros(7));
        let auto = Override { bid_micros: Some(7), auto_bid_micros: Some(9), ..Override::default() };
        assert_eq!(check(auto.clone()).bid, Micros(7), "nobody wants the pacer to bid");
        assert_eq!(check(Override { strategy: Some(BidStrategy::MostConversions), ..auto }).bid, Micros(9));
        let gone = Override { out_of_budget: true, ..Override::default() };
        assert_eq!(check(gone.clone()).status, CampaignStatus::OutOfBudget);
        assert!(!check(gone.clone()).bids());
        assert_eq!(check(Override { status: Some(Status::Paused), ..gone }).status, CampaignStatus::Paused);
    }
}
