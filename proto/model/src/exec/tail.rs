//! How is a chain of element-wise operations computed in one pass?
//!
//! A chain starts from a value that a product has just made, or that lies in a slot, and changes it step by step:
//! a bias, a sum of other terms, an activation, the product and the residual of a cross layer. Its steps run over
//! a piece of the result that is still in the cache: after a product 16 columns of the block, else a row. The
//! order in which rows and columns are visited changes no value.

use super::dense::{Change, Finish, PANEL, STEPS_MAX};
use super::math;
use super::simd::simd;
use crate::graph::{Binary, Unary};
use std::ops::Range;

/// How an operand meets a block of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// As wide as the result: rows repeat after `rows`.
    Rows { rows: usize },
    /// One value a row: they repeat after `rows`.
    Column { rows: usize },
}

impl Layout {
    /// How an operand of these dimensions meets a result of those, if it does so row by row.
    pub fn of(operand: &[usize], result: &[usize]) -> Option<Self> {
        let (width, outer) = result.split_last()?;
        let leading = operand.iter().take_while(|d| **d == 1).count();
        let operand = &operand[leading.min(operand.len().saturating_sub(1))..];
        let (last, inner) = operand.split_last().unwrap_or((&1, &[]));
        // The rest of its dimensions are the result's own: it repeats, and never stretches within.
        if !outer.ends_with(inner) && inner.iter().any(|d| *d != 1) {
            return None;
        }
        let rows = inner.iter().product();
        match last {
            last if last == width => Some(Self::Rows { rows }),
            1 => Some(Self::Column { rows }),
            _ => None,
        }
    }
}

/// One step of a chain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Step {
    Unary(Unary),
    /// The value first, the operand second.
    With(Binary, usize, Layout),
    /// The operand first, the value second.
    Against(Binary, usize, Layout),
}

/// The block that a chain works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub rows: usize,
    /// Values of a row, without gaps between rows.
    pub width: usize,
}

/// The rows that a step works on.
#[derive(Clone, Copy)]
struct Piece {
    width: usize,
    rows: (usize, usize),
}

/// The first steps of a chain, as a product does them on its sums.
pub(crate) struct Finishes<'a> {
    steps: [Finish<'a>; STEPS_MAX],
    count: usize,
}

impl Default for Finishes<'_> {
    fn default() -> Self {
        Self { steps: [Finish { change: Change::Relu, values: &[], stride: 0 }; STEPS_MAX], count: 0 }
    }
}

impl<'a> Finishes<'a> {
    /// Takes as many steps as it can, and gives back the rest.
    pub fn take<'s>(&mut self, steps: &'s [Step], block: Block, operand: &impl Fn(usize) -> &'a [f32]) -> &'s [Step] {
        for step in steps.iter().take(STEPS_MAX) {
            // A sum and a product are the same from both sides.
            let (change, values, stride) = match *step {
                Step::Unary(Unary::Relu) => (Change::Relu, &[][..], 0),
                Step::With(kind, at, Layout::Rows { rows }) | Step::Against(kind, at, Layout::Rows { rows })
                    if rows == 1 || rows >= block.rows =>
                {
                    let change = if kind == Binary::Add {
                        Change::Add
                    } else if kind == Binary::Mul {
                        Change::Multiply
                    } else {
                        break;
                    };
                    (change, operand(at), if rows == 1 { 0 } else { block.width })
                }
                Step::Unary(_) | Step::With(..) | Step::Against(..) => break,
            };
            self.steps[self.count] = Finish { change, values, stride };
            self.count += 1;
        }
        &steps[self.count..]
    }

    pub fn steps(&self) -> &[Finish<'a>] {
        &self.steps[..self.count]
    }
}

/// Runs a chain over some rows and columns of a block.
pub(crate) fn run<'a>(
    steps: &[Step],
    block: Block,
    (rows, columns): (Range<usize>, Range<usize>),
    out: &mut [f32],
    operand: &impl Fn(usize) -> &'a [f32],
) {
    let block = Piece { width: block.width, rows: (rows.start, rows.end) };
    for step in steps {
        let columns = (columns.start, columns.end);
        match *step {
            Step::Unary(kind) => unary(kind, block, columns, out),
            Step::With(kind, at, Layout::Rows { rows }) => with_rows(kind, block, columns, out, operand(at), rows),
            Step::With(kind, at, Layout::Column { rows }) => with_column(kind, block, columns, out, operand(at), rows),
            Step::Against(kind, at, Layout::Rows { rows }) => {
                against_rows(kind, block, columns, out, operand(at), rows);
            }
            Step::Against(kind, at, Layout::Column { rows }) => {
                against_column(kind, block, columns, out, operand(at), rows);
            }
        }
    }
}

/// Fills a block from an operand: the start of a chain that follows no product.
pub(crate) fn start(block: Block, layout: Layout, operand: &[f32], out: &mut [f32]) {
    for (row, result) in out.chunks_exact_mut(block.width.max(1)).enumerate().take(block.rows) {
        match layout {
            Layout::Rows { rows } => {
                let from = row % rows * block.width;
                result.copy_from_slice(&operand[from..from + block.width]);
            }
            Layout::Column { rows } => result.fill(operand[row % rows]),
        }
    }
}

simd! {
    fn unary(kind: Unary, block: Piece, columns: (usize, usize), out: &mut [f32]) {
        if columns == (0, block.width) {
            return math::unary_body(kind, &mut out[block.rows.0 * block.width..block.rows.1 * block.width]);
        }
        // The activation that nearly every layer has, without a choice for each row.
        if kind == Unary::Relu {
            return each_row(block, columns, out, |_, values| math::relu(values));
        }
        each_row(block, columns, out, |_, values| math::unary_body(kind, values));
    }
}

simd! {
    fn with_rows(kind: Binary, block: Piece, columns: (usize, usize), out: &mut [f32], operand: &[f32], rows: usize) {
        math::with_binary!(kind, f => meet_rows(block, columns, out, (operand, rows), f));
    }
}

simd! {
    fn against_rows(
        kind: Binary,
        block: Piece,
        columns: (usize, usize),
        out: &mut [f32],
        operand: &[f32],
        rows: usize,
    ) {
        math::with_binary!(kind, f => meet_rows(block, columns, out, (operand, rows), |v, x| f(x, v)));
    }
}

simd! {
    fn with_column(
        kind: Binary,
        block: Piece,
        columns: (usize, usize),
        out: &mut [f32],
        operand: &[f32],
        rows: usize,
    ) {
        math::with_binary!(kind, f => meet_column(block, columns, out, (operand, rows), f));
    }
}

simd! {
    fn against_column(
        kind: Binary,
        block: Piece,
        columns: (usize, usize),
        out: &mut [f32],
        operand: &[f32],
        rows: usize,
    ) {
        math::with_binary!(kind, f => meet_column(block, columns, out, (operand, rows), |v, x| f(x, v)));
    }
}

#[inline(always)]
fn meet_rows(
    block: Piece,
    columns: (usize, usize),
    out: &mut [f32],
    (operand, rows): (&[f32], usize),
    f: impl Fn(f32, f32) -> f32,
) {
    each_row(block, columns, out, |row, values| {
        let from = place(row, rows) * block.width + columns.0;
        let operand = &operand[from..from + values.len()];
        values.iter_mut().zip(operand).for_each(|(v, x)| *v = f(*v, *x));
    });
}

/// The row of an operand whose rows repeat; a division is as long as the step itself.
#[inline(always)]
fn place(row: usize, rows: usize) -> usize {
    if row < rows {
        row
    } else if rows == 1 {
        0
    } else {
        row % rows
    }
}

#[inline(always)]
fn meet_column(
    block: Piece,
    columns: (usize, usize),
    out: &mut [f32],
    (operand, rows): (&[f32], usize),
    f: impl Fn(f32, f32) -> f32,
) {
    each_row(block, columns, out, |row, values| {
        let x = operand[place(row, rows)];
        values.iter_mut().for_each(|v| *v = f(*v, x));
    });
}

#[inline(always)]
fn each_row(block: Piece, (from, to): (usize, usize), out: &mut [f32], f: impl Fn(usize, &mut [f32])) {
    // A length that is known is two registers and no loop.
    if to - from == PANEL {
        for row in block.rows.0..block.rows.1 {
            let at = row * block.width + from;
            if let Some(values) = out.get_mut(at..).and_then(|v| v.first_chunk_mut::<PANEL>()) {
                f(row, values);
            }
        }
        return;
    }
    for row in block.rows.0..block.rows.1 {
        f(row, &mut out[row * block.width + from..row * block.width + to]);
    }
}

#[cfg(test)]
mod tests {
    use super::Layout::{self, Column, Rows};

    #[test]
    fn operands_meet_a_block_by_rows() {
        for (operand, result, expected) in [
            (&[32, 16][..], &[32, 16][..], Some(Rows { rows: 32 })),
            (&[16], &[32, 16], Some(Rows { rows: 1 })),
            (&[1, 16], &[32, 16], Some(Rows { rows: 1 })),
            (&[], &[32, 16], Some(Column { rows: 1 })),
            (&[1], &[32, 16], Some(Column { rows: 1 })),
            (&[32, 1], &[32, 16], Some(Column { rows: 32 })),
            (&[4, 16], &[32, 4, 16], Some(Rows { rows: 4 })),
            (&[32, 4, 1], &[32, 4, 16], Some(Column { rows: 128 })),
            (&[1, 4, 1], &[32, 4, 16], Some(Column { rows: 4 })),
            (&[32, 1, 16], &[32, 4, 16], None),
            (&[32, 1, 1], &[32, 4, 16], None),
            (&[32, 1], &[32, 1], Some(Rows { rows: 32 })),
            (&[1, 1], &[1, 1], Some(Rows { rows: 1 })),
        ] {
            assert_eq!(Layout::of(operand, result), expected, "{operand:?} {result:?}");
        }
    }
}
