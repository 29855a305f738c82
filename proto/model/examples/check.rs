//! Is this bundle sound, and what does a candidate of its ranker cost on this machine?
//!
//! `cargo run --release -p gavel-model --example check -- FOLDER [CANDIDATES]`

use gavel_model::{Bundle, BundleError, FeatureRow, FeatureValue, PartCost, Scratch, Side};
use std::path::Path;
use std::time::Instant;

/// Rounds of which the fastest counts: the machine may be shared.
const ROUNDS: usize = 200;

#[expect(clippy::disallowed_methods, reason = "an example measures; nothing decides by it")]
fn now() -> Instant {
    Instant::now()
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let Some(folder) = arguments.next() else {
        eprintln!("check FOLDER [CANDIDATES]");
        std::process::exit(2);
    };
    let candidates = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(200);
    if let Err(error) = check(Path::new(&folder), candidates) {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn check(folder: &Path, candidates: usize) -> Result<(), BundleError> {
    let bundle = Bundle::open(folder)?;
    let schema = bundle.schema();
    println!("{}: dimension {}, {} heads", schema.name, schema.dimension, schema.heads.len());
    let report = bundle.partition_report();
    for (name, cost) in
        [("whole", report.whole), ("user", report.user), ("item", report.item), ("candidate", report.candidate)]
    {
        let PartCost { operations, flops, constant_bytes } = cost;
        println!(
            "{name:>10}: {operations:>4} operations, {flops:>10} flops a row, {constant_bytes:>10} bytes of constants"
        );
    }
    println!("user part {} f32, activations {} f32 an item", bundle.user_part_width(), bundle.activation_width());
    let golden = bundle.verify_golden()?;
    println!("{} golden rows, largest relative difference {:.1e}", golden.rows, golden.worst);
    measure(&bundle, candidates).map_err(|e| BundleError::Golden(e.to_string()))
}

fn measure(bundle: &Bundle, n: usize) -> Result<(), gavel_model::ModelError> {
    let schema = bundle.schema();
    let row = |specs: &[gavel_model::FeatureSpec], i: usize| FeatureRow {
        values: specs
            .iter()
            .map(|s| if s.side == Side::Item && i.is_multiple_of(2) { FeatureValue::Missing } else { value(s, i) })
            .collect(),
    };
    let user = row(&schema.user, 7);
    let items: Vec<FeatureRow> = (0..n).map(|i| row(&schema.item, i)).collect();
    let (mut scratch, mut out) = (Scratch::default(), Vec::new());
    let part = bundle.run_user(&mut scratch, &user)?.part;
    let activations = bundle.run_items(&mut scratch, &items)?.activations;
    let cross: Vec<f32> = items.iter().flat_map(|i| bundle.cross(&user, i)).collect();
    let (mut split, mut whole, mut user_us) = (f64::INFINITY, f64::INFINITY, f64::INFINITY);
    for _ in 0..ROUNDS {
        let start = now();
        bundle.rank(&mut scratch, &part, &activations, &cross, n, &mut out)?;
        split = split.min(start.elapsed().as_nanos() as f64 / n as f64);
        let start = now();
        bundle.rank_whole(&mut scratch, &user, &items, &cross, &mut out)?;
        whole = whole.min(start.elapsed().as_nanos() as f64 / n as f64);
        let start = now();
        bundle.run_user(&mut scratch, &user)?;
        user_us = user_us.min(start.elapsed().as_nanos() as f64 / 1e3);
    }
    println!("{n} candidates: split {split:.0} ns, whole {whole:.0} ns a candidate; user {user_us:.1} us a request");
    Ok(())
}

fn value(spec: &gavel_model::FeatureSpec, i: usize) -> FeatureValue {
    match spec.kind {
        gavel_model::FeatureKind::Category { .. } => FeatureValue::Category(i as u64 * 7919 + 1),
        gavel_model::FeatureKind::Dense { .. } => FeatureValue::Dense(i as f32 * 0.01),
        gavel_model::FeatureKind::Set { max_len, .. } | gavel_model::FeatureKind::Sequence { max_len, .. } => {
            FeatureValue::Set((1..=max_len as u64).map(|v| (v * 7919 + i as u64, 1.0)).collect())
        }
    }
}
