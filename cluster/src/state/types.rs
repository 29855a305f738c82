//! What does the control plane remember?
//!
//! Plain values in ordered maps, so that two voters that applied the same log hold the same bytes.

use std::collections::{BTreeMap, BTreeSet};

use super::command::Blob;
use gavel_proto::cut::Neighbours;
use gavel_proto::hash::TieKey;
use gavel_proto::score::QualityRule;

/// BLAKE3.
pub type Hash32 = [u8; 32];

/// What a member does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Votes in the control plane.
    Control,
    /// Holds shards.
    Node,
    /// Answers ad requests.
    Router,
}

/// A process of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Log index of its first join.
    pub id: u64,
    /// Made once by the process, kept in its data folder.
    pub key: String,
    /// What it does.
    pub role: Role,
    /// host:port of its gRPC endpoint.
    pub address: String,
    /// For people.
    pub name: String,
    /// New at every process start.
    pub incarnation: u64,
    /// The leader hears it.
    pub alive: bool,
    /// It is about to leave.
    pub draining: bool,
    /// What this incarnation is ready for.
    pub ready: Ready,
}

/// A shard of a generation under one model, built, verified and warm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardKey {
    /// The shard.
    pub shard: u32,
    /// Its catalogue generation.
    pub generation: u64,
    /// The bundle's hash.
    pub model: Hash32,
}

/// What a ready shard holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ShardCount {
    /// Distinct items.
    pub items: u64,
    /// Ads.
    pub ads: u64,
}

/// What one incarnation of a member is ready for.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Ready {
    /// Shards it can serve.
    pub shards: BTreeMap<ShardKey, ShardCount>,
    /// Bundles it has loaded, verified and warmed.
    pub models: BTreeSet<Hash32>,
    /// Generations whose users it has loaded.
    pub generations: BTreeSet<u64>,
    /// What it refused, by subject, and why.
    pub refusals: BTreeMap<Vec<u8>, Refusal>,
    /// Bundles that are on their way.
    pub phases: BTreeMap<Hash32, StagingPhase>,
}

/// Why a member does not have something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For people.
    pub reason: String,
    /// It is tried again.
    pub rests: bool,
}

/// How far a bundle is on its way to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StagingPhase {
    /// Its bytes are coming.
    Fetching,
    /// Items are embedded and built into graphs.
    Building,
}

/// A published bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Strictly increasing.
    pub version: u64,
    /// BLAKE3 of the packed bundle.
    pub hash: Hash32,
    /// Its length.
    pub bytes: u64,
    /// For people.
    pub name: String,
    /// Who published it, as they said.
    pub uploader: String,
    /// When, as the leader's clock said.
    pub published_ms: u64,
    /// Who vouches for it.
    pub signature: Option<Signature>,
    /// Who keeps it.
    pub place: ModelPlace,
    /// When it was staged; 0 before.
    pub staged_ms: u64,
    /// What its publisher measured beside the bundle that served then.
    pub report: String,
}

/// Who keeps a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModelPlace {
    /// Voters have its bytes.
    Registered,
    /// Members hold it, or are on the way.
    Staged,
    /// Nobody; it never serves again.
    Retired,
}

/// An Ed25519 signature. It is checked where a command comes in and where a bundle is staged, never in `apply`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The public key.
    pub key: [u8; 32],
    /// Over the message of `gavel_proto::signing`.
    pub bytes: [u8; 64],
}

/// Whose bundles are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelPolicy {
    /// Bundles without a signature by one of the keys are refused.
    pub signature_required: bool,
    /// Public keys.
    pub keys: Vec<[u8; 32]>,
}

/// What a rollout does with its share of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RolloutMode {
    /// The candidate answers them.
    Canary,
    /// The candidate scores them, too.
    Shadow,
}

/// One step of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RolloutStep {
    /// Of requests, in millionths.
    pub share_ppm: u32,
    /// How long it holds before the next one.
    pub hold_ms: u64,
}

/// What ends a rollout; a limit of 0 is switched off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RolloutGuards {
    /// Requests of each bundle before anything is judged.
    pub requests_min: u64,
    /// Of ranked candidates.
    pub non_finite_ppm_max: u32,
    /// Mean prediction of the candidate to that of the active bundle, either way.
    pub prediction_ratio_max: f64,
    /// Population stability index of the predictions.
    pub psi_max: f64,
    /// Quotient of the 99th percentiles of latency.
    pub p99_ratio_max: f64,
    /// Mean coverage below the active bundle's.
    pub coverage_drop_ppm_max: u32,
    /// Share of failed requests above the active bundle's.
    pub failed_ppm_max: u32,
    /// Clicks for each expected one of the candidate to those of the active bundle, either way.
    pub calibration_ratio_max: f64,
    /// Clicks of each bundle before that is judged.
    pub clicks_min: u32,
}

/// What a rollout is to do.
#[derive(Clone, Debug, PartialEq)]
pub struct RolloutPlan {
    /// With the share.
    pub mode: RolloutMode,
    /// Shares, never falling.
    pub steps: Vec<RolloutStep>,
    /// What ends it.
    pub guards: RolloutGuards,
    /// How long a router counts before it reports.
    pub window_ms: u64,
}

/// A rollout that runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollout {
    /// The candidate.
    pub version: u64,
    /// What served when it began, and still does.
    pub baseline: u64,
    /// What it is to do.
    pub plan: RolloutPlan,
    /// The step that runs.
    pub step: u32,
    /// Since when, as the leader's clock said.
    pub since_ms: u64,
}

/// One shard's documents as they were loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardSource {
    /// BLAKE3 of the blob.
    pub hash: Hash32,
    /// Its length.
    pub bytes: u64,
    /// Distinct items; coverage's denominator.
    pub items: u64,
    /// Ads.
    pub ads: u64,
}

/// A catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Strictly increasing.
    pub number: u64,
    /// By shard.
    pub shards: Vec<ShardSource>,
    /// The campaigns' blob.
    pub campaigns: Blob,
    /// The users' blob, if there is one.
    pub users: Option<Blob>,
    /// Copies of each shard that were asked for.
    pub copies: u32,
    /// By shard: the members placed on it, ascending; fewer than `copies` while there are not enough nodes.
    pub replicas: Vec<Vec<u64>>,
}

/// How winners and prices are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// Generalised second price.
    Gsp,
    /// Externality, floored.
    Vcg,
    /// The paced bid.
    FirstPrice,
}

/// The rules of the auction.
#[derive(Clone, Debug, PartialEq)]
pub struct Auction {
    /// How winners and prices are found.
    pub mechanism: Mechanism,
    /// Key of the ties: public until one is made.
    pub tie_key: TieKey,
    /// At most so many ads of one advertiser in a slate.
    pub per_advertiser: u32,
    /// At most so many of one limit category; 0 = no limit.
    pub per_category: u32,
    /// Of each slot, never increasing, above 0.
    pub position_factors_ppm: Vec<u32>,
    /// Least price per mille.
    pub reserve_cpm_micros: u64,
    /// Candidates ranked over all shards.
    pub ranked_total: u32,
    /// Items retrieved over all shards.
    pub retrieved_total: u32,
    /// Currency micros per engagement unit.
    pub shadow_bid: f64,
    /// Whether adjacent slots differ in category.
    pub neighbours: Neighbours,
    /// What counts besides bid and event probability.
    pub quality: QualityRule,
    /// How likely a user goes on from one ad to the next; 0 = slots are separable.
    pub cascade_ppm: u32,
    /// Worth of an ad by the organic items since the last one; whole beyond the list.
    pub gap_effect_ppm: Vec<u32>,
    /// What showing an ad has to bring, its score times the factor of its slot, per mille; 0 = nothing.
    pub page_threshold_cpm_micros: u64,
}

/// Where ads may stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// A request names one.
    pub name: String,
    /// At most so many ads.
    pub slots: u32,
    /// No ad above it.
    pub first_position: u32,
    /// Organic items between two ads.
    pub min_gap: u32,
    /// Ads / positions.
    pub max_load_ppm: u32,
    /// Least price per mille; 0 = the auction's.
    pub reserve_cpm_micros: u64,
    /// Positions between two ads of one category.
    pub category_spacing: u32,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Outcome {
    /// It was done; what it allotted (member id, generation, version), else 0.
    Done(u64),
    /// It was not done; why, in a word, with detail after a colon.
    Refused(String),
}

impl Outcome {
    /// A refusal.
    #[must_use]
    pub fn refused(reason: impl Into<String>) -> Self {
        Self::Refused(reason.into())
    }
}

/// The remembered answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// BLAKE3 of the body that was applied under the key.
    pub digest: Hash32,
    /// Where in the log.
    pub index: u64,
    /// What came of it.
    pub outcome: Outcome,
}
