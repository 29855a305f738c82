//! How do vectors from a file become a sealed folder, and who judges what is found in it?

use super::{AnnSetup, BuildFigures, Dataset};
use crate::pipeline::thread::cpu_us;
use crate::segment::{
    Bitset, Content, ContentBuilder, DocItem, ModelFolder, ModelFolderBuilder, ModelSpec, SegmentError, ShardKey, TopK,
    VectorFormat, vectors::prepare, yardstick::Yardstick,
};
use gavel_member::clock;
use gavel_proto::ids::{AdvertiserId, ItemId};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

const KEY: ShardKey = ShardKey { generation: 1, shard: 0 };
const BUNDLE: [u8; 32] = [1; 32];

/// What a run leaves beside a folder for the next one. Whatever of it differs makes another index.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// BLAKE3 of the vectors that were sealed: f32, little-endian, row-major.
    base: String,
    dimension: usize,
    metric: String,
    format: String,
    rescore: Option<String>,
    build_s: f64,
    graph_bytes: u64,
    rescore_bytes: u64,
}

/// Seals the vectors, each as an item, unless that was done before, and opens the folder.
pub(super) fn seal(
    data: Dataset<'_>,
    setup: &AnnSetup,
    folder: &Path,
) -> Result<(ModelFolder, BuildFigures), SegmentError> {
    let rows = (data.base.len() / data.dimension) as u64;
    let note = folder.join("kept.json");
    let of_note = |e: &dyn std::fmt::Display| SegmentError::Refused(format!("{}: {e}", note.display()));
    let kept = match fs::read(&note) {
        Ok(bytes) => read(&bytes, data, setup).map_err(|e| of_note(&e))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let kept = build(data, setup, folder)?;
            fs::write(&note, serde_json::to_vec(&kept).map_err(|e| of_note(&e))?).map_err(|e| of_note(&e))?;
            kept
        }
        Err(error) => return Err(of_note(&error)),
    };
    let start = clock::now_us().0;
    let content = Content::open(&folder.join("content"), KEY)?;
    let model = ModelFolder::open(&folder.join("model"), &content, BUNDLE)?;
    model.prefault();
    let open_ms = (clock::now_us().0 - start) as f64 / 1e3;
    let is_same = u64::from(model.items()) == rows && model.dimension() == data.dimension;
    if !is_same || model.metric() != data.metric || model.format() != setup.format {
        let why = format!("{} holds other vectors: name another folder, or remove it", folder.display());
        return Err(SegmentError::Refused(why));
    }
    let vector_bytes = setup.format.row_bytes(data.dimension);
    let build = BuildFigures {
        rows: model.items(),
        dimension: data.dimension,
        build_s: kept.build_s,
        vector_bytes,
        link_bytes: kept.graph_bytes as f64 / rows as f64 - vector_bytes as f64,
        rescore_bytes: kept.rescore_bytes as f64 / rows as f64,
        open_ms,
        calibration: *model.calibration(),
    };
    Ok((model, build))
}

/// The note of an earlier run, if it is about the same index.
fn read(bytes: &[u8], data: Dataset<'_>, setup: &AnnSetup) -> Result<Kept, String> {
    let fix = "name another folder, or remove this one";
    let kept: Kept = serde_json::from_slice(bytes).map_err(|e| format!("{e}: {fix}"))?;
    let asked = note(data, setup);
    let pairs = [
        ("dimension", kept.dimension.to_string(), asked.dimension.to_string()),
        ("metric", kept.metric.clone(), asked.metric),
        ("format", kept.format.clone(), asked.format),
        ("format for rescoring", format!("{:?}", kept.rescore), format!("{:?}", asked.rescore)),
        ("hash of the vectors", kept.base.clone(), asked.base),
    ];
    match pairs.iter().find(|(_, kept, asked)| kept != asked) {
        None => Ok(kept),
        Some((what, kept, asked)) => Err(format!("the folder's {what} is {kept}, asked for is {asked}: {fix}")),
    }
}

/// What is asked for, before anything is built.
fn note(data: Dataset<'_>, setup: &AnnSetup) -> Kept {
    let mut hasher = blake3::Hasher::new();
    for values in data.base.chunks(4_096) {
        hasher.update(&values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
    }
    Kept {
        base: hasher.finalize().to_hex().to_string(),
        dimension: data.dimension,
        metric: format!("{:?}", data.metric),
        format: name(setup.format).to_owned(),
        rescore: setup.rescore.map(|format| name(format).to_owned()),
        build_s: 0.0,
        graph_bytes: 0,
        rescore_bytes: 0,
    }
}

fn build(data: Dataset<'_>, setup: &AnnSetup, folder: &Path) -> Result<Kept, SegmentError> {
    let rows = (data.base.len() / data.dimension) as u64;
    let mut builder = ContentBuilder::new(&folder.join("content"), KEY)?;
    for n in 0..rows {
        builder.push_item(DocItem { item: ItemId(n + 1), advertiser: AdvertiserId(1), ..DocItem::default() })?;
    }
    builder.seal()?;
    let content = Content::open(&folder.join("content"), KEY)?;
    let spec = ModelSpec {
        bundle: BUNDLE,
        dimension: data.dimension,
        metric: data.metric,
        format: setup.format,
        rescore: setup.rescore,
        activation_width: 0,
        activation_format: VectorFormat::F32,
    };
    let start = cpu_us();
    let mut builder = ModelFolderBuilder::new(&folder.join("model"), &content, spec)?;
    builder.push(data.base, &[])?;
    let summary = builder.seal(&cpu_us)?;
    let build_s = (cpu_us() - start) as f64 / 1e6;
    let (graph_bytes, rescore_bytes) = (summary.graph_bytes, summary.rescore_bytes);
    Ok(Kept { build_s, graph_bytes, rescore_bytes, ..note(data, setup) })
}

/// Knows the similarities by the vectors as they were given.
pub(super) struct Judge {
    yardstick: Yardstick,
    dimension: usize,
    metric: crate::segment::Metric,
}

impl Judge {
    pub(super) fn new(data: Dataset<'_>) -> Self {
        Self {
            yardstick: Yardstick::new(data.base, data.dimension, data.metric),
            dimension: data.dimension,
            metric: data.metric,
        }
    }

    /// How many of these are at least as near as the last of the true ones.
    pub(super) fn hits(&self, query: &[f32], found: &[u32], truth: &[u32]) -> usize {
        let Ok(query) = prepare(query, self.dimension, self.metric) else { return 0 };
        let nearest = self.yardstick.similarities(&query, truth);
        let floor = nearest.iter().copied().fold(f32::INFINITY, f32::min);
        // What two orders of the same sum differ by.
        let floor = floor - floor.abs() * 1e-6;
        let found = self.yardstick.similarities(&query, found);
        found.iter().filter(|similarity| **similarity >= floor).count().min(truth.len())
    }

    /// The nearest of the allowed.
    pub(super) fn nearest(&self, query: &[f32], allowed: &Bitset, count: u32) -> Vec<u32> {
        let Ok(query) = prepare(query, self.dimension, self.metric) else { return Vec::new() };
        let mut top = TopK::default();
        top.reset(count as usize);
        self.yardstick.scan(&query, allowed, &mut top);
        top.sorted().iter().map(|(_, item)| *item).collect()
    }
}

/// The word of a format.
pub(super) fn name(format: VectorFormat) -> &'static str {
    match format {
        VectorFormat::F32 => "f32",
        VectorFormat::Bf16 => "bf16",
        VectorFormat::F16 => "f16",
        VectorFormat::I8 => "i8",
    }
}
