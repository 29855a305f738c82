//! What does a View say, as far as a router cares?

use crate::allocation::ShadowBid;
use crate::auction::{AuctionRule, AuctionTerms, Mechanism, RuleError, TiePrice, UserModel};
use crate::topology::RouteTable;
use gavel_proto::cut::Neighbours;
use gavel_proto::hash::TieKey;
use gavel_proto::ids::MemberId;
use gavel_proto::score::{CPM_WEIGHT, QualityRule};

/// A bundle that the View names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelRef {
    /// Of the packed form.
    pub hash: [u8; 32],
    /// Of the packed form.
    pub bytes: u64,
}

/// The users of a generation that the View names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UsersRef {
    /// The generation.
    pub generation: u64,
    /// The blob and its length; `None` for a generation without users.
    pub blob: Option<([u8; 32], u64)>,
    /// The blob of its campaigns, for their frequency rules.
    pub campaigns: Option<([u8; 32], u64)>,
}

/// One View.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// The table of the active pair; `None` while there is no active generation or model.
    pub active: Option<Active>,
    /// A bundle that has a share of requests beside it.
    pub candidate: Option<CandidatePicture>,
    /// Bundles to hold, the most urgent first.
    pub models: Vec<ModelRef>,
    /// Generations to hold, the most urgent first.
    pub generations: Vec<UsersRef>,
    /// Where nodes listen.
    pub nodes: Vec<(MemberId, String)>,
    /// The nodes that count for users: they live and do not leave.
    pub counting: Vec<MemberId>,
    /// How auctions are run; `None` while the cluster has no secret key for ties.
    pub auction: Option<AuctionSettings>,
    /// Where ads may stand.
    pub placements: Vec<Placement>,
}

/// The pair that requests are answered from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Active {
    /// The model.
    pub model: ModelRef,
    /// The users.
    pub users: UsersRef,
    /// Epoch and shards.
    pub table: RouteTable,
}

/// A bundle that has a share of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CandidatePicture {
    /// The model.
    pub model: ModelRef,
    /// Epoch and shards under it.
    pub table: RouteTable,
    /// What its share is for.
    pub mode: RolloutMode,
    /// Of requests, in millionths.
    pub share_ppm: u32,
    /// The step of its plan.
    pub step: u32,
    /// How long a window is.
    pub window_us: u64,
}

/// What the share of a candidate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RolloutMode {
    /// It answers.
    Canary,
    /// It scores what the active one has answered.
    Shadow,
}

/// How auctions are run.
#[derive(Clone, Debug, PartialEq)]
pub struct AuctionSettings {
    /// Prices.
    pub mechanism: Mechanism,
    /// Key of the ties: a made one, never a public one.
    pub tie_key: TieKey,
    /// Ads of one advertiser at most.
    pub per_advertiser: usize,
    /// Ads of one category at most.
    pub per_category: Option<usize>,
    /// How often each slot is seen.
    pub position_factors_ppm: Vec<u32>,
    /// Floor per mille.
    pub reserve_cpm_micros: u64,
    /// Items ranked over all shards.
    pub ranked_total: u32,
    /// Items retrieved over all shards.
    pub retrieved_total: u32,
    /// The price of engagement.
    pub shadow_bid: ShadowBid,
    /// Whether neighbours must be of different categories.
    pub neighbours: Neighbours,
    /// What counts besides bid and event probability.
    pub quality: QualityRule,
    /// Set when users cascade: how likely they go on past an ad without a prediction of it.
    pub cascade_ppm: Option<u32>,
    /// Worth of an ad by the organic items since the last one; whole beyond the list.
    pub gap_effect_ppm: Vec<u32>,
    /// What showing an ad has to bring, per mille; 0 = nothing.
    pub page_threshold_cpm_micros: u64,
}

impl AuctionSettings {
    /// The rule of an auction for so many slots.
    ///
    /// # Errors
    /// When the settings do not hold together; settings from [`super::convert`] do.
    pub fn rule(&self, slots: usize) -> Result<AuctionRule, RuleError> {
        AuctionRule::new(AuctionTerms {
            mechanism: self.mechanism,
            slots,
            per_advertiser: self.per_advertiser,
            per_category: self.per_category,
            position_factors_ppm: self.position_factors_ppm.clone(),
            tie_price: TiePrice::Keyed,
            neighbours: self.neighbours,
            users: if self.cascade_ppm.is_some() { UserModel::Cascade } else { UserModel::Separable },
            page_threshold: i128::from(self.page_threshold_cpm_micros) * i128::from(CPM_WEIGHT),
        })
    }
}

/// Where ads may stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// What requests call it.
    pub name: String,
    /// Ads at most.
    pub slots: u32,
    /// No ad above it.
    pub first_position: usize,
    /// Organic items between two ads.
    pub min_gap: usize,
    /// Ads per million positions.
    pub max_load_ppm: u32,
    /// Floor per mille; 0 = the auction's.
    pub reserve_cpm_micros: u64,
    /// Positions between two ads of one category.
    pub category_spacing: usize,
}
