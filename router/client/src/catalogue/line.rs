//! Is this line a document, and which one?
//!
//! One structure holds every field that a line may have; the key that it carries says what it is. CSV rows fill the
//! same structure, so that both forms pass the same checks. Every string, list and number has its limit here.

use super::{frequency, groups, schedule, zones};
use gavel_proto::limits::{BID_MICROS_MAX, FEATURES_MAX, SET_VALUES_MAX, STRING_BYTES_MAX, TERMS_MAX};
use gavel_proto::money::{BidType, Micros, PPM};
use gavel_proto::wire::{self, feature_value::Value};
use serde::{Deserialize, Deserializer};
use std::collections::{BTreeMap, BTreeSet};

/// Longest URL and title: they are stored, never compared, so they may be longer than a name.
const CREATIVE_BYTES_MAX: usize = 2_048;
/// Categories of one item.
const CATEGORIES_MAX: usize = 32;

/// A checked document.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Document {
    Item(wire::Item),
    Ad(wire::Ad),
    Campaign(wire::Campaign),
    User(wire::User),
}

/// Everything that a line may say.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Line {
    pub item_id: Option<u64>,
    pub ad_id: Option<u64>,
    pub campaign_id: Option<u64>,
    pub advertiser_id: Option<u64>,
    pub user_id: Option<String>,
    pub categories: Vec<String>,
    pub features: BTreeMap<String, FeatureText>,
    pub title: String,
    pub url: String,
    pub image_url: String,
    pub targeting: Vec<TargetingText>,
    pub bid_type: Option<String>,
    #[serde(deserialize_with = "decimal")]
    pub bid: Option<String>,
    pub status: Option<String>,
    pub multiplier_ppm: Option<u32>,
    #[serde(deserialize_with = "decimal")]
    pub weekly_budget: Option<String>,
    #[serde(deserialize_with = "decimal")]
    pub reserve: Option<String>,
    pub schedule: Vec<String>,
    pub time_zone: Option<String>,
    pub frequency: Vec<frequency::RuleText>,
    pub ad_group: Option<u64>,
    pub ad_groups: Vec<groups::GroupText>,
}

/// A feature as people write it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub(super) enum FeatureText {
    Category(String),
    Dense(f64),
    Set {
        values: Vec<String>,
        #[serde(default)]
        weights: Vec<f32>,
    },
    List(Vec<String>),
    Missing(()),
}

/// A condition on one dimension.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TargetingText {
    pub dimension: String,
    pub any_of: Vec<String>,
    pub none_of: Vec<String>,
    pub ranges: Vec<RangeText>,
}

/// Numbers between two ends.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RangeText {
    pub min: Option<f64>,
    pub above: Option<f64>,
    pub max: Option<f64>,
    pub below: Option<f64>,
}

/// A decimal that is written as text, or as a number whose shortest form is taken.
pub(super) fn decimal<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Text(String),
        Number(serde_json::Number),
    }
    Ok(Option::<Written>::deserialize(from)?.map(|w| match w {
        Written::Text(text) => text,
        Written::Number(number) => number.to_string(),
    }))
}

impl Line {
    /// Reads one JSON line.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|e| e.to_string())
    }

    /// Checks it against the limits.
    pub(super) fn into_document(self) -> Result<Document, String> {
        match (&self.user_id, self.ad_id, &self.bid_type, self.item_id) {
            (Some(_), None, None, None) => self.into_user().map(Document::User),
            (None, Some(_), None, Some(_)) => self.into_ad().map(Document::Ad),
            (None, None, Some(_), None) => self.into_campaign().map(Document::Campaign),
            (None, None, None, Some(_)) => self.into_item().map(Document::Item),
            (_, Some(_), _, None) => Err("an ad needs item_id".to_owned()),
            _ => Err("neither an item, an ad, a campaign nor a user: see the catalogue format".to_owned()),
        }
    }

    fn into_item(self) -> Result<wire::Item, String> {
        if self.categories.len() > CATEGORIES_MAX {
            return Err(format!("{} categories, at most {CATEGORIES_MAX}", self.categories.len()));
        }
        for category in &self.categories {
            name("category", category)?;
        }
        for (field, text) in [("title", &self.title), ("url", &self.url), ("image_url", &self.image_url)] {
            if text.len() > CREATIVE_BYTES_MAX {
                return Err(format!("{field} has {} bytes, at most {CREATIVE_BYTES_MAX}", text.len()));
            }
        }
        Ok(wire::Item {
            item_id: need("item_id", self.item_id)?,
            advertiser_id: need("advertiser_id", self.advertiser_id)?,
            categories: self.categories,
            features: features(self.features)?,
            creative: Some(wire::Creative { title: self.title, url: self.url, image_url: self.image_url }),
        })
    }

    fn into_ad(self) -> Result<wire::Ad, String> {
        if self.targeting.len() > TERMS_MAX {
            return Err(format!("{} targeting rules, at most {TERMS_MAX}", self.targeting.len()));
        }
        let mut dimensions = BTreeSet::new();
        for rule in &self.targeting {
            name("dimension", &rule.dimension)?;
            if !dimensions.insert(&rule.dimension) {
                return Err(format!("dimension {:?} stands twice", rule.dimension));
            }
            if rule.any_of.len() + rule.none_of.len() > SET_VALUES_MAX {
                return Err(format!("dimension {:?} has more than {SET_VALUES_MAX} values", rule.dimension));
            }
            for value in rule.any_of.iter().chain(&rule.none_of) {
                name("targeting value", value)?;
            }
        }
        let range = |r: RangeText| wire::NumberRange { min: r.min, above: r.above, max: r.max, below: r.below };
        let rule = |t: TargetingText| wire::TargetingRule {
            dimension: t.dimension,
            any_of: t.any_of,
            none_of: t.none_of,
            ranges: t.ranges.into_iter().map(range).collect(),
        };
        let zone = self.time_zone.as_deref().map(zones::name).transpose()?.unwrap_or_default();
        let schedule = match self.schedule.as_slice() {
            [] if !zone.is_empty() => return Err("time_zone without a schedule".to_owned()),
            [] => None,
            texts => Some(wire::Schedule { time_zone: zone, hours: schedule::hours(texts)?.words().to_vec() }),
        };
        let mut targeting: Vec<_> = self.targeting.into_iter().map(rule).collect();
        targeting.sort_by(|a, b| a.dimension.cmp(&b.dimension));
        Ok(wire::Ad {
            ad_id: need("ad_id", self.ad_id)?,
            item_id: need("item_id", self.item_id)?,
            campaign_id: need("campaign_id", self.campaign_id)?,
            targeting,
            schedule,
            ad_group_id: ad_group(self.ad_group)?,
        })
    }

    fn into_campaign(self) -> Result<wire::Campaign, String> {
        let multiplier_ppm = self.multiplier_ppm.unwrap_or(PPM);
        if !(1..=PPM).contains(&multiplier_ppm) {
            return Err(format!("multiplier_ppm {multiplier_ppm} is not in 1..={PPM}"));
        }
        let bid = bid_within(money("bid", self.bid.as_deref())?.ok_or("bid is missing")?)?;
        Ok(wire::Campaign {
            campaign_id: need("campaign_id", self.campaign_id)?,
            advertiser_id: need("advertiser_id", self.advertiser_id)?,
            bid_type: bid_type(self.bid_type.as_deref().unwrap_or_default())?,
            bid_micros: bid,
            paused: paused(self.status.as_deref().unwrap_or("active"))?,
            multiplier_ppm,
            budget_micros: money("weekly_budget", self.weekly_budget.as_deref())?.unwrap_or(0),
            reserve_micros: money("reserve", self.reserve.as_deref())?.unwrap_or(0),
            time_zone: self.time_zone.as_deref().map(zones::name).transpose()?.unwrap_or_default(),
            frequency: frequency::rules(&self.frequency)?,
            ad_groups: groups::groups(&self.ad_groups)?,
        })
    }

    fn into_user(self) -> Result<wire::User, String> {
        let user_id = self.user_id.unwrap_or_default();
        name("user_id", &user_id)?;
        Ok(wire::User { user_id, features: features(self.features)? })
    }
}

fn need(field: &str, value: Option<u64>) -> Result<u64, String> {
    value.ok_or_else(|| format!("{field} is missing"))
}

fn name(what: &str, text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err(format!("an empty {what}"));
    }
    if text.len() > STRING_BYTES_MAX {
        return Err(format!("a {what} of {} bytes, at most {STRING_BYTES_MAX}", text.len()));
    }
    Ok(())
}

/// 0 for an ad directly under its campaign, which names none.
fn ad_group(id: Option<u64>) -> Result<u64, String> {
    match id {
        Some(0) => Err("ad_group is 0: leave it out for an ad directly under its campaign".to_owned()),
        Some(id) => Ok(id),
        None => Ok(0),
    }
}

pub(super) fn bid_within(bid: u64) -> Result<u64, String> {
    if bid > BID_MICROS_MAX {
        return Err(format!("bid {} is above the limit of {}", Micros(bid), Micros(BID_MICROS_MAX)));
    }
    Ok(bid)
}

pub(super) fn money(field: &str, text: Option<&str>) -> Result<Option<u64>, String> {
    text.map(|t| Micros::parse(t).map(|m| m.0).map_err(|e| format!("{field} {t:?}: {e}"))).transpose()
}

fn paused(status: &str) -> Result<bool, String> {
    match status {
        "active" => Ok(false),
        "paused" => Ok(true),
        other => Err(format!("status {other:?} is neither active nor paused")),
    }
}

fn bid_type(text: &str) -> Result<i32, String> {
    let known = BidType::from_name(text).map(BidType::number);
    known.ok_or_else(|| format!("bid_type {text:?} is not one of {}", BidType::ALL.map(BidType::name).join(", ")))
}

/// Sorted by name; features that are null are left out.
fn features(texts: BTreeMap<String, FeatureText>) -> Result<Vec<wire::Feature>, String> {
    if texts.len() > FEATURES_MAX {
        return Err(format!("{} features, at most {FEATURES_MAX}", texts.len()));
    }
    let mut all = Vec::with_capacity(texts.len());
    for (feature, text) in texts {
        name("feature name", &feature)?;
        let value = match text {
            FeatureText::Missing(()) => continue,
            FeatureText::Category(value) => {
                name("feature value", &value).map_err(|e| format!("feature {feature:?}: {e}"))?;
                Value::Category(value)
            }
            FeatureText::Dense(number) if number.is_finite() => Value::Dense(number),
            FeatureText::Dense(_) => return Err(format!("feature {feature:?} is not finite")),
            FeatureText::Set { values, weights } => {
                Value::Set(set(values, weights).map_err(|e| format!("feature {feature:?}: {e}"))?)
            }
            FeatureText::List(values) => {
                Value::Set(set(values, Vec::new()).map_err(|e| format!("feature {feature:?}: {e}"))?)
            }
        };
        all.push(wire::Feature { name: feature, value: Some(wire::FeatureValue { value: Some(value) }) });
    }
    Ok(all)
}

fn set(values: Vec<String>, weights: Vec<f32>) -> Result<wire::WeightedSet, String> {
    if values.len() > SET_VALUES_MAX {
        return Err(format!("{} values, at most {SET_VALUES_MAX}", values.len()));
    }
    if !weights.is_empty() && weights.len() != values.len() {
        return Err(format!("{} values and {} weights", values.len(), weights.len()));
    }
    if weights.iter().any(|w| !w.is_finite()) {
        return Err("a weight is not finite".to_owned());
    }
    for value in &values {
        name("set value", value)?;
    }
    Ok(wire::WeightedSet { values, weights })
}
