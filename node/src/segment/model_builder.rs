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
    checkpoint::{PROGRESS, Progress},
    codec,
    container::{FileKind, SectionSpec, ShardKey, layout},
    content::Content,
    error::SegmentError,
    folder::{FolderWriter, HashedFile},
    graph,
    linkage::{self, Pause},
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
    start: u64,
    end: u64,
}

impl RowFile {
    /// Starts the file, or goes on where it had come to.
    fn open(
        folder: &FolderWriter,
        (name, kind): (&str, FileKind),
        key: ShardKey,
        section: SectionSpec,
        begun: Option<&Progress>,
    ) -> Result<Self, SegmentError> {
        let layout = layout(kind, key, &[section]);
        let start = layout.starts.first().copied().unwrap_or(layout.total);
        let end = layout.total;
        if let Some(begun) = begun {
            let was = begun.file(name).filter(|was| (start..=end).contains(&was.bytes));
            let was = was.ok_or_else(|| SegmentError::damaged(&folder.path(name), "a checkpoint without it"))?;
            return Ok(Self { file: folder.file_after(was)?, start, end });
        }
        let mut file = folder.file(name)?;
        file.write(&layout.head)?;
        file.write(&vec![0; start as usize - layout.head.len()])?;
        Ok(Self { file, start, end })
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
    /// BLAKE3 of what the rows are made from and of their form.
    of: [u8; 32],
}

impl ModelFolderBuilder {
    /// Starts a folder at `target`, which must not exist; what an interrupted builder left is thrown away.
    pub fn new(target: &Path, content: &Content, spec: ModelSpec) -> Result<Self, SegmentError> {
        Self::with(FolderWriter::create(target)?, content, spec, None)
    }

    /// Goes on with what an interrupted builder of the same rows had made safe, if it is whole; starts anew otherwise.
    /// [`Self::rows`] says which row comes next.
    pub fn resume(target: &Path, content: &Content, spec: ModelSpec) -> Result<Self, SegmentError> {
        let begun = FolderWriter::resume(target, &[PROGRESS, ACTIVATIONS, RESCORE]).and_then(|folder| {
            let of = manifest(content, spec).ok().and_then(|m| codec::encode(&m).ok())?.1;
            Some((Progress::read(&folder.path(PROGRESS), &of)?, folder))
        });
        // Bytes that are not as they were are no reason to fail: the rows can be made again.
        match begun.map(|(begun, folder)| Self::with(folder, content, spec, Some(&begun))) {
            Some(Ok(builder)) => Ok(builder),
            Some(Err(_)) | None => Self::new(target, content, spec),
        }
    }

    fn with(
        folder: FolderWriter,
        content: &Content,
        spec: ModelSpec,
        begun: Option<&Progress>,
    ) -> Result<Self, SegmentError> {
        let (key, manifest) = (content.key(), manifest(content, spec)?);
        let of = codec::encode(&manifest)?.1;
        let items = u64::from(content.items());
        let width = spec.activation_format.width() as u32;
        let count = items * u64::from(manifest.activation_width);
        let section = SectionSpec { tag: ROWS, width, count, lead: 0 };
        let activations = RowFile::open(&folder, (ACTIVATIONS, FileKind::Activations), key, section, begun)?;
        let full = spec.rescore.map(|format| {
            let encoding = Encoding::unscaled(spec.dimension, spec.metric, format);
            let section = SectionSpec { tag: FULL, width: 1, count: items * encoding.stride() as u64, lead: 0 };
            RowFile::open(&folder, (RESCORE, FileKind::Rescore), key, section, begun).map(|file| (encoding, file))
        });
        let full = full.transpose()?;
        let vectors = match spec.format {
            VectorFormat::I8 => Vectors::Kept(Vec::new()),
            VectorFormat::F32 | VectorFormat::Bf16 | VectorFormat::F16 => Vectors::Encoded(Vec::new()),
        };
        let mut builder = Self { folder, manifest, key, of, vectors, activations, full, values: Vec::new(), rows: 0 };
        if let Some(begun) = begun {
            builder.reload(begun.rows)?;
        }
        Ok(builder)
    }

    /// Takes the vectors of rows that are safe from the second column, which has them as the tower made them.
    fn reload(&mut self, rows: u32) -> Result<(), SegmentError> {
        let path = self.folder.path(RESCORE);
        let exact = self.full.as_ref().filter(|(encoding, _)| encoding.format == VectorFormat::F32);
        let (full, file) = exact.ok_or_else(|| SegmentError::damaged(&path, "rows that are not kept as they were"))?;
        let bytes = rows as usize * full.stride();
        let (from, held) = (file.start as usize, file.file.bytes() as usize);
        let stored = std::fs::read(&path).map_err(|e| SegmentError::io(&path, e))?;
        let stored = stored.get(from..from + bytes).filter(|_| held == from + bytes);
        let stored = stored.ok_or_else(|| SegmentError::damaged(&path, "another number of rows"))?;
        let encoding = self.manifest.encoding();
        for row in stored.chunks_exact(full.stride()) {
            let vector = full.decode(row);
            match &mut self.vectors {
                Vectors::Kept(kept) => kept.extend_from_slice(&vector),
                Vectors::Encoded(matrix) => encoding.encode(&vector, matrix),
            }
        }
        self.rows = rows;
        Ok(())
    }

    /// Rows so far.
    #[must_use]
    pub const fn rows(&self) -> u32 {
        self.rows
    }

    /// Makes the rows so far safe, so that a builder after this one can go on with them.
    pub fn checkpoint(&mut self) -> Result<(), SegmentError> {
        let mut files = vec![self.activations.file.checkpoint()?];
        if let Some((_, full)) = &mut self.full {
            files.push(full.file.checkpoint()?);
        }
        Progress::new(self.of, self.rows, files).write(&self.folder.path(PROGRESS))
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
    pub fn seal(self, cpu_us: &dyn Fn() -> u64) -> Result<ModelSummary, SegmentError> {
        self.seal_with(cpu_us, &mut |_| Ok(()))
    }

    /// The same, and asks now and then whether it goes on while items are linked, which takes longest. Until the folder
    /// has its place, a builder after this one finds the rows that were made safe.
    pub fn seal_with(mut self, cpu_us: &dyn Fn() -> u64, pause: Pause<'_>) -> Result<ModelSummary, SegmentError> {
        if self.rows != self.manifest.items {
            return Err(SegmentError::Refused(format!("{} rows of {}", self.rows, self.manifest.items)));
        }
        let matrix = match self.vectors {
            Vectors::Encoded(matrix) => matrix,
            Vectors::Kept(vectors) => scaled(&mut self.manifest, &vectors),
        };
        let links = linkage::link(&matrix, &self.manifest.encoding(), &self.values, pause)?;
        self.activations.finish(&mut self.folder)?;
        let full = match self.full {
            None => None,
            Some((_, file)) => Some(file.finish(&mut self.folder)?),
        };
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
        let (hash, bytes) = self.folder.seal_without(&[PROGRESS], |files| {
            manifest.files = files;
            manifest
        })?;
        Ok(ModelSummary { items, bytes, graph_bytes, rescore_bytes: full.unwrap_or(0), hash, calibration })
    }
}

/// What a folder says of itself, before anything is in it.
fn manifest(content: &Content, spec: ModelSpec) -> Result<ModelManifest, SegmentError> {
    vectors::check_dimension(spec.dimension)?;
    if spec.rescore == Some(VectorFormat::I8) {
        return Err(SegmentError::Refused("rescoring with bytes: choose f32, f16 or bf16".into()));
    }
    let key = content.key();
    let activation_width = u32::try_from(spec.activation_width)
        .map_err(|_| SegmentError::Refused(format!("{} activations an item", spec.activation_width)))?;
    Ok(ModelManifest {
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
    })
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
