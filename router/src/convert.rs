//! What do the messages of several modules have in common?

use crate::request::DraftValue;
use gavel_proto::wire;

/// The value of a feature as written; `None` when the message names no kind.
pub(crate) fn draft_value(value: wire::FeatureValue) -> Option<DraftValue> {
    Some(match value.value? {
        wire::feature_value::Value::Category(category) => DraftValue::Category(category),
        wire::feature_value::Value::Dense(number) => DraftValue::Dense(number),
        wire::feature_value::Value::Set(set) => DraftValue::Set { values: set.values, weights: set.weights },
    })
}
