//! How do tests make bundles without a trainer?
//!
//! A schema, towers, a ranker and golden rows become a folder and are opened as a server opens one. Golden rows are
//! made of raw features by another bundle, most often the exact twin of the one under test.

use super::{Bundle, Scratch, pack};
use crate::author::golden_row;
use crate::error::BundleError;
use crate::onnx::testing::{self, Sizes};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

pub(crate) const SCHEMA: &str = "bundle.toml";
pub(crate) const USER_TOWER: &str = "user.onnx";
pub(crate) const ITEM_TOWER: &str = "item.onnx";
pub(crate) const RANKER: &str = "ranker.onnx";
pub(crate) const GOLDEN: &str = "golden.jsonl.zst";

/// Widths of most tests' graphs.
pub(crate) const SMALL: Sizes = Sizes { embedding: 8, deep: 48, experts: 3, expert: 24 };
/// Dimensions of a vector of [`SMALL`] towers.
pub(crate) const DIMENSION: i64 = 16;

/// The files of a bundle by name, to be changed by a test and opened.
#[derive(Clone, Default)]
pub(crate) struct TestBundle(BTreeMap<String, Vec<u8>>);

impl TestBundle {
    /// A schema with towers over the features of [`testing::tower`] and no golden rows.
    pub fn new(schema: &str) -> Self {
        Self::default()
            .with(SCHEMA, schema)
            .with(USER_TOWER, testing::tower(1, true, SMALL, DIMENSION))
            .with(ITEM_TOWER, testing::tower(2, false, SMALL, DIMENSION))
            .rows("")
    }

    /// With this file, in the place of one that has its name.
    pub fn with(mut self, name: &str, content: impl Into<Vec<u8>>) -> Self {
        self.0.insert(name.to_owned(), content.into());
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.0.remove(name);
        self
    }

    /// With these golden rows, JSON lines.
    pub fn rows(self, lines: &str) -> Self {
        self.with(GOLDEN, zstd::encode_all(lines.as_bytes(), 1).unwrap())
    }

    /// With one golden row.
    pub fn row(self, row: &Value) -> Self {
        self.rows(&row.to_string())
    }

    pub fn write(&self, dir: &Path) {
        pack::write_folder(dir, self.0.iter().map(|(name, content)| (name.as_str(), content.as_slice()))).unwrap();
    }

    pub fn open(&self) -> Result<Bundle, BundleError> {
        let dir = tempfile::tempdir().unwrap();
        self.write(dir.path());
        Bundle::open(dir.path())
    }

    /// Why it is refused, or nothing.
    pub fn refusal(&self) -> String {
        self.open().err().map_or_else(String::new, |e| e.to_string())
    }

    /// What its golden rows say when it is opened.
    pub fn verify(&self) -> Result<crate::GoldenReport, String> {
        self.open().unwrap().verify_golden().map_err(|e| e.to_string())
    }
}

/// The golden row that a bundle passes, of raw features.
pub(crate) fn passing_row(bundle: &Bundle, user: &Value, item: &Value) -> Value {
    let raw = serde_json::json!({"user": user, "item": item});
    golden_row(bundle, &mut Scratch::default(), &raw.to_string()).unwrap()
}
