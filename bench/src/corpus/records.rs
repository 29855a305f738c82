//! What does one line of each file of a catalogue folder hold?
//!
//! The writing side of `docs/catalogue-format.md`; field order here is field order in the files.

use std::collections::BTreeMap;

use serde::Serialize;

/// A raw feature value.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum FeatureText {
    /// A category.
    Category(String),
    /// A number.
    Dense(f64),
    /// Weighted values, heaviest first.
    Set {
        /// The values.
        values: Vec<String>,
        /// Their weights.
        weights: Vec<f64>,
    },
}

/// Features by name, in the order of the names, so that files are reproducible.
pub type Features = BTreeMap<&'static str, FeatureText>;

/// A line of `items.jsonl`.
#[derive(Debug, Serialize)]
pub struct ItemLine {
    pub item_id: u64,
    pub advertiser_id: u64,
    pub categories: Vec<String>,
    pub features: Features,
    pub title: String,
    pub url: String,
    pub image_url: String,
}

/// A line of `ads.jsonl`.
#[derive(Debug, Serialize)]
pub struct AdLine {
    pub ad_id: u64,
    pub item_id: u64,
    pub campaign_id: u64,
    pub targeting: Vec<TermLine>,
}

/// A condition of an ad on one dimension of the request.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TermLine {
    pub dimension: &'static str,
    pub any_of: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub none_of: Vec<String>,
}

/// A line of `campaigns.jsonl`.
#[derive(Debug, Serialize)]
pub struct CampaignLine {
    pub campaign_id: u64,
    pub advertiser_id: u64,
    pub bid_type: &'static str,
    pub bid: String,
    pub status: &'static str,
    pub multiplier_ppm: u32,
    pub weekly_budget: String,
}

/// A line of `users.jsonl`.
#[derive(Debug, Serialize)]
pub struct UserLine {
    pub user_id: String,
    pub features: Features,
}

/// A line of `requests.jsonl`.
#[derive(Debug, Serialize)]
pub struct RequestLine {
    pub ts: u64,
    pub user_id: String,
    pub placement: &'static str,
    pub terms: Vec<RequestTerm>,
    pub context: BTreeMap<&'static str, String>,
    pub slots: u32,
}

/// The values of one dimension in a request.
#[derive(Debug, Serialize)]
pub struct RequestTerm {
    pub dimension: &'static str,
    pub values: Vec<String>,
}

/// Decimal text of an amount in micros, without trailing zeros: `350000` is `0.35`.
pub fn decimal(micros: u64) -> String {
    let whole = micros / 1_000_000;
    let fraction = format!("{:06}", micros % 1_000_000);
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() { whole.to_string() } else { format!("{whole}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact_text() {
        assert_eq!(decimal(350_000), "0.35");
        assert_eq!(decimal(1), "0.000001");
        assert_eq!(decimal(12_000_000), "12");
    }

    #[test]
    fn features_are_plain_json() {
        let set = FeatureText::Set { values: vec!["a".into()], weights: vec![2.0] };
        assert_eq!(serde_json::to_string(&set).unwrap(), r#"{"values":["a"],"weights":[2.0]}"#);
        assert_eq!(serde_json::to_string(&FeatureText::Category("x".into())).unwrap(), r#""x""#);
    }
}
