//! Are these the bytes of a manifest that this node wrote?
//!
//! The only place where bincode is used for sealed folders, and only behind a checksum: magic, format,
//! length and BLAKE3 are checked first, then the payload is decoded under a limit, because bincode trusts
//! lengths (RUSTSEC-2025-0141). Never used for bytes of a peer.

use super::error::SegmentError;
use serde::{Serialize, de::DeserializeOwned};
use std::path::Path;

const MAGIC: [u8; 8] = *b"GVLMANI1";
/// The format of manifests that this version writes and reads.
///
/// 2: content names its dimensions and time zones; its postings hold ranges, schedules, advertisers and categories.
/// 3: links as columns; scaled bytes, a second column of vectors, measured costs.
pub(crate) const FORMAT: u32 = 3;
/// Magic, format, payload length, BLAKE3.
const HEAD: usize = 8 + 4 + 4 + 32;
/// Bytes of a payload: 256 features of 256 bytes and a few files are a tenth of it.
const PAYLOAD_MAX: usize = 1 << 20;
/// Bytes of a manifest file.
pub(crate) const BYTES_MAX: usize = HEAD + PAYLOAD_MAX;

/// Frames a manifest; the second value is its BLAKE3, which is the identity of the folder.
pub(crate) fn encode<T: Serialize>(manifest: &T) -> Result<(Vec<u8>, [u8; 32]), SegmentError> {
    let payload = bincode::serde::encode_to_vec(manifest, bincode::config::standard())
        .map_err(|e| SegmentError::Refused(format!("manifest: {e}")))?;
    let length = u32::try_from(payload.len()).ok().filter(|n| *n as usize <= PAYLOAD_MAX);
    let length = length.ok_or_else(|| SegmentError::Refused("manifest too long".into()))?;
    let hash = *checksum(FORMAT, length, &payload).as_bytes();
    let mut bytes = Vec::with_capacity(HEAD + payload.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&hash);
    bytes.extend_from_slice(&payload);
    Ok((bytes, hash))
}

/// Checks and decodes a manifest.
pub(crate) fn decode<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<(T, [u8; 32]), SegmentError> {
    let short = || SegmentError::damaged(path, "shorter than a manifest");
    let (magic, rest) = bytes.split_first_chunk::<8>().ok_or_else(short)?;
    if *magic != MAGIC {
        return Err(SegmentError::foreign(path, "not a manifest"));
    }
    let (format, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
    let (hash, payload) = rest.split_first_chunk::<32>().ok_or_else(short)?;
    let (format, length) = (u32::from_le_bytes(*format), u32::from_le_bytes(*length));
    // The checksum's layout belongs to the format, so a newer format is told before it is checked.
    if format > FORMAT {
        return Err(SegmentError::Newer { path: path.to_path_buf(), found: format, known: FORMAT });
    }
    if format < FORMAT {
        return Err(SegmentError::Older { path: path.to_path_buf(), found: format, known: FORMAT });
    }
    if payload.len() != length as usize || payload.len() > PAYLOAD_MAX {
        return Err(SegmentError::damaged(path, "the manifest's length"));
    }
    if checksum(format, length, payload) != *hash {
        return Err(SegmentError::damaged(path, "the manifest's checksum"));
    }
    let config = bincode::config::standard().with_limit::<PAYLOAD_MAX>();
    let (manifest, used) = bincode::serde::decode_from_slice(payload, config)
        .map_err(|e| SegmentError::damaged(path, format!("the manifest's payload: {e}")))?;
    if used != payload.len() {
        return Err(SegmentError::damaged(path, "bytes after the manifest"));
    }
    Ok((manifest, *hash))
}

fn checksum(format: u32, length: u32, payload: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&MAGIC).update(&format.to_le_bytes()).update(&length.to_le_bytes()).update(payload);
    hasher.finalize()
}
