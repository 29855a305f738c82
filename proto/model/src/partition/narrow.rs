//! Rule: what is repeated for a broadcast is repeated as late as can be.
//!
//! `repeat(x) W = repeat(x W)`, `relu(repeat(x)) = repeat(relu(x))`, and an operand that is broadcast anyway need not be
//! repeated before. Exact, to the bit. It is what an `Expand` before a concatenation becomes once the concatenation
//! has fallen into its groups: the item's side of every position of a user's sequence is one row and not a hundred.
//! Always pays: the same numbers are computed once.

use super::Label;
use super::draft::{Rebuild, rebuild};
use crate::graph::{Graph, Node, Op, TensorId};

/// The graph with repetitions moved back.
pub(super) fn apply(graph: &Graph, inputs: &[Label]) -> Result<Graph, String> {
    rebuild(graph, inputs, narrow)
}

fn narrow(r: &mut Rebuild<'_>, node: &Node) -> Result<Option<TensorId>, String> {
    let sources: Vec<TensorId> = node.inputs.iter().map(|i| source(r, r.map[*i])).collect();
    if sources.iter().zip(&node.inputs).all(|(source, input)| *source == r.map[*input]) {
        return Ok(None);
    }
    let inputs = match (&node.op, node.inputs.as_slice()) {
        (Op::Unary(_) | Op::Binary(_) | Op::Sum | Op::Select, _) => sources,
        (Op::MatMul, [left, matrix]) => {
            let constant = r.labels[*matrix] == Label::Constant && r.old.dims(*matrix).len() == 2;
            // The last dimension is the one that is multiplied: it stays.
            let kept = r.new.dims(sources[0]).last() == r.old.dims(*left).last() && r.old.dims(*left).len() > 1;
            if !constant || !kept {
                return Ok(None);
            }
            vec![sources[0], r.map[*matrix]]
        }
        _ => return Ok(None),
    };
    let name = r.old.tensors[node.output].name.clone();
    let result = r.new.push(node.op.clone(), &inputs, &name)?;
    r.new.push(Op::Broadcast { dims: r.old.dims(node.output).to_vec() }, &[result], &name).map(Some)
}

/// What a tensor repeats, or itself.
fn source(r: &Rebuild<'_>, id: TensorId) -> TensorId {
    match r.new.maker(id) {
        Some(Node { op: Op::Broadcast { .. }, inputs, .. }) => inputs[0],
        _ => id,
    }
}
