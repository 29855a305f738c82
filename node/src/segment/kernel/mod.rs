//! How near is this query to this row?
//!
//! A number that is larger for nearer: the product, or the negated squared distance. Rows are bytes as they
//! stand in the file, padded ([`VectorFormat::row_bytes`]); a query is f32, or i16 for rows of i8, where sums
//! are exact integers. Each kernel has two forms, AVX2 with FMA and F16C, and plain Rust, chosen once by what
//! the processor can do; a property test compares them, for i8 to the bit. AVX-512 would not help a scan,
//! which is bound by memory well before that; VNNI would help i8, but no machine of ours could test it.

mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::vectors::{Matrix, Metric, VectorFormat};

/// What is said of two vectors, as bytes.
pub(crate) type One = fn(left: &[u8], right: &[u8]) -> f32;
/// What is said of a query and these rows.
pub(crate) type Batch = fn(query: &[u8], rows: Matrix<'_>, ordinals: &[u32], out: &mut [f32]);

/// The forms of one metric over one format.
#[derive(Clone, Copy)]
pub(crate) struct Kernel {
    /// A query and many rows.
    pub(crate) batch: Batch,
    /// Two rows, for linking the graph.
    pub(crate) pair: One,
}

/// Const parameters: what is summed.
const DOT: u8 = 0;
const L2: u8 = 1;
/// Const parameters: what an element is.
const F32: u8 = 0;
const BF16: u8 = 1;
const F16: u8 = 2;

impl Kernel {
    /// The fastest this processor has.
    pub(crate) fn select(metric: Metric, format: VectorFormat) -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
            return x86::kernel(metric, format);
        }
        scalar::kernel(metric, format)
    }
}

/// Asks for the first cache lines of a row that will be read soon; the processor follows by itself from there.
#[inline]
pub(crate) fn prefetch<T>(row: &[T]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        /// Lines; more would push each other out of the few buffers for lines on their way.
        const LINES: usize = 4;
        let bytes = size_of_val(row).min(LINES * 64);
        let start = row.as_ptr().cast::<i8>();
        let mut at = 0;
        while at < bytes {
            // SAFETY: inside the slice; and a prefetch never faults.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.add(at)) };
            at += 64;
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = row;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::{quantize::Scaling, vectors::Encoding};
    use proptest::prelude::*;

    const FORMATS: [VectorFormat; 4] = [VectorFormat::F32, VectorFormat::Bf16, VectorFormat::F16, VectorFormat::I8];

    proptest! {
        #[test]
        fn both_forms_agree(
            dimension in 1usize..150,
            seed in any::<u64>(),
            metric in proptest::sample::select(&[Metric::Ip, Metric::L2][..]),
            format in proptest::sample::select(&FORMATS[..]),
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
            let scaling = Scaling::of(&rows, dimension);
            let encoding = Encoding { scaling, ..Encoding::unscaled(dimension, metric, format) };
            let mut bytes = Vec::new();
            rows.chunks(dimension).for_each(|row| encoding.encode(row, &mut bytes));
            prop_assert_eq!(bytes.len(), 20 * encoding.stride());
            let matrix = Matrix::new(&bytes, dimension, format);
            let (fast, plain) = (Kernel::select(metric, format), scalar::kernel(metric, format));
            let ordinals: Vec<u32> = (0..21).collect();
            let (mut a, mut b) = (vec![0.0; 21], vec![0.0; 21]);
            let q = encoding.query(&query);
            (fast.batch)(&q.bytes, matrix, &ordinals, &mut a);
            (plain.batch)(&q.bytes, matrix, &ordinals, &mut b);
            prop_assert_eq!((a[20], b[20]), (f32::NEG_INFINITY, f32::NEG_INFINITY));
            let tolerance = if format == VectorFormat::I8 { 0.0 } else { 1e-5 * dimension as f32 };
            // What rounding to the format costs: half a step in each of the dimensions, of values up to 2.
            let rounding = match format {
                VectorFormat::F32 => 1e-5,
                VectorFormat::F16 => 2e-3,
                VectorFormat::Bf16 => 2e-2,
                VectorFormat::I8 => 5e-2,
            } * dimension as f32;
            for (ordinal, (x, y)) in a.iter().zip(&b).take(20).enumerate() {
                prop_assert!((x - y).abs() <= tolerance, "{x} {y}");
                let (row, other) = (matrix.row(ordinal as u32).unwrap(), matrix.row(0).unwrap());
                let (p, s) = ((fast.pair)(other, row), (plain.pair)(other, row));
                prop_assert!((p - s).abs() <= tolerance, "{p} {s}");
                // And both are what the vectors themselves say.
                let exact: f32 = query.iter().zip(&rows[ordinal * dimension..]).map(|(q, r)| match metric {
                    Metric::Ip | Metric::Cos => q * r,
                    Metric::L2 => -(q - r) * (q - r),
                }).sum();
                prop_assert!((q.similarity(*x) - exact).abs() <= rounding, "{} {exact}", q.similarity(*x));
            }
        }
    }

    #[test]
    fn the_largest_sums_fit() {
        for metric in [Metric::Ip, Metric::L2] {
            let scaling = Scaling { centre: vec![0.0; 2_048], step: 1.0 };
            let encoding = Encoding { scaling, ..Encoding::unscaled(2_048, metric, VectorFormat::I8) };
            let mut row = Vec::new();
            encoding.encode(&[-1e6; 2_048], &mut row);
            let query = encoding.query(&[1e6; 2_048]);
            let matrix = Matrix::new(&row, 2_048, VectorFormat::I8);
            let (mut a, mut b) = ([0.0], [0.0]);
            (Kernel::select(metric, VectorFormat::I8).batch)(&query.bytes, matrix, &[0], &mut a);
            (scalar::kernel(metric, VectorFormat::I8).batch)(&query.bytes, matrix, &[0], &mut b);
            let expected = match metric {
                Metric::Ip | Metric::Cos => -127.0 * 2_047.0 * 2_048.0,
                Metric::L2 => -1_150.0f64 * 1_150.0 * 2_048.0,
            };
            assert_eq!(a, b);
            assert!((f64::from(a[0]) / expected - 1.0).abs() < 1e-6, "{a:?} {expected}");
        }
    }
}
