//! How does a rewrite build the graph that follows, and what does each of its tensors depend on?
//!
//! A draft is a graph under construction that knows its labels. An operation that is there already, over the same
//! inputs, is not added again, and neither is a constant of equal values: equal subgraphs are shared wherever a
//! rewrite or an exporter repeats them. Sharing goes by content, so that it is a pure function of the graph.

use super::{Label, labels};
use crate::graph::{Graph, Node, Op, Shape, Source, Table, TensorId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A graph under construction.
#[derive(Default)]
pub(super) struct Draft {
    graph: Graph,
    labels: Vec<Label>,
    nodes: BTreeMap<String, TensorId>,
    constants: BTreeMap<Fingerprint, TensorId>,
}

impl Draft {
    /// Adds an input with its label.
    pub fn input(&mut self, name: &str, shape: Shape, label: Label) -> TensorId {
        let id = self.graph.input(name, shape);
        self.labels.push(label);
        id
    }

    /// A constant of these values.
    pub fn constant(&mut self, name: &str, dims: Vec<usize>, values: Arc<[f32]>) -> TensorId {
        let key = fingerprint(&dims, &values);
        if let Some(id) = self.constants.get(&key) {
            return *id;
        }
        let id = self.graph.constant(name, dims, values);
        self.labels.push(Label::Constant);
        self.constants.insert(key, id);
        id
    }

    /// A table that stays in its file.
    pub fn table(&mut self, name: &str, dims: Vec<usize>, table: Arc<Table>) -> TensorId {
        self.labels.push(Label::Constant);
        self.graph.table(name, dims, table)
    }

    /// Adds an operation, or finds it.
    pub fn push(&mut self, op: Op, inputs: &[TensorId], name: &str) -> Result<TensorId, String> {
        let key = format!("{op:?} {inputs:?}");
        if let Some(id) = self.nodes.get(&key) {
            return Ok(*id);
        }
        let known = self.graph.tensors.len();
        let label = inputs.iter().fold(Label::Constant, |l, i| l.join(self.labels[*i]));
        let mut id = self.graph.push(op, inputs, name)?;
        self.labels.resize(self.graph.tensors.len(), label);
        if id >= known
            && let Some(values) = self.graph.values(id)
        {
            // A folded constant may be one that we have: the copy is never read and left out at the end.
            let key = fingerprint(self.graph.dims(id), values);
            id = *self.constants.entry(key).or_insert(id);
        }
        self.nodes.insert(key, id);
        Ok(id)
    }

    /// What a tensor depends on.
    pub fn label(&self, id: TensorId) -> Label {
        self.labels[id]
    }

    /// The dimensions of one row.
    pub fn dims(&self, id: TensorId) -> &[usize] {
        self.graph.dims(id)
    }

    /// The node that makes a tensor.
    pub fn maker(&self, id: TensorId) -> Option<&Node> {
        self.graph.maker(id)
    }

    /// The graph with these outputs, without what nothing needs.
    pub fn finish(self, outputs: Vec<(String, TensorId)>) -> Result<Graph, String> {
        self.graph.extract(&self.graph.inputs, &outputs)
    }
}

/// By what two constants are one.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Fingerprint {
    Content([u8; 32]),
    /// Of a large one: its place in memory, which the draft keeps alive, and its dimensions.
    Place(usize, Vec<usize>),
}

/// Values up to which constants are compared: a table of embeddings is read once as it is, and not once a rewrite.
const COMPARED_VALUES_MAX: usize = 1 << 20;

fn fingerprint(dims: &[usize], values: &[f32]) -> Fingerprint {
    if values.len() > COMPARED_VALUES_MAX {
        return Fingerprint::Place(values.as_ptr() as usize, dims.to_vec());
    }
    let mut hasher = blake3::Hasher::new();
    for dim in dims {
        hasher.update(&(*dim as u64).to_le_bytes());
    }
    hasher.update(&(dims.len() as u64).to_le_bytes());
    hasher.update(bytemuck::cast_slice(values));
    Fingerprint::Content(*hasher.finalize().as_bytes())
}

/// A graph, read node by node, and the draft that follows it.
pub(super) struct Rebuild<'a> {
    pub old: &'a Graph,
    pub labels: Vec<Label>,
    /// How many nodes and outputs read a tensor.
    pub readers: Vec<usize>,
    /// Where a tensor of the old graph is in the draft.
    pub map: Vec<TensorId>,
    pub new: Draft,
}

/// A rewrite: what stands for a node, or `None` when it stays as it is.
pub(super) type Rule = fn(&mut Rebuild<'_>, &Node) -> Result<Option<TensorId>, String>;

impl<'a> Rebuild<'a> {
    /// Before the first node: inputs and constants are in place.
    pub fn new(old: &'a Graph, inputs: &[Label]) -> Self {
        let labels = labels(old, inputs);
        let mut readers = vec![0; old.tensors.len()];
        old.nodes.iter().flat_map(|n| &n.inputs).for_each(|i| readers[*i] += 1);
        old.outputs.iter().for_each(|(_, i)| readers[*i] += 1);
        let mut new = Draft::default();
        let mut map = vec![0; old.tensors.len()];
        for id in &old.inputs {
            map[*id] = new.input(&old.tensors[*id].name, old.tensors[*id].shape.clone(), labels[*id]);
        }
        for (id, tensor) in old.tensors.iter().enumerate() {
            match &tensor.source {
                Source::Constant(values) => {
                    map[id] = new.constant(&tensor.name, tensor.shape.dims.clone(), Arc::clone(values));
                }
                Source::Table(table) => {
                    map[id] = new.table(&tensor.name, tensor.shape.dims.clone(), Arc::clone(table));
                }
                Source::Input | Source::Node(_) => {}
            }
        }
        Self { old, labels, readers, map, new }
    }

    /// The node as it stands.
    pub fn copy(&mut self, node: &Node) -> Result<TensorId, String> {
        let inputs: Vec<TensorId> = node.inputs.iter().map(|i| self.map[*i]).collect();
        self.new.push(node.op.clone(), &inputs, &self.old.tensors[node.output].name)
    }

    /// The draft as a graph.
    pub fn finish(self) -> Result<Graph, String> {
        let outputs = self.old.outputs.iter().map(|(name, id)| (name.clone(), self.map[*id])).collect();
        self.new.finish(outputs)
    }
}

/// The same graph with `rule` applied to each node, once.
pub(super) fn rebuild(old: &Graph, inputs: &[Label], rule: Rule) -> Result<Graph, String> {
    let mut r = Rebuild::new(old, inputs);
    for node in &old.nodes {
        r.map[node.output] = match rule(&mut r, node)? {
            Some(made) => made,
            None => r.copy(node)?,
        };
    }
    r.finish()
}
