//! What probability or value does a raw output stand for?
//!
//! A probability head puts out a logit, a value head `log1p(value)`. A model that was trained on a share w of the
//! negatives predicts too much: its probability p stands for `p / (p + (1 - p) / w)` (He et al. 2014, "Practical
//! lessons from predicting clicks on ads at Facebook", section 6.3), which in logits is the addition of `ln w`. The
//! calibration of the bundle then makes the prediction that is priced: Platt scaling on the logit, an isotonic
//! (non-decreasing, piecewise linear) map on
//! the probability, or a factor on the value. A raw output that is not finite gives NaN, also where the logistic of
//! infinity would be 1: the caller drops such a candidate, this module hides nothing (RK1).

/// How a head is calibrated.
#[derive(Clone, Debug, PartialEq)]
pub enum Calibration {
    /// The raw probability or value.
    None,
    /// `sigmoid(scale * logit + offset)`.
    Platt {
        /// Factor of the logit, above 0.
        scale: f32,
        /// Added to the scaled logit.
        offset: f32,
    },
    /// Linear between the points, flat outside them; `x` strictly increasing, `y` non-decreasing in [0, 1].
    Isotonic {
        /// Raw probabilities.
        x: Vec<f32>,
        /// Calibrated probabilities.
        y: Vec<f32>,
    },
    /// Factor of a value.
    Scale {
        /// The factor, at least 0.
        factor: f32,
    },
}

/// What a head predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadKind {
    /// A probability; the raw output is a logit.
    Probability,
    /// A non-negative value; the raw output is `log1p(value)`.
    Value,
}

/// The logistic function, without overflow on either side.
#[must_use]
pub fn sigmoid(x: f32) -> f32 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

/// The logit on all negatives of a logit learned on a share of them, in (0, 1].
#[must_use]
pub(crate) fn with_all_negatives(logit: f32, negative_rate: f32) -> f32 {
    if negative_rate == 1.0 { logit } else { logit + negative_rate.ln() }
}

impl Calibration {
    /// The prediction that stands for a raw output of a head of this kind.
    #[must_use]
    pub fn apply(&self, kind: HeadKind, raw: f32) -> f32 {
        match kind {
            _ if !raw.is_finite() => f32::NAN,
            HeadKind::Probability => self.probability(raw),
            HeadKind::Value => {
                let value = raw.exp_m1().max(0.0);
                if let Self::Scale { factor } = self { value * factor } else { value }
            }
        }
    }

    fn probability(&self, logit: f32) -> f32 {
        match self {
            Self::None | Self::Scale { .. } => sigmoid(logit),
            Self::Platt { scale, offset } => sigmoid(scale.mul_add(logit, *offset)),
            Self::Isotonic { x, y } => interpolate(x, y, sigmoid(logit)),
        }
    }
}

/// `y` at `at`, linear between the points; NaN stays NaN.
fn interpolate(x: &[f32], y: &[f32], at: f32) -> f32 {
    let above = x.partition_point(|p| *p <= at);
    match (above.checked_sub(1), x.get(above)) {
        _ if at.is_nan() => at,
        (None, _) => y.first().copied().unwrap_or(at),
        (Some(below), None) => y[below],
        (Some(below), Some(next)) => {
            let share = (at - x[below]) / (next - x[below]);
            share.mul_add(y[above] - y[below], y[below])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platt_is_the_logistic_of_a_line() {
        let c = Calibration::Platt { scale: 2.0, offset: -1.0 };
        assert!((c.apply(HeadKind::Probability, 0.5) - 0.5).abs() < 1e-7);
        assert!((c.apply(HeadKind::Probability, 0.0) - 0.268_941_42).abs() < 1e-6);
        assert_eq!(c.apply(HeadKind::Probability, -1e30), 0.0);
        assert_eq!(c.apply(HeadKind::Probability, 1e30), 1.0);
    }

    #[test]
    fn isotonic_is_flat_outside_and_linear_inside() {
        let c = Calibration::Isotonic { x: vec![0.2, 0.5, 0.9], y: vec![0.1, 0.1, 0.5] };
        let at = |p: f32| c.apply(HeadKind::Probability, (p / (1.0 - p)).ln());
        assert!((at(0.01) - 0.1).abs() < 1e-6);
        assert!((at(0.3) - 0.1).abs() < 1e-6);
        assert!((at(0.7) - 0.3).abs() < 1e-5);
        assert!((at(0.99) - 0.5).abs() < 1e-6);
    }

    #[test]
    fn negatives_that_were_left_out_are_put_back() {
        let corrected = |p: f64, w: f32| f64::from(sigmoid(with_all_negatives((p / (1.0 - p)).ln() as f32, w)));
        // He et al.'s formula, computed with an independent tool.
        assert!((corrected(0.1, 0.01) - 0.001_109_877_913_429_523).abs() < 1e-9);
        assert!((corrected(0.090_991_810_737, 0.01) - 0.001).abs() < 1e-9);
        for p in [1e-4, 0.03, 0.5, 0.97] {
            for w in [0.001f32, 0.05, 0.5, 1.0] {
                let expected = p / (p + (1.0 - p) / f64::from(w));
                assert!((corrected(p, w) - expected).abs() < 2e-6 * expected, "{p} {w}");
            }
        }
        let head = |negative_rate, calibration| crate::schema::HeadSpec {
            name: "click".into(),
            kind: HeadKind::Probability,
            role: None,
            negative_rate,
            calibration,
        };
        let platt = head(0.1, Calibration::Platt { scale: 2.0, offset: 0.5 });
        // Before Platt, so that its line is the one of corrected logits.
        assert!((platt.predict(1.0) - sigmoid(2.0 * (1.0 + 0.1f32.ln()) + 0.5)).abs() < 1e-7);
        let curve = head(0.1, Calibration::Isotonic { x: vec![0.0, 1.0], y: vec![0.0, 0.5] });
        let expected = 0.5 * sigmoid(0.3 + 0.1f32.ln());
        assert!((curve.predict(0.3) - expected).abs() < 1e-6);
        assert!(head(0.1, Calibration::None).predict(f32::NAN).is_nan());
    }

    #[test]
    fn values_are_never_negative_and_what_is_not_finite_is_never_hidden() {
        let c = Calibration::Scale { factor: 2.0 };
        assert_eq!(c.apply(HeadKind::Value, -3.0), 0.0);
        assert!((c.apply(HeadKind::Value, 1.0) - 2.0 * 1f32.exp_m1()).abs() < 1e-6);
        for kind in [HeadKind::Value, HeadKind::Probability] {
            for c in [&c, &Calibration::None, &Calibration::Isotonic { x: vec![0.5], y: vec![0.5] }] {
                for raw in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    assert!(c.apply(kind, raw).is_nan(), "{kind:?} {c:?} {raw}");
                }
            }
        }
    }
}
