//! What is a kernel, with AVX2, FMA and F16C?
//!
//! Rows and queries are padded, so that there is no rest: eight floats at a time in four sums, or sixteen
//! bytes widened to i16, whose products `madd` adds exactly in i32. A scan asks for rows ahead of it, because
//! a scattered one waits for memory otherwise.

use super::{BF16, DOT, F16, F32, Kernel, L2, prefetch};
use crate::segment::vectors::{Matrix, Metric, VectorFormat};
use std::arch::x86_64::*;

/// Rows ahead that are asked for.
const AHEAD: usize = 8;

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
        // SAFETY: this form is selected only where AVX2, FMA and F16C have been detected.
        unsafe { float_batch::<ROW, METRIC>(query, rows, ordinals, out) }
    };
    let pair = |left: &[u8], right: &[u8]| {
        // SAFETY: as above.
        unsafe { float::<ROW, ROW, METRIC>(left, right) }
    };
    Kernel { batch, pair }
}

fn bytes<const METRIC: u8>() -> Kernel {
    let batch = |query: &[u8], rows: Matrix<'_>, ordinals: &[u32], out: &mut [f32]| {
        // SAFETY: as above.
        unsafe { integer_batch::<METRIC>(query, rows, ordinals, out) }
    };
    let pair = |left: &[u8], right: &[u8]| {
        // SAFETY: as above.
        unsafe { integer::<1, METRIC>(left, right) }
    };
    Kernel { batch, pair }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn float_batch<const ROW: u8, const METRIC: u8>(query: &[u8], rows: Matrix<'_>, ordinals: &[u32], out: &mut [f32]) {
    for (index, (ordinal, nearness)) in ordinals.iter().zip(out).enumerate() {
        if let Some(row) = ordinals.get(index + AHEAD).and_then(|next| rows.row(*next)) {
            prefetch(row);
        }
        *nearness = rows.row(*ordinal).map_or(f32::NEG_INFINITY, |row| float::<F32, ROW, METRIC>(query, row));
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn integer_batch<const METRIC: u8>(query: &[u8], rows: Matrix<'_>, ordinals: &[u32], out: &mut [f32]) {
    for (index, (ordinal, nearness)) in ordinals.iter().zip(out).enumerate() {
        if let Some(row) = ordinals.get(index + AHEAD).and_then(|next| rows.row(*next)) {
            prefetch(row);
        }
        *nearness = rows.row(*ordinal).map_or(f32::NEG_INFINITY, |row| integer::<2, METRIC>(query, row));
    }
}

const fn width(kind: u8) -> usize {
    if kind == F32 { 4 } else { 2 }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn float<const LEFT: u8, const RIGHT: u8, const METRIC: u8>(left: &[u8], right: &[u8]) -> f32 {
    let elements = (left.len() / width(LEFT)).min(right.len() / width(RIGHT));
    let mut sums = [_mm256_setzero_ps(); 4];
    let mut at = 0;
    while at + 32 <= elements {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum = step::<METRIC>(eight::<LEFT>(left, at + lane * 8), eight::<RIGHT>(right, at + lane * 8), *sum);
        }
        at += 32;
    }
    while at + 8 <= elements {
        sums[0] = step::<METRIC>(eight::<LEFT>(left, at), eight::<RIGHT>(right, at), sums[0]);
        at += 8;
    }
    let lanes = _mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3]));
    let half = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
    let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
    let total = _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)));
    if METRIC == DOT { total } else { -total }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn step<const METRIC: u8>(left: __m256, right: __m256, sum: __m256) -> __m256 {
    if METRIC == DOT {
        _mm256_fmadd_ps(left, right, sum)
    } else {
        let difference = _mm256_sub_ps(left, right);
        _mm256_fmadd_ps(difference, difference, sum)
    }
}

/// Elements `at..at + 8`, which the caller has checked to be there.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn eight<const KIND: u8>(bytes: &[u8], at: usize) -> __m256 {
    debug_assert!((at + 8) * width(KIND) <= bytes.len());
    if KIND == F32 {
        // SAFETY: eight elements of four bytes are inside the slice; the load needs no alignment.
        return unsafe { _mm256_loadu_ps(bytes.as_ptr().add(at * 4).cast()) };
    }
    // SAFETY: eight elements of two bytes are inside the slice; the load needs no alignment.
    let halves = unsafe { _mm_loadu_si128(bytes.as_ptr().add(at * 2).cast()) };
    if KIND == F16 {
        _mm256_cvtph_ps(halves)
    } else {
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves)))
    }
}

/// `WIDTH`: bytes of an element on the left, 2 for a query and 1 for a row.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn integer<const WIDTH: usize, const METRIC: u8>(left: &[u8], right: &[u8]) -> f32 {
    let elements = (left.len() / WIDTH).min(right.len());
    let mut sums = [_mm256_setzero_si256(); 4];
    let mut at = 0;
    while at + 64 <= elements {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum = _mm256_add_epi32(*sum, sixteen::<WIDTH, METRIC>(left, right, at + lane * 16));
        }
        at += 64;
    }
    while at + 16 <= elements {
        sums[0] = _mm256_add_epi32(sums[0], sixteen::<WIDTH, METRIC>(left, right, at));
        at += 16;
    }
    let lanes = _mm256_add_epi32(_mm256_add_epi32(sums[0], sums[1]), _mm256_add_epi32(sums[2], sums[3]));
    // Eight lanes of squares may leave an i32 together, though none does alone; products never do.
    if METRIC == L2 {
        let mut parts = [0i32; 8];
        // SAFETY: eight lanes of four bytes into as many.
        unsafe { _mm256_storeu_si256(parts.as_mut_ptr().cast(), lanes) };
        return -(parts.iter().map(|part| i64::from(*part)).sum::<i64>() as f32);
    }
    let half = _mm_add_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256::<1>(lanes));
    let pair = _mm_add_epi32(half, _mm_shuffle_epi32::<0b00_00_11_10>(half));
    _mm_cvtsi128_si32(_mm_add_epi32(pair, _mm_shuffle_epi32::<1>(pair))) as f32
}

/// The eight sums of two of elements `at..at + 16`, which the caller has checked to be there.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn sixteen<const WIDTH: usize, const METRIC: u8>(left: &[u8], right: &[u8], at: usize) -> __m256i {
    debug_assert!((at + 16) * WIDTH <= left.len() && at + 16 <= right.len());
    // SAFETY: sixteen bytes are inside the slice; the load needs no alignment.
    let right = _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(right.as_ptr().add(at).cast()) });
    let left = if WIDTH == 2 {
        // SAFETY: sixteen elements of two bytes are inside the slice; the load needs no alignment.
        unsafe { _mm256_loadu_si256(left.as_ptr().add(at * 2).cast()) }
    } else {
        // SAFETY: sixteen bytes are inside the slice; the load needs no alignment.
        _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(left.as_ptr().add(at).cast()) })
    };
    if METRIC == DOT {
        _mm256_madd_epi16(left, right)
    } else {
        let difference = _mm256_sub_epi16(left, right);
        _mm256_madd_epi16(difference, difference)
    }
}
