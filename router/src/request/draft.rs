//! What does a caller write?
//!
//! The body of `POST /v1/ads`, and what the gRPC message is turned into. Nothing in it has been checked.
//! Unknown fields are refused: a misspelt `context` would otherwise be silently ignored.

use serde::Deserialize;
use std::collections::BTreeMap;

/// A request as written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Draft {
    /// Empty: the router makes one.
    pub request_id: String,
    /// Looked up in the user-feature store when not empty.
    pub user_id: String,
    /// By name.
    pub user_features: BTreeMap<String, DraftValue>,
    /// Must be configured.
    pub placement: String,
    /// By name.
    pub context: BTreeMap<String, DraftValue>,
    /// What targeting sees.
    pub terms: Vec<DraftTerm>,
    /// 0: the placement's.
    pub slots: u32,
    /// In the order of the feed.
    pub organic: Vec<DraftOrganic>,
    /// 0: the default.
    pub deadline_ms: u64,
    /// 0: the default.
    pub min_coverage: f64,
    /// Ids.
    pub blocked_advertisers: Vec<u64>,
    /// Category names.
    pub blocked_categories: Vec<String>,
    /// Ids.
    pub blocked_campaigns: Vec<u64>,
    /// 0: drawn by the router.
    pub seed: u64,
    /// Unix seconds, for schedules: when a logged request was made; 0: now.
    pub ts: u64,
}

/// The value of a feature: a string, a number, a list of strings, or `{"values": [..], "weights": [..]}`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(
    untagged,
    expecting = "a feature's value is a string, a number, a list of strings, or {\"values\": [..], \"weights\": [..]}"
)]
pub enum DraftValue {
    /// A category.
    Category(String),
    /// A number.
    Dense(f64),
    /// A set or a sequence whose values weigh 1 each.
    List(Vec<String>),
    /// A weighted set or sequence; no weights: each weighs 1.
    Set {
        /// Categories.
        values: Vec<String>,
        /// As many, or none.
        #[serde(default)]
        weights: Vec<f32>,
    },
}

/// One dimension of targeting.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DraftTerm {
    /// Its name.
    pub dimension: String,
    /// Its values.
    pub values: Vec<String>,
    /// Its number, of a dimension of kind number.
    pub number: Option<f64>,
}

/// One organic item.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DraftOrganic {
    /// The caller's id.
    pub id: String,
    /// Its worth to the reader, in engagement units.
    #[serde(default)]
    pub utility: f64,
}
