//! Does a snapshot with changes answer like a shard that was sealed with them?

use super::*;
use crate::{
    segment::{
        Metric, Term, VectorFormat,
        testing::{
            DIMENSION, Random, STORE, activations, ads, ads_where, clock, clustered, item, sealed_content, sealed_model,
        },
    },
    shard::DeltaDocument,
};
use gavel_proto::ids::ItemId;
use std::collections::{BTreeMap, HashSet};

const SEALED: u64 = 400;

fn document(n: u64, vector: &[f32]) -> DeltaDocument {
    DeltaDocument { item: item(n), ads: ads(n, 2), vector: vector.to_vec(), activations: activations(n) }
}

#[test]
fn changes_are_exact() {
    let dir = tempfile::tempdir().unwrap();
    let content = sealed_content(&dir.path().join("content"), SEALED, 2);
    let vectors = clustered(SEALED as usize + 200, DIMENSION, 3);
    let sealed = &vectors[..SEALED as usize];
    let kind = (Metric::Ip, VectorFormat::F32);
    let model = sealed_model(&dir.path().join("model"), &content, sealed, kind);
    let mut shard = Shard::sealed(content, model).unwrap();
    let first = shard.clone();
    let mut truth: BTreeMap<u64, Vec<f32>> = (0..SEALED).zip(sealed.iter().cloned()).collect();
    let mut random = Random(4);
    for round in 0..8u64 {
        let upserts: Vec<u64> = (0..20).map(|_| random.below(SEALED + 100)).collect();
        let upserts: BTreeMap<u64, Vec<f32>> =
            upserts.into_iter().map(|n| (n, vectors[(SEALED + (n + round) % 200) as usize].clone())).collect();
        let gone: Vec<u64> = (0..10).map(|_| random.below(SEALED + 100)).filter(|n| !upserts.contains_key(n)).collect();
        let deletions: Vec<ItemId> = gone.iter().map(|n| item(*n).item).collect();
        shard = shard.apply(upserts.iter().map(|(n, v)| document(*n, v)).collect(), &deletions).unwrap();
        gone.iter().for_each(|n| drop(truth.remove(n)));
        truth.extend(upserts);
        check(&shard, &truth, &vectors[random.below(SEALED) as usize]);
    }
    // Who holds an old snapshot keeps it.
    check(&first, &(0..SEALED).zip(sealed.iter().cloned()).collect(), &vectors[0]);
    let wrong = DeltaDocument { activations: vec![], ..document(1, &vectors[0]) };
    assert!(shard.apply(vec![wrong], &[]).is_err());
    let foreign = DeltaDocument { ads: ads(2, 1), ..document(1, &vectors[0]) };
    assert!(shard.apply(vec![foreign], &[]).is_err());
}

/// Compares with brute force over the documents that should be there.
fn check(shard: &Shard, truth: &BTreeMap<u64, Vec<f32>>, query: &[f32]) {
    let terms = [Term { dimension: STORE, values: vec![50], ..Term::default() }];
    let [paused, leased] = [505, 506].map(|id| ads_where(shard.ads(), |ad| shard.campaign(ad).0 == id));
    let targeting = TargetingQuery {
        terms: &terms,
        blocked_campaigns: &[501],
        leased: Some(&leased),
        excluded: Some(&paused),
        ..Default::default()
    };
    let asks = |n: u64| {
        let runs = ![501, 505, 506].contains(&(500 + n % 13));
        runs && ads(n, 2).iter().any(|ad| ad.targeting[0].any_of.contains(&50))
    };
    let mut expected: Vec<(f32, ItemId)> = truth
        .iter()
        .filter(|(n, _)| asks(**n))
        .map(|(n, v)| (v.iter().zip(query).map(|(a, b)| a * b).sum(), item(*n).item))
        .collect();
    expected.sort_by(|a, b| b.0.total_cmp(&a.0));
    let query = RetrievalQuery {
        vector: query,
        targeting,
        quota: 30,
        mode: Mode::Exact,
        values: None,
        expired: &|| false,
        cpu_us: &clock,
    };
    let found = retrieve(shard, &query, &mut RetrievalScratch::default()).unwrap();
    assert_eq!(found.eligible_items as usize, expected.len());
    assert!(found.finished && found.items_seen == shard.items());
    let ids: Vec<ItemId> = found.items.iter().map(|(ordinal, _)| shard.item_id(*ordinal)).collect();
    assert_eq!(ids, expected.iter().take(30).map(|(_, id)| *id).collect::<Vec<_>>());
    let admitted = shard.admitted(&targeting);
    for (ordinal, _) in &found.items {
        let n = (shard.item_id(*ordinal).0 - 10) / 3;
        let mut row = Vec::new();
        let all = activations(n);
        shard.append_activations(*ordinal, 0..all.len(), &mut row);
        assert_eq!(row, all);
        row.clear();
        shard.append_activations(*ordinal, 1..all.len(), &mut row);
        assert_eq!(row, all[1..], "sealed or not, some columns are those of the whole row");
        shard.append_activations(*ordinal, 1..all.len() + 1, &mut row);
        assert_eq!(row.len(), all.len() - 1, "what is not there is not appended");
        assert_eq!(shard.find_item(shard.item_id(*ordinal)), Some(*ordinal));
        assert_eq!((shard.advertiser(*ordinal), shard.ads_of(*ordinal).len()), (item(n).advertiser, 2));
        for ad in shard.ads_of(*ordinal) {
            assert_eq!((shard.item_of(ad), shard.campaign(ad).0), (*ordinal, 500 + n % 13));
            let document = ads(n, 2).into_iter().find(|document| document.ad == shard.ad_id(ad)).unwrap();
            assert_eq!(shard.line(ad), (document.campaign.0, document.ad_group));
            assert_eq!(shard.refusal(ad, &targeting, &admitted).is_none(), found.eligible.ads.contains(ad));
        }
    }
    check_by_bid(shard, &found.eligible.ads);
}

/// The best ads by bid, each item once, with its best ad.
fn check_by_bid(shard: &Shard, eligible: &Bitset) {
    let bid_of = |line: (u64, u64)| match line {
        (505, _) => Some(99),
        (502, 1) | (504, _) => Some(9),
        (503, 0 | 2) => Some(5),
        _ => None,
    };
    let lines = (0..).zip(shard.content().lines());
    let mut bids: Vec<(u32, u64)> = lines.filter_map(|(place, line)| Some((place, bid_of(line)?))).collect();
    bids.sort_by_key(|(_, bid)| std::cmp::Reverse(*bid));
    let listed = top_by_bid(shard, eligible, &bids, 25, &|| false);
    let mut all: Vec<(u64, u32)> = eligible.iter().filter_map(|ad| Some((bid_of(shard.line(ad))?, ad))).collect();
    all.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut items = HashSet::new();
    all.retain(|(_, ad)| items.insert(shard.item_of(*ad)));
    assert!(listed.finished && listed.ads.len() == 25);
    assert_eq!(listed.ads, all.into_iter().take(25).map(|(_, ad)| ad).collect::<Vec<_>>());
}
