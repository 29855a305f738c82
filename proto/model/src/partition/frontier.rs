//! Which tensors of one side are computed ahead and kept, and which are computed where they are read?
//!
//! Every tensor of the user or the item alone *can* be computed ahead. Keeping one has a price (a value that travels,
//! a value in every item's row), and computing it at the candidate has another, so the cheapest frontier is a
//! minimum cut: between what is surely ahead (the features) and what surely is not (operations on both sides), each
//! tensor stands on one side; it costs its arithmetic if it is computed late, and its width if it is kept and read
//! late. So of a tensor and its `Relu` one is kept and not both, an item keeps the 32 numbers of a projection and not
//! the 640 that it is made of, and what was only repeated for a broadcast is repeated late.
//!
//! The cut is found by blocking flows on whole numbers: it is the one nearest to the features among the cheapest,
//! and equal graphs have equal ones. Work is bounded: past the bound everything is computed ahead, as the labels say.

use super::{Label, price};
use crate::graph::{Graph, TensorId};

/// Edges that the search for the cut may look at: some hundred times what a ranker of a thousand nodes needs.
const WORK_MAX: u64 = 1 << 26;
/// Never cut. Below it, prices add up without overflow: 2^20 values, 20,000 nodes.
const NEVER: u64 = 1 << 60;

/// The tensors of one side that are kept, in the order of their ids, at most `limit` values: while they are more,
/// keeping a value is priced four times as high, which moves arithmetic to the candidates.
pub(super) fn kept(graph: &Graph, labels: &[Label], side: Label, limit: usize) -> Result<Vec<TensorId>, String> {
    let mut found = 0;
    for dearer in (0..=10).map(|i| 1u64 << (2 * i)) {
        let ids = cheapest(graph, labels, side, dearer);
        found = width(graph, &ids);
        if found <= limit {
            return Ok(ids);
        }
    }
    Err(format!("what depends on one side alone has {found} values, {limit} are possible"))
}

fn cheapest(graph: &Graph, labels: &[Label], side: Label, dearer: u64) -> Vec<TensorId> {
    let needed = needed(graph);
    let read_late = read_late(graph, labels, side, &needed);
    if read_late.is_empty() {
        return Vec::new();
    }
    let mut cut = Cut::new(2 * graph.tensors.len() + 2);
    let (ahead, late) = (cut.nodes() - 2, cut.nodes() - 1);
    let store = |id: TensorId| graph.tensors.len() + id;
    let of_side: Vec<TensorId> = (0..graph.tensors.len()).filter(|i| labels[*i] == side && needed[*i]).collect();
    for id in &of_side {
        cut.edge(*id, store(*id), keep(graph, *id, side).saturating_mul(dearer));
        match graph.maker(*id) {
            None => cut.edge(ahead, *id, NEVER),
            Some(node) => {
                // A user's tensor is computed once a block, an item's once a row. One unit more than nothing, so that
                // of two cuts with a view between them there is a cheapest.
                let steps = if side == Label::User { price::BLOCK } else { 1 };
                cut.edge(ahead, *id, 1 + steps * price::step(node) + price::compute(graph, node));
                for input in node.inputs.iter().filter(|i| labels[**i] == side) {
                    cut.edge(store(*input), *id, NEVER);
                }
            }
        }
    }
    for id in &read_late {
        cut.edge(store(*id), late, NEVER);
    }
    let reached = cut.solve(ahead, late);
    match reached {
        // Kept: ahead, and read by what is late.
        Some(reached) => of_side.into_iter().filter(|id| reached[*id] && !reached[store(*id)]).collect(),
        None => read_late,
    }
}

/// What lies on a path to an output.
fn needed(graph: &Graph) -> Vec<bool> {
    let mut needed = vec![false; graph.tensors.len()];
    graph.outputs.iter().for_each(|(_, id)| needed[*id] = true);
    for node in graph.nodes.iter().rev() {
        if needed[node.output] {
            node.inputs.iter().for_each(|i| needed[*i] = true);
        }
    }
    needed
}

/// The tensors of a side that an operation on both reads, or that leave the graph.
fn read_late(graph: &Graph, labels: &[Label], side: Label, needed: &[bool]) -> Vec<TensorId> {
    let mut read = vec![false; graph.tensors.len()];
    graph.outputs.iter().for_each(|(_, id)| read[*id] = true);
    for node in graph.nodes.iter().filter(|n| labels[n.output] == Label::Both && needed[n.output]) {
        node.inputs.iter().for_each(|i| read[*i] = true);
    }
    (0..graph.tensors.len()).filter(|i| read[*i] && labels[*i] == side).collect()
}

/// The price of keeping a tensor; that of the user's side is for a block, as its arithmetic is.
fn keep(graph: &Graph, id: TensorId, side: Label) -> u64 {
    let each = if side == Label::User { price::USER_VALUE } else { price::ACTIVATION };
    each * graph.tensors[id].shape.values() as u64
}

/// The values of a row of these tensors.
pub(super) fn width(graph: &Graph, ids: &[TensorId]) -> usize {
    ids.iter().map(|i| graph.tensors[*i].shape.values()).sum()
}

/// A network of capacities.
struct Cut {
    /// Edges of each node: even ones forward, odd ones back.
    of: Vec<Vec<usize>>,
    to: Vec<usize>,
    left: Vec<u64>,
}

impl Cut {
    fn new(nodes: usize) -> Self {
        Self { of: vec![Vec::new(); nodes], to: Vec::new(), left: Vec::new() }
    }

    fn nodes(&self) -> usize {
        self.of.len()
    }

    fn edge(&mut self, from: usize, to: usize, capacity: u64) {
        self.of[from].push(self.to.len());
        self.of[to].push(self.to.len() + 1);
        self.to.extend([to, from]);
        self.left.extend([capacity.min(NEVER), 0]);
    }

    /// What is reached from the source once no flow is left, or `None` when it took too long.
    fn solve(&mut self, source: usize, sink: usize) -> Option<Vec<bool>> {
        let mut work = 0;
        loop {
            let level = self.levels(source, &mut work);
            if level[sink] == usize::MAX {
                return Some(level.into_iter().map(|l| l != usize::MAX).collect());
            }
            let mut next = vec![0; self.nodes()];
            while self.path(source, sink, &level, &mut next, &mut work) {}
            if work > WORK_MAX {
                return None;
            }
        }
    }

    /// Distance of each node over edges with room.
    fn levels(&self, source: usize, work: &mut u64) -> Vec<usize> {
        let mut level = vec![usize::MAX; self.nodes()];
        level[source] = 0;
        let mut queue = std::collections::VecDeque::from([source]);
        while let Some(at) = queue.pop_front() {
            for edge in &self.of[at] {
                *work += 1;
                let to = self.to[*edge];
                if self.left[*edge] > 0 && level[to] == usize::MAX {
                    level[to] = level[at] + 1;
                    queue.push_back(to);
                }
            }
        }
        level
    }

    /// Sends what fits along one shortest path; false when there is none.
    fn path(&mut self, source: usize, sink: usize, level: &[usize], next: &mut [usize], work: &mut u64) -> bool {
        let mut edges: Vec<usize> = Vec::new();
        let mut at = source;
        while at != sink {
            *work += 1;
            if *work > WORK_MAX {
                return false;
            }
            let edge = self.of[at].get(next[at]).copied();
            match edge {
                Some(edge) if self.left[edge] > 0 && level[self.to[edge]] == level[at] + 1 => {
                    edges.push(edge);
                    at = self.to[edge];
                }
                Some(_) => next[at] += 1,
                // A dead end: one step back, and past the edge that led here.
                None => match edges.pop() {
                    Some(edge) => {
                        at = self.to[edge ^ 1];
                        next[at] += 1;
                    }
                    None => return false,
                },
            }
        }
        let room = edges.iter().map(|e| self.left[*e]).min().unwrap_or(0);
        for edge in edges {
            self.left[edge] -= room;
            self.left[edge ^ 1] = self.left[edge ^ 1].saturating_add(room);
        }
        room > 0
    }
}
