//! How do the three parts of a ranker, and the ranker as a whole, turn rows into raw outputs?

use super::bind::{self, Encoding, Feed};
use crate::error::{GraphError, ModelError};
use crate::exec::{self, Arena, BLOCK_ROWS, Program, Ranges};
use crate::feature::FeatureRow;
use crate::graph::{Graph, Op, TensorId};
use crate::onnx::{Element, Read};
use crate::partition::{self, Label, PartitionReport};
use crate::schema::{ActivationFormat, Precision, Schema};

/// A program with the feeds of its inputs.
#[derive(Debug)]
pub(super) struct Bound {
    pub program: Program,
    pub feeds: Vec<Feed>,
}

impl Bound {
    /// Binds a graph: inputs that depend on the user alone have one row, if there are such.
    pub fn new(graph: &Graph, read: &Read, schema: &Schema, item_rows: usize) -> Result<Self, GraphError> {
        let feeds = bind::feeds(graph, &read.inputs, schema)?;
        let rows: Vec<usize> = feeds.iter().map(|f| if f.label() == Label::User { 1 } else { item_rows }).collect();
        let program = Program::compile(graph, &rows).map_err(GraphError::Compile)?;
        Ok(Self { program, feeds })
    }

    pub fn as_pair(&self) -> (&Program, &[Feed]) {
        (&self.program, &self.feeds)
    }
}

/// A ranker, split and whole.
#[derive(Debug)]
pub(super) struct Ranker {
    user: Bound,
    item: Bound,
    candidate: Program,
    /// Its graph, until the program is made as exactly as the bundle asks for.
    meeting: Option<Graph>,
    /// For each cross input of the candidate program, in order, the cross feature.
    crossings: Vec<usize>,
    whole: Bound,
    pub hash: [u8; 32],
    pub report: PartitionReport,
    pub user_width: usize,
    pub item_width: usize,
}

impl Ranker {
    /// Splits a graph that has an output for each head.
    pub fn new(read: &Read, schema: &Schema) -> Result<Self, GraphError> {
        let heads = outputs(&read.graph, schema.heads.iter().map(|h| (h.name.as_str(), 1)))?;
        let whole = read.graph.extract(&read.graph.inputs, &heads).map_err(GraphError::Extract)?;
        let feeds = bind::feeds(&whole, &read.inputs, schema)?;
        let labels: Vec<Label> = feeds.iter().map(|f| f.label()).collect();
        let split = partition::split(&whole, &labels).map_err(GraphError::Split)?;
        if schema.options.activations == ActivationFormat::Bf16 {
            keeps_no_rows(&split.item, read)?;
        }
        let (users, ads) = (split.user.outputs.len(), split.item.outputs.len());
        let rows: Vec<usize> =
            (0..split.candidate.inputs.len()).map(|i| if i < users { 1 } else { BLOCK_ROWS }).collect();
        let candidate = Program::compile(&split.candidate, &rows).map_err(GraphError::Compile)?;
        let crossings = feeds.iter().filter_map(|f| match f {
            Feed::Cross(i) => Some(*i),
            Feed::Values(..) | Feed::Weights(..) => None,
        });
        let width = |ports: &[crate::exec::Port]| ports.iter().map(|p| p.width).sum();
        Ok(Self {
            user: Bound::new(&split.user, read, schema, 1)?,
            item: Bound::new(&split.item, read, schema, BLOCK_ROWS)?,
            crossings: crossings.collect(),
            whole: Bound::new(&whole, read, schema, BLOCK_ROWS)?,
            hash: hash(split.hash, schema.options.precision),
            report: split.report,
            user_width: width(&candidate.inputs[..users]),
            item_width: width(&candidate.inputs[users..users + ads]),
            candidate,
            meeting: (schema.options.precision != Precision::F32).then_some(split.candidate),
        })
    }

    /// The part for each candidate over single rows, to observe its ranges.
    pub fn observer(&self) -> Result<Program, String> {
        let graph = self.meeting.as_ref().ok_or("the ranker is f32")?;
        Program::compile(graph, &vec![1; graph.inputs.len()])
    }

    /// Widens the ranges by those of one candidate.
    pub fn observe(
        &self,
        program: &Program,
        arena: &mut Arena,
        (user_part, activations, cross): (&[f32], &[f32], &[f32]),
        ranges: &mut Ranges,
    ) {
        program.prepare(arena);
        self.fill_block((program, arena), user_part, activations, (cross, cross.len()), 0..1);
        program.observe(arena, ranges);
    }

    /// Keeps the part for each candidate less exactly.
    pub fn keep(&mut self, precision: &exec::Precision) -> Result<(), String> {
        let Some(graph) = self.meeting.take() else { return Ok(()) };
        let rows: Vec<usize> = self.candidate.inputs.iter().map(|p| p.rows).collect();
        self.candidate = Program::compile_as(&graph, &rows, precision)?;
        Ok(())
    }

    /// Appends the user part.
    pub fn run_user(
        &self,
        schema: &Schema,
        user: &FeatureRow,
        buffers: (&mut Arena, &mut Encoding),
        part: &mut Vec<f32>,
    ) -> Result<(), ModelError> {
        let (arena, encoding) = buffers;
        self.fill_user(schema, user, (arena, encoding))?;
        self.run_user_filled(arena, part);
        Ok(())
    }

    /// Writes the inputs of the user part.
    pub fn fill_user(
        &self,
        schema: &Schema,
        user: &FeatureRow,
        (arena, encoding): (&mut Arena, &mut Encoding),
    ) -> Result<(), ModelError> {
        self.user.program.prepare(arena);
        bind::write(self.user.as_pair(), (Label::User, &schema.user), user, 0, (arena, encoding))
    }

    /// As [`Self::run_user`], when the program's inputs are written.
    pub fn run_user_filled(&self, arena: &mut Arena, part: &mut Vec<f32>) {
        let program = &self.user.program;
        program.run(arena, 1);
        (0..program.outputs.len()).for_each(|i| part.extend_from_slice(program.output(arena, i)));
    }

    /// The program of the user part.
    pub const fn user_program(&self) -> &Program {
        &self.user.program
    }

    /// The program of the unsplit graph.
    pub const fn whole_program(&self) -> &Program {
        &self.whole.program
    }

    /// Appends the activations of at most a block of items.
    pub fn run_items(
        &self,
        schema: &Schema,
        items: &[FeatureRow],
        buffers: (&mut Arena, &mut Encoding),
        activations: &mut Vec<f32>,
    ) -> Result<(), ModelError> {
        let (arena, encoding) = buffers;
        let program = &self.item.program;
        fill(self.item.as_pair(), schema, items, (arena, encoding))?;
        program.run(arena, items.len());
        for row in 0..items.len() {
            for (i, port) in program.outputs.iter().enumerate() {
                let from = if port.rows == 1 { 0 } else { row * port.width };
                activations.extend_from_slice(&program.output(arena, i)[from..from + port.width]);
            }
        }
        Ok(())
    }

    /// Calls `sink` with candidate, head and raw output, in this order of loops.
    pub fn rank(
        &self,
        arena: &mut Arena,
        user_part: &[f32],
        activations: &[f32],
        cross: (&[f32], usize),
        n: usize,
        mut sink: impl FnMut(usize, f32),
    ) {
        let program = &self.candidate;
        program.prepare(arena);
        for first in (0..n).step_by(BLOCK_ROWS) {
            let rows = BLOCK_ROWS.min(n - first);
            self.fill_block((program, arena), user_part, activations, cross, first..first + rows);
            program.run(arena, rows);
            raw(program, arena, rows, &mut sink);
        }
    }

    fn fill_block(
        &self,
        (program, arena): (&Program, &mut Arena),
        user_part: &[f32],
        activations: &[f32],
        (cross, columns): (&[f32], usize),
        block: std::ops::Range<usize>,
    ) {
        let users = self.user.program.outputs.len();
        let ads = users + self.item.program.outputs.len();
        let mut offset = 0;
        for (i, port) in program.inputs.iter().enumerate() {
            if i == users {
                offset = 0;
            }
            let input = program.input(arena, i);
            if i < users {
                input.copy_from_slice(&user_part[offset..offset + port.width]);
            } else {
                let (source, from, stride) = if i < ads {
                    (activations, offset, self.item_width)
                } else {
                    (cross, self.crossings[i - ads], columns)
                };
                let (filled, padding) = input.split_at_mut(block.len() * port.width);
                for (row, target) in block.clone().zip(filled.chunks_exact_mut(port.width.max(1))) {
                    target.copy_from_slice(&source[row * stride + from..][..port.width]);
                }
                padding.fill(0.0);
            }
            offset += port.width;
        }
    }

    /// The unsplit graph on at most a block of candidates: the twin that the split is compared with.
    pub fn whole(
        &self,
        schema: &Schema,
        (user, items): (&FeatureRow, &[FeatureRow]),
        cross: &[f32],
        (arena, encoding): (&mut Arena, &mut Encoding),
        sink: impl FnMut(usize, f32),
    ) -> Result<(), ModelError> {
        self.fill_whole(schema, (user, items), cross, (arena, encoding))?;
        self.run_whole_filled(arena, items.len(), sink);
        Ok(())
    }

    /// Writes the inputs of the unsplit graph.
    pub fn fill_whole(
        &self,
        schema: &Schema,
        (user, items): (&FeatureRow, &[FeatureRow]),
        cross: &[f32],
        (arena, encoding): (&mut Arena, &mut Encoding),
    ) -> Result<(), ModelError> {
        let program = &self.whole.program;
        fill(self.whole.as_pair(), schema, items, (arena, encoding))?;
        bind::write(self.whole.as_pair(), (Label::User, &schema.user), user, 0, (arena, encoding))?;
        for (input, feed) in self.whole.feeds.iter().enumerate() {
            if let Feed::Cross(i) = feed {
                let values = program.input(arena, input);
                for (row, value) in values.iter_mut().enumerate().take(items.len()) {
                    *value = cross[row * schema.cross.len() + i];
                }
            }
        }
        Ok(())
    }

    /// Runs the unsplit graph, when its inputs are written.
    pub fn run_whole_filled(&self, arena: &mut Arena, rows: usize, mut sink: impl FnMut(usize, f32)) {
        let program = &self.whole.program;
        program.run(arena, rows);
        raw(program, arena, rows, &mut sink);
    }
}

/// Rounded, the row of a table would be that of another value: an item that keeps one is kept in f32.
fn keeps_no_rows(item: &Graph, read: &Read) -> Result<(), GraphError> {
    for (_, output) in &item.outputs {
        let mut id = *output;
        while let Some(view) = item.maker(id).filter(|n| matches!(n.op, Op::Reshape { .. } | Op::Slice { .. })) {
            id = view.inputs[0];
        }
        let name = &item.tensors[id].name;
        if item.inputs.contains(&id) && read.inputs.iter().any(|(n, e)| n == name && *e == Element::Integer) {
            return Err(GraphError::Port {
                port: "input",
                name: name.clone(),
                reason: "is compared with the user's, and cannot be kept in bf16: use activations = \"f32\"".to_owned(),
            });
        }
    }
    Ok(())
}

/// Zeroes the inputs of a program and writes items into its rows.
pub(super) fn fill(
    (program, feeds): (&Program, &[Feed]),
    schema: &Schema,
    items: &[FeatureRow],
    (arena, encoding): (&mut Arena, &mut Encoding),
) -> Result<(), ModelError> {
    program.prepare(arena);
    (0..program.inputs.len()).for_each(|i| program.input(arena, i).fill(0.0));
    for (row, item) in items.iter().enumerate() {
        bind::write((program, feeds), (Label::Ad, &schema.item), item, row, (arena, encoding))?;
    }
    Ok(())
}

fn raw(program: &Program, arena: &Arena, rows: usize, sink: &mut impl FnMut(usize, f32)) {
    for row in 0..rows {
        for (head, port) in program.outputs.iter().enumerate() {
            sink(head, program.output(arena, head)[if port.rows == 1 { 0 } else { row }]);
        }
    }
}

/// Parts that are computed otherwise are other parts.
fn hash(split: [u8; 32], precision: Precision) -> [u8; 32] {
    match precision {
        Precision::F32 => split,
        Precision::Bf16 | Precision::Int8 => {
            *blake3::Hasher::new().update(&split).update(precision.name().as_bytes()).finalize().as_bytes()
        }
    }
}

/// The outputs of these names, each with its width.
pub(super) fn outputs<'a>(
    graph: &Graph,
    wanted: impl Iterator<Item = (&'a str, usize)>,
) -> Result<Vec<(String, TensorId)>, GraphError> {
    let mut found = Vec::new();
    for (name, width) in wanted {
        let wrong = |reason: String| GraphError::Port { port: "output", name: name.to_owned(), reason };
        let id = graph.outputs.iter().find(|(n, _)| n == name).map(|(_, id)| *id);
        let id = id.ok_or_else(|| wrong("the graph does not have it".to_owned()))?;
        let shape = &graph.tensors[id].shape;
        if !(shape.dims == [width] || (shape.dims.is_empty() && width == 1)) || !shape.batch {
            return Err(wrong(format!("is {shape:?}, the schema says [batch, {width}]")));
        }
        found.push((name.to_owned(), id));
    }
    Ok(found)
}
