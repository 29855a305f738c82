//! How do the outputs of an item tower become a model folder?
//!
//! Rows come in the order of the content's ordinals, in blocks of any size: activations and the second,
//! more precise column go straight to their files, vectors into a graph that one thread builds, so that equal
//! vectors give equal bytes. Bytes (i8) need the whole of the vectors to be scaled, so these are kept as f32
//! until the seal. Before the folder is sealed, the search is timed over it: the planner works with measured
//! costs, not guesses.

use super::{
    activations,
    calibrate::{Calibration, calibrate},
    container::{FileKind, SectionSpec, ShardKey, layout},
    content::Content,
    error::SegmentError,
    folder::{FolderWriter, HashedFile},
    graph, linkage,
    model_folder::{ACTIVATIONS, FULL, GRAPH, ModelManifest, RESCORE, ROWS, Searcher},
    quantize::Scaling,
    vectors::{self, Encoding, Metric, VectorFormat},
};
use std::path::Path;

/// What a model says of its vectors and activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelSpec {
    /// BLAKE3 of the bundle.
    pub bundle: [u8; 32],
    /// Dimensions of a vector.
    pub dimension: usize,
    /// What "near" means.
    pub metric: Metric,
    /// How vectors are stored for the search.
    pub format: VectorFormat,
    /// How they are stored a second time, for comparing the best again; not as bytes.
    pub rescore: Option<VectorFormat>,
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
    /// Bytes of vectors and graph.
    pub graph_bytes: u64,
    /// Bytes of the second column.
    pub rescore_bytes: u64,
    /// BLAKE3 of the manifest.
    pub hash: [u8; 32],
    /// What searching costs.
    pub calibration: Calibration,
}

/// A file of one section that is written as rows come.
struct RowFile {
    file: HashedFile,
    end: u64,
}

impl RowFile {
    fn create(
        folder: &FolderWriter,
        (name, kind): (&str, FileKind),
        key: ShardKey,
        section: SectionSpec,
    ) -> Result<Self, SegmentError> {
        let layout = layout(kind, key, &[section]);
        let mut file = folder.file(name)?;
        file.write(&layout.head)?;
        let start = layout.starts.first().copied().unwrap_or(layout.total);
        file.write(&vec![0; start as usize - layout.head.len()])?;
        Ok(Self { file, end: layout.total })
    }

    /// Fills it up and hands it over; its length.
    fn finish(mut self, folder: &mut FolderWriter) -> Result<u64, SegmentError> {
        let padding = self.end - self.file.bytes();
        self.file.write(&vec![0; padding as usize])?;
        folder.finish(self.file)?;
        Ok(self.end)
    }
}

/// Vectors on their way into the graph.
enum Vectors {
    /// Rows as they are stored.
    Encoded(Vec<u8>),
    /// f32, until their scaling is known.
    Kept(Vec<f32>),
}

/// Collects the rows of one model over one content.
pub struct ModelFolderBuilder {
    folder: FolderWriter,
    manifest: ModelManifest,
    key: ShardKey,
    vectors: Vectors,
    activations: RowFile,
    full: Option<(Encoding, RowFile)>,
    values: Vec<f32>,
    rows: u32,
}

impl ModelFolderBuilder {
    /// Starts a folder at `target`, which must not exist.
    pub fn new(target: &Path, content: &Content, spec: ModelSpec) -> Result<Self, SegmentError> {
        vectors::check_dimension(spec.dimension)?;
        if spec.rescore == Some(VectorFormat::I8) {
            return Err(SegmentError::Refused("rescoring with bytes: choose f32, f16 or bf16".into()));
        }
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
            scaling: Scaling::none(),
            rescore: spec.rescore,
            activation_width,
            activation_format: spec.activation_format,
            calibration: Calibration::default(),
            files: Vec::new(),
        };
        let folder = FolderWriter::create(target)?;
        let items = u64::from(content.items());
        let width = spec.activation_format.width() as u32;
        let section = SectionSpec { tag: ROWS, width, count: items * u64::from(activation_width), lead: 0 };
        let activations = RowFile::create(&folder, (ACTIVATIONS, FileKind::Activations), key, section)?;
        let full = spec.rescore.map(|format| {
            let encoding = Encoding::unscaled(spec.dimension, spec.metric, format);
            let section = SectionSpec { tag: FULL, width: 1, count: items * encoding.stride() as u64, lead: 0 };
            RowFile::create(&folder, (RESCORE, FileKind::Rescore), key, section).map(|file| (encoding, file))
        });
        let full = full.transpose()?;
        let vectors = match spec.format {
            VectorFormat::I8 => Vectors::Kept(Vec::new()),
            VectorFormat::F32 | VectorFormat::Bf16 | VectorFormat::F16 => Vectors::Encoded(Vec::new()),
        };
        Ok(Self { folder, manifest, key, vectors, activations, full, values: Vec::new(), rows: 0 })
    }

    /// Links items also by what they are worth, by ordinal and in the unit of similarities; without it by their vectors
    /// alone. To be said before the first row.
    #[must_use]
    pub fn with_values(mut self, values: &[f32]) -> Self {
        // Searches add the same to all that is added to all.
        let mean = values.iter().sum::<f32>() / values.len().max(1) as f32;
        self.values = values.iter().map(|value| value - mean).collect();
        self
    }

    /// Adds the next items: their vectors and activations, row-major.
    pub fn push(&mut self, vectors: &[f32], activations: &[f32]) -> Result<(), SegmentError> {
        let encoding = self.manifest.encoding();
        let (dimension, rows) = (encoding.dimension, self.manifest.items);
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
            let vector = vectors::prepare(vector, dimension, encoding.metric)?;
            vectors::check_range(&vector, encoding.format)?;
            if let Some((encoding, file)) = &mut self.full {
                vectors::check_range(&vector, encoding.format)?;
                let mut row = Vec::with_capacity(encoding.stride());
                encoding.encode(&vector, &mut row);
                file.file.write(&row)?;
            }
            match &mut self.vectors {
                Vectors::Kept(kept) => kept.extend_from_slice(&vector),
                Vectors::Encoded(matrix) => encoding.encode(&vector, matrix),
            }
        }
        self.rows += count as u32;
        self.activations.file.write(&activations::stored(activations, self.manifest.activation_format)?)
    }

    /// Times the search, writes the folder and puts it in its place. `cpu_us` is
    /// the CPU time of this thread: what the machine does beside it is not what a search costs.
    pub fn seal(mut self, cpu_us: &dyn Fn() -> u64) -> Result<ModelSummary, SegmentError> {
        if self.rows != self.manifest.items {
            return Err(SegmentError::Refused(format!("{} rows of {}", self.rows, self.manifest.items)));
        }
        self.activations.finish(&mut self.folder)?;
        let full = match self.full {
            None => None,
            Some((_, file)) => Some(file.finish(&mut self.folder)?),
        };
        let matrix = match self.vectors {
            Vectors::Encoded(matrix) => matrix,
            Vectors::Kept(vectors) => scaled(&mut self.manifest, &vectors),
        };
        let links = linkage::link(&matrix, &self.manifest.encoding(), &self.values)?;
        let sections = graph::sections(matrix, &links);
        let graph_bytes = self.folder.container(GRAPH, FileKind::Graph, self.key, sections)?;
        let graph = self.folder.reopen(GRAPH, FileKind::Graph, self.key)?;
        let column = match full {
            None => None,
            Some(_) => Some(self.folder.reopen(RESCORE, FileKind::Rescore, self.key)?),
        };
        let searcher = Searcher::open(&self.manifest, &graph, column.as_ref())?;
        self.manifest.calibration = calibrate(&searcher, cpu_us)?;
        drop(searcher);

        let (items, calibration) = (self.manifest.items, self.manifest.calibration);
        let mut manifest = self.manifest;
        let (hash, bytes) = self.folder.seal(|files| {
            manifest.files = files;
            manifest
        })?;
        Ok(ModelSummary { items, bytes, graph_bytes, rescore_bytes: full.unwrap_or(0), hash, calibration })
    }
}

/// The rows as scaled bytes.
fn scaled(manifest: &mut ModelManifest, vectors: &[f32]) -> Vec<u8> {
    let dimension = manifest.dimension as usize;
    manifest.scaling = Scaling::of(vectors, dimension);
    let encoding = manifest.encoding();
    let mut matrix = Vec::with_capacity(manifest.items as usize * encoding.stride());
    vectors.chunks_exact(dimension).for_each(|vector| encoding.encode(vector, &mut matrix));
    matrix
}
