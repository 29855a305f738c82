//! What does a segment keep of an item and of an ad?
//!
//! Plain structs with hashed values: the caller turns wire messages or files into them, and a segment
//! depends on neither.

use gavel_proto::ids::{AdId, AdvertiserId, CampaignId, ItemId};
use gavel_proto::targeting::{Hours, Interval};

/// A distinct creative with its ad features.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct DocItem {
    /// Unique in the generation.
    pub item: ItemId,
    /// Who pays for its ads.
    pub advertiser: AdvertiserId,
    /// Hashed categories; the first is the limit category.
    pub categories: Vec<u64>,
    /// Features by name, hashed; a name has one kind in a whole segment.
    pub features: Vec<(String, DocFeature)>,
    /// What is shown.
    pub creative: Creative,
}

/// One hashed feature value.
#[derive(Clone, Debug, PartialEq)]
pub enum DocFeature {
    /// One categorical value; 0 is missing.
    Category(u64),
    /// A number; NaN is missing.
    Dense(f32),
    /// Weighted values.
    Set(Vec<(u64, f32)>),
}

/// What is shown of an item.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Creative {
    /// The headline.
    pub title: String,
    /// Where a click leads.
    pub url: String,
    /// The picture.
    pub image_url: String,
}

/// An item with targeting and a campaign.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct DocAd {
    /// Unique in the generation.
    pub ad: AdId,
    /// What it shows.
    pub item: ItemId,
    /// Holds its bid, unless its ad group has one.
    pub campaign: CampaignId,
    /// One of the campaign's; 0 = directly under the campaign.
    pub ad_group: u64,
    /// Conditions; those on one dimension are taken together.
    pub targeting: Vec<DocRule>,
    /// When it may be shown; `None` = at every hour.
    pub schedule: Option<DocSchedule>,
}

/// Hours of the week in a time zone.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct DocSchedule {
    /// A zone that the segment knows.
    pub zone: String,
    /// When it is open.
    pub hours: Hours,
}

/// A condition on one dimension, hashed: eligible when the request states a value of `any_of` or a number
/// within `ranges`, if there are any of either, and no value of `none_of`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct DocRule {
    /// The dimension.
    pub dimension: u64,
    /// The request must state one of these; empty = no condition.
    pub any_of: Vec<u64>,
    /// The request may state none of these.
    pub none_of: Vec<u64>,
    /// Or its number must be within one of these.
    pub ranges: Vec<Interval>,
}
