//! Do the measures and fits give what other implementations give, and keep what they promise?

use super::*;
use proptest::prelude::*;

fn rows(predicted: &[f64], observed: &[f64]) -> Vec<Outcome> {
    predicted.iter().zip(observed).map(|(p, y)| Outcome::new(*p, *y)).collect()
}

#[test]
fn the_ratio_is_above_one_when_too_much_is_predicted() {
    let all = rows(&[0.2, 0.2, 0.4, 0.4], &[0.0, 0.0, 1.0, 0.0]);
    assert!((calibration_ratio(&all) - 1.2).abs() < 1e-12);
    let weighted = [Outcome { weight: 3.0, ..all[2] }, Outcome { weight: 0.0, ..all[0] }, all[3]];
    assert!((calibration_ratio(&weighted) - 1.6 / 3.0).abs() < 1e-12);
    assert!(calibration_ratio(&[]).is_nan());
}

#[test]
fn normalised_entropy_is_one_for_the_base_rate() {
    let labels = [1.0, 0.0, 0.0, 0.0];
    assert!((normalised_entropy(&rows(&[0.25; 4], &labels)) - 1.0).abs() < 1e-12);
    let informed = rows(&[0.6, 0.2, 0.2, 0.2], &labels);
    assert!((normalised_entropy(&informed) - 0.524_712_126_301_782).abs() < 1e-12);
}

#[test]
fn negatives_go_and_come_back() {
    assert!((with_all_negatives(0.1, 0.01) - 0.001_109_877_913_429_523).abs() < 1e-15);
    let sampled = with_fewer_negatives(0.001, 0.01);
    assert!((sampled - 0.090_991_810_737).abs() < 1e-12);
    assert!((with_all_negatives(sampled, 0.01) - 0.001).abs() < 1e-15);
}

/// The vectors of torchmetrics' documentation.
#[test]
fn calibration_error_is_that_of_torchmetrics() {
    let all = rows(&[0.25, 0.25, 0.55, 0.75, 0.75], &[0.0, 0.0, 1.0, 1.0, 1.0]);
    let error = calibration_error(&all, Bins::Width(2));
    assert!((error.mean - 0.29).abs() < 1e-12, "{error:?}");
    assert!((error.root_mean_square - 0.2918).abs() < 1e-4, "{error:?}");
    assert!((error.largest - 0.316_667).abs() < 1e-5, "{error:?}");
    let all = rows(&[0.1, 0.9, 0.8, 0.3], &[0.0, 1.0, 1.0, 0.0]);
    assert!((calibration_error(&all, Bins::Width(10)).mean - 0.175).abs() < 1e-12);
}

#[test]
fn quantiles_see_what_equal_widths_do_not() {
    // Rates of 0.1 % and 1 %, predicted the other way round: one bin of width .1 calls that perfect.
    let mut all = Vec::new();
    for i in 0..2_000 {
        all.push(Outcome::new(0.01, if i % 1_000 == 0 { 1.0 } else { 0.0 }));
        all.push(Outcome::new(0.001, if i % 100 == 0 { 1.0 } else { 0.0 }));
    }
    assert!(calibration_error(&all, Bins::Width(10)).mean < 1e-9);
    let error = calibration_error(&all, Bins::Quantiles(2));
    assert!((error.relative - (9.0 + 0.9) / 2.0).abs() < 1e-6, "{error:?}");
    assert!(calibration_error(&[], Bins::Quantiles(2)).mean.is_nan());
}

/// scikit-learn's `test_sigmoid_calibration`, whose numbers are LibSVM's.
#[test]
fn platt_is_that_of_libsvm() {
    let line = platt(&rows(&[5.0, -4.0, 1.0], &[1.0, 0.0, 0.0]));
    assert!((-line.scale - -0.202_613_543_911_878_55).abs() < 1e-3, "{line:?}");
    assert!((-line.offset - 0.652_363_149_800_105_1).abs() < 1e-3, "{line:?}");
    // The optimum itself, from an independent Newton iteration.
    assert!((-line.scale - -0.202_614_489_618).abs() < 1e-9 && (-line.offset - 0.652_366_638_998).abs() < 1e-9);
}

#[test]
fn platt_stays_finite_on_what_is_separable_or_equal() {
    for all in [
        rows(&[1.0, 2.0, 3.0, 4.0], &[0.0, 0.0, 1.0, 1.0]),
        rows(&[1.0; 4], &[0.0, 1.0, 0.0, 0.0]),
        rows(&[1e3, -1e3], &[1.0, 0.0]),
        rows(&[0.5], &[1.0]),
    ] {
        let line = platt(&all);
        assert!(line.scale.is_finite() && line.offset.is_finite(), "{all:?} {line:?}");
    }
    let equal = platt(&rows(&[1.0; 4], &[0.0, 1.0, 0.0, 0.0]));
    // Platt's targets: one of three negatives' worth of 1/5, one positive of 2/3.
    let mean = (2.0 / 3.0 + 3.0 / 5.0) / 4.0;
    assert!((sigmoid(equal.scale + equal.offset) - mean).abs() < 1e-6);
}

/// scikit-learn's `test_isotonic.py`.
#[test]
fn isotonic_is_that_of_scikit_learn() {
    let ones = [1.0; 7];
    assert_eq!(isotonic(&[3.0, 7.0, 5.0, 9.0, 8.0, 7.0, 10.0], &ones), [3.0, 6.0, 6.0, 8.0, 8.0, 8.0, 10.0]);
    assert_eq!(isotonic(&[10.0, 0.0, 2.0], &ones[..3]), [4.0, 4.0, 4.0]);
    let (x, y) = isotonic_points(&rows(&[0.3, 0.1, 0.3, 0.2], &[1.0, 0.0, 0.0, 1.0]));
    assert_eq!((x, y), (vec![0.1, 0.2, 0.3], vec![0.0, 2.0 / 3.0, 2.0 / 3.0]));
}

fn square_error(values: &[f64], weights: &[f64], fit: &[f64]) -> f64 {
    (0..values.len()).map(|i| weights[i] * (values[i] - fit[i]).powi(2)).sum()
}

proptest! {
    #[test]
    fn isotonic_is_monotone_keeps_the_mean_and_is_idempotent(
        pairs in prop::collection::vec((0.0f64..1.0, 0.1f64..5.0), 1..40)
    ) {
        let (values, weights): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
        let fit = isotonic(&values, &weights);
        prop_assert!(fit.windows(2).all(|w| w[0] <= w[1]));
        let mean = |v: &[f64]| v.iter().zip(&weights).map(|(v, w)| v * w).sum::<f64>();
        prop_assert!((mean(&fit) - mean(&values)).abs() < 1e-9);
        let again = isotonic(&fit, &weights);
        prop_assert!(again.iter().zip(&fit).all(|(a, b)| (a - b).abs() < 1e-12));
    }

    /// No non-decreasing vector of a grid is nearer.
    #[test]
    fn isotonic_is_the_nearest(values in prop::collection::vec(0u8..=4, 4), weights in prop::collection::vec(1u8..4, 4)) {
        let values: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
        let weights: Vec<f64> = weights.iter().map(|w| f64::from(*w)).collect();
        let best = square_error(&values, &weights, &isotonic(&values, &weights));
        let grid = |i: usize| i as f64 * 0.5;
        for a in 0..9 {
            for b in a..9 {
                for c in b..9 {
                    for d in c..9 {
                        let other = square_error(&values, &weights, &[grid(a), grid(b), grid(c), grid(d)]);
                        prop_assert!(best <= other + 1e-9);
                    }
                }
            }
        }
    }

    /// The loss of Platt's line is no larger than that of any line next to it.
    #[test]
    fn platt_is_an_optimum(scores in prop::collection::vec(-3.0f64..3.0, 5..30), seed in 0u64..100) {
        let label = |i: usize| f64::from(u8::from((i as u64 * 7 + seed).is_multiple_of(3)));
        let all: Vec<Outcome> = scores.iter().enumerate().map(|(i, s)| Outcome::new(*s, label(i))).collect();
        let line = platt(&all);
        let positives = all.iter().filter(|r| r.observed > 0.5).count() as f64;
        let (high, low) = ((positives + 1.0) / (positives + 2.0), 1.0 / (all.len() as f64 - positives + 2.0));
        let loss = |l: Line| -> f64 {
            all.iter().map(|r| {
                let (p, t) = (sigmoid(l.scale * r.predicted + l.offset), if r.observed > 0.5 { high } else { low });
                -(t * p.ln() + (1.0 - t) * (1.0 - p).ln())
            }).sum()
        };
        for (s, o) in [(1e-3, 0.0), (-1e-3, 0.0), (0.0, 1e-3), (0.0, -1e-3)] {
            let other = Line { scale: line.scale + s, offset: line.offset + o };
            prop_assert!(loss(line) <= loss(other) + 1e-9, "{:?} {:?}", line, other);
        }
    }
}
