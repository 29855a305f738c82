//! What does the model see of a feature's value?
//!
//! A row holds hashed raw values, parallel to one side of the schema. Encoding writes them as the graphs' inputs:
//! rows of embedding tables and scaled numbers, all as f32 (a row is below 2^24, where f32 is exact). A value
//! that is missing, not finite or of a wrong length never stops a request: it takes the schema's default. A value
//! of another *kind* than the schema's is a fault of the caller and refused.

use crate::error::ModelError;
use crate::schema::{FeatureKind, FeatureSpec};

/// The values of one side, parallel to [`crate::Schema::user`] or [`crate::Schema::item`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FeatureRow {
    /// The values.
    pub values: Vec<FeatureValue>,
}

/// One value; categories are hashed by [`gavel_proto::hash::value_hash`].
#[derive(Clone, Debug, Default, PartialEq)]
pub enum FeatureValue {
    /// Absent: takes the default.
    #[default]
    Missing,
    /// A category; 0 is missing.
    Category(u64),
    /// A number.
    Dense(f32),
    /// Categories with weights, each category once.
    Set(Vec<(u64, f32)>),
}

impl FeatureSpec {
    /// The first input's f32s for one row: the set's weights are the second.
    pub(crate) const fn width(&self) -> usize {
        match self.kind {
            FeatureKind::Category { .. } | FeatureKind::Dense { .. } => 1,
            FeatureKind::Set { max_len, .. } => max_len,
        }
    }

    pub(crate) const fn kind_name(&self) -> &'static str {
        match self.kind {
            FeatureKind::Category { .. } => "category",
            FeatureKind::Dense { .. } => "dense",
            FeatureKind::Set { .. } => "set",
        }
    }
}

/// Row of a category in a table of `buckets + 1` rows.
#[must_use]
pub fn table_row(hash: u64, buckets: u32) -> u32 {
    if hash == 0 { 0 } else { 1 + (hash % u64::from(buckets.max(1))) as u32 }
}

/// Writes one value: `rows` takes [`FeatureSpec::width`] f32s, `weights` as many for a set and none otherwise.
pub(crate) fn encode(
    spec: &FeatureSpec,
    value: &FeatureValue,
    rows: &mut [f32],
    weights: &mut [f32],
    order: &mut Vec<(u64, f32)>,
) -> Result<(), ModelError> {
    match (&spec.kind, value) {
        (FeatureKind::Category { .. }, FeatureValue::Missing) => rows[0] = 0.0,
        (FeatureKind::Category { buckets }, FeatureValue::Category(hash)) => {
            rows[0] = table_row(*hash, *buckets) as f32
        }
        (FeatureKind::Dense { scaling, default }, FeatureValue::Missing) => rows[0] = scaling.apply(*default),
        (FeatureKind::Dense { scaling, default }, FeatureValue::Dense(x)) => {
            rows[0] = scaling.apply(if x.is_finite() { *x } else { *default });
        }
        (FeatureKind::Set { .. }, FeatureValue::Missing) => {
            rows.fill(0.0);
            weights.fill(0.0);
        }
        (FeatureKind::Set { buckets, max_len }, FeatureValue::Set(values)) => {
            heaviest(values, *max_len, order);
            rows.fill(0.0);
            weights.fill(0.0);
            for (i, (hash, weight)) in order.iter().enumerate() {
                rows[i] = table_row(*hash, *buckets) as f32;
                weights[i] = *weight;
            }
        }
        (FeatureKind::Category { .. } | FeatureKind::Dense { .. } | FeatureKind::Set { .. }, _) => {
            return Err(ModelError::Kind { name: spec.name.clone(), expected: spec.kind_name() });
        }
    }
    Ok(())
}

/// The `max_len` heaviest values, heaviest first, ties by lower hash. Values without a finite weight or a hash
/// are left out: they would stand for a missing value with a weight.
fn heaviest(values: &[(u64, f32)], max_len: usize, order: &mut Vec<(u64, f32)>) {
    order.clear();
    order.extend(values.iter().copied().filter(|(hash, weight)| *hash != 0 && weight.is_finite()));
    order.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    order.truncate(max_len);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Scaling, Side, Transform};

    fn set(max_len: usize) -> FeatureSpec {
        FeatureSpec { name: "s".into(), side: Side::User, kind: FeatureKind::Set { buckets: 10, max_len } }
    }

    #[test]
    fn a_set_keeps_its_heaviest_values_and_pads_the_rest() {
        let value = FeatureValue::Set(vec![(7, 1.0), (25, 2.0), (3, 1.0), (0, 9.0), (4, f32::NAN)]);
        let (mut rows, mut weights) = ([9.0; 2], [9.0; 2]);
        encode(&set(2), &value, &mut rows, &mut weights, &mut Vec::new()).unwrap();
        assert_eq!((rows, weights), ([6.0, 4.0], [2.0, 1.0]));
        let (mut rows, mut weights) = ([9.0; 4], [9.0; 4]);
        encode(&set(4), &value, &mut rows, &mut weights, &mut Vec::new()).unwrap();
        assert_eq!((rows, weights), ([6.0, 4.0, 8.0, 0.0], [2.0, 1.0, 1.0, 0.0]));
    }

    #[test]
    fn numbers_are_scaled_and_never_stop_a_request() {
        let scaling = Scaling { transform: Transform::Log1p, mean: 1.0, std: 2.0 };
        let spec =
            FeatureSpec { name: "d".into(), side: Side::Item, kind: FeatureKind::Dense { scaling, default: 3.0 } };
        let at = |value: &FeatureValue| {
            let mut rows = [0.0];
            encode(&spec, value, &mut rows, &mut [], &mut Vec::new()).map(|()| rows[0])
        };
        let default = (4f32.ln() - 1.0) / 2.0;
        assert!((at(&FeatureValue::Missing).unwrap() - default).abs() < 1e-6);
        assert!((at(&FeatureValue::Dense(f32::INFINITY)).unwrap() - default).abs() < 1e-6);
        assert!((at(&FeatureValue::Dense(-5.0)).unwrap() + 0.5).abs() < 1e-6);
        assert!(at(&FeatureValue::Category(1)).is_err());
    }
}
