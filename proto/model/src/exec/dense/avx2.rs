//! How does a tile of a product look in AVX2 and FMA?
//!
//! For each line of the panel: two loads, and for each row one broadcast and two fused operations. Twelve sums are
//! in flight; eight would hide the latency of four cycles at two a cycle. A line of bf16 is widened as it is
//! loaded, once for all rows of the tile.

use super::finish::Change;
use super::{Start, TILE, Tile};
use half::bf16;
use std::arch::x86_64::{
    __m256, _mm_loadu_si128, _mm256_add_ps, _mm256_broadcast_ss, _mm256_castsi256_ps, _mm256_cvtepu16_epi32,
    _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_max_ps, _mm256_mul_ps, _mm256_setzero_ps, _mm256_slli_epi32,
    _mm256_storeu_ps,
};

const _: () = assert!(TILE == 6, "a kernel for each number of rows");

/// 8 weights.
///
/// # Safety
/// `line` points at 8 of them.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn load(line: *const f32) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe { _mm256_loadu_ps(line) }
}

/// 8 weights, widened.
///
/// # Safety
/// `line` points at 8 of them.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn load_bf16(line: *const bf16) -> __m256 {
    // SAFETY: the caller's promise: 16 bytes.
    let bits = unsafe { _mm_loadu_si128(line.cast()) };
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits)))
}

/// One step on all sums of a tile. No function: taken by reference, the sums would leave their registers.
macro_rules! finish {
    ($at:ident, $sums:ident) => {{
        let operand = |i: usize| {
            let values = $at.values.wrapping_add(i.wrapping_mul($at.stride));
            (_mm256_loadu_ps(values), _mm256_loadu_ps(values.wrapping_add(8)))
        };
        match $at.change {
            Change::Add => {
                for (i, [a, b]) in $sums.iter_mut().enumerate() {
                    let (x, y) = operand(i);
                    (*a, *b) = (_mm256_add_ps(*a, x), _mm256_add_ps(*b, y));
                }
            }
            Change::Multiply => {
                for (i, [a, b]) in $sums.iter_mut().enumerate() {
                    let (x, y) = operand(i);
                    (*a, *b) = (_mm256_mul_ps(*a, x), _mm256_mul_ps(*b, y));
                }
            }
            Change::Relu => {
                // The second of two is given where the first is not greater: NaN and -0 stay.
                let zero = _mm256_setzero_ps();
                for [a, b] in $sums.iter_mut() {
                    (*a, *b) = (_mm256_max_ps(zero, *a), _mm256_max_ps(zero, *b));
                }
            }
        }
    }};
}

macro_rules! tiles {
    ($name:ident, $rows:ident, $weight:ty, $load:ident) => {
        /// # Safety
        /// As [`super::Kernel`], on a processor with AVX2 and FMA.
        pub(super) unsafe fn $name(t: Tile<$weight>) {
            // SAFETY: the caller's promise, passed on; `m` is at least the rows that each kernel computes.
            unsafe {
                match t.m {
                    1 => $rows::<1>(t),
                    2 => $rows::<2>(t),
                    3 => $rows::<3>(t),
                    4 => $rows::<4>(t),
                    5 => $rows::<5>(t),
                    _ => $rows::<6>(t),
                }
            }
        }

        #[target_feature(enable = "avx2,fma")]
        unsafe fn $rows<const M: usize>(t: Tile<$weight>) {
            let mut sums: [[__m256; 2]; M] = [[_mm256_setzero_ps(); 2]; M];
            // SAFETY: every address lies within what the caller of the tile promised: `M` rows of `k` values, `k`
            // lines, `M` results and operands of 16 values, at their strides.
            unsafe {
                if t.start == Start::Result {
                    for (i, sum) in sums.iter_mut().enumerate() {
                        let result = t.result.wrapping_add(i.wrapping_mul(t.result_stride));
                        *sum = [_mm256_loadu_ps(result), _mm256_loadu_ps(result.wrapping_add(8))];
                    }
                }
                let (mut line, mut row) = (t.lines, t.rows);
                for _ in 0..t.k {
                    let (low, high) = ($load(line), $load(line.add(8)));
                    for (i, [a, b]) in sums.iter_mut().enumerate() {
                        let x = _mm256_broadcast_ss(&*row.add(i.wrapping_mul(t.row_stride)));
                        *a = _mm256_fmadd_ps(x, low, *a);
                        *b = _mm256_fmadd_ps(x, high, *b);
                    }
                    line = line.wrapping_add(t.line_stride);
                    row = row.wrapping_add(1);
                }
                let mut step = 0;
                while let Some(at) = t.finish.get(step) {
                    finish!(at, sums);
                    step += 1;
                }
                for (i, [a, b]) in sums.iter().enumerate() {
                    let result = t.result.wrapping_add(i.wrapping_mul(t.result_stride));
                    _mm256_storeu_ps(result, *a);
                    _mm256_storeu_ps(result.wrapping_add(8), *b);
                }
            }
        }
    };
}

tiles!(tile, rows, f32, load);
tiles!(tile_bf16, rows_bf16, bf16, load_bf16);
