//! What would a user tower of one version find in an index of the other?
//!
//! The golden rows of the new bundle give users and items, of which each version reads the features that it knows. For
//! each user the nearest items, by the metric of the index's bundle, are found under the matched pair and under the mixed
//! ones; the share that a mixed pair finds of what the matched one finds is its recall. A recall as low as k / items is
//! that of chance: nothing is left of retrieval.

use super::{GateError, open};
use gavel_model::{Bundle, BundleError, Example, FeatureRow, Metric, Scratch};
use serde::Serialize;
use std::collections::HashSet;
use std::path::Path;

/// Nearest items that are compared.
const NEAREST: usize = 10;
/// Users and items that are looked at: enough for a percent of recall.
const ROWS_MAX: usize = 2_000;

/// What mixed pairs cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Skew {
    /// Users.
    pub users: usize,
    /// Items.
    pub items: usize,
    /// Nearest items that were compared.
    pub nearest: usize,
    /// False when the towers differ in dimension: a mixed pair does not even run.
    pub same_dimension: bool,
    /// False when the rankers split differently: a node would refuse the other's user part.
    pub same_partition: bool,
    /// What chance finds.
    pub recall_by_chance: f64,
    /// How alike the two versions are when each is matched: the floor of what a mixed pair may lose.
    pub recall_between_versions: f64,
    /// Old users against new items, of what new users find there; 0 when they do not run.
    pub recall_old_users_new_items: f64,
    /// New users against old items, of what old users find there; 0 when they do not run.
    pub recall_new_users_old_items: f64,
}

/// Measures a pair of bundles.
///
/// # Errors
/// When one cannot be opened, the new one has too few golden rows, or the old one reads one of their features as another
/// kind of value.
pub fn measure(old: &Path, new: &Path) -> Result<Skew, GateError> {
    let (old_path, new_path) = (old, new);
    let (old, new) = (open(old)?, open(new)?);
    let of = |path: &Path| {
        let path = path.to_path_buf();
        move |source: BundleError| GateError::Bundle { path, source }
    };
    // The same raw rows for both: those of one bundle are seldom those of the other, and never in the same order.
    let mut lines = new.golden_lines().map_err(of(new_path))?;
    lines.truncate(ROWS_MAX);
    let rows = lines.len();
    if rows < 2 * NEAREST {
        return Err(GateError::Empty("the new bundle needs at least 20 golden rows"));
    }
    let new_rows: Result<Vec<Example>, _> = lines.iter().map(|line| new.example(line)).collect();
    let old_rows: Result<Vec<Example>, _> = lines.iter().map(|line| old.example_of_other(line)).collect();
    let old_side = Side::of(&old, &old_rows.map_err(of(old_path))?)?;
    let new_side = Side::of(&new, &new_rows.map_err(of(new_path))?)?;
    let matched = [old_side.nearest(&old_side.queries), new_side.nearest(&new_side.queries)];
    let same_dimension = old.schema().dimension == new.schema().dimension;
    let mixed = |queries: &[Vec<f32>], index: &Side, truth: &[HashSet<usize>]| {
        if same_dimension { recall(truth, &index.nearest(queries)) } else { 0.0 }
    };
    Ok(Skew {
        users: rows,
        items: rows,
        nearest: NEAREST,
        same_dimension,
        same_partition: old.partition_hash() == new.partition_hash(),
        recall_by_chance: NEAREST as f64 / rows as f64,
        recall_between_versions: recall(&matched[0], &matched[1]),
        recall_old_users_new_items: mixed(&old_side.queries, &new_side, &matched[1]),
        recall_new_users_old_items: mixed(&new_side.queries, &old_side, &matched[0]),
    })
}

/// What the towers of one bundle make of the rows.
struct Side {
    metric: Metric,
    queries: Vec<Vec<f32>>,
    vectors: Vec<Vec<f32>>,
}

impl Side {
    fn of(bundle: &Bundle, rows: &[Example]) -> Result<Self, GateError> {
        let mut scratch = Scratch::default();
        let queries = rows.iter().map(|row| Ok(bundle.run_user(&mut scratch, &row.user)?.query));
        let queries = queries.collect::<Result<_, GateError>>()?;
        let items: Vec<FeatureRow> = rows.iter().map(|row| row.item.clone()).collect();
        let vectors = bundle.run_items(&mut scratch, &items)?.vectors;
        let vectors = vectors.chunks_exact(bundle.schema().dimension).map(<[f32]>::to_vec).collect();
        Ok(Self { metric: bundle.schema().metric, queries, vectors })
    }

    /// The items that each of these users finds nearest.
    fn nearest(&self, queries: &[Vec<f32>]) -> Vec<HashSet<usize>> {
        let of = |query: &Vec<f32>| {
            let similarity = |vector: &Vec<f32>| self.metric.similarity(query, vector);
            let mut scored: Vec<(f32, usize)> = self.vectors.iter().map(similarity).zip(0..).collect();
            scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            scored.into_iter().take(NEAREST).map(|(_, item)| item).collect()
        };
        queries.iter().map(of).collect()
    }
}

fn recall(truth: &[HashSet<usize>], found: &[HashSet<usize>]) -> f64 {
    let share = |(t, f): (&HashSet<usize>, &HashSet<usize>)| t.intersection(f).count() as f64 / t.len().max(1) as f64;
    truth.iter().zip(found).map(share).sum::<f64>() / truth.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use gavel_model::author::vary::{Variation, vary};

    fn demo() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../cluster/bootstrap/demo/bundle")
    }

    /// Vectors on a line, the longer the farther out: each metric has its own nearest ones.
    #[test]
    fn what_is_near_is_said_by_the_metric() {
        let vectors: Vec<Vec<f32>> = (0..40).map(|i| vec![i as f32, if i % 2 == 0 { 0.0 } else { i as f32 }]).collect();
        let nearest = |metric| {
            let side = Side { metric, queries: vec![], vectors: vectors.clone() };
            let mut found: Vec<usize> = side.nearest(&[vec![10.0, 0.0]])[0].iter().copied().collect();
            found.sort_unstable();
            found
        };
        assert_eq!(nearest(Metric::Ip), (30..40).collect::<Vec<_>>());
        assert_eq!(nearest(Metric::Cos), (1..11).map(|i| 2 * i).collect::<Vec<_>>());
        assert_eq!(nearest(Metric::L2), [3, 4, 5, 6, 7, 8, 10, 12, 14, 16]);
    }

    /// The towers of a bundle beside themselves, with golden rows in another order and fewer of them.
    #[test]
    fn rows_are_the_same_for_both_versions() {
        let dir = tempfile::tempdir().expect("a folder");
        let turned = dir.path().join("turned");
        std::fs::create_dir(&turned).expect("made");
        let mut files = std::collections::BTreeMap::new();
        for entry in std::fs::read_dir(demo()).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            files.insert(name, std::fs::read(&path).expect("a file"));
        }
        files.remove("BLAKE3SUMS");
        let text = zstd::decode_all(&files["golden.jsonl.zst"][..]).expect("zstd");
        let text = String::from_utf8(text).expect("text");
        let rows: String = text.lines().rev().take(100).map(|line| format!("{line}\n")).collect();
        files.insert("golden.jsonl.zst".to_owned(), zstd::encode_all(rows.as_bytes(), 1).expect("zstd"));
        let named = files.iter().map(|(name, content)| (name.as_str(), content.as_slice()));
        gavel_model::bundle::pack::write_folder(&turned, named).expect("written");
        for (old, new) in [(demo(), turned.clone()), (turned, demo())] {
            let skew = measure(&old, &new).expect("measured");
            assert_eq!((skew.recall_between_versions, skew.recall_old_users_new_items), (1.0, 1.0), "{skew:?}");
        }
    }

    #[test]
    fn a_pair_of_two_spaces_is_found_out_and_a_version_with_itself_costs_nothing() {
        let demo = demo();
        let dir = tempfile::tempdir().expect("a folder");
        let turned = dir.path().join("turned");
        vary(&demo, &turned, Variation::Space { seed: 1 }).expect("varied");
        let same = measure(&demo, &demo).expect("measured");
        assert_eq!((same.recall_old_users_new_items, same.recall_between_versions), (1.0, 1.0));
        let skew = measure(&demo, &turned).expect("measured");
        assert!(skew.recall_between_versions > 0.99, "each alone is as good as the other: {skew:?}");
        assert!(skew.recall_old_users_new_items < 0.3 && skew.recall_new_users_old_items < 0.3, "{skew:?}");
    }
}
