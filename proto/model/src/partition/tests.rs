//! Does the split graph compute what the whole one does, and does each rule do what it says?
//!
//! Random rankers of the shapes that exporters write (features in any order, fields stacked and flattened, cross
//! layers of full and low rank, normalisation, gates, attention over a user's sequence) are split and compared with
//! themselves, whole; then each rule is asked for the saving that is its reason to be.

use super::*;
use crate::exec::{Arena, BLOCK_ROWS, Program};
use crate::graph::{Binary, Op, Reduction, Shape, Unary};
use proptest::prelude::*;

/// Widths of the inputs: the user's vector, fields and actions, the item's vector and fields, the cross features.
const USER: usize = 24;
const ITEM: usize = 12;
const CROSS: usize = 5;
const FIELD: usize = 4;
const USER_FIELDS: usize = 3;
const ITEM_FIELDS: usize = 2;
const ACTIONS: usize = 6;

/// A ranker under construction.
struct Draw {
    graph: Graph,
    seed: u64,
}

impl Draw {
    fn new(seed: u64) -> Self {
        Self { graph: Graph::default(), seed: seed << 20 }
    }

    fn bits(&mut self) -> u64 {
        self.seed += 1;
        gavel_proto::hash::combine(self.seed, 4711)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.bits() >> 16) as usize % n
    }

    fn constant(&mut self, dims: &[usize], scale: f32) -> TensorId {
        let n: usize = dims.iter().product();
        let values: Vec<f32> =
            (0..n).map(|_| ((self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * scale).collect();
        self.graph.constant("", dims.to_vec(), values.into())
    }

    fn input(&mut self, name: &str, dims: &[usize]) -> TensorId {
        self.graph.input(name, Shape { batch: true, dims: dims.to_vec() })
    }

    fn push(&mut self, op: Op, inputs: &[TensorId]) -> TensorId {
        self.graph.push(op, inputs, "").unwrap()
    }

    fn width(&self, x: TensorId) -> usize {
        *self.graph.dims(x).last().unwrap()
    }

    fn weights(&mut self, from: usize, to: usize) -> TensorId {
        self.constant(&[from, to], 1.5 / (from as f32).sqrt())
    }

    fn dense(&mut self, x: TensorId, to: usize) -> TensorId {
        let w = self.weights(self.width(x), to);
        let b = self.constant(&[to], 0.5);
        let product = self.push(Op::MatMul, &[x, w]);
        self.push(Op::Binary(Binary::Add), &[product, b])
    }

    fn unary(&mut self, x: TensorId) -> TensorId {
        let all = [Unary::Relu, Unary::Sigmoid, Unary::Tanh, Unary::LeakyRelu(0.1), Unary::Neg];
        let kind = all[self.below(all.len())];
        self.push(Op::Unary(kind), &[x])
    }

    /// Batch normalisation as it is lowered: a factor and a shift a column.
    fn normalised(&mut self, x: TensorId) -> TensorId {
        let (f, s) = (self.constant(&[self.width(x)], 1.5), self.constant(&[self.width(x)], 0.5));
        let scaled = self.push(Op::Binary(Binary::Mul), &[x, f]);
        self.push(Op::Binary(Binary::Add), &[scaled, s])
    }

    /// A cross layer; of low rank with a rank.
    fn cross(&mut self, x0: TensorId, x: TensorId, rank: Option<usize>) -> TensorId {
        let width = self.width(x0);
        let crossed = match rank {
            None => self.dense(x, width),
            Some(rank) => {
                let w = self.weights(width, rank);
                let narrow = self.push(Op::MatMul, &[x, w]);
                self.dense(narrow, width)
            }
        };
        let product = self.push(Op::Binary(Binary::Mul), &[x0, crossed]);
        self.push(Op::Binary(Binary::Add), &[product, x])
    }

    /// All features, in an order that the seed chooses.
    fn features(&mut self, ids: &[TensorId; 6]) -> TensorId {
        let [user, user_fields, _, item, item_fields, cross] = *ids;
        let fields = if self.below(2) == 0 { [user_fields, item_fields] } else { [item_fields, user_fields] };
        let stacked = self.push(Op::Concat { axis: 0 }, &fields);
        let flat = self.push(Op::Reshape { dims: vec![(USER_FIELDS + ITEM_FIELDS) * FIELD] }, &[stacked]);
        let half = |s: &mut Self, start| s.push(Op::Slice { axis: 0, start, step: 1, count: USER / 2 }, &[user]);
        let mut pieces = vec![half(self, 0), item, flat, half(self, USER / 2), cross];
        if self.below(3) == 0 {
            pieces.push(self.constant(&[1, 3], 1.0));
        }
        for i in (1..pieces.len()).rev() {
            let other = self.below(i + 1);
            pieces.swap(i, other);
        }
        let inner = self.push(Op::Concat { axis: 0 }, &pieces[..2]);
        let outer: Vec<TensorId> = [inner].into_iter().chain(pieces[2..].iter().copied()).collect();
        self.push(Op::Concat { axis: 0 }, &outer)
    }

    /// The user's actions, weighted by what the item asks of them.
    fn attention(&mut self, actions: TensorId, item: TensorId) -> TensorId {
        let (wq, wk, wv) = (self.weights(ITEM, FIELD), self.weights(FIELD, FIELD), self.weights(FIELD, FIELD));
        let query = self.push(Op::MatMul, &[item, wq]);
        let query = self.push(Op::Reshape { dims: vec![1, FIELD] }, &[query]);
        let keys = self.push(Op::MatMul, &[actions, wk]);
        let keys = self.push(Op::Permute { order: vec![1, 0] }, &[keys]);
        let scores = self.push(Op::MatMul, &[query, keys]);
        let shares = self.push(Op::Softmax { axis: 1 }, &[scores]);
        let values = self.push(Op::MatMul, &[actions, wv]);
        let mixed = self.push(Op::MatMul, &[shares, values]);
        self.push(Op::Reshape { dims: vec![FIELD] }, &[mixed])
    }

    /// One more tensor made of those there are.
    fn step(&mut self, x0: TensorId, x: TensorId, ids: &[TensorId; 6]) -> TensorId {
        match self.below(13) {
            0 => self.dense(x, 16),
            1 => self.unary(x),
            2 | 3 => self.normalised(x),
            4 if self.width(x) == self.width(x0) => self.cross(x0, x, None),
            5 | 6 if self.width(x) == self.width(x0) => self.cross(x0, x, Some(4)),
            7 => {
                let from = 0;
                let norm = self.push(Op::Normalise { from, epsilon: 1e-3 }, &[x]);
                self.normalised(norm)
            }
            8 => {
                let count = (self.width(x) / 2).max(1);
                let start = self.below(self.width(x) - count + 1);
                self.push(Op::Slice { axis: 0, start, step: 1, count }, &[x])
            }
            9 => {
                let other = self.attention(ids[2], ids[3]);
                self.push(Op::Concat { axis: 0 }, &[x, other])
            }
            10 => {
                let stacked = self.push(Op::Concat { axis: 0 }, &[ids[4], ids[1]]);
                let moved = self.dense(stacked, FIELD);
                let kind = [Reduction::Sum, Reduction::Mean, Reduction::Max, Reduction::SumSquare][self.below(4)];
                let pooled = self.push(Op::Reduce { kind, from: 0, to: 1 }, &[moved]);
                self.push(Op::Concat { axis: 0 }, &[pooled, x])
            }
            11 => {
                // One table for the fields of both sides.
                let indices = self.push(Op::Concat { axis: 0 }, &[ids[3], ids[0], ids[5]]);
                let table = self.constant(&[7, FIELD], 1.0);
                let rows = self.push(Op::Gather { axis: 0 }, &[table, indices]);
                let pooled = self.push(Op::Reduce { kind: Reduction::Sum, from: 0, to: 1 }, &[rows]);
                self.push(Op::Concat { axis: 0 }, &[x, pooled])
            }
            _ => {
                let gate = self.dense(x, 1);
                let gate = self.push(Op::Unary(Unary::Sigmoid), &[gate]);
                self.push(Op::Binary(Binary::Mul), &[x, gate])
            }
        }
    }
}

const LABELS: [Label; 6] = [Label::User, Label::User, Label::User, Label::Ad, Label::Ad, Label::Both];

fn inputs(d: &mut Draw) -> [TensorId; 6] {
    [
        d.input("user", &[USER]),
        d.input("user fields", &[USER_FIELDS, FIELD]),
        d.input("actions", &[ACTIONS, FIELD]),
        d.input("item", &[ITEM]),
        d.input("item fields", &[ITEM_FIELDS, FIELD]),
        d.input("cross", &[CROSS]),
    ]
}

fn ranker(seed: u64, steps: usize) -> Graph {
    let mut d = Draw::new(seed);
    let ids = inputs(&mut d);
    let x0 = d.features(&ids);
    let mut x = x0;
    for _ in 0..steps {
        x = d.step(x0, x, &ids);
    }
    let (a, b) = (d.dense(x, 1), d.dense(x, 1));
    d.graph.outputs = vec![("a".to_owned(), a), ("b".to_owned(), b)];
    d.graph
}

/// Values of an input for a row.
fn value(input: usize, row: usize, at: usize) -> f32 {
    let row = if LABELS[input] == Label::User { 0 } else { row };
    let bits = gavel_proto::hash::combine((input * 1000 + row) as u64, at as u64);
    (bits >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

/// The outputs of a program for these rows, given what each of its inputs holds for a row.
fn run(graph: &Graph, rows: &[usize], of: &dyn Fn(usize, usize) -> (bool, Vec<f32>)) -> Vec<Vec<Vec<f32>>> {
    let counts: Vec<usize> = (0..graph.inputs.len()).map(|i| if of(i, 0).0 { 1 } else { BLOCK_ROWS }).collect();
    let program = Program::compile(graph, &counts).unwrap();
    let mut arena = Arena::default();
    let mut results = Vec::new();
    for block in rows.chunks(BLOCK_ROWS) {
        program.prepare(&mut arena);
        for (i, count) in counts.iter().enumerate() {
            let width = program.inputs[i].width;
            program.input(&mut arena, i).fill(0.0);
            for (at, row) in block.iter().enumerate().take(*count) {
                program.input(&mut arena, i)[at * width..(at + 1) * width].copy_from_slice(&of(i, *row).1);
            }
        }
        program.run(&mut arena, block.len());
        for at in 0..block.len() {
            let output = |i: usize| {
                let port = program.outputs[i];
                let from = if port.rows == 1 { 0 } else { at * port.width };
                program.output(&arena, i)[from..from + port.width].to_vec()
            };
            results.push((0..program.outputs.len()).map(output).collect());
        }
    }
    results
}

fn features(graph: &Graph) -> impl Fn(usize, usize) -> (bool, Vec<f32>) {
    let names: Vec<(usize, usize)> = graph
        .inputs
        .iter()
        .map(|id| {
            let all = ["user", "user fields", "actions", "item", "item fields", "cross"];
            let input = all.iter().position(|n| *n == graph.tensors[*id].name).unwrap();
            (input, graph.tensors[*id].shape.values())
        })
        .collect();
    move |i, row| {
        let (input, width) = names[i];
        (LABELS[input] == Label::User, (0..width).map(|at| value(input, row, at)).collect())
    }
}

/// The outputs of the three parts, one after the other.
fn run_split(partition: &Partition, rows: &[usize]) -> Vec<Vec<Vec<f32>>> {
    let user = run(&partition.user, &[0], &features(&partition.user)).remove(0);
    let items: std::collections::BTreeMap<usize, Vec<Vec<f32>>> =
        rows.iter().copied().zip(run(&partition.item, rows, &features(&partition.item))).collect();
    let users = user.len();
    let ads = users + partition.item.outputs.len();
    let of = |i: usize, row: usize| match i {
        i if i < users => (true, user[i].clone()),
        i if i < ads => (false, items.get(&row).map_or_else(Vec::new, |v| v[i - users].clone())),
        _ => (false, (0..CROSS).map(|at| value(5, row, at)).collect()),
    };
    run(&partition.candidate, rows, &of)
}

fn assert_equal(graph: &Graph, partition: &Partition) {
    let rows: Vec<usize> = (0..40).collect();
    let whole = run(graph, &rows, &features(graph));
    let split = run_split(partition, &rows);
    for (w, s) in whole.iter().flatten().flatten().zip(split.iter().flatten().flatten()) {
        assert!((w - s).abs() <= 1e-4 * w.abs().max(0.1), "whole {w}, split {s}");
    }
    // The same to the last bit, wherever a candidate stands.
    let moved: Vec<usize> = [7, 39, 3].into_iter().chain(20..40).chain(0..9).collect();
    for (row, outputs) in moved.iter().zip(run_split(partition, &moved)) {
        let bits = |v: &[Vec<f32>]| v.iter().flatten().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&outputs), bits(&split[*row]), "row {row}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn a_split_ranker_equals_itself_whole(seed in 0u64..1 << 40, steps in 0usize..7) {
        let graph = ranker(seed, steps);
        let partition = split(&graph, &LABELS).unwrap();
        assert_equal(&graph, &partition);
        prop_assert_eq!(partition.hash, split(&graph, &LABELS).unwrap().hash);
    }

    /// Every order of the rules, also those that are not the cheapest here, computes the same.
    #[test]
    fn every_plan_computes_the_same(seed in 0u64..1 << 40, steps in 0usize..7) {
        let graph = ranker(seed, steps);
        for plan in rewrite::plans(&graph, &LABELS) {
            let partition = parts(&graph, plan.unwrap(), &LABELS).unwrap();
            assert_equal(&graph, &partition);
        }
    }
}

/// A ranker over one concatenation.
fn over_features(make: impl FnOnce(&mut Draw, TensorId) -> TensorId) -> (Graph, Partition) {
    let mut d = Draw::new(3);
    let ids = inputs(&mut d);
    let x0 = d.push(Op::Concat { axis: 0 }, &[ids[0], ids[3], ids[5]]);
    let x = make(&mut d, x0);
    d.graph.outputs = vec![("a".to_owned(), x)];
    let partition = split(&d.graph, &LABELS).unwrap();
    assert_equal(&d.graph, &partition);
    (d.graph, partition)
}

fn widths(partition: &Partition) -> (usize, usize) {
    let of = |g: &Graph| g.outputs.iter().map(|(_, id)| g.tensors[*id].shape.values()).sum();
    (of(&partition.user), of(&partition.item))
}

#[test]
fn a_dense_layer_falls_into_its_column_blocks() {
    let (_, partition) = over_features(|d, x0| d.dense(x0, 16));
    assert_eq!(widths(&partition), (16, 16));
    // Five cross features, and one sum of three terms.
    assert_eq!(partition.report.candidate.flops, 2 * 5 * 16 + 3 * 16);
}

#[test]
fn normalisation_before_and_behind_a_layer_disappears() {
    let (_, plain) = over_features(|d, x0| d.dense(x0, 16));
    let (_, normalised) = over_features(|d, x0| {
        let before = d.normalised(x0);
        let layer = d.dense(before, 16);
        d.normalised(layer)
    });
    assert_eq!(normalised.report.candidate, plain.report.candidate);
}

#[test]
fn equal_subgraphs_are_computed_once() {
    let (_, partition) = over_features(|d, x0| {
        let (w, b) = (d.weights(USER + ITEM + CROSS, 8), d.constant(&[8], 0.5));
        let twin = |d: &mut Draw| {
            let product = d.push(Op::MatMul, &[x0, w]);
            let layer = d.push(Op::Binary(Binary::Add), &[product, b]);
            d.push(Op::Unary(Unary::Relu), &[layer])
        };
        let (a, b) = (twin(d), twin(d));
        let joined = d.push(Op::Concat { axis: 0 }, &[a, b]);
        d.dense(joined, 1)
    });
    assert_eq!(widths(&partition), (8, 8));
}

/// In cross layers of low rank the user's columns leave the request path: what is left per candidate does not
/// depend on how many there are.
#[test]
fn the_user_columns_of_low_rank_cross_layers_become_small_matrices() {
    let at = |width: usize| {
        let mut d = Draw::new(5);
        let user = d.input("user", &[width]);
        let (item, cross) = (d.input("item", &[ITEM]), d.input("cross", &[CROSS]));
        let x0 = d.push(Op::Concat { axis: 0 }, &[user, item, cross]);
        let x1 = d.cross(x0, x0, Some(8));
        let x2 = d.cross(x0, x1, Some(8));
        let out = d.dense(x2, 8);
        d.graph.outputs = vec![("a".to_owned(), out)];
        let labels = [Label::User, Label::Ad, Label::Both];
        let partition = split(&d.graph, &labels).unwrap();
        let rows: Vec<usize> = (0..9).collect();
        let (whole, split) = (run(&d.graph, &rows, &features(&d.graph)), run_split(&partition, &rows));
        for (w, s) in whole.iter().flatten().flatten().zip(split.iter().flatten().flatten()) {
            assert!((w - s).abs() <= 1e-4 * w.abs().max(0.1), "whole {w}, split {s}");
        }
        partition.report.candidate.flops
    };
    assert_eq!(at(256), at(512));
}

#[test]
fn an_item_keeps_the_small_end_of_a_chain() {
    let (_, partition) = over_features(|d, x0| {
        let narrow = d.weights(USER + ITEM + CROSS, 3);
        let z = d.push(Op::MatMul, &[x0, narrow]);
        d.dense(z, 16)
    });
    assert_eq!(widths(&partition).1, 3);
}

/// A repetition for a broadcast is made where it is read.
#[test]
fn what_is_only_repeated_is_not_kept() {
    let mut d = Draw::new(9);
    let ids = inputs(&mut d);
    let item = d.push(Op::Reshape { dims: vec![1, ITEM] }, &[ids[3]]);
    let many = d.push(Op::Broadcast { dims: vec![ACTIONS, ITEM] }, &[item]);
    let joined = d.push(Op::Concat { axis: 1 }, &[ids[2], many]);
    let layer = d.dense(joined, 8);
    let layer = d.push(Op::Unary(Unary::Relu), &[layer]);
    let pooled = d.push(Op::Reduce { kind: Reduction::Sum, from: 0, to: 1 }, &[layer]);
    let out = d.dense(pooled, 1);
    d.graph.outputs = vec![("a".to_owned(), out)];
    let partition = split(&d.graph, &LABELS).unwrap();
    assert_equal(&d.graph, &partition);
    assert!(widths(&partition).1 <= ITEM, "{:?}", widths(&partition));
}
