//! Rule: a chain of additions is one sum whose terms are grouped by what they depend on.
//!
//! `((u + a) + x) + b = (u + b) + a + x`: what depends on the user alone is added up once a request, what depends on
//! the item alone once an item; constants (the bias) go to the user's group. Exact but for the order of additions.
//! Pays whenever two terms of one label meet, and costs nothing otherwise.

use super::Label;
use super::draft::{Rebuild, rebuild};
use crate::graph::{Binary, Graph, Node, Op, TensorId};

/// The graph with its sums grouped.
pub(super) fn apply(graph: &Graph, inputs: &[Label]) -> Result<Graph, String> {
    rebuild(graph, inputs, sum)
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
