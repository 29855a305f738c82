//! How do our own values become the bytes of a record?
//!
//! bincode 2, for bytes this process wrote itself, after their checksum was verified, with a limit
//! (RUSTSEC-2025-0141: the crate is finished, its decoder trusts lengths). What comes from a peer is prost.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::record::RECORD_BYTES_MAX;

/// Fixed-width integers: a record's length then depends on its content alone.
fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_fixed_int_encoding().with_limit::<RECORD_BYTES_MAX>()
}

/// The bytes were not written by this version.
#[derive(Debug, thiserror::Error)]
#[error("not a record of this version: {0}")]
pub struct CodecError(String);

impl CodecError {
    /// A record of another kind of file.
    #[must_use]
    pub fn foreign() -> Self {
        Self("a record of a journal".to_owned())
    }
}

/// The bytes of a value.
///
/// # Errors
/// When it is larger than a record may be.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    bincode::serde::encode_to_vec(value, config()).map_err(|e| CodecError(e.to_string()))
}

/// The value of bytes whose checksum was verified.
///
/// # Errors
/// When they are no such value, or more than it.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, read) = bincode::serde::decode_from_slice(bytes, config()).map_err(|e| CodecError(e.to_string()))?;
    if read == bytes.len() { Ok(value) } else { Err(CodecError("bytes are left over".to_owned())) }
}
