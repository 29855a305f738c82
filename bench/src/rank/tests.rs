//! A small run on the demo's bundle: the report is whole, and both paths say the same of every row.

use super::*;
use std::path::Path;

fn args(folder: &Path) -> RankArgs {
    RankArgs {
        bundle: Path::new(env!("CARGO_MANIFEST_DIR")).join("../cluster/bootstrap/demo/bundle"),
        candidates: 37,
        seconds: 0.01,
        rows: None,
        scores: Some(folder.join("scores.jsonl")),
        split: Split::On,
        json: Some(folder.join("report.json")),
    }
}

fn json(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap();
    serde_json::Deserializer::from_str(&text).into_iter().map(Result::unwrap).collect()
}

#[test]
fn both_paths_score_the_golden_rows_alike() {
    let folder = tempfile::tempdir().unwrap();
    let args = args(folder.path());
    run(&args).unwrap();
    let report = &json(&folder.path().join("report.json"))[0];
    assert_eq!(report["candidates"], 37);
    assert!(report["requests"].as_u64().unwrap() > 0);
    assert!(report["candidates_per_second"].as_f64().unwrap() > 0.0);
    assert_eq!(report["scores_hash"].as_str().unwrap().len(), 64);
    let split = json(&folder.path().join("scores.jsonl"));
    run(&RankArgs { split: Split::Off, ..args }).unwrap();
    let whole = json(&folder.path().join("scores.jsonl"));
    assert_eq!((split.len(), whole.len()), (512, 512));
    for (a, b) in split.iter().zip(&whole) {
        for (name, value) in a["raw"].as_object().unwrap() {
            let (a, b) = (value.as_f64().unwrap(), b["raw"][name].as_f64().unwrap());
            assert!((a - b).abs() <= 1e-4 * b.abs().max(0.1), "{name}: {a} and {b}");
        }
    }
}

#[test]
fn rows_come_from_a_file_and_a_wrong_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows.jsonl");
    std::fs::write(&rows, "{\"user\":{},\"item\":{}}\n\n{\"user\":{},\"item\":{},\"query\":[1]}\n").unwrap();
    let args = RankArgs { rows: Some(rows.clone()), seconds: 0.0, ..args(folder.path()) };
    run(&args).unwrap();
    assert_eq!(json(&folder.path().join("scores.jsonl")).len(), 2);
    std::fs::write(&rows, "{\"user\":{},\"item\":{}}\n{\"user\":{\"no such\":1},\"item\":{}}\n").unwrap();
    let said = run(&args).unwrap_err().to_string();
    assert!(said.contains("rows.jsonl:2: ") && said.contains("no such"), "{said}");
}

#[test]
fn senseless_options_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let usual = args(folder.path());
    for wrong in [
        RankArgs { candidates: 0, ..usual.clone() },
        RankArgs { seconds: f64::NAN, ..usual.clone() },
        RankArgs { seconds: 0.0, scores: None, ..usual.clone() },
    ] {
        assert!(matches!(run(&wrong), Err(RankError::Usage(_))));
    }
}
