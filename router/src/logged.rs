//! What does a line of the log of what was scored hold, and what a line of the log of events?
//!
//! Both are JSON and made to be joined: an ad on the page has the issuer and sequence of its token in the one, an event
//! that was taken has them in the other. Hashed values are 16 hexadecimal digits, so that a number is always a number and
//! no reader rounds a hash. `docs/logs.md` explains every field.

use gavel_model::FeatureValue;
use gavel_proto::epoch::Epoch;
use gavel_proto::money::BidType;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;

/// The format of both lines.
pub const FORMAT: u32 = 1;

/// One request that was sampled: with its features and weights as they are, or as the text of the line has them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScoredLine<F = Features, W = Weights> {
    /// [`FORMAT`].
    pub format: u32,
    /// The caller's name of the request, or the router's.
    pub request_id: String,
    /// Names the auction.
    pub auction_id: u64,
    /// When it was answered: the ledger's time where there is a grant, else the router's.
    pub time_ms: u64,
    /// Whose features were looked up.
    pub user_id: Option<String>,
    /// Where the ads stand.
    pub placement: String,
    /// The versions that every shard answered under.
    pub epoch: Epoch,
    /// BLAKE3 of the bundle, in hexadecimal digits.
    pub model: String,
    /// User and context as the router encoded them.
    pub user: F,
    /// Every ad on the page, and a share of the others.
    pub candidates: Vec<ScoredCandidate<F, W>>,
}

/// One candidate of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScoredCandidate<F = Features, W = Weights> {
    /// The ad.
    pub ad: u64,
    /// Its item.
    pub item: u64,
    /// Its campaign.
    pub campaign: u64,
    /// Who pays.
    pub advertiser: u64,
    /// What became of it.
    pub reason: ScoredReason,
    /// Its slot, if it won one.
    pub slot: Option<u32>,
    /// Its position, if it stands on the page.
    pub position: Option<u32>,
    /// What one billed event costs there.
    pub price_micros: Option<u64>,
    /// The event of its bid.
    pub bid_type: BidType,
    /// Paced.
    pub bid_micros: u64,
    /// Score units per micro of bid.
    pub weight: u64,
    /// How many candidates this one stands for.
    pub sampling_weight: f64,
    /// Of its token.
    pub token: Option<TokenId>,
    /// Calibrated, by head, as they were scored.
    pub predictions: W,
    /// Of the item, as its node had embedded it.
    pub features: F,
    /// Weights that match features were made of.
    pub matches: W,
}

/// Which token, and with it which event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TokenId {
    /// The router's process, as the ledger granted it.
    pub issuer: u64,
    /// Its count.
    pub sequence: u64,
}

/// What became of a candidate; the words of explanations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScoredReason {
    /// It stands on the page.
    Won,
    /// It won a slot, and the page had no place for it.
    NoSlot,
    /// The bid is below the reserve.
    BelowReserve,
    /// Its additive value is a cost above what its bid is worth.
    WorthLess,
    /// Its advertiser has as many ads as allowed.
    LimitAdvertiser,
    /// Its category has.
    LimitCategory,
    /// The slot before holds its category.
    LimitNeighbour,
    /// Showing it would have brought less than the page threshold.
    BelowPageThreshold,
    /// Others were worth more.
    LostAuction,
    /// It won and could not be served.
    NotEligibleBudget,
}

/// One event that was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventLine {
    /// [`FORMAT`].
    pub format: u32,
    /// impression, click, conversion or win.
    pub kind: EventWord,
    /// What was answered.
    pub answer: String,
    /// When it came, by the ledger's time.
    pub time_ms: u64,
    /// When its ad was served, by the same time.
    pub issued_ms: u64,
    /// Of the token.
    pub token: TokenId,
    /// The auction.
    pub auction_id: u64,
    /// Hash of the request's id.
    pub request: u64,
    /// The ad.
    pub ad: u64,
    /// Its campaign.
    pub campaign: u64,
    /// Its slot.
    pub slot: u32,
    /// What the ad pays for.
    pub billed: EventWord,
    /// What one of those costs.
    pub price_nanos: i64,
}

/// Kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventWord {
    /// Somebody saw the ad.
    Impression,
    /// Somebody clicked on it.
    Click,
    /// Somebody did what the advertiser wants.
    Conversion,
    /// A notice that the ad was taken; never billed.
    Win,
}

/// Features by name; those without a value are left out.
pub type Features = BTreeMap<String, LoggedValue>;

/// Predictions by head, and weights by match feature.
pub type Weights = BTreeMap<String, f32>;

/// The value of a feature.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LoggedValue {
    /// A category.
    Category(Hashed),
    /// A number.
    Number(f32),
    /// A set or a sequence, in its order.
    Set(Vec<(Hashed, f32)>),
}

impl LoggedValue {
    /// How a value is logged; `None` when the model took its default.
    #[must_use]
    pub fn of(value: &FeatureValue) -> Option<Self> {
        match value {
            FeatureValue::Missing | FeatureValue::Category(0) => None,
            FeatureValue::Category(hash) => Some(Self::Category(Hashed(*hash))),
            FeatureValue::Dense(number) => number.is_finite().then_some(Self::Number(*number)),
            FeatureValue::Set(pairs) => {
                // A value whose weight is no number is none to the model either.
                let pair = |(hash, weight): &(u64, f32)| match weight.is_finite() {
                    true => (Hashed(*hash), *weight),
                    false => (Hashed(0), 0.0),
                };
                Some(Self::Set(pairs.iter().map(pair).collect()))
            }
        }
    }
}

/// Features by name, of names and values that belong together.
pub fn features<'a>(names: impl IntoIterator<Item = &'a str>, values: &[FeatureValue]) -> Features {
    let logged = |(name, value): (&str, &FeatureValue)| Some((name.to_owned(), LoggedValue::of(value)?));
    names.into_iter().zip(values).filter_map(logged).collect()
}

/// A hashed value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hashed(pub u64);

impl Serialize for Hashed {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(&format_args!("{:016x}", self.0))
    }
}

impl<'de> Deserialize<'de> for Hashed {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        u64::from_str_radix(&text, 16).map(Self).map_err(|_| D::Error::custom("a hash has 16 hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = FeatureValue> {
        let number = -1e6f32..1e6;
        prop_oneof![
            Just(FeatureValue::Missing),
            any::<u64>().prop_map(FeatureValue::Category),
            number.clone().prop_map(FeatureValue::Dense),
            prop::collection::vec((any::<u64>(), number), 0..5).prop_map(FeatureValue::Set),
        ]
    }

    proptest! {
        /// What is read is what was logged, to the bit.
        #[test]
        fn features_come_back_as_they_were(values in prop::collection::vec(value(), 0..8)) {
            let names: Vec<String> = (0..values.len()).map(|at| format!("f{at}")).collect();
            let logged = features(names.iter().map(String::as_str), &values);
            let text = serde_json::to_string(&logged).expect("JSON");
            prop_assert_eq!(serde_json::from_str::<Features>(&text).expect("reads"), logged.clone());
            let known = values.iter().filter(|v| !matches!(v, FeatureValue::Missing | FeatureValue::Category(0))).count();
            prop_assert_eq!(logged.len(), known);
        }
    }

    #[test]
    fn a_hash_is_a_string_and_what_is_no_number_is_left_out() {
        let values = [FeatureValue::Category(10), FeatureValue::Dense(f32::NAN), FeatureValue::Set(vec![(1, 0.5)])];
        let logged = features(["a", "b", "c"], &values);
        let text = serde_json::to_string(&logged).expect("JSON");
        assert_eq!(text, r#"{"a":"000000000000000a","c":[["0000000000000001",0.5]]}"#);
        assert!(serde_json::from_str::<Features>(r#"{"a":"no hash"}"#).is_err());
    }
}
