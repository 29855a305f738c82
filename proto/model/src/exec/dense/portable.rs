//! How does a tile of a product look without vector instructions named?
//!
//! Loops over 16 columns that the compiler turns into what the architecture's baseline has: NEON with fused
//! operations on aarch64, SSE2 on x86-64. The twin of the other kernels, and what runs where they cannot.

use super::{PANEL, Start, Tile, Weight, finish, fused};

/// # Safety
/// As [`super::Kernel`].
pub(super) unsafe fn tile<W: Weight>(t: Tile<W>) {
    for i in 0..t.m {
        // SAFETY: row `i` of `m`, its `k` values, the `k` lines of 16 values, its operands and its result, as the caller promised.
        unsafe {
            let result = t.result.add(i * t.result_stride).cast::<[f32; PANEL]>();
            let mut sums = if t.start == Start::Result { result.read_unaligned() } else { [0.0; PANEL] };
            for at in 0..t.k {
                let x = *t.rows.add(i * t.row_stride + at);
                let line = t.lines.add(at * t.line_stride).cast::<[W; PANEL]>().read_unaligned();
                for (sum, w) in sums.iter_mut().zip(line) {
                    *sum = fused(x, w.widen(), *sum);
                }
            }
            let mut step = 0;
            while let Some(at) = t.finish.get(step) {
                finish::row(at, i, &mut sums);
                step += 1;
            }
            result.write_unaligned(sums);
        }
    }
}
