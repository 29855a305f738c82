//! How near to the truth, how fast and how large is the search over these vectors?
//!
//! Behind `gavel bench ann`. Vectors that somebody brings are sealed into a model folder by the code that seals an
//! ad catalogue's, and searched by the planner's own steps, so that what is measured is what serves, with the formats that
//! a node stores (`i8`, and `f32` for rescoring) unless others are asked for. It stands in this crate because the benchmarks' crate sees servers only from outside. Beside it, in the same run, the
//! bare graph library on the same vectors.
//!
//! Times are CPU times of one thread. A find counts when it is at least as near as the last of the true ones, by
//! the vectors as they were given; ties then count for nobody and against nobody.

mod bare;
mod curve;
mod filtered;
mod report;
mod sealed;

pub use report::{AnnReport, BareFigures, Batch, BuildFigures, FilteredRow, Point, WayFigures};

use crate::segment::{Metric, SegmentError, VectorFormat};
use std::path::Path;

/// Results of the curve.
pub const CURVE_RESULTS: u32 = 10;
/// Results under a filter.
pub const FILTERED_RESULTS: u32 = 100;

/// Vectors and what is true of them; all row-major.
#[derive(Clone, Copy)]
pub struct Dataset<'a> {
    /// What is searched.
    pub base: &'a [f32],
    /// What is asked.
    pub queries: &'a [f32],
    /// The nearest rows of the base, nearest first, `depth` a query.
    pub truth: &'a [i32],
    /// Columns of the truth.
    pub depth: usize,
    /// Dimensions of a vector.
    pub dimension: usize,
    /// What "near" means.
    pub metric: Metric,
}

/// What is measured.
#[derive(Clone, Debug)]
pub struct AnnSetup {
    /// How vectors are stored.
    pub format: VectorFormat,
    /// How they are stored a second time.
    pub rescore: Option<VectorFormat>,
    /// Lists of the curve.
    pub lists: Vec<usize>,
    /// Shares that pass a filter; none = no table.
    pub selectivities: Vec<f64>,
    /// Queries under each filter.
    pub filtered_queries: usize,
    /// Formats of the bare library.
    pub bare: Vec<VectorFormat>,
    /// Threads of the batch.
    pub threads: usize,
    /// CPU seconds of a point of the curve, at least.
    pub seconds: f64,
}

/// Seals the vectors below `folder`, or takes what an earlier run has sealed there, and measures; `say` is told what is
/// being done.
pub fn measure(
    data: Dataset<'_>,
    setup: &AnnSetup,
    folder: &Path,
    say: &dyn Fn(&str),
) -> Result<AnnReport, SegmentError> {
    check(data)?;
    say("sealing: vectors, graph, calibration");
    let (model, build) = sealed::seal(data, setup, folder)?;
    let judge = sealed::Judge::new(data);
    say("the curve");
    let curve = curve::curve(&model, data, setup, &judge)?;
    say("the batch");
    let batch = curve::batch(&model, data, setup)?;
    let mut filtered = Vec::new();
    for share in &setup.selectivities {
        say(&format!("filters that pass {} %", share * 100.0));
        filtered.extend(filtered::rows(&model, data, setup, &judge, *share)?);
    }
    let mut bare = Vec::new();
    for format in &setup.bare {
        say(&format!("the bare library, {format:?}"));
        bare.push(bare::measure(data, *format, setup, &judge)?);
    }
    Ok(AnnReport { build, curve, batch, filtered, bare })
}

fn check(data: Dataset<'_>) -> Result<(), SegmentError> {
    let queries = data.queries.len() / data.dimension.max(1);
    let rows = data.base.len() / data.dimension.max(1);
    if queries == 0 || rows == 0 || data.depth < CURVE_RESULTS as usize {
        let why = format!("{rows} vectors, {queries} queries and {} true neighbours a query", data.depth);
        return Err(SegmentError::Refused(format!("{why}: at least 1, 1 and {CURVE_RESULTS} are needed")));
    }
    if data.truth.len() != queries * data.depth
        || data.truth.iter().any(|id| usize::try_from(*id).map_or(true, |id| id >= rows))
    {
        return Err(SegmentError::Refused("the truth does not fit the vectors: another file, or another range".into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
