//! The demo bundle with a few operations behind its outputs.
//!
//! Protobuf merges what is written one after the other, so a changed graph is the demo's file with a second graph
//! behind it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use gavel_model::{Bundle, FeatureRow, FeatureSpec, FeatureValue, LightLogits, Scratch};

use super::fixture::demo_bundle;

/// What becomes of the items whose scaled price and the user's scaled visits do not have one sign.
#[derive(Clone, Copy, Debug)]
pub enum Break {
    /// The logarithm of a negative number.
    NotANumber,
    /// One by zero: as a logit, certainty.
    Infinite,
}

#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn bytes(mut self, tag: u8, value: &[u8]) -> Self {
        assert!(value.len() < 0x4000, "two bytes of length");
        self.0.extend([tag << 3 | 2, value.len() as u8 | 0x80, (value.len() >> 7) as u8]);
        self.0.extend_from_slice(value);
        self
    }

    /// Of at most seven bits.
    fn number(mut self, tag: u8, value: u8) -> Self {
        self.0.extend([tag << 3, value]);
        self
    }

    fn output(self, name: &str) -> Self {
        self.bytes(12, &Self::default().bytes(1, name.as_bytes()).0)
    }

    /// An input `[B, 1]` of floats.
    fn input(self, name: &str) -> Self {
        let batch = Self::default().bytes(2, b"B");
        let shape = Self::default().bytes(1, &batch.0).bytes(1, &Self::default().number(1, 1).0);
        let tensor = Self::default().number(1, 1).bytes(2, &shape.0);
        self.bytes(11, &Self::default().bytes(1, name.as_bytes()).bytes(2, &Self::default().bytes(1, &tensor.0).0).0)
    }

    /// The largest value of each row, as a column.
    fn largest(self, of: &str, name: &str) -> Self {
        let axes = Self::default().bytes(1, b"axes").number(8, 1);
        // The attribute's type, integers, has a tag of two bytes.
        let axes = Self([axes.0, vec![0xa0, 0x01, 7]].concat());
        let node = Self::default().bytes(1, of.as_bytes()).bytes(2, name.as_bytes()).bytes(4, b"ReduceMax");
        self.bytes(1, &node.bytes(5, &axes.0).0)
    }

    fn node(self, op: &str, inputs: &[&str], output: &str) -> Self {
        let node = inputs.iter().fold(Self::default(), |m, input| m.bytes(1, input.as_bytes()));
        self.bytes(1, &node.bytes(2, output.as_bytes()).bytes(4, op.as_bytes()).0)
    }
}

/// A file of this graph, which also puts out `output`.
fn file(graph: Message, output: &str) -> Vec<u8> {
    Message::default().bytes(7, &graph.output(output).0).0
}

/// The demo bundle whose click head is not finite for some items.
pub fn write_broken(folder: &Path, broken: Break) {
    let graph = Message::default().node("Mul", &["price", "visits"], "sign");
    let graph = match broken {
        Break::NotANumber => graph.node("Log", &["sign"], "off"),
        Break::Infinite => graph.node("Relu", &["sign"], "above").node("Reciprocal", &["above"], "off"),
    };
    let more = file(graph.node("Add", &["click", "off"], "broken"), "broken");
    let schema = text("bundle.toml").replacen("name = \"click\"", "name = \"broken\"", 1);
    write(folder, vec![("bundle.toml", schema.into_bytes()), ("ranker.onnx", [read("ranker.onnx"), more].concat())]);
}

/// The demo bundle with a light head. A click: the largest of the vector less the similarity, plus the largest of the
/// query. A conversion: the negative of the largest of the vector.
pub fn write_with_light_head(folder: &Path) {
    let largest = |of: &str, name: &str| file(Message::default().largest(of, name), name);
    let (user, item) = (largest("query", "user_light"), largest("vector", "item_light"));
    let set = Message::default().bytes(1, b"").number(2, 17);
    let graph = Message::default().input("item_light").input("similarity").input("user_light");
    let graph = graph.node("Sub", &["item_light", "similarity"], "less").node("Add", &["less", "user_light"], "light");
    let graph = graph.node("Neg", &["item_light"], "light_conversion").output("light_conversion");
    let head = [Message::default().number(1, 8).bytes(8, &set.0).0, file(graph, "light")].concat();
    let schema = text("bundle.toml");
    let (from, after) = schema.split_once("[light]").unwrap();
    let rest = after.split_once("\n[").unwrap().1;
    write(
        folder,
        vec![
            ("bundle.toml", format!("{from}[light]\nhead = \"light.onnx\"\n[{rest}").into_bytes()),
            ("user_tower.onnx", [read("user_tower.onnx"), user].concat()),
            ("item_tower.onnx", [read("item_tower.onnx"), item].concat()),
            ("light.onnx", head),
        ],
    );
}

/// The demo bundle that weighs value.
pub fn write_valuing(folder: &Path, weight: f32) {
    let schema = text("bundle.toml").replacen("value_weight = 0.0", &format!("value_weight = {weight:?}"), 1);
    assert_ne!(schema, text("bundle.toml"));
    write(folder, vec![("bundle.toml", schema.into_bytes())]);
}

/// A file of the demo bundle. The towers' outputs for its light head go by names of as many bytes that no server knows,
/// so that a test can put out its own.
fn read(name: &str) -> Vec<u8> {
    let mut bytes = std::fs::read(demo_bundle().join(name)).unwrap();
    if name.ends_with(".onnx") {
        rename(&mut bytes, &[("user_light", "user_other"), ("item_light", "item_other")]);
    }
    bytes
}

/// Where the fields of a message lie that have a length, with their tags.
fn fields(message: &[u8], within: Range<usize>) -> Vec<(u64, Range<usize>)> {
    let mut at = within.start;
    let varint = |at: &mut usize| {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = message[*at];
            *at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    };
    let mut found = Vec::new();
    while at < within.end {
        let key = varint(&mut at);
        match key & 7 {
            0 => drop(varint(&mut at)),
            1 => at += 8,
            5 => at += 4,
            2 => {
                let length = varint(&mut at) as usize;
                found.push((key >> 3, at..at + length));
                at += length;
            }
            other => panic!("wire type {other}"),
        }
    }
    found
}

/// Renames tensors where a graph names them: in the inputs and outputs of its nodes and of itself. New names are as long.
fn rename(file: &mut [u8], names: &[(&str, &str)]) {
    let mut places = Vec::new();
    for (_, graph) in fields(file, 0..file.len()).into_iter().filter(|(tag, _)| *tag == 7) {
        for (tag, part) in fields(file, graph) {
            let named: &[u64] = match tag {
                1 => &[1, 2],
                11 | 12 => &[1],
                _ => &[],
            };
            if named.is_empty() {
                continue;
            }
            places
                .extend(fields(file, part).into_iter().filter(|(tag, _)| named.contains(tag)).map(|(_, place)| place));
        }
    }
    for place in places {
        if let Some((_, to)) = names.iter().find(|(from, _)| from.as_bytes() == &file[place.clone()]) {
            file[place].copy_from_slice(to.as_bytes());
        }
    }
}

/// `bundle.toml` with the inner product for light ranking.
fn text(name: &str) -> String {
    let schema = String::from_utf8(read(name)).unwrap();
    let product = schema.replacen("head = \"light.onnx\"", "scale = 0.035\noffset = -3.0", 1);
    assert_ne!(schema, product);
    product
}

/// Writes the demo bundle with other files in it, and with one golden row that it passes.
fn write(folder: &Path, others: Vec<(&'static str, Vec<u8>)>) {
    std::fs::create_dir_all(folder).unwrap();
    let demo = ["bundle.toml", "user_tower.onnx", "item_tower.onnx", "ranker.onnx"];
    let mut files: BTreeMap<&str, Vec<u8>> = demo.into_iter().map(|name| (name, read(name))).collect();
    files.extend(others);
    let mut seal = |golden: &str| {
        files.insert("golden.jsonl.zst", zstd::encode_all(golden.as_bytes(), 1).unwrap());
        gavel_model::bundle::pack::write_folder(folder, files.iter().map(|(n, b)| (*n, b.as_slice()))).unwrap();
    };
    seal("");
    let golden = golden_row(&Bundle::open(folder).unwrap());
    seal(&golden);
}

/// Both numbers are below their means, so that the product is above 0.
fn golden_row(bundle: &Bundle) -> String {
    let schema = bundle.schema();
    let row = |specs: &[FeatureSpec]| FeatureRow {
        values: specs
            .iter()
            .map(|spec| match spec.name.as_str() {
                "price" | "visits" => FeatureValue::Dense(1.0),
                _ => FeatureValue::Missing,
            })
            .collect(),
    };
    let (user, item, mut scratch, mut raw) = (row(&schema.user), row(&schema.item), Scratch::default(), Vec::new());
    let of_user = bundle.run_user(&mut scratch, &user).unwrap();
    let of_item = bundle.run_items(&mut scratch, std::slice::from_ref(&item)).unwrap();
    let cross = bundle.cross(&user, &item);
    bundle.rank_raw(&mut scratch, &of_user.part, &of_item.activations, &cross, 1, &mut raw).unwrap();
    assert!(raw.iter().all(|x| x.is_finite()), "{raw:?}");
    let by_name = |of: &dyn Fn(usize) -> f32| {
        schema.heads.iter().enumerate().map(|(i, h)| format!("\"{}\":{}", h.name, of(i))).collect::<Vec<_>>().join(",")
    };
    let similarity: f32 = of_user.query.iter().zip(&of_item.vectors).map(|(q, v)| q * v).sum();
    let mut light = LightLogits::default();
    bundle.light(&mut scratch, &of_user.part, &of_item.lights, &[similarity], &mut light).unwrap();
    let light: Vec<String> = ["light", "light_conversion"]
        .into_iter()
        .zip(light.clicks.iter().chain(&light.conversions))
        .filter(|_| bundle.light_cost().is_some())
        .map(|(name, logit)| format!(",\"{name}\":{logit}"))
        .collect();
    let heads = by_name(&|i| raw[i]);
    let predictions = by_name(&|i| schema.heads[i].predict(raw[i]));
    format!(
        "{{\"user\":{{\"visits\":1.0}},\"item\":{{\"price\":1.0}},\"query\":{:?},\"vector\":{:?},\
         \"heads\":{{{heads}}},\"predictions\":{{{predictions}}}{}}}",
        of_user.query,
        of_item.vectors,
        light.concat()
    )
}
