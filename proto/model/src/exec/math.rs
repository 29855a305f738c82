//! What is the value of a function of one, two or a row of values?
//!
//! Free functions over slices. The exponential is our own (Cephes' reduction and polynomial, relative error below
//! 2e-7), because the system's is a call for each value and differs between systems.

use super::walk::Walk;
use crate::graph::{Binary, Reduction, Unary};

/// `e^x`; infinity above 88.7, 0 below -87.3, NaN for NaN.
#[inline]
pub(crate) fn exp(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    /// Adding and taking this away rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.clamp(-87.336_54, 88.376_26);
    let n = (clamped * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = clamped - n * LN2_HIGH - n * LN2_LOW;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let y = p * r * r + r + 1.0;
    let scale = f32::from_bits((((n as i32) + 127) as u32) << 23);
    let y = y * scale;
    let y = if x > 88.376_26 { f32::INFINITY } else { y };
    let y = if x < -87.336_54 { 0.0 } else { y };
    if x.is_nan() { x } else { y }
}

#[inline]
fn each(values: &mut [f32], f: impl Fn(f32) -> f32) {
    for v in values {
        *v = f(*v);
    }
}

/// Replaces each value by its function.
pub(crate) fn unary(kind: Unary, v: &mut [f32]) {
    match kind {
        // Written so that NaN stays NaN.
        Unary::Relu => each(v, |x| if x < 0.0 { 0.0 } else { x }),
        Unary::LeakyRelu(slope) => each(v, |x| if x < 0.0 { slope * x } else { x }),
        Unary::Elu(alpha) => each(v, |x| if x < 0.0 { alpha * x.exp_m1() } else { x }),
        Unary::Sigmoid => each(v, |x| 1.0 / (1.0 + exp(-x))),
        Unary::Tanh => each(v, f32::tanh),
        Unary::Softplus => each(v, |x| x.max(0.0) + exp(-x.abs()).ln_1p()),
        Unary::Erf => each(v, erf),
        Unary::Exp => each(v, exp),
        Unary::Log => each(v, f32::ln),
        Unary::Sqrt => each(v, f32::sqrt),
        Unary::Reciprocal => each(v, |x| 1.0 / x),
        Unary::Neg => each(v, |x| -x),
        Unary::Abs => each(v, f32::abs),
        Unary::Clip(low, high) => each(v, |x| {
            let x = if x < low { low } else { x };
            if x > high { high } else { x }
        }),
        Unary::Truncate => each(v, f32::trunc),
        Unary::Not => each(v, |x| truth(x == 0.0)),
        Unary::ToBool => each(v, |x| truth(x != 0.0)),
    }
}

const fn truth(holds: bool) -> f32 {
    if holds { 1.0 } else { 0.0 }
}

/// The error function: Abramowitz and Stegun 7.1.26 in f64, absolute error below 1.5e-7.
fn erf(x: f32) -> f32 {
    let z = f64::from(x.abs());
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let p = ((((1.061_405_429 * t - 1.453_152_027) * t + 1.421_413_741) * t - 0.284_496_736) * t + 0.254_829_592) * t;
    let y = (1.0 - p * (-z * z).exp()) as f32;
    if x.is_nan() { x } else { y.copysign(x) }
}

/// A function of two broadcast inputs.
pub(crate) fn binary(kind: Binary, walk: &Walk<2>, a: &[f32], b: &[f32], out: &mut [f32]) {
    match kind {
        Binary::Add => pairs(walk, a, b, out, |x, y| x + y),
        Binary::Sub => pairs(walk, a, b, out, |x, y| x - y),
        Binary::Mul => pairs(walk, a, b, out, |x, y| x * y),
        Binary::Div => pairs(walk, a, b, out, |x, y| x / y),
        Binary::Pow => pairs(walk, a, b, out, |x, y| if y == 2.0 { x * x } else { x.powf(y) }),
        Binary::Max => pairs(walk, a, b, out, |x, y| if x > y || x.is_nan() { x } else { y }),
        Binary::Min => pairs(walk, a, b, out, |x, y| if x < y || x.is_nan() { x } else { y }),
        Binary::Equal => pairs(walk, a, b, out, |x, y| truth(x == y)),
        Binary::Greater => pairs(walk, a, b, out, |x, y| truth(x > y)),
        Binary::Less => pairs(walk, a, b, out, |x, y| truth(x < y)),
        Binary::And => pairs(walk, a, b, out, |x, y| truth(x != 0.0 && y != 0.0)),
        Binary::Or => pairs(walk, a, b, out, |x, y| truth(x != 0.0 || y != 0.0)),
    }
}

#[inline]
fn pairs(walk: &Walk<2>, a: &[f32], b: &[f32], out: &mut [f32], f: impl Fn(f32, f32) -> f32) {
    let n = walk.run;
    let mut runs = out.chunks_exact_mut(n.max(1));
    walk.runs(|[x, y]| {
        let Some(run) = runs.next() else { return };
        match walk.step {
            [1, 1] => {
                for ((o, x), y) in run.iter_mut().zip(&a[x..x + n]).zip(&b[y..y + n]) {
                    *o = f(*x, *y);
                }
            }
            [1, _] => {
                let y = b[y];
                for (o, x) in run.iter_mut().zip(&a[x..x + n]) {
                    *o = f(*x, y);
                }
            }
            [_, 1] => {
                let x = a[x];
                for (o, y) in run.iter_mut().zip(&b[y..y + n]) {
                    *o = f(x, *y);
                }
            }
            _ => run.fill(f(a[x], b[y])),
        }
    });
}

/// Adds a broadcast term to the result.
pub(crate) fn accumulate(walk: &Walk<1>, term: &[f32], out: &mut [f32]) {
    let n = walk.run;
    let mut runs = out.chunks_exact_mut(n.max(1));
    walk.runs(|[x]| {
        let Some(run) = runs.next() else { return };
        if walk.step[0] == 1 {
            for (o, x) in run.iter_mut().zip(&term[x..x + n]) {
                *o += *x;
            }
        } else {
            let x = term[x];
            each(run, |o| o + x);
        }
    });
}

/// The second input where the first is not 0, else the third.
pub(crate) fn select(walk: &Walk<3>, [condition, yes, no]: [&[f32]; 3], out: &mut [f32]) {
    let mut runs = out.chunks_exact_mut(walk.run.max(1));
    let step = walk.step.map(|s| s as usize);
    walk.runs(|[c, y, n]| {
        let Some(run) = runs.next() else { return };
        for (i, o) in run.iter_mut().enumerate() {
            *o = if condition[c + i * step[0]] != 0.0 { yes[y + i * step[1]] } else { no[n + i * step[2]] };
        }
    });
}

/// Reduces the middle of three dimensions, from its first entry to its last.
pub(crate) fn reduce(kind: Reduction, [outer, length, inner]: [usize; 3], a: &[f32], out: &mut [f32]) {
    let start = match kind {
        Reduction::Sum | Reduction::Mean | Reduction::L2 | Reduction::SumSquare => 0.0,
        Reduction::Max => f32::NEG_INFINITY,
        Reduction::Min => f32::INFINITY,
    };
    out.fill(start);
    for (block, result) in out.chunks_exact_mut(inner.max(1)).enumerate().take(outer) {
        for entry in 0..length {
            let from = (block * length + entry) * inner;
            let values = &a[from..from + inner];
            let result = result.iter_mut().zip(values);
            match kind {
                Reduction::Sum | Reduction::Mean => result.for_each(|(o, x)| *o += *x),
                Reduction::L2 | Reduction::SumSquare => result.for_each(|(o, x)| *o += *x * *x),
                Reduction::Max => result.for_each(|(o, x)| *o = if *o > *x || o.is_nan() { *o } else { *x }),
                Reduction::Min => result.for_each(|(o, x)| *o = if *o < *x || o.is_nan() { *o } else { *x }),
            }
        }
    }
    match kind {
        Reduction::Mean => {
            let scale = 1.0 / length as f32;
            each(out, |x| x * scale);
        }
        Reduction::L2 => each(out, f32::sqrt),
        Reduction::Sum | Reduction::Max | Reduction::Min | Reduction::SumSquare => {}
    }
}

/// Softmax over the middle of three dimensions, in place.
pub(crate) fn softmax([outer, length, inner]: [usize; 3], v: &mut [f32]) {
    for block in v.chunks_exact_mut((length * inner).max(1)).take(outer) {
        for i in 0..inner {
            let entries = || (0..length).map(|e| e * inner + i);
            let largest = entries().map(|e| block[e]).fold(f32::NEG_INFINITY, f32::max);
            let mut sum = 0.0;
            for e in entries() {
                block[e] = exp(block[e] - largest);
                sum += block[e];
            }
            let scale = 1.0 / sum;
            for e in entries() {
                block[e] *= scale;
            }
        }
    }
}

/// Zero mean and unit variance of each run of `length`, in place.
pub(crate) fn normalise(length: usize, epsilon: f32, v: &mut [f32]) {
    for row in v.chunks_exact_mut(length.max(1)) {
        let n = row.len() as f32;
        let mean = row.iter().sum::<f32>() / n;
        let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / n;
        let scale = 1.0 / (variance + epsilon).sqrt();
        each(row, |x| (x - mean) * scale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_right_to_two_in_ten_million() {
        let mut x = -87.0f32;
        while x < 88.3 {
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) - exact).abs() <= 2e-7 * exact, "{x}: {} {exact}", exp(x));
            x += 0.013_7;
        }
        assert_eq!((exp(0.0), exp(f32::INFINITY), exp(f32::NEG_INFINITY)), (1.0, f32::INFINITY, 0.0));
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn functions_keep_nan() {
        for kind in [Unary::Relu, Unary::Sigmoid, Unary::Clip(0.0, 1.0), Unary::Exp, Unary::Erf, Unary::LeakyRelu(0.1)]
        {
            let mut v = [f32::NAN];
            unary(kind, &mut v);
            assert!(v[0].is_nan(), "{kind:?}");
        }
    }

    #[test]
    fn softmax_of_columns_sums_to_one() {
        let mut v = [1.0, 2.0, 3.0, 4.0, 1000.0, -1000.0];
        softmax([1, 3, 2], &mut v);
        assert!((v[0] + v[2] + v[4] - 1.0).abs() < 1e-6 && (v[1] + v[3] + v[5] - 1.0).abs() < 1e-6);
    }

    #[test]
    fn the_error_function() {
        for (x, y) in [(0.0, 0.0), (0.5, 0.520_499_9), (-1.0, -0.842_700_8), (3.0, 0.999_977_9)] {
            assert!((erf(x) - y).abs() < 1e-6);
        }
    }
}
