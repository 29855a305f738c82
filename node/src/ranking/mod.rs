//! Which of the retrieved items go to the auction, and with which score?
//!
//! In order: the light cut keeps the items with the highest expected value under a cheap prediction; the
//! ranker predicts every head for them in blocks (`gavel_model::blocks`); the auction score turns predictions and bids into
//! integers; the exact cut returns what could still matter to the merged auction (decision 11).
//!
//! All of it is arithmetic over slices and a table of ads. Bids are read from one delivery version, so two
//! shards never apply two bids of one campaign in one auction (decision 7).
//!
//! It does not price and it does not apply slate limits: the router does, over all shards.

pub mod auction;
pub mod delivery;
pub mod explain;
pub mod light;
pub mod value;

use std::ops::Range;

use delivery::DeliveryRow;

/// The ads of one shard as these kernels see them, under one request and one delivery version.
pub trait AdTable {
    /// The ads of an item.
    fn ads_of(&self, item: u32) -> Range<u32>;
    /// True when the ad may take part: its targeting admits the request, it bids, nothing blocks it.
    fn admits(&self, ad: u32) -> bool;
    /// What stands of an ad's campaign, or of its ad group, in the pinned delivery version.
    fn delivery(&self, ad: u32) -> &DeliveryRow;
    /// The id of an ad.
    fn ad_id(&self, ad: u32) -> u64;
    /// The id of an item.
    fn item_id(&self, item: u32) -> u64;
    /// Who pays for an item's ads.
    fn advertiser(&self, item: u32) -> u64;
    /// The hashed category that slate limits count; 0 = none.
    fn limit_category(&self, item: u32) -> u64;
}
