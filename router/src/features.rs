//! What does the model see of this user and this request?
//!
//! The request's own features override the stored ones. A feature that nobody gives takes the schema's default; one
//! that the schema does not know is left out; both are counted. A stored value of another kind than the schema's is
//! taken for missing, because an old store must not stop traffic; the same mistake in a request is refused.

use crate::request::{AdQuery, RequestError};
use crate::users::StoredUser;
use gavel_model::{FeatureKind, FeatureRow, FeatureSpec, FeatureValue, Schema, Side};

/// The user's row, and what the nodes need of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UserRow {
    /// Parallel to [`Schema::user`].
    pub row: FeatureRow,
    /// Sets that match features of the bundle look into.
    pub sets: Vec<UserSet>,
    /// Features of the schema without a value, by their place in [`Schema::user`].
    pub missing: Vec<usize>,
    /// Features of the request that the schema does not know.
    pub unknown: u32,
}

/// A weighted set of the user.
#[derive(Clone, Debug, PartialEq)]
pub struct UserSet {
    /// The feature.
    pub feature: String,
    /// Hashed values with their weights.
    pub pairs: Vec<(u64, f32)>,
}

/// Puts the row together.
///
/// # Errors
/// [`RequestError::Invalid`] when the request gives a feature of the wrong kind.
pub fn user_row(schema: &Schema, stored: Option<&StoredUser>, query: &AdQuery) -> Result<UserRow, RequestError> {
    let mut out = UserRow::default();
    for (place, spec) in schema.user.iter().enumerate() {
        let (side, given) = match spec.side {
            Side::Context => ("context", find(&query.context, &spec.name)),
            Side::User | Side::Item => ("user_features", find(&query.user_features, &spec.name)),
        };
        if let Some(value) = given.filter(|value| !fits(spec, value)) {
            return Err(RequestError::Invalid(wrong_kind(side, spec, value)));
        }
        let stored = || stored.and_then(|user| find(&user.features, &spec.name)).filter(|value| fits(spec, value));
        let value = given.or_else(stored).cloned().unwrap_or_default();
        if value == FeatureValue::Missing {
            out.missing.push(place);
        }
        out.row.values.push(value);
    }
    let known = |side_is_context: bool, name: &str| {
        schema.user.iter().any(|spec| spec.name == name && (spec.side == Side::Context) == side_is_context)
    };
    let context = query.context.iter().filter(|(name, _)| !known(true, name)).count();
    let user = query.user_features.iter().filter(|(name, _)| !known(false, name)).count();
    // At most 256 of each.
    out.unknown = (context + user) as u32;
    out.sets = sets(schema, &out.row);
    Ok(out)
}

fn sets(schema: &Schema, row: &FeatureRow) -> Vec<UserSet> {
    let mut sets: Vec<UserSet> = Vec::new();
    for cross in &schema.cross {
        let position = schema.user.iter().position(|spec| spec.name == cross.user);
        let value = position.and_then(|at| row.values.get(at));
        if let Some(FeatureValue::Set(pairs)) = value
            && sets.iter().all(|set| set.feature != cross.user)
        {
            sets.push(UserSet { feature: cross.user.clone(), pairs: pairs.clone() });
        }
    }
    sets
}

fn find<'a>(features: &'a [(String, FeatureValue)], name: &str) -> Option<&'a FeatureValue> {
    features.iter().find(|(n, _)| n == name).map(|(_, value)| value)
}

const fn fits(spec: &FeatureSpec, value: &FeatureValue) -> bool {
    matches!(
        (&spec.kind, value),
        (FeatureKind::Category { .. }, FeatureValue::Category(_))
            | (FeatureKind::Dense { .. }, FeatureValue::Dense(_))
            | (FeatureKind::Set { .. } | FeatureKind::Sequence { .. }, FeatureValue::Set(_))
            | (_, FeatureValue::Missing)
    )
}

fn wrong_kind(side: &str, spec: &FeatureSpec, value: &FeatureValue) -> String {
    let wanted = match spec.kind {
        FeatureKind::Category { .. } => "a category: give a string",
        FeatureKind::Dense { .. } => "a number",
        FeatureKind::Set { .. } => "a weighted set: give values and weights",
        FeatureKind::Sequence { .. } => "a sequence: give a list of strings, newest first",
    };
    let found = match value {
        FeatureValue::Missing => "nothing",
        FeatureValue::Category(_) => "a string",
        FeatureValue::Dense(_) => "a number",
        FeatureValue::Set(_) => "a list",
    };
    format!("{side}.{} is {found}, and in the active model it is {wanted}", spec.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Arrival, Draft, DraftValue, parse};
    use gavel_model::{CrossSpec, Light, Metric, RankerOptions, Scaling, Transform};
    use gavel_proto::deadline::Instant;
    use gavel_proto::hash::value_hash;

    fn schema() -> Schema {
        let scaling = Scaling { transform: Transform::None, mean: 0.0, std: 1.0 };
        let spec = |name: &str, side, kind| FeatureSpec { name: name.into(), side, kind };
        Schema {
            name: "test".into(),
            dimension: 4,
            metric: Metric::Ip,
            value_weight: 0.0,
            prior_conversion: 0.1,
            light: Light { scale: 1.0, offset: 0.0 },
            user: vec![
                spec("age", Side::User, FeatureKind::Dense { scaling, default: 0.0 }),
                spec("hour", Side::Context, FeatureKind::Category { buckets: 24 }),
                spec("bought", Side::User, FeatureKind::Set { buckets: 100, max_len: 8 }),
                spec("seen", Side::User, FeatureKind::Sequence { buckets: 100, max_len: 8 }),
            ],
            item: Vec::new(),
            cross: vec![CrossSpec { name: "match".into(), user: "bought".into(), item: "type".into(), scaling }],
            heads: Vec::new(),
            options: RankerOptions::default(),
        }
    }

    fn query(change: impl FnOnce(&mut Draft)) -> AdQuery {
        let mut draft = Draft { placement: "feed".into(), ..Draft::default() };
        change(&mut draft);
        parse(draft, Arrival { at: Instant(0), patience_us: None }).expect("legal")
    }

    #[test]
    fn the_request_overrides_the_store_and_the_rest_is_missing() {
        let stored = StoredUser {
            user_id: "u".into(),
            features: vec![
                ("age".into(), FeatureValue::Dense(30.0)),
                ("hour".into(), FeatureValue::Dense(7.0)),
                ("bought".into(), FeatureValue::Set(vec![(5, 2.0)])),
                ("seen".into(), FeatureValue::Set(vec![(9, 1.0), (3, 1.0), (9, 1.0)])),
            ],
        };
        let query = query(|d| {
            d.user_features.insert("age".into(), DraftValue::Dense(31.0));
            d.context.insert("weather".into(), DraftValue::Category("rain".into()));
        });
        let row = user_row(&schema(), Some(&stored), &query).expect("fits");
        let seen = FeatureValue::Set(vec![(9, 1.0), (3, 1.0), (9, 1.0)]);
        let bought = FeatureValue::Set(vec![(5, 2.0)]);
        assert_eq!(row.row.values, [FeatureValue::Dense(31.0), FeatureValue::Missing, bought, seen]);
        assert_eq!((row.missing, row.unknown), (vec![1], 1));
        assert_eq!(row.sets, [UserSet { feature: "bought".into(), pairs: vec![(5, 2.0)] }]);
    }

    #[test]
    fn a_wrong_kind_in_the_request_is_refused_with_its_remedy() {
        let query = query(|d| drop(d.context.insert("hour".into(), DraftValue::Dense(7.0))));
        let error = user_row(&schema(), None, &query).expect_err("wrong");
        let text = "context.hour is a number, and in the active model it is a category: give a string";
        assert_eq!(error, RequestError::Invalid(text.into()));
        let one = self::query(|d| drop(d.user_features.insert("seen".into(), DraftValue::Category("7".into()))));
        let error = user_row(&schema(), None, &one).expect_err("wrong").to_string();
        assert!(error.ends_with("it is a sequence: give a list of strings, newest first"), "{error}");
        let right = self::query(|d| drop(d.context.insert("hour".into(), DraftValue::Category("7".into()))));
        let row = user_row(&schema(), None, &right).expect("fits");
        assert_eq!(row.row.values[1], FeatureValue::Category(value_hash("7")));
    }
}
