//! What does it cost to compute a tensor, to keep it for each item, or to send it with a request?
//!
//! One unit: a floating-point operation of a product, of which a core of this decade does some 50 in a nanosecond.
//! The prices of memory are set against it, rounded to powers of two, and part of the partition: they are constants,
//! not measurements, so that router and node find the same cut.

use super::Label;
use crate::graph::{Graph, Node, Op, Reduction};

/// Candidates of a block, for what is paid once a block. Requests that rank few have small blocks; what the executor
/// takes at once may change without a change of the partition.
pub(super) const BLOCK: u64 = 32;
/// A value that a candidate reads from its item's row: 4 bytes at some 12 GB/s that a core gets from memory.
pub(super) const ACTIVATION: u64 = 16;
/// A value of the user part, for each block of candidates that it meets: it is encoded, sent and decoded once a node
/// (some 4 ns a value, shared by a few blocks) and copied once a block.
pub(super) const USER_VALUE: u64 = 32;
/// A row of a table at a place that no cache holds: some 20 ns.
const LOOKUP: u64 = 1_024;
/// A value that is moved, or an elementwise operation: it is bound by the caches, not by the arithmetic.
const MOVE: u64 = 2;
/// Candidates that share what is computed once a request: half of what a request ranks over all shards, so that what
/// is moved to the request pays for small ones too.
pub(super) const CANDIDATES: u64 = 128;
/// An operation of a program, for each candidate: some 60 ns a block of [`BLOCK`].
pub(super) const STEP: u64 = 96;

/// Floating-point operations of a node for one row.
pub(super) fn flops(graph: &Graph, node: &Node) -> u64 {
    let out = graph.tensors[node.output].shape.values() as u64;
    let first = node.inputs.first().map_or(0, |i| graph.tensors[*i].shape.values() as u64);
    match &node.op {
        Op::MatMul => 2 * out * graph.dims(node.inputs[0]).last().copied().unwrap_or(1) as u64,
        Op::Sum => out * node.inputs.len() as u64,
        Op::Reduce { kind: Reduction::L2 | Reduction::SumSquare, .. } => 2 * first,
        Op::Reduce { .. } => first,
        Op::Unary(_) | Op::Binary(_) | Op::Select => out,
        Op::Softmax { .. } | Op::Normalise { .. } => 4 * out,
        Op::Gather { .. }
        | Op::Concat { .. }
        | Op::Reshape { .. }
        | Op::Permute { .. }
        | Op::Slice { .. }
        | Op::Broadcast { .. } => 0,
    }
}

/// The price of a node for one row, where it is computed at the candidate.
pub(super) fn compute(graph: &Graph, node: &Node) -> u64 {
    let out = graph.tensors[node.output].shape.values() as u64;
    let moved = match &node.op {
        Op::Reshape { .. } | Op::MatMul => 0,
        Op::Gather { .. } => {
            let rows = node.inputs.get(1).map_or(0, |i| graph.tensors[*i].shape.values() as u64);
            ACTIVATION * out + LOOKUP * rows
        }
        Op::Sum
        | Op::Reduce { .. }
        | Op::Unary(_)
        | Op::Binary(_)
        | Op::Select
        | Op::Softmax { .. }
        | Op::Normalise { .. }
        | Op::Concat { .. }
        | Op::Permute { .. }
        | Op::Slice { .. }
        | Op::Broadcast { .. } => MOVE * out,
    };
    flops(graph, node) + moved
}

/// The price of there being a step; a view is none.
pub(super) fn step(node: &Node) -> u64 {
    if matches!(node.op, Op::Reshape { .. }) { 0 } else { STEP }
}

/// A candidate's share of what its request computes.
pub(super) fn once_a_request(graph: &Graph, labels: &[Label]) -> u64 {
    let of_user = graph.nodes.iter().filter(|n| labels[n.output] == Label::User);
    of_user.map(|n| compute(graph, n)).sum::<u64>() / CANDIDATES
}

/// The price of a candidate part whose first inputs are `user` values and then `item` values wide.
pub(super) fn candidate(graph: &Graph, labels: &[Label], (user, item): (u64, u64)) -> u64 {
    let of = |node: &Node| match labels[node.output] {
        // One row a block.
        Label::User | Label::Constant => step(node) + compute(graph, node) / BLOCK,
        Label::Ad | Label::Both => step(node) + compute(graph, node),
    };
    graph.nodes.iter().map(of).sum::<u64>() + ACTIVATION * item + USER_VALUE * user / BLOCK
}
