//! How is a graph run on a block of rows, with nothing allocated and nothing decided on the way?
//!
//! A program is a graph with every row count fixed: steps over slots. A slot is a buffer that several tensors use
//! one after the other; a view (`Reshape`) has its source's slot; a unary operation whose input dies with it works
//! in place. Which program runs on which buffers is the whole state, so one [`Arena`] per thread serves all
//! programs of all bundles.

mod gemm;
mod kernel;
mod math;
mod walk;

use crate::graph::{Graph, Op, Shape, Source, TensorId, product};
use crate::limits::ARENA_VALUES_MAX;
use kernel::{Inputs, Kernel};
use std::sync::Arc;

/// Rows of a block of items or candidates. Every block has as many, padded with zeros, so that a row's arithmetic
/// never depends on how many there are; 32 keeps the widest layers of a ranker within the second-level cache.
pub(crate) const BLOCK_ROWS: usize = 32;

/// Where a tensor's values stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Slot(usize),
    Constant(usize),
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
    slots: Vec<usize>,
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
}

impl Program {
    /// A program over inputs that have this many rows each.
    pub fn compile(graph: &Graph, rows: &[usize]) -> Result<Self, String> {
        Compiler::new(graph, rows)?.compile()
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
    }

    /// The values of an input, to be written before each run.
    pub fn input<'a>(&self, arena: &'a mut Arena, i: usize) -> &'a mut [f32] {
        let operand = self.inputs[i].operand;
        match operand.place {
            Place::Slot(slot) => &mut arena.slots[slot][..operand.length],
            Place::Constant(_) => &mut [],
        }
    }

    /// The values of an output, after a run.
    pub fn output<'a>(&'a self, arena: &'a Arena, i: usize) -> &'a [f32] {
        read(self.outputs[i].operand, &arena.slots, &self.constants)
    }

    /// Runs every step.
    pub fn run(&self, arena: &mut Arena) {
        for step in &self.steps {
            // Taken out, so that the inputs can be read beside it: a step never reads the slot it writes.
            let mut out = std::mem::take(&mut arena.slots[step.slot]);
            let inputs = StepInputs { operands: &step.inputs, slots: &arena.slots, constants: &self.constants };
            step.kernel.run(&inputs, &mut out[..step.length]);
            arena.slots[step.slot] = out;
        }
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
    kernel.run(&Constants(constants), &mut out);
    Ok(out)
}

/// What is known while a program is made.
struct Compiler<'a> {
    graph: &'a Graph,
    /// Rows of each tensor; 0 for a constant.
    rows: Vec<usize>,
    /// The tensor whose place a view has.
    root: Vec<TensorId>,
    /// The last node that reads a root.
    last: Vec<usize>,
    place: Vec<Option<Place>>,
    free: Vec<usize>,
    program: Program,
}

impl<'a> Compiler<'a> {
    fn new(graph: &'a Graph, rows: &[usize]) -> Result<Self, String> {
        if rows.len() != graph.inputs.len() {
            return Err(format!("{} row counts for {} inputs", rows.len(), graph.inputs.len()));
        }
        let count = graph.tensors.len();
        let mut of = vec![0; count];
        for (id, rows) in graph.inputs.iter().zip(rows) {
            of[*id] = if graph.tensors[*id].shape.batch { *rows } else { 0 };
        }
        let mut root: Vec<TensorId> = (0..count).collect();
        let mut last = vec![0; count];
        for (at, node) in graph.nodes.iter().enumerate() {
            of[node.output] = node.inputs.iter().map(|i| of[*i]).max().unwrap_or(0);
            if let (Op::Reshape { .. }, [source]) = (&node.op, node.inputs.as_slice()) {
                root[node.output] = root[*source];
            }
            node.inputs.iter().for_each(|i| last[root[*i]] = at);
        }
        // What leaves the program is kept to its end.
        graph.outputs.iter().for_each(|(_, id)| last[root[*id]] = usize::MAX);
        let program = Program {
            steps: Vec::new(),
            slots: Vec::new(),
            constants: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
        };
        Ok(Self { graph, rows: of, root, last, place: vec![None; count], free: Vec::new(), program })
    }

    fn compile(mut self) -> Result<Program, String> {
        for id in &self.graph.inputs {
            let slot = self.take_slot(self.length(*id)?, None);
            self.place[*id] = Some(Place::Slot(slot));
            let port = self.port(*id)?;
            self.program.inputs.push(port);
        }
        for at in 0..self.graph.nodes.len() {
            self.step(at)?;
        }
        for (_, id) in &self.graph.outputs {
            let port = self.port(*id)?;
            self.program.outputs.push(port);
        }
        let total = product(&[self.program.slots.iter().sum::<usize>()])?;
        if total > ARENA_VALUES_MAX {
            return Err(format!("{total} values in flight, {ARENA_VALUES_MAX} are possible"));
        }
        Ok(self.program)
    }

    fn step(&mut self, at: usize) -> Result<(), String> {
        let graph = self.graph;
        let node = &graph.nodes[at];
        if self.root[node.output] != node.output {
            return Ok(());
        }
        let inputs = node.inputs.iter().map(|i| self.operand(*i)).collect::<Result<Vec<_>, _>>()?;
        let length = self.length(node.output)?;
        let dying = |c: &Self, id: TensorId| c.last[c.root[id]] == at;
        let (kernel, slot) = match (&node.op, node.inputs.as_slice(), inputs.as_slice()) {
            (Op::Unary(u), [source], [Operand { place: Place::Slot(slot), .. }]) if dying(self, *source) => {
                (Kernel::UnaryInPlace(*u), *slot)
            }
            _ => {
                let dims: Vec<Vec<usize>> = node.inputs.iter().map(|i| self.dims(*i)).collect();
                let dims: Vec<&[usize]> = dims.iter().map(Vec::as_slice).collect();
                let batch: Vec<bool> = node.inputs.iter().map(|i| graph.tensors[*i].shape.batch).collect();
                let kernel = Kernel::of(&node.op, &batch, &dims, &self.dims(node.output))?;
                (kernel, self.take_slot(length, Some(&inputs)))
            }
        };
        self.place[node.output] = Some(Place::Slot(slot));
        self.release(at, slot);
        self.program.steps.push(Step { kernel, inputs, slot, length });
        Ok(())
    }

    /// Frees the slots of what node `at` was the last to read.
    fn release(&mut self, at: usize, keep: usize) {
        let node = &self.graph.nodes[at];
        for id in node.inputs.iter().map(|i| self.root[*i]) {
            if self.last[id] != at {
                continue;
            }
            if let Some(Place::Slot(slot)) = self.place[id]
                && slot != keep
                && !self.free.contains(&slot)
            {
                self.free.push(slot);
            }
        }
    }

    /// A free slot that wastes least, or a new one.
    fn take_slot(&mut self, length: usize, avoid: Option<&[Operand]>) -> usize {
        let read = |slot: usize| avoid.is_some_and(|o| o.iter().any(|o| o.place == Place::Slot(slot)));
        let waste = |slot: usize| self.program.slots[slot].abs_diff(length);
        let best = (0..self.free.len()).filter(|i| !read(self.free[*i])).min_by_key(|i| waste(self.free[*i]));
        if let Some(i) = best {
            let slot = self.free.swap_remove(i);
            self.program.slots[slot] = self.program.slots[slot].max(length);
            return slot;
        }
        self.program.slots.push(length);
        self.program.slots.len() - 1
    }

    fn dims(&self, id: TensorId) -> Vec<usize> {
        let shape = &self.graph.tensors[id].shape;
        let rows = shape.batch.then_some(self.rows[id]);
        rows.into_iter().chain(shape.dims.iter().copied()).collect()
    }

    fn length(&self, id: TensorId) -> Result<usize, String> {
        product(&self.dims(id))
    }

    fn operand(&mut self, id: TensorId) -> Result<Operand, String> {
        let root = self.root[id];
        let place = match (self.place[root], &self.graph.tensors[root].source) {
            (Some(place), _) => place,
            (None, Source::Constant(values)) => {
                self.program.constants.push(Arc::clone(values));
                Place::Constant(self.program.constants.len() - 1)
            }
            (None, Source::Input | Source::Node(_)) => {
                return Err(format!("{} has no place", self.graph.tensors[id].name));
            }
        };
        self.place[root] = Some(place);
        Ok(Operand { place, length: self.length(id)? })
    }

    fn port(&mut self, id: TensorId) -> Result<Port, String> {
        let operand = self.operand(id)?;
        Ok(Port { operand, rows: self.rows[id].max(1), width: self.graph.tensors[id].shape.values() })
    }
}
