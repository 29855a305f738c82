//! Which operations of a graph run as one step?
//!
//! A value that only the next operation reads need not be written in full and read again: a product and the
//! element-wise operations after it, or a run of element-wise operations, become one group. A group runs where its
//! last member stands; what its members read is complete by then, because a value inside a group has no other
//! reader.
//!
//! Only operations whose operands meet the value row by row join a group ([`Layout`]); what stretches an operand
//! inside a row stays a step of its own.

use super::tail::{Layout, Step};
use crate::graph::{Binary, Graph, Node, Op, TensorId};

/// What a group begins with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Head {
    /// Any operation, followed by `steps` if it is a product.
    Node(usize),
    /// A chain that starts from its first input, which meets the result in this way.
    Chain(Layout),
}

/// Operations that run as one step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Group {
    pub head: Head,
    /// What it reads, the operands of `steps` by their place.
    pub inputs: Vec<TensorId>,
    pub steps: Vec<Step>,
    pub output: TensorId,
    /// Its last member.
    pub at: usize,
}

/// The groups of a graph, in an order in which each comes after what it reads. Views are not among them.
pub(crate) fn groups(graph: &Graph, dims: &impl Fn(TensorId) -> Vec<usize>) -> Vec<Group> {
    let mut readers = vec![Vec::new(); graph.tensors.len()];
    for (at, node) in graph.nodes.iter().enumerate() {
        node.inputs.iter().for_each(|i| readers[*i].push(Some(at)));
    }
    graph.outputs.iter().for_each(|(_, id)| readers[*id].push(None));
    let mut taken = vec![false; graph.nodes.len()];
    let mut groups = Vec::new();
    for (at, node) in graph.nodes.iter().enumerate() {
        if taken[at] || matches!(node.op, Op::Reshape { .. }) {
            continue;
        }
        taken[at] = true;
        let Some(mut group) = head(node, at, dims) else {
            let inputs = node.inputs.clone();
            groups.push(Group { head: Head::Node(at), inputs, steps: Vec::new(), output: node.output, at });
            continue;
        };
        while let [Some(next)] = readers[group.output].as_slice()
            && !taken[*next]
            && follow(&mut group, &graph.nodes[*next], dims)
        {
            taken[*next] = true;
            group.at = *next;
        }
        groups.push(group);
    }
    groups.sort_by_key(|g| g.at);
    groups
}

/// A group that others may follow.
fn head(node: &Node, at: usize, dims: &impl Fn(TensorId) -> Vec<usize>) -> Option<Group> {
    if node.op == Op::MatMul {
        // A product of many pairs does not finish its columns in order.
        let right = dims(node.inputs[1]);
        let single = right.len() >= 2 && right[..right.len() - 2].iter().all(|d| *d == 1);
        return single.then(|| Group {
            head: Head::Node(at),
            inputs: node.inputs.clone(),
            steps: Vec::new(),
            output: node.output,
            at,
        });
    }
    let result = dims(node.output);
    // A start that is as large as the result needs no repetition, and can be worked on where it stands.
    let full = |id: TensorId| dims(id).iter().product::<usize>() == result.iter().product::<usize>();
    let first = match &node.op {
        Op::Unary(_) => node.inputs[0],
        Op::Binary(_) | Op::Sum => *node.inputs.iter().find(|i| full(**i)).or(node.inputs.first())?,
        Op::MatMul
        | Op::Gather { .. }
        | Op::Concat { .. }
        | Op::Reduce { .. }
        | Op::Softmax { .. }
        | Op::Normalise { .. }
        | Op::Reshape { .. }
        | Op::Permute { .. }
        | Op::Slice { .. }
        | Op::Broadcast { .. }
        | Op::Select => return None,
    };
    let layout = Layout::of(&dims(first), &result)?;
    let mut group = Group { head: Head::Chain(layout), inputs: vec![first], steps: Vec::new(), output: first, at };
    append(&mut group, node, dims).then_some(group)
}

/// Takes the next operation into a group, if its dimensions are those of the value.
fn follow(group: &mut Group, node: &Node, dims: &impl Fn(TensorId) -> Vec<usize>) -> bool {
    dims(node.output) == dims(group.output) && append(group, node, dims)
}

/// Appends the steps of an element-wise operation that reads the group's value.
fn append(group: &mut Group, node: &Node, dims: &impl Fn(TensorId) -> Vec<usize>) -> bool {
    let result = dims(node.output);
    let value = group.output;
    let Some(place) = node.inputs.iter().position(|i| *i == value) else { return false };
    let others: Vec<TensorId> = node.inputs.iter().enumerate().filter(|(i, _)| *i != place).map(|(_, t)| *t).collect();
    let Some(layouts) = others.iter().map(|t| Layout::of(&dims(*t), &result)).collect::<Option<Vec<_>>>() else {
        return false;
    };
    let first = group.inputs.len();
    let with = |kind: Binary| others.iter().zip(&layouts).enumerate().map(move |(i, (_, l))| (kind, first + i, *l));
    match &node.op {
        Op::Unary(kind) => group.steps.push(Step::Unary(*kind)),
        Op::Binary(kind) if place == 0 => group.steps.extend(with(*kind).map(|(k, i, l)| Step::With(k, i, l))),
        Op::Binary(kind) => group.steps.extend(with(*kind).map(|(k, i, l)| Step::Against(k, i, l))),
        Op::Sum => group.steps.extend(with(Binary::Add).map(|(k, i, l)| Step::With(k, i, l))),
        Op::MatMul
        | Op::Gather { .. }
        | Op::Concat { .. }
        | Op::Reduce { .. }
        | Op::Softmax { .. }
        | Op::Normalise { .. }
        | Op::Reshape { .. }
        | Op::Permute { .. }
        | Op::Slice { .. }
        | Op::Broadcast { .. }
        | Op::Select => return false,
    }
    group.inputs.extend(others);
    group.output = node.output;
    true
}
