//! How is one operation computed over rows that are known?
//!
//! A kernel is an operation with every dimension and stride worked out. It allocates nothing and reads its inputs
//! as slices. The order of additions inside one row depends on the row's dimensions alone, so that a row's result
//! does not depend on its neighbours.

use super::math;
use super::products::Products;
use super::tail::{self, Block, Layout, Step};
use super::walk::{Walk, contiguous};
use crate::graph::{Binary, Op, Reduction, Table, Unary, product};
use std::sync::Arc;

/// An operation over known dimensions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kernel {
    /// Products, and what follows them.
    Products(Products),
    /// Element-wise operations in one pass over a copy of the first input.
    Chain {
        block: Block,
        start: Layout,
        steps: Vec<Step>,
    },
    /// The same where the first input dies with it: the result takes its place.
    ChainInPlace {
        block: Block,
        steps: Vec<Step>,
    },
    Gather {
        outer: usize,
        rows: usize,
        inner: usize,
    },
    /// Rows of a table that lies in a file; the only input is the indices.
    LookUp(Arc<Table>),
    Unary(Unary),
    Binary(Binary, Walk<2>),
    Sum(Vec<Walk<1>>),
    /// Each input's share of one of the outer blocks.
    Concat {
        outer: usize,
        parts: Vec<Part>,
    },
    Reduce {
        kind: Reduction,
        outer: usize,
        length: usize,
        inner: usize,
    },
    Softmax {
        outer: usize,
        length: usize,
        inner: usize,
    },
    Normalise {
        length: usize,
        epsilon: f32,
    },
    Strided(Walk<1>),
    Select(Walk<3>),
}

/// One input of a concatenation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    length: usize,
    /// Blocks it has; fewer than the result's repeat from the start.
    blocks: usize,
}

/// What a kernel reads.
pub(crate) trait Inputs {
    /// The values of input `i`.
    fn get(&self, i: usize) -> &[f32];
}

impl Kernel {
    /// The kernel of an operation over inputs and a result of these dimensions, batch included.
    pub fn of(op: &Op, batch: &[bool], inputs: &[&[usize]], output: &[usize]) -> Result<Self, String> {
        // Where the first input has a batch dimension, axes of rows lie one further in.
        let shift = usize::from(batch.contains(&true));
        let split = |dims: &[usize], from: usize, to: usize| -> Result<(usize, usize, usize), String> {
            Ok((product(&dims[..from])?, product(&dims[from..to])?, product(&dims[to..])?))
        };
        Ok(match op {
            Op::MatMul => Self::Products(Products::of(inputs[0], inputs[1], output)?),
            Op::Gather { axis } => {
                let axis = axis + usize::from(batch[0]);
                let (outer, rows, inner) = split(inputs[0], axis, axis + 1)?;
                Self::Gather { outer, rows, inner }
            }
            Op::Unary(u) => Self::Unary(*u),
            Op::Binary(b) => Self::Binary(*b, Walk::broadcast(output, [inputs[0], inputs[1]])),
            Op::Select => Self::Select(Walk::broadcast(output, [inputs[0], inputs[1], inputs[2]])),
            Op::Sum => Self::Sum(inputs.iter().map(|i| Walk::broadcast(output, [i])).collect()),
            Op::Concat { axis } => concat(axis + shift, inputs, output)?,
            Op::Reduce { kind, from, to } => {
                let (outer, length, inner) = split(inputs[0], from + shift, to + shift)?;
                Self::Reduce { kind: *kind, outer, length, inner }
            }
            Op::Softmax { axis } => {
                let (outer, length, inner) = split(inputs[0], axis + shift, axis + shift + 1)?;
                Self::Softmax { outer, length, inner }
            }
            Op::Normalise { from, epsilon } => {
                Self::Normalise { length: product(&inputs[0][from + shift..])?, epsilon: *epsilon }
            }
            // A program gives a view its source's place, so this copy is rarely made.
            Op::Reshape { .. } => Self::Strided(Walk::broadcast(output, [output])),
            Op::Broadcast { .. } => Self::Strided(Walk::broadcast(output, [inputs[0]])),
            Op::Permute { order } => {
                let source = contiguous(inputs[0]);
                let full = (0..shift).chain(order.iter().map(|i| i + shift));
                Self::Strided(Walk::new(output, &full.map(|i| [source[i]]).collect::<Vec<_>>(), [0]))
            }
            Op::Slice { axis, start, step, .. } => {
                let mut strides: Vec<[isize; 1]> = contiguous(inputs[0]).into_iter().map(|s| [s]).collect();
                let stride = &mut strides[axis + shift];
                let base = [stride[0] * *start as isize];
                stride[0] *= step;
                Self::Strided(Walk::new(output, &strides, base))
            }
        })
    }

    /// Numbers of 16 bits that a run works with.
    pub fn words(&self) -> usize {
        if let Self::Products(products) = self { products.words() } else { 0 }
    }

    /// Computes the result. `out` has exactly the result's length; for [`Self::ChainInPlace`] it holds the input.
    /// `words` has [`Self::words`].
    pub fn run(&self, inputs: &impl Inputs, words: &mut [i16], out: &mut [f32]) {
        match self {
            Self::Products(products) => products.run(&|i| inputs.get(i), words, out),
            Self::Chain { block, start, steps } => {
                tail::start(*block, *start, inputs.get(0), out);
                tail::run(steps, *block, (0..block.rows, 0..block.width), out, &|i| inputs.get(i));
            }
            Self::ChainInPlace { block, steps } => {
                tail::run(steps, *block, (0..block.rows, 0..block.width), out, &|i| inputs.get(i));
            }
            Self::Gather { outer, rows, inner } => gather(*outer, *rows, *inner, inputs.get(0), inputs.get(1), out),
            Self::LookUp(table) => table.look_up(inputs.get(0), out),
            Self::Unary(u) => {
                out.copy_from_slice(inputs.get(0));
                math::unary(*u, out);
            }
            Self::Binary(b, walk) => math::binary(*b, walk, inputs.get(0), inputs.get(1), out),
            Self::Sum(walks) => {
                for (i, walk) in walks.iter().enumerate() {
                    let term = inputs.get(i);
                    if i == 0 { strided(walk, term, out) } else { math::accumulate(walk, term, out) }
                }
            }
            Self::Concat { outer, parts } => join(*outer, parts, inputs, out),
            Self::Reduce { kind, outer, length, inner } => {
                math::reduce(*kind, [*outer, *length, *inner], inputs.get(0), out);
            }
            Self::Softmax { outer, length, inner } => {
                out.copy_from_slice(inputs.get(0));
                math::softmax([*outer, *length, *inner], out);
            }
            Self::Normalise { length, epsilon } => {
                out.copy_from_slice(inputs.get(0));
                math::normalise(*length, *epsilon, out);
            }
            Self::Strided(walk) => strided(walk, inputs.get(0), out),
            Self::Select(walk) => math::select(walk, [inputs.get(0), inputs.get(1), inputs.get(2)], out),
        }
    }
}

fn concat(axis: usize, inputs: &[&[usize]], output: &[usize]) -> Result<Kernel, String> {
    let outer = product(&output[..axis])?;
    let mut parts = Vec::with_capacity(inputs.len());
    for input in inputs {
        // Dimensions that an input lacks, or has once, lead: the batch dimension is the only one that may.
        let own_axis = (input.len() + axis).checked_sub(output.len()).ok_or("a part lacks its axis")?;
        let (blocks, length) = (product(&input[..own_axis])?, product(&input[own_axis..])?);
        if blocks == 0 || outer % blocks != 0 {
            return Err(format!("{blocks} blocks join {outer}"));
        }
        parts.push(Part { length, blocks });
    }
    Ok(Kernel::Concat { outer, parts })
}

fn join(outer: usize, parts: &[Part], inputs: &impl Inputs, out: &mut [f32]) {
    let width: usize = parts.iter().map(|p| p.length).sum();
    let mut offset = 0;
    for (i, part) in parts.iter().enumerate() {
        let source = inputs.get(i);
        for block in 0..outer {
            let (from, to) = (block % part.blocks * part.length, block * width + offset);
            out[to..to + part.length].copy_from_slice(&source[from..from + part.length]);
        }
        offset += part.length;
    }
}

/// An index outside the table takes row 0, as a missing value does: a request never stops here.
fn gather(outer: usize, rows: usize, inner: usize, table: &[f32], at: &[f32], out: &mut [f32]) {
    let mut results = out.chunks_exact_mut(inner.max(1));
    for block in 0..outer {
        for index in at {
            let index = if *index < 0.0 { *index + rows as f32 } else { *index };
            let row = if index >= 0.0 && index < rows as f32 { index as usize } else { 0 };
            let from = (block * rows + row) * inner;
            if let Some(result) = results.next() {
                result.copy_from_slice(&table[from..from + inner]);
            }
        }
    }
}

fn strided(walk: &Walk<1>, source: &[f32], out: &mut [f32]) {
    let mut runs = out.chunks_exact_mut(walk.run.max(1));
    walk.runs(|[from]| {
        let Some(run) = runs.next() else { return };
        match walk.step[0] {
            1 => run.copy_from_slice(&source[from..from + walk.run]),
            0 => run.fill(source[from]),
            step => {
                let mut at = from as isize;
                for value in run {
                    *value = source[at as usize];
                    at += step;
                }
            }
        }
    });
}
