//! Would this bundle be accepted, what does its split save, and if not: what is wrong with it?
//!
//! Opening a bundle ends at the first thing that is wrong. Who mends one wants all of them at once, so here each
//! file is read on its own, and each node of a graph that is refused is named.

use super::pack::{self, FileMap};
use super::{Bundle, GoldenReport, PartCost, PartitionReport, file_of, manifest};
use crate::error::BundleError;
use crate::onnx;
use std::path::Path;

/// What there is to say about a bundle.
#[derive(Clone, Debug, Default)]
pub struct BundleCheck {
    /// Its name, if `bundle.toml` could be read.
    pub name: String,
    /// BLAKE3 of its packed form, if its files could be read.
    pub hash: Option<[u8; 32]>,
    /// How exactly the part for each candidate is computed.
    pub precision: crate::schema::Precision,
    /// How it did on its golden rows; `None` when it did not come so far.
    pub golden: Option<GoldenReport>,
    /// The largest relative difference of a raw output between the split and the whole ranker on the golden rows.
    pub split_error: Option<f64>,
    /// What each part costs; `None` when the ranker was refused.
    pub partition: Option<PartitionReport>,
    /// f32s of the user part, which travel once a request to each node.
    pub user_part: usize,
    /// f32s that are stored for each item.
    pub activations: usize,
    /// The light head, of a bundle that has one.
    pub light: Option<LightCheck>,
    /// Why it is refused; empty for a bundle that would serve.
    pub errors: Vec<String>,
}

/// What there is to say about a light head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LightCheck {
    /// What it costs for an item.
    pub cost: PartCost,
    /// f32s of the user part that it reads.
    pub user: usize,
    /// f32s of an item's row that it reads.
    pub item: usize,
}

/// Reads a bundle's folder and collects everything that is wrong with it.
#[must_use]
pub fn check(dir: &Path) -> BundleCheck {
    let mut found = BundleCheck::default();
    match pack::read_folder(dir) {
        Ok(files) => {
            found.hash = Some(pack::hash(&files));
            found.errors.extend(super::verify(&files).err().map(|e| e.to_string()));
            graphs(&files, &mut found);
        }
        Err(error) => found.errors.push(error.to_string()),
    }
    match Bundle::open(dir) {
        Ok(bundle) => measure(&bundle, &mut found),
        // Said above, one by one.
        Err(_) if !found.errors.is_empty() => {}
        Err(error) => found.errors.push(error.to_string()),
    }
    found
}

/// The schema, and every node that is not supported.
fn graphs(files: &FileMap, found: &mut BundleCheck) {
    let text = file_of(files, "bundle.toml").map(|b| String::from_utf8_lossy(b).into_owned());
    let (schema, names) = match text.and_then(|text| manifest::parse(&text)) {
        Ok(parsed) => parsed,
        Err(error) => return found.errors.push(error.to_string()),
    };
    found.name = schema.name;
    let ranker = Some(&names.ranker).filter(|r| names.trees.is_empty() && !r.is_empty());
    let graphs = [Some(&names.user_tower), Some(&names.item_tower), names.light.as_ref(), ranker];
    for name in graphs.into_iter().flatten() {
        match file_of(files, name) {
            Ok(bytes) => {
                let of_file = |reason| BundleError::Graph { file: name.clone(), reason }.to_string();
                found.errors.extend(onnx::refusals(bytes.clone()).into_iter().map(of_file));
            }
            Err(error) => found.errors.push(error.to_string()),
        }
    }
}

fn measure(bundle: &Bundle, found: &mut BundleCheck) {
    found.precision = bundle.schema().options.precision;
    found.partition = Some(bundle.partition_report());
    let (user, item) = (bundle.light_user_width(), bundle.light_width());
    (found.user_part, found.activations) = (bundle.user_part_width(), item + bundle.activation_width());
    found.light = bundle.light_cost().map(|cost| LightCheck { cost, user, item });
    match bundle.verify_golden() {
        Ok(report) => found.golden = Some(report),
        Err(error) => return found.errors.push(error.to_string()),
    }
    match super::golden::deviation(bundle, &bundle.golden) {
        Ok(worst) => found.split_error = Some(worst),
        Err(error) => found.errors.push(error.to_string()),
    }
}
