//! Which part of a ranker depends on the user, which on the item, and which on their meeting?
//!
//! Each tensor has a label: constant, user-only, ad-only or both. After the graph is rewritten so that the labels
//! come apart (see [`rewrite`]), the user-only and ad-only tensors that an operation on both reads are the
//! *frontier*: the user's are flattened into one row that is computed once a request, the ad's into one row that
//! is computed once an item, and what is left runs for each candidate.
//!
//! The partition is a pure function of the bundle: no calibration, no measurement and no order of a hash map enters
//! it, so that a router and a node that hold one bundle hold one partition. [`Partition::hash`] says so on the wire.

mod draft;
mod fold;
mod frontier;
mod groups;
mod narrow;
mod price;
mod product;
mod rewrite;
mod spread;
mod sum;

use crate::graph::{Graph, TensorId};
use rewrite::Plan;
use std::fmt::Write as _;

/// What a tensor depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Label {
    Constant,
    User,
    Ad,
    Both,
}

impl Label {
    /// What depends on both.
    pub const fn join(self, other: Self) -> Self {
        match (self, other) {
            (Self::Constant, x) | (x, Self::Constant) => x,
            (Self::User, Self::User) => Self::User,
            (Self::Ad, Self::Ad) => Self::Ad,
            (Self::Both, _) | (_, Self::Both) | (Self::User, Self::Ad) | (Self::Ad, Self::User) => Self::Both,
        }
    }
}

/// The three parts of a ranker.
#[derive(Debug)]
pub(crate) struct Partition {
    /// From the user's features to the user part.
    pub user: Graph,
    /// From the item's features to its activations.
    pub item: Graph,
    /// From both, and the cross features, to the heads. Its inputs are the user's frontier, the item's frontier
    /// and the cross features, in this order.
    pub candidate: Graph,
    pub hash: [u8; 32],
    pub report: PartitionReport,
}

/// What one part costs for one row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartCost {
    /// Operations.
    pub operations: usize,
    /// Floating-point operations of its products and sums for one row.
    pub flops: u64,
    /// Bytes of the constants it reads.
    pub constant_bytes: u64,
}

/// What the split saves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionReport {
    /// The ranker as it came.
    pub whole: PartCost,
    /// Once a request.
    pub user: PartCost,
    /// Once an item.
    pub item: PartCost,
    /// For each candidate.
    pub candidate: PartCost,
}

impl PartitionReport {
    /// The share of the floating-point operations of a candidate that the split took off the request path, 0 to 1.
    #[must_use]
    pub fn share_off_request_path(&self) -> f64 {
        if self.whole.flops == 0 { 0.0 } else { 1.0 - self.candidate.flops as f64 / self.whole.flops as f64 }
    }
}

/// The label of each tensor, given those of the inputs in their order.
pub(crate) fn labels(graph: &Graph, inputs: &[Label]) -> Vec<Label> {
    let mut labels = vec![Label::Constant; graph.tensors.len()];
    for (id, label) in graph.inputs.iter().zip(inputs) {
        labels[*id] = *label;
    }
    for node in &graph.nodes {
        labels[node.output] = node.inputs.iter().fold(Label::Constant, |l, i| l.join(labels[*i]));
    }
    labels
}

/// Splits a ranker whose inputs have these labels.
pub(crate) fn split(whole: &Graph, inputs: &[Label]) -> Result<Partition, String> {
    parts(whole, rewrite::cheapest(whole, inputs)?, inputs)
}

/// The graphs of a plan.
fn parts(whole: &Graph, plan: Plan, inputs: &[Label]) -> Result<Partition, String> {
    let Plan { graph, user, item, .. } = plan;
    let of = |label: Label| -> Vec<TensorId> {
        graph.inputs.iter().zip(inputs).filter(|(_, l)| **l == label).map(|(i, _)| *i).collect()
    };
    let named = |ids: &[TensorId], prefix: &str| -> Vec<(String, TensorId)> {
        ids.iter().enumerate().map(|(i, id)| (format!("{prefix}{i}"), *id)).collect()
    };
    let user_graph = graph.extract(&of(Label::User), &named(&user, "user"))?;
    let item_graph = graph.extract(&of(Label::Ad), &named(&item, "ad"))?;
    let met: Vec<TensorId> = user.iter().chain(&item).copied().chain(of(Label::Both)).collect();
    let candidate = graph.extract(&met, &graph.outputs)?;
    let report = PartitionReport {
        whole: cost(whole),
        user: cost(&user_graph),
        item: cost(&item_graph),
        candidate: cost(&candidate),
    };
    let hash = hash(whole, &[&user_graph, &item_graph, &candidate]);
    Ok(Partition { user: user_graph, item: item_graph, candidate, hash, report })
}

/// BLAKE3 over every operation of the parts with its shapes, in order, and over the constants of the whole graph. Those
/// of the parts are products of them, and may differ in their last bit between two kinds of processors.
fn hash(whole: &Graph, parts: &[&Graph]) -> [u8; 32] {
    let mut text = String::from("gavel-split-2\n");
    for values in (0..whole.tensors.len()).filter_map(|id| whole.values(id)) {
        let mut hasher = blake3::Hasher::new();
        values.iter().for_each(|v| {
            hasher.update(&v.to_le_bytes());
        });
        let _ = writeln!(text, "{}", hasher.finalize());
    }
    for table in (0..whole.tensors.len()).filter_map(|id| whole.table_of(id)) {
        let _ = writeln!(text, "{table:?}");
    }
    for graph in parts {
        let _ = writeln!(text, "part {:?} {:?}", graph.inputs, graph.outputs);
        for (id, tensor) in graph.tensors.iter().enumerate() {
            let _ = writeln!(text, "{id} {} {:?}", tensor.shape.batch, tensor.shape.dims);
        }
        for node in &graph.nodes {
            let _ = writeln!(text, "{:?} {:?} {}", node.op, node.inputs, node.output);
        }
    }
    *blake3::hash(text.as_bytes()).as_bytes()
}

/// What a graph costs for one row.
pub(crate) fn cost(graph: &Graph) -> PartCost {
    let flops = graph.nodes.iter().map(|node| price::flops(graph, node)).sum();
    let constants = (0..graph.tensors.len()).filter_map(|id| graph.values(id));
    let tables = (0..graph.tensors.len()).filter_map(|id| graph.table_of(id));
    let constant_bytes =
        constants.map(|v| v.len() as u64 * 4).sum::<u64>() + tables.map(|t| t.bytes() as u64).sum::<u64>();
    PartCost { operations: graph.nodes.len(), flops, constant_bytes }
}

#[cfg(test)]
mod families;
#[cfg(test)]
mod tests;
