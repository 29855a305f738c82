//! Which bundles must never serve?
//!
//! Made from the demo's bundle by one change each: to a file with its checksum made right again, so that only the
//! meaning is wrong, or to the packed bytes. Each names a word that its refusal must contain: a refusal that does not
//! say why is half a refusal.

use crate::onnx::{Tensor, change, largest, plant};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;

type Files = BTreeMap<String, Vec<u8>>;
type Change = Box<dyn Fn(&mut Files)>;

/// A packed bundle that must be refused.
pub struct Poisoned {
    /// What is wrong with it.
    pub name: String,
    /// The bytes.
    pub packed: Vec<u8>,
    /// A part of the reason.
    pub reason: &'static str,
}

/// The demo's files by name.
///
/// # Panics
/// When they cannot be read.
#[must_use]
pub fn demo() -> Files {
    let folder = crate::repository::demo_bundle();
    let entries = std::fs::read_dir(folder).expect("the demo bundle");
    let read =
        |e: std::fs::DirEntry| (e.file_name().to_string_lossy().into_owned(), std::fs::read(e.path()).expect("read"));
    entries.flatten().map(read).collect()
}

/// The packed form, with checksums over what is there.
#[must_use]
pub fn sealed(files: &Files) -> Vec<u8> {
    let mut files = files.clone();
    files.remove("BLAKE3SUMS");
    let mut sums = String::new();
    for (name, content) in &files {
        let _ = writeln!(sums, "{}  {name}", blake3::hash(content).to_hex());
    }
    files.insert("BLAKE3SUMS".to_owned(), sums.into_bytes());
    packed(files.iter().map(|(n, c)| (n.as_str(), c.as_slice())))
}

fn packed<'a>(files: impl Iterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    let mut out = b"GAVELBN1".to_vec();
    for (name, content) in files {
        out.extend((name.len() as u32).to_le_bytes());
        out.extend(name.as_bytes());
        out.extend((content.len() as u64).to_le_bytes());
        out.extend(content);
    }
    out
}

/// All of them.
#[must_use]
pub fn corpus() -> Vec<Poisoned> {
    let demo = demo();
    let meant = weights().into_iter().chain(constants()).chain(graphs()).chain(schemas()).chain(golden());
    let mut all: Vec<Poisoned> = meant
        .map(|(name, reason, change)| {
            let mut files = demo.clone();
            change(&mut files);
            Poisoned { name, packed: sealed(&files), reason }
        })
        .collect();
    all.extend(bytes(&sealed(&demo)));
    all
}

const ITEM: &str = "item_tower.onnx";
const USER: &str = "user_tower.onnx";
const RANKER: &str = "ranker.onnx";
const LIGHT: &str = "light.onnx";

fn file<'a>(files: &'a mut Files, name: &str) -> &'a mut Vec<u8> {
    files.get_mut(name).expect("a file of the demo")
}

fn case(
    name: impl Into<String>,
    reason: &'static str,
    change: impl Fn(&mut Files) + 'static,
) -> (String, &'static str, Change) {
    (name.into(), reason, Box::new(change))
}

/// Numbers that are none, in the largest and in the smallest constant of each graph.
fn weights() -> Vec<(String, &'static str, Change)> {
    let mut all = Vec::new();
    for graph in [USER, ITEM, RANKER, LIGHT] {
        for (word, value) in [("NaN", f32::NAN), ("inf", f32::INFINITY), ("-inf", f32::NEG_INFINITY)] {
            all.push(case(format!("{word} in the largest constant of {graph}"), "not finite", move |files| {
                change(file(files, graph), |g| plant(largest(g), value));
            }));
        }
        all.push(case(format!("NaN in the smallest constant of {graph}"), "not finite", move |files| {
            change(file(files, graph), |g| {
                let floats = g.initializer.iter_mut().filter(|t| t.data_type == 1 && !t.dims.is_empty());
                plant(floats.min_by_key(|t| t.dims.iter().product::<i64>()).expect("a constant"), f32::NAN);
            });
        }));
    }
    all
}

/// Constants that are not what they say.
fn constants() -> Vec<(String, &'static str, Change)> {
    vec![
        case("a constant that is shorter than its shape", "initialiser", |files| {
            change(file(files, RANKER), |g| {
                let tensor = largest(g);
                if let Some(raw) = &mut tensor.raw_data {
                    raw.truncate(raw.len() - 4);
                } else {
                    tensor.float_data.pop();
                }
            });
        }),
        case("a constant that says ten times its size", "initialiser", |files| {
            change(file(files, ITEM), |g| largest(g).dims[0] *= 10);
        }),
        case("a constant of 2^40 values", "initialiser", |files| {
            change(file(files, ITEM), |g| largest(g).dims = vec![1 << 20, 1 << 20]);
        }),
        case("a constant that lies in another file", "initialiser", |files| {
            change(file(files, RANKER), |g| {
                let tensor = largest(g);
                (tensor.raw_data, tensor.data_location) = (None, 1);
                tensor.float_data.clear();
            });
        }),
        case("a constant that unfolds to 2^34 values", RANKER, |files| {
            change(file(files, RANKER), |g| {
                let int64 = |name: &str, values: Vec<i64>| Tensor {
                    dims: vec![values.len() as i64],
                    data_type: 7,
                    int64_data: values,
                    name: name.to_owned(),
                    ..Tensor::default()
                };
                let one = Tensor {
                    dims: vec![1],
                    data_type: 1,
                    float_data: vec![0.0],
                    name: "bomb one".to_owned(),
                    ..Tensor::default()
                };
                g.initializer.push(int64("bomb shape", vec![1 << 17, 1 << 17]));
                g.initializer.push(one);
                let node = crate::onnx::Node {
                    input: vec!["bomb one".to_owned(), "bomb shape".to_owned()],
                    output: vec!["bomb".to_owned()],
                    name: "bomb".to_owned(),
                    op_type: "Expand".to_owned(),
                    ..crate::onnx::Node::default()
                };
                g.node.insert(0, node);
                let taken = g.node.last().expect("a node").output[0].clone();
                let last = g.node.last_mut().expect("a node");
                last.output[0] = format!("{taken} before the bomb");
                let before = last.output[0].clone();
                g.node.push(crate::onnx::Node {
                    input: vec![before, "bomb".to_owned()],
                    output: vec![taken],
                    name: "bomb added".to_owned(),
                    op_type: "Add".to_owned(),
                    ..crate::onnx::Node::default()
                });
            });
        }),
    ]
}

/// Graphs that are not what they should be.
fn graphs() -> Vec<(String, &'static str, Change)> {
    vec![
        case("an operator that nobody knows", "operator", |files| {
            change(file(files, RANKER), |g| "Frobnicate".clone_into(&mut g.node[0].op_type));
        }),
        case("an operator of another domain", "operator", |files| {
            change(file(files, ITEM), |g| "com.example".clone_into(&mut g.node[0].domain));
        }),
        case("a convolution", "operator", |files| {
            change(file(files, USER), |g| "Conv".clone_into(&mut g.node[0].op_type));
        }),
        case("an input that nothing gives", "tensor", |files| {
            change(file(files, RANKER), |g| {
                let last = g.node.last_mut().expect("a node");
                "nowhere".clone_into(&mut last.input[0]);
            });
        }),
        case("a tensor with two sources", "tensor", |files| {
            change(file(files, RANKER), |g| {
                let first = g.node[0].clone();
                g.node.push(first);
            });
        }),
        case("a tower that is a ranker", ITEM, |files| {
            let ranker = file(files, RANKER).clone();
            *file(files, ITEM) = ranker;
        }),
        case("a tower that is no ONNX file", "not an ONNX model", |files| {
            *file(files, USER) = b"\xff\xff\xff\xff".to_vec()
        }),
        case("an empty ranker", RANKER, |files| file(files, RANKER).clear()),
        case("an empty light head", LIGHT, |files| file(files, LIGHT).clear()),
        case("a light head that is a tower", LIGHT, |files| {
            let tower = file(files, USER).clone();
            *file(files, LIGHT) = tower;
        }),
    ]
}

fn text(files: &mut Files, from: &str, to: &str) {
    let toml = file(files, "bundle.toml");
    let before = String::from_utf8(toml.clone()).expect("text");
    let after = before.replacen(from, to, 1);
    assert_ne!(before, after, "the demo's schema has no {from:?}");
    *toml = after.into_bytes();
}

/// Another value for the first `key` behind `after` in `bundle.toml`, whatever the demo's is.
fn reset(files: &mut Files, after: &str, key: &str, to: &str) {
    let toml = file(files, "bundle.toml");
    let text = std::str::from_utf8(toml).expect("text");
    let (before, rest) = text.split_once(after).expect("the demo has it");
    let (between, value) = rest.split_once(&format!("{key} = ")).expect("the demo has it");
    let end = value.find([',', '\n', ' ']).expect("an end");
    *toml = format!("{before}{after}{between}{key} = {to}{}", &value[end..]).into_bytes();
}

/// Schemas that do not fit, or are none.
fn schemas() -> Vec<(String, &'static str, Change)> {
    let rewrite = |name: &str, reason, from: &'static str, to: &'static str| {
        case(name, reason, move |files: &mut Files| text(files, from, to))
    };
    vec![
        rewrite("a dimension that is too small", "64", "dimension = 64", "dimension = 63"),
        rewrite("a dimension that is too large", "64", "dimension = 64", "dimension = 65"),
        rewrite("no dimensions", "dimension", "dimension = 64", "dimension = 0"),
        rewrite("a dimension beyond every limit", "dimension", "dimension = 64", "dimension = 4000000000"),
        rewrite("a later format", "format", "format = 1", "format = 2"),
        rewrite("a metric that nobody knows", "metric", "metric = \"ip\"", "metric = \"hamming\""),
        rewrite("a key that nobody reads", "unknown", "name = \"demo\"", "name = \"demo\"\ncalibrated = true"),
        rewrite("fewer buckets than the table has rows", "product", "buckets = 16384", "buckets = 16383"),
        rewrite("a feature twice", "product", "name = \"product_type\"", "name = \"product\""),
        rewrite("a feature of the other side", "product", "side = \"item\"", "side = \"user\""),
        case("a scaling by nothing", "std", |files| reset(files, "name = \"price\"", "std", "0.0")),
        case("a calibration that is no number", "scale", |files| {
            reset(files, "name = \"click\"\nkind", "scale", "nan");
        }),
        rewrite("a light order that is no number", "not finite", "head = \"light.onnx\"", "scale = inf\noffset = 0.0"),
        rewrite("a file that is not there", "missing", "ranker = \"ranker.onnx\"", "ranker = \"other.onnx\""),
        rewrite("nothing that predicts clicks", "click", "role = \"click\"\n", ""),
        rewrite(
            "a head that the ranker does not have",
            "multi_units",
            "name = \"multi_unit\"",
            "name = \"multi_units\"",
        ),
        case("no schema", "bundle.toml", |files| drop(files.remove("bundle.toml"))),
        case("a schema that is no text", "bundle.toml", |files| *file(files, "bundle.toml") = vec![0xff; 100]),
    ]
}

fn rows(files: &mut Files, change: impl Fn(&mut Value)) {
    let packed = file(files, "golden.jsonl.zst");
    let text = String::from_utf8(zstd::decode_all(&packed[..]).expect("zstd")).expect("text");
    let mut lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).expect("a row")).collect();
    change(lines.last_mut().expect("a row"));
    let text = lines.iter().fold(String::new(), |text, line| format!("{text}{line}\n"));
    *packed = zstd::encode_all(text.as_bytes(), 3).expect("zstd");
}

fn off(number: &mut Value) {
    *number = (number.as_f64().expect("a number") + 0.5).into();
}

/// Golden rows that the model does not give, or that are none.
fn golden() -> Vec<(String, &'static str, Change)> {
    let raw = |name: &str, bytes: Vec<u8>| {
        case(name, "golden", move |files: &mut Files| *file(files, "golden.jsonl.zst") = bytes.clone())
    };
    let scale = |at: &'static str, head: &'static str, by: f64| {
        move |row: &mut Value| {
            let number = row[at][head].as_f64().expect("a number") * by;
            row[at][head] = number.into();
        }
    };
    vec![
        case("a prediction that is a hundredth off", "golden", move |f| rows(f, scale("predictions", "click", 1.01))),
        case("a raw output that is off", "golden", move |f| rows(f, scale("heads", "conversion", 1.5))),
        case("a light logit that is off", "golden", |f| rows(f, |row| off(&mut row["light"]))),
        case("a light logit of conversions that is off", "golden", |f| {
            rows(f, |row| off(&mut row["light_conversion"]));
        }),
        case("a vector that is turned", "golden", |f| {
            rows(f, |row| row["vector"][0] = (row["vector"][0].as_f64().expect("a number") + 0.1).into());
        }),
        case("a query of another width", "golden", |f| {
            rows(f, |row| drop(row["query"].as_array_mut().expect("a list").pop()));
        }),
        case("a feature that the schema does not have", "golden", |f| {
            rows(f, |row| row["item"]["colour"] = "red".into());
        }),
        case("a row without a head", "golden", |f| {
            rows(f, |row| drop(row["heads"].as_object_mut().expect("heads").remove("click")));
        }),
        raw("no golden rows", zstd::encode_all(&b""[..], 3).expect("zstd")),
        raw("golden rows that are not compressed", b"{}\n".to_vec()),
        raw("golden rows that are no rows", zstd::encode_all(&b"[]\n"[..], 3).expect("zstd")),
        raw(
            "golden rows that unpack to more than is allowed",
            zstd::encode_all(std::io::repeat(b' ').take(260 << 20), 1).expect("zstd"),
        ),
    ]
}

/// Bytes that are not those that were sealed.
fn bytes(whole: &[u8]) -> Vec<Poisoned> {
    let mut all = Vec::new();
    let mut add = |name: String, packed: Vec<u8>, reason| all.push(Poisoned { name, packed, reason });
    // At the edges, in the heads, and at many places between.
    let step = whole.len() / 16;
    let cuts = [0, 1, 7, 9, 20, whole.len() - 1].into_iter().chain((1..16).map(|n| n * step));
    for cut in cuts {
        add(format!("cut after {cut} bytes"), whole[..cut].to_vec(), "packed");
    }
    for n in 0..12 {
        let at = n * (whole.len() / 12) + 101;
        let mut flipped = whole.to_vec();
        flipped[at] ^= 1 << (n % 8);
        add(format!("a bit of byte {at} flipped"), flipped, "");
    }
    let mut magic = whole.to_vec();
    magic[7] = b'2';
    add("another format of packing".to_owned(), magic, "GAVELBN1");
    let grown: Vec<u8> = whole.iter().copied().chain([0; 64]).collect();
    add("bytes after the end".to_owned(), grown, "");
    let mut huge = b"GAVELBN1".to_vec();
    huge.extend(1u32.to_le_bytes());
    huge.extend(b"a");
    huge.extend((10u64 << 30).to_le_bytes());
    add("a file that says ten times what one may have".to_owned(), huge, "limit");
    add("a name outside the folder".to_owned(), packed([("../x", &b"x"[..])].into_iter()), "not a name");
    add("files out of order".to_owned(), packed([("b", &b"x"[..]), ("a", &b"y"[..])].into_iter()), "order");
    let many: Vec<String> = (0..65).map(|n| format!("f{n:03}")).collect();
    add("more files than a bundle has".to_owned(), packed(many.iter().map(|n| (n.as_str(), &b"x"[..]))), "limit");
    let mut unlisted = demo();
    unlisted.insert("extra.bin".to_owned(), vec![1]);
    let extra = packed(unlisted.iter().map(|(n, c)| (n.as_str(), c.as_slice())));
    add("a file that the checksums do not name".to_owned(), extra, "BLAKE3SUMS");
    all
}
