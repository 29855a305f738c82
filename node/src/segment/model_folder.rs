//! What does one model know of the items of this shard?
//!
//! The sealed, model-dependent half of a shard: vectors inside their graph, and the ad-only tensors of the
//! ranker (activations), one row an item. It belongs to one content folder, whose hash its manifest names:
//! an ordinal means nothing without it.

use super::{
    activations::Activations,
    bitset::Bitset,
    container::{Container, FileKind, ShardKey, Storage, tag},
    content::Content,
    error::SegmentError,
    folder::{FileEntry, open_container, read_manifest},
    graph::{Graph, Shape},
    residency::{Residency, prefault},
    scan::{Bonus, Searched, TopK, scan},
    vectors::{self, Matrix, Metric, VectorFormat},
};
use serde::{Deserialize, Serialize};
use std::{ops::Range, path::Path, sync::Arc};

pub(super) const GRAPH: &str = "graph";
pub(super) const ACTIVATIONS: &str = "activations";
pub(super) const USEARCH: u64 = tag(b"usearch ");
pub(super) const ROWS: u64 = tag(b"act_rows");

/// What searching costs on the machine that sealed the folder.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Nanoseconds of one comparison in an exact scan.
    pub scan_ns: f32,
    /// Nanoseconds of a graph walk over all items with a list of [`Calibration::LIST`].
    pub walk_ns: f32,
}

impl Calibration {
    /// The list of the walk that is timed: what a quota of 64 asks for.
    pub const LIST: usize = 128;
}

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
    pub(super) activation_width: u32,
    pub(super) activation_format: VectorFormat,
    pub(super) calibration: Calibration,
    pub(super) files: Vec<FileEntry>,
}

impl ModelManifest {
    pub(super) fn shape(&self) -> Shape {
        let dimension = self.dimension as usize;
        Shape { rows: self.items, dimension, metric: self.metric, format: self.format }
    }
}

/// An open model folder.
pub struct ModelFolder {
    hash: [u8; 32],
    bundle: [u8; 32],
    content: [u8; 32],
    shape: Shape,
    calibration: Calibration,
    graph: Graph,
    activations: Activations,
    activation_width: usize,
    storages: Vec<Arc<Storage>>,
}

impl ModelFolder {
    /// Opens a sealed folder of this bundle over this content: verifies every byte, then maps it.
    /// At most `threads` graph searches run at a time; more wait.
    pub fn open(folder: &Path, content: &Content, bundle: [u8; 32], threads: usize) -> Result<Self, SegmentError> {
        let (manifest, hash) = read_manifest::<ModelManifest>(folder)?;
        let key = content.key();
        let found = ShardKey { generation: manifest.generation, shard: manifest.shard };
        if found != key || manifest.content != content.hash() || manifest.items != content.items() {
            return Err(SegmentError::foreign(folder, "made of other content"));
        }
        if manifest.bundle != bundle {
            return Err(SegmentError::foreign(folder, "made by another bundle"));
        }
        let graph = open_container(folder, &manifest.files, GRAPH, FileKind::Graph, key)?;
        let activations = open_container(folder, &manifest.files, ACTIVATIONS, FileKind::Activations, key)?;
        Self::assemble(folder, &manifest, hash, &graph, &activations, threads)
    }

    pub(super) fn assemble(
        folder: &Path,
        manifest: &ModelManifest,
        hash: [u8; 32],
        graph: &Container,
        activations: &Container,
        threads: usize,
    ) -> Result<Self, SegmentError> {
        let width = manifest.activation_width as usize;
        let rows = width.checked_mul(manifest.items as usize);
        let rows = rows.ok_or_else(|| SegmentError::damaged(folder, "the activations' width"))?;
        vectors::check_dimension(manifest.dimension as usize)
            .map_err(|e| SegmentError::damaged(folder, e.to_string()))?;
        Ok(Self {
            hash,
            bundle: manifest.bundle,
            content: manifest.content,
            shape: manifest.shape(),
            calibration: manifest.calibration,
            graph: Graph::open(graph.section(USEARCH)?, manifest.shape(), threads, folder)?,
            activations: Activations::open(activations, manifest.activation_format, rows)?,
            activation_width: width,
            storages: vec![Arc::clone(graph.storage()), Arc::clone(activations.storage())],
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
        self.shape.rows
    }

    /// Dimensions of a vector.
    #[must_use]
    pub const fn dimension(&self) -> usize {
        self.shape.dimension
    }

    /// What "near" means.
    #[must_use]
    pub const fn metric(&self) -> Metric {
        self.shape.metric
    }

    /// How vectors are stored.
    #[must_use]
    pub const fn format(&self) -> VectorFormat {
        self.shape.format
    }

    /// What searching costs.
    #[must_use]
    pub const fn calibration(&self) -> Calibration {
        self.calibration
    }

    /// The vector of an item, as stored.
    #[must_use]
    pub fn vector(&self, item: u32) -> Option<Vec<f32>> {
        self.graph.matrix().row(item).map(|row| vectors::decode(row, self.shape.format))
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

    /// Checks a query and brings it to the form of the metric.
    pub fn prepare_query(&self, query: &[f32]) -> Result<Vec<f32>, SegmentError> {
        vectors::prepare(query, self.shape.dimension, self.shape.metric)
    }

    /// The vectors, for a delta of the same shape to be scanned alike.
    pub(crate) fn matrix(&self) -> Matrix<'_> {
        self.graph.matrix()
    }

    /// Compares the prepared query with every allowed item.
    pub(crate) fn scan(
        &self,
        query: &[f32],
        allowed: &Bitset,
        bonus: Bonus<'_>,
        expired: &dyn Fn() -> bool,
        top: &mut TopK,
    ) -> Searched {
        scan((self.graph.kernel(), self.matrix()), query, (allowed, 0), bonus, expired, top)
    }

    /// Compares the prepared query with rows of the same shape whose ordinals start at `offset`.
    pub(crate) fn scan_rows(
        &self,
        query: &[f32],
        rows: &[u8],
        (allowed, offset): (&Bitset, u32),
        bonus: Bonus<'_>,
        expired: &dyn Fn() -> bool,
        top: &mut TopK,
    ) -> Searched {
        let rows = Matrix::new(rows, self.shape.dimension, self.shape.format);
        scan((self.graph.kernel(), rows), query, (allowed, offset), bonus, expired, top)
    }

    /// Walks the graph with a list of `list` candidates.
    pub(crate) fn walk(
        &self,
        query: &[f32],
        list: usize,
        allowed: &Bitset,
        bonus: Bonus<'_>,
        expired: &dyn Fn() -> bool,
        top: &mut TopK,
    ) -> Result<Searched, SegmentError> {
        self.graph.search(query, list, allowed, bonus, expired, top)
    }

    /// How much of it is in memory.
    #[must_use]
    pub fn residency(&self) -> Residency {
        let files = Residency::of(self.storages.iter().map(Arc::as_ref));
        files.plus(Residency { owned: self.graph.memory(), ..Residency::default() })
    }

    /// Reads every page, so that the first request does not wait for the disk.
    pub fn prefault(&self) {
        self.storages.iter().for_each(|s| prefault(s));
    }
}
