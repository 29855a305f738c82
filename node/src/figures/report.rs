//! What has been measured?

use crate::segment::Calibration;
use serde::Serialize;

/// All of a run.
#[derive(Clone, Debug, Serialize)]
pub struct AnnReport {
    /// Building and size.
    pub build: BuildFigures,
    /// Recall against speed.
    pub curve: Vec<Point>,
    /// Several threads.
    pub batch: Batch,
    /// Under filters.
    pub filtered: Vec<FilteredRow>,
    /// The bare library.
    pub bare: Vec<BareFigures>,
}

/// Building and size.
#[derive(Clone, Debug, Serialize)]
pub struct BuildFigures {
    /// Vectors.
    pub rows: u32,
    /// Their dimensions.
    pub dimension: usize,
    /// CPU seconds from the first row to the sealed folder, calibration included.
    pub build_s: f64,
    /// Bytes of a vector in the graph's file.
    pub vector_bytes: usize,
    /// Bytes of links, per vector.
    pub link_bytes: f64,
    /// Bytes of the second column, per vector.
    pub rescore_bytes: f64,
    /// Milliseconds from the folder on disk to an open, verified and prefaulted one.
    pub open_ms: f64,
    /// What searching costs.
    pub calibration: Calibration,
}

/// One list of the curve.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Point {
    /// Candidates.
    pub list: usize,
    /// Share of the ten nearest that was found.
    pub recall: f64,
    /// Queries a second of CPU time.
    pub qps: f64,
}

/// One thread against several, by wall time.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Batch {
    /// Threads.
    pub threads: usize,
    /// Candidates.
    pub list: usize,
    /// Queries a second of one.
    pub qps_of_one: f64,
    /// Queries a second of all.
    pub qps_of_all: f64,
    /// Queries a CPU second of all: what is left when the machine is shared.
    pub qps_per_cpu_of_all: f64,
}

/// One way under one filter.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct WayFigures {
    /// CPU microseconds a query.
    pub us: f64,
    /// Share of the hundred nearest that was found.
    pub recall: f64,
}

/// All ways under one filter.
#[derive(Clone, Debug, Serialize)]
pub struct FilteredRow {
    /// Share that passes.
    pub share: f64,
    /// `random` or `clustered`.
    pub kind: &'static str,
    /// The scan.
    pub scan: WayFigures,
    /// The walk among the allowed.
    pub filtered: WayFigures,
    /// The walk everywhere; none where its list would be most of the graph.
    pub plain: Option<WayFigures>,
    /// What the planner chose.
    pub planned: WayFigures,
    /// How often it chose scan, filtered, plain: over all queries of all turns, between which it learns.
    pub choices: [usize; 3],
    /// What it expected, microseconds.
    pub estimate_us: f64,
    /// Its time against the best fixed way with a recall of .95; none where no way has that.
    pub ratio: Option<f64>,
}

/// The bare library.
#[derive(Clone, Debug, Serialize)]
pub struct BareFigures {
    /// How it stores vectors.
    pub format: String,
    /// CPU seconds of the build.
    pub build_s: f64,
    /// Bytes of its file, per vector.
    pub bytes: f64,
    /// Recall against speed.
    pub curve: Vec<Point>,
}
