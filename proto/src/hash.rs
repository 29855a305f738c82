//! Which number stands for this string, and which shard holds this item?
//!
//! These hashes are part of the format: catalogues, segments, bundles and requests meet through them,
//! and the trainer computes them in Python. Changing one breaks every sealed file.

use crate::ids::{ItemId, ShardId};

/// FNV-1a 64 over the bytes (offset basis and prime of the published algorithm).
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// The 64-bit finaliser of MurmurHash3: every input bit reaches every output bit.
#[must_use]
pub const fn mix64(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^= x >> 33;
    x
}

/// The number of a categorical value: `mix64(fnv1a64(utf-8 bytes))`, never 0 (0 means missing).
#[must_use]
pub fn value_hash(value: &str) -> u64 {
    let mut h = FNV_OFFSET;
    for byte in value.as_bytes() {
        h ^= u64::from(*byte);
        h = h.wrapping_mul(FNV_PRIME);
    }
    match mix64(h) {
        0 => 1,
        hash => hash,
    }
}

/// Mixes two words; order matters.
#[must_use]
pub const fn combine(a: u64, b: u64) -> u64 {
    mix64(a ^ mix64(b.wrapping_add(0x9e37_79b9_7f4a_7c15)))
}

/// The shard of an item: uniform at random over the shards, which makes the retrieval quota a binomial.
#[must_use]
pub fn shard_of(item: ItemId, shards: u32) -> ShardId {
    // Multiply-shift maps the hash to 0..shards without the bias of a remainder.
    let wide = u128::from(mix64(item.0 ^ 0x6761_7665_6c5f_7368)) * u128::from(shards);
    ShardId((wide >> 64) as u32)
}

/// The tie key of an ad in an auction: lower wins. Deterministic for replay, fair across auctions.
#[must_use]
pub const fn tie_key(key: u64, auction: u64, ad: u64) -> u64 {
    combine(combine(key, auction), ad)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The trainer asserts the same pairs, so that a drift between the two languages cannot pass.
    #[test]
    fn the_trainers_vectors() {
        assert_eq!(value_hash(""), mix64(FNV_OFFSET));
        assert_eq!(value_hash("GROCERY"), 13_918_692_429_262_488_608);
        assert_eq!(value_hash("é"), 11_337_192_735_045_482_043);
    }

    #[test]
    fn shards_are_even() {
        let mut counts = [0u32; 7];
        for id in 0..70_000 {
            counts[shard_of(ItemId(id), 7).0 as usize] += 1;
        }
        // 10,000 expected, standard deviation 93: five of them.
        for count in counts {
            assert!((9_535..=10_465).contains(&count), "{counts:?}");
        }
    }
}
