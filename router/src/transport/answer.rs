//! What does one shard's answer hold?

use crate::merge::ShardList;
use gavel_model::FeatureValue;
use gavel_proto::ids::MemberId;

/// One shard's answer, within all limits.
#[derive(Clone, Debug)]
pub struct ShardBody {
    /// Who answered.
    pub node: MemberId,
    /// The candidates, in auction order.
    pub list: ShardList,
    /// Of the candidates, by row.
    pub predictions: Predictions,
    /// How many were alive after each stage.
    pub funnel: Funnel,
    /// Where the time went.
    pub timing: ShardTiming,
    /// Single ads with their reason, the nearest to winning first; only when asked for.
    pub explained: Vec<Explained>,
    /// Every ad of the shard by reason; only when asked for.
    pub reasons: Vec<(String, u64)>,
    /// What the retrieval found, best first; only when asked for.
    pub retrieved: Vec<(u64, f32)>,
    /// What the candidates were scored with; only when asked for.
    pub features: Option<ScoredFeatures>,
}

/// What a shard's candidates were scored with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScoredFeatures {
    /// Names of the item's features.
    pub item: Vec<String>,
    /// Row-major.
    values: Vec<FeatureValue>,
    /// Names of the match features.
    pub matches: Vec<String>,
    /// Row-major: the weights that they were made of.
    weights: Vec<f32>,
}

impl ScoredFeatures {
    /// Of so many candidates; `None` when the columns do not fit.
    #[must_use]
    pub fn new(rows: usize, item: (Vec<String>, Vec<FeatureValue>), matches: (Vec<String>, Vec<f32>)) -> Option<Self> {
        let ((item, values), (matches, weights)) = (item, matches);
        let fits = values.len() == rows * item.len() && weights.len() == rows * matches.len();
        fits.then_some(Self { item, values, matches, weights })
    }

    /// One candidate's item.
    #[must_use]
    pub fn values(&self, row: u32) -> &[FeatureValue] {
        self.values.chunks_exact(self.item.len().max(1)).nth(row as usize).unwrap_or_default()
    }

    /// One candidate's match features.
    #[must_use]
    pub fn weights(&self, row: u32) -> &[f32] {
        self.weights.chunks_exact(self.matches.len().max(1)).nth(row as usize).unwrap_or_default()
    }
}

/// Predictions of a shard's candidates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Predictions {
    /// Names of the columns.
    pub heads: Vec<String>,
    /// Row-major.
    pub values: Vec<f32>,
}

impl Predictions {
    /// All candidates' predictions of one head.
    pub fn column(&self, head: &str) -> impl Iterator<Item = f32> {
        let (at, width) = (self.heads.iter().position(|h| h == head), self.heads.len().max(1));
        let values = at.and_then(|at| self.values.get(at..)).unwrap_or_default();
        values.iter().copied().step_by(width)
    }

    /// One candidate's predictions by head.
    pub fn row(&self, row: u32) -> impl Iterator<Item = Prediction> {
        let width = self.heads.len();
        let values = self.values.get(row as usize * width..).unwrap_or_default();
        let one = |(head, value): (&String, &f32)| Prediction { head: head.clone(), value: f64::from(*value) };
        self.heads.iter().zip(values).map(one)
    }
}

/// How many were alive after each stage of one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Funnel {
    /// Items of the shard that the answer stands for.
    pub items_seen: u64,
    /// Eligible ads.
    pub eligible_ads: u64,
    /// Items with an eligible ad.
    pub eligible_items: u64,
    /// Items retrieved.
    pub retrieved: u64,
    /// Items sent to the ranker.
    pub light_kept: u64,
    /// Items ranked.
    pub ranked: u64,
    /// Ads at or above their reserve.
    pub scored: u64,
    /// Ads within the cut.
    pub returned: u64,
    /// Items dropped for a number that is none.
    pub non_finite: u64,
}

/// Where a shard's time went.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ShardTiming {
    /// The shard.
    pub shard: u32,
    /// Who answered.
    #[serde(rename = "node")]
    pub node_id: u64,
    /// exact, graph, graph_post or none.
    pub plan: String,
    /// Finding candidates.
    pub retrieval_us: u64,
    /// Match features.
    pub features_us: u64,
    /// The light cut.
    pub light_us: u64,
    /// The ranker.
    pub rank_us: u64,
    /// Scores and the exact cut.
    pub auction_us: u64,
    /// Waiting for a thread.
    pub queue_us: u64,
    /// What the planner expected of its way of retrieval.
    pub plan_estimate_us: u64,
    /// Of the bundle that the node scored with: the first 8 bytes of its hash.
    #[serde(rename = "model", serialize_with = "as_hex")]
    pub model_fingerprint: u64,
}

/// As people compare hashes; a number of JSON would lose its last digits.
fn as_hex<S: serde::Serializer>(fingerprint: &u64, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(&format_args!("{fingerprint:016x}"))
}

/// An ad with its reason.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Explained {
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
    /// Its shard.
    pub shard: u32,
    /// In one word.
    pub reason: String,
    /// In more words.
    pub detail: String,
    /// Paced bid.
    pub bid_micros: u64,
    /// Score units per bid micro.
    pub weight: u64,
    /// For reading only.
    pub score: f64,
    /// By head.
    pub predictions: Vec<Prediction>,
}

/// One calibrated prediction.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Prediction {
    /// The head.
    pub head: String,
    /// Calibrated.
    pub value: f64,
}
