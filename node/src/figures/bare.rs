//! What does the graph library do by itself, on the same vectors?
//!
//! As anybody would use it: its own metric, its own conversion to the stored format, the same neighbours and
//! the same list while building, one thread.

use super::{AnnSetup, BareFigures, CURVE_RESULTS, Dataset, Point, curve, sealed};
use crate::pipeline::thread::cpu_us;
use crate::segment::{Metric, SegmentError, VectorFormat};
use usearch::{Index, IndexOptions, MetricKind, ScalarKind};

/// As in our graphs.
const CONNECTIVITY: usize = 16;
const EXPANSION_ADD: usize = 128;

fn library(e: impl std::fmt::Display) -> SegmentError {
    SegmentError::Graph(e.to_string())
}

pub(super) fn measure(
    data: Dataset<'_>,
    format: VectorFormat,
    setup: &AnnSetup,
    judge: &sealed::Judge,
) -> Result<BareFigures, SegmentError> {
    let rows = data.base.len() / data.dimension;
    let options = IndexOptions {
        dimensions: data.dimension,
        metric: match data.metric {
            Metric::Ip => MetricKind::IP,
            Metric::Cos => MetricKind::Cos,
            Metric::L2 => MetricKind::L2sq,
        },
        quantization: match format {
            VectorFormat::F32 => ScalarKind::F32,
            VectorFormat::Bf16 => ScalarKind::BF16,
            VectorFormat::F16 => ScalarKind::F16,
            VectorFormat::I8 => ScalarKind::I8,
        },
        connectivity: CONNECTIVITY,
        expansion_add: EXPANSION_ADD,
        expansion_search: 64,
        multi: false,
    };
    let start = cpu_us();
    let index = Index::new(&options).map_err(library)?;
    index.reserve_capacity_and_threads(rows, 1).map_err(library)?;
    for (key, vector) in (0u64..).zip(data.base.chunks_exact(data.dimension)) {
        index.add(key, vector).map_err(library)?;
    }
    let build_s = (cpu_us() - start) as f64 / 1e6;
    let search = |query: &[f32]| index.search(query, CURVE_RESULTS as usize).map_err(library);
    let points = setup.lists.iter().map(|list| {
        index.change_expansion_search(*list);
        let mut answers = Vec::new();
        for query in data.queries.chunks_exact(data.dimension) {
            answers.push(search(query)?.keys.iter().map(|key| u32::try_from(*key).unwrap_or(0)).collect());
        }
        let recall = curve::recall(data, judge, &answers);
        Ok(Point { list: *list, recall, qps: curve::rate(setup.seconds, data, |query| search(query).map(drop))? })
    });
    let curve = points.collect::<Result<Vec<_>, SegmentError>>()?;
    let bytes = index.serialized_length() as f64 / rows as f64;
    Ok(BareFigures { format: sealed::name(format).to_owned(), build_s, bytes, curve })
}
