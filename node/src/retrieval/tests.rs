//! Is what the planner finds what brute force finds?

use super::*;
use crate::segment::{
    Metric, Term, VectorFormat,
    testing::{DIMENSION, Kind, PERCENTS, Random, STORE, clock, clustered, sealed_content, sealed_model},
};
use std::{cell::Cell, collections::BTreeSet};

const QUOTA: u32 = 50;

fn shard(items: u64, per_item: u64, kind: impl Into<Kind>) -> Shard {
    shard_of(&clustered(items as usize, DIMENSION, 3), per_item, kind)
}

fn shard_of(vectors: &[Vec<f32>], per_item: u64, kind: impl Into<Kind>) -> Shard {
    let dir = tempfile::tempdir().unwrap();
    let content = sealed_content(&dir.path().join("content"), vectors.len() as u64, per_item);
    let model = sealed_model(&dir.path().join("model"), &content, vectors, kind);
    // The maps outlive their names.
    Shard::sealed(content, model).unwrap()
}

fn find(shard: &Shard, vector: &[f32], terms: &[Term], mode: Mode) -> Retrieved {
    let targeting = TargetingQuery { terms, ..TargetingQuery::default() };
    let query =
        RetrievalQuery { vector, targeting, quota: QUOTA, mode, values: None, expired: &|| false, cpu_us: &clock };
    retrieve(shard, &query, &mut RetrievalScratch::default()).unwrap()
}

/// Mean recall over queries, and how many were answered by a walk.
fn recall(shard: &Shard, values: &[u64], mode: Mode) -> (f64, usize) {
    let terms = [Term { dimension: STORE, values: values.to_vec(), ..Term::default() }];
    let queries = clustered(30, DIMENSION, 77);
    let (mut sum, mut walks) = (0.0, 0);
    for query in &queries {
        let exact = find(shard, query, &terms, Mode::Exact);
        let found = find(shard, query, &terms, mode);
        assert!(found.finished && found.items_seen == shard.items());
        assert_eq!(found.eligible, exact.eligible);
        walks += usize::from(found.plan.method.is_walk());
        // Similarities of both ways are the same to the bit, so whole pairs are compared.
        let pairs = |r: &Retrieved| r.items.iter().map(|(i, s)| (*i, s.to_bits())).collect::<BTreeSet<_>>();
        let (truth, found) = (pairs(&exact), pairs(&found));
        sum += truth.intersection(&found).count() as f64 / truth.len().max(1) as f64;
    }
    (sum / queries.len() as f64, walks)
}

#[test]
fn recall_holds_at_every_selectivity() {
    let scaled = |metric, rescore| Kind { metric, format: VectorFormat::I8, rescore };
    for kind in [
        (Metric::Ip, VectorFormat::Bf16).into(),
        (Metric::Cos, VectorFormat::F32).into(),
        (Metric::L2, VectorFormat::F16).into(),
        scaled(Metric::Ip, Some(VectorFormat::F32)),
        scaled(Metric::Cos, Some(VectorFormat::F16)),
        scaled(Metric::L2, None),
    ] {
        let kind: Kind = kind;
        let shard = shard(5_000, 1, kind);
        for percent in PERCENTS {
            let (recall, _) = recall(&shard, &[percent], Mode::Auto);
            assert!(recall >= 0.95, "{kind:?} at {percent} %: {recall}");
        }
        for values in [vec![50, 20, 10, 5, 2, 1, 1_000], vec![50], vec![10]] {
            let (recall, walks) = recall(&shard, &values, Mode::Graph);
            assert!(recall >= 0.95 && walks == 30, "{kind:?} walking {values:?}: {recall}");
        }
    }
}

/// As a trained tower makes them: one direction stands for "popular", and the further along it, the longer. Linked
/// by inner product, a walk found a third of them.
#[test]
fn unequal_lengths_lose_nothing() {
    let mut random = Random(5);
    let stretched = |mut vector: Vec<f32>| {
        let length = (0.6 * random.normal()).exp();
        vector.iter_mut().for_each(|x| *x *= length);
        vector[0] += 2.0 * length;
        vector
    };
    let vectors: Vec<_> = clustered(5_000, DIMENSION, 3).into_iter().map(stretched).collect();
    let shard = shard_of(&vectors, 1, (Metric::Ip, VectorFormat::Bf16));
    for values in [vec![50, 20, 10, 5, 2, 1, 1_000], vec![50]] {
        let (recall, walks) = recall(&shard, &values, Mode::Graph);
        assert!(recall >= 0.95 && walks == 30, "walking {values:?}: {recall}");
    }
}

#[test]
fn a_hundred_ads_an_item_change_nothing() {
    let kind = (Metric::Ip, VectorFormat::Bf16);
    let (one, hundred) = (shard(1_000, 1, kind), shard(1_000, 100, kind));
    let everything = [Term { dimension: STORE, values: vec![50, 20, 10, 5, 2, 1, 1_000], ..Term::default() }];
    for query in clustered(20, DIMENSION, 78) {
        let (a, b) = (find(&one, &query, &everything, Mode::Graph), find(&hundred, &query, &everything, Mode::Graph));
        // Each has timed its own searches and may take another way.
        let other: BTreeSet<_> = b.items.iter().map(|(item, similarity)| (*item, similarity.to_bits())).collect();
        let same = a.items.iter().filter(|(item, similarity)| other.contains(&(*item, similarity.to_bits()))).count();
        assert!(a.items.len() == 50 && same >= 48, "{same} of {}", a.items.len());
        assert_eq!((a.eligible.count, b.eligible.count), (1_000, 100_000));
    }
    for mode in [Mode::Auto, Mode::Graph] {
        let (recall, _) = recall(&hundred, &[1], mode);
        assert!(recall >= 0.95, "{recall}");
    }
}

#[test]
fn a_deadline_keeps_what_was_found() {
    let shard = shard(5_000, 1, (Metric::Ip, VectorFormat::F32));
    let query = &clustered(1, DIMENSION, 79)[0];
    let terms = [Term { dimension: STORE, values: vec![50, 1], ..Term::default() }];
    for (mode, looks) in [(Mode::Exact, 4), (Mode::Graph, 2), (Mode::Graph, 0)] {
        let left = Cell::new(looks);
        let expired = || {
            left.set(left.get() - 1);
            left.get() < 0
        };
        let targeting = TargetingQuery { terms: &terms, ..TargetingQuery::default() };
        let query = RetrievalQuery {
            vector: query,
            targeting,
            quota: QUOTA,
            mode,
            values: None,
            expired: &expired,
            cpu_us: &clock,
        };
        let found = retrieve(&shard, &query, &mut RetrievalScratch::default()).unwrap();
        assert!(!found.finished);
        assert!(found.items_seen < shard.items());
        assert!(!found.items.is_empty());
        assert!(found.items.iter().all(|(item, _)| shard.ads_of(*item).any(|ad| found.eligible.ads.contains(ad))));
        // The walk stops within a list or two, not after the graph.
        assert!(left.get() > -20, "{mode:?}: {}", left.get());
    }
}

#[test]
fn a_bonus_moves_items_and_nothing_is_found_of_nothing() {
    let shard = shard(2_000, 1, (Metric::Ip, VectorFormat::F32));
    let query = &clustered(1, DIMENSION, 79)[0];
    let mut bonus = vec![0.0; 2_000];
    bonus[1_234] = 100.0;
    for mode in [Mode::Exact, Mode::Auto] {
        let targeting = TargetingQuery { blocked_advertisers: &[3], ..TargetingQuery::default() };
        let terms = [Term { dimension: STORE, values: vec![50, 20, 10, 5, 2, 1, 1_000], ..Term::default() }];
        let targeting = TargetingQuery { terms: &terms, ..targeting };
        let asked = RetrievalQuery {
            vector: query,
            targeting,
            quota: 5,
            mode,
            values: Some(Values { bounds: &bonus, among: &|item, _| bonus[item as usize] }),
            expired: &|| false,
            cpu_us: &clock,
        };
        let found = retrieve(&shard, &asked, &mut RetrievalScratch::default()).unwrap();
        if mode == Mode::Exact {
            assert_eq!(found.items[0].0, 1_234);
        }
        assert!(found.items.iter().all(|(item, _)| shard.advertiser(*item).0 != 3));
    }
    let nothing = find(&shard, query, &[], Mode::Graph);
    assert_eq!((nothing.plan.method, nothing.items.len(), nothing.finished), (Method::Nothing, 0, true));
    let nan = RetrievalQuery {
        vector: &[f32::NAN; DIMENSION],
        targeting: TargetingQuery::default(),
        quota: 5,
        mode: Mode::Auto,
        values: None,
        expired: &|| false,
        cpu_us: &clock,
    };
    assert!(retrieve(&shard, &nan, &mut RetrievalScratch::default()).is_err());
}
