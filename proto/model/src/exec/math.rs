//! What is the value of a function of one, two or a row of values?
//!
//! Free functions over slices, compiled for each instruction set from one body.

use super::functions::{erf, exp, exp_m1, ln, ln_1p, tanh};
use super::simd::simd;
use super::walk::Walk;
use crate::graph::{Binary, Reduction, Unary};

/// Values that a sum over a row keeps apart: the order of additions is the same on every processor.
const LANES: usize = 8;

#[inline(always)]
fn each(values: &mut [f32], f: impl Fn(f32) -> f32) {
    // A length that is known is two registers and no loop.
    if let Ok(values) = <&mut [f32; 16]>::try_from(&mut *values) {
        values.iter_mut().for_each(|v| *v = f(*v));
        return;
    }
    values.iter_mut().for_each(|v| *v = f(*v));
}

/// The same for a function that costs far more than its loads: the last few values are computed as many.
#[inline(always)]
fn each_costly(values: &mut [f32], f: impl Fn(f32) -> f32) {
    let (blocks, rest) = values.as_chunks_mut::<LANES>();
    blocks.iter_mut().flatten().for_each(|v| *v = f(*v));
    if !rest.is_empty() {
        let mut block = [0.0; LANES];
        block[..rest.len()].copy_from_slice(rest);
        block.iter_mut().for_each(|v| *v = f(*v));
        rest.copy_from_slice(&block[..rest.len()]);
    }
}

/// Written so that NaN stays NaN.
#[inline(always)]
pub(crate) fn relu(v: &mut [f32]) {
    each(v, |x| if x < 0.0 { 0.0 } else { x });
}

/// [`unary`] for a caller that is itself compiled for each instruction set.
#[inline(always)]
pub(crate) fn unary_body(kind: Unary, v: &mut [f32]) {
    match kind {
        Unary::Relu => relu(v),
        Unary::LeakyRelu(slope) => each(v, |x| if x < 0.0 { slope * x } else { x }),
        Unary::Elu(alpha) => each_costly(v, |x| if x < 0.0 { alpha * exp_m1(x) } else { x }),
        Unary::Sigmoid => each_costly(v, |x| 1.0 / (1.0 + exp(-x))),
        Unary::Tanh => each_costly(v, tanh),
        Unary::Softplus => each_costly(v, |x| (if x < 0.0 { 0.0 } else { x }) + ln_1p(exp(-x.abs()))),
        Unary::Erf => each_costly(v, erf),
        Unary::Exp => each(v, exp),
        Unary::Log => each(v, ln),
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

simd! {
    /// Replaces each value by its function.
    pub(crate) fn unary(kind: Unary, v: &mut [f32]) {
        unary_body(kind, v);
    }
}

pub(crate) const fn truth(holds: bool) -> f32 {
    if holds { 1.0 } else { 0.0 }
}

/// `x^y`; squares are what a model asks for.
pub(crate) fn pow(x: f32, y: f32) -> f32 {
    if y == 2.0 { x * x } else { x.powf(y) }
}

/// Evaluates an expression with the function of two values that a kind stands for.
macro_rules! with_binary {
    ($kind:expr, $f:ident => $body:expr) => {{
        use $crate::exec::math::{pow, truth};
        use $crate::graph::Binary;
        macro_rules! each {
            ($function:expr) => {{
                let $f = $function;
                $body
            }};
        }
        match $kind {
            Binary::Add => each!(|x: f32, y: f32| x + y),
            Binary::Sub => each!(|x: f32, y: f32| x - y),
            Binary::Mul => each!(|x: f32, y: f32| x * y),
            Binary::Div => each!(|x: f32, y: f32| x / y),
            Binary::Pow => each!(pow),
            Binary::Max => each!(|x: f32, y: f32| if x > y || x.is_nan() { x } else { y }),
            Binary::Min => each!(|x: f32, y: f32| if x < y || x.is_nan() { x } else { y }),
            Binary::Equal => each!(|x: f32, y: f32| truth(x == y)),
            Binary::Greater => each!(|x: f32, y: f32| truth(x > y)),
            Binary::Less => each!(|x: f32, y: f32| truth(x < y)),
            Binary::And => each!(|x: f32, y: f32| truth(x != 0.0 && y != 0.0)),
            Binary::Or => each!(|x: f32, y: f32| truth(x != 0.0 || y != 0.0)),
        }
    }};
}
pub(crate) use with_binary;

simd! {
    /// A function of two broadcast inputs.
    pub(crate) fn binary(kind: Binary, walk: &Walk<2>, a: &[f32], b: &[f32], out: &mut [f32]) {
        with_binary!(kind, f => pairs(walk, a, b, out, f));
    }
}

#[inline(always)]
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

simd! {
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

/// What a reduction starts from, and how it takes a value.
#[inline(always)]
fn fold(kind: Reduction) -> f32 {
    match kind {
        Reduction::Sum | Reduction::Mean | Reduction::L2 | Reduction::SumSquare => 0.0,
        Reduction::Max => f32::NEG_INFINITY,
        Reduction::Min => f32::INFINITY,
    }
}

#[inline(always)]
fn larger(x: f32, y: f32) -> f32 {
    if x > y || x.is_nan() { x } else { y }
}

#[inline(always)]
fn smaller(x: f32, y: f32) -> f32 {
    if x < y || x.is_nan() { x } else { y }
}

simd! {
    /// Reduces the middle of three dimensions.
    pub(crate) fn reduce(kind: Reduction, sizes: [usize; 3], a: &[f32], out: &mut [f32]) {
        match kind {
            Reduction::Sum | Reduction::Mean => reduce_by(fold(kind), sizes, a, out, |o, x| o + x, |o, x| o + x),
            Reduction::L2 | Reduction::SumSquare => {
                reduce_by(fold(kind), sizes, a, out, |o, x| o + x * x, |o, x| o + x);
            }
            Reduction::Max => reduce_by(fold(kind), sizes, a, out, larger, larger),
            Reduction::Min => reduce_by(fold(kind), sizes, a, out, smaller, smaller),
        }
        match kind {
            Reduction::Mean => {
                let scale = 1.0 / sizes[1] as f32;
                each(out, |x| x * scale);
            }
            Reduction::L2 => each(out, f32::sqrt),
            Reduction::Sum | Reduction::Max | Reduction::Min | Reduction::SumSquare => {}
        }
    }
}

#[inline(always)]
fn reduce_by(
    start: f32,
    [outer, length, inner]: [usize; 3],
    a: &[f32],
    out: &mut [f32],
    take: impl Fn(f32, f32) -> f32,
    join: impl Fn(f32, f32) -> f32,
) {
    if inner == 1 {
        for (row, o) in a.chunks_exact(length.max(1)).zip(out) {
            *o = along(row, start, &take, &join);
        }
        return;
    }
    out.fill(start);
    for (block, result) in out.chunks_exact_mut(inner.max(1)).enumerate().take(outer) {
        for entry in 0..length {
            let from = (block * length + entry) * inner;
            for (o, x) in result.iter_mut().zip(&a[from..from + inner]) {
                *o = take(*o, *x);
            }
        }
    }
}

/// Folds a row in lanes and the lanes in order.
#[inline(always)]
fn along(row: &[f32], start: f32, take: impl Fn(f32, f32) -> f32, join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; LANES];
    let (blocks, rest) = row.as_chunks::<LANES>();
    for block in blocks {
        for (lane, x) in lanes.iter_mut().zip(block) {
            *lane = take(*lane, *x);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = take(*lane, *x);
    }
    lanes.into_iter().fold(start, join)
}

simd! {
    /// Softmax over the middle of three dimensions, in place.
    pub(crate) fn softmax(sizes: [usize; 3], v: &mut [f32]) {
        let [outer, length, inner] = sizes;
        for block in v.chunks_exact_mut((length * inner).max(1)).take(outer) {
            if inner == 1 {
                softmax_row(block);
            } else {
                (0..inner).for_each(|column| softmax_column(block, inner, column));
            }
        }
    }
}

#[inline(always)]
fn softmax_row(row: &mut [f32]) {
    let largest = along(row, f32::NEG_INFINITY, |m, x| if x > m { x } else { m }, |m, x| if x > m { x } else { m });
    each_costly(row, |x| exp(x - largest));
    let scale = 1.0 / along(row, 0.0, |s, x| s + x, |s, x| s + x);
    each(row, |x| x * scale);
}

#[inline(always)]
fn softmax_column(block: &mut [f32], inner: usize, column: usize) {
    let entries = || (column..block.len()).step_by(inner);
    let largest = entries().map(|e| block[e]).fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for e in (column..block.len()).step_by(inner) {
        block[e] = exp(block[e] - largest);
        sum += block[e];
    }
    let scale = 1.0 / sum;
    for e in (column..block.len()).step_by(inner) {
        block[e] *= scale;
    }
}

simd! {
    /// Zero mean and unit variance of each run of `length`, in place.
    pub(crate) fn normalise(length: usize, epsilon: f32, v: &mut [f32]) {
        for row in v.chunks_exact_mut(length.max(1)) {
            let n = row.len() as f32;
            let mean = along(row, 0.0, |s, x| s + x, |s, x| s + x) / n;
            let squares = along(row, 0.0, |s, x| s + (x - mean) * (x - mean), |s, x| s + x);
            let scale = 1.0 / (squares / n + epsilon).sqrt();
            each(row, |x| (x - mean) * scale);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest relative difference from a function in f64 over evenly spread values.
    fn worst(kind: Unary, from: f32, to: f32, exact: impl Fn(f64) -> f64, floor: f64) -> f64 {
        let mut worst = 0f64;
        for i in 0..=20_000 {
            let x = from + (to - from) * i as f32 / 20_000.0;
            let mut v = [x];
            unary(kind, &mut v);
            let exact = exact(f64::from(x));
            worst = worst.max((f64::from(v[0]) - exact).abs() / exact.abs().max(floor));
        }
        worst
    }

    #[test]
    fn functions_are_right_to_a_millionth() {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        assert!(worst(Unary::Tanh, -12.0, 12.0, f64::tanh, 1e-30) < 3e-7);
        assert!(worst(Unary::Tanh, -1e-3, 1e-3, f64::tanh, 1e-30) < 2e-7);
        assert!(worst(Unary::Log, 1e-6, 40.0, f64::ln, 1e-2) < 5e-7);
        assert!(worst(Unary::Log, 1e-42, 1e-37, f64::ln, 1e-2) < 3e-7);
        assert!(worst(Unary::Sigmoid, -20.0, 20.0, sigmoid, 1e-30) < 5e-7);
        assert!(worst(Unary::Softplus, -20.0, 20.0, |x| x.max(0.0) + (-x.abs()).exp().ln_1p(), 1e-30) < 5e-7);
        assert!(worst(Unary::Elu(1.0), -30.0, 3.0, |x| if x < 0.0 { x.exp_m1() } else { x }, 1e-30) < 1e-6);
        assert!(worst(Unary::Elu(1.0), -1e-3, 0.0, f64::exp_m1, 1e-30) < 1e-6);
    }

    #[test]
    fn logarithms_of_what_has_none() {
        let mut v = [0.0, -1.0, f32::INFINITY, f32::NAN, 1.0];
        unary(Unary::Log, &mut v);
        assert_eq!((v[0], v[2], v[4]), (f32::NEG_INFINITY, f32::INFINITY, 0.0));
        assert!(v[1].is_nan() && v[3].is_nan());
    }

    /// The bodies are one, so the instruction set changes no bit: rows of many lengths against values one by one.
    #[test]
    fn a_value_does_not_depend_on_its_neighbours() {
        let values: Vec<f32> = (0..131).map(|i| (i as f32 - 60.0) * 0.317).collect();
        let kinds = [Unary::Sigmoid, Unary::Tanh, Unary::Exp, Unary::Log, Unary::Erf, Unary::Softplus, Unary::Elu(0.7)];
        for kind in kinds {
            for length in [1, 7, 8, 16, 17, 131] {
                let mut together = values[..length].to_vec();
                unary(kind, &mut together);
                for (x, y) in values.iter().zip(&together) {
                    let mut alone = [*x];
                    unary_body(kind, &mut alone);
                    assert_eq!(alone[0].to_bits(), y.to_bits(), "{kind:?} of {x}");
                }
            }
        }
    }

    #[test]
    fn functions_keep_nan() {
        for kind in [
            Unary::Relu,
            Unary::Sigmoid,
            Unary::Clip(0.0, 1.0),
            Unary::Exp,
            Unary::Erf,
            Unary::LeakyRelu(0.1),
            Unary::Tanh,
            Unary::Softplus,
            Unary::Elu(1.0),
        ] {
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
}
