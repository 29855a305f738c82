//! How many items must each shard return, so that the best N of all are among them?
//!
//! Items lie on shards at random, so the number of the global best N on one shard is Binomial(N, 1/S). A shard
//! that returns the quantile of that distribution at a miss probability of 1e-4 loses one of them in one request
//! of ten thousand. Over all S shards the misses add up, so the closed form `N/S + 4 sqrt(N/S)` is the floor
//! where it is larger: for N = 200 and S = 4 the quantile is 74 and the quota 78, whose miss over all four
//! shards together is 1.8e-5.

/// Probability that one shard holds more of the best N than it returns.
pub const MISS: f64 = 1e-4;

/// Items to ask of each of `shards` shards for the best `total` of all.
#[must_use]
pub fn quota(total: u32, shards: u32) -> u32 {
    if shards <= 1 {
        return total;
    }
    let mean = f64::from(total) / f64::from(shards);
    // At most total + 4 sqrt(total), far inside u32.
    let closed = (mean + 4.0 * mean.sqrt()).floor() as u32;
    quantile(total, shards, MISS).max(closed).min(total)
}

/// Items that each shard ranks when `total` are ranked over all.
#[must_use]
pub fn share(total: u32, shards: u32) -> u32 {
    total.div_ceil(shards.max(1))
}

/// The smallest q with P(Binomial(total, 1/shards) > q) <= miss.
#[must_use]
pub fn quantile(total: u32, shards: u32, miss: f64) -> u32 {
    if shards <= 1 {
        return total;
    }
    let p = 1.0 / f64::from(shards);
    let (log_p, log_rest) = (p.ln(), (-p).ln_1p());
    let n = f64::from(total);
    // The tail is summed from its far end, smallest terms first.
    let mut log_choose = 0.0;
    let mut tail = 0.0;
    for k in (1..=total).rev() {
        let at = f64::from(k);
        tail += (log_choose + at * log_p + (n - at) * log_rest).exp();
        if tail > miss {
            return k;
        }
        // C(n, k - 1) = C(n, k) * k / (n - k + 1)
        log_choose += at.ln() - (n - at + 1.0).ln();
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use gavel_proto::hash::shard_of;
    use gavel_proto::ids::ItemId;

    /// Values computed with exact tails in another language (lgamma, double precision).
    #[test]
    fn known_quantiles() {
        for (total, shards, miss, expected) in [
            (200, 4, 1e-4, 74),
            (200, 4, 2.5e-5, 76),
            (200, 4, 1e-5, 77),
            (200, 4, 1e-6, 81),
            (200, 2, 1e-4, 126),
            (1_000, 4, 1e-4, 302),
            (200, 8, 1e-4, 44),
            (100, 4, 1e-4, 42),
        ] {
            assert_eq!(quantile(total, shards, miss), expected, "{total} {shards} {miss}");
        }
    }

    #[test]
    fn the_agreed_quota_and_its_edges() {
        assert_eq!(quota(200, 4), 78);
        assert_eq!(quota(200, 1), 200);
        assert_eq!(quota(0, 4), 0);
        assert_eq!(quota(1, 4), 1);
        assert_eq!(quota(1_000, 1_024), 6);
        assert_eq!(share(200, 4), 50);
        assert_eq!(share(200, 3), 67);
        for shards in 1..40 {
            let quota = quota(200, shards);
            assert!(quota <= 200 && u64::from(quota) * u64::from(shards) >= 200);
        }
    }

    /// A million placements by the hash that places items: 5,000 draws of the best 200.
    #[test]
    fn the_tail_is_what_placement_does() {
        let (total, shards, draws) = (200u32, 4u32, 5_000u64);
        let loose = 1e-2;
        let bound = quantile(total, shards, loose);
        let mut over = 0u64;
        for draw in 0..draws {
            let mut counts = [0u32; 4];
            for item in 0..u64::from(total) {
                counts[shard_of(ItemId(draw * 1_000 + item), shards).0 as usize] += 1;
            }
            over += counts.iter().filter(|count| **count > bound).count() as u64;
            assert!(counts.iter().all(|count| *count <= quota(total, shards) + 4), "{counts:?}");
        }
        // 20,000 shards at a miss below 1e-2: 200 at most, five standard deviations are 70.
        assert!(over <= 270, "{over}");
        // And the bound is tight: one less would be missed more often than agreed.
        assert!(quantile(total, shards, loose) > quantile(total, shards, 2.0 * loose));
    }
}
