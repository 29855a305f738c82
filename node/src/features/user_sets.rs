//! Which weighted sets came with this request?
//!
//! Keys are `value_hash`es, already uniform, so the maps take them as they are instead of hashing again.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Passes a `u64` key through.
#[derive(Clone, Copy, Default)]
pub struct Uniform(u64);

impl Hasher for Uniform {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = self.0.rotate_left(5) ^ key;
    }
}

/// One set: hashed value to weight.
pub type WeightByValue = HashMap<u64, f32, BuildHasherDefault<Uniform>>;

/// The sets of one request, by feature name.
#[derive(Clone, Debug, Default)]
pub struct UserSets {
    sets: Vec<(String, WeightByValue)>,
}

impl UserSets {
    /// Adds a set. The first weight of a repeated value stands; the value 0 means missing and is no member.
    pub fn insert(&mut self, feature: String, pairs: impl IntoIterator<Item = (u64, f32)>) {
        let mut set = WeightByValue::default();
        for (value, weight) in pairs {
            if value != 0 {
                set.entry(value).or_insert(weight);
            }
        }
        self.sets.push((feature, set));
    }

    /// The set of a feature.
    #[must_use]
    pub fn get(&self, feature: &str) -> Option<&WeightByValue> {
        self.sets.iter().find(|(name, _)| name == feature).map(|(_, set)| set)
    }
}
