//! What does one version of a model hold, and what can be asked of it?
//!
//! `open` reads or maps every file once, checks `BLAKE3SUMS` before it parses anything, checks the schema, reads the three
//! graphs and splits the ranker. What it returns is immutable and shared by all threads; each thread brings its own
//! [`Scratch`].

mod bind;
mod check;
mod example;
mod file;
mod golden;
pub(crate) mod light;
mod manifest;
pub mod pack;
mod ranker;
mod scorer;
mod trees;

pub use crate::partition::{PartCost, PartitionReport};
pub(crate) use bind::tables;
pub use check::{BundleCheck, LightCheck, check};
pub use example::{EncodedRequest, Example};
pub use golden::GoldenReport;
pub(crate) use golden::{RawRow, light as light_of_item};
pub use light::LightLogits;
#[cfg(test)]
pub(crate) use manifest::parse as parse_schema;
pub use pack::{pack as pack_folder, unpack};

use crate::error::{BundleError, GraphError, ModelError};
use crate::exec::{self, Arena, BLOCK_ROWS};
use crate::feature::{FeatureRow, FeatureValue};
use crate::onnx;
use crate::partition::Label;
use crate::schema::{ActivationFormat, Precision, RankerOptions, Schema};
use crate::trees::Planes;
use bind::Encoding;
use light::LightHead;
use pack::FileMap;
use prost::bytes::Bytes;
use ranker::Bound;
use scorer::Scorer;
use std::path::Path;

/// Buffers of one thread; made for any bundle, it grows to what the largest needs and stays there.
#[derive(Debug, Default)]
pub struct Scratch {
    arena: Arena,
    encoding: Encoding,
    planes: Planes,
    codes: Vec<f32>,
}

/// What the router computes of a user once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UserOutput {
    /// The query vector.
    pub query: Vec<f32>,
    /// The ranker's user-only tensors, then what the light head reads: [`Bundle::user_part_width`] f32s.
    pub part: Vec<f32>,
}

/// What a node computes of its items once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ItemOutput {
    /// Vectors, row-major.
    pub vectors: Vec<f32>,
    /// What the light head reads, row-major, [`Bundle::light_width`] f32s each.
    pub lights: Vec<f32>,
    /// The ranker's ad-only tensors, row-major, [`Bundle::activation_width`] f32s each.
    pub activations: Vec<f32>,
}

/// One version of a model.
pub struct Bundle {
    schema: Schema,
    hash: [u8; 32],
    golden: Bytes,
    user_tower: Bound,
    item_tower: Bound,
    light: Option<LightHead>,
    ranker: Scorer,
}

impl Bundle {
    /// Reads a bundle's folder.
    ///
    /// # Errors
    /// When anything in it is missing, damaged, too large or not supported.
    pub fn open(dir: &Path) -> Result<Self, BundleError> {
        let mut bundle = Self::read(dir, |options| options)?;
        bundle.keep()?;
        Ok(bundle)
    }

    /// Opens the bundle as it would be if nothing were rounded: golden rows may be missing.
    pub(crate) fn open_exact(dir: &Path) -> Result<Self, BundleError> {
        Self::read(dir, |_| RankerOptions::default())
    }

    fn read(dir: &Path, options: impl FnOnce(RankerOptions) -> RankerOptions) -> Result<Self, BundleError> {
        let files = pack::read_folder(dir)?;
        verify(&files)?;
        let file = |name: &str| file_of(&files, name);
        let text = std::str::from_utf8(file("bundle.toml")?).map_err(|e| BundleError::Schema(e.to_string()))?;
        let (mut schema, names) = manifest::parse(text)?;
        schema.options = options(schema.options);
        let user = tower((&names.user_tower, file(&names.user_tower)?), (&schema, &names), Label::User)?;
        let item = tower((&names.item_tower, file(&names.item_tower)?), (&schema, &names), Label::Ad)?;
        let light = match &names.light {
            None => None,
            Some(name) => {
                let head = LightHead::read(file(name)?.clone(), user.light, item.light);
                Some(head.map_err(|reason| BundleError::Graph { file: name.clone(), reason })?)
            }
        };
        let ranker = Scorer::new(&files, &names, &schema)?;
        let golden = file(&names.golden)?.clone();
        let (user_tower, item_tower) = (user.bound, item.bound);
        Ok(Self { schema, hash: pack::hash(&files), golden, user_tower, item_tower, light, ranker })
    }

    /// Keeps the part for each candidate as the bundle asks for.
    fn keep(&mut self) -> Result<(), BundleError> {
        let precision = match self.schema.options.precision {
            Precision::F32 => return Ok(()),
            Precision::Bf16 => exec::Precision::Bf16,
            Precision::Int8 => exec::Precision::Int8(golden::ranges(self, &self.golden)?),
        };
        let precision_name = self.schema.options.precision.name();
        self.ranker.keep(&precision).map_err(|reason| BundleError::Precision { precision: precision_name, reason })
    }

    /// Opens the bundle with this hash and runs its golden rows: what a server does before it uses one.
    ///
    /// # Errors
    /// Like [`Bundle::open`] and [`Bundle::verify_golden`]; damage when the folder holds another bundle.
    pub fn open_verified(dir: &Path, hash: &[u8; 32]) -> Result<(Self, GoldenReport), BundleError> {
        let bundle = Self::open(dir)?;
        if bundle.hash != *hash {
            return Err(BundleError::Checksum(format!("{} holds another bundle", dir.display())));
        }
        let golden = bundle.verify_golden()?;
        Ok((bundle, golden))
    }

    /// Runs the golden rows through the whole path: raw features, encoding, both towers, the three parts,
    /// calibration.
    ///
    /// # Errors
    /// When a row cannot be read or differs by more than the tolerance, and when no row verifies the light head.
    pub fn verify_golden(&self) -> Result<GoldenReport, BundleError> {
        golden::verify(self, &self.golden)
    }

    /// What each part of the ranker costs, and what the whole would.
    #[must_use]
    pub fn partition_report(&self) -> PartitionReport {
        self.ranker.report()
    }

    /// BLAKE3 of the packed form.
    #[must_use]
    pub const fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// BLAKE3 of the split: two processes that disagree here must not rank together.
    #[must_use]
    pub fn partition_hash(&self) -> [u8; 32] {
        self.ranker.hash()
    }

    /// Features, heads and numbers.
    #[must_use]
    pub const fn schema(&self) -> &Schema {
        &self.schema
    }

    /// f32s of the user-only tensors and of the user's side of the light head.
    #[must_use]
    pub fn user_part_width(&self) -> usize {
        self.ranker.user_width() + self.light_user_width()
    }

    /// f32s of an item's side of the light head; 0 without one.
    #[must_use]
    pub fn light_width(&self) -> usize {
        self.light.as_ref().map_or(0, |l| l.item_width)
    }

    /// f32s of an item's ad-only tensors.
    #[must_use]
    pub fn activation_width(&self) -> usize {
        self.ranker.item_width()
    }

    /// The query vector and the user-only tensors.
    ///
    /// # Errors
    /// When the row does not fit the schema.
    pub fn run_user(&self, scratch: &mut Scratch, user: &FeatureRow) -> Result<UserOutput, ModelError> {
        let Scratch { arena, encoding, .. } = scratch;
        let program = &self.user_tower.program;
        program.prepare(arena);
        bind::write(self.user_tower.as_pair(), (Label::User, &self.schema.user), user, 0, (arena, encoding))?;
        program.run(arena, 1);
        let query = program.output(arena, 0).to_vec();
        let mut part = Vec::with_capacity(self.user_part_width());
        let light = self.light.as_ref().filter(|l| l.user_width > 0);
        let light = light.map_or(Vec::new(), |_| program.output(arena, 1).to_vec());
        self.ranker.run_user(&self.schema, user, scratch, &mut part)?;
        part.extend(light);
        Ok(UserOutput { query, part })
    }

    /// Vectors and ad-only tensors of items.
    ///
    /// # Errors
    /// When a row does not fit the schema.
    pub fn run_items(&self, scratch: &mut Scratch, items: &[FeatureRow]) -> Result<ItemOutput, ModelError> {
        let mut vectors = Vec::with_capacity(items.len() * self.schema.dimension);
        let mut lights = Vec::with_capacity(items.len() * self.light_width());
        let mut activations = Vec::with_capacity(items.len() * self.activation_width());
        for block in items.chunks(BLOCK_ROWS) {
            let Scratch { arena, encoding, .. } = scratch;
            ranker::fill(self.item_tower.as_pair(), &self.schema, block, (arena, encoding))?;
            let program = &self.item_tower.program;
            program.run(arena, block.len());
            vectors.extend_from_slice(&program.output(arena, 0)[..block.len() * self.schema.dimension]);
            if self.light_width() > 0 {
                lights.extend_from_slice(&program.output(arena, 1)[..block.len() * self.light_width()]);
            }
            self.ranker.run_items(&self.schema, block, scratch, &mut activations)?;
        }
        // Here and not where they are stored, so that golden rows, deltas and sealed rows are the same numbers.
        if self.schema.options.activations == ActivationFormat::Bf16 {
            lights.iter_mut().chain(&mut activations).for_each(|x| *x = half::bf16::from_f32(*x).to_f32());
        }
        Ok(ItemOutput { vectors, lights, activations })
    }

    /// What the light head costs for an item; `None` for a bundle without one.
    #[must_use]
    pub fn light_cost(&self) -> Option<PartCost> {
        self.light.as_ref().map(|head| head.cost)
    }

    /// What the light head puts out: 0 without one, 1 for clicks alone, 2 with conversions.
    pub(crate) fn light_outputs(&self) -> usize {
        self.light.as_ref().map_or(0, LightHead::outputs)
    }

    /// f32s of the user's side of the light head, the last of the user part.
    #[must_use]
    pub fn light_user_width(&self) -> usize {
        self.light.as_ref().map_or(0, |l| l.user_width)
    }

    /// What the light order says, for each similarity: `lights` has a row of [`Self::light_width`] for each. What is
    /// not finite is left so: such an item is dropped by the caller.
    ///
    /// # Errors
    /// When a slice has a wrong length.
    pub fn light(
        &self,
        scratch: &mut Scratch,
        user_part: &[f32],
        lights: &[f32],
        similarities: &[f32],
        out: &mut LightLogits,
    ) -> Result<(), ModelError> {
        width("user part", user_part.len(), self.user_part_width())?;
        width("light values", lights.len(), similarities.len().saturating_mul(self.light_width()))?;
        out.clicks.clear();
        out.conversions.clear();
        match &self.light {
            None => light::line(self.schema.light, similarities, &mut out.clicks),
            Some(head) => {
                head.run(&mut scratch.arena, &user_part[self.ranker.user_width()..], lights, similarities, out);
            }
        }
        Ok(())
    }

    /// Calibrated predictions of `n` candidates, row-major, one column a head. `activations` and `cross` are
    /// row-major. A prediction that is not finite is left so: such a candidate never wins, its caller drops it.
    /// With a warm `scratch` and room in `out` nothing is allocated here.
    ///
    /// # Errors
    /// When a slice has a wrong length.
    pub fn rank(
        &self,
        scratch: &mut Scratch,
        user_part: &[f32],
        activations: &[f32],
        cross: &[f32],
        n: usize,
        out: &mut Vec<f32>,
    ) -> Result<(), ModelError> {
        self.rank_raw(scratch, user_part, activations, cross, n, out)?;
        self.calibrate(out);
        Ok(())
    }

    /// As [`Self::rank`], before calibration.
    ///
    /// # Errors
    /// When a slice has a wrong length.
    pub fn rank_raw(
        &self,
        scratch: &mut Scratch,
        user_part: &[f32],
        activations: &[f32],
        cross: &[f32],
        n: usize,
        out: &mut Vec<f32>,
    ) -> Result<(), ModelError> {
        let columns = self.schema.cross.len();
        width("user part", user_part.len(), self.user_part_width())?;
        width("activations", activations.len(), n.saturating_mul(self.activation_width()))?;
        width("cross features", cross.len(), n.saturating_mul(columns))?;
        out.clear();
        out.reserve(n * self.schema.heads.len());
        let user_part = &user_part[..self.ranker.user_width()];
        self.ranker.rank(scratch, (user_part, activations), (cross, columns), n, |_, raw| out.push(raw));
        Ok(())
    }

    /// Calibrated predictions from the unsplit graph: the twin that the split is compared with.
    ///
    /// # Errors
    /// When a row does not fit the schema, or `cross` has a wrong length.
    pub fn rank_whole(
        &self,
        scratch: &mut Scratch,
        user: &FeatureRow,
        items: &[FeatureRow],
        cross: &[f32],
        out: &mut Vec<f32>,
    ) -> Result<(), ModelError> {
        self.whole_raw(scratch, user, items, cross, out)?;
        self.calibrate(out);
        Ok(())
    }

    /// As [`Self::rank_whole`], before calibration.
    pub(crate) fn whole_raw(
        &self,
        scratch: &mut Scratch,
        user: &FeatureRow,
        items: &[FeatureRow],
        cross: &[f32],
        out: &mut Vec<f32>,
    ) -> Result<(), ModelError> {
        let columns = self.schema.cross.len();
        width("cross features", cross.len(), items.len().saturating_mul(columns))?;
        out.clear();
        for (i, block) in items.chunks(BLOCK_ROWS).enumerate() {
            let from = i * BLOCK_ROWS * columns;
            let cross = &cross[from..from + block.len() * columns];
            self.ranker.whole(&self.schema, (user, block), cross, scratch, |_, raw| out.push(raw))?;
        }
        Ok(())
    }

    /// The cross features of a user and an item, encoded: the weight that the item's value has in the user's set.
    #[must_use]
    pub fn cross(&self, user: &FeatureRow, item: &FeatureRow) -> Vec<f32> {
        let find = |specs: &[crate::schema::FeatureSpec], row: &FeatureRow, name: &str| {
            specs.iter().position(|s| s.name == name).and_then(|i| row.values.get(i).cloned())
        };
        let weight = |c: &crate::schema::CrossSpec| {
            let set = find(&self.schema.user, user, &c.user);
            match (set, find(&self.schema.item, item, &c.item)) {
                (Some(FeatureValue::Set(set)), Some(FeatureValue::Category(value))) if value != 0 => {
                    set.iter().find(|(v, _)| *v == value).map_or(0.0, |(_, w)| *w)
                }
                _ => 0.0,
            }
        };
        self.schema.cross.iter().map(|c| c.encode(weight(c))).collect()
    }
}

/// The schema of a `bundle.toml`.
pub(crate) fn read_schema(text: &str) -> Result<Schema, BundleError> {
    manifest::parse(text).map(|(schema, _)| schema)
}

fn file_of<'a>(files: &'a FileMap, name: &str) -> Result<&'a Bytes, BundleError> {
    files.get(name).ok_or_else(|| BundleError::Schema(format!("the file {name} is missing")))
}

fn width(what: &'static str, found: usize, expected: usize) -> Result<(), ModelError> {
    if found == expected { Ok(()) } else { Err(ModelError::Width { what, found, expected }) }
}

/// A tower with the f32s that it puts out for the light head.
struct Tower {
    bound: Bound,
    light: usize,
}

/// A tower: one side's features in, one vector out, and what the light head reads if there is one.
fn tower(
    (name, bytes): (&str, &Bytes),
    (schema, names): (&Schema, &manifest::Files),
    side: Label,
) -> Result<Tower, BundleError> {
    let make = || {
        let read = onnx::read(bytes.clone())?;
        let (output, second) = if side == Label::User { ("query", light::USER) } else { ("vector", light::ITEM) };
        let light = if names.light.is_some() { light::tower_width(&read.graph, second)? } else { 0 };
        let wanted = [(output, schema.dimension), (second, light)].into_iter().filter(|(_, width)| *width > 0);
        let outputs = ranker::outputs(&read.graph, wanted)?;
        let graph = read.graph.extract(&read.graph.inputs, &outputs).map_err(GraphError::Extract)?;
        let bound = Bound::new(&graph, &read, schema, BLOCK_ROWS)?;
        match bound.feeds.iter().zip(&graph.inputs).find(|(f, _)| f.label() != side) {
            None => Ok(Tower { bound, light }),
            Some((_, id)) => Err(GraphError::Port {
                port: "input",
                name: graph.tensors[*id].name.clone(),
                reason: "a tower uses the features of its own side".to_owned(),
            }),
        }
    };
    make().map_err(|reason| BundleError::Graph { file: name.to_owned(), reason })
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

#[cfg(test)]
mod kernel_tests;
#[cfg(test)]
mod light_tests;
#[cfg(test)]
mod sequence_tests;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod trees_tests;
