//! What does one version of a model hold, and what can be asked of it?
//!
//! `open` reads every file once, checks `BLAKE3SUMS` before it parses anything, checks the schema, reads the three
//! graphs and splits the ranker. What it returns is immutable and shared by all threads; each thread brings its own
//! [`Scratch`].

mod manifest;
pub mod pack;

pub use pack::{pack as pack_folder, unpack};

use crate::error::{BundleError, ModelError};
use crate::feature::FeatureRow;
use crate::schema::Schema;
use pack::FileMap;
use std::path::Path;

/// Buffers of one thread; made for any bundle, it grows to what the largest needs and stays there.
#[derive(Default)]
pub struct Scratch {}

/// What the router computes of a user once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UserOutput {
    /// The query vector.
    pub query: Vec<f32>,
    /// The ranker's user-only tensors, [`Bundle::user_part_width`] f32s.
    pub part: Vec<f32>,
}

/// What a node computes of its items once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ItemOutput {
    /// Vectors, row-major.
    pub vectors: Vec<f32>,
    /// The ranker's ad-only tensors, row-major, [`Bundle::activation_width`] f32s each.
    pub activations: Vec<f32>,
}

/// How the model did on its golden rows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GoldenReport {
    /// Rows compared.
    pub rows: usize,
    /// Largest relative difference of any number.
    pub worst: f64,
}

/// One version of a model.
pub struct Bundle {
    schema: Schema,
    hash: [u8; 32],
}

impl Bundle {
    /// Reads a bundle's folder.
    ///
    /// # Errors
    /// When anything in it is missing, damaged, too large or not supported.
    pub fn open(dir: &Path) -> Result<Self, BundleError> {
        let files = pack::read_folder(dir)?;
        verify(&files)?;
        let text = files.get("bundle.toml").ok_or_else(|| BundleError::Schema("is missing".to_owned()))?;
        let text = std::str::from_utf8(text).map_err(|e| BundleError::Schema(e.to_string()))?;
        let (schema, _names) = manifest::parse(text)?;
        Ok(Self { schema, hash: pack::hash(&files) })
    }

    /// Runs the golden rows through the whole path: raw features, encoding, both towers, the three parts,
    /// calibration.
    ///
    /// # Errors
    /// When a row cannot be read or differs.
    pub fn verify_golden(&self) -> Result<GoldenReport, BundleError> {
        Err(BundleError::Golden("not read yet".to_owned()))
    }

    /// BLAKE3 of the packed form.
    #[must_use]
    pub const fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// BLAKE3 of the split: two processes that disagree here must not rank together.
    #[must_use]
    pub const fn partition_hash(&self) -> [u8; 32] {
        [0; 32]
    }

    /// Features, heads and numbers.
    #[must_use]
    pub const fn schema(&self) -> &Schema {
        &self.schema
    }

    /// f32s of the user-only tensors.
    #[must_use]
    pub const fn user_part_width(&self) -> usize {
        0
    }

    /// f32s of an item's ad-only tensors.
    #[must_use]
    pub const fn activation_width(&self) -> usize {
        0
    }

    /// The query vector and the user-only tensors.
    ///
    /// # Errors
    /// When the row does not fit the schema.
    pub fn run_user(&self, _scratch: &mut Scratch, user: &FeatureRow) -> Result<UserOutput, ModelError> {
        Err(width("user features", user.values.len(), self.schema.user.len()))
    }

    /// Vectors and ad-only tensors of items.
    ///
    /// # Errors
    /// When a row does not fit the schema.
    pub fn run_items(&self, _scratch: &mut Scratch, items: &[FeatureRow]) -> Result<ItemOutput, ModelError> {
        Err(width("items", items.len(), 0))
    }

    /// Calibrated predictions of `n` candidates, row-major, one column a head. `activations` and `cross` are
    /// row-major. A prediction that is not finite is left so: such a candidate never wins, its caller drops it.
    ///
    /// # Errors
    /// When a slice has a wrong length.
    pub fn rank(
        &self,
        _scratch: &mut Scratch,
        user_part: &[f32],
        _activations: &[f32],
        _cross: &[f32],
        _n: usize,
        _out: &mut Vec<f32>,
    ) -> Result<(), ModelError> {
        Err(width("user part", user_part.len(), self.user_part_width()))
    }
}

fn width(what: &'static str, found: usize, expected: usize) -> ModelError {
    ModelError::Width { what, found, expected }
}

/// Every file but the sums themselves has its line, every line its file, and the bytes are what the line says.
fn verify(files: &FileMap) -> Result<(), BundleError> {
    let wrong = |reason: String| Err(BundleError::Checksum(reason));
    let Some(sums) = files.get("BLAKE3SUMS") else { return wrong("is missing".to_owned()) };
    let Ok(sums) = std::str::from_utf8(sums) else { return wrong("is not text".to_owned()) };
    let mut named = std::collections::BTreeSet::new();
    for line in sums.lines().filter(|l| !l.is_empty()) {
        let Some((hex, name)) = line.split_once("  ") else { return wrong(format!("{line:?} is not a line")) };
        let Some(content) = files.get(name) else { return wrong(format!("{name:?} is not there")) };
        if !named.insert(name) {
            return wrong(format!("{name} has two lines"));
        }
        if blake3::hash(content).to_hex().as_str() != hex {
            return wrong(format!("{name} is damaged"));
        }
    }
    match files.keys().find(|n| *n != "BLAKE3SUMS" && !named.contains(n.as_str())) {
        Some(name) => wrong(format!("{name} has no line")),
        None => Ok(()),
    }
}
