//! What is a kernel, in plain Rust?
//!
//! The obvious twin of the fast form, and what processors without AVX2 run.

use super::{BF16, DOT, F16, F32, Kernel, L2};
use crate::segment::vectors::{Matrix, Metric, VectorFormat};

/// Lanes of the sum: as many as one AVX2 register, so that the two forms round alike.
const LANES: usize = 8;

pub(super) fn kernel(metric: Metric, format: VectorFormat) -> Kernel {
    match (metric, format) {
        (Metric::Ip | Metric::Cos, VectorFormat::F32) => floats::<F32, DOT>(),
        (Metric::Ip | Metric::Cos, VectorFormat::Bf16) => floats::<BF16, DOT>(),
        (Metric::Ip | Metric::Cos, VectorFormat::F16) => floats::<F16, DOT>(),
        (Metric::Ip | Metric::Cos, VectorFormat::I8) => bytes::<DOT>(),
        (Metric::L2, VectorFormat::F32) => floats::<F32, L2>(),
        (Metric::L2, VectorFormat::Bf16) => floats::<BF16, L2>(),
        (Metric::L2, VectorFormat::F16) => floats::<F16, L2>(),
        (Metric::L2, VectorFormat::I8) => bytes::<L2>(),
    }
}

fn floats<const ROW: u8, const METRIC: u8>() -> Kernel {
    let batch = |query: &[u8], rows: Matrix<'_>, ordinals: &[u32], out: &mut [f32]| {
        each(rows, ordinals, out, |row| float::<F32, ROW, METRIC>(query, row));
    };
    Kernel { batch, pair: float::<ROW, ROW, METRIC> }
}

fn bytes<const METRIC: u8>() -> Kernel {
    let batch = |query: &[u8], rows: Matrix<'_>, ordinals: &[u32], out: &mut [f32]| {
        let query = || query.chunks_exact(2).map(|b| b.first_chunk().map_or(0, |b| i16::from_le_bytes(*b)));
        each(rows, ordinals, out, |row| integer::<METRIC>(query(), row));
    };
    let pair = |left: &[u8], right: &[u8]| integer::<METRIC>(left.iter().map(|b| i16::from(*b as i8)), right);
    Kernel { batch, pair }
}

fn each(rows: Matrix<'_>, ordinals: &[u32], out: &mut [f32], of: impl Fn(&[u8]) -> f32) {
    for (ordinal, nearness) in ordinals.iter().zip(out) {
        *nearness = rows.row(*ordinal).map_or(f32::NEG_INFINITY, &of);
    }
}

fn element<const KIND: u8>(bytes: &[u8]) -> f32 {
    match (KIND, bytes) {
        (BF16, [a, b]) => f32::from_bits(u32::from(u16::from_le_bytes([*a, *b])) << 16),
        (F16, [a, b]) => half::f16::from_le_bytes([*a, *b]).to_f32(),
        (_, [a, b, c, d]) => f32::from_le_bytes([*a, *b, *c, *d]),
        (_, _) => 0.0,
    }
}

const fn width(kind: u8) -> usize {
    if kind == F32 { 4 } else { 2 }
}

fn float<const LEFT: u8, const RIGHT: u8, const METRIC: u8>(left: &[u8], right: &[u8]) -> f32 {
    let mut sums = [0f32; LANES];
    let pairs = left.chunks_exact(width(LEFT)).zip(right.chunks_exact(width(RIGHT)));
    for (index, (l, r)) in pairs.enumerate() {
        let (l, r) = (element::<LEFT>(l), element::<RIGHT>(r));
        sums[index % LANES] += if METRIC == DOT { l * r } else { (l - r) * (l - r) };
    }
    let sum: f32 = sums.iter().sum();
    if METRIC == DOT { sum } else { -sum }
}

fn integer<const METRIC: u8>(left: impl Iterator<Item = i16>, right: &[u8]) -> f32 {
    let sum: i64 = left
        .zip(right)
        .map(|(l, r)| {
            let (l, r) = (i64::from(l), i64::from(*r as i8));
            if METRIC == DOT { l * r } else { -(l - r) * (l - r) }
        })
        .sum();
    sum as f32
}
