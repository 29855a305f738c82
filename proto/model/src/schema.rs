//! Which features, heads and numbers do two halves of a model agree on?
//!
//! The schema is `bundle.toml` after its checks: what is here is within its limits, finite and consistent.

pub use crate::calibration::{Calibration, HeadKind};

/// How two vectors are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Inner product: larger is nearer.
    Ip,
    /// Cosine.
    Cos,
    /// Squared Euclidean distance.
    L2,
}

impl Metric {
    /// The similarity that retrieval orders by, of two vectors of one length: larger is nearer.
    #[must_use]
    pub fn similarity(self, query: &[f32], item: &[f32]) -> f32 {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
        let similarity = match self {
            Self::Ip => dot(query, item),
            Self::Cos => dot(query, item) / (dot(query, query) * dot(item, item)).sqrt().max(f64::MIN_POSITIVE),
            Self::L2 => 2.0 * dot(query, item) - dot(query, query) - dot(item, item),
        };
        similarity as f32
    }
}

/// Everything about a bundle that is not arithmetic.
#[derive(Clone, Debug, PartialEq)]
pub struct Schema {
    /// The name that people use.
    pub name: String,
    /// Dimensions of query and vector.
    pub dimension: usize,
    /// How they are compared.
    pub metric: Metric,
    /// Weight of the log of the expected value in retrieval; 0 switches it off.
    pub value_weight: f32,
    /// Conversion given click that the light order assumes for bids on conversions.
    pub prior_conversion: f32,
    /// Light pCTR from the similarity.
    pub light: Light,
    /// Features of the user and the context, in the order of [`crate::FeatureRow`].
    pub user: Vec<FeatureSpec>,
    /// Features of the item, in the order of [`crate::FeatureRow`].
    pub item: Vec<FeatureSpec>,
    /// Features of their meeting.
    pub cross: Vec<CrossSpec>,
    /// Outputs, in the order of the columns of `rank`.
    pub heads: Vec<HeadSpec>,
    /// How exactly the ranker is computed and kept.
    pub options: RankerOptions,
}

impl Schema {
    /// The head that plays a role.
    #[must_use]
    pub fn head(&self, role: HeadRole) -> Option<usize> {
        self.heads.iter().position(|h| h.role == Some(role))
    }
}

/// How exactly the ranker is computed and kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RankerOptions {
    /// How exactly the wide layers of the part for each candidate are computed.
    pub precision: Precision,
    /// How an item's activations are kept.
    pub activations: ActivationFormat,
    /// The largest relative difference of a head or a prediction on the golden rows with which the bundle serves.
    pub tolerance: f64,
}

impl Default for RankerOptions {
    fn default() -> Self {
        Self { precision: Precision::F32, activations: ActivationFormat::F32, tolerance: Self::TOLERANCE_EXACT }
    }
}

impl RankerOptions {
    /// What f32 keeps, whatever the order of additions.
    pub const TOLERANCE_EXACT: f64 = 1e-4;
    /// Beyond five in a hundred, rounding decides who wins as much as the model does.
    pub const TOLERANCE_MAX: f64 = 0.05;
}

/// How an item's activations are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActivationFormat {
    /// As they are computed.
    F32,
    /// Rounded to the upper half of an f32: half the memory of an item, and half of what a candidate reads.
    Bf16,
}

/// Light pCTR = `sigmoid(scale * similarity + offset)` in a bundle without a light head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Light {
    /// Factor of the similarity.
    pub scale: f32,
    /// Added to it.
    pub offset: f32,
}

/// Whose feature it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Of the user.
    User,
    /// Of the request.
    Context,
    /// Of the item.
    Item,
}

/// One feature.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureSpec {
    /// Its name, which is also the graphs' input.
    pub name: String,
    /// Whose it is.
    pub side: Side,
    /// What its values are.
    pub kind: FeatureKind,
}

/// What the values of a feature are.
#[derive(Clone, Debug, PartialEq)]
pub enum FeatureKind {
    /// One of many; reaches the model as row `1 + hash % buckets`, 0 when missing.
    Category {
        /// Rows of its table, less the one for missing.
        buckets: u32,
    },
    /// A number; reaches the model as `(transform(x) - mean) / std`.
    Dense {
        /// Before scaling.
        scaling: Scaling,
        /// The raw value that stands for a missing one.
        default: f32,
    },
    /// A weighted set of categories; the heaviest `max_len` reach the model.
    Set {
        /// Rows of its table, less the one for missing.
        buckets: u32,
        /// Values that reach the model.
        max_len: usize,
    },
    /// Categories in order, newest first, repetitions kept; the first `max_len` reach the model.
    Sequence {
        /// Rows of its table, less the one for an empty place.
        buckets: u32,
        /// Places, of which those behind the last value are empty.
        max_len: usize,
    },
}

impl FeatureKind {
    /// Rows of the embedding table, less the one for missing; `None` for a number.
    #[must_use]
    pub const fn buckets(&self) -> Option<u32> {
        match self {
            Self::Category { buckets } | Self::Set { buckets, .. } | Self::Sequence { buckets, .. } => Some(*buckets),
            Self::Dense { .. } => None,
        }
    }

    /// True when its values come with weights.
    #[must_use]
    pub const fn is_weighted(&self) -> bool {
        matches!(self, Self::Set { .. } | Self::Sequence { .. })
    }
}

/// From a raw number to a model input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling {
    /// Applied first.
    pub transform: Transform,
    /// Subtracted then.
    pub mean: f32,
    /// Divided by at last, above 0.
    pub std: f32,
}

/// A map of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transform {
    /// The number itself.
    None,
    /// `log1p(max(x, 0))`.
    Log1p,
}

impl Scaling {
    /// The model input of a raw number.
    #[must_use]
    pub fn apply(&self, raw: f32) -> f32 {
        let x = match self.transform {
            Transform::None => raw,
            Transform::Log1p => raw.max(0.0).ln_1p(),
        };
        (x - self.mean) / self.std
    }
}

/// A feature of a meeting: the weight that the item's value has in the user's set, 0 if it is not there.
#[derive(Clone, Debug, PartialEq)]
pub struct CrossSpec {
    /// Its name, which is also the ranker's input.
    pub name: String,
    /// A set feature of the user or the context.
    pub user: String,
    /// A category feature of the item.
    pub item: String,
    /// From the weight to the model input.
    pub scaling: Scaling,
}

impl CrossSpec {
    /// The model input of a weight; 0 stands for "not in the set". A weight that is not finite counts as 0.
    #[must_use]
    pub fn encode(&self, weight_in_set: f32) -> f32 {
        self.scaling.apply(if weight_in_set.is_finite() { weight_in_set } else { 0.0 })
    }
}

/// One output.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadSpec {
    /// Its name, which is also the ranker's output.
    pub name: String,
    /// What it predicts.
    pub kind: HeadKind,
    /// What the auction uses it for.
    pub role: Option<HeadRole>,
    /// The share of the negatives that training kept, in (0, 1]; undone before the calibration. 1 for a value.
    pub negative_rate: f32,
    /// From raw output to prediction.
    pub calibration: Calibration,
}

impl HeadSpec {
    /// The prediction that stands for a raw output: the correction for negatives that training left out, then the
    /// calibration.
    #[must_use]
    pub fn predict(&self, raw: f32) -> f32 {
        self.calibration.apply(self.kind, crate::calibration::with_all_negatives(raw, self.negative_rate))
    }
}

/// What the auction uses a head for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadRole {
    /// Probability of a click.
    Click,
    /// Probability of a conversion given a click.
    ConversionGivenClick,
    /// Probability that the user hides the ad.
    Hide,
    /// Probability of a long click.
    LongClick,
}

/// How exactly the wide dense layers of the part for each candidate are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Weights, inputs and sums of f32.
    #[default]
    F32,
    /// Weights of bf16, the rest f32: half the memory of the weights.
    Bf16,
    /// Weights and inputs of 8 bits, sums exact: weights scaled by column, inputs by layer.
    Int8,
}

impl Precision {
    /// As `bundle.toml` writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}
