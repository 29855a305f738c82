//! How well does this item meet this user, feature by feature?
//!
//! A match feature is the weight of an item's category in one of the user's weighted sets: "how often did
//! this user buy this product type". It belongs to neither the user nor the item alone, so it is the one
//! kind of feature that is computed per candidate and request. Everything else the ranker needs is in the
//! user part (computed by the router) or in the item's activations (computed at staging).
//!
//! A value that is not there has weight 0, as at training; each such value is counted, so that a column
//! that was renamed shows in a metric and not only in the revenue.

mod columns;
mod user_sets;

use gavel_model::CrossSpec;

pub use columns::ItemColumns;
pub use user_sets::UserSets;

/// One match feature, bound to a column of one content folder.
pub struct MatchColumn<'a> {
    /// The rule of the bundle.
    pub spec: &'a CrossSpec,
    /// The item's category hashes by ordinal, 0 = missing; `None` when the catalogue has no such column.
    pub column: Option<&'a [u64]>,
}

/// What was missing while one match feature of one request was computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MissingValues {
    /// Candidates, because the catalogue has no such column.
    pub column: u64,
    /// Candidates, because the user's set did not come with the request.
    pub user_set: u64,
    /// Candidates whose item has no category.
    pub item_value: u64,
}

impl MatchColumn<'_> {
    /// The weight of an item's value in the user's set, which [`match_features`] encodes; 0 where there is none.
    pub fn weight(&self, sets: &UserSets, item: u32) -> f32 {
        let value = self.column.and_then(|column| column.get(item as usize)).copied().unwrap_or(0);
        sets.get(&self.spec.user).and_then(|set| set.get(&value)).copied().unwrap_or(0.0)
    }
}

/// Writes the match features of `items` row by row, `columns.len()` to a row. Answers what was missing of each.
pub fn match_features(
    columns: &[MatchColumn<'_>],
    sets: &UserSets,
    items: impl ExactSizeIterator<Item = u32> + Clone,
    out: &mut Vec<f32>,
) -> Vec<MissingValues> {
    let (width, count) = (columns.len(), items.len());
    let mut all_missing = vec![MissingValues::default(); width];
    out.clear();
    out.resize(width * count, 0.0);
    for (position, (bound, missing)) in columns.iter().zip(&mut all_missing).enumerate() {
        let absent = bound.spec.encode(0.0);
        let set = sets.get(&bound.spec.user);
        let cells = out.iter_mut().skip(position).step_by(width);
        let (Some(column), Some(set)) = (bound.column, set) else {
            cells.for_each(|cell| *cell = absent);
            let counter = if bound.column.is_none() { &mut missing.column } else { &mut missing.user_set };
            *counter += count as u64;
            continue;
        };
        for (cell, item) in cells.zip(items.clone()) {
            let value = column.get(item as usize).copied().unwrap_or(0);
            missing.item_value += u64::from(value == 0);
            // Most candidates share nothing with the user: the encoded zero is computed once.
            *cell = set.get(&value).map_or(absent, |weight| bound.spec.encode(*weight));
        }
    }
    all_missing
}

#[cfg(test)]
mod tests {
    use gavel_model::{Scaling, Transform};
    use proptest::prelude::*;

    use super::*;

    fn spec(user: &str) -> CrossSpec {
        let scaling = Scaling { transform: Transform::Log1p, mean: 0.25, std: 2.0 };
        CrossSpec { name: format!("match_{user}"), user: user.to_owned(), item: "type".to_owned(), scaling }
    }

    proptest! {
        /// The twin walks the set for every candidate.
        #[test]
        fn equals_a_walk_over_the_set(
            pairs in prop::collection::vec((0u64..12, 0.0f32..9.0), 0..20), column in prop::collection::vec(0u64..12, 1..30),
        ) {
            let (known, absent) = (spec("bought"), spec("viewed"));
            let mut sets = UserSets::default();
            sets.insert("bought".to_owned(), pairs.clone());
            let columns = [
                MatchColumn { spec: &known, column: Some(&column) },
                MatchColumn { spec: &absent, column: Some(&column) },
                MatchColumn { spec: &known, column: None },
            ];
            let mut out = Vec::new();
            let items = column.len() as u32;
            let missing = match_features(&columns, &sets, (0..items).rev(), &mut out);
            for (row, item) in (0..items).rev().enumerate() {
                let value = column[item as usize];
                let found = pairs.iter().find(|(v, _)| *v == value && value != 0).map_or(0.0, |(_, w)| *w);
                let twin = [known.encode(found), absent.encode(0.0), known.encode(0.0)];
                prop_assert_eq!(&out[row * 3..row * 3 + 3], &twin);
                // What is logged is what was encoded.
                let logged = columns.iter().map(|bound| bound.spec.encode(bound.weight(&sets, item)));
                prop_assert_eq!(&logged.collect::<Vec<f32>>(), &twin);
            }
            let holes = column.iter().filter(|v| **v == 0).count() as u64;
            let items = u64::from(items);
            let none = MissingValues::default();
            let expected = [
                MissingValues { item_value: holes, ..none },
                MissingValues { user_set: items, ..none },
                MissingValues { column: items, ..none },
            ];
            prop_assert_eq!(missing, expected);
        }
    }
}
