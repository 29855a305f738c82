//! How near is this query to this row?
//!
//! Similarity is larger for nearer: the dot product, or the negated squared distance. Rows are bytes as
//! they stand in the file, f32 or bf16; a query is always f32. Each kernel has two forms, AVX2 with FMA and
//! plain Rust, chosen once by what the processor can do; a property test compares them. AVX-512 would not
//! help here: a scan is bound by memory well before that.

use super::vectors::{Matrix, Metric, VectorFormat};

/// The similarity of a query and a row, both as little-endian bytes.
pub(crate) type One = fn(query: &[u8], row: &[u8]) -> f32;
/// The similarities of a query to these rows.
pub(crate) type Batch = fn(query: &[u8], rows: Matrix<'_>, ordinals: &[u32], out: &mut [f32]);

/// The forms of one metric over one format.
#[derive(Clone, Copy)]
pub(crate) struct Kernel {
    /// An f32 query and a row.
    pub(crate) one: One,
    /// An f32 query and many rows.
    pub(crate) batch: Batch,
    /// Two rows, for linking the graph: larger for nearer.
    pub(crate) pair: One,
}

impl Kernel {
    /// The fastest this processor has.
    pub(crate) fn select(metric: Metric, format: VectorFormat) -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return x86::kernel(metric, format);
        }
        Self::scalar(metric, format)
    }

    /// Plain Rust.
    pub(crate) fn scalar(metric: Metric, format: VectorFormat) -> Self {
        use scalar::{batch, link, one};
        match (metric, format) {
            (Metric::Ip | Metric::Cos, VectorFormat::F32) => {
                Self { one: one::<4, 4, DOT>, batch: batch::<4, DOT>, pair: link::<4> }
            }
            (Metric::Ip | Metric::Cos, VectorFormat::Bf16) => {
                Self { one: one::<4, 2, DOT>, batch: batch::<2, DOT>, pair: link::<2> }
            }
            (Metric::L2, VectorFormat::F32) => {
                Self { one: one::<4, 4, L2>, batch: batch::<4, L2>, pair: one::<4, 4, L2> }
            }
            (Metric::L2, VectorFormat::Bf16) => {
                Self { one: one::<4, 2, L2>, batch: batch::<2, L2>, pair: one::<2, 2, L2> }
            }
        }
    }
}

/// Const parameters: the metric, and bytes of an element (4 = f32, 2 = bf16).
const DOT: u8 = 0;
const L2: u8 = 1;

/// How near two rows are where the inner product searches, from their product and their squared lengths: the negated
/// squared distance after each length was replaced by its square root.
///
/// Linked by inner product, all rows would be neighbours of the few longest and of nothing else. Linked by distance,
/// or by angle alone, a walk by inner product finds its way, but over some vectors badly. With square roots it did well
/// over all that were tried: over a trained tower's vectors recall was .99, linked by distance .95, by angle .98, by
/// inner product .38.
fn linkage([product, left, right]: [f32; 3]) -> f32 {
    let (left, right) = (left.sqrt(), right.sqrt());
    let lengths = (left * right).sqrt();
    let shrunk = if lengths > 0.0 { product / lengths } else { 0.0 };
    2.0 * shrunk - left - right
}

mod scalar {
    use super::Matrix;

    /// Lanes of the sum: as many as one AVX2 register, so that the two forms round alike.
    const LANES: usize = 8;

    fn element<const WIDTH: usize>(bytes: &[u8]) -> f32 {
        match (WIDTH, bytes) {
            (2, [a, b]) => f32::from_bits(u32::from(u16::from_le_bytes([*a, *b])) << 16),
            (_, [a, b, c, d]) => f32::from_le_bytes([*a, *b, *c, *d]),
            (_, _) => 0.0,
        }
    }

    pub(super) fn one<const Q: usize, const R: usize, const METRIC: u8>(query: &[u8], row: &[u8]) -> f32 {
        let mut sums = [0f32; LANES];
        for (index, (q, r)) in query.chunks_exact(Q).zip(row.chunks_exact(R)).enumerate() {
            let (q, r) = (element::<Q>(q), element::<R>(r));
            sums[index % LANES] += if METRIC == super::DOT { q * r } else { (q - r) * (q - r) };
        }
        let sum: f32 = sums.iter().sum();
        if METRIC == super::DOT { sum } else { -sum }
    }

    pub(super) fn link<const W: usize>(a: &[u8], b: &[u8]) -> f32 {
        let sum = |x, y| one::<W, W, { super::DOT }>(x, y);
        super::linkage([sum(a, b), sum(a, a), sum(b, b)])
    }

    pub(super) fn batch<const R: usize, const METRIC: u8>(
        query: &[u8],
        rows: Matrix<'_>,
        ordinals: &[u32],
        out: &mut [f32],
    ) {
        for (ordinal, similarity) in ordinals.iter().zip(out) {
            *similarity = rows.row(*ordinal).map_or(f32::NEG_INFINITY, |row| one::<4, R, METRIC>(query, row));
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{DOT, Kernel, L2, Matrix, Metric, VectorFormat};
    use std::arch::x86_64::*;

    /// Rows ahead that are asked for: a scattered scan waits for memory otherwise.
    const AHEAD: usize = 8;

    pub(super) fn kernel(metric: Metric, format: VectorFormat) -> Kernel {
        match (metric, format) {
            (Metric::Ip | Metric::Cos, VectorFormat::F32) => {
                Kernel { one: one::<4, 4, DOT>, batch: batch::<4, DOT>, pair: link::<4> }
            }
            (Metric::Ip | Metric::Cos, VectorFormat::Bf16) => {
                Kernel { one: one::<4, 2, DOT>, batch: batch::<2, DOT>, pair: link::<2> }
            }
            (Metric::L2, VectorFormat::F32) => {
                Kernel { one: one::<4, 4, L2>, batch: batch::<4, L2>, pair: one::<4, 4, L2> }
            }
            (Metric::L2, VectorFormat::Bf16) => {
                Kernel { one: one::<4, 2, L2>, batch: batch::<2, L2>, pair: one::<2, 2, L2> }
            }
        }
    }

    fn one<const Q: usize, const R: usize, const METRIC: u8>(query: &[u8], row: &[u8]) -> f32 {
        // SAFETY: this form is selected only where AVX2 and FMA have been detected.
        unsafe { similarity::<Q, R, METRIC>(query, row) }
    }

    fn link<const W: usize>(a: &[u8], b: &[u8]) -> f32 {
        // SAFETY: as above.
        unsafe { link_avx2::<W>(a, b) }
    }

    fn batch<const R: usize, const METRIC: u8>(query: &[u8], rows: Matrix<'_>, ordinals: &[u32], out: &mut [f32]) {
        // SAFETY: as above.
        unsafe { batch_avx2::<R, METRIC>(query, rows, ordinals, out) }
    }

    #[target_feature(enable = "avx2,fma")]
    fn batch_avx2<const R: usize, const METRIC: u8>(query: &[u8], rows: Matrix<'_>, ordinals: &[u32], out: &mut [f32]) {
        for (index, (ordinal, nearness)) in ordinals.iter().zip(out).enumerate() {
            if let Some(row) = ordinals.get(index + AHEAD).and_then(|next| rows.row(*next)) {
                for line in row.chunks(64) {
                    _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
                }
            }
            *nearness = rows.row(*ordinal).map_or(f32::NEG_INFINITY, |row| similarity::<4, R, METRIC>(query, row));
        }
    }

    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn similarity<const Q: usize, const R: usize, const METRIC: u8>(query: &[u8], row: &[u8]) -> f32 {
        let dimension = (query.len() / Q).min(row.len() / R);
        let mut sums = [_mm256_setzero_ps(); 4];
        let mut at = 0;
        while at + 32 <= dimension {
            for (lane, sum) in sums.iter_mut().enumerate() {
                *sum = step::<Q, R, METRIC>(query, row, at + lane * 8, *sum);
            }
            at += 32;
        }
        while at + 8 <= dimension {
            sums[0] = step::<Q, R, METRIC>(query, row, at, sums[0]);
            at += 8;
        }
        let total = total(_mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3])));
        let total = if METRIC == DOT { total } else { -total };
        if at == dimension {
            return total;
        }
        let rest = super::scalar::one::<Q, R, METRIC>;
        total + rest(query.get(at * Q..).unwrap_or(&[]), row.get(at * R..).unwrap_or(&[]))
    }

    /// The three sums in one pass: each row is loaded once.
    #[target_feature(enable = "avx2,fma")]
    fn link_avx2<const W: usize>(a: &[u8], b: &[u8]) -> f32 {
        let dimension = (a.len() / W).min(b.len() / W);
        let mut sums = [_mm256_setzero_ps(); 3];
        let mut at = 0;
        while at + 8 <= dimension {
            let (x, y) = (eight::<W>(a, at), eight::<W>(b, at));
            sums = [_mm256_fmadd_ps(x, y, sums[0]), _mm256_fmadd_ps(x, x, sums[1]), _mm256_fmadd_ps(y, y, sums[2])];
            at += 8;
        }
        let mut totals = [total(sums[0]), total(sums[1]), total(sums[2])];
        if at < dimension {
            let (a, b) = (a.get(at * W..).unwrap_or(&[]), b.get(at * W..).unwrap_or(&[]));
            for (total, (x, y)) in totals.iter_mut().zip([(a, b), (a, a), (b, b)]) {
                *total += super::scalar::one::<W, W, DOT>(x, y);
            }
        }
        super::linkage(totals)
    }

    /// The sum of the lanes.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn total(lanes: __m256) -> f32 {
        let half = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
        let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
        _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)))
    }

    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn step<const Q: usize, const R: usize, const METRIC: u8>(q: &[u8], r: &[u8], at: usize, sum: __m256) -> __m256 {
        let (q, r) = (eight::<Q>(q, at), eight::<R>(r, at));
        if METRIC == DOT {
            _mm256_fmadd_ps(q, r, sum)
        } else {
            let d = _mm256_sub_ps(q, r);
            _mm256_fmadd_ps(d, d, sum)
        }
    }

    /// Elements `at..at + 8`, which the caller has checked to be there.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn eight<const WIDTH: usize>(bytes: &[u8], at: usize) -> __m256 {
        debug_assert!((at + 8) * WIDTH <= bytes.len());
        if WIDTH == 2 {
            // SAFETY: eight elements of two bytes are inside the slice; the load needs no alignment.
            let halves = unsafe { _mm_loadu_si128(bytes.as_ptr().add(at * 2).cast()) };
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves)))
        } else {
            // SAFETY: eight elements of four bytes are inside the slice; the load needs no alignment.
            unsafe { _mm256_loadu_ps(bytes.as_ptr().add(at * 4).cast()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::vectors::encode;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn both_forms_agree(
            dimension in 1usize..150,
            seed in any::<u64>(),
            l2 in any::<bool>(),
            bf16 in any::<bool>(),
        ) {
            let mut state = seed | 1;
            let mut next = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 40) as f32 / (1 << 23) as f32 - 1.0
            };
            let query: Vec<f32> = (0..dimension).map(|_| next()).collect();
            let rows: Vec<f32> = (0..dimension * 20).map(|_| next()).collect();
            let format = if bf16 { VectorFormat::Bf16 } else { VectorFormat::F32 };
            let metric = if l2 { Metric::L2 } else { Metric::Ip };
            let mut bytes = Vec::new();
            rows.chunks(dimension).for_each(|row| encode(row, format, &mut bytes));
            let matrix = Matrix::new(&bytes, dimension, format);
            let (fast, plain) = (Kernel::select(metric, format), Kernel::scalar(metric, format));
            let ordinals: Vec<u32> = (0..21).collect();
            let (mut a, mut b) = (vec![0.0; 21], vec![0.0; 21]);
            let q = bytemuck::cast_slice(&query);
            (fast.batch)(q, matrix, &ordinals, &mut a);
            (plain.batch)(q, matrix, &ordinals, &mut b);
            prop_assert_eq!(a[20], f32::NEG_INFINITY);
            for (ordinal, (x, y)) in a.iter().zip(&b).take(20).enumerate() {
                prop_assert!((x - y).abs() <= 1e-5 * dimension as f32, "{x} {y}");
                let row = matrix.row(ordinal as u32).unwrap();
                prop_assert_eq!((fast.one)(q, row).to_bits(), x.to_bits());
                let other = matrix.row(0).unwrap();
                let (p, s) = ((fast.pair)(other, row), (plain.pair)(other, row));
                prop_assert!((p - s).abs() <= 1e-5 * dimension as f32, "{p} {s}");
            }
        }
    }
}
