//! What has a user bought before the demo's moment?
//!
//! Weighted sets of products, types, categories and manufacturers; the weight is the number of basket lines.
//! Only the heaviest values are kept (ties: the lower hash first), the same cut that a bundle makes, so that
//! a user's features never hold what no model reads. The trainer computes the same sets at every visit.

use std::collections::{BTreeMap, HashMap, HashSet};

use gavel_proto::hash::value_hash;

use super::LAST_TRAINING_WEEK;
use super::records::{FeatureText, Features, UserLine};
use super::source::{Household, Product, Purchase};

/// Most values of a set. With 128 the sets of three users in four lose something, and the ranker with them.
pub const SET_VALUES_MAX: usize = 256;

/// Purchases of every household up to the last training week.
#[derive(Debug, Default)]
pub struct Histories(HashMap<u64, History>);

#[derive(Debug, Default)]
struct History {
    baskets: HashSet<u64>,
    lines: BTreeMap<u64, u32>,
}

impl Histories {
    /// Counts one line; later weeks are left out.
    pub fn add(&mut self, purchase: Purchase) {
        if purchase.week > LAST_TRAINING_WEEK {
            return;
        }
        let history = self.0.entry(purchase.household).or_default();
        history.baskets.insert(purchase.basket);
        *history.lines.entry(purchase.product).or_default() += 1;
    }

    /// The features of one household; `products` maps ids to rows.
    pub fn line(&self, household: &Household, products: &HashMap<u64, &Product>) -> UserLine {
        let mut features: Features =
            household.traits.iter().map(|(name, value)| (*name, FeatureText::Category(value.clone()))).collect();
        if let Some(history) = self.0.get(&household.id) {
            let lines: u32 = history.lines.values().sum();
            features.insert("visits", FeatureText::Dense(history.baskets.len() as f64));
            features.insert("lines", FeatureText::Dense(f64::from(lines)));
            for (name, value_of) in SETS {
                if let Some(set) = weighted_set(history, products, value_of) {
                    features.insert(name, set);
                }
            }
        }
        UserLine { user_id: household.id.to_string(), features }
    }
}

type ValueOf = fn(&Product) -> String;

const SETS: [(&str, ValueOf); 4] = [
    ("bought_products", |product| product.id.to_string()),
    ("bought_types", |product| product.kind.clone()),
    ("bought_categories", |product| product.category.clone()),
    ("bought_manufacturers", |product| product.manufacturer.to_string()),
];

fn weighted_set(history: &History, products: &HashMap<u64, &Product>, value_of: ValueOf) -> Option<FeatureText> {
    let mut counts: HashMap<String, u32> = HashMap::new();
    for (product, lines) in &history.lines {
        let value = products.get(product).map(|product| value_of(product)).unwrap_or_default();
        if !value.is_empty() {
            *counts.entry(value).or_default() += lines;
        }
    }
    let mut ranked: Vec<(u32, u64, String)> =
        counts.into_iter().map(|(value, count)| (count, value_hash(&value), value)).collect();
    ranked.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    ranked.truncate(SET_VALUES_MAX);
    if ranked.is_empty() {
        return None;
    }
    let weights = ranked.iter().map(|(count, _, _)| f64::from(*count)).collect();
    Some(FeatureText::Set { values: ranked.into_iter().map(|(_, _, value)| value).collect(), weights })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_weeks_of_training_count_and_the_heaviest_come_first() {
        let milk = Product { id: 1, kind: "MILK".into(), manufacturer: 9, ..Product::default() };
        let salt = Product { id: 2, kind: "SALT".into(), manufacturer: 9, ..Product::default() };
        let products = HashMap::from([(1, &milk), (2, &salt)]);
        let mut histories = Histories::default();
        for (basket, product, week) in [(1, 1, 1), (1, 2, 1), (2, 2, 40), (3, 1, 41), (3, 1, 42)] {
            histories.add(Purchase { household: 5, basket, product, week });
        }
        let line = histories.line(&Household { id: 5, traits: vec![("age", "65+".into())] }, &products);
        assert_eq!(line.user_id, "5");
        assert_eq!(line.features["visits"], FeatureText::Dense(2.0));
        assert_eq!(line.features["lines"], FeatureText::Dense(3.0));
        assert_eq!(
            line.features["bought_types"],
            FeatureText::Set { values: vec!["SALT".into(), "MILK".into()], weights: vec![2.0, 1.0] }
        );
        assert!(!line.features.contains_key("bought_categories"));
    }
}
