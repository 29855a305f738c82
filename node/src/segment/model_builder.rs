//! How do the outputs of an item tower become a model folder?
//!
//! Rows come in the order of the content's ordinals, in blocks of any size: activations go straight to
//! their file, vectors into a graph that one thread builds, so that equal vectors give equal bytes. Before
//! the folder is sealed, the search is timed over it: the planner works with measured costs, not guesses.

use super::{
    activations,
    bitset::Bitset,
    container::{Container, FileKind, SectionSpec, Sections, ShardKey, Storage, layout},
    content::Content,
    error::SegmentError,
    folder::{FolderWriter, HashedFile},
    graph::{Graph, GraphBuilder, MATRIX_AT, Shape},
    model_folder::{ACTIVATIONS, Calibration, GRAPH, ModelManifest, ROWS, USEARCH},
    scan::{TopK, scan},
    vectors::{self, Metric, VectorFormat},
};
use std::path::Path;

/// Queries that are timed: the median of as many is steady within a tenth.
const CALIBRATION_QUERIES: u32 = 15;
/// Items of the scan that is timed.
const CALIBRATION_ITEMS: u32 = 20_000;

/// What a model says of its vectors and activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelSpec {
    /// BLAKE3 of the bundle.
    pub bundle: [u8; 32],
    /// Dimensions of a vector.
    pub dimension: usize,
    /// What "near" means.
    pub metric: Metric,
    /// How vectors are stored.
    pub format: VectorFormat,
    /// Values of an activation row.
    pub activation_width: usize,
    /// How they are stored.
    pub activation_format: VectorFormat,
}

/// What has been sealed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModelSummary {
    /// Items.
    pub items: u32,
    /// Bytes of all files.
    pub bytes: u64,
    /// BLAKE3 of the manifest.
    pub hash: [u8; 32],
    /// What searching costs.
    pub calibration: Calibration,
}

/// Collects the rows of one model over one content.
pub struct ModelFolderBuilder {
    folder: FolderWriter,
    manifest: ModelManifest,
    key: ShardKey,
    graph: GraphBuilder,
    activations: HashedFile,
    activations_end: u64,
    rows: u32,
}

impl ModelFolderBuilder {
    /// Starts a folder at `target`, which must not exist.
    pub fn new(target: &Path, content: &Content, spec: ModelSpec) -> Result<Self, SegmentError> {
        vectors::check_dimension(spec.dimension)?;
        let key = content.key();
        let activation_width = u32::try_from(spec.activation_width)
            .map_err(|_| SegmentError::Refused(format!("{} activations an item", spec.activation_width)))?;
        let manifest = ModelManifest {
            generation: key.generation,
            shard: key.shard,
            content: content.hash(),
            bundle: spec.bundle,
            items: content.items(),
            dimension: spec.dimension as u32,
            metric: spec.metric,
            format: spec.format,
            activation_width,
            activation_format: spec.activation_format,
            calibration: Calibration { scan_ns: 0.0, walk_ns: 0.0 },
            files: Vec::new(),
        };
        let folder = FolderWriter::create(target)?;
        let count = u64::from(content.items()) * u64::from(activation_width);
        let width = spec.activation_format.width() as u32;
        let layout = layout(FileKind::Activations, key, &[SectionSpec { tag: ROWS, width, count, lead: 0 }]);
        let mut activations = folder.file(ACTIVATIONS)?;
        activations.write(&layout.head)?;
        let start = layout.starts.first().copied().unwrap_or(layout.total);
        activations.write(&vec![0; start as usize - layout.head.len()])?;
        let graph = GraphBuilder::new(manifest.shape())?;
        Ok(Self { folder, manifest, key, graph, activations, activations_end: layout.total, rows: 0 })
    }

    /// Adds the next items: their vectors and activations, row-major.
    pub fn push(&mut self, vectors: &[f32], activations: &[f32]) -> Result<(), SegmentError> {
        let Shape { dimension, metric, format, rows } = self.manifest.shape();
        let count = vectors.len() / dimension;
        let width = self.manifest.activation_width as usize;
        if !vectors.len().is_multiple_of(dimension)
            || activations.len() != count * width
            || count > (rows - self.rows) as usize
        {
            return Err(SegmentError::Refused(format!("{count} rows that do not fit after {} of {rows}", self.rows)));
        }
        if !activations.iter().all(|x| x.is_finite()) {
            return Err(SegmentError::Refused("activations that are not finite".into()));
        }
        for vector in vectors.chunks_exact(dimension) {
            let mut vector = vectors::prepare(vector, dimension, metric)?;
            if format == VectorFormat::Bf16 {
                // Rounded by us, so that a delta's rows and the library's round alike.
                vector.iter_mut().for_each(|x| *x = half::bf16::from_f32(*x).to_f32());
            }
            self.graph.add(&vector)?;
        }
        self.rows += count as u32;
        self.activations.write(&activations::stored(activations, self.manifest.activation_format))
    }

    /// Times the search, writes the folder and puts it in its place. `clock_us` is monotonic.
    pub fn seal(mut self, clock_us: &dyn Fn() -> u64) -> Result<ModelSummary, SegmentError> {
        if self.rows != self.manifest.items {
            return Err(SegmentError::Refused(format!("{} rows of {}", self.rows, self.manifest.items)));
        }
        let padding = self.activations_end - self.activations.bytes();
        self.activations.write(&vec![0; padding as usize])?;
        self.folder.finish(self.activations)?;

        let mut sections = Sections::default();
        sections.push_bytes(USEARCH, MATRIX_AT as u32, self.graph.finish()?);
        let mut bytes = Vec::new();
        sections.write(FileKind::Graph, self.key, |part| {
            bytes.extend_from_slice(part);
            Ok(())
        })?;
        let mut file = self.folder.file(GRAPH)?;
        file.write(&bytes)?;
        self.folder.finish(file)?;
        let path = self.folder.target().to_path_buf();
        let file = Container::new(&path, Storage::owned(&bytes), FileKind::Graph, self.key)?;
        drop(bytes);
        let graph = Graph::open(file.section(USEARCH)?, self.manifest.shape(), 1, &path)?;
        self.manifest.calibration = calibrate(&graph, self.manifest.shape(), clock_us)?;
        drop(graph);

        let (items, calibration) = (self.manifest.items, self.manifest.calibration);
        let mut manifest = self.manifest;
        let (hash, bytes) = self.folder.seal(|files| {
            manifest.files = files;
            manifest
        })?;
        Ok(ModelSummary { items, bytes, hash, calibration })
    }
}

fn calibrate(graph: &Graph, shape: Shape, clock_us: &dyn Fn() -> u64) -> Result<Calibration, SegmentError> {
    let (all, mut top) = (Bitset::full(shape.rows), TopK::default());
    let mut some = Bitset::empty(shape.rows);
    (0..shape.rows.min(CALIBRATION_ITEMS)).for_each(|item| some.insert(item));
    let (mut scans, mut walks) = (Vec::new(), Vec::new());
    for turn in 0..CALIBRATION_QUERIES {
        let item = (u64::from(turn) * u64::from(shape.rows) / u64::from(CALIBRATION_QUERIES)) as u32;
        let Some(query) = graph.matrix().row(item).map(|row| vectors::decode(row, shape.format)) else { break };
        let ns_since = |start: u64| clock_us().saturating_sub(start) as f32 * 1_000.0;
        let start = clock_us();
        top.reset(Calibration::LIST);
        scan((graph.kernel(), graph.matrix()), &query, (&some, 0), None, &|| false, &mut top);
        scans.push(ns_since(start) / some.count().max(1) as f32);
        let start = clock_us();
        top.reset(Calibration::LIST);
        graph.search(&query, Calibration::LIST, &all, None, &|| false, &mut top)?;
        walks.push(ns_since(start));
    }
    let median = |mut times: Vec<f32>| {
        times.sort_by(f32::total_cmp);
        times.get(times.len() / 2).copied().unwrap_or(0.0)
    };
    Ok(Calibration { scan_ns: median(scans), walk_ns: median(walks) })
}
