//! What are predictions worth, by labels or beside those of another bundle?

use gavel_model::HeadKind;
use serde::Serialize;

/// One head on one table.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct HeadMetrics {
    /// Rows with a label.
    pub labelled: usize,
    /// Weighted mean of the loss, 0 without labels: logarithmic for a probability, and for a value the squared
    /// difference of `log1p`, which is what its raw output stands for.
    pub loss: f64,
    /// Area under the ROC curve of a probability, weighted, ties count half; 0.5 without two kinds of labels.
    pub auc: Option<f64>,
    /// Sum of predictions over sum of labels; 0 without labels.
    pub calibration: f64,
    /// Mean prediction.
    pub mean: f64,
}

/// A prediction with its label and weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Labelled {
    /// Predicted.
    pub prediction: f64,
    /// 0 or 1, or a share; of a value, at least 0.
    pub label: f64,
    /// How much it counts.
    pub weight: f64,
}

/// The metrics of a head of this kind.
#[must_use]
pub fn of(kind: HeadKind, predictions: &[f64], labelled: &[Labelled]) -> HeadMetrics {
    let weight: f64 = labelled.iter().map(|l| l.weight).sum();
    let mean = predictions.iter().sum::<f64>() / predictions.len().max(1) as f64;
    if weight <= 0.0 {
        return HeadMetrics { mean, ..HeadMetrics::default() };
    }
    let loss: fn(&Labelled) -> f64 = match kind {
        HeadKind::Probability => |l| {
            let p = l.prediction.clamp(1e-12, 1.0 - 1e-12);
            -l.weight * (l.label * p.ln() + (1.0 - l.label) * (1.0 - p).ln())
        },
        HeadKind::Value => |l| l.weight * (l.prediction.ln_1p() - l.label.ln_1p()).powi(2),
    };
    let sum = |value: fn(&Labelled) -> f64| labelled.iter().map(|l| l.weight * value(l)).sum::<f64>();
    let labels = sum(|l| l.label);
    HeadMetrics {
        labelled: labelled.len(),
        loss: labelled.iter().map(loss).sum::<f64>() / weight,
        auc: (kind == HeadKind::Probability).then(|| auc(labelled)),
        calibration: if labels > 0.0 { sum(|l| l.prediction) / labels } else { 0.0 },
        mean,
    }
}

/// The share of pairs of a positive and a negative that are in order; a label of a share is both in part.
fn auc(labelled: &[Labelled]) -> f64 {
    let mut rows: Vec<(f64, f64, f64)> =
        labelled.iter().map(|l| (l.prediction, l.weight * l.label, l.weight * (1.0 - l.label))).collect();
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut ordered, mut at) = (0.0, 0.0, 0);
    while at < rows.len() {
        let ties = rows[at..].iter().take_while(|r| r.0.total_cmp(&rows[at].0).is_eq()).count();
        let group = &rows[at..at + ties];
        let (positive, negative) = group.iter().fold((0.0, 0.0), |(p, n), r| (p + r.1, n + r.2));
        ordered += positive * (below + negative / 2.0);
        below += negative;
        at += ties;
    }
    let positives: f64 = rows.iter().map(|r| r.1).sum();
    if positives > 0.0 && below > 0.0 { ordered / (positives * below) } else { 0.5 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(prediction: f64, label: f64) -> Labelled {
        Labelled { prediction, label, weight: 1.0 }
    }

    #[test]
    fn metrics_of_a_few_rows_are_those_of_the_formulas() {
        let rows = [row(0.9, 1.0), row(0.8, 0.0), row(0.7, 1.0), row(0.1, 0.0)];
        let predictions: Vec<f64> = rows.iter().map(|r| r.prediction).collect();
        let m = of(HeadKind::Probability, &predictions, &rows);
        assert_eq!(m.auc, Some(0.75), "three of four pairs are in order");
        assert!((m.calibration - 1.25).abs() < 1e-12);
        let expected = -(0.9f64.ln() + 0.2f64.ln() + 0.7f64.ln() + 0.9f64.ln()) / 4.0;
        assert!((m.loss - expected).abs() < 1e-12);
        assert_eq!(auc(&[row(0.5, 1.0), row(0.5, 0.0)]), 0.5, "a tie is half in order");
        assert_eq!(of(HeadKind::Probability, &[0.2, 0.4], &[]).labelled, 0);
    }

    #[test]
    fn a_value_is_judged_by_the_square_of_its_logarithm() {
        let rows = [row(3.0, 7.0), row(0.0, 0.0), row(1.0, 0.0)];
        let m = of(HeadKind::Value, &[3.0, 0.0, 1.0], &rows);
        // ln 4 - ln 8 and ln 2 - ln 1.
        assert!((m.loss - 2.0 * 2f64.ln().powi(2) / 3.0).abs() < 1e-12, "{m:?}");
        assert_eq!((m.auc, m.labelled), (None, 3));
        assert!((m.calibration - 4.0 / 7.0).abs() < 1e-12);
    }
}
