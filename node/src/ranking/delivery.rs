//! What does each campaign, and each of its ad groups, bid in this delivery version?
//!
//! Content never changes, bids do. One version of all campaigns is an immutable sorted table with a row for each
//! campaign and for each of its ad groups; for each content folder the row of every line is resolved once, so that the
//! request path finds an ad's bid by index and never by search. The table of a generation's catalogue is the base; what
//! was said of campaigns since is laid over it. The campaigns and ad groups of a generation never change, so neither do
//! their places: a version that follows another copies its table, lays anew what has changed, and shares what was
//! resolved.
//!
//! The node keeps the last [`VERSIONS_KEPT`] versions: a router may pin a version that is some hundred
//! milliseconds old, and is told when it is older than that.

use std::sync::Arc;

use gavel_proto::delivery::{Book, Override, Schedule, Status, group_bid};
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

/// Are impressions counted by user?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Counting {
    /// No frequency rule asks for it.
    #[default]
    Uncounted,
    /// A rule of the campaign, or one over its advertiser.
    Counted,
}

/// One campaign, or one of its ad groups, in one delivery version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryRow {
    /// Which campaign.
    pub campaign: u64,
    /// Which of its ad groups; 0: the campaign itself, for the ads that are directly under it.
    pub ad_group: u64,
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
    /// A campaign or an ad group that this version does not know: it never bids.
    pub const UNKNOWN: Self = Self {
        campaign: 0,
        ad_group: 0,
        bid_type: BidType::Cpm,
        bid: Micros(0),
        multiplier_ppm: 0,
        status: CampaignStatus::Paused,
        schedule: Schedule { starts_s: 0, ends_s: 0 },
        throttle_ppm: PPM,
        reserve_micros: 0,
        counting: Counting::Uncounted,
    };

    /// What stands of a campaign when this was said of the catalogue's row.
    #[must_use]
    pub fn overlaid(&self, said: Option<&Override>) -> Self {
        let Some(said) = said else { return *self };
        Self {
            bid: said.in_force_bid().map_or(self.bid, Micros),
            multiplier_ppm: said.multiplier_ppm.unwrap_or(self.multiplier_ppm),
            status: match (in_force(said.status, self.status), said.out_of_budget) {
                (CampaignStatus::Active, true) => CampaignStatus::OutOfBudget,
                (status, _) => status,
            },
            schedule: said.schedule,
            throttle_ppm: said.throttle_ppm.unwrap_or(self.throttle_ppm),
            ..*self
        }
    }

    /// The same of one of its ad groups; `own` is what the catalogue says of the group, `laid` what stands of the
    /// campaign.
    fn of_ad_group(&self, own: &Self, said: Option<&Override>, laid: &Self) -> Self {
        let status = in_force(said.and_then(|said| said.of_group(own.ad_group).status), own.status);
        Self {
            ad_group: own.ad_group,
            bid: Micros(group_bid(said, own.ad_group, own.bid.0, self.bid.0)),
            status: match status {
                CampaignStatus::Active => laid.status,
                CampaignStatus::Paused | CampaignStatus::OutOfBudget => status,
            },
            ..*laid
        }
    }

    const fn line(&self) -> (u64, u64) {
        (self.campaign, self.ad_group)
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
        self.bid_type.is_billed_by_impression()
    }

    /// True when its ads take part in auctions.
    #[must_use]
    pub fn bids(&self) -> bool {
        self.status == CampaignStatus::Active && self.paced() > Micros(0)
    }
}

/// What stands: what was said, else what the catalogue says.
const fn in_force(said: Option<Status>, catalogue: CampaignStatus) -> CampaignStatus {
    match said {
        Some(Status::Active) => CampaignStatus::Active,
        Some(Status::Paused) => CampaignStatus::Paused,
        None => catalogue,
    }
}

/// All campaigns of one version.
#[derive(Debug, PartialEq, Eq)]
pub struct Delivery {
    version: u64,
    /// Sorted by campaign and ad group; row 0 is [`DeliveryRow::UNKNOWN`].
    rows: Vec<DeliveryRow>,
    /// What the catalogue says of ad groups, sorted likewise: the same in all its versions.
    groups: Arc<[DeliveryRow]>,
}

impl Delivery {
    /// A version from its campaigns and their ad groups; of one that is given twice the last row stands. A row of an ad
    /// group says its bid, 0 for its campaign's, and its status; the rest is its campaign's, without which it is left
    /// out.
    #[must_use]
    pub fn new(version: u64, rows: impl IntoIterator<Item = DeliveryRow>) -> Self {
        let mut given: Vec<DeliveryRow> = rows.into_iter().collect();
        // Stable, so the last of equals is the newest.
        given.sort_by_key(DeliveryRow::line);
        given.reverse();
        given.dedup_by_key(|row| row.line());
        let (mut rows, mut groups) = (Vec::with_capacity(given.len() + 1), Vec::new());
        rows.push(DeliveryRow::UNKNOWN);
        let mut campaign: Option<DeliveryRow> = None;
        for row in given.into_iter().rev() {
            if row.ad_group == 0 {
                campaign = Some(row);
                rows.push(row);
            } else if let Some(campaign) = campaign.filter(|campaign| campaign.campaign == row.campaign) {
                rows.push(campaign.of_ad_group(&row, None, &campaign));
                groups.push(row);
            }
        }
        Self { version, rows, groups: groups.into() }
    }

    /// The version of a book: what it says, laid over the catalogue. With the campaigns that may differ from the version
    /// before, where that is one of the same catalogue and the book remembers them.
    #[must_use]
    pub fn overlaid(catalogue: &Self, before: Option<&Self>, book: &Book) -> (Self, Option<Vec<u64>>) {
        let before = before.filter(|before| before.version <= book.version);
        let known = before.and_then(|before| Some((before, book.changed_since(before.version)?)));
        let mut rows = known.as_ref().map_or(&catalogue.rows, |(before, _)| &before.rows).clone();
        let mut lay = |campaign: u64| catalogue.lay(&mut rows, campaign, book.get(campaign));
        let changed = known.map(|(_, changed)| changed);
        match &changed {
            Some(changed) => changed.iter().for_each(|campaign| lay(*campaign)),
            None => book.rows().iter().for_each(|(campaign, _)| lay(*campaign)),
        }
        (Self { version: book.version, rows, groups: Arc::clone(&catalogue.groups) }, changed)
    }

    /// Lays what is said of a campaign over its row and those of its ad groups; this is their catalogue.
    fn lay(&self, rows: &mut [DeliveryRow], campaign: u64, said: Option<&Override>) {
        let number = self.row_of(campaign, 0);
        // What is said of a campaign that the catalogue does not have is not heard.
        if number == 0 {
            return;
        }
        let row = self.row(number);
        let laid = row.overlaid(said);
        let groups = self.groups_of(campaign).iter().map(|own| row.of_ad_group(own, said, &laid));
        let all = std::iter::once(laid).chain(groups);
        rows.iter_mut().skip(number as usize).zip(all).for_each(|(row, laid)| *row = laid);
    }

    /// What the catalogue says of the ad groups of a campaign, in the order of its rows.
    fn groups_of(&self, campaign: u64) -> &[DeliveryRow] {
        let start = self.groups.partition_point(|own| own.campaign < campaign);
        let end = self.groups.partition_point(|own| own.campaign <= campaign);
        self.groups.get(start..end).unwrap_or(&[])
    }

    /// Its number.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Campaigns in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len() - 1 - self.groups.len()
    }

    /// True without campaigns.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The row number of a campaign (ad group 0), or of one of its ad groups; 0 when it is unknown.
    #[must_use]
    pub fn row_of(&self, campaign: u64, ad_group: u64) -> u32 {
        let known = &self.rows[1..];
        known.binary_search_by_key(&(campaign, ad_group), DeliveryRow::line).map_or(0, |found| found as u32 + 1)
    }

    /// A row by its number.
    #[must_use]
    pub fn row(&self, number: u32) -> &DeliveryRow {
        self.rows.get(number as usize).unwrap_or(&DeliveryRow::UNKNOWN)
    }
}

/// One version, resolved for the lines of one content folder.
#[derive(Debug)]
pub struct ResolvedDelivery {
    delivery: Arc<Delivery>,
    /// Row number by the place of a line in the content.
    row_numbers: Arc<[u32]>,
}

impl ResolvedDelivery {
    /// Looks every line of a content, a campaign with one of its ad groups or with none, up once.
    #[must_use]
    pub fn new(delivery: Arc<Delivery>, lines: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let row_numbers = lines.into_iter().map(|(campaign, ad_group)| delivery.row_of(campaign, ad_group)).collect();
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

    /// The row of the line at a place in the content.
    #[must_use]
    pub fn row(&self, line: u32) -> &DeliveryRow {
        self.row_numbers.get(line as usize).map_or(&DeliveryRow::UNKNOWN, |number| self.delivery.row(*number))
    }
}

#[cfg(test)]
mod tests;
