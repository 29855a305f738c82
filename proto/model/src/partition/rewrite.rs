//! How does a graph become one whose user-only and ad-only tensors are as many and as late as possible?
//!
//! Two rewrites, each exact but for the order of additions:
//! * a product of a concatenation is the sum of the products of its parts, each with its rows of the matrix; parts
//!   of one label stay together. `[u, a, x] W = u Wu + a Wa + x Wx`, so that the widest layer of a ranker is
//!   computed once a request for the user's part and once an item for the ad's;
//! * a chain of additions is one sum whose terms are grouped by label; constants (the bias) go to the user's group.

use super::{Label, labels};
use crate::graph::{Binary, Graph, Node, Op, Source, TensorId};
use std::sync::Arc;

/// The same function with its labels apart.
pub(super) fn separate(graph: &Graph, inputs: &[Label]) -> Result<Graph, String> {
    let split = rebuild(graph, inputs, product)?;
    let split = split.extract(&split.inputs, &split.outputs)?;
    let summed = rebuild(&split, inputs, sum)?;
    // Leaves out what the rewrites left unused.
    summed.extract(&summed.inputs, &summed.outputs)
}

/// A graph under construction beside the one it comes from.
struct Rebuild<'a> {
    old: &'a Graph,
    labels: &'a [Label],
    /// How many nodes and outputs read a tensor.
    readers: Vec<usize>,
    map: Vec<TensorId>,
    new: Graph,
}

type Rule = fn(&mut Rebuild<'_>, &Node) -> Result<Option<TensorId>, String>;

fn rebuild(old: &Graph, inputs: &[Label], rule: Rule) -> Result<Graph, String> {
    let labels = labels(old, inputs);
    let mut readers = vec![0; old.tensors.len()];
    old.nodes.iter().flat_map(|n| &n.inputs).for_each(|i| readers[*i] += 1);
    old.outputs.iter().for_each(|(_, i)| readers[*i] += 1);
    let map = vec![0; old.tensors.len()];
    let mut r = Rebuild { old, labels: &labels, readers, map, new: Graph::default() };
    for id in &old.inputs {
        r.map[*id] = r.new.input(&old.tensors[*id].name, old.tensors[*id].shape.clone());
    }
    for (id, tensor) in old.tensors.iter().enumerate() {
        match &tensor.source {
            Source::Input => {}
            Source::Constant(values) => {
                r.map[id] = r.new.constant(&tensor.name, tensor.shape.dims.clone(), Arc::clone(values));
            }
            Source::Node(node) => {
                let node = &old.nodes[*node];
                r.map[id] = match rule(&mut r, node)? {
                    Some(made) => made,
                    None => {
                        let inputs: Vec<TensorId> = node.inputs.iter().map(|i| r.map[*i]).collect();
                        r.new.push(node.op.clone(), &inputs, &tensor.name)?
                    }
                };
            }
        }
    }
    r.new.outputs = old.outputs.iter().map(|(name, id)| (name.clone(), r.map[*id])).collect();
    Ok(r.new)
}

/// The parts of a concatenation along the last axis, nested ones opened.
fn parts(r: &Rebuild<'_>, id: TensorId, found: &mut Vec<TensorId>) {
    match r.old.maker(id) {
        Some(Node { op: Op::Concat { axis }, inputs, .. }) if axis + 1 == r.old.dims(id).len() => {
            inputs.iter().for_each(|i| parts(r, *i, found));
        }
        _ => found.push(id),
    }
}

/// A product of a mixed concatenation, as a sum of products.
fn product(r: &mut Rebuild<'_>, node: &Node) -> Result<Option<TensorId>, String> {
    let (Op::MatMul, [left, matrix]) = (&node.op, node.inputs.as_slice()) else { return Ok(None) };
    let (Some(weights), [_, columns]) = (r.old.values(*matrix).cloned(), r.old.dims(*matrix)) else { return Ok(None) };
    let columns = *columns;
    let mut pieces = Vec::new();
    parts(r, *left, &mut pieces);
    let groups = [Label::Constant, Label::User, Label::Ad, Label::Both];
    let used = groups.iter().filter(|g| pieces.iter().any(|p| r.labels[*p] == **g)).count();
    let axis = r.old.dims(*left).len() - 1;
    // A constant part has no rows of its own to multiply: such a concatenation stays whole.
    if used < 2 || pieces.iter().any(|p| r.labels[*p] == Label::Constant || r.old.dims(*p).len() != axis + 1) {
        return Ok(None);
    }
    let name = r.old.tensors[node.output].name.clone();
    let mut terms = Vec::new();
    for group in groups {
        let (mut members, mut rows, mut from) = (Vec::new(), Vec::new(), 0);
        for piece in &pieces {
            let width = r.old.dims(*piece)[axis];
            if r.labels[*piece] == group {
                members.push(r.map[*piece]);
                rows.extend_from_slice(&weights[from * columns..(from + width) * columns]);
            }
            from += width;
        }
        if members.is_empty() {
            continue;
        }
        let joined = r.new.push(Op::Concat { axis }, &members, &name)?;
        let height = rows.len().checked_div(columns).unwrap_or(0);
        let block = r.new.constant(&name, vec![height, columns], rows.into());
        terms.push(r.new.push(Op::MatMul, &[joined, block], &name)?);
    }
    r.new.push(Op::Sum, &terms, &name).map(Some)
}

/// The terms of a chain of additions that nothing else reads.
fn terms(r: &Rebuild<'_>, id: TensorId, found: &mut Vec<TensorId>, depth: usize) {
    /// Chains are some ten additions long; the bound keeps the recursion small whatever the file says.
    const DEPTH_MAX: usize = 64;
    match r.old.maker(id) {
        Some(Node { op: Op::Sum | Op::Binary(Binary::Add), inputs, .. })
            if depth == 0 || (depth < DEPTH_MAX && r.readers[id] == 1 && r.labels[id] == Label::Both) =>
        {
            inputs.iter().for_each(|i| terms(r, *i, found, depth + 1));
        }
        _ => found.push(id),
    }
}

/// A chain of additions as one sum, its terms grouped by label.
fn sum(r: &mut Rebuild<'_>, node: &Node) -> Result<Option<TensorId>, String> {
    if !matches!(node.op, Op::Sum | Op::Binary(Binary::Add)) || r.labels[node.output] != Label::Both {
        return Ok(None);
    }
    let mut found = Vec::new();
    terms(r, node.output, &mut found, 0);
    let name = r.old.tensors[node.output].name.clone();
    let has_user = found.iter().any(|t| r.labels[*t] == Label::User);
    let home = if has_user { Label::User } else { Label::Ad };
    let label = |t: TensorId| match r.labels[t] {
        Label::Constant => home,
        label @ (Label::User | Label::Ad | Label::Both) => label,
    };
    let mut grouped = Vec::new();
    for group in [Label::User, Label::Ad] {
        let members: Vec<TensorId> = found.iter().filter(|t| label(**t) == group).map(|t| r.map[*t]).collect();
        if !members.is_empty() {
            grouped.push(r.new.push(Op::Sum, &members, &name)?);
        }
    }
    grouped.extend(found.iter().filter(|t| label(**t) == Label::Both).map(|t| r.map[*t]));
    r.new.push(Op::Sum, &grouped, &name).map(Some)
}
