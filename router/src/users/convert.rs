//! Which users does a catalogue blob hold?

use super::{StoredUser, UserFileError};
use crate::convert;
use crate::request::{Dimension, Dimensions, feature_value};
use gavel_member::catalogue::BlockReader;
use gavel_proto::hash::value_hash;
use gavel_proto::limits::DIMENSIONS_MAX;
use gavel_proto::targeting::DimensionKind;
use gavel_proto::wire;
use prost::Message;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

/// Every user of the blob, hashed. A value that is not one (not finite, too long) is left out: the catalogue was
/// checked where it was loaded, and a default is better than no users.
pub(super) fn users(
    blob: &Path,
) -> Result<impl Iterator<Item = Result<StoredUser, UserFileError>> + use<>, UserFileError> {
    let path = blob.to_path_buf();
    let file = File::open(blob).map_err(|source| UserFileError::Io { path: path.clone(), source })?;
    let blocks = BlockReader::new(BufReader::new(file));
    Ok(blocks.flat_map(move |block| match block {
        Ok(block) => block.users.into_iter().map(|user| Ok(stored(user))).collect(),
        Err(error) => vec![Err(UserFileError::Damaged { path: path.clone(), reason: error.to_string() })],
    }))
}

/// The message of the dimensions that the blob begins with; empty when it has none.
pub(super) fn dimensions_of(blob: &Path) -> Result<Vec<u8>, UserFileError> {
    let path = blob.to_path_buf();
    let file = File::open(blob).map_err(|source| UserFileError::Io { path: path.clone(), source })?;
    match BlockReader::new(BufReader::new(file)).next() {
        None => Ok(Vec::new()),
        Some(Ok(block)) => Ok(block.dimensions.unwrap_or_default().encode_to_vec()),
        Some(Err(error)) => Err(UserFileError::Damaged { path, reason: error.to_string() }),
    }
}

/// The dimensions of a message; `None` when it is none, or has more than a catalogue may.
pub(super) fn dimensions(message: &[u8]) -> Option<Dimensions> {
    let set = wire::DimensionSet::decode(message).ok().filter(|set| set.dimensions.len() <= DIMENSIONS_MAX)?;
    let known = set.dimensions.into_iter().map(|dimension| {
        let kind = DimensionKind::of_wire(dimension.kind());
        let values = dimension.values.into_iter().map(|value| (value_hash(&value), value)).collect();
        (dimension.name, Dimension { kind, values })
    });
    Some(Dimensions { declared: set.declared, known: known.collect() })
}

fn stored(user: wire::User) -> StoredUser {
    let feature = |feature: wire::Feature| {
        let value = convert::draft_value(feature.value?)?;
        Some((feature.name, feature_value("", value).ok()?))
    };
    StoredUser { user_id: user.user_id, features: user.features.into_iter().filter_map(feature).collect() }
}

#[cfg(test)]
mod tests {
    use super::super::UserFile;
    use super::*;
    use gavel_model::FeatureValue;
    use gavel_proto::hash::value_hash;

    /// From the catalogue's message through the file and back.
    #[test]
    fn a_list_keeps_its_order_and_repetitions() {
        let seen = |weights: &[f32]| {
            let values = ["tea", "ice", "tea", "eggs"].map(str::to_owned).to_vec();
            let value = Some(wire::feature_value::Value::Set(wire::WeightedSet { values, weights: weights.to_vec() }));
            let features = vec![wire::Feature { name: "seen".into(), value: Some(wire::FeatureValue { value }) }];
            let user = stored(wire::User { user_id: "ann".into(), features });
            let dir = tempfile::tempdir().expect("a folder");
            let file = UserFile::build(&dir.path().join("users"), &[], std::iter::once(Ok(user))).expect("built");
            let mut found = file.find("ann").expect("read").expect("known").features;
            found.pop().map(|(_, value)| value)
        };
        let [tea, ice, eggs] = ["tea", "ice", "eggs"].map(value_hash);
        let expected = vec![(tea, 1.0), (ice, 1.0), (tea, 1.0), (eggs, 1.0)];
        assert_eq!(seen(&[]), Some(FeatureValue::Set(expected)));
        let expected = vec![(tea, 0.5), (ice, 2.0), (tea, 1.0), (eggs, 3.0)];
        assert_eq!(seen(&[0.5, 2.0, 1.0, 3.0]), Some(FeatureValue::Set(expected)));
    }
}
