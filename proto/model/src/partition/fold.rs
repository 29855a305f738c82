//! Rule: a constant factor behind a dense layer becomes part of its matrix.
//!
//! `(x W + b) f = x (W f) + b f`, column by column: what `BatchNormalization` behind a layer is, and the factors
//! that exporters write for temperatures and weight normalisation. Exact but for rounding. Pays whenever nothing else
//! reads the layer: two operations on each candidate's row become none. A factor *before* a layer is the business
//! of [`super::product`].

use super::Label;
use super::draft::{Rebuild, rebuild};
use crate::graph::{Binary, Graph, Node, Op, TensorId};

/// Layers behind one another that a factor may pass, such as the two additions of bias and shift.
const DEPTH_MAX: usize = 8;

/// The graph with factors folded.
pub(super) fn apply(graph: &Graph, inputs: &[Label]) -> Result<Graph, String> {
    rebuild(graph, inputs, scale)
}

fn scale(r: &mut Rebuild<'_>, node: &Node) -> Result<Option<TensorId>, String> {
    let (Op::Binary(Binary::Mul), [a, b]) = (&node.op, node.inputs.as_slice()) else { return Ok(None) };
    let (layer, factor) = match (r.labels[*a], r.labels[*b]) {
        (Label::Constant, _) => (*b, *a),
        (_, Label::Constant) => (*a, *b),
        _ => return Ok(None),
    };
    // One number, or one a column.
    let columns = r.old.dims(layer).last().copied().unwrap_or(0);
    let [outer @ .., last] = r.old.dims(factor) else { return Ok(None) };
    let fits = outer.iter().all(|d| *d == 1) && (*last == 1 || *last == columns);
    if !fits || r.old.dims(node.output) != r.old.dims(layer) || !takes(r, layer, 0) {
        return Ok(None);
    }
    let factor = r.new.push(Op::Reshape { dims: vec![*last] }, &[r.map[factor]], "")?;
    scaled(r, layer, factor).map(Some)
}

/// Whether everything that `id` is made of takes a factor without an operation of its own.
fn takes(r: &Rebuild<'_>, id: TensorId, depth: usize) -> bool {
    if r.labels[id] == Label::Constant {
        return depth > 0;
    }
    let Some(node) = r.old.maker(id).filter(|_| r.readers[id] == 1 && depth < DEPTH_MAX) else { return false };
    match (&node.op, node.inputs.as_slice()) {
        (Op::MatMul, [_, matrix]) => r.labels[*matrix] == Label::Constant && r.old.dims(*matrix).len() == 2,
        (Op::Sum | Op::Binary(Binary::Add), inputs) => inputs.iter().all(|i| takes(r, *i, depth + 1)),
        _ => false,
    }
}

fn scaled(r: &mut Rebuild<'_>, id: TensorId, factor: TensorId) -> Result<TensorId, String> {
    let name = r.old.tensors[id].name.clone();
    let old = r.old;
    match old.maker(id) {
        Some(Node { op: Op::MatMul, inputs, .. }) => {
            let matrix = r.new.push(Op::Binary(Binary::Mul), &[r.map[inputs[1]], factor], &name)?;
            r.new.push(Op::MatMul, &[r.map[inputs[0]], matrix], &name)
        }
        Some(node) => {
            let inputs: Result<Vec<_>, _> = node.inputs.iter().map(|i| scaled(r, *i, factor)).collect();
            r.new.push(node.op.clone(), &inputs?, &name)
        }
        // A constant.
        None => r.new.push(Op::Binary(Binary::Mul), &[r.map[id], factor], &name),
    }
}
