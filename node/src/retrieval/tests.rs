//! Is what the planner finds what brute force finds?

use super::*;
use crate::segment::{
    Metric, Term, VectorFormat,
    testing::{DIMENSION, Kind, PERCENTS, Random, STORE, clock, clustered, sealed_content, sealed_model},
};
use proptest::prelude::*;
use std::{
    cell::Cell,
    collections::{BTreeSet, HashSet},
    sync::LazyLock,
};

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

/// Twenty items with a hundred ads each.
static CROWDED: LazyLock<Shard> = LazyLock::new(|| shard(20, 100, (Metric::Ip, VectorFormat::F32)));

/// One item with a hundred eligible ads once took all places of the list.
#[test]
fn the_list_by_bid_counts_items() {
    let shard = &*CROWDED;
    let bids: Vec<(u32, u64)> = (0..shard.content().lines().len() as u32).map(|line| (line, 9)).collect();
    let listed = top_by_bid(shard, &Bitset::full(shard.ads()), &bids, 20, &|| false);
    assert_eq!(listed.ads, (0..20).map(|item| shard.ads_of(item).start).collect::<Vec<_>>());
    let late = top_by_bid(shard, &Bitset::full(shard.ads()), &bids, 20, &|| true);
    assert_eq!((late.ads.len(), late.lines, late.finished), (0, 0, false));
    // A deadline in the second level leaves the first whole.
    let left = Cell::new(1);
    let soon = || left.replace(left.get() - 1) <= 0;
    let levels: Vec<(u32, u64)> = bids.iter().map(|(line, _)| (*line, 100 - u64::from(*line).min(1))).collect();
    let cut = top_by_bid(shard, &Bitset::full(shard.ads()), &levels, 2_000, &soon);
    assert!(!cut.finished && cut.lines == 1 && !cut.ads.is_empty(), "{cut:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The twin sorts every eligible ad by its bid and takes each item the first time that it comes.
    #[test]
    fn the_list_by_bid_is_the_sorted_one(
        eligible in prop::collection::vec(0u32..2_000, 0..400),
        bids in prop::collection::vec((any::<prop::sample::Index>(), 0u64..5), 0..40),
        quota in 0u32..30,
    ) {
        let shard = &*CROWDED;
        let mut allowed = Bitset::empty(shard.ads());
        eligible.iter().for_each(|ad| allowed.insert(*ad));
        let lines: BTreeSet<(u64, u64)> = (0..shard.ads()).map(|ad| shard.line(ad)).collect();
        let lines: Vec<(u64, u64)> = lines.into_iter().collect();
        let mut seen = HashSet::new();
        let mut bids: Vec<(u32, u64)> = bids
            .iter()
            .map(|(at, bid)| (at.index(lines.len()) as u32, *bid))
            .filter(|(line, _)| seen.insert(*line))
            .collect();
        bids.sort_by_key(|(_, bid)| std::cmp::Reverse(*bid));
        let bid_of = |ad: u32| bids.iter().find(|(at, _)| lines[*at as usize] == shard.line(ad)).map(|(_, bid)| *bid);
        let mut all: Vec<(std::cmp::Reverse<u64>, u32)> =
            allowed.iter().filter_map(|ad| Some((std::cmp::Reverse(bid_of(ad)?), ad))).collect();
        all.sort_unstable();
        let mut items = HashSet::new();
        let twin: Vec<u32> = all.iter().map(|(_, ad)| *ad).filter(|ad| items.insert(shard.item_of(*ad))).take(quota as usize).collect();
        let listed = top_by_bid(shard, &allowed, &bids, quota, &|| false);
        prop_assert_eq!(listed, Listed { ads: twin, lines: bids.len(), finished: true });
    }
}

#[test]
fn a_bonus_moves_items_and_nothing_is_found_of_nothing() {
    let shard = shard(2_000, 1, (Metric::Ip, VectorFormat::F32));
    let query = &clustered(1, DIMENSION, 79)[0];
    let nearest = |values: Option<&[f32]>, mode| {
        let targeting = TargetingQuery { blocked_advertisers: &[3], ..TargetingQuery::default() };
        let terms = [Term { dimension: STORE, values: vec![50, 20, 10, 5, 2, 1, 1_000], ..Term::default() }];
        let targeting = TargetingQuery { terms: &terms, ..targeting };
        let asked = RetrievalQuery {
            vector: query,
            targeting,
            quota: 5,
            mode,
            values: None,
            expired: &|| false,
            cpu_us: &clock,
        };
        let worth = |item: u32, _: &Bitset| values.map_or(0.0, |bonus| bonus[item as usize]);
        let asked = RetrievalQuery { values: values.map(|bounds| Values { bounds, among: &worth }), ..asked };
        let found = retrieve(&shard, &asked, &mut RetrievalScratch::default()).unwrap();
        assert!(found.items.iter().all(|(item, _)| shard.advertiser(*item).0 != 3));
        found.items.iter().map(|(item, _)| *item).collect::<Vec<u32>>()
    };
    let mut bonus = vec![0.0; 2_000];
    bonus[1_234] = 100.0;
    assert_eq!(nearest(Some(&bonus), Mode::Exact)[0], 1_234, "however far it is");
    // Of those that are near, the last becomes the first by whatever way the planner finds them.
    let plain = nearest(None, Mode::Exact);
    let mut bonus = vec![0.0; 2_000];
    bonus[plain[4] as usize] = 100.0;
    for mode in [Mode::Exact, Mode::Auto, Mode::Graph] {
        assert_eq!(nearest(Some(&bonus), mode)[0], plain[4], "{mode:?}");
        assert_eq!(nearest(None, mode)[0], plain[0], "{mode:?}");
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
