//! How fast did a controlled quantity get to its reference, and how well did it stay?
//!
//! Definitions of the public control experiments of Zhang et al. (WSDM 2016): the band is a tenth of the reference.

/// Half the width of the band, as a share of the reference.
const BAND: f64 = 0.1;

/// How a quantity converged.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Convergence {
    /// First round inside the band.
    pub rise: Option<usize>,
    /// First round from which on it stays inside.
    pub settling: Option<usize>,
    /// Farthest beyond the reference, seen from where it began, as a share of the reference.
    pub overshoot: f64,
    /// Root mean square error after settling, as a share of the reference.
    pub rmse: f64,
    /// Standard deviation after settling, as a share of the mean.
    pub deviation: f64,
}

/// Judges a series.
#[must_use]
pub fn convergence(series: &[f64], reference: f64) -> Convergence {
    let inside = |x: &f64| (x - reference).abs() <= BAND * reference.abs();
    let rise = series.iter().position(inside);
    let settling = match series.iter().rposition(|x| !inside(x)) {
        None => Some(0),
        Some(last) => Some(last + 1).filter(|round| *round < series.len()),
    };
    let from_above = series.first().is_some_and(|first| *first > reference);
    let beyond = |x: &f64| if from_above { reference - x } else { x - reference };
    let after_rise = &series[rise.unwrap_or(series.len())..];
    let overshoot = after_rise.iter().map(beyond).fold(0.0, f64::max) / reference.abs();
    let settled = &series[settling.unwrap_or(series.len())..];
    let count = settled.len().max(1) as f64;
    let mean = settled.iter().sum::<f64>() / count;
    let root = |of: f64| (settled.iter().map(|x| (x - of) * (x - of)).sum::<f64>() / count).sqrt();
    let share = |x: f64, of: f64| if settled.is_empty() { 0.0 } else { x / of.abs() };
    Convergence {
        rise,
        settling,
        overshoot,
        rmse: share(root(reference), reference),
        deviation: share(root(mean), mean),
    }
}
