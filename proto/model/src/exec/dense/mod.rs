//! What is the product of a block of rows and a matrix, as fast as this processor can?
//!
//! A layer's matrix is known long before its rows, so it is laid out once ([`Panels`]): panels of 16 columns, each
//! panel's rows one after the other, as the innermost loop reads them. A tile of up to 6 rows by 16 columns stays
//! in registers over [`DEPTH`] rows of a panel; such a piece of a panel (16 KB) stays in the first-level cache for
//! all rows of the block. Rows are read where they lie.
//!
//! A value of the result is `((0 + a0 b0) + a1 b1) + ..` in this order, whatever the tile, the block and the
//! neighbours, so a row's result depends on the row alone. With FMA each step rounds once: every kernel that has it
//! gives the same bits, and so does [`f32::mul_add`], the twin of the tests. The portable kernel of x86-64 rounds
//! twice.
//!
//! Bias, sums, products and ReLU that follow are done on the tile's sums in their registers ([`finish`]); what
//! comes after runs over each tile while it is in the cache ([`super::tail`]).
//!
//! The `gemm` crate lays the matrix out anew in each call and writes the result before anything can be added; see
//! `docs/design/0007-prepacked-layers.md` for both side by side.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod finish;
mod int8;
mod portable;

pub(crate) use finish::{Change, Finish, STEPS_MAX};
pub(crate) use int8::{INPUTS_MAX, Int8, Scale};

use super::simd::Isa;
use finish::{At, Steps};
use half::bf16;
use std::ops::Range;

/// Columns of a panel: two AVX2 registers.
pub(crate) const PANEL: usize = 16;
/// Rows of a panel that a tile passes before the next tile: 16 KB of panel in the first-level cache.
const DEPTH: usize = 256;
/// Up to so many inputs a layer writes as much as it computes: its rows are finished a few at a time, one after the
/// other in memory, and the matrix is read again from the second-level cache.
const SHALLOW: usize = 64;
const SHALLOW_ROWS: usize = 2 * TILE;
/// Bytes that a processor fetches at once.
const CACHE_LINE: usize = 64;
/// Rows of the largest tile: 12 registers of sums, 2 of the panel and 1 of a row are 15 of 16.
const TILE: usize = 6;

/// What a matrix is kept in. Sums are f32, whatever it is.
pub(crate) trait Weight: Copy + Default + std::fmt::Debug + PartialEq {
    /// As it is multiplied.
    fn widen(self) -> f32;
    fn narrow(x: f32) -> Self;
    /// The best kernel for a processor.
    fn kernel(isa: Isa) -> Kernel<Self>;
}

impl Weight for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    fn narrow(x: f32) -> Self {
        x
    }
    fn kernel(isa: Isa) -> Kernel<Self> {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::tile,
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 => portable::tile,
            Isa::Portable => portable::tile,
        }
    }
}

/// Half the memory; the rows and the sums stay f32.
impl Weight for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    fn narrow(x: f32) -> Self {
        Self::from_f32(x)
    }
    fn kernel(isa: Isa) -> Kernel<Self> {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::tile_bf16,
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 => portable::tile,
            Isa::Portable => portable::tile,
        }
    }
}

/// 16 columns of one row of a matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(32))]
struct Line<W>([W; PANEL]);

/// A matrix of `k` rows and `n` columns in panels; the last one is filled up with zeros.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Panels<W = f32> {
    k: usize,
    n: usize,
    lines: Vec<Line<W>>,
}

impl<W: Weight> Panels<W> {
    /// Lays out a row-major matrix; `values` has `k * n`.
    pub fn new(k: usize, n: usize, values: &[f32]) -> Self {
        assert_eq!(values.len(), k * n, "a matrix's dimensions");
        let mut lines = Vec::with_capacity(n.div_ceil(PANEL) * k);
        for from in (0..n).step_by(PANEL) {
            let to = n.min(from + PANEL);
            for row in values.chunks_exact(n) {
                let mut line = [W::default(); PANEL];
                line.iter_mut().zip(&row[from..to]).for_each(|(w, x)| *w = W::narrow(*x));
                lines.push(Line(line));
            }
        }
        Self { k, n, lines }
    }
}

/// The right side of a product.
#[derive(Clone, Copy)]
pub(crate) enum Right<'a> {
    /// Laid out before.
    Panels(&'a Panels),
    /// Laid out before, in half the memory.
    Half(&'a Panels<bf16>),
    /// `k` rows of `n` values that were computed just now: too few to be worth laying out.
    Rows(&'a [f32]),
}

/// Rows at a distance.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub values: &'a [f32],
    pub stride: usize,
}

/// Dimensions of a product: `[m, k] x [k, n]`, its results `stride` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub m: usize,
    pub k: usize,
    pub n: usize,
    pub stride: usize,
}

/// Where a tile's sums begin.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    Zero,
    /// Where the rows of the panel before have left them.
    Result,
}

/// What a tile reads and writes: `m` rows of `k` values against `k` lines.
#[derive(Clone, Copy)]
pub(crate) struct Tile<W> {
    m: usize,
    k: usize,
    start: Start,
    rows: *const f32,
    row_stride: usize,
    lines: *const W,
    line_stride: usize,
    result: *mut f32,
    result_stride: usize,
    finish: Steps,
}

/// Computes a tile.
///
/// # Safety
/// `1 <= m <= TILE`; `m` rows of `k` values, `k` lines of 16 values, `m` results of 16 values and as many of each
/// step's operand at the given strides are valid, and the results overlap nothing else.
pub(crate) type Kernel<W> = unsafe fn(Tile<W>);

/// Computes a product, changes it step by step, and calls `after` with rows and columns whose results are complete
/// and still in the cache.
///
/// Results that lie between `n` and `stride` are left alone.
pub(crate) fn product(
    size: Size,
    rows: Rows<'_>,
    right: Right<'_>,
    steps: &[Finish<'_>],
    out: &mut [f32],
    after: impl FnMut(&mut [f32], (Range<usize>, Range<usize>)),
) {
    product_on(Isa::detected(), (size, rows, right), steps, out, after);
}

fn product_on(
    isa: Isa,
    (size, rows, right): (Size, Rows<'_>, Right<'_>),
    steps: &[Finish<'_>],
    out: &mut [f32],
    after: impl FnMut(&mut [f32], (Range<usize>, Range<usize>)),
) {
    match right {
        Right::Panels(panels) => product_with(isa, (size, rows, &Lines::laid_out(panels, size)), steps, out, after),
        Right::Half(panels) => product_with(isa, (size, rows, &Lines::laid_out(panels, size)), steps, out, after),
        Right::Rows(values) => product_with(isa, (size, rows, &Lines::as_they_lie(values, size)), steps, out, after),
    }
}

fn product_with<W: Weight>(
    isa: Isa,
    (size, rows, lines): (Size, Rows<'_>, &Lines<'_, W>),
    steps: &[Finish<'_>],
    out: &mut [f32],
    mut after: impl FnMut(&mut [f32], (Range<usize>, Range<usize>)),
) {
    let Size { m, k, n, stride } = size;
    if m == 0 || n == 0 {
        return;
    }
    assert!(rows.stride >= k && rows.values.len() >= (m - 1) * rows.stride + k, "rows of a product");
    assert!(stride >= n && out.len() >= (m - 1) * stride + n, "results of a product");
    assert!(steps.len() <= STEPS_MAX, "steps of a product");
    steps.iter().for_each(|s| s.check(m, n));
    let tile = W::kernel(isa);
    let whole = n / PANEL * PANEL;
    let group = if k <= SHALLOW { SHALLOW_ROWS } else { m };
    // Only the places of the operands change from tile to tile.
    let mut places = [At::NONE; STEPS_MAX];
    let pieces = (0..k.max(1)).step_by(DEPTH).flat_map(|from| (0..m).step_by(group).map(move |first| (from, first)));
    for (from, first) in pieces {
        let depth = DEPTH.min(k - from);
        let start = if from == 0 { Start::Zero } else { Start::Result };
        for column in (0..whole).step_by(PANEL) {
            // The next piece comes from memory while this one is used; its place cannot be guessed by the processor.
            let next = if column + PANEL < whole { (column + PANEL, from) } else { (0, from + DEPTH) };
            let mut ahead = lines.piece(next.0, next.1).chunks(lines.share(m));
            for (row, count) in tiles(group.min(m - first)).map(|(row, count)| (first + row, count)) {
                ahead.next().unwrap_or(&[]).chunks(CACHE_LINE / size_of::<W>()).for_each(|line| prefetch(line));
                let last = from + depth == k;
                let finish = &mut places[..if last { steps.len() } else { 0 }];
                finish.iter_mut().zip(steps).for_each(|(at, step)| *at = step.at(row, column));
                // SAFETY: rows, results and operands were measured above; `Lines` has `k` lines at each whole panel.
                unsafe {
                    tile(Tile {
                        m: count,
                        k: depth,
                        start,
                        rows: rows.values.as_ptr().add(row * rows.stride + from),
                        row_stride: rows.stride,
                        lines: lines.at(column, from),
                        line_stride: lines.stride,
                        result: out.as_mut_ptr().add(row * stride + column),
                        result_stride: stride,
                        finish: Steps::of(finish),
                    });
                }
                if last {
                    after(out, (row..row + count, column..column + PANEL));
                }
            }
        }
    }
    if whole < n {
        remainder(tile, size, rows, lines, out);
        for row in 0..m {
            let values = &mut out[row * stride + whole..row * stride + n];
            steps.iter().for_each(|s| s.apply(row, whole..n, values));
        }
        after(out, (0..m, whole..n));
    }
}

/// The columns after the last whole panel: computed beside, and copied.
fn remainder<W: Weight>(tile: Kernel<W>, size: Size, rows: Rows<'_>, lines: &Lines<'_, W>, out: &mut [f32]) {
    let Size { m, k, n, stride } = size;
    let whole = n / PANEL * PANEL;
    if lines.is_narrow() {
        return narrow(size, rows, lines.values, out);
    }
    // Rows as they lie end at `n`: their last 16 columns are computed, of which some are there already.
    let column = if lines.padded { whole } else { n - PANEL };
    for (row, count) in tiles(m) {
        let mut block = [0f32; TILE * PANEL];
        // SAFETY: rows were measured by the caller; `Lines` has `k` lines of 16 values at `column`, since it is
        // padded or at least 16 wide; `block` holds a whole tile.
        unsafe {
            tile(Tile {
                m: count,
                k,
                start: Start::Zero,
                rows: rows.values.as_ptr().add(row * rows.stride),
                row_stride: rows.stride,
                lines: lines.at(column, 0),
                line_stride: lines.stride,
                result: block.as_mut_ptr(),
                result_stride: PANEL,
                finish: Steps::NONE,
            });
        }
        for (i, values) in block.chunks_exact(PANEL).enumerate().take(count) {
            let at = (row + i) * stride;
            out[at + whole..at + n].copy_from_slice(&values[whole - column..n - column]);
        }
    }
}

/// A right side of fewer than 16 columns that was not laid out.
fn narrow<W: Weight>(Size { m, k, n, stride }: Size, rows: Rows<'_>, right: &[W], out: &mut [f32]) {
    for row in 0..m {
        let result = &mut out[row * stride..row * stride + n];
        result.fill(0.0);
        for (x, weights) in rows.values[row * rows.stride..][..k].iter().zip(right.chunks_exact(n)) {
            for (o, w) in result.iter_mut().zip(weights) {
                *o = fused(*x, w.widen(), *o);
            }
        }
    }
}

/// `a b + c` with the rounding that the tiles of this architecture's baseline have.
#[inline(always)]
fn fused(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(target_arch = "aarch64") { a.mul_add(b, c) } else { a * b + c }
}

/// Asks for a cache line; where the architecture has no such instruction in the language, for none.
#[inline(always)]
fn prefetch<W>(line: &[W]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: the instruction reads nothing and faults nowhere, and every x86-64 has it.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// Rows `0..m` in tiles: sixes, and fours and fives instead of a last tile too small to keep the units busy.
fn tiles(m: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut row = 0;
    std::iter::from_fn(move || {
        let count = match m - row {
            0 => return None,
            left @ 7..=9 => left.div_ceil(2),
            left => left.min(TILE),
        };
        row += count;
        Some((row - count, count))
    })
}

/// The lines of a right side.
struct Lines<'a, W> {
    values: &'a [W],
    /// Values from one line to the next, and from one panel to the next.
    stride: usize,
    panel: usize,
    padded: bool,
}

impl<'a, W: Weight> Lines<'a, W> {
    fn laid_out(panels: &'a Panels<W>, Size { k, n, .. }: Size) -> Self {
        assert!(panels.k == k && panels.n == n, "a product's dimensions");
        // SAFETY: a line is 16 weights without padding, as asserted below.
        let values = unsafe { std::slice::from_raw_parts(panels.lines.as_ptr().cast(), panels.lines.len() * PANEL) };
        Self { values, stride: PANEL, panel: k * PANEL, padded: true }
    }

    fn as_they_lie(values: &'a [W], Size { k, n, .. }: Size) -> Self {
        assert_eq!(values.len(), k * n, "a product's dimensions");
        Self { values, stride: n, panel: PANEL, padded: false }
    }

    /// The piece of a panel from `line` on, if it was laid out.
    fn piece(&self, column: usize, line: usize) -> &'a [W] {
        let k = self.panel / PANEL;
        if !self.padded || line >= k {
            return &[];
        }
        let from = column / PANEL * self.panel + line * PANEL;
        &self.values[from..from + DEPTH.min(k - line) * PANEL]
    }

    /// Values of a piece that each tile of `m` rows fetches, in whole cache lines.
    const fn share(&self, m: usize) -> usize {
        (DEPTH * PANEL).div_ceil(m.div_ceil(TILE)).next_multiple_of(PANEL)
    }

    const fn is_narrow(&self) -> bool {
        !self.padded && self.stride < PANEL
    }

    /// Line `line` from `column` on; a multiple of 16 in panels.
    fn at(&self, column: usize, line: usize) -> *const W {
        let from = if self.padded { column / PANEL * self.panel } else { column };
        self.values[(from + line * self.stride).min(self.values.len())..].as_ptr()
    }
}

const _: () = assert!(size_of::<Line<f32>>() == PANEL * 4, "lines lie without gaps");
const _: () = assert!(size_of::<Line<bf16>>() == PANEL * 2, "lines lie without gaps");

#[cfg(test)]
mod tests;
