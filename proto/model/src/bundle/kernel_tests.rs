//! Does ranking take no memory once its buffers are there, and is a bundle as exact as it says?

use super::testing::{SCHEMA as TOML, passing_row};
use super::tests::{SCHEMA, request, sample, shared};
use super::*;
use crate::allocations;
use serde_json::json;

#[test]
fn a_warm_request_takes_no_memory() {
    let bundle = shared();
    let r = request(bundle, 300, 5);
    let (mut scratch, mut out) = (Scratch::default(), Vec::new());
    let mut rank = |scratch: &mut Scratch, n: usize| {
        let width = bundle.activation_width();
        let (activations, cross) = (&r.activations[..n * width], &r.cross[..n]);
        bundle.rank(scratch, &r.part, activations, cross, n, &mut out).unwrap();
    };
    assert!(allocations::during(|| rank(&mut scratch, 300)) > 0, "the counter counts");
    for n in [300, 1, 77] {
        assert_eq!(allocations::during(|| rank(&mut scratch, n)), 0, "{n} candidates");
    }
}

/// The test's bundle with options and with golden rows of the exact one.
fn kept(options: &str) -> Result<Bundle, BundleError> {
    let row = |i: u64| {
        let (user, item) = (format!("u{}", i % 7), format!("k{i}"));
        let bought = json!({"values": [item, "tea"], "weights": [2.0, 1.0 + i as f32]});
        let item = json!({"kind": item, "price": 0.25 * i as f32});
        format!("{}\n", passing_row(shared(), &json!({"segment": user, "bought": bought}), &item))
    };
    let rows: String = (0..40).map(row).collect();
    sample().with(TOML, format!("{SCHEMA}{options}")).rows(&rows).open()
}

#[test]
fn a_bundle_is_as_exact_as_it_says() {
    let exact = kept("").unwrap();
    assert!(exact.verify_golden().unwrap().worst < 1e-5);
    for (precision, tolerance) in [("bf16", 0.02), ("int8", 0.05)] {
        let bundle =
            kept(&format!("[ranker_options]\nprecision = \"{precision}\"\ntolerance = {tolerance}\n")).unwrap();
        assert_ne!(bundle.partition_hash(), exact.partition_hash(), "{precision} is another part");
        let worst = bundle.verify_golden().unwrap().worst;
        assert!(worst > 1e-5, "{precision} is less exact: {worst}");
        let bundle = kept(&format!("[ranker_options]\nprecision = \"{precision}\"\ntolerance = 1e-5\n")).unwrap();
        let refused = bundle.verify_golden().unwrap_err().to_string();
        assert!(refused.contains(precision) && refused.contains("a tolerance of 1e-5"), "{refused}");
    }
    let most = kept("[ranker_options]\nprecision = \"int8\"\ntolerance = 0.5\n").err().unwrap().to_string();
    assert!(most.contains("tolerance of 0.5"), "{most}");
}

#[test]
fn a_rounded_score_does_not_depend_on_its_place() {
    for precision in ["bf16", "int8"] {
        let bundle = kept(&format!("[ranker_options]\nprecision = \"{precision}\"\ntolerance = 0.05\n")).unwrap();
        let r = request(&bundle, 140, 3);
        let width = bundle.activation_width();
        let (mut scratch, mut all, mut some) = (Scratch::default(), Vec::new(), Vec::new());
        bundle.rank(&mut scratch, &r.part, &r.activations, &r.cross, 140, &mut all).unwrap();
        for (from, n) in [(0, 1), (100, 40), (7, 9)] {
            let (activations, cross) = (&r.activations[from * width..(from + n) * width], &r.cross[from..from + n]);
            bundle.rank(&mut scratch, &r.part, activations, cross, n, &mut some).unwrap();
            assert_eq!(some, all[from * 3..(from + n) * 3], "{precision}");
        }
    }
}
