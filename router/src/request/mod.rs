//! Is this a request that can be answered, and what does it ask for?
//!
//! Both endpoints turn what they received into a [`Draft`]; [`parse()`] turns it into an [`AdQuery`] or says what is
//! wrong and what to do about it. Behind this point every limit holds, every number is finite and every value is
//! hashed. What depends on the active model or configuration (placements, kinds of features) is checked later,
//! against the pinned epoch.

mod dimensions;
mod draft;
mod error;
mod parse;

pub use dimensions::{Dimension, Dimensions, Resolved};
pub use draft::{Draft, DraftOrganic, DraftTerm, DraftValue};
pub use error::RequestError;
pub use parse::{Arrival, feature_value, parse};

use crate::allocation::Engagement;
use gavel_model::FeatureValue;
use gavel_proto::deadline::Deadline;

/// A request within all limits.
#[derive(Clone, Debug, PartialEq)]
pub struct AdQuery {
    /// The caller's, or empty.
    pub request_id: String,
    /// Looked up in the user-feature store when set.
    pub user_id: Option<String>,
    /// Override what the store holds.
    pub user_features: Vec<(String, FeatureValue)>,
    /// Features of the request.
    pub context: Vec<(String, FeatureValue)>,
    /// What targeting sees: read against the dimensions of the pinned catalogue.
    pub terms: Vec<DraftTerm>,
    /// The request's time, unix seconds; `None` = now.
    pub unix_s: Option<i64>,
    /// Must be configured.
    pub placement: String,
    /// Ads wanted at most; 0 = the placement's.
    pub slots: u32,
    /// The feed to blend into.
    pub organic: Vec<Organic>,
    /// When the answer is due.
    pub deadline: Deadline,
    /// Least coverage in ten-thousandths.
    pub coverage_parts_min: u32,
    /// What must not be shown.
    pub blocked: Blocked,
    /// The auction's id for a replay.
    pub seed: Option<u64>,
}

/// One dimension of targeting, hashed.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// The dimension.
    pub dimension: u64,
    /// Its values.
    pub values: Vec<u64>,
    /// Its number, finite.
    pub number: Option<f64>,
}

/// One organic item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Organic {
    /// The caller's id.
    pub id: String,
    /// Its worth to the reader.
    pub engagement: Engagement,
}

/// What must not be shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocked {
    /// By advertiser.
    pub advertisers: Vec<u64>,
    /// By category, hashed.
    pub categories: Vec<u64>,
    /// By campaign.
    pub campaigns: Vec<u64>,
}
