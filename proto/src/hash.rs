//! Which number stands for this string, and which shard holds this item?
//!
//! These hashes are part of the format: catalogues, segments, bundles and requests meet through them,
//! and the trainer computes them in Python. Changing one breaks every sealed file.
//!
//! The tie of an ad is the exception: it is in no file but the log of clearings, and hashed under a key of the cluster's
//! own, which is in the control state, so that nobody who has seen ties alone can foresee the next.

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

/// What the ties of a cluster are made with.
///
/// A made key is 32 bytes of the system's random source. Clusters begin with a public one, a number in the first 8
/// bytes and zeros behind it, which is the same everywhere: nobody serves with it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TieKey([u8; 32]);

impl TieKey {
    /// Tells the id from the ties, which are hashes under the same key.
    const ID_CONTEXT: &str = "gavel 2026-11-27 id of a tie key";

    /// The key of these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A public key.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        let mut key = [0; 32];
        if let Some(low) = key.first_chunk_mut() {
            *low = number.to_le_bytes();
        }
        Self(key)
    }

    /// The key of a configuration: its bytes, or while there are none the public number. `None` when they are not 32.
    #[must_use]
    pub fn of_config(bytes: &[u8], public: u64) -> Option<Self> {
        if bytes.is_empty() { Some(Self::from_number(public)) } else { bytes.try_into().ok().map(Self) }
    }

    /// The made key of a configuration, for those who serve: `None` where there is none or a public one, with which
    /// everybody could foresee ties.
    #[must_use]
    pub fn made(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self).filter(|key| key.public().is_none())
    }

    /// Its bytes, for those who compute ties.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The number of a public key; `None` of one that was made.
    #[must_use]
    pub fn public(self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        rest.iter().all(|byte| *byte == 0).then(|| u64::from_le_bytes(*number))
    }

    /// Tells keys apart in logs without giving them away: a hash under another domain than that of the ties.
    #[must_use]
    pub fn id(self) -> u64 {
        first_word(&blake3::derive_key(Self::ID_CONTEXT, &self.0))
    }
}

/// Never the key itself.
impl std::fmt::Debug for TieKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TieKey(id {})", self.id())
    }
}

/// The ties of one auction, for all its ads.
///
/// The key meets the auction's id once, in keyed BLAKE3; ads are mixed with what comes of it, because a node breaks
/// thousands of ties a request. Who sees a tie can compute the others of that auction, which stand beside it in the log,
/// and none of another auction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Ties(u64);

impl Ties {
    /// Those of an auction.
    #[must_use]
    pub fn new(key: TieKey, auction: u64) -> Self {
        Self(first_word(blake3::keyed_hash(&key.0, &auction.to_le_bytes()).as_bytes()))
    }

    /// The tie of an ad: lower wins. Deterministic for replay, fair across auctions.
    #[must_use]
    pub const fn of(self, ad: u64) -> u64 {
        combine(self.0, ad)
    }
}

/// The tie of one ad in one auction.
#[must_use]
pub fn tie_key(key: TieKey, auction: u64, ad: u64) -> u64 {
    Ties::new(key, auction).of(ad)
}

/// The first 8 bytes, little-endian.
fn first_word(hash: &[u8; 32]) -> u64 {
    hash.first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
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

    /// The seed of an auction is the hash that BLAKE3's own interface gives.
    #[test]
    fn ties_are_mixed_with_keyed_blake3_of_the_auction() {
        let key = TieKey::from_bytes(std::array::from_fn(|i| i as u8 + 1));
        for (auction, ad) in [(0, 0), (1, 2), (2, 1), (u64::MAX, 7)] {
            let mut first = [0; 8];
            blake3::Hasher::new_keyed(key.as_bytes()).update(&auction.to_le_bytes()).finalize_xof().fill(&mut first);
            assert_eq!(tie_key(key, auction, ad), combine(u64::from_le_bytes(first), ad));
        }
        assert_ne!(tie_key(key, 1, 2), tie_key(key, 2, 1));
        assert_ne!(tie_key(key, 1, 2), tie_key(TieKey::from_number(1), 1, 2));
    }

    /// Over many auctions each of five ads of equal score comes first equally often.
    #[test]
    fn ties_are_fair() {
        let key = TieKey::from_bytes([9; 32]);
        let mut first = [0u32; 5];
        for auction in 0..50_000 {
            let winner = (0..5).min_by_key(|ad| tie_key(key, auction, *ad)).expect("five ads");
            first[winner as usize] += 1;
        }
        // 10,000 expected, standard deviation 89: five of them.
        for count in first {
            assert!((9_553..=10_447).contains(&count), "{first:?}");
        }
    }

    #[test]
    fn a_key_is_told_by_its_id_and_shown_by_nothing_else() {
        let (made, public) = (TieKey::from_bytes([0xab; 32]), TieKey::from_number(0x0102_0304_0506_0708));
        assert_eq!((made.public(), public.public()), (None, Some(0x0102_0304_0506_0708)));
        assert_eq!(TieKey::of_config(&[], 0x0102_0304_0506_0708), Some(public));
        assert_eq!(TieKey::of_config(&[0xab; 32], 5), Some(made));
        assert_eq!(TieKey::of_config(&[0xab; 31], 5), None);
        assert_eq!(TieKey::made(&[0xab; 32]), Some(made));
        assert_eq!([&[][..], &[0xab; 31], &[0; 32], public.as_bytes()].map(TieKey::made), [None; 4]);
        assert_eq!(made.id(), TieKey::from_bytes([0xab; 32]).id());
        assert_ne!(made.id(), public.id());
        assert_ne!(made.id(), tie_key(made, 0, 0));
        assert_eq!(format!("{made:?}"), format!("TieKey(id {})", made.id()));
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
