//! How do tests write ONNX files without Python?
//!
//! A builder over the same messages that the reader decodes, and the model that most tests use: a DCN-v2 with
//! two cross layers beside an MMoE with softmax gates, over embeddings of both sides and a set with weights.

use super::wire::{
    Attribute, Dimension, GraphProto, Model, NodeProto, OperatorSet, TensorProto, TensorShape, TensorType, TypeProto,
    ValueInfo, element,
};
use prost::Message;

/// A file under construction.
#[derive(Default)]
pub(crate) struct Onnx {
    pub graph: GraphProto,
    seed: u64,
}

impl Onnx {
    pub fn new(seed: u64) -> Self {
        Self { graph: GraphProto::default(), seed }
    }

    /// A number in -1..1, the same for the same seed.
    pub fn random(&mut self) -> f32 {
        self.seed = self.seed.wrapping_add(1);
        let bits = gavel_proto::hash::combine(self.seed, 77) >> 40;
        bits as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub fn input(&mut self, name: &str, elem_type: i32, width: i64) -> String {
        let dim = vec![
            Dimension { dim_value: None, dim_param: Some("B".into()) },
            Dimension { dim_value: Some(width), dim_param: None },
        ];
        let tensor_type = Some(TensorType { elem_type, shape: Some(TensorShape { dim }) });
        self.graph.input.push(ValueInfo { name: name.into(), r#type: Some(TypeProto { tensor_type }) });
        name.into()
    }

    pub fn output(&mut self, name: &str) {
        self.graph.output.push(ValueInfo { name: name.into(), r#type: None });
    }

    pub fn floats(&mut self, dims: &[i64], values: Vec<f32>) -> String {
        let name = format!("w{}", self.graph.initializer.len());
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.graph.initializer.push(TensorProto {
            name: name.clone(),
            dims: dims.to_vec(),
            data_type: element::FLOAT,
            raw_data: Some(raw.into()),
            ..TensorProto::default()
        });
        name
    }

    pub fn weights(&mut self, dims: &[i64]) -> String {
        let count: i64 = dims.iter().product();
        let scale = 1.0 / (dims[0] as f32).sqrt();
        let values = (0..count).map(|_| self.random() * scale).collect();
        self.floats(dims, values)
    }

    pub fn ints(&mut self, values: &[i64]) -> String {
        let name = format!("w{}", self.graph.initializer.len());
        self.graph.initializer.push(TensorProto {
            name: name.clone(),
            dims: vec![values.len() as i64],
            data_type: element::INT64,
            int64_data: values.to_vec(),
            ..TensorProto::default()
        });
        name
    }

    pub fn node_as(&mut self, op: &str, inputs: &[&str], attributes: &[(&str, i64)], output: &str) -> String {
        self.graph.node.push(NodeProto {
            input: inputs.iter().map(|s| (*s).to_owned()).collect(),
            output: vec![output.to_owned()],
            name: format!("{op}_{}", self.graph.node.len()),
            op_type: op.to_owned(),
            attribute: attributes
                .iter()
                .map(|(n, i)| Attribute { name: (*n).to_owned(), i: *i, r#type: 2, ..Attribute::default() })
                .collect(),
            domain: String::new(),
        });
        output.to_owned()
    }

    pub fn node(&mut self, op: &str, inputs: &[&str], attributes: &[(&str, i64)]) -> String {
        let output = format!("t{}", self.graph.node.len());
        self.node_as(op, inputs, attributes, &output)
    }

    pub fn dense(&mut self, input: &str, from: i64, to: i64) -> String {
        let (w, b) = (self.weights(&[from, to]), self.weights(&[to]));
        let product = self.node("MatMul", &[input, &w], &[]);
        self.node("Add", &[&product, &b], &[])
    }

    /// The embedding of a category, `[B, width]`.
    pub fn embedding(&mut self, input: &str, rows: i64, width: i64) -> String {
        let table = self.weights(&[rows, width]);
        let looked = self.node("Gather", &[&table, input], &[("axis", 0)]);
        self.node("Flatten", &[&looked], &[("axis", 1)])
    }

    /// The weighted sum of a set's embeddings, `[B, width]`.
    pub fn pooled(&mut self, input: &str, weights: &str, rows: i64, width: i64) -> String {
        let table = self.weights(&[rows, width]);
        let looked = self.node("Gather", &[&table, input], &[("axis", 0)]);
        let axes = self.ints(&[2]);
        let wide = self.node("Unsqueeze", &[weights, &axes], &[]);
        let weighted = self.node("Mul", &[&looked, &wide], &[]);
        let axes = self.ints(&[1]);
        self.node("ReduceSum", &[&weighted, &axes], &[("keepdims", 0)])
    }

    pub fn bytes(&self) -> Vec<u8> {
        let opset_import = vec![OperatorSet { domain: String::new(), version: 17 }];
        Model { ir_version: 8, graph: Some(self.graph.clone()), opset_import, functions: vec![] }.encode_to_vec()
    }
}

/// Widths of the model that tests and measurements use.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    pub embedding: i64,
    pub deep: i64,
    pub experts: i64,
    pub expert: i64,
}

/// A user tower or an item tower.
pub(crate) fn tower(seed: u64, user: bool, sizes: Sizes, dimension: i64) -> Vec<u8> {
    tower_with(seed, user, sizes, (dimension, 0))
}

/// The same with a second output for the light head, unless that is to have no values.
pub(crate) fn tower_with(seed: u64, user: bool, sizes: Sizes, (dimension, light): (i64, i64)) -> Vec<u8> {
    let mut m = Onnx::new(seed);
    let parts = if user { user_parts(&mut m, sizes) } else { item_parts(&mut m, sizes) };
    let refs: Vec<&str> = parts.iter().map(|(p, _)| p.as_str()).collect();
    let joined = m.node("Concat", &refs, &[("axis", -1)]);
    let width = parts.iter().map(|(_, w)| w).sum();
    let hidden = m.dense(&joined, width, 32);
    let hidden = m.node("Relu", &[&hidden], &[]);
    let (w, name) = (m.weights(&[32, dimension]), if user { "query" } else { "vector" });
    m.node_as("MatMul", &[&hidden, &w], &[], name);
    m.output(name);
    if light > 0 {
        let (w, name) = (m.weights(&[32, light]), if user { "user_light" } else { "item_light" });
        m.node_as("MatMul", &[&hidden, &w], &[], name);
        m.output(name);
    }
    m.bytes()
}

/// A light head over 6 values of the user, 4 of the item and the similarity.
pub(crate) fn light_head() -> Onnx {
    let mut m = Onnx::new(9);
    let (user, item) = (m.input("user_light", element::FLOAT, 6), m.input("item_light", element::FLOAT, 4));
    let similarity = m.input("similarity", element::FLOAT, 1);
    let joined = m.node("Concat", &[&user, &item, &similarity], &[("axis", 1)]);
    let hidden = m.dense(&joined, 11, 8);
    let hidden = m.node("Relu", &[&hidden], &[]);
    let w = m.weights(&[8, 1]);
    let deep = m.node("MatMul", &[&hidden, &w], &[]);
    m.node_as("Add", &[&deep, &similarity], &[], "light");
    m.output("light");
    let w = m.weights(&[8, 1]);
    m.node_as("MatMul", &[&hidden, &w], &[], "light_conversion");
    m.output("light_conversion");
    m
}

fn user_parts(m: &mut Onnx, s: Sizes) -> Vec<(String, i64)> {
    let (segment, types) = (m.input("segment", element::INT64, 1), m.input("bought", element::INT64, 8));
    let (weights, age) = (m.input("bought.weight", element::FLOAT, 8), m.input("age", element::FLOAT, 1));
    let segment = m.embedding(&segment, 51, s.embedding);
    let bought = m.pooled(&types, &weights, 101, s.embedding);
    vec![(segment, s.embedding), (bought, s.embedding), (age, 1)]
}

fn item_parts(m: &mut Onnx, s: Sizes) -> Vec<(String, i64)> {
    let (kind, price) = (m.input("kind", element::INT64, 1), m.input("price", element::FLOAT, 1));
    let kind = m.embedding(&kind, 101, s.embedding);
    vec![(kind, s.embedding), (price, 1)]
}

/// DCN-v2 and MMoE with the heads `click`, `conv` and `value`.
pub(crate) fn ranker(seed: u64, s: Sizes) -> Vec<u8> {
    let mut m = Onnx::new(seed);
    let mut parts = user_parts(&mut m, s);
    parts.extend(item_parts(&mut m, s));
    parts.push((m.input("match", element::FLOAT, 1), 1));
    let refs: Vec<&str> = parts.iter().map(|(p, _)| p.as_str()).collect();
    let x0 = m.node("Concat", &refs, &[("axis", 1)]);
    let width: i64 = parts.iter().map(|(_, w)| w).sum();
    let mut x = x0.clone();
    for _ in 0..2 {
        let crossed = m.dense(&x, width, width);
        let product = m.node("Mul", &[&x0, &crossed], &[]);
        x = m.node("Add", &[&product, &x], &[]);
    }
    let deep = m.dense(&x0, width, s.deep);
    let deep = m.node("Relu", &[&deep], &[]);
    let joined = m.node("Concat", &[&x, &deep], &[("axis", 1)]);
    let shared = m.dense(&joined, width + s.deep, 64);
    let shared = m.node("Relu", &[&shared], &[]);
    let axes = m.ints(&[1]);
    let mut experts = Vec::new();
    for _ in 0..s.experts {
        let expert = m.dense(&shared, 64, s.expert);
        let expert = m.node("Relu", &[&expert], &[]);
        experts.push(m.node("Unsqueeze", &[&expert, &axes], &[]));
    }
    let refs: Vec<&str> = experts.iter().map(String::as_str).collect();
    let experts = m.node("Concat", &refs, &[("axis", 1)]);
    for head in ["click", "conv", "value"] {
        let gate = m.dense(&shared, 64, s.experts);
        let gate = m.node("Softmax", &[&gate], &[("axis", -1)]);
        let last = m.ints(&[2]);
        let gate = m.node("Unsqueeze", &[&gate, &last], &[]);
        let mixed = m.node("Mul", &[&experts, &gate], &[]);
        let mixed = m.node("ReduceSum", &[&mixed, &axes], &[("keepdims", 0)]);
        let hidden = m.dense(&mixed, s.expert, 32);
        let hidden = m.node("Relu", &[&hidden], &[]);
        let (w, b) = (m.weights(&[32, 1]), m.weights(&[1]));
        m.node_as("Gemm", &[&hidden, &w, &b], &[], head);
        m.output(head);
    }
    m.bytes()
}
