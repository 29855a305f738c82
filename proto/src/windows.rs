//! Into which bin does a prediction or a latency fall, so that windows of different routers can be added?
//!
//! Routers count, the leader adds and compares: both must mean the same bins. Predictions are counted by their
//! log-odds, because a calibration that is off by a factor moves all of them by the same number of bins. Latencies
//! are counted by quarters of an octave, which tells two quantiles apart that differ by a fifth.

/// Bins of predictions: log-odds from -10 to 2 in halves, the ends open. A click-through rate of 0.005 % to 88 %.
pub const PREDICTION_BINS: usize = 24;
/// Bins of latencies: up to 2^24 us, 17 s.
pub const LATENCY_BINS: usize = 96;

const LOG_ODDS_MIN: f64 = -10.0;
const BINS_A_UNIT: f64 = 2.0;
const BINS_AN_OCTAVE: f64 = 4.0;

/// The bin of a probability. What is not finite has none: it is counted elsewhere.
#[must_use]
pub fn prediction_bin(probability: f64) -> Option<usize> {
    if !probability.is_finite() {
        return None;
    }
    let p = probability.clamp(1e-12, 1.0 - 1e-12);
    let at = ((p / (1.0 - p)).ln() - LOG_ODDS_MIN) * BINS_A_UNIT;
    // Saturates below 0 and is cut above.
    Some((at as usize).min(PREDICTION_BINS - 1))
}

/// The bin of a latency.
#[must_use]
pub fn latency_bin(us: u64) -> usize {
    let at = (us.max(1) as f64).log2() * BINS_AN_OCTAVE;
    (at as usize).min(LATENCY_BINS - 1)
}

/// The upper end of the bin in which the `quantile` of a histogram of latencies falls, in microseconds; 0 for none.
#[must_use]
pub fn latency_quantile_us(histogram: &[u64; LATENCY_BINS], quantile: f64) -> f64 {
    let total: u64 = histogram.iter().sum();
    let wanted = (total as f64 * quantile).ceil();
    let mut seen = 0u64;
    for (bin, count) in histogram.iter().enumerate() {
        seen += count;
        if *count > 0 && seen as f64 >= wanted {
            return ((bin + 1) as f64 / BINS_AN_OCTAVE).exp2();
        }
    }
    0.0
}

/// Population stability index of two histograms: the sum of (a - b) ln(a / b) over the shares of the bins. By custom
/// below 0.1 is no change, above 0.25 a large one. Half a count stands in each bin, so that an empty one is finite.
#[must_use]
pub fn stability_index(expected: &[u64; PREDICTION_BINS], found: &[u64; PREDICTION_BINS]) -> f64 {
    let total = |h: &[u64; PREDICTION_BINS]| h.iter().sum::<u64>() as f64 + 0.5 * PREDICTION_BINS as f64;
    let (all_expected, all_found) = (total(expected), total(found));
    let term = |(e, f): (&u64, &u64)| {
        let (e, f) = ((*e as f64 + 0.5) / all_expected, (*f as f64 + 0.5) / all_found);
        (f - e) * (f / e).ln()
    };
    expected.iter().zip(found).map(term).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_ordered_and_doubled_odds_move_all_predictions_alike() {
        assert_eq!(prediction_bin(f64::NAN), None);
        assert_eq!((prediction_bin(0.0), prediction_bin(1.0)), (Some(0), Some(PREDICTION_BINS - 1)));
        let odds = |p: f64, by: f64| p * by / (1.0 - p + p * by);
        for p in [0.001, 0.02, 0.1, 0.4] {
            // A factor of e^0.5 is one bin.
            assert_eq!(prediction_bin(odds(p, 0.5f64.exp())), prediction_bin(p).map(|bin| bin + 1));
        }
    }

    #[test]
    fn a_quantile_is_known_to_a_quarter_of_an_octave() {
        let mut histogram = [0; LATENCY_BINS];
        for us in 1..=1_000u64 {
            histogram[latency_bin(us * 100)] += 1;
        }
        let p99 = latency_quantile_us(&histogram, 0.99);
        assert!((99_000.0..=99_000.0 * 1.19).contains(&p99), "{p99}");
        assert_eq!(latency_quantile_us(&[0; LATENCY_BINS], 0.99), 0.0);
    }

    #[test]
    fn equal_histograms_are_stable_and_moved_ones_are_not() {
        let mut one = [0; PREDICTION_BINS];
        let mut moved = [0; PREDICTION_BINS];
        for (bin, count) in [(8, 100), (9, 300), (10, 400), (11, 200)] {
            one[bin] = count;
            moved[bin + 1] = count;
        }
        assert_eq!(stability_index(&one, &one), 0.0);
        assert!(stability_index(&one, &moved) > 0.25);
    }
}
