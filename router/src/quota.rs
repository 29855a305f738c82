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

    /// P(Binomial(n, 1/shards) > q), summed upwards from q + 1 with the ratio of neighbouring terms; the code under
    /// test sums downwards and in logarithms.
    fn tail(n: u32, shards: u32, q: u32) -> f64 {
        let (n, s) = (f64::from(n), f64::from(shards));
        let mut at = (1.0 - 1.0 / s).powf(n);
        let mut sum = 0.0;
        for k in 0..n as u32 {
            at *= (n - f64::from(k)) / (f64::from(k) + 1.0) / (s - 1.0);
            if k + 1 > q {
                sum += at;
            }
        }
        sum
    }

    #[test]
    fn quantiles_are_the_smallest_that_keep_their_miss() {
        for (n, shards) in [(200, 4), (200, 2), (1_000, 4), (200, 8), (100, 16), (50, 2), (1_000, 100)] {
            for miss in [1e-2, 1e-3, MISS, 1e-6] {
                let q = quantile(n, shards, miss);
                assert!(tail(n, shards, q) <= miss && tail(n, shards, q - 1) > miss, "{n} {shards} {miss}: {q}");
            }
        }
    }

    /// The oracle: a million requests each, whose best items lie where the hash that places items puts them. How many
    /// shards hold more of the best than they return must be what the binomial says, within five standard deviations;
    /// counts of the shards of one request hang together negatively, so the sum varies at most as if they did not.
    #[test]
    fn a_million_placements_miss_as_often_as_the_binomial_says() {
        const REQUESTS: u64 = 1_000_000;
        for (n, shards) in [(200u32, 4u32), (100, 16), (50, 2)] {
            let bounds = [quantile(n, shards, 1e-2), quantile(n, shards, MISS), quota(n, shards)];
            let mut over = [0u64; 3];
            let mut counts = vec![0u32; shards as usize];
            for request in 0..REQUESTS {
                counts.fill(0);
                for item in 0..u64::from(n) {
                    counts[shard_of(ItemId(request * u64::from(n) + item), shards).0 as usize] += 1;
                }
                for (over, bound) in over.iter_mut().zip(bounds) {
                    *over += counts.iter().filter(|count| **count > bound).count() as u64;
                }
            }
            for (over, bound) in over.into_iter().zip(bounds) {
                let expected = REQUESTS as f64 * f64::from(shards) * tail(n, shards, bound);
                let reach = 5.0 * expected.sqrt() + 1.0;
                assert!((over as f64 - expected).abs() <= reach, "{n} of {shards}, {bound}: {over}, not {expected:.1}");
            }
        }
    }
}
