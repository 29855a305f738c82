//! Which users does a catalogue blob hold?

use super::{StoredUser, UserFileError};
use crate::convert;
use crate::request::feature_value;
use gavel_member::catalogue::BlockReader;
use gavel_proto::wire;
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

fn stored(user: wire::User) -> StoredUser {
    let feature = |feature: wire::Feature| {
        let value = convert::draft_value(feature.value?)?;
        Some((feature.name, feature_value("", value).ok()?))
    };
    StoredUser { user_id: user.user_id, features: user.features.into_iter().filter_map(feature).collect() }
}
