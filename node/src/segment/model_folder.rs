//! What does one model know of the items of this shard?
//!
//! The sealed, model-dependent half of a shard: vectors with their graph, if the model asks for it the same
//! vectors in more precision, and the ad-only tensors of the ranker (activations), one row an item. It belongs
//! to one content folder, whose hash its manifest names: an ordinal means nothing without it.

use super::{
    activations::Activations,
    bitset::Bitset,
    calibrate::Calibration,
    container::{Container, FileKind, Section, ShardKey, Storage, tag},
    content::Content,
    error::SegmentError,
    folder::{FileEntry, open_container, read_manifest},
    graph::Graph,
    kernel::Kernel,
    observed::{Observed, Way},
    quantize::Scaling,
    residency::{Residency, prefault},
    scan::{Bonus, Searched, TopK, scan},
    vectors::{self, Encoding, Matrix, Metric, Query, VectorFormat},
    walk::{Density, Space, Through, WalkScratch, Walked, density, walk},
};
use serde::{Deserialize, Serialize};
use std::{
    ops::Range,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

pub(super) const GRAPH: &str = "graph";
pub(super) const RESCORE: &str = "rescore";
pub(super) const ACTIVATIONS: &str = "activations";
pub(super) const FULL: u64 = tag(b"full_row");
pub(super) const ROWS: u64 = tag(b"act_rows");

/// What a model folder says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ModelManifest {
    pub(super) generation: u64,
    pub(super) shard: u32,
    pub(super) content: [u8; 32],
    pub(super) bundle: [u8; 32],
    pub(super) items: u32,
    pub(super) dimension: u32,
    pub(super) metric: Metric,
    pub(super) format: VectorFormat,
    pub(super) scaling: Scaling,
    pub(super) rescore: Option<VectorFormat>,
    pub(super) activation_width: u32,
    pub(super) activation_format: VectorFormat,
    pub(super) calibration: Calibration,
    pub(super) files: Vec<FileEntry>,
}

impl ModelManifest {
    pub(super) fn encoding(&self) -> Encoding {
        let (metric, format, scaling) = (self.metric, self.format, self.scaling.clone());
        Encoding { dimension: self.dimension as usize, metric, format, scaling }
    }

    /// What no search could be made with.
    fn fault(&self) -> Option<String> {
        let dimension = self.dimension as usize;
        let scaled = self.format != VectorFormat::I8 || self.scaling.is_sound(dimension);
        match vectors::check_dimension(dimension) {
            Err(e) => Some(e.to_string()),
            Ok(()) if !scaled || self.rescore == Some(VectorFormat::I8) => Some("the vectors' scaling".into()),
            Ok(()) => None,
        }
    }
}

/// A query in the forms that searches take.
#[derive(Clone, Debug)]
pub(crate) struct PreparedQuery {
    vector: Vec<f32>,
    rows: Query,
}

/// One search.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) query: &'a PreparedQuery,
    pub(crate) allowed: &'a Bitset,
    pub(crate) bonus: Bonus<'a>,
    pub(crate) expired: &'a dyn Fn() -> bool,
}

/// The vectors and everything that finds among them.
pub(crate) struct Searcher {
    encoding: Encoding,
    kernel: Kernel,
    graph: Graph,
    full: Option<FullRows>,
}

/// The vectors in more precision.
struct FullRows {
    encoding: Encoding,
    kernel: Kernel,
    rows: Section<u8>,
}

impl Searcher {
    pub(super) fn open(
        manifest: &ModelManifest,
        graph: &Container,
        full: Option<&Container>,
    ) -> Result<Self, SegmentError> {
        let encoding = manifest.encoding();
        let (dimension, metric, rows) = (encoding.dimension, encoding.metric, manifest.items);
        let full = match (manifest.rescore, full) {
            (Some(format), Some(file)) => {
                let encoding = Encoding::unscaled(dimension, metric, format);
                let rows = file.section_of(FULL, rows as usize * encoding.stride())?;
                Some(FullRows { encoding, kernel: Kernel::select(metric, format), rows })
            }
            (_, _) => None,
        };
        let kernel = Kernel::select(metric, encoding.format);
        Ok(Self { kernel, graph: Graph::open(graph, rows, dimension, encoding.format)?, encoding, full })
    }

    pub(super) const fn rows(&self) -> u32 {
        self.graph.rows()
    }

    pub(super) const fn has_full_rows(&self) -> bool {
        self.full.is_some()
    }

    pub(super) fn encode(&self, vector: &[f32]) -> PreparedQuery {
        PreparedQuery { vector: vector.to_vec(), rows: self.encoding.query(vector) }
    }

    /// Halfway between two of the rows, the same for the same number.
    pub(super) fn between(&self, number: u32) -> Vec<f32> {
        let row = |n: u32| {
            let item = n.wrapping_mul(0x9e37_79b1) % self.rows().max(1);
            self.graph.matrix().row(item).map(|row| self.encoding.decode(row)).unwrap_or_default()
        };
        row(2 * number).iter().zip(row(2 * number + 1)).map(|(a, b)| a / 2.0 + b / 2.0).collect()
    }

    pub(super) fn scan(&self, asked: Asked<'_>, top: &mut TopK) -> Searched {
        let rows = (self.kernel, self.graph.matrix());
        scan(rows, &asked.query.rows, (asked.allowed, 0), asked.bonus, asked.expired, top)
    }

    pub(super) fn walk(
        &self,
        asked: Asked<'_>,
        through: Through<'_>,
        list: usize,
        scratch: &mut WalkScratch,
        top: &mut TopK,
    ) -> Walked {
        let (kernel, rows) = (self.kernel, self.graph.matrix());
        let space = Space { kernel, rows, query: &asked.query.rows, bonus: asked.bonus };
        walk(self.graph.view(), space, (through, list), asked.expired, scratch, top)
    }

    fn density(&self, asked: Asked<'_>, scratch: &mut WalkScratch, top: &mut TopK) -> Density {
        let (kernel, rows) = (self.kernel, self.graph.matrix());
        let space = Space { kernel, rows, query: &asked.query.rows, bonus: asked.bonus };
        density(self.graph.view(), space, asked.allowed, scratch, top)
    }

    pub(super) fn rescore(&self, vector: &[f32], found: &[(f32, u32)], top: &mut TopK) {
        let Some(full) = &self.full else { return };
        full.rescore(vector, (&full.rows, 0), found, top);
    }
}

impl FullRows {
    /// Compares finds again with these rows.
    fn rescore(&self, vector: &[f32], (rows, offset): (&[u8], u32), found: &[(f32, u32)], top: &mut TopK) {
        let rows = Matrix::new(rows, self.encoding.dimension, self.encoding.format);
        compare((self.kernel, rows, offset), &self.encoding.query(vector), found, top);
    }
}

/// Compares the finds that are among these rows, whose ordinals start at `offset`; others are left alone.
fn compare((kernel, rows, offset): (Kernel, Matrix<'_>, u32), query: &Query, found: &[(f32, u32)], top: &mut TopK) {
    let here = |ordinal: u32| ordinal.checked_sub(offset).filter(|local| rows.row(*local).is_some());
    let ordinals: Vec<u32> = found.iter().filter_map(|(_, ordinal)| here(*ordinal)).collect();
    let mut out = vec![0.0; ordinals.len()];
    (kernel.batch)(&query.bytes, rows, &ordinals, &mut out);
    for (ordinal, raw) in ordinals.iter().map(|local| local + offset).zip(out) {
        top.push(query.similarity(raw), ordinal);
    }
}

/// An open model folder.
pub struct ModelFolder {
    hash: [u8; 32],
    bundle: [u8; 32],
    content: [u8; 32],
    calibration: Calibration,
    observed: Mutex<Observed>,
    searcher: Searcher,
    activations: Activations,
    activation_width: usize,
    storages: Vec<Arc<Storage>>,
    full_storage: Option<Arc<Storage>>,
}

impl ModelFolder {
    /// Opens a sealed folder of this bundle over this content: verifies every byte, then maps it.
    pub fn open(folder: &Path, content: &Content, bundle: [u8; 32]) -> Result<Self, SegmentError> {
        let (manifest, hash) = read_manifest::<ModelManifest>(folder)?;
        let key = content.key();
        let found = ShardKey { generation: manifest.generation, shard: manifest.shard };
        if found != key || manifest.content != content.hash() || manifest.items != content.items() {
            return Err(SegmentError::foreign(folder, "made of other content"));
        }
        if manifest.bundle != bundle {
            return Err(SegmentError::foreign(folder, "made by another bundle"));
        }
        let open = |name, kind| open_container(folder, &manifest.files, name, kind, key);
        let (graph, activations) = (open(GRAPH, FileKind::Graph)?, open(ACTIVATIONS, FileKind::Activations)?);
        let full = manifest.rescore.map(|_| open(RESCORE, FileKind::Rescore)).transpose()?;
        Self::assemble(folder, &manifest, hash, &graph, full.as_ref(), &activations)
    }

    pub(super) fn assemble(
        folder: &Path,
        manifest: &ModelManifest,
        hash: [u8; 32],
        graph: &Container,
        full: Option<&Container>,
        activations: &Container,
    ) -> Result<Self, SegmentError> {
        let width = manifest.activation_width as usize;
        let rows = width.checked_mul(manifest.items as usize);
        let rows = rows.ok_or_else(|| SegmentError::damaged(folder, "the activations' width"))?;
        if let Some(fault) = manifest.fault() {
            return Err(SegmentError::damaged(folder, fault));
        }
        Ok(Self {
            hash,
            bundle: manifest.bundle,
            content: manifest.content,
            calibration: manifest.calibration,
            observed: Mutex::default(),
            searcher: Searcher::open(manifest, graph, full)?,
            activations: Activations::open(activations, manifest.activation_format, rows)?,
            activation_width: width,
            storages: vec![Arc::clone(graph.storage()), Arc::clone(activations.storage())],
            full_storage: full.map(|file| Arc::clone(file.storage())),
        })
    }

    /// BLAKE3 of the manifest.
    #[must_use]
    pub const fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// The bundle that made it.
    #[must_use]
    pub const fn bundle(&self) -> [u8; 32] {
        self.bundle
    }

    /// The hash of the content it belongs to.
    #[must_use]
    pub const fn content(&self) -> [u8; 32] {
        self.content
    }

    /// Number of items.
    #[must_use]
    pub const fn items(&self) -> u32 {
        self.searcher.rows()
    }

    /// Dimensions of a vector.
    #[must_use]
    pub const fn dimension(&self) -> usize {
        self.searcher.encoding.dimension
    }

    /// What "near" means.
    #[must_use]
    pub const fn metric(&self) -> Metric {
        self.searcher.encoding.metric
    }

    /// How vectors are stored.
    #[must_use]
    pub const fn format(&self) -> VectorFormat {
        self.searcher.encoding.format
    }

    /// How they are stored a second time, for rescoring.
    #[must_use]
    pub fn rescore_format(&self) -> Option<VectorFormat> {
        self.searcher.full.as_ref().map(|full| full.encoding.format)
    }

    /// What searching costs.
    #[must_use]
    pub const fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    /// How far off estimates have been since it was opened.
    #[must_use]
    pub fn observed(&self) -> Observed {
        *self.observed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a search: what the calibration said of it and what it took.
    pub(crate) fn observe(&self, way: Way, calibrated_us: f32, took_us: f32) {
        let mut observed = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
        *observed = observed.with(way, calibrated_us, took_us);
    }

    /// The vector of an item, as stored.
    #[must_use]
    pub fn vector(&self, item: u32) -> Option<Vec<f32>> {
        self.searcher.graph.matrix().row(item).map(|row| self.searcher.encoding.decode(row))
    }

    /// How vectors become rows, and the same of the second column, for a delta to be searched alike.
    pub(crate) fn encodings(&self) -> (&Encoding, Option<&Encoding>) {
        (&self.searcher.encoding, self.searcher.full.as_ref().map(|full| &full.encoding))
    }

    /// Values of an activation row.
    #[must_use]
    pub const fn activation_width(&self) -> usize {
        self.activation_width
    }

    /// Appends these columns of an item's activations; nothing when there is no such item, or no such column.
    #[inline]
    pub fn append_activations(&self, item: u32, columns: Range<usize>, out: &mut Vec<f32>) {
        if columns.start <= columns.end && columns.end <= self.activation_width {
            let row = item as usize * self.activation_width;
            self.activations.append(row + columns.start..row + columns.end, out);
        }
    }

    /// Checks a query and brings it to the forms that searches take.
    pub(crate) fn prepare_query(&self, query: &[f32]) -> Result<PreparedQuery, SegmentError> {
        Ok(self.searcher.encode(&vectors::prepare(query, self.dimension(), self.metric())?))
    }

    /// Compares the query with every allowed item.
    pub(crate) fn scan(&self, asked: Asked<'_>, top: &mut TopK) -> Searched {
        self.searcher.scan(asked, top)
    }

    /// The same in full precision; without a second column the same as [`Self::scan`].
    pub(crate) fn scan_full(&self, asked: Asked<'_>, top: &mut TopK) -> Searched {
        let Some(full) = &self.searcher.full else { return self.scan(asked, top) };
        let rows = Matrix::new(&full.rows, full.encoding.dimension, full.encoding.format);
        let query = full.encoding.query(&asked.query.vector);
        scan((full.kernel, rows), &query, (asked.allowed, 0), asked.bonus, asked.expired, top)
    }

    /// Compares the query with a delta's rows, whose ordinals follow the sealed ones.
    pub(crate) fn scan_rows(&self, asked: Asked<'_>, rows: &[u8], top: &mut TopK) -> Searched {
        let rows = (self.searcher.kernel, Matrix::new(rows, self.dimension(), self.format()));
        scan(rows, &asked.query.rows, (asked.allowed, self.items()), asked.bonus, asked.expired, top)
    }

    /// The same in full precision, where the delta has it.
    pub(crate) fn scan_full_rows(&self, asked: Asked<'_>, (rows, full): (&[u8], &[u8]), top: &mut TopK) -> Searched {
        let Some(column) = &self.searcher.full else { return self.scan_rows(asked, rows, top) };
        let rows = (column.kernel, Matrix::new(full, self.dimension(), column.encoding.format));
        let query = column.encoding.query(&asked.query.vector);
        scan(rows, &query, (asked.allowed, self.items()), asked.bonus, asked.expired, top)
    }

    /// How the allowed lie in the graph; nothing is offered to `top`.
    pub(crate) fn density(&self, asked: Asked<'_>, scratch: &mut WalkScratch, top: &mut TopK) -> Density {
        self.searcher.density(asked, scratch, top)
    }

    /// Walks the graph with a list of `list` candidates.
    pub(crate) fn walk(
        &self,
        asked: Asked<'_>,
        through: Through<'_>,
        list: usize,
        scratch: &mut WalkScratch,
        top: &mut TopK,
    ) -> Walked {
        self.searcher.walk(asked, through, list, scratch, top)
    }

    /// Compares finds again in full precision, those from `items()` on with a delta's rows; what comes out goes into
    /// `top`. Does nothing without a second column.
    pub(crate) fn rescore(&self, query: &PreparedQuery, found: &[(f32, u32)], delta_rows: &[u8], top: &mut TopK) {
        let Some(full) = &self.searcher.full else { return };
        full.rescore(&query.vector, (&full.rows, 0), found, top);
        full.rescore(&query.vector, (delta_rows, self.items()), found, top);
    }

    /// The same; without a second column they are compared as they are stored.
    pub(crate) fn compare(
        &self,
        query: &PreparedQuery,
        found: &[(f32, u32)],
        (rows, full): (&[u8], &[u8]),
        top: &mut TopK,
    ) {
        if self.searcher.full.is_some() {
            return self.rescore(query, found, full, top);
        }
        let rows_of = |bytes| Matrix::new(bytes, self.dimension(), self.format());
        compare((self.searcher.kernel, self.searcher.graph.matrix(), 0), &query.rows, found, top);
        compare((self.searcher.kernel, rows_of(rows), self.items()), &query.rows, found, top);
    }

    /// How much of it is in memory.
    #[must_use]
    pub fn residency(&self) -> Residency {
        Residency::of(self.storages.iter().chain(&self.full_storage).map(Arc::as_ref))
    }

    /// How much of the second column is in memory: counted in [`Self::residency`] too.
    #[must_use]
    pub fn rescore_residency(&self) -> Residency {
        Residency::of(self.full_storage.iter().map(Arc::as_ref))
    }

    /// Reads every page, so that the first request does not wait for the disk.
    pub fn prefault(&self) {
        self.storages.iter().chain(&self.full_storage).for_each(|s| prefault(s));
    }
}
