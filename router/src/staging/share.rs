//! Which requests belong to the share of a candidate?
//!
//! The hash of a stable key decides, so that a user sees one bundle over the whole cluster and over all requests, and
//! whoever is in a smaller share is in every larger one. Each candidate has its own hash: it must not always be the
//! same users who try what is new.

use gavel_proto::hash::{combine, value_hash};
use gavel_proto::money::PPM;

/// Sets these hashes apart from others of the same strings.
const SEED: u64 = 0x726f_6c6c_6f75_7421;

/// True when the requests of `key` belong to a share of the candidate with this version.
pub fn belongs(key: &str, version: u64, share_ppm: u32) -> bool {
    let hash = combine(combine(SEED, version), value_hash(key));
    // Multiply-shift: the place of the hash in 0..1,000,000 without the bias of a remainder.
    let place = (u128::from(hash) * u128::from(PPM)) >> 64;
    place < u128::from(share_ppm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_as_large_as_it_says_grows_and_differs_between_candidates() {
        let keys: Vec<String> = (0..20_000).map(|n| format!("user-{n}")).collect();
        let share = |version, ppm| keys.iter().map(|k| belongs(k, version, ppm)).collect::<Vec<_>>();
        let (small, large, other) = (share(7, 100_000), share(7, 500_000), share(8, 100_000));
        let count = |share: &[bool]| share.iter().filter(|b| **b).count();
        // Binomial: five standard deviations of 20,000 at a tenth are 212.
        assert!(count(&small).abs_diff(2_000) < 212, "{}", count(&small));
        assert!(small.iter().zip(&large).all(|(s, l)| !s || *l), "a share only grows");
        let both = small.iter().zip(&other).filter(|(a, b)| **a && **b).count();
        assert!(both.abs_diff(200) < 75, "independent of each other: {both}");
        assert_eq!((count(&share(7, 0)), count(&share(7, PPM))), (0, keys.len()));
    }
}
