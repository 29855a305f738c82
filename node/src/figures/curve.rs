//! How much of the truth does each list find, and how many queries a second?

use super::{AnnSetup, Batch, CURVE_RESULTS, Dataset, Point, sealed::Judge};
use crate::pipeline::thread::cpu_us;
use crate::retrieval::{Ask, Found, Method, search};
use crate::segment::{Bitset, ModelFolder, SegmentError};
use gavel_member::clock;

/// Every list of the setup.
pub(super) fn curve(
    model: &ModelFolder,
    data: Dataset<'_>,
    setup: &AnnSetup,
    judge: &Judge,
) -> Result<Vec<Point>, SegmentError> {
    let all = Bitset::full(model.items());
    let mut found = Found::default();
    setup
        .lists
        .iter()
        .map(|list| {
            let mut answers = Vec::new();
            for query in data.queries.chunks_exact(data.dimension) {
                one(model, query, &all, *list, &mut found)?;
                answers.push(found.items().to_vec());
            }
            let recall = recall(data, judge, &answers);
            let qps = rate(setup.seconds, data, |query| one(model, query, &all, *list, &mut found))?;
            Ok(Point { list: *list, recall, qps })
        })
        .collect()
}

fn one(model: &ModelFolder, query: &[f32], all: &Bitset, list: usize, found: &mut Found) -> Result<(), SegmentError> {
    let ask = Ask { eligible: all.len(), items: all.len(), quota: CURVE_RESULTS };
    search::nearest(model, query, all, (Some(Method::Plain { list }), ask), (found, cpu_us)).map(drop)
}

/// Mean recall of the answers.
pub(super) fn recall(data: Dataset<'_>, judge: &Judge, answers: &[Vec<u32>]) -> f64 {
    let wanted = CURVE_RESULTS as usize;
    let truth = |index: usize| -> Vec<u32> {
        let row = data.truth.get(index * data.depth..).unwrap_or(&[]);
        row.iter().take(wanted).map(|id| u32::try_from(*id).unwrap_or(0)).collect()
    };
    let queries = data.queries.chunks_exact(data.dimension);
    let hits: usize =
        queries.zip(answers).enumerate().map(|(n, (query, found))| judge.hits(query, found, &truth(n))).sum();
    hits as f64 / (answers.len().max(1) * wanted) as f64
}

/// Queries a second of CPU time: the best of whole passes until the time is over, at least two.
pub(super) fn rate(
    seconds: f64,
    data: Dataset<'_>,
    mut each: impl FnMut(&[f32]) -> Result<(), SegmentError>,
) -> Result<f64, SegmentError> {
    let queries = data.queries.len() / data.dimension;
    let (mut best, mut spent, mut passes) = (f64::INFINITY, 0.0, 0);
    while spent < seconds || passes < 2 {
        let start = cpu_us();
        for query in data.queries.chunks_exact(data.dimension) {
            each(query)?;
        }
        let took = (cpu_us() - start).max(1) as f64 / 1e6;
        (best, spent, passes) = (took.min(best), spent + took, passes + 1);
    }
    Ok(queries as f64 / best)
}

/// All queries by one thread, then by several, each by all of them.
pub(super) fn batch(model: &ModelFolder, data: Dataset<'_>, setup: &AnnSetup) -> Result<Batch, SegmentError> {
    let list = setup.lists.get(setup.lists.len() / 2).copied().unwrap_or(64);
    let all = Bitset::full(model.items());
    let queries = data.queries.len() / data.dimension;
    // As many passes as take a second, so that starting threads counts for nothing.
    let mut found = Found::default();
    let qps = rate(0.2, data, |query| one(model, query, &all, list, &mut found))?;
    let passes = (qps / queries as f64).ceil().max(1.0) as usize;
    let turn = || -> Result<u64, SegmentError> {
        let (mut found, start) = (Found::default(), cpu_us());
        for _ in 0..passes {
            for query in data.queries.chunks_exact(data.dimension) {
                one(model, query, &all, list, &mut found)?;
            }
        }
        Ok(cpu_us() - start)
    };
    let start = clock::now_us().0;
    turn()?;
    let alone = (clock::now_us().0 - start).max(1) as f64 / 1e6;
    let start = clock::now_us().0;
    let cpu = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..setup.threads).map(|_| scope.spawn(turn)).collect();
        let failed = || SegmentError::Refused("a thread of the batch ended early".into());
        threads.into_iter().map(|thread| thread.join().map_err(|_| failed())?).sum::<Result<u64, SegmentError>>()
    })?;
    let together = (clock::now_us().0 - start).max(1) as f64 / 1e6;
    let one_pass = (passes * queries) as f64;
    Ok(Batch {
        threads: setup.threads,
        list,
        qps_of_one: one_pass / alone,
        qps_of_all: one_pass * setup.threads as f64 / together,
        qps_per_cpu_of_all: one_pass * setup.threads as f64 / (cpu.max(1) as f64 / 1e6),
    })
}
