//! Would this bundle be accepted, and what does its split save?
//!
//! The answer goes to standard output whether the bundle is sound or not; the exit code says which: 0, or that of a
//! damaged file.

use super::gate;
use crate::cli::{CheckArgs, Format};
use crate::failure::Failure;
use gavel_model::bundle::{BundleCheck, PartCost, check};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// `gavel model check BUNDLE`.
pub fn run(args: &CheckArgs) -> Result<(), Failure> {
    if let [old, new] = &args.skew[..] {
        return gate::skew(old, new, args.format);
    }
    let bundle = args.bundle.as_ref().ok_or_else(|| Failure::usage("name the folder of a bundle"))?;
    if !bundle.is_dir() {
        return Err(Failure::usage(format!("{} is not a folder with a bundle", bundle.display())));
    }
    if let (Some(against), Some(data)) = (&args.against, &args.data) {
        return gate::against(bundle, against, data, args);
    }
    let found = check(bundle);
    match args.format {
        Format::Json => println!("{}", as_json(&found)),
        Format::Text => print!("{}", as_text(&found)),
    }
    match found.errors.len() {
        0 => Ok(()),
        1 => Err(Failure::damaged(format!("{}: refused, for one reason", bundle.display()))),
        n => Err(Failure::damaged(format!("{}: refused, for {n} reasons", bundle.display()))),
    }
}

fn as_json(found: &BundleCheck) -> Value {
    let partition = found.partition.unwrap_or_default();
    let part = |c: PartCost| json!({"ops": c.operations, "flops": c.flops, "bytes": c.constant_bytes});
    json!({
        "name": found.name,
        "hash": hash(found),
        "precision": found.precision.name(),
        "max_rel_error": found.split_error,
        "max_golden_error": found.golden.map(|g| g.worst),
        "golden_rows": found.golden.map_or(0, |g| g.rows),
        "flops_total": partition.whole.flops,
        "flops_per_candidate": partition.candidate.flops,
        "share_off_request_path": partition.share_off_request_path(),
        "user_part_bytes": found.user_part * size_of::<f32>(),
        "activation_bytes": found.activations * size_of::<f32>(),
        "light": found.light.map(|light| json!({
            "ops": light.cost.operations,
            "flops": light.cost.flops,
            "bytes": light.cost.constant_bytes,
            "user_bytes": light.user * size_of::<f32>(),
            "item_bytes": light.item * size_of::<f32>(),
            "golden_rows": found.golden.map_or(0, |g| g.light_rows),
        })),
        "parts": {
            "user": part(partition.user),
            "item": part(partition.item),
            "candidate": part(partition.candidate),
            "whole": part(partition.whole),
        },
        "errors": found.errors,
    })
}

fn hash(found: &BundleCheck) -> String {
    found.hash.iter().flatten().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn as_text(found: &BundleCheck) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "bundle {} {}", found.name, hash(found));
    if let Some(partition) = found.partition {
        let parts = [
            ("user", partition.user, "once a request"),
            ("item", partition.item, "once an item"),
            ("candidate", partition.candidate, "for each candidate"),
            ("whole", partition.whole, "unsplit, for each candidate"),
        ];
        let light = found.light.map(|light| ("light", light.cost, "for each item that retrieval finds"));
        let _ = writeln!(text, "{:<10} {:>10} {:>14} {:>14}", "part", "operations", "FLOPs", "bytes");
        for (name, cost, when) in parts.into_iter().chain(light) {
            let PartCost { operations, flops, constant_bytes } = cost;
            let _ = writeln!(text, "{name:<10} {operations:>10} {flops:>14} {constant_bytes:>14}  {when}");
        }
        let _ = writeln!(
            text,
            "{:.1} % of the FLOPs of a candidate left the request path",
            100.0 * partition.share_off_request_path()
        );
        let bytes = |values: usize| values * size_of::<f32>();
        let _ = writeln!(
            text,
            "user part {} bytes a request, activations {} bytes an item",
            bytes(found.user_part),
            bytes(found.activations)
        );
        if let Some(light) = found.light {
            let of = "of the light head among them";
            let _ = writeln!(text, "{of}: {} bytes a request, {} bytes an item", bytes(light.user), bytes(light.item));
        }
    }
    if let Some(golden) = found.golden {
        let _ = writeln!(text, "{} golden rows, largest relative difference {:.1e}", golden.rows, golden.worst);
        if found.light.is_some() {
            let _ = writeln!(text, "{} of them verify the light head", golden.light_rows);
        }
    }
    if let Some(worst) = found.split_error {
        let _ = writeln!(text, "split and whole ranker differ by at most {worst:.1e}");
    }
    for error in &found.errors {
        let _ = writeln!(text, "refused: {error}");
    }
    text
}
