//! What would a user tower of one version find in an index of the other?
//!
//! The golden rows of both bundles give users and items. For each user the nearest items are found under the matched
//! pair and under the mixed ones; the share that a mixed pair finds of what the matched one finds is its recall. A
//! recall as low as k / items is that of chance: nothing is left of retrieval.

use super::{GateError, open};
use gavel_model::{Bundle, Example, FeatureRow, Scratch};
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
/// When one cannot be opened, or there are too few golden rows.
pub fn measure(old: &Path, new: &Path) -> Result<Skew, GateError> {
    let (old_path, new_path) = (old, new);
    let (old, new) = (open(old)?, open(new)?);
    let of = |bundle: &Bundle, path: &Path| {
        let examples = bundle.golden_examples();
        examples.map_err(|source| GateError::Bundle { path: path.to_path_buf(), source })
    };
    let (old_rows, new_rows) = (of(&old, old_path)?, of(&new, new_path)?);
    // Rows are the same raw features only where both schemas say so; each bundle reads its own.
    let rows = old_rows.len().min(new_rows.len()).min(ROWS_MAX);
    if rows < 2 * NEAREST {
        return Err(GateError::Empty("both bundles need at least 20 golden rows, and the same ones"));
    }
    let (old_side, new_side) = (Side::of(&old, &old_rows[..rows])?, Side::of(&new, &new_rows[..rows])?);
    let matched = [nearest(&old_side.queries, &old_side.vectors), nearest(&new_side.queries, &new_side.vectors)];
    let same_dimension = old.schema().dimension == new.schema().dimension;
    let mixed = |queries: &[Vec<f32>], vectors: &[Vec<f32>], truth: &[HashSet<usize>]| {
        if same_dimension { recall(truth, &nearest(queries, vectors)) } else { 0.0 }
    };
    Ok(Skew {
        users: rows,
        items: rows,
        nearest: NEAREST,
        same_dimension,
        same_partition: old.partition_hash() == new.partition_hash(),
        recall_by_chance: NEAREST as f64 / rows as f64,
        recall_between_versions: recall(&matched[0], &matched[1]),
        recall_old_users_new_items: mixed(&old_side.queries, &new_side.vectors, &matched[1]),
        recall_new_users_old_items: mixed(&new_side.queries, &old_side.vectors, &matched[0]),
    })
}

/// What the towers of one bundle make of the rows.
struct Side {
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
        Ok(Self { queries, vectors })
    }
}

/// The nearest items of each user by inner product, which is what orders them for unit vectors, too.
fn nearest(queries: &[Vec<f32>], vectors: &[Vec<f32>]) -> Vec<HashSet<usize>> {
    let of = |query: &Vec<f32>| {
        let dot = |v: &Vec<f32>| query.iter().zip(v).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let mut scored: Vec<(f64, usize)> = vectors.iter().map(dot).zip(0..).collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        scored.into_iter().take(NEAREST).map(|(_, item)| item).collect()
    };
    queries.iter().map(of).collect()
}

fn recall(truth: &[HashSet<usize>], found: &[HashSet<usize>]) -> f64 {
    let share = |(t, f): (&HashSet<usize>, &HashSet<usize>)| t.intersection(f).count() as f64 / t.len().max(1) as f64;
    truth.iter().zip(found).map(share).sum::<f64>() / truth.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use gavel_model::author::vary::{Variation, vary};

    #[test]
    fn a_pair_of_two_spaces_is_found_out_and_a_version_with_itself_costs_nothing() {
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cluster/bootstrap/demo/bundle");
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
