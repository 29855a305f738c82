//! Does `gavel model pack` make a bundle of exported files, and end with the documented code?

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn gavel(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gavel")).args(arguments).output().expect("the binary runs")
}

fn exported(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/model/testdata/onnx");
    folder.join(name).to_string_lossy().into_owned()
}

const SCHEMA: &str = r#"
name = "mine"
feature = [
    { name = "segment", side = "user", kind = "category", buckets = 10 },
    { name = "history", side = "user", kind = "set", buckets = 20, max_len = 6 },
    { name = "age", side = "context", kind = "dense" },
    { name = "kind", side = "item", kind = "category", buckets = 20 },
    { name = "price", side = "item", kind = "dense" },
]
cross = [{ name = "match", user = "history", item = "kind" }]
head = [{ name = "click", kind = "probability", role = "click" }, { name = "conv", kind = "probability" }]
"#;

fn written(dir: &Path, name: &str, text: &str) -> String {
    let path: PathBuf = dir.join(name);
    std::fs::write(&path, text).expect("written");
    path.to_string_lossy().into_owned()
}

#[test]
fn an_export_becomes_a_bundle_that_says_what_to_do_next() {
    let dir = tempfile::tempdir().expect("a folder");
    let (ranker, out) = (exported("torch_sequence_dynamo.onnx"), dir.path().join("bundle"));
    let out = out.to_string_lossy().into_owned();
    let schema = written(dir.path(), "schema.toml", SCHEMA);
    let rows = written(dir.path(), "rows.jsonl", "{\"user\":{\"segment\":\"gold\"},\"item\":{\"kind\":\"tea\"}}\n");
    let pack = ["model", "pack", "--schema", &schema, "--ranker", &ranker, "--out", &out, "--format", "json"];
    // Without towers and rows: both are asked for at once.
    let refused = gavel(&pack);
    assert_eq!(refused.status.code(), Some(65));
    let answer: serde_json::Value = serde_json::from_slice(&refused.stdout).expect("JSON");
    assert_eq!(answer["problems"].as_array().map(Vec::len), Some(2), "{answer}");
    let with = [&pack[..], &["--towers", "constant", "--golden-from", &rows]].concat();
    let done = gavel(&with);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let answer: serde_json::Value = serde_json::from_slice(&done.stdout).expect("JSON");
    assert_eq!(answer["golden_rows"], 1, "{answer}");
    assert_eq!(answer["next"], format!("gavel ctl model publish {out}"), "{answer}");
    // The folder is there now.
    assert_eq!(gavel(&with).status.code(), Some(64));
}

#[test]
fn a_template_is_printed_and_a_missing_file_is_the_command_lines_fault() {
    let template = gavel(&["model", "pack", "--template", "--ranker", &exported("jax_model.onnx")]);
    assert!(template.status.success());
    assert!(String::from_utf8_lossy(&template.stdout).contains("name = \"segment\""));
    assert_eq!(gavel(&["model", "pack", "--template", "--ranker", "nowhere.onnx"]).status.code(), Some(64));
    assert_eq!(gavel(&["model", "pack", "--ranker", "nowhere.onnx"]).status.code(), Some(64));
}
