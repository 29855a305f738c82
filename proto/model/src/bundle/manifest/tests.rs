//! Which texts of `bundle.toml` are read, and which are refused?

use super::parse;

const GOOD: &str = r#"
format = 1
name = "demo"
dimension = 64
metric = "ip"
value_weight = 0.0
prior_conversion = 0.022
[light]
scale = 1.0
offset = -3.0
[files]
user_tower = "user_tower.onnx"
item_tower = "item_tower.onnx"
ranker = "ranker.onnx"
golden = "golden.jsonl.zst"
[[feature]]
name = "product_type"
side = "item"
kind = "category"
buckets = 4096
[[feature]]
name = "price"
side = "item"
kind = "dense"
transform = "log1p"
mean = 0.9
std = 0.6
default = 2.0
[[feature]]
name = "bought_types"
side = "user"
kind = "set"
buckets = 4096
max_len = 64
[[feature]]
name = "hour"
side = "context"
kind = "dense"
[[cross]]
name = "match_type"
user = "bought_types"
item = "product_type"
transform = "log1p"
mean = 0.0
std = 1.0
[[head]]
name = "click"
kind = "probability"
role = "click"
calibration = { kind = "platt", scale = 1.0, offset = 0.0 }
[[head]]
name = "conv"
kind = "probability"
role = "conversion_given_click"
calibration = { kind = "isotonic", x = [0.1, 0.5], y = [0.05, 0.6] }
[[head]]
name = "value"
kind = "value"
calibration = { kind = "scale", factor = 1.0 }
"#;

#[test]
fn the_documented_form_is_read() {
    let (schema, files) = parse(GOOD).unwrap();
    assert!(files.ranker == "ranker.onnx" && files.trees.is_empty());
    let names = |f: &[crate::schema::FeatureSpec]| f.iter().map(|f| f.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&schema.user), ["bought_types", "hour"]);
    assert_eq!(names(&schema.item), ["product_type", "price"]);
    assert_eq!(schema.heads.len(), 3);
    assert_eq!(schema.head(crate::schema::HeadRole::ConversionGivenClick), Some(1));
}

#[test]
fn what_is_wrong_is_refused_with_a_reason() {
    for (from, to, reason) in [
        ("format = 1", "format = 2", "format 2"),
        ("dimension = 64", "dimension = 0", "dimension is 0"),
        ("dimension = 64", "dimension = 4000", "dimension is 4000"),
        ("dimension = 64", "dimension = -4", "dimension"),
        ("prior_conversion = 0.022", "prior_conversion = nan", "not finite"),
        ("buckets = 4096\n[[feature]]", "buckets = 0\n[[feature]]", "buckets"),
        ("buckets = 4096\n[[feature]]", "bucket = 4\n[[feature]]", "unknown field"),
        ("buckets = 4096\n[[feature]]", "[[feature]]", "buckets are missing"),
        ("max_len = 64", "max_len = 100000", "max_len"),
        ("std = 0.6", "std = 0.0", "std 0"),
        ("user = \"bought_types\"", "user = \"hour\"", "not a set feature"),
        ("item = \"product_type\"", "item = \"price\"", "not a category"),
        ("name = \"hour\"", "name = \"price\"", "two features"),
        ("name = \"conv\"", "name = \"click\"", "two heads"),
        ("role = \"conversion_given_click\"", "role = \"click\"", "two heads play"),
        ("x = [0.1, 0.5]", "x = [0.5, 0.1]", "rises"),
        ("x = [0.1, 0.5]", "x = [0.1]", "one value a point"),
        ("kind = \"platt\", scale = 1.0", "kind = \"platt\", scale = -1.0", "Platt"),
        ("kind = \"scale\", factor = 1.0", "kind = \"platt\", scale = 1.0, offset = 0.0", "by a factor"),
        ("metric = \"ip\"", "metric = \"hamming\"", "metric"),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let error = parse(&GOOD.replacen(from, to, 1)).expect_err(to).to_string();
        assert!(error.contains(reason), "{to}: {error}");
    }
}
