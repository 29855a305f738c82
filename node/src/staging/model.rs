//! How do the vectors and activations of a shard's items get into a sealed model folder?
//!
//! The item side of the bundle runs over all items in blocks, with the features that the content keeps.
//! A feature that the catalogue does not have, or has in another kind, is missing for every item: it takes
//! the bundle's default and is counted, because a renamed column must show before revenue does.

use std::path::Path;
use std::sync::Arc;

use gavel_member::clock;
use gavel_model::{ActivationFormat, Bundle, FeatureRow, FeatureSpec, FeatureValue, Metric, Scratch};

use super::StagingError;
use super::holdings::LoadedBundle;
use crate::features::ItemColumns;
use crate::segment::{self, Content, ModelFolderBuilder, ModelSpec, ModelSummary, SegmentError, VectorFormat};

/// Items of one run of the item tower: enough rows for the matrix products to be efficient, few enough for
/// their activations (11 KB an item in a real ranker) to stay in the cache of one core.
const BLOCK_ITEMS: u32 = 256;

/// Between two checkpoints: what a process that ends loses at most, and enough for its fsync to be little beside it.
const CHECKPOINT_US: u64 = 2_000_000;

/// Bytes of an item's links in the graph: 32 neighbours on the lowest level, with those above and the heads.
const LINK_BYTES: usize = 160;

/// Binds the bundle's item features; says which of them the catalogue does not have.
fn bind<'a>(specs: &[FeatureSpec], content: &'a Content) -> ItemColumns<'a> {
    let columns = ItemColumns::bind(specs, content);
    for spec in columns.absent().filter_map(|at| specs.get(at)) {
        tracing::warn!(feature = %spec.name, "the catalogue has no such column: every item takes the default");
        metrics::counter!("gavel_node_missing_columns_total", "feature" => spec.name.clone()).increment(1);
    }
    columns
}

/// The values of an item; `missing` counts those of each feature that take the default.
fn counted(columns: &ItemColumns<'_>, item: u32, missing: &mut [u64]) -> FeatureRow {
    let row = columns.row(item);
    for (count, value) in missing.iter_mut().zip(&row.values) {
        *count += u64::from(*value == FeatureValue::Missing);
    }
    row
}

/// Is told how many items of how many are done, and may end the work.
pub type Watch<'a> = &'a mut dyn FnMut(u64, u64) -> Result<(), StagingError>;

/// Builds the folder: vectors, activations, graph.
pub fn build(
    folder: &Path,
    content: &Arc<Content>,
    loaded: &LoadedBundle,
    values: Option<&[f32]>,
    cpu_us: fn() -> u64,
    watch: Watch<'_>,
) -> Result<(), StagingError> {
    let (bundle, started) = (&loaded.bundle, clock::now_us());
    let schema = bundle.schema();
    let columns = bind(&schema.item, content);
    let mut builder = ModelFolderBuilder::resume(folder, content, spec(loaded))?.with_values(values.unwrap_or(&[]));
    let mut scratch = Scratch::default();
    let items = content.items();
    // Embedded, and linked.
    let total = 2 * u64::from(items);
    let mut missing = vec![0; schema.item.len()];
    let (begun, mut safe_at) = (builder.rows(), started);
    if begun > 0 {
        tracing::info!(begun, items, "a shard that was half embedded goes on");
        metrics::counter!("gavel_node_staging_resumed_items_total").increment(begun.into());
    }
    for first in (begun..items).step_by(BLOCK_ITEMS as usize) {
        watch(first.into(), total)?;
        if clock::now_us().0 > safe_at.0 + CHECKPOINT_US {
            builder.checkpoint()?;
            safe_at = clock::now_us();
        }
        let block = first..items.min(first + BLOCK_ITEMS);
        let rows: Vec<FeatureRow> = block.map(|item| counted(&columns, item, &mut missing)).collect();
        let output = bundle.run_items(&mut scratch, &rows)?;
        builder.push(&output.vectors, &stored_rows(output.lights, output.activations, bundle))?;
    }
    for (spec, count) in schema.item.iter().zip(missing).filter(|(_, count)| *count > 0) {
        metrics::counter!("gavel_node_missing_item_values_total", "feature" => spec.name.clone()).increment(count);
    }
    // An interruption while items are linked costs none of them.
    if begun < items {
        builder.checkpoint()?;
    }
    let summary = seal(builder, items, cpu_us, watch)?;
    let took_ms = clock::now_us().0.saturating_sub(started.0) / 1_000;
    let key = content.key();
    let (bytes, generation, shard) = (summary.bytes, key.generation, key.shard);
    tracing::info!(generation, shard, items, bytes, took_ms, calibration = ?summary.calibration, "model folder sealed");
    Ok(())
}

/// Links and seals; the watch may end it while items are linked.
fn seal(
    builder: ModelFolderBuilder,
    items: u32,
    cpu_us: fn() -> u64,
    watch: Watch<'_>,
) -> Result<ModelSummary, StagingError> {
    let items = u64::from(items);
    let mut stopped = None;
    let sealed = builder.seal_with(&cpu_us, &mut |linked| {
        // Some bundles are linked twice: half as much counts each time.
        let linked = items * linked.done / linked.total.max(1);
        watch(items + linked, 2 * items).map_err(|why| {
            stopped = Some(why);
            SegmentError::Interrupted
        })
    });
    match stopped {
        Some(why) => Err(why),
        None => Ok(sealed?),
    }
}

/// Bytes that the folder will have, about: rows, links of the graph, activations.
pub fn bytes(content: &Content, loaded: &LoadedBundle) -> u64 {
    let spec = spec(loaded);
    let rows = [Some(spec.format), spec.rescore].into_iter().flatten().map(|format| format.row_bytes(spec.dimension));
    let item = rows.sum::<usize>() + LINK_BYTES + spec.activation_width * spec.activation_format.width();
    u64::from(content.items()) * item as u64
}

/// What is stored of each item: what the light head reads, then what the ranker reads. The light order reads the
/// first few bytes of thousands of rows, the ranker all of hundreds.
fn stored_rows(lights: Vec<f32>, activations: Vec<f32>, bundle: &Bundle) -> Vec<f32> {
    let (light, wide) = (bundle.light_width(), bundle.activation_width());
    if light == 0 || wide == 0 {
        return if light == 0 { activations } else { lights };
    }
    let rows = lights.chunks_exact(light).zip(activations.chunks_exact(wide));
    rows.flat_map(|(light, wide)| light.iter().chain(wide).copied()).collect()
}

fn spec(loaded: &LoadedBundle) -> ModelSpec {
    let (bundle, schema) = (&loaded.bundle, loaded.bundle.schema());
    ModelSpec {
        bundle: bundle.hash(),
        dimension: schema.dimension,
        metric: match schema.metric {
            Metric::Ip => segment::Metric::Ip,
            Metric::Cos => segment::Metric::Cos,
            Metric::L2 => segment::Metric::L2,
        },
        // A quarter of the bytes of a scan and of a walk; the best are compared again as the tower made them, which
        // costs little beside the activations that an item has anyway.
        format: VectorFormat::I8,
        rescore: Some(VectorFormat::F32),
        activation_width: bundle.light_width() + bundle.activation_width(),
        activation_format: match schema.options.activations {
            ActivationFormat::F32 => VectorFormat::F32,
            ActivationFormat::Bf16 => VectorFormat::Bf16,
        },
    }
}
