//! How does a graph become steps over slots?
//!
//! Rows are known, so every length is; which step is the last to read a tensor says when its slot is free again.
//! Matrices that are constant are laid out for the dense kernel here, once.

use super::dense::{INPUTS_MAX, Int8, PANEL, Panels, Scale};
use super::fuse::{self, Group, Head};
use super::kernel::Kernel;
use super::products::{Kept, Matrix};
use super::tail::{Block, Layout};
use super::{Operand, Place, Port, Precision, Program, Step};
use crate::graph::{Graph, Op, Source, TensorId, product};
use crate::limits::ARENA_VALUES_MAX;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Row counts that a program is also made for, so that few candidates do not cost a block.
const SMALLER: [usize; 4] = [8, 16, 32, 64];

/// Matrices that are laid out, by their tensor.
type LaidOut = BTreeMap<TensorId, Kept>;

/// The program of a graph whose inputs have this many rows each.
pub(super) fn compile(graph: &Graph, rows: &[usize], precision: &Precision) -> Result<Program, String> {
    let mut laid_out = LaidOut::new();
    let mut keep = |rows: &[usize], plan: &[usize]| {
        let (compiler, groups) = Compiler::new(graph, rows, plan, (precision, &mut laid_out))?;
        compiler.compile(&groups)
    };
    let mut program = keep(rows, rows)?;
    let block = rows.iter().copied().max().unwrap_or(1);
    for size in SMALLER.into_iter().filter(|s| *s < block) {
        let fewer: Vec<usize> = rows.iter().map(|r| if *r == block { size } else { *r }).collect();
        let small = keep(&fewer, rows)?;
        // Slots are chosen by the lengths of the full block, so they agree; were it not so, the block would serve.
        let agrees = |(a, b): (&Step, &Step)| {
            a.slot == b.slot && a.inputs.iter().map(|o| o.place).eq(b.inputs.iter().map(|o| o.place))
        };
        if small.steps.len() == program.steps.len() && small.steps.iter().zip(&program.steps).all(agrees) {
            program.smaller.push((size, small.steps));
        }
    }
    Ok(program)
}

/// What is known while a program is made.
struct Compiler<'a> {
    graph: &'a Graph,
    /// Rows of each tensor; 0 for a constant.
    rows: Vec<usize>,
    /// Rows that slots are made for.
    plan: Vec<usize>,
    precision: &'a Precision,
    laid_out: &'a mut LaidOut,
    /// The tensor whose place a view has.
    root: Vec<TensorId>,
    /// The last group that reads a root, by where it stands.
    last: Vec<usize>,
    place: Vec<Option<Place>>,
    free: Vec<usize>,
    program: Program,
}

impl<'a> Compiler<'a> {
    fn new(
        graph: &'a Graph,
        rows: &[usize],
        plan: &[usize],
        (precision, laid_out): (&'a Precision, &'a mut LaidOut),
    ) -> Result<(Self, Vec<Group>), String> {
        if rows.len() != graph.inputs.len() {
            return Err(format!("{} row counts for {} inputs", rows.len(), graph.inputs.len()));
        }
        let count = graph.tensors.len();
        let mut root: Vec<TensorId> = (0..count).collect();
        for node in &graph.nodes {
            if let (Op::Reshape { .. }, [source]) = (&node.op, node.inputs.as_slice()) {
                root[node.output] = root[*source];
            }
        }
        let (of, plan) = (all_rows(graph, rows), all_rows(graph, plan));
        let groups = fuse::groups(graph, &|id| dims(graph, &of, id));
        let mut last = vec![0; count];
        for group in &groups {
            group.inputs.iter().for_each(|i| last[root[*i]] = last[root[*i]].max(group.at));
        }
        // What leaves the program is kept to its end.
        graph.outputs.iter().for_each(|(_, id)| last[root[*id]] = usize::MAX);
        let program = Program {
            steps: Vec::new(),
            smaller: Vec::new(),
            slots: Vec::new(),
            words: 0,
            constants: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
        };
        let place = vec![None; count];
        Ok((Self { graph, rows: of, plan, precision, laid_out, root, last, place, free: Vec::new(), program }, groups))
    }

    fn compile(mut self, groups: &[Group]) -> Result<Program, String> {
        for id in &self.graph.inputs {
            let slot = self.take_slot(*id, None)?;
            self.place[*id] = Some(Place::Slot(slot));
            let port = self.port(*id)?;
            self.program.inputs.push(port);
        }
        for group in groups {
            self.step(group)?;
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

    fn step(&mut self, group: &Group) -> Result<(), String> {
        let length = self.length(group.output)?;
        if let ([table, rows], Head::Node(_)) = (group.inputs.as_slice(), &group.head)
            && let Some(table) = self.graph.table_of(*table)
        {
            let inputs = vec![self.operand(*rows)?];
            let slot = self.take_slot(group.output, Some(&inputs))?;
            self.place[group.output] = Some(Place::Slot(slot));
            self.release(group, slot);
            self.program.steps.push(Step { kernel: Kernel::LookUp(Arc::clone(table)), inputs, slot, length, words: 0 });
            return Ok(());
        }
        let (kernel, panels) = self.kernel(group)?;
        // The right matrix of a product is read in the form that it was laid out in.
        let mut inputs = Vec::with_capacity(group.inputs.len());
        for (i, id) in group.inputs.iter().enumerate() {
            let laid_out = i == 1 && panels;
            inputs.push(if laid_out { Operand { place: Place::Kernel, length: 0 } } else { self.operand(*id)? });
        }
        let (kernel, slot) = match (kernel, inputs.as_slice()) {
            (Kernel::Chain { block, start: Layout::Rows { rows }, steps }, [Operand { place, .. }, others @ ..])
                if rows == block.rows
                    && self.last[self.root[group.inputs[0]]] == group.at
                    && others.iter().all(|o| o.place != *place)
                    && matches!(place, Place::Slot(_)) =>
            {
                let Place::Slot(slot) = *place else { return Err("a constant dies".to_owned()) };
                (Kernel::ChainInPlace { block, steps }, slot)
            }
            (kernel, _) => (kernel, self.take_slot(group.output, Some(&inputs))?),
        };
        self.place[group.output] = Some(Place::Slot(slot));
        self.release(group, slot);
        let words = kernel.words();
        self.program.words = self.program.words.max(words);
        self.program.steps.push(Step { kernel, inputs, slot, length, words });
        Ok(())
    }

    /// The kernel of a group, and whether it has laid out its right matrix.
    fn kernel(&mut self, group: &Group) -> Result<(Kernel, bool), String> {
        let graph = self.graph;
        let at = match group.head {
            Head::Chain(start) => {
                let dims = self.dims(group.output);
                let width = dims.last().copied().unwrap_or(1);
                let rows = product(&dims[..dims.len().saturating_sub(1)])?;
                return Ok((Kernel::Chain { block: Block { rows, width }, start, steps: group.steps.clone() }, false));
            }
            Head::Node(at) => at,
        };
        let node = &graph.nodes[at];
        let dims: Vec<Vec<usize>> = node.inputs.iter().map(|i| self.dims(*i)).collect();
        let dims: Vec<&[usize]> = dims.iter().map(Vec::as_slice).collect();
        let batch: Vec<bool> = node.inputs.iter().map(|i| graph.tensors[*i].shape.batch).collect();
        let kernel = Kernel::of(&node.op, &batch, &dims, &self.dims(node.output))?;
        let Kernel::Products(products) = kernel else { return Ok((kernel, false)) };
        let (k, n) = products.right();
        let id = node.inputs[1];
        let values = graph.values(id).filter(|v| v.len() == k * n && k * n > 0);
        let matrix = values.map(|values| Matrix { id, kept: self.keep(id, (k, n), values) });
        let laid_out = matrix.is_some();
        Ok((Kernel::Products(products.with(matrix, group.steps.clone())), laid_out))
    }

    /// A matrix, laid out once for all row counts.
    fn keep(&mut self, id: TensorId, (k, n): (usize, usize), values: &[f32]) -> Kept {
        let make = || match self.precision {
            Precision::Bf16 if n >= PANEL => Kept::Bf16(Arc::new(Panels::new(k, n, values))),
            Precision::Int8(ranges) if n >= PANEL && k <= INPUTS_MAX => match ranges.get(&id) {
                Some((low, high)) => Kept::Int8(Arc::new(Int8::new(k, n, values, Scale::of(*low, *high)))),
                None => Kept::F32(Arc::new(Panels::new(k, n, values))),
            },
            Precision::F32 | Precision::Bf16 | Precision::Int8(_) => Kept::F32(Arc::new(Panels::new(k, n, values))),
        };
        self.laid_out.entry(id).or_insert_with(make).clone()
    }

    /// Frees the slots of what a group was the last to read.
    fn release(&mut self, group: &Group, keep: usize) {
        for id in group.inputs.iter().map(|i| self.root[*i]) {
            if self.last[id] != group.at {
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
    fn take_slot(&mut self, id: TensorId, avoid: Option<&[Operand]>) -> Result<usize, String> {
        let length = product(&dims(self.graph, &self.plan, id))?;
        let read = |slot: usize| avoid.is_some_and(|o| o.iter().any(|o| o.place == Place::Slot(slot)));
        let waste = |slot: usize| self.program.slots[slot].abs_diff(length);
        let best = (0..self.free.len()).filter(|i| !read(self.free[*i])).min_by_key(|i| waste(self.free[*i]));
        if let Some(i) = best {
            let slot = self.free.swap_remove(i);
            self.program.slots[slot] = self.program.slots[slot].max(length);
            return Ok(slot);
        }
        self.program.slots.push(length);
        Ok(self.program.slots.len() - 1)
    }

    fn dims(&self, id: TensorId) -> Vec<usize> {
        dims(self.graph, &self.rows, id)
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
            (None, Source::Input | Source::Table(_) | Source::Node(_)) => {
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

/// The dimensions of a tensor with its rows.
fn dims(graph: &Graph, rows: &[usize], id: TensorId) -> Vec<usize> {
    let shape = &graph.tensors[id].shape;
    let rows = shape.batch.then_some(rows[id]);
    rows.into_iter().chain(shape.dims.iter().copied()).collect()
}

/// The rows of every tensor, given those of the inputs; 0 for a constant.
fn all_rows(graph: &Graph, inputs: &[usize]) -> Vec<usize> {
    let mut rows = vec![0; graph.tensors.len()];
    for (id, given) in graph.inputs.iter().zip(inputs) {
        rows[*id] = if graph.tensors[*id].shape.batch { *given } else { 0 };
    }
    for node in &graph.nodes {
        rows[node.output] = node.inputs.iter().map(|i| rows[*i]).max().unwrap_or(0);
    }
    rows
}
