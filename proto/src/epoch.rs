//! Which versions of everything does this request see?
//!
//! The pinned tuple of a request, chosen once by the router and echoed by every shard (RQ3).

use crate::wire;
use serde::{Deserialize, Serialize};

/// (map epoch, catalogue generation, model version, delivery version).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Epoch {
    /// Version of the shard map.
    pub map: u64,
    /// Catalogue generation.
    pub generation: u64,
    /// Version of the active bundle.
    pub model: u64,
    /// Version of bids, statuses and multipliers.
    pub delivery: u64,
}

impl From<Epoch> for wire::Epoch {
    fn from(e: Epoch) -> Self {
        Self { map_epoch: e.map, generation: e.generation, model_version: e.model, delivery_version: e.delivery }
    }
}

impl From<wire::Epoch> for Epoch {
    fn from(e: wire::Epoch) -> Self {
        Self { map: e.map_epoch, generation: e.generation, model: e.model_version, delivery: e.delivery_version }
    }
}

/// The first bytes of a bundle's hash as a number: what an answer says of the bundle that it was scored with.
#[must_use]
pub fn fingerprint(hash: &[u8; 32]) -> u64 {
    let (first, _) = hash.split_first_chunk().unwrap_or((&[0; 8], &[]));
    u64::from_be_bytes(*first)
}
