//! How well do predictions agree with what happened, and which calibration would make them?
//!
//! Pure functions over predictions, labels and weights (the inverse sampling rate of a row), in f64. Every measure
//! has one direction, fixed here, because published texts print both: a calibration ratio above 1 means that the
//! model predicts too much. Fits are those that a bundle can hold: Platt's line and the isotonic curve.
//!
//! Rows with a weight that is not above 0 count for nothing; an empty input gives NaN, never a number that looks fine.

/// A prediction, what happened (0 or 1, or a value), and how many rows it stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// The prediction.
    pub predicted: f64,
    /// What happened.
    pub observed: f64,
    /// Rows that it stands for.
    pub weight: f64,
}

impl Outcome {
    /// A row that stands for itself.
    #[must_use]
    pub const fn new(predicted: f64, observed: f64) -> Self {
        Self { predicted, observed, weight: 1.0 }
    }
}

/// Sums of predicted, observed and weight.
fn sums(rows: &[Outcome]) -> (f64, f64, f64) {
    rows.iter()
        .filter(|r| r.weight > 0.0)
        .fold((0.0, 0.0, 0.0), |(p, o, w), r| (p + r.weight * r.predicted, o + r.weight * r.observed, w + r.weight))
}

/// Sum of the predictions over the sum of what happened: 1 is perfect, above 1 is too much (He et al. 2014: "the
/// ratio of the average estimated CTR and empirical CTR").
#[must_use]
pub fn calibration_ratio(rows: &[Outcome]) -> f64 {
    let (predicted, observed, _) = sums(rows);
    predicted / observed
}

/// Normalised entropy: the log loss over the entropy of the base rate (He et al. 2014). A constant prediction of the
/// base rate has exactly 1; below 1 is information.
#[must_use]
pub fn normalised_entropy(rows: &[Outcome]) -> f64 {
    let (_, observed, weight) = sums(rows);
    let rate = observed / weight;
    let loss = |p: f64, y: f64| -(xlogy(y, p) + xlogy(1.0 - y, 1.0 - p));
    let total: f64 = rows.iter().filter(|r| r.weight > 0.0).map(|r| r.weight * loss(r.predicted, r.observed)).sum();
    total / weight / loss(rate, rate)
}

/// `x ln y`, 0 where x is 0.
fn xlogy(x: f64, y: f64) -> f64 {
    if x == 0.0 { 0.0 } else { x * y.ln() }
}

/// How predictions are put together to be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bins {
    /// Equal parts of 0 to 1. At a rate of 1 % all rows are in the first: use [`Bins::Quantiles`].
    Width(usize),
    /// Equal weights.
    Quantiles(usize),
}

/// Expected calibration error, over bins with rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CalibrationError {
    /// Mean absolute difference, weighted by the rows of a bin.
    pub mean: f64,
    /// Root of the mean square.
    pub root_mean_square: f64,
    /// Largest.
    pub largest: f64,
    /// Mean of the differences relative to what happened in their bin.
    pub relative: f64,
}

/// Compares what was predicted with what happened, bin by bin.
#[must_use]
pub fn calibration_error(rows: &[Outcome], bins: Bins) -> CalibrationError {
    let mut sorted: Vec<Outcome> = rows.iter().copied().filter(|r| r.weight > 0.0).collect();
    sorted.sort_by(|a, b| a.predicted.total_cmp(&b.predicted));
    let total: f64 = sorted.iter().map(|r| r.weight).sum();
    let mut before = 0.0;
    let mut binned: std::collections::BTreeMap<usize, Vec<Outcome>> = std::collections::BTreeMap::new();
    for row in sorted {
        let (bin, count) = match bins {
            Bins::Width(n) => ((row.predicted * n as f64) as usize, n),
            Bins::Quantiles(n) => ((before / total * n as f64) as usize, n),
        };
        before += row.weight;
        binned.entry(bin.min(count.saturating_sub(1))).or_default().push(row);
    }
    let mut error = CalibrationError { mean: 0.0, root_mean_square: 0.0, largest: 0.0, relative: 0.0 };
    for rows in binned.values() {
        let (predicted, observed, weight) = sums(rows);
        let (share, gap) = (weight / total, ((predicted - observed) / weight).abs());
        error.mean += share * gap;
        error.root_mean_square += share * gap * gap;
        error.largest = error.largest.max(gap);
        error.relative += share * gap / (observed / weight);
    }
    error.root_mean_square = error.root_mean_square.sqrt();
    if total > 0.0 { error } else { CalibrationError { mean: f64::NAN, ..error } }
}

/// The probability on all negatives of one learned on a share `rate` of them.
#[must_use]
pub fn with_all_negatives(p: f64, rate: f64) -> f64 {
    p / (p + (1.0 - p) / rate)
}

/// Its inverse: what a model that is trained on a share `rate` of the negatives should learn.
#[must_use]
pub fn with_fewer_negatives(q: f64, rate: f64) -> f64 {
    q / (q + (1.0 - q) * rate)
}

/// A line through logits: `sigmoid(scale * logit + offset)`, as [`crate::Calibration::Platt`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// Factor of the logit.
    pub scale: f64,
    /// Added to it.
    pub offset: f64,
}

/// Steps of Newton's method; it takes some ten.
const STEPS_MAX: usize = 100;
/// Halvings of a step that does not lower the loss.
const HALVINGS_MAX: usize = 40;

/// Platt's line (`predicted` is the raw score): the maximum likelihood with his targets in place of 0 and 1, which
/// keep it finite (Lin, Lin and Weng 2007, "A note on Platt's probabilistic outputs for support vector machines").
/// Theirs is `1 / (1 + exp(A f + B))`: scale is -A, offset is -B.
#[must_use]
pub fn platt(rows: &[Outcome]) -> Line {
    let rows: Vec<&Outcome> = rows.iter().filter(|r| r.weight > 0.0).collect();
    let weight =
        |positive: bool| -> f64 { rows.iter().filter(|r| (r.observed > 0.5) == positive).map(|r| r.weight).sum() };
    let (positives, negatives) = (weight(true), weight(false));
    let (high, low) = ((positives + 1.0) / (positives + 2.0), 1.0 / (negatives + 2.0));
    let target = |r: &Outcome| if r.observed > 0.5 { high } else { low };
    let loss = |line: Line| -> f64 {
        rows.iter()
            .map(|r| {
                let z = line.scale * r.predicted + line.offset;
                // log(1 + e^z) - t z, without overflow.
                r.weight * (z.max(0.0) + (-z.abs()).exp().ln_1p() - target(r) * z)
            })
            .sum()
    };
    let mut line = Line { scale: 0.0, offset: ((positives + 1.0) / (negatives + 1.0)).ln() };
    let mut best = loss(line);
    for _ in 0..STEPS_MAX {
        // The ridge keeps the Hessian regular when all scores are equal.
        let (mut g, mut h) = ([0.0; 2], [1e-12, 0.0, 1e-12]);
        for r in &rows {
            let p = sigmoid(line.scale * r.predicted + line.offset);
            let (slope, curve) = (r.weight * (p - target(r)), r.weight * p * (1.0 - p));
            g = [g[0] + slope * r.predicted, g[1] + slope];
            h = [h[0] + curve * r.predicted * r.predicted, h[1] + curve * r.predicted, h[2] + curve];
        }
        let determinant = h[0] * h[2] - h[1] * h[1];
        if g.iter().all(|x| x.abs() < 1e-10) || determinant <= 0.0 {
            break;
        }
        let step = [(h[2] * g[0] - h[1] * g[1]) / determinant, (h[0] * g[1] - h[1] * g[0]) / determinant];
        let trial = |share: f64| Line { scale: line.scale - share * step[0], offset: line.offset - share * step[1] };
        let found = (0..HALVINGS_MAX).map(|i| trial(0.5f64.powi(i as i32))).find(|l| loss(*l) < best);
        let Some(next) = found else { break };
        (line, best) = (next, loss(next));
    }
    line
}

fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}

/// The non-decreasing values next to these in the weighted least squares, by pooling adjacent violators. The values
/// are what happened, in the order of the predictions.
#[must_use]
pub fn isotonic(values: &[f64], weights: &[f64]) -> Vec<f64> {
    /// Mean, weight and how many values.
    type Pool = (f64, f64, usize);
    let mut pools: Vec<Pool> = Vec::with_capacity(values.len());
    for (value, weight) in values.iter().zip(weights) {
        let mut pool = (*value, *weight, 1);
        while let Some(before) = pools.last().filter(|p| p.0 > pool.0).copied() {
            let weight = before.1 + pool.1;
            pool = ((before.0 * before.1 + pool.0 * pool.1) / weight, weight, before.2 + pool.2);
            pools.pop();
        }
        pools.push(pool);
    }
    pools.iter().flat_map(|(mean, _, count)| std::iter::repeat_n(*mean, *count)).collect()
}

/// The points of an isotonic calibration for these predictions: `x` strictly rising, `y` non-decreasing, as
/// [`crate::Calibration::Isotonic`] has them. Rows of one prediction are pooled first.
#[must_use]
pub fn isotonic_points(rows: &[Outcome]) -> (Vec<f64>, Vec<f64>) {
    let mut sorted: Vec<Outcome> = rows.iter().copied().filter(|r| r.weight > 0.0).collect();
    sorted.sort_by(|a, b| a.predicted.total_cmp(&b.predicted));
    let groups: Vec<&[Outcome]> = sorted.chunk_by(|a, b| a.predicted == b.predicted).collect();
    let x: Vec<f64> = groups.iter().map(|g| g[0].predicted).collect();
    let weights: Vec<f64> = groups.iter().map(|g| sums(g).2).collect();
    let means: Vec<f64> = groups.iter().map(|g| sums(g).1 / sums(g).2).collect();
    let y = isotonic(&means, &weights);
    (x, y)
}

#[cfg(test)]
mod tests;
