//! Do the families of rankers that the trainer knows open, split and score as the outside world scores them?
//!
//! `testdata/families` holds small trained bundles; their golden rows are the numbers of ONNX Runtime, or of
//! LightGBM for trees. `bench/train/parity.py` compares large ones on many more rows.

use gavel_model::{Bundle, FeatureRow, FeatureSpec, FeatureValue, LightLogits, Scratch};
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

/// The head as the trainer writes it: its logits are those of ONNX Runtime in every golden row, and no row goes without.
#[test]
fn a_distilled_light_head_says_what_onnx_runtime_says() {
    let bundle = check("light");
    let report = bundle.verify_golden().expect("checked");
    assert_eq!(report.light_rows, report.rows);
    assert!(bundle.light_width() == 32 && bundle.light_user_width() == 32);
    let cost = bundle.light_cost().expect("a head");
    assert!(cost.flops > 0 && cost.flops < 20_000, "a head is small: {cost:?}");
    // Both outputs are there: a bid on conversions has an order of its own.
    let item = bundle.run_items(&mut Scratch::default(), &[nothing(&bundle.schema().item)]).expect("an item");
    let user = bundle.run_user(&mut Scratch::default(), &nothing(&bundle.schema().user)).expect("a user");
    let mut light = LightLogits::default();
    bundle.light(&mut Scratch::default(), &user.part, &item.lights, &[0.5], &mut light).expect("logits");
    assert!(light.clicks[0].is_finite() && light.conversions[0].is_finite() && light.clicks != light.conversions);
}

/// A row in which every value is missing.
fn nothing(specs: &[FeatureSpec]) -> FeatureRow {
    FeatureRow { values: vec![FeatureValue::Missing; specs.len()] }
}

#[test]
fn trees_score_as_lightgbm() {
    check("trees");
}
