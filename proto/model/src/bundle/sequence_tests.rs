//! Does an ordered list reach the ranker in its order, split as whole?

use super::testing::{RANKER, SCHEMA as TOML, TestBundle, passing_row};
use super::*;
use crate::onnx::testing::Onnx;
use crate::onnx::wire::element;
use proptest::prelude::*;
use serde_json::json;

const SCHEMA: &str = r#"
format = 1
name = "sequence"
dimension = 16
metric = "ip"
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
[[feature]]
name = "actions"
side = "user"
kind = "sequence"
buckets = 40
max_len = 6
[[feature]]
name = "kind"
side = "item"
kind = "category"
buckets = 100
[[feature]]
name = "price"
side = "item"
kind = "dense"
[[feature]]
name = "pictures"
side = "item"
kind = "sequence"
buckets = 30
max_len = 3
[[head]]
name = "click"
kind = "probability"
role = "click"
"#;

/// Values of an embedding.
const WIDTH: i64 = 8;

/// Target attention of an item over the user's actions: keys, values and mask depend on the user alone, the query on
/// the item alone, and only the scores and their sum on both.
fn ranker() -> Vec<u8> {
    let mut m = Onnx::new(11);
    let actions = m.input("actions", element::INT64, 6);
    let strength = m.input("actions.weight", element::FLOAT, 6);
    let (kind, pictures) = (m.input("kind", element::INT64, 1), m.input("pictures", element::INT64, 3));
    let table = m.weights(&[41, WIDTH]);
    let looked = m.node("Gather", &[&table, &actions], &[("axis", 0)]);
    let positions = m.weights(&[1, 6, WIDTH]);
    let placed = m.node("Mul", &[&looked, &positions], &[]);
    let last = m.ints(&[2]);
    let strength = m.node("Unsqueeze", &[&strength, &last], &[]);
    let placed = m.node("Concat", &[&placed, &strength], &[("axis", 2)]);
    let (to_keys, to_values) = (m.weights(&[WIDTH + 1, WIDTH]), m.weights(&[WIDTH + 1, WIDTH]));
    let keys = m.node("MatMul", &[&placed, &to_keys], &[]);
    let values = m.node("MatMul", &[&placed, &to_values], &[]);
    let query = m.embedding(&kind, 101, WIDTH);
    let column = m.node("Unsqueeze", &[&query, &last], &[]);
    let scores = m.node("MatMul", &[&keys, &column], &[]);
    let rows = m.node("Cast", &[&actions], &[("to", 1)]);
    let (zero, low) = (m.floats(&[1], vec![0.0]), m.floats(&[1], vec![-1e9]));
    let there = m.node("Greater", &[&rows, &zero], &[]);
    let there = m.node("Unsqueeze", &[&there, &last], &[]);
    let scores = m.node("Where", &[&there, &scores, &low], &[]);
    let shares = m.node("Softmax", &[&scores], &[("axis", 1)]);
    let weighted = m.node("Mul", &[&shares, &values], &[]);
    let first = m.ints(&[1]);
    let context = m.node("ReduceSum", &[&weighted, &first], &[("keepdims", 0)]);
    let table = m.weights(&[31, WIDTH]);
    let pictures = m.node("Gather", &[&table, &pictures], &[("axis", 0)]);
    let pictures = m.node("Flatten", &[&pictures], &[("axis", 1)]);
    let joined = m.node("Concat", &[&context, &query, &pictures], &[("axis", 1)]);
    let hidden = m.dense(&joined, 5 * WIDTH, 16);
    let hidden = m.node("Relu", &[&hidden], &[]);
    let (w, b) = (m.weights(&[16, 1]), m.weights(&[1]));
    m.node_as("Gemm", &[&hidden, &w, &b], &[], "click");
    m.output("click");
    m.bytes()
}

fn sample() -> TestBundle {
    TestBundle::new(SCHEMA).with(RANKER, ranker())
}

fn shared() -> &'static Bundle {
    static SHARED: std::sync::OnceLock<Bundle> = std::sync::OnceLock::new();
    SHARED.get_or_init(|| sample().open().unwrap())
}

fn user(actions: Vec<(u64, f32)>) -> FeatureRow {
    let mut values = vec![FeatureValue::Missing; 4];
    values[3] = FeatureValue::Set(actions);
    FeatureRow { values }
}

fn item(n: u64) -> FeatureRow {
    let pictures = (0..n % 5).map(|i| (n + i, 1.0)).collect();
    FeatureRow { values: vec![FeatureValue::Category(n + 1), FeatureValue::Missing, FeatureValue::Set(pictures)] }
}

/// Predictions through the three parts and through the whole graph.
fn both(user: &FeatureRow, items: &[FeatureRow]) -> (Vec<f32>, Vec<f32>) {
    let (bundle, mut scratch) = (shared(), Scratch::default());
    let part = bundle.run_user(&mut scratch, user).unwrap().part;
    let activations = bundle.run_items(&mut scratch, items).unwrap().activations;
    let (mut split, mut whole) = (Vec::new(), Vec::new());
    bundle.rank(&mut scratch, &part, &activations, &[], items.len(), &mut split).unwrap();
    bundle.rank_whole(&mut scratch, user, items, &[], &mut whole).unwrap();
    (split, whole)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// RK1 over tensors `[batch, places, values]`.
    #[test]
    fn a_split_sequence_ranks_as_the_whole(
        actions in prop::collection::vec((1u64..60, 0.1f32..3.0), 0..9), items in 1u64..70,
    ) {
        let items: Vec<FeatureRow> = (0..items).map(item).collect();
        let (split, whole) = both(&user(actions.clone()), &items);
        for (s, w) in split.iter().zip(&whole) {
            prop_assert!((s - w).abs() <= 1e-4 * w.abs(), "{s} {w}");
        }
        // What lies behind the last place is not seen.
        let mut more = actions.clone();
        more.truncate(6);
        prop_assert_eq!(&both(&user(more), &items).0, &split);
    }
}

#[test]
fn order_and_repetitions_are_seen_and_empty_places_are_not() {
    let rank = |actions: &[u64]| both(&user(actions.iter().map(|a| (*a, 1.0)).collect()), &[item(4)]).0[0];
    let forth = rank(&[3, 5, 9]);
    assert_ne!(forth, rank(&[9, 5, 3]));
    assert_ne!(rank(&[3, 3, 5]), rank(&[3, 5]));
    assert_eq!(rank(&[3, 5, 9]), forth);
}

#[test]
fn what_the_user_did_is_computed_once_a_request() {
    let report = shared().partition_report();
    // Keys and values of six places, and the mask.
    assert!(shared().user_part_width() >= 2 * 6 * WIDTH as usize, "{}", shared().user_part_width());
    assert!(report.user.flops >= 2 * 2 * 6 * 9 * 8, "{report:?}");
    assert!(report.candidate.flops < report.whole.flops / 2, "{report:?}");
}

#[test]
fn golden_rows_hold_lists_with_and_without_weights() {
    let item = json!({"kind": "tea", "pictures": {"values": ["x", "x"]}});
    let passing = passing_row(shared(), &json!({"actions": ["b", "a", "b"]}), &item);
    let with = |actions: serde_json::Value| {
        let mut row = passing.clone();
        row["user"]["actions"] = actions;
        sample().row(&row).verify().map(|report| report.rows)
    };
    assert_eq!(with(json!(["b", "a", "b"])), Ok(1));
    assert_eq!(with(json!({"values": ["b", "a", "b"], "weights": [1.0, 1.0, 1.0]})), Ok(1));
    assert!(with(json!(["a", "b", "b"])).unwrap_err().contains("click"));
    assert!(with(json!("a")).unwrap_err().contains("another kind"));
}

#[test]
fn a_sequence_is_bound_by_its_length_and_table() {
    let text = |from: &str, to: &str| sample().with(TOML, SCHEMA.replacen(from, to, 1)).refusal();
    assert!(text("max_len = 6", "max_len = 7").contains("[batch, 7]"));
    assert!(text("max_len = 6", "max_len = 513").contains("1 to 512"));
    assert!(text("max_len = 6", "").contains("max_len is 0"));
    assert!(text("buckets = 40", "buckets = 41").contains("41 rows"));
    assert!(text("buckets = 40\n", "buckets = 40\nmean = 1.0\n").contains("are dense"));
}
