//! What does the split save on the rankers that people really have?
//!
//! Six families as exporters write them, at the size of a production ranker: 64 user and 40 item features with 16
//! numbers each, 32 cross features, about 1,700 columns. The table is what `docs/design/0006-splitting-rules.md`
//! quotes; it is kept here, so that a change of a rule shows what it changes. Run with `UPDATE_EXPECT=1` to write it
//! anew. Weights are random: only the shapes matter.

use super::{Label, split};
use crate::graph::Graph;
use crate::onnx::testing::Onnx;
use crate::onnx::wire::element;
use expect_test::expect;
use std::fmt::Write as _;

const USER_FEATURES: usize = 64;
const ITEM_FEATURES: usize = 40;
const CROSS_FEATURES: usize = 32;
const EMBEDDING: i64 = 16;
/// Rows of a table: enough that it is one.
const ROWS: i64 = 8;
const WIDTH: i64 = (USER_FEATURES + ITEM_FEATURES) as i64 * EMBEDDING + CROSS_FEATURES as i64;
const ACTIONS: i64 = 100;

/// All features as one row.
fn features(m: &mut Onnx) -> String {
    let mut parts = Vec::new();
    for (side, count) in [("user", USER_FEATURES), ("item", ITEM_FEATURES)] {
        for i in 0..count {
            let input = m.input(&format!("{side}{i}"), element::INT64, 1);
            parts.push(m.embedding(&input, ROWS, EMBEDDING));
        }
    }
    for i in 0..CROSS_FEATURES {
        parts.push(m.input(&format!("cross{i}"), element::FLOAT, 1));
    }
    let refs: Vec<&str> = parts.iter().map(String::as_str).collect();
    m.node("Concat", &refs, &[("axis", 1)])
}

/// The same as exporters of field models write them: fields stacked, flattened, and joined with the numbers.
fn stacked_features(m: &mut Onnx) -> String {
    let mut fields = Vec::new();
    for (side, count) in [("user", USER_FEATURES), ("item", ITEM_FEATURES)] {
        for i in 0..count {
            let input = m.input(&format!("{side}{i}"), element::INT64, 1);
            let table = m.weights(&[ROWS, EMBEDDING]);
            fields.push(m.node("Gather", &[&table, &input], &[("axis", 0)]));
        }
    }
    let refs: Vec<&str> = fields.iter().map(String::as_str).collect();
    let stacked = m.node("Concat", &refs, &[("axis", 1)]);
    let mut parts = vec![m.node("Flatten", &[&stacked], &[("axis", 1)])];
    for i in 0..CROSS_FEATURES {
        parts.push(m.input(&format!("cross{i}"), element::FLOAT, 1));
    }
    let refs: Vec<&str> = parts.iter().map(String::as_str).collect();
    m.node("Concat", &refs, &[("axis", 1)])
}

fn mlp(m: &mut Onnx, x: &str, from: i64, widths: &[i64]) -> String {
    let (mut x, mut from) = (x.to_owned(), from);
    for width in widths {
        x = m.dense(&x, from, *width);
        x = m.node("Relu", &[&x], &[]);
        from = *width;
    }
    x
}

/// The deep part as PyTorch writes it: a linear layer, batch normalisation, an activation.
fn normalised_mlp(m: &mut Onnx, x: &str, from: i64, widths: &[i64]) -> String {
    let (mut x, mut from) = (x.to_owned(), from);
    for width in widths {
        let (w, b) = (m.weights(&[*width, from]), m.weights(&[*width]));
        let layer = m.node("Gemm", &[&x, &w, &b], &[("transB", 1)]);
        let numbers: Vec<String> =
            (0..4).map(|_| m.floats(&[*width], (0..*width).map(|i| 0.5 + i as f32 * 1e-3).collect())).collect();
        let [scale, bias, mean, variance] = [&numbers[0], &numbers[1], &numbers[2], &numbers[3]];
        x = m.node("BatchNormalization", &[&layer, scale, bias, mean, variance], &[]);
        x = m.node("Relu", &[&x], &[]);
        from = *width;
    }
    x
}

/// `layers` cross layers, of low rank with a rank.
fn crosses(m: &mut Onnx, x0: &str, layers: usize, rank: Option<i64>) -> String {
    let mut x = x0.to_owned();
    for _ in 0..layers {
        let crossed = match rank {
            None => m.dense(&x, WIDTH, WIDTH),
            Some(rank) => {
                let w = m.weights(&[WIDTH, rank]);
                let narrow = m.node("MatMul", &[&x, &w], &[]);
                m.dense(&narrow, rank, WIDTH)
            }
        };
        let product = m.node("Mul", &[x0, &crossed], &[]);
        x = m.node("Add", &[&product, &x], &[]);
    }
    x
}

fn head(m: &mut Onnx, x: &str, from: i64, name: &str) {
    let (w, b) = (m.weights(&[from, 1]), m.weights(&[1]));
    m.node_as("Gemm", &[x, &w, &b], &[], name);
    m.output(name);
}

/// Experts mixed by a softmax gate for each task, then a tower for each task.
fn mixture(m: &mut Onnx, x: &str, experts: &[String], beside: Option<&str>) {
    let axes = m.ints(&[1]);
    let stacked: Vec<String> = experts.iter().map(|e| m.node("Unsqueeze", &[e, &axes], &[])).collect();
    let refs: Vec<&str> = stacked.iter().map(String::as_str).collect();
    let experts_of = m.node("Concat", &refs, &[("axis", 1)]);
    for task in 0..4 {
        let gate = m.dense(x, WIDTH, experts.len() as i64);
        let gate = m.node("Softmax", &[&gate], &[("axis", -1)]);
        let last = m.ints(&[2]);
        let gate = m.node("Unsqueeze", &[&gate, &last], &[]);
        let mixed = m.node("Mul", &[&experts_of, &gate], &[]);
        let mixed = m.node("ReduceSum", &[&mixed, &axes], &[("keepdims", 0)]);
        let (joined, width) = match beside {
            Some(beside) => (m.node("Concat", &[&mixed, beside], &[("axis", 1)]), 128),
            None => (mixed, 64),
        };
        let tower = mlp(m, &joined, width, &[64, 32]);
        head(m, &tower, 32, &format!("task{task}"));
    }
}

fn reference(m: &mut Onnx) {
    let x0 = features(m);
    let experts: Vec<String> = (0..4).map(|_| mlp(m, &x0, WIDTH, &[512, 256, 64])).collect();
    let crossed = crosses(m, &x0, 2, Some(32));
    let crossed = m.dense(&crossed, WIDTH, 64);
    mixture(m, &x0, &experts, Some(&crossed));
}

fn mixture_of_crosses(m: &mut Onnx) {
    let x0 = stacked_features(m);
    let experts: Vec<String> = (0..4)
        .map(|_| {
            let crossed = crosses(m, &x0, 2, Some(32));
            let expert = m.dense(&crossed, WIDTH, 64);
            m.node("Relu", &[&expert], &[])
        })
        .collect();
    mixture(m, &x0, &experts, None);
}

fn cross_network(m: &mut Onnx, rank: Option<i64>) {
    let x0 = stacked_features(m);
    let crossed = crosses(m, &x0, 2, rank);
    let deep = normalised_mlp(m, &x0, WIDTH, &[512, 256]);
    let joined = m.node("Concat", &[&crossed, &deep], &[("axis", 1)]);
    let tower = mlp(m, &joined, WIDTH + 256, &[64]);
    head(m, &tower, 64, "task0");
}

/// A layer over tokens, its bias included.
fn per_token(m: &mut Onnx, x: &str, from: i64, to: i64) -> String {
    m.dense(x, from, to)
}

/// `[B, n, 64]` as `[B, 4, n, 16]`.
fn heads(m: &mut Onnx, x: &str, n: i64) -> String {
    let dims = m.ints(&[0, n, 4, 16]);
    let apart = m.node("Reshape", &[x, &dims], &[]);
    permuted(m, &apart, &[0, 2, 1, 3])
}

fn permuted(m: &mut Onnx, x: &str, order: &[i64]) -> String {
    let name = m.node("Transpose", &[x], &[]);
    if let Some(node) = m.graph.node.last_mut() {
        node.attribute.push(crate::onnx::wire::Attribute {
            name: "perm".to_owned(),
            ints: order.to_vec(),
            r#type: 7,
            ..crate::onnx::wire::Attribute::default()
        });
    }
    name
}

/// Attention with four heads of `rows` queries on the user's actions.
fn attention(m: &mut Onnx, query: &str, actions: &str, rows: i64, mask: &str) -> String {
    let (q, k, v) = (per_token(m, query, 64, 64), per_token(m, actions, 64, 64), per_token(m, actions, 64, 64));
    let (q, k, v) = (heads(m, &q, rows), heads(m, &k, ACTIONS), heads(m, &v, ACTIONS));
    let k = permuted(m, &k, &[0, 1, 3, 2]);
    let scores = m.node("MatMul", &[&q, &k], &[]);
    let quarter = m.floats(&[1], vec![0.25]);
    let scores = m.node("Mul", &[&scores, &quarter], &[]);
    let scores = m.node("Add", &[&scores, mask], &[]);
    let shares = m.node("Softmax", &[&scores], &[("axis", -1)]);
    let mixed = m.node("MatMul", &[&shares, &v], &[]);
    let mixed = permuted(m, &mixed, &[0, 2, 1, 3]);
    let dims = m.ints(&[0, rows, 64]);
    let joined = m.node("Reshape", &[&mixed, &dims], &[]);
    per_token(m, &joined, 64, 64)
}

fn normalised(m: &mut Onnx, x: &str) -> String {
    let (scale, bias) = (m.weights(&[64]), m.weights(&[64]));
    m.node("LayerNormalization", &[x, &scale, &bias], &[("axis", -1)])
}

fn transformer(m: &mut Onnx) {
    let input = m.input("user_actions", element::INT64, ACTIONS);
    let (table, positions) = (m.weights(&[ROWS, 64]), m.weights(&[ACTIONS, 64]));
    let mut x = m.node("Gather", &[&table, &input], &[("axis", 0)]);
    x = m.node("Add", &[&x, &positions], &[]);
    let zero = m.ints(&[0]);
    let taken = m.node("Greater", &[&input, &zero], &[]);
    let (here, gone) = (m.floats(&[1], vec![0.0]), m.floats(&[1], vec![-1e9]));
    let mask = m.node("Where", &[&taken, &here, &gone], &[]);
    let axes = m.ints(&[1, 2]);
    let mask = m.node("Unsqueeze", &[&mask, &axes], &[]);
    for _ in 0..2 {
        let attended = attention(m, &x, &x, ACTIONS, &mask);
        let sum = m.node("Add", &[&x, &attended], &[]);
        x = normalised(m, &sum);
        let wide = per_token(m, &x, 64, 256);
        let wide = m.node("Relu", &[&wide], &[]);
        let narrow = per_token(m, &wide, 256, 64);
        let sum = m.node("Add", &[&x, &narrow], &[]);
        x = normalised(m, &sum);
    }
    let features = features(m);
    let item = m.input("item_id", element::INT64, 1);
    // The table of the actions: what was bought, and what is offered.
    let item = m.node("Gather", &[&table, &item], &[("axis", 0)]);
    let asked = attention(m, &item, &x, 1, &mask);
    let asked = m.node("Flatten", &[&asked], &[("axis", 1)]);
    let item = m.node("Flatten", &[&item], &[("axis", 1)]);
    let joined = m.node("Concat", &[&features, &item, &asked], &[("axis", 1)]);
    let deep = mlp(m, &joined, WIDTH + 128, &[256, 64]);
    head(m, &deep, 64, "task0");
}

fn read(make: impl FnOnce(&mut Onnx)) -> (Graph, Vec<Label>) {
    let mut m = Onnx::new(7);
    make(&mut m);
    let graph = crate::onnx::read(m.bytes().into()).unwrap().graph;
    let label = |name: &str| match name {
        n if n.starts_with("user") => Label::User,
        n if n.starts_with("item") => Label::Ad,
        _ => Label::Both,
    };
    let labels = graph.inputs.iter().map(|i| label(&graph.tensors[*i].name)).collect();
    (graph, labels)
}

#[test]
fn what_the_split_saves() {
    type Family = (&'static str, fn(&mut Onnx));
    let families: [Family; 6] = [
        ("MLP 512-256-64", |m| {
            let x0 = stacked_features(m);
            let deep = normalised_mlp(m, &x0, WIDTH, &[512, 256, 64]);
            head(m, &deep, 64, "task0");
        }),
        ("DCN-v2, full", |m| cross_network(m, None)),
        ("DCN-v2, rank 32", |m| cross_network(m, Some(32))),
        ("MMoE of crosses", mixture_of_crosses),
        ("reference", reference),
        ("transformer", transformer),
    ];
    let mut table = String::from(
        "family            | whole    | candidate | request  | item    | share | user part | activations\n",
    );
    for (name, make) in families {
        let (graph, labels) = read(make);
        let partition = split(&graph, &labels).unwrap();
        let report = partition.report;
        let bytes = |g: &Graph| 4 * g.outputs.iter().map(|(_, i)| g.tensors[*i].shape.values()).sum::<usize>();
        let _ = writeln!(
            table,
            "{name:<17} | {:>8} | {:>9} | {:>8} | {:>7} | {:.3} | {:>9} | {:>11}",
            report.whole.flops,
            report.candidate.flops,
            report.user.flops,
            report.item.flops,
            report.share_off_request_path(),
            bytes(&partition.user),
            bytes(&partition.item),
        );
    }
    expect![[r#"
        family            | whole    | candidate | request  | item    | share | user part | activations
        MLP 512-256-64    |  2035073 |    330818 |  1050112 |  655360 | 0.837 |      2048 |        2048
        DCN-v2, full      | 13767873 |   6431522 |  4526912 | 2826240 | 0.533 |     12928 |       11392
        DCN-v2, rank 32   |  2696385 |    565346 | 12226368 |  696320 | 0.790 |     23040 |        4736
        MMoE of crosses   |  2752852 |    992376 | 44737824 |  184320 | 0.640 |     84032 |        3136
        reference         |  8933972 |   1643864 | 15407456 | 2682880 | 0.816 |     29248 |       10944
        transformer       | 28276137 |    120242 | 27789000 |  368704 | 0.996 |     52624 |        1280
    "#]]
    .assert_eq(&table);
}
