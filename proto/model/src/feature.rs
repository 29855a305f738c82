//! What does the model see of a feature's value?
//!
//! A row holds hashed raw values, parallel to one side of the schema. Encoding writes them as the graphs' inputs:
//! rows of embedding tables and scaled numbers, all as f32 (a row is below 2^24, where f32 is exact). A value
//! that is missing, not finite or of a wrong length never stops a request: it takes the schema's default. A value
//! of another *kind* than the schema's is a fault of the caller and refused.
//!
//! A list of values is raw until here: whether its order or its weights decide what the model sees is the schema's
//! to say, and one list in a store may feed a set in one bundle and a sequence in the next.

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
    /// Categories with weights, in the order given: a set or a sequence. In a set, the first weight of a repeated
    /// category stands.
    Set(Vec<(u64, f32)>),
}

impl FeatureSpec {
    /// The first input's f32s for one row: the weights of a set or sequence are the second.
    pub(crate) const fn width(&self) -> usize {
        match self.kind {
            FeatureKind::Category { .. } | FeatureKind::Dense { .. } => 1,
            FeatureKind::Set { max_len, .. } | FeatureKind::Sequence { max_len, .. } => max_len,
        }
    }

    pub(crate) const fn kind_name(&self) -> &'static str {
        match self.kind {
            FeatureKind::Category { .. } => "category",
            FeatureKind::Dense { .. } => "dense",
            FeatureKind::Set { .. } => "set",
            FeatureKind::Sequence { .. } => "sequence",
        }
    }
}

/// Row of a category in a table of `buckets + 1` rows.
#[must_use]
pub fn table_row(hash: u64, buckets: u32) -> u32 {
    if hash == 0 { 0 } else { 1 + (hash % u64::from(buckets.max(1))) as u32 }
}

/// Writes one value: `rows` takes [`FeatureSpec::width`] f32s, `weights` as many for a set or sequence and none
/// otherwise.
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
        (FeatureKind::Set { .. } | FeatureKind::Sequence { .. }, FeatureValue::Missing) => {
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
        (FeatureKind::Sequence { buckets, max_len }, FeatureValue::Set(values)) => {
            newest(&values[..values.len().min(*max_len)], *buckets, rows, weights);
        }
        (
            FeatureKind::Category { .. }
            | FeatureKind::Dense { .. }
            | FeatureKind::Set { .. }
            | FeatureKind::Sequence { .. },
            _,
        ) => {
            return Err(ModelError::Kind { name: spec.name.clone(), expected: spec.kind_name() });
        }
    }
    Ok(())
}

/// The values in their order, then empty places. A value without a finite weight or a hash is an empty place and
/// not left out: the values behind it would move, and sequences that are aligned with this one would not be any more.
fn newest(values: &[(u64, f32)], buckets: u32, rows: &mut [f32], weights: &mut [f32]) {
    rows.fill(0.0);
    weights.fill(0.0);
    for (place, (hash, weight)) in values.iter().enumerate() {
        if *hash != 0 && weight.is_finite() {
            rows[place] = table_row(*hash, buckets) as f32;
            weights[place] = *weight;
        }
    }
}

/// The `max_len` heaviest values, heaviest first, ties by lower hash. Values without a finite weight or a hash
/// are left out: they would stand for a missing value with a weight.
fn heaviest(values: &[(u64, f32)], max_len: usize, order: &mut Vec<(u64, f32)>) {
    order.clear();
    order.extend(values.iter().copied().filter(|(hash, weight)| *hash != 0 && weight.is_finite()));
    // Stable, so that the first weight of a repeated value stands.
    order.sort_by_key(|(hash, _)| *hash);
    order.dedup_by_key(|(hash, _)| *hash);
    order.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    order.truncate(max_len);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Scaling, Side, Transform};
    use proptest::prelude::*;

    fn set(max_len: usize) -> FeatureSpec {
        FeatureSpec { name: "s".into(), side: Side::User, kind: FeatureKind::Set { buckets: 10, max_len } }
    }

    #[test]
    fn a_set_keeps_its_heaviest_values_and_pads_the_rest() {
        let value = FeatureValue::Set(vec![(7, 1.0), (25, 2.0), (3, 1.0), (0, 9.0), (4, f32::NAN), (7, 8.0)]);
        let (mut rows, mut weights) = ([9.0; 2], [9.0; 2]);
        encode(&set(2), &value, &mut rows, &mut weights, &mut Vec::new()).unwrap();
        assert_eq!((rows, weights), ([6.0, 4.0], [2.0, 1.0]));
        let (mut rows, mut weights) = ([9.0; 4], [9.0; 4]);
        encode(&set(4), &value, &mut rows, &mut weights, &mut Vec::new()).unwrap();
        assert_eq!((rows, weights), ([6.0, 4.0, 8.0, 0.0], [2.0, 1.0, 1.0, 0.0]));
    }

    #[test]
    fn a_sequence_keeps_order_and_repetitions_and_pads_the_rest() {
        let sequence = |max_len| FeatureSpec { kind: FeatureKind::Sequence { buckets: 10, max_len }, ..set(1) };
        let value = FeatureValue::Set(vec![(7, 1.0), (25, 2.0), (7, 0.5), (0, 9.0), (4, f32::NAN), (3, 1.0)]);
        let (mut rows, mut weights) = ([9.0; 8], [9.0; 8]);
        encode(&sequence(8), &value, &mut rows, &mut weights, &mut Vec::new()).unwrap();
        assert_eq!(rows, [8.0, 6.0, 8.0, 0.0, 0.0, 4.0, 0.0, 0.0]);
        assert_eq!(weights, [1.0, 2.0, 0.5, 0.0, 0.0, 1.0, 0.0, 0.0]);
        encode(&sequence(8), &FeatureValue::Missing, &mut rows, &mut weights, &mut Vec::new()).unwrap();
        assert_eq!((rows, weights), ([0.0; 8], [0.0; 8]));
        assert!(encode(&sequence(8), &FeatureValue::Category(1), &mut rows, &mut weights, &mut Vec::new()).is_err());
    }

    proptest! {
        /// The twins say place by place what stands there.
        #[test]
        fn lists_equal_their_twins(
            values in prop::collection::vec((0u64..30, prop_oneof![4 => -9.0f32..9.0, 1 => Just(f32::NAN)]), 0..20),
            max_len in 1usize..24,
        ) {
            let fine = |(hash, weight): &(u64, f32)| *hash != 0 && weight.is_finite();
            let (mut rows, mut weights) = (vec![9.0; max_len], vec![9.0; max_len]);
            let value = FeatureValue::Set(values.clone());
            let kind = FeatureKind::Sequence { buckets: 7, max_len };
            encode(&FeatureSpec { kind, ..set(1) }, &value, &mut rows, &mut weights, &mut Vec::new()).unwrap();
            for place in 0..max_len {
                let twin = values.get(place).filter(|v| fine(v)).map_or((0.0, 0.0), |(h, w)| ((1 + h % 7) as f32, *w));
                prop_assert_eq!((rows[place], weights[place]), twin);
            }
            let kind = FeatureKind::Set { buckets: 7, max_len };
            encode(&FeatureSpec { kind, ..set(1) }, &value, &mut rows, &mut weights, &mut Vec::new()).unwrap();
            let mut left: Vec<(u64, f32)> = Vec::new();
            for pair in values.iter().filter(|v| fine(v)) {
                if left.iter().all(|(hash, _)| *hash != pair.0) {
                    left.push(*pair);
                }
            }
            for place in 0..max_len {
                let next = left.iter().copied().reduce(|a, b| if (b.1, a.0) > (a.1, b.0) { b } else { a });
                left.retain(|pair| Some(*pair) != next);
                let twin = next.map_or((0.0, 0.0), |(h, w)| ((1 + h % 7) as f32, w));
                prop_assert_eq!((rows[place], weights[place]), twin);
            }
        }
    }

    /// The vectors of `docs/model-operators.md`.
    #[test]
    fn rows_are_those_of_the_document() {
        for (text, few, most) in [("GROCERY", 1_057, 4_049_514), ("é", 1_596, 5_492_044), ("900", 1_578, 12_759_989)] {
            let hash = gavel_proto::hash::value_hash(text);
            assert_eq!((table_row(hash, 4_096), table_row(hash, crate::limits::BUCKETS_MAX)), (few, most), "{text}");
        }
        assert_eq!(table_row(0, 4_096), 0);
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
