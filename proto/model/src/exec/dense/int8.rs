//! What is the product of rows and a matrix that are both rounded to 8 bits?
//!
//! Each column of the matrix has its own scale, its largest value at 127. The rows have one scale for the layer,
//! from the smallest and largest value that the golden rows put there: -127..127, or 0..255 where nothing is
//! negative, as after an activation. What lies outside is cut. Sums are whole numbers and exact, so every
//! instruction set gives the same bits, and so does the twin.
//!
//! In memory a weight has 16 bits and two rows of a column lie side by side, as AVX2 multiplies and adds pairs:
//! twice the operations of f32 a cycle. With 8-bit operands AVX2 would have to saturate, or to give up a bit.
//!
//! A row with a value that is not finite has no result that is: rounding would hide it.

use super::{PANEL, Rows, TILE, tiles};
use crate::exec::simd::{Isa, simd};
use std::ops::Range;

/// Inputs of a layer that may be rounded: 255 * 127 * 65,536 is below 2^31.
pub(crate) const INPUTS_MAX: usize = 1 << 16;
const _: () = assert!(255 * 127 * INPUTS_MAX < 1 << 31, "sums fit");

/// How rows are rounded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scale {
    /// The distance of two numbers.
    step: f32,
    low: f32,
    high: f32,
}

impl Scale {
    /// For values between these two.
    pub fn of(smallest: f32, largest: f32) -> Self {
        let (low, high, reach) =
            if smallest >= 0.0 { (0.0, 255.0, largest) } else { (-127.0, 127.0, largest.max(-smallest)) };
        // A layer that only ever saw zeros rounds to them.
        let step = if reach > 0.0 && reach.is_finite() { reach / high } else { 1.0 };
        Self { step, low, high }
    }
}

/// Two rows of 16 columns, a column's two side by side.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(64))]
struct Pairs([i16; 2 * PANEL]);

/// A rounded matrix in panels, and how its rows are rounded.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Int8 {
    k: usize,
    n: usize,
    input: Scale,
    pairs: Vec<Pairs>,
    /// What one means in each column, filled up to whole panels.
    scales: Vec<f32>,
}

impl Int8 {
    /// Rounds a row-major matrix of `k * n` values.
    pub fn new(k: usize, n: usize, values: &[f32], input: Scale) -> Self {
        assert!(values.len() == k * n && k <= INPUTS_MAX, "a matrix's dimensions");
        let columns = n.div_ceil(PANEL) * PANEL;
        let mut steps = vec![1f32; columns];
        for (c, step) in steps.iter_mut().enumerate().take(n) {
            let largest = (0..k).map(|r| values[r * n + c].abs()).fold(0f32, f32::max);
            *step = if largest > 0.0 { largest / 127.0 } else { 1.0 };
        }
        let weight = |r: usize, c: usize| {
            if r < k && c < n {
                (values[r * n + c] / steps[c]).round_ties_even().clamp(-127.0, 127.0) as i16
            } else {
                0
            }
        };
        let mut pairs = Vec::with_capacity(columns / PANEL * k.div_ceil(2));
        for panel in 0..columns / PANEL {
            for row in (0..k).step_by(2) {
                pairs.push(Pairs(std::array::from_fn(|i| weight(row + i % 2, panel * PANEL + i / 2))));
            }
        }
        Self { k, n, input, pairs, scales: steps.into_iter().map(|s| s * input.step).collect() }
    }

    /// Numbers that rounding `m` rows takes.
    pub const fn words(&self, m: usize) -> usize {
        m * self.stride()
    }

    /// A rounded row: whole pairs, then 1 if a value was not finite, and nothing.
    const fn stride(&self) -> usize {
        self.k.div_ceil(2) * 2 + 2
    }

    /// Computes `m` rows of `n` results, without gaps; `words` has [`Self::words`].
    pub fn run(
        &self,
        m: usize,
        rows: Rows<'_>,
        words: &mut [i16],
        out: &mut [f32],
        after: impl FnMut(&mut [f32], (Range<usize>, Range<usize>)),
    ) {
        self.run_on(Isa::detected(), m, rows, words, out, after);
    }

    pub(super) fn run_on(
        &self,
        isa: Isa,
        m: usize,
        rows: Rows<'_>,
        words: &mut [i16],
        out: &mut [f32],
        mut after: impl FnMut(&mut [f32], (Range<usize>, Range<usize>)),
    ) {
        assert!(words.len() == self.words(m) && out.len() == m * self.n, "a rounded product's dimensions");
        for (row, words) in words.chunks_exact_mut(self.stride()).enumerate() {
            round(&rows.values[row * rows.stride..][..self.k], self.input, words);
        }
        let panels = self.pairs.chunks_exact(self.k.div_ceil(2).max(1)).zip(self.scales.chunks_exact(PANEL));
        for (panel, (pairs, scales)) in panels.enumerate() {
            let columns = panel * PANEL..self.n.min((panel + 1) * PANEL);
            for (row, count) in tiles(m) {
                let words = &words[row * self.stride()..(row + count) * self.stride()];
                let mut sums = [[0i32; PANEL]; TILE];
                add(isa, words, self.stride(), pairs, &mut sums);
                for (i, (sums, words)) in sums.iter().zip(words.chunks_exact(self.stride())).enumerate() {
                    let poison = if words[self.stride() - 2] == 0 { 0.0 } else { f32::NAN };
                    let result = &mut out[(row + i) * self.n..][columns.clone()];
                    for ((o, sum), scale) in result.iter_mut().zip(sums).zip(scales) {
                        *o = *sum as f32 * scale + poison;
                    }
                }
                after(out, (row..row + count, columns.clone()));
            }
        }
    }
}

simd! {
    /// Rounds a row into pairs.
    fn round(row: &[f32], scale: Scale, words: &mut [i16]) {
        /// All its bits are set in what is not finite.
        const EXPONENT: u32 = 0x7f80_0000;
        /// Adding and taking this away rounds to the nearest integer, ties to even.
        const ROUND: f32 = 12_582_912.0;
        let inverse = 1.0 / scale.step;
        let mut infinite = 0u32;
        for (word, x) in words.iter_mut().zip(row) {
            let y = (x * inverse).max(scale.low).min(scale.high);
            *word = ((y + ROUND).to_bits() & 0xffff) as u16 as i16;
            infinite |= u32::from(x.to_bits() & EXPONENT == EXPONENT);
        }
        words[row.len()..].fill(0);
        let flag = words.len() - 2;
        words[flag] = i16::from(infinite != 0);
    }
}

/// Adds the products of a tile's rows with a panel.
fn add(isa: Isa, words: &[i16], stride: usize, pairs: &[Pairs], sums: &mut [[i32; PANEL]; TILE]) {
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx2 {
        // SAFETY: the processor has AVX2, as `isa` says; `words` are whole rows of `stride`, each of which has two
        // numbers for each of `pairs`.
        unsafe {
            match words.len() / stride {
                1 => avx2::<1>(words.as_ptr(), stride, pairs, sums),
                2 => avx2::<2>(words.as_ptr(), stride, pairs, sums),
                3 => avx2::<3>(words.as_ptr(), stride, pairs, sums),
                4 => avx2::<4>(words.as_ptr(), stride, pairs, sums),
                5 => avx2::<5>(words.as_ptr(), stride, pairs, sums),
                _ => avx2::<6>(words.as_ptr(), stride, pairs, sums),
            }
        }
        return;
    }
    let _ = isa;
    for (row, sums) in words.chunks_exact(stride).zip(sums) {
        for (x, Pairs(weights)) in row.as_chunks::<2>().0.iter().zip(pairs) {
            for (sum, w) in sums.iter_mut().zip(weights.as_chunks::<2>().0) {
                *sum += i32::from(x[0]) * i32::from(w[0]) + i32::from(x[1]) * i32::from(w[1]);
            }
        }
    }
}

/// # Safety
/// The processor has AVX2; `words` points at `M` rows at `stride`, each with two numbers for each of `pairs`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn avx2<const M: usize>(words: *const i16, stride: usize, pairs: &[Pairs], sums: &mut [[i32; PANEL]; TILE]) {
    use std::arch::x86_64::{
        _mm256_add_epi32, _mm256_load_si256, _mm256_madd_epi16, _mm256_set1_epi32, _mm256_setzero_si256,
        _mm256_storeu_si256,
    };
    let mut totals = [[_mm256_setzero_si256(); 2]; M];
    let mut word = words.cast::<i32>();
    for Pairs(weights) in pairs {
        // SAFETY: a line is 64 bytes, aligned to 64; row `i` of `M` has a pair for each line, and rows are whole
        // pairs apart.
        unsafe {
            let low = _mm256_load_si256(weights.as_ptr().cast());
            let high = _mm256_load_si256(weights.as_ptr().add(PANEL).cast());
            for (i, [a, b]) in totals.iter_mut().enumerate() {
                let x = _mm256_set1_epi32(word.add(i.wrapping_mul(stride / 2)).read_unaligned());
                *a = _mm256_add_epi32(*a, _mm256_madd_epi16(x, low));
                *b = _mm256_add_epi32(*b, _mm256_madd_epi16(x, high));
            }
        }
        word = word.wrapping_add(1);
    }
    for (sum, [a, b]) in sums.iter_mut().zip(totals) {
        // SAFETY: 16 sums are two registers.
        unsafe {
            _mm256_storeu_si256(sum.as_mut_ptr().cast(), a);
            _mm256_storeu_si256(sum.as_mut_ptr().add(8).cast(), b);
        }
    }
}
