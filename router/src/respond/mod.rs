//! What does the caller get?
//!
//! An [`Answer`] is the same for both endpoints: the HTTP one writes it as it is, the gRPC one turns it into its
//! message. [`explain`] adds why every other ad of the catalogue did not win.

mod explain;
mod slate;

pub use explain::{ReasonCount, reasons};
pub use slate::{Decided, engagement, placed_winners, slate};

use crate::transport::{Creative, Explained, Prediction, ShardTiming};
use gavel_proto::coverage::Coverage;
use gavel_proto::epoch::Epoch;
use gavel_proto::ids::AdId;
use serde::Serialize;

/// A slate with everything that says how it came about.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Answer {
    /// The caller's, or made here.
    pub request_id: String,
    /// In page order.
    pub slate: Vec<SlateEntry>,
    /// How much of the catalogue stands behind it.
    pub coverage: CoverageReport,
    /// Which versions it was made from.
    pub epoch: EpochReport,
    /// How many candidates were alive after each stage.
    pub funnel: FunnelReport,
    /// Where the time went.
    pub timings: Timings,
    /// Names the auction, for a replay.
    pub auction_id: u64,
}

/// One position of the page: an ad or an organic item.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SlateEntry {
    /// 0-based.
    pub position: u32,
    /// What stands there.
    #[serde(flatten)]
    pub entry: Entry,
}

/// What stands at a position.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Entry {
    /// A winner.
    Ad(Box<WinnerReport>),
    /// An item of the caller's feed.
    Organic {
        /// The caller's id.
        organic_id: String,
    },
}

/// A winner.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct WinnerReport {
    /// The ad.
    #[serde(rename = "ad")]
    pub ad_id: u64,
    /// Its item.
    #[serde(rename = "item")]
    pub item_id: u64,
    /// Its campaign.
    #[serde(rename = "campaign")]
    pub campaign_id: u64,
    /// Who pays.
    #[serde(rename = "advertiser")]
    pub advertiser_id: u64,
    /// 0-based auction slot.
    pub slot: u32,
    /// cpm, cpc, cpa, ocpm or ocpc.
    pub bid_type: &'static str,
    /// Its number on the wire.
    #[serde(skip)]
    pub bid_type_number: i32,
    /// What one billed event costs.
    pub price_micros: u64,
    /// Paced bid.
    pub bid_micros: u64,
    /// Calibrated, by head.
    pub predictions: Vec<Prediction>,
    /// Goes back with events; empty when nothing of the ad is charged.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub token: String,
    /// What people see; null when it did not come in time.
    pub creative: Option<Creative>,
}

/// Coverage as reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct CoverageReport {
    /// Floored to 4 decimals; 1 only when every shard finished.
    pub fraction: f64,
    /// Shards of the map.
    pub shards_total: u32,
    /// Finished.
    pub shards_ok: u32,
    /// Not in time.
    pub shards_timed_out: u32,
    /// Failed, shed or corrupt.
    pub shards_failed: u32,
    /// Not at the pinned versions.
    pub shards_version_unavailable: u32,
    /// Bits of `DegradedReason`; words in JSON.
    #[serde(serialize_with = "degraded_words")]
    pub degraded_reasons: u32,
}

impl From<Coverage> for CoverageReport {
    fn from(c: Coverage) -> Self {
        Self {
            fraction: c.fraction(),
            shards_total: c.total,
            shards_ok: c.ok,
            shards_timed_out: c.timed_out,
            shards_failed: c.failed,
            shards_version_unavailable: c.version_unavailable,
            degraded_reasons: c.reasons,
        }
    }
}

/// The words of `DegradedReason`, by bit.
const DEGRADED_WORDS: [&str; 9] = [
    "timeout",
    "adaptive_timeout",
    "shard_down",
    "shed",
    "version_unavailable",
    "corrupt_segment",
    "model_fallback",
    "no_budget_authority",
    "no_frequency_counts",
];

fn degraded_words<S: serde::Serializer>(bits: &u32, out: S) -> Result<S::Ok, S::Error> {
    out.collect_seq((0..).zip(DEGRADED_WORDS).filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, word)| word))
}

/// The pinned tuple.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EpochReport {
    /// Version of the shard map.
    pub map_epoch: u64,
    /// Catalogue generation.
    pub generation: u64,
    /// Version of the model.
    pub model_version: u64,
    /// Version of bids and statuses.
    pub delivery_version: u64,
}

impl From<Epoch> for EpochReport {
    fn from(e: Epoch) -> Self {
        Self { map_epoch: e.map, generation: e.generation, model_version: e.model, delivery_version: e.delivery }
    }
}

/// How many candidates were alive after each stage, over the shards that answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FunnelReport {
    /// Items searched.
    pub items_seen: u64,
    /// Eligible ads.
    pub eligible: u64,
    /// Items retrieved.
    pub retrieved: u64,
    /// Items sent to the ranker.
    pub light_kept: u64,
    /// Items ranked.
    pub ranked: u64,
    /// Ads at or above their reserve.
    pub scored: u64,
    /// Ads within the shards' cut.
    pub returned: u64,
    /// Ads in the auction.
    pub merged: u64,
    /// Ads that won a slot.
    pub winners: u64,
    /// Ads on the page.
    pub placed: u64,
}

/// Where the time went.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Timings {
    /// Features of the user.
    pub features_us: u64,
    /// User tower and user-only tensors.
    pub user_tower_us: u64,
    /// From the first send to the last shard.
    pub fanout_us: u64,
    /// One list.
    pub merge_us: u64,
    /// Winners and prices.
    pub auction_us: u64,
    /// Positions, and the winners' creatives.
    pub allocation_us: u64,
    /// All of it.
    pub total_us: u64,
    /// By shard.
    pub shards: Vec<ShardTiming>,
}

/// An answer with all reasons.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Explanation {
    /// The answer itself.
    pub response: Answer,
    /// At most 1,000 ads, the nearest to winning first.
    pub ads: Vec<Explained>,
    /// Every ad of the catalogue is in exactly one.
    pub reasons: Vec<ReasonCount>,
    /// One line of JSON that `gavel auction replay` clears anew; empty when nobody asked for reasons.
    pub clearing: String,
    /// Ads that won and could not be served, for a probe; the reasons have them too.
    #[serde(skip)]
    pub removed: Vec<AdId>,
}

#[cfg(test)]
mod tests;
