//! How is a graph run on a block of rows, with nothing allocated and nothing decided on the way?
//!
//! A program is a graph with every row count fixed: steps over slots. A slot is a buffer that several tensors use
//! one after the other; a view (`Reshape`) has its source's slot; operations that can are one step ([`fuse`]), and
//! work in place where their input dies with them. Which program runs on which buffers is the whole state, so one
//! [`Arena`] per thread serves all programs of all bundles.

mod compile;
mod dense;
mod functions;
mod fuse;
mod kernel;
mod layer;
mod math;
mod products;
mod simd;
mod tail;
mod walk;

pub use layer::DenseLayer;

pub use simd::Isa;

use crate::graph::{Graph, Op, Shape, TensorId};
use kernel::{Inputs, Kernel};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Rows of a block of items or candidates: each piece of a matrix that comes from memory serves as many. A row's
/// arithmetic depends on the row alone, so fewer rows run as a smaller block.
pub(crate) const BLOCK_ROWS: usize = 128;

/// Where a tensor's values stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Slot(usize),
    Constant(usize),
    /// In the kernel itself, laid out for it.
    Kernel,
}

#[derive(Clone, Copy, Debug)]
struct Operand {
    place: Place,
    length: usize,
}

#[derive(Clone, Debug)]
struct Step {
    kernel: Kernel,
    inputs: Vec<Operand>,
    slot: usize,
    length: usize,
    words: usize,
}

/// The smallest and largest value that the layer of a constant matrix has read; 0 is always between them.
pub(crate) type Ranges = BTreeMap<TensorId, (f32, f32)>;

/// How exactly the wide layers of a program are kept. Layers of a few columns (gates, the last of a head) stay f32:
/// they cost nothing, and decide.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Precision {
    F32,
    /// Weights of bf16, rows and sums of f32.
    Bf16,
    /// Weights and rows of 8 bits; a layer without a range stays f32.
    Int8(Ranges),
}

/// An input or output of a program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Port {
    operand: Operand,
    /// Rows it has: 1 or [`BLOCK_ROWS`].
    pub rows: usize,
    /// Values of one row.
    pub width: usize,
}

/// A graph with its row counts.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    steps: Vec<Step>,
    /// The same over fewer rows, by their number.
    smaller: Vec<(usize, Vec<Step>)>,
    slots: Vec<usize>,
    /// Rounded numbers of the step that takes most.
    words: usize,
    constants: Vec<Arc<[f32]>>,
    /// In the order of the graph's inputs.
    pub inputs: Vec<Port>,
    /// In the order of the graph's outputs.
    pub outputs: Vec<Port>,
}

/// Buffers of one thread.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    slots: Vec<Vec<f32>>,
    words: Vec<i16>,
}

impl Program {
    /// A program over inputs that have this many rows each.
    pub fn compile(graph: &Graph, rows: &[usize]) -> Result<Self, String> {
        compile::compile(graph, rows, &Precision::F32)
    }

    /// The same with its wide layers kept less exactly.
    pub fn compile_as(graph: &Graph, rows: &[usize], precision: &Precision) -> Result<Self, String> {
        compile::compile(graph, rows, precision)
    }

    /// Takes the buffers that the program needs; a warm arena has them.
    pub fn prepare(&self, arena: &mut Arena) {
        if arena.slots.len() < self.slots.len() {
            arena.slots.resize_with(self.slots.len(), Vec::new);
        }
        for (slot, length) in arena.slots.iter_mut().zip(&self.slots) {
            if slot.len() < *length {
                slot.resize(*length, 0.0);
            }
        }
        if arena.words.len() < self.words {
            arena.words.resize(self.words, 0);
        }
    }

    /// The values of an input, to be written before each run.
    pub fn input<'a>(&self, arena: &'a mut Arena, i: usize) -> &'a mut [f32] {
        let operand = self.inputs[i].operand;
        match operand.place {
            Place::Slot(slot) => &mut arena.slots[slot][..operand.length],
            Place::Constant(_) | Place::Kernel => &mut [],
        }
    }

    /// The values of an output, after a run.
    pub fn output<'a>(&'a self, arena: &'a Arena, i: usize) -> &'a [f32] {
        read(self.outputs[i].operand, &arena.slots, &self.constants)
    }

    /// Runs every step over the first `rows` rows of the inputs; what the outputs hold beyond them means nothing.
    pub fn run(&self, arena: &mut Arena, rows: usize) {
        let fewer = self.smaller.iter().find(|(size, _)| *size >= rows).map(|(_, steps)| steps);
        fewer.unwrap_or(&self.steps).iter().for_each(|step| self.run_step(step, arena));
    }

    /// Runs every step over all rows and widens the range of what each layer reads.
    pub fn observe(&self, arena: &mut Arena, ranges: &mut Ranges) {
        for step in &self.steps {
            if let Kernel::Products(products) = &step.kernel
                && let Some(matrix) = products.matrix()
            {
                let range = ranges.entry(matrix.id).or_insert((0.0, 0.0));
                for x in read(step.inputs[0], &arena.slots, &self.constants) {
                    *range = (range.0.min(*x), range.1.max(*x));
                }
            }
            self.run_step(step, arena);
        }
    }

    fn run_step(&self, step: &Step, arena: &mut Arena) {
        // Taken out, so that the inputs can be read beside it: a step never reads the slot it writes.
        let mut out = std::mem::take(&mut arena.slots[step.slot]);
        let inputs = StepInputs { operands: &step.inputs, slots: &arena.slots, constants: &self.constants };
        step.kernel.run(&inputs, &mut arena.words[..step.words], &mut out[..step.length]);
        arena.slots[step.slot] = out;
    }
}

struct StepInputs<'a> {
    operands: &'a [Operand],
    slots: &'a [Vec<f32>],
    constants: &'a [Arc<[f32]>],
}

impl Inputs for StepInputs<'_> {
    fn get(&self, i: usize) -> &[f32] {
        read(self.operands[i], self.slots, self.constants)
    }
}

fn read<'a>(operand: Operand, slots: &'a [Vec<f32>], constants: &'a [Arc<[f32]>]) -> &'a [f32] {
    match operand.place {
        Place::Slot(slot) => &slots[slot][..operand.length],
        Place::Constant(constant) => &constants[constant][..operand.length],
        Place::Kernel => &[],
    }
}

/// The result of one operation over constants.
pub(crate) fn evaluate(
    op: &Op,
    shapes: &[&Shape],
    constants: &[&Arc<[f32]>],
    result: &Shape,
) -> Result<Vec<f32>, String> {
    struct Constants<'a>(&'a [&'a Arc<[f32]>]);
    impl Inputs for Constants<'_> {
        fn get(&self, i: usize) -> &[f32] {
            self.0[i]
        }
    }
    let dims: Vec<&[usize]> = shapes.iter().map(|s| s.dims.as_slice()).collect();
    let kernel = Kernel::of(op, &vec![false; dims.len()], &dims, &result.dims)?;
    let mut out = vec![0.0; result.values()];
    kernel.run(&Constants(constants), &mut [], &mut out);
    Ok(out)
}

#[cfg(test)]
mod tests;
