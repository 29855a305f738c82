//! Does a bundle give the same numbers whichever way it is asked, and refuse whatever is wrong with it?

use super::testing::{RANKER, SCHEMA as TOML, SMALL, TestBundle, USER_TOWER, passing_row};
use super::*;
use crate::onnx::testing::{self as graphs, Onnx, Sizes};
use crate::onnx::wire::element;
use proptest::prelude::*;
use ranker::Ranker;
use serde_json::json;
use std::fs;

pub(super) const SCHEMA: &str = r#"
format = 1
name = "test"
dimension = 16
metric = "ip"
prior_conversion = 0.05
light = { scale = 1.0, offset = -3.0 }
files = { user_tower = "user.onnx", item_tower = "item.onnx", ranker = "ranker.onnx", golden = "golden.jsonl.zst" }
[[feature]]
name = "segment"
side = "user"
kind = "category"
buckets = 50
[[feature]]
name = "bought"
side = "user"
kind = "set"
buckets = 100
max_len = 8
[[feature]]
name = "age"
side = "context"
kind = "dense"
mean = 40.0
std = 20.0
default = 40.0
[[feature]]
name = "kind"
side = "item"
kind = "category"
buckets = 100
[[feature]]
name = "price"
side = "item"
kind = "dense"
transform = "log1p"
[[cross]]
name = "match"
user = "bought"
item = "kind"
transform = "log1p"
[[head]]
name = "click"
kind = "probability"
role = "click"
calibration = { kind = "platt", scale = 0.9, offset = -1.0 }
[[head]]
name = "conv"
kind = "probability"
calibration = { kind = "isotonic", x = [0.1, 0.9], y = [0.05, 0.8] }
[[head]]
name = "value"
kind = "value"
calibration = { kind = "scale", factor = 2.0 }
"#;

/// The bundle of most tests: [`SCHEMA`] with a ranker of every kind of layer.
pub(super) fn sample() -> TestBundle {
    TestBundle::new(SCHEMA).with(RANKER, graphs::ranker(3, SMALL))
}

pub(super) fn user(seed: u64) -> FeatureRow {
    let set = (1..=seed % 12).map(|i| (i * 31 + seed, 0.25 * i as f32)).collect();
    let values =
        vec![FeatureValue::Category(seed * 7), FeatureValue::Set(set), FeatureValue::Dense(20.0 + (seed % 50) as f32)];
    FeatureRow { values }
}

pub(super) fn items(n: usize, seed: u64) -> Vec<FeatureRow> {
    let item = |i: u64| vec![FeatureValue::Category(seed + i * 31), FeatureValue::Dense(0.5 * i as f32)];
    (0..n as u64).map(|i| FeatureRow { values: item(i) }).collect()
}

pub(super) struct Request {
    pub user: FeatureRow,
    pub items: Vec<FeatureRow>,
    pub part: Vec<f32>,
    pub activations: Vec<f32>,
    pub cross: Vec<f32>,
}

pub(super) fn request(bundle: &Bundle, n: usize, seed: u64) -> Request {
    let mut scratch = Scratch::default();
    let (user, items) = (user(seed), items(n, seed));
    let part = bundle.run_user(&mut scratch, &user).unwrap().part;
    let activations = bundle.run_items(&mut scratch, &items).unwrap().activations;
    let cross = items.iter().flat_map(|i| bundle.cross(&user, i)).collect();
    Request { user, items, part, activations, cross }
}

fn close(a: f32, b: f32) -> bool {
    (a - b).abs() <= 1e-4 * b.abs().max(1e-3)
}

#[test]
fn the_split_equals_the_whole() {
    let bundle = sample().open().unwrap();
    let mut scratch = Scratch::default();
    let (mut split, mut whole) = (Vec::new(), Vec::new());
    for seed in 0..20 {
        let r = request(&bundle, 70, seed);
        bundle.rank(&mut scratch, &r.part, &r.activations, &r.cross, 70, &mut split).unwrap();
        bundle.rank_whole(&mut scratch, &r.user, &r.items, &r.cross, &mut whole).unwrap();
        assert_eq!(split.len(), 70 * 3);
        for (s, w) in split.iter().zip(&whole) {
            assert!(close(*s, *w), "{s} {w}");
        }
        let distinct: std::collections::BTreeSet<u32> = split.iter().map(|s| s.to_bits()).collect();
        assert!(distinct.len() > 100, "the inputs reach the outputs");
    }
    let report = bundle.partition_report();
    assert!(report.candidate.flops < report.whole.flops, "{report:?}");
    assert!(report.user.flops > 0 && report.item.flops > 0, "{report:?}");
}

#[test]
fn two_readings_of_one_bundle_agree() {
    let (a, b) = (sample().open().unwrap(), sample().open().unwrap());
    assert_eq!((a.hash(), a.partition_hash()), (b.hash(), b.partition_hash()));
    let other = sample().with(RANKER, graphs::ranker(4, SMALL)).open().unwrap();
    assert!(other.hash() != a.hash() && other.partition_hash() != a.partition_hash());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A candidate's score is the same to the last bit, whatever its block, its neighbours and the padding.
    #[test]
    fn a_score_does_not_depend_on_its_place(seed in 0u64..1000, from in 0usize..100, n in 1usize..40, shift in 0usize..33) {
        let bundle = shared();
        let r = request(bundle, 140, seed);
        let width = bundle.activation_width();
        let (mut scratch, mut all, mut some) = (Scratch::default(), Vec::new(), Vec::new());
        bundle.rank(&mut scratch, &r.part, &r.activations, &r.cross, 140, &mut all).unwrap();
        // The same candidates behind `shift` others.
        let order: Vec<usize> = (100..100 + shift).chain(from..from + n).collect();
        let activations: Vec<f32> = order.iter().flat_map(|i| r.activations[i * width..(i + 1) * width].to_vec()).collect();
        let cross: Vec<f32> = order.iter().map(|i| r.cross[*i]).collect();
        bundle.rank(&mut scratch, &r.part, &activations, &cross, order.len(), &mut some).unwrap();
        for (at, i) in order.iter().enumerate() {
            let bits = |v: &[f32], i: usize| [v[i * 3], v[i * 3 + 1], v[i * 3 + 2]].map(f32::to_bits);
            prop_assert_eq!(bits(&some, at), bits(&all, *i));
        }
        // So are an item's vector and activations.
        let again = bundle.run_items(&mut scratch, &r.items[from..from + n]).unwrap();
        prop_assert_eq!(&again.activations[..], &r.activations[from * width..(from + n) * width]);
    }

    /// Whatever a damaged graph says, reading it ends in a bundle or an error.
    #[test]
    fn damaged_graphs_never_panic(at in 0usize..1_000_000, bytes in prop::collection::vec(any::<u8>(), 1..6), cut in any::<bool>()) {
        let mut ranker = graphs::ranker(3, Sizes { embedding: 2, deep: 4, experts: 2, expert: 4 });
        let at = at % ranker.len();
        if cut {
            ranker.truncate(at);
        } else {
            ranker.iter_mut().skip(at).zip(&bytes).for_each(|(b, x)| *b = *x);
        }
        let (schema, _) = manifest::parse(SCHEMA).unwrap();
        if let Ok(read) = onnx::read(ranker.clone().into()) && let Ok(ranker) = Ranker::new(&read, &schema) {
            let mut scratch = Scratch::default();
            let (part, items) = (vec![0.5; ranker.user_width], vec![0.5; ranker.item_width]);
            ranker.rank(&mut scratch.arena, &part, &items, (&[0.5], 1), 1, |_, _| {});
        }
    }
}

pub(super) fn shared() -> &'static Bundle {
    static SHARED: std::sync::OnceLock<Bundle> = std::sync::OnceLock::new();
    SHARED.get_or_init(|| sample().open().unwrap())
}

#[test]
fn golden_rows_go_the_whole_way() {
    let bundle = shared();
    let user = json!({"segment": "gold", "bought": {"values": ["tea", "milk"], "weights": [2.0, 1.0]}});
    let mut row = passing_row(bundle, &user, &json!({"kind": "tea", "price": 3.5}));
    let raw = RawRow::read(bundle.schema(), row.get("user"), row.get("item")).unwrap();
    assert!((bundle.cross(&raw.user, &raw.item)[0] - 3f32.ln()).abs() < 1e-6, "the weight of tea");
    let report = sample().rows(&format!("{row}\n{row}\n")).verify().unwrap();
    assert!(report.rows == 2 && report.light_rows == 0 && report.worst < 1e-4, "{report:?}");
    row["predictions"]["conv"] = (row["predictions"]["conv"].as_f64().unwrap() * 1.001).into();
    assert!(sample().row(&row).verify().unwrap_err().contains("conv"));
    assert!(bundle.verify_golden().unwrap_err().to_string().contains("none"));
}

/// It was once "not an ONNX model".
#[test]
fn a_graph_that_is_too_large_to_run_is_called_so() {
    let mut m = Onnx::new(1);
    let price = m.input("price", element::FLOAT, 1);
    let wide = m.floats(&[1, 1 << 20], vec![0.5; 1 << 20]);
    let x = m.node("Mul", &[&price, &wide], &[]);
    // All three are needed for the sum, in every row of a block.
    let (a, b) = (m.node("Tanh", &[&x], &[]), m.node("Sigmoid", &[&x], &[]));
    let product = m.node("Mul", &[&a, &b], &[]);
    let all = m.node("Add", &[&product, &x], &[]);
    let axis = m.ints(&[1]);
    for head in ["click", "conv", "value"] {
        m.node_as("ReduceSum", &[&all, &axis], &[("keepdims", 1)], head);
        m.output(head);
    }
    let text = sample().with(RANKER, m.bytes()).refusal();
    assert!(text.starts_with("ranker.onnx: as a program: ") && text.contains("values in flight"), "{text}");
}

/// What a test does to a sound graph.
type Change<'a> = &'a dyn Fn(&mut Onnx);

#[test]
fn what_is_wrong_is_refused_with_its_reason() {
    let ranker_with = |change: Change<'_>| {
        let mut m = Onnx::new(1);
        let x = m.input("price", element::FLOAT, 1);
        for head in ["click", "conv", "value"] {
            m.node_as("Relu", &[&x], &[], head);
            m.output(head);
        }
        change(&mut m);
        sample().with(RANKER, m.bytes()).refusal()
    };
    assert_eq!(ranker_with(&|_| {}), "", "the base is fine");
    let rename = |m: &mut Onnx| m.graph.node[0].op_type = "LSTM".into();
    let text = ranker_with(&rename);
    assert!(text.contains("LSTM") && text.contains("Relu_0"), "{text}");
    let wrong: [(Change<'_>, &str); 9] = [
        (&|m| drop(m.floats(&[1], vec![f32::NAN])), "not finite"),
        (&|m| drop(m.floats(&[3], vec![1.0])), "1 values for"),
        (&|m| drop(m.floats(&[1 << 40, 1 << 40], vec![1.0])), "more values"),
        (&|m| drop(m.floats(&[-1], vec![1.0])), "a dimension of -1"),
        (&|m| drop(m.input("nobody", element::FLOAT, 1)), "no feature"),
        (&|m| drop(m.input("kind", element::FLOAT, 1)), "Integer"),
        (&|m| drop(m.input("age", element::FLOAT, 3)), "[batch, 1]"),
        (&|m| drop(m.graph.output.pop()), "does not have it"),
        (&|m| m.graph.node[0].input[0] = "void".into(), "before it is made"),
    ];
    for (change, reason) in wrong {
        let text = ranker_with(change);
        assert!(text.contains(reason), "{reason}: {text}");
    }
    let external = |m: &mut Onnx| {
        m.floats(&[1], vec![1.0]);
        m.graph.initializer[0].external_data = vec![vec![1]];
    };
    assert!(ranker_with(&external).contains("another file"));
}

#[test]
fn a_damaged_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    sample().write(dir.path());
    let path = dir.path().join("ranker.onnx");
    let mut bytes = fs::read(&path).unwrap();
    bytes[1000] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert!(Bundle::open(dir.path()).err().unwrap().to_string().contains("ranker.onnx is damaged"));
    fs::remove_file(&path).unwrap();
    assert!(Bundle::open(dir.path()).err().unwrap().to_string().contains("not there"));
    sample().write(dir.path());
    fs::write(dir.path().join("more.txt"), "x").unwrap();
    assert!(Bundle::open(dir.path()).err().unwrap().to_string().contains("has no line"));
}

#[test]
fn a_tower_keeps_to_its_side_and_tables_to_their_buckets() {
    assert!(sample().with(USER_TOWER, graphs::tower(1, false, SMALL, 16)).open().is_err());
    let schema = SCHEMA.replace("buckets = 50", "buckets = 60");
    assert!(sample().with(TOML, schema).refusal().contains("51 rows"));
}

/// Rounded activations are refused unless the bundle says how much that may change, and then the change is seen.
#[test]
fn rounded_activations_need_a_tolerance() {
    let row = passing_row(shared(), &json!({"segment": "gold", "age": 31.0}), &json!({"kind": "tea", "price": 3.5}));
    let with = |options: &str| {
        let schema = SCHEMA.replacen("[[feature]]", &format!("[ranker_options]\n{options}\n[[feature]]"), 1);
        sample().with(TOML, schema).row(&row).open()
    };
    let exact = with("activations = \"f32\"").unwrap().verify_golden().unwrap();
    assert!(exact.worst < 1e-6, "{exact:?}");
    let rounded = with("activations = \"bf16\"\ntolerance = 1e-6").unwrap();
    assert!(rounded.verify_golden().unwrap_err().to_string().contains("relative difference"));
    let rounded = with("activations = \"bf16\"\ntolerance = 0.05").unwrap();
    let report = rounded.verify_golden().unwrap();
    assert!(report.worst > 1e-6 && report.worst < 0.05, "{report:?}");
    let (mut scratch, items) = (Scratch::default(), items(3, 5));
    let [rounded, exact] = [&rounded, shared()].map(|bundle| bundle.run_items(&mut scratch, &items).unwrap());
    assert!(rounded.activations.iter().all(|x| x.to_bits() & 0xffff == 0), "the lower halves are empty");
    assert_eq!(rounded.vectors, exact.vectors, "the tower is not rounded");
    for (wrong, reason) in [
        ("tolerance = 0.01", "up to 0.0001"),
        ("activations = \"bf16\"\ntolerance = 0.5", "up to 0.05"),
        ("activations = \"bf16\"\ntolerance = nan", "up to 0.05"),
        ("activations = \"int4\"", "int4"),
    ] {
        let text = with(wrong).err().unwrap().to_string();
        assert!(text.contains(reason), "{text}");
    }
}

/// Whoever mends a bundle hears of everything at once.
#[test]
fn a_check_collects_every_reason() {
    let dir = tempfile::tempdir().unwrap();
    let mut m = Onnx::new(1);
    let x = m.input("price", element::FLOAT, 1);
    let (a, b) = (m.node("LSTM", &[&x], &[]), m.node("Sin", &[&x], &[]));
    let c = m.node("Relu", &[&a], &[]);
    for (head, from) in [("click", &a), ("conv", &b), ("value", &c)] {
        m.node_as("Relu", &[from], &[], head);
        m.output(head);
    }
    sample().with(RANKER, m.bytes()).with(USER_TOWER, "no graph").write(dir.path());
    let found = check(dir.path());
    let text = found.errors.join("\n");
    assert_eq!(found.errors.len(), 3, "{text}");
    assert!(text.contains("LSTM of node \"LSTM_0\"") && text.contains("Sin of node \"Sin_1\""), "{text}");
    assert!(text.contains("user.onnx") && found.name == "test" && found.partition.is_none());

    sample().write(dir.path());
    let found = check(dir.path());
    assert!(found.errors.len() == 1 && found.errors[0].contains("golden"), "there are no rows: {:?}", found.errors);
    assert!(found.partition.is_some_and(|p| p.share_off_request_path() > 0.0));
}
