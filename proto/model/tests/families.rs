//! Do the families of rankers that the trainer knows open, split and score as the outside world scores them?
//!
//! `testdata/families` holds small trained bundles; their golden rows are the numbers of ONNX Runtime, or of
//! LightGBM for trees. `bench/train/parity.py` compares large ones on many more rows.

use gavel_model::Bundle;
use std::path::PathBuf;

const GRAPHS: [&str; 6] = ["wide-mmoe", "mlp", "dcn", "dcn-lowrank", "mmoe", "sequence"];

fn folder(family: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/families").join(family)
}

fn check(family: &str) -> Bundle {
    let bundle = Bundle::open(&folder(family)).unwrap_or_else(|e| panic!("{family}: {e}"));
    let report = bundle.verify_golden().unwrap_or_else(|e| panic!("{family}: {e}"));
    assert!(report.rows >= 32, "{family}: {} golden rows", report.rows);
    assert!(report.worst <= 1e-4, "{family}: {:e} from the golden rows", report.worst);
    bundle
}

#[test]
fn graphs_score_as_onnx_runtime_and_leave_work_off_the_request_path() {
    for family in GRAPHS {
        let report = check(family).partition_report();
        assert!(report.user.flops > 0 && report.item.flops > 0, "{family} is not split: {report:?}");
        assert!(report.candidate.flops < report.whole.flops, "{family} saves nothing: {report:?}");
    }
}

#[test]
fn trees_score_as_lightgbm() {
    check("trees");
}
