//! What does a model compute, as a list of operations over tensors?
//!
//! Nodes stand in an order in which each comes after its inputs, so every pass over a graph is one loop. A node
//! whose inputs are all constant is computed when it is added: what is left depends on the inputs. The batch
//! dimension is no number: [`Shape::batch`] says that there is one, and a program chooses its rows.

mod infer;
pub(crate) mod op;
mod table;

pub(crate) use infer::product;
pub(crate) use op::{Binary, Op, Reduction, Unary};
pub(crate) use table::{Stored, TABLE_BYTES_MIN, Table};

use crate::exec;
use crate::limits::{FOLDED_VALUES_MAX, NODES_MAX};
use std::sync::Arc;

/// Index of a tensor in its graph.
pub(crate) type TensorId = usize;

/// Dimensions of a tensor.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Shape {
    /// Whether there is a row of these dimensions for each row of the input.
    pub batch: bool,
    /// Dimensions of one row, or of the constant.
    pub dims: Vec<usize>,
}

impl Shape {
    /// Values of one row; every shape in a graph has passed [`product`].
    pub fn values(&self) -> usize {
        self.dims.iter().product()
    }
}

/// Where a tensor comes from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// The caller.
    Input,
    /// The bundle.
    Constant(Arc<[f32]>),
    /// The bundle's file: a constant that is too large to be copied, and that only lookups read.
    Table(Arc<Table>),
    /// A node.
    Node(usize),
}

/// A tensor.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub name: String,
    pub shape: Shape,
    pub source: Source,
}

/// An operation and its tensors.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub op: Op,
    pub inputs: Vec<TensorId>,
    pub output: TensorId,
}

/// Operations in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Graph {
    pub tensors: Vec<Tensor>,
    pub nodes: Vec<Node>,
    pub inputs: Vec<TensorId>,
    pub outputs: Vec<(String, TensorId)>,
}

impl Graph {
    /// Adds an input.
    pub fn input(&mut self, name: &str, shape: Shape) -> TensorId {
        let id = self.tensor(name, shape, Source::Input);
        self.inputs.push(id);
        id
    }

    /// Adds a constant; `values` are as many as the dimensions say.
    pub fn constant(&mut self, name: &str, dims: Vec<usize>, values: Arc<[f32]>) -> TensorId {
        self.tensor(name, Shape { batch: false, dims }, Source::Constant(values))
    }

    /// Adds a table of these dimensions; only `Gather` along its first axis may read it.
    pub fn table(&mut self, name: &str, dims: Vec<usize>, table: Arc<Table>) -> TensorId {
        self.tensor(name, Shape { batch: false, dims }, Source::Table(table))
    }

    fn tensor(&mut self, name: &str, shape: Shape, source: Source) -> TensorId {
        self.tensors.push(Tensor { name: name.to_owned(), shape, source });
        self.tensors.len() - 1
    }

    /// Adds an operation and returns its result; a constant result is computed now, and an operation that changes
    /// nothing is not added at all.
    pub fn push(&mut self, op: Op, inputs: &[TensorId], name: &str) -> Result<TensorId, String> {
        let shapes: Vec<&Shape> = inputs.iter().map(|i| &self.tensors[*i].shape).collect();
        let shape = infer::infer(&op, &shapes)?;
        if let ([only], true) = (inputs, is_identity(&op, &shapes, &shape)) {
            return Ok(*only);
        }
        if let (Op::Gather { axis: 0 }, [table, at]) = (&op, inputs)
            && let (Some(table), Some(at)) = (self.table_of(*table), self.values(*at))
        {
            let mut rows = vec![0.0; folded(&shape)?];
            table.look_up(at, &mut rows);
            return Ok(self.constant(name, shape.dims, rows.into()));
        }
        if let Some(constants) = inputs.iter().map(|i| self.values(*i)).collect::<Option<Vec<_>>>() {
            if let (Op::Reshape { .. }, [values]) = (&op, constants.as_slice()) {
                return Ok(self.constant(name, shape.dims, Arc::clone(values)));
            }
            folded(&shape)?;
            let folded = exec::evaluate(&op, &shapes, &constants, &shape)?;
            return Ok(self.constant(name, shape.dims, folded.into()));
        }
        if self.nodes.len() >= NODES_MAX {
            return Err(format!("more than {NODES_MAX} operations"));
        }
        let output = self.tensor(name, shape, Source::Node(self.nodes.len()));
        self.nodes.push(Node { op, inputs: inputs.to_vec(), output });
        Ok(output)
    }

    /// The values of a constant.
    pub fn values(&self, id: TensorId) -> Option<&Arc<[f32]>> {
        match &self.tensors[id].source {
            Source::Constant(values) => Some(values),
            Source::Input | Source::Table(_) | Source::Node(_) => None,
        }
    }

    /// The table that a tensor is.
    pub fn table_of(&self, id: TensorId) -> Option<&Arc<Table>> {
        match &self.tensors[id].source {
            Source::Table(table) => Some(table),
            Source::Input | Source::Constant(_) | Source::Node(_) => None,
        }
    }

    /// The node that makes a tensor.
    pub fn maker(&self, id: TensorId) -> Option<&Node> {
        match self.tensors[id].source {
            Source::Node(node) => Some(&self.nodes[node]),
            Source::Input | Source::Constant(_) | Source::Table(_) => None,
        }
    }

    /// The dimensions of one row.
    pub fn dims(&self, id: TensorId) -> &[usize] {
        &self.tensors[id].shape.dims
    }

    /// The graph that computes `outputs` from `inputs`, which cut it off: what lies behind them is left out. An
    /// input that nothing needs stays, so that the callers' order is kept.
    pub fn extract(&self, inputs: &[TensorId], outputs: &[(String, TensorId)]) -> Result<Self, String> {
        let mut needed = vec![false; self.tensors.len()];
        for (_, id) in outputs {
            needed[*id] = true;
        }
        let mut cut = vec![false; self.tensors.len()];
        for id in inputs {
            cut[*id] = true;
        }
        for node in self.nodes.iter().rev().filter(|n| !cut[n.output]) {
            if needed[node.output] {
                node.inputs.iter().for_each(|i| needed[*i] = true);
            }
        }
        let mut part = Self::default();
        let mut map: Vec<Option<TensorId>> = vec![None; self.tensors.len()];
        for id in inputs {
            map[*id] = Some(part.input(&self.tensors[*id].name, self.tensors[*id].shape.clone()));
        }
        for (id, tensor) in self.tensors.iter().enumerate().filter(|(id, _)| needed[*id] && !cut[*id]) {
            map[id] = match &tensor.source {
                Source::Constant(values) => {
                    Some(part.constant(&tensor.name, tensor.shape.dims.clone(), Arc::clone(values)))
                }
                Source::Table(table) => Some(part.table(&tensor.name, tensor.shape.dims.clone(), Arc::clone(table))),
                Source::Node(node) => {
                    let node = &self.nodes[*node];
                    let made: Option<Vec<TensorId>> = node.inputs.iter().map(|i| map[*i]).collect();
                    let made = made.ok_or_else(|| format!("{} is used before it is made", tensor.name))?;
                    Some(part.push(node.op.clone(), &made, &tensor.name)?)
                }
                Source::Input => return Err(format!("{} is needed and not given", tensor.name)),
            };
        }
        for (name, id) in outputs {
            let id = map[*id].ok_or_else(|| format!("{name} has no source"))?;
            part.outputs.push((name.clone(), id));
        }
        Ok(part)
    }
}

/// The number of values of a constant that is made while a graph is read.
fn folded(shape: &Shape) -> Result<usize, String> {
    let values = product(&shape.dims)?;
    if values > FOLDED_VALUES_MAX {
        return Err(format!("a constant of {values} values, {FOLDED_VALUES_MAX} are possible"));
    }
    Ok(values)
}

fn is_identity(op: &Op, inputs: &[&Shape], output: &Shape) -> bool {
    match op {
        Op::Reshape { .. } | Op::Broadcast { .. } | Op::Slice { step: 1, .. } => inputs == [output],
        Op::Concat { .. } | Op::Sum => inputs.len() == 1,
        Op::Permute { order } => order.is_sorted(),
        Op::MatMul
        | Op::Gather { .. }
        | Op::Unary(_)
        | Op::Binary(_)
        | Op::Reduce { .. }
        | Op::Softmax { .. }
        | Op::Normalise { .. }
        | Op::Slice { .. }
        | Op::Select => false,
    }
}
