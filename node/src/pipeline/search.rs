//! What is asked of a shard, and what does it answer?
//!
//! The request after its checks, in the node's own types, shared by the parts of one call; and the answer
//! of one part. Widths have been checked against the bundle, numbers are finite, lists are within limits.

use gavel_model::FeatureRow;
use gavel_proto::deadline::Deadline;
use gavel_proto::epoch::Epoch;
use gavel_proto::money::Leased;

use crate::features::UserSets;
use crate::ranking::auction::{AuctionTerms, Candidate};
use crate::ranking::explain::{Explained, Reason};
use crate::retrieval::Mode;
use crate::segment::Term;

/// BLAKE3 of a bundle.
pub type BundleHash = [u8; 32];

/// One search, for all shards that it names.
#[derive(Clone, Debug)]
pub struct Search {
    /// The versions that every shard must use.
    pub epoch: Epoch,
    /// The bundle of the model version.
    pub model_hash: BundleHash,
    /// When the answer is worthless.
    pub deadline: Deadline,
    /// What the user tower made of the user.
    pub query: Vec<f32>,
    /// The user-only tensors of the ranker.
    pub user_part: Vec<f32>,
    /// For match features.
    pub user_sets: UserSets,
    /// What targeting sees.
    pub terms: Vec<Term>,
    /// The request's time, for schedules.
    pub unix_s: i64,
    /// What the request excludes.
    pub blocked: Blocked,
    /// Items to retrieve.
    pub quota: u32,
    /// Items that go to the ranker.
    pub light_keep: usize,
    /// What the auction needs.
    pub auction: AuctionTerms,
    /// How to retrieve.
    pub mode: Mode,
    /// Items to score instead of retrieving; empty: retrieve.
    pub given: Vec<u64>,
    /// Whether every ad gets a reason.
    pub reasons: Reasons,
    /// Whether candidates come with what the bundle knew of them.
    pub features: Features,
}

/// Whether candidates come with what the bundle knew of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Features {
    /// They do not.
    #[default]
    Unasked,
    /// For the log of what was scored.
    Asked,
}

/// What a request excludes.
#[derive(Clone, Debug, Default)]
pub struct Blocked {
    /// Advertisers.
    pub advertisers: Vec<u64>,
    /// Hashed categories.
    pub categories: Vec<u64>,
    /// Campaigns that are paused or out of budget at the router, or that the request excludes.
    pub campaigns: Vec<u64>,
    /// Campaigns that the user has seen often enough.
    pub capped_campaigns: Vec<u64>,
    /// Single ads likewise, as (campaign, ad), ascending.
    pub capped_ads: Vec<(u64, u64)>,
    /// Whether the router knows what is capped.
    pub counted: Counted,
    /// Whether campaigns that are billed by the impression take part.
    pub leased: Leased,
}

/// Does the router know how often the user has seen what is counted?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Counted {
    /// Yes, or there is no user.
    #[default]
    Known,
    /// No: nothing that is counted may be served.
    Unknown,
}

/// Whether every ad gets a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Reasons {
    /// Only counts per stage.
    #[default]
    Unasked,
    /// Every ad of the shard is accounted for.
    Asked,
}

/// How a part of a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Searched whole.
    Finished,
    /// The deadline came first; what is there is a truthful part.
    TimedOut,
}

impl Outcome {
    /// The word in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::TimedOut => "timed_out",
        }
    }
}

/// How many were alive after each stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Funnel {
    /// Ads of the shard.
    pub ads_total: u64,
    /// Ads whose targeting admits the request.
    pub eligible_ads: u64,
    /// Items with such an ad.
    pub eligible_items: u64,
    /// Items retrieved.
    pub retrieved: u64,
    /// Items after the light cut.
    pub light_kept: u64,
    /// Items that the ranker has seen.
    pub ranked: u64,
    /// Ads above their reserve.
    pub scored: u64,
    /// Ads within the cut.
    pub returned: u64,
    /// Items dropped for a number that is none.
    pub non_finite: u64,
}

/// Microseconds of each stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// In the queue.
    pub queue_us: u64,
    /// Targeting and retrieval.
    pub retrieval_us: u64,
    /// The light cut.
    pub light_us: u64,
    /// Match features.
    pub features_us: u64,
    /// The ranker.
    pub rank_us: u64,
    /// Score and cut.
    pub auction_us: u64,
    /// CPU time of the thread, over all stages.
    pub cpu_us: u64,
}

/// What one shard answers.
#[derive(Clone, Debug)]
pub struct ShardAnswer {
    /// How it ended.
    pub outcome: Outcome,
    /// Items that the answer stands for.
    pub items_seen: u64,
    /// Items of the shard.
    pub items_total: u64,
    /// `exact`, `graph`, `graph_post` or `none`.
    pub plan: &'static str,
    /// What the planner expected it to take, microseconds of CPU time.
    pub plan_estimate_us: u64,
    /// Counts per stage.
    pub funnel: Funnel,
    /// Time per stage.
    pub timing: Timing,
    /// In the order of the auction.
    pub candidates: Vec<Candidate>,
    /// Item ids, parallel to the candidates.
    pub item_ids: Vec<u64>,
    /// Predictions of the candidates, row by row.
    pub predictions: Vec<f32>,
    /// What the inner product found, in its order, as (item id, similarity and weighted value); empty unless nothing is to
    /// be cut.
    /// The list by bid is exact and not part of it.
    pub retrieved: Vec<(u64, f32)>,
    /// Ads per reason; empty unless asked for.
    pub reasons: Vec<(Reason, u64)>,
    /// The ads nearest to winning, with their ids; empty unless asked for.
    pub explained: Vec<ExplainedAd>,
    /// What the bundle knew of each candidate; empty unless asked for.
    pub features: Vec<CandidateFeatures>,
}

/// What the bundle knew of one candidate.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CandidateFeatures {
    /// Of its item, parallel to the bundle's item features.
    pub item: FeatureRow,
    /// For each match feature of the bundle, the weight of the item's value in the user's set.
    pub weights: Vec<f32>,
}

/// An explained ad with its ids.
#[derive(Clone, Debug, PartialEq)]
pub struct ExplainedAd {
    /// Where its way ended.
    pub explained: Explained,
    /// The targeting condition that the request does not meet; empty when it meets all.
    pub unmet: String,
    /// Its id.
    pub ad_id: u64,
    /// Its item.
    pub item_id: u64,
    /// Its campaign.
    pub campaign: u64,
    /// Who pays.
    pub advertiser: u64,
}
