//! Do trees rank in a bundle as they score alone?

use super::testing::TestBundle;
use super::*;
use gavel_proto::hash::value_hash;

const SCHEMA: &str = r#"
format = 1
name = "trees"
dimension = 16
metric = "ip"
light = { scale = 1.0, offset = -3.0 }
[files]
user_tower = "user.onnx"
item_tower = "item.onnx"
golden = "golden.jsonl.zst"
RANKER
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
[[feature]]
name = "visits"
side = "user"
kind = "dense"
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
name = "stock"
user = "bought"
item = "kind"
[[head]]
name = "click"
kind = "probability"
role = "click"
"#;

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/testdata/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// `rank` of the model files is a feature that few splits read: here they read `stock` instead.
fn model(name: &str) -> Vec<u8> {
    String::from_utf8(fixture(name)).unwrap().replacen("stock rank", "rank stock", 1).into_bytes()
}

fn sample(ranker: &str, more: &str, models: &[(&str, Vec<u8>)]) -> TestBundle {
    let schema =
        SCHEMA.replace("RANKER", ranker) + more + "[[feature]]\nname = \"rank\"\nside = \"item\"\nkind = \"dense\"\n";
    models.iter().fold(TestBundle::new(&schema), |bundle, (name, model)| bundle.with(name, model.clone()))
}

fn user() -> FeatureRow {
    FeatureRow {
        values: vec![
            FeatureValue::Category(9),
            FeatureValue::Set(vec![(value_hash("kind 3"), 1.5), (value_hash("kind 8"), -0.25)]),
            FeatureValue::Dense(-0.7),
            FeatureValue::Missing,
        ],
    }
}

fn items(n: usize) -> Vec<FeatureRow> {
    let item = |i: usize| {
        let kind = if i % 7 == 3 {
            FeatureValue::Missing
        } else {
            FeatureValue::Category(value_hash(&format!("kind {}", i % 45)))
        };
        let price = if i.is_multiple_of(5) { f32::NAN } else { (i as f32 * 0.37).sin() * 2.0 };
        FeatureRow { values: vec![kind, FeatureValue::Dense(price), FeatureValue::Dense((i as f32 * 0.11).cos())] }
    };
    (0..n).map(item).collect()
}

fn ranked(bundle: &Bundle, n: usize) -> (Vec<f32>, Vec<f32>) {
    let (user, items, mut scratch) = (user(), items(n), Scratch::default());
    let part = bundle.run_user(&mut scratch, &user).unwrap().part;
    let activations = bundle.run_items(&mut scratch, &items).unwrap().activations;
    let cross: Vec<f32> = items.iter().flat_map(|i| bundle.cross(&user, i)).collect();
    let (mut split, mut whole) = (Vec::new(), Vec::new());
    bundle.rank_raw(&mut scratch, &part, &activations, &cross, n, &mut split).unwrap();
    let mut calibrated = Vec::new();
    bundle.rank(&mut scratch, &part, &activations, &cross, n, &mut calibrated).unwrap();
    bundle.rank_whole(&mut scratch, &user, &items, &cross, &mut whole).unwrap();
    assert_eq!(calibrated, whole, "the three parts equal the plain walk in every bit");
    (split, part)
}

#[test]
fn one_head_ranks_by_a_file_of_trees() {
    let bundle = sample("ranker = \"ranker.txt\"", "", &[("ranker.txt", model("pandas.txt"))]).open().unwrap();
    let (raw, part) = ranked(&bundle, 150);
    assert_eq!(part.len(), bundle.user_part_width());
    assert!(bundle.user_part_width() > 0 && bundle.activation_width() > 0);
    // By hand, from what the model was trained on.
    let ensemble = crate::trees::Ensemble::read(&model("pandas.txt")).unwrap();
    assert_eq!(ensemble.features, ["price", "age", "visits", "kind", "rank", "stock"]);
    for (i, item) in items(150).iter().enumerate() {
        let kind = if i % 7 == 3 || i % 45 >= 40 { f64::NAN } else { (i % 45) as f64 };
        let number = |v: &FeatureValue| if let FeatureValue::Dense(x) = v { f64::from(*x) } else { f64::NAN };
        let stock = match i % 45 {
            _ if i % 7 == 3 => 0.0,
            3 => 1.5,
            8 => -0.25,
            _ => 0.0,
        };
        let row = [number(&item.values[1]), f64::from(-0.7f32), f64::NAN, kind, number(&item.values[2]), stock];
        assert_eq!(raw[i], ensemble.raw(&row) as f32, "item {i}: {row:?}");
    }
    let again = sample("ranker = \"ranker.txt\"", "", &[("ranker.txt", model("pandas.txt"))]).open().unwrap();
    assert_eq!(bundle.partition_hash(), again.partition_hash());
}

#[test]
fn each_head_has_its_file() {
    let more = "[[head]]\nname = \"value\"\nkind = \"value\"\n";
    let models = [("a.txt", model("plain.txt")), ("b.txt", model("zeros.txt"))];
    let bundle = sample("trees = { click = \"a.txt\", value = \"b.txt\" }", more, &models).open().unwrap();
    let (raw, _) = ranked(&bundle, 70);
    assert_eq!(raw.len(), 140);
    let report = bundle.partition_report();
    assert!(report.candidate.flops > 0 && report.item.operations > 0, "{report:?}");
}

#[test]
fn what_does_not_fit_is_refused_with_its_reason() {
    let refused = |ranker: &str, more: &str, model: Vec<u8>| sample(ranker, more, &[("ranker.txt", model)]).refusal();
    let one = "ranker = \"ranker.txt\"";
    let wrong = [
        (refused(one, "", fixture("linear.txt")), "linear trees"),
        (refused(one, "", fixture("zeros.txt")), "gives no probability"),
        (refused(one, "[[head]]\nname = \"b\"\nkind = \"value\"\n", fixture("plain.txt")), "name a file for each head"),
        (refused("", "", fixture("plain.txt")), "either ranker"),
        (refused("trees = { clock = \"ranker.txt\" }", "", fixture("plain.txt")), "clock, which is no head"),
        (refused("ranker = \"other.txt\"", "", fixture("plain.txt")), "other.txt is missing"),
    ];
    for (text, reason) in wrong {
        assert!(text.contains(reason), "{reason}: {text}");
    }
    let strange = String::from_utf8(fixture("plain.txt")).unwrap().replacen("price", "priced", 1);
    assert!(refused(one, "", strange.into_bytes()).contains("no feature of the schema is called priced"));
    let set = String::from_utf8(fixture("plain.txt")).unwrap().replacen("visits", "bought", 1);
    assert!(refused(one, "", set.into_bytes()).contains("is a set"));
    let lists = String::from_utf8(model("pandas.txt")).unwrap().replace(r#":[["kind 0""#, r#":[["x"],["kind 0""#);
    assert!(refused(one, "", lists.into_bytes()).contains("2 category columns"));
}
