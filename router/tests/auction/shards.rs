//! The merged auction is the single-node auction (ME1, AU2, A10): whatever the partition, the arrival
//! order, the limits, the ties, and the ads that are taken out afterwards.

use gavel_proto::cut::{Neighbours, SPARE, cut};
use gavel_proto::epoch::Epoch;
use gavel_proto::ids::{AdId, AdvertiserId, ShardId};
use gavel_proto::money::Micros;
use gavel_router::auction::{AuctionRule, AuctionTerms, Mechanism, reclear_without};
use gavel_router::merge::{MergeError, Offer, Ranking, ShardList, merge};

use crate::market::{Dice, any_terms, offer, offers, ranking, rule, sold};

const EPOCH: Epoch = Epoch { map: 3, generation: 2, model: 7, delivery: 2 };

/// What the shards send of these offers: each its part, in auction order, after the cut.
fn answers(offers: &[Offer], rule: &AuctionRule, shard_of: impl Fn(usize) -> u32, shards: u32) -> Vec<ShardList> {
    let list = |shard: u32| {
        let held: Vec<Offer> = (0..offers.len())
            .filter(|i| shard_of(*i) == shard)
            .map(|i| Offer { shard: ShardId(shard), ..offers[i] })
            // Reserves are applied before the cut (decision 10).
            .filter(|o| o.bid >= o.reserve)
            .collect();
        let ranked = ranking(&held);
        let kept = cut(ranked.iter().map(|c| (c.offer().advertiser.0, c.offer().limit_category)), rule.cut_rule());
        ShardList { shard: ShardId(shard), epoch: EPOCH, candidates: kept.into_iter().map(|i| ranked[i]).collect() }
    };
    (0..shards).map(list).collect()
}

/// Compares both clearings, then takes out every winner in turn and compares again, down to [`SPARE`] removals and one
/// more, which leaves a slot empty.
fn compare(whole: &Ranking, merged: &Ranking, rule: &AuctionRule, failed: &mut Vec<AdId>, story: &str) {
    let (one, many) = (reclear_without(whole, rule, failed), reclear_without(merged, rule, failed));
    let sales = sold(whole, &one);
    assert_eq!(sold(merged, &many), sales, "{story} without {failed:?}, {rule:?}:\n{whole:#?}");
    if failed.len() <= SPARE {
        for (ad, _, _) in sales {
            failed.push(ad);
            compare(whole, merged, rule, failed, story);
            failed.pop();
        }
    }
}

#[test]
fn shards_do_not_matter() {
    let mut dropped = 0;
    for seed in 0..6_000 {
        let mut dice = Dice::new(seed);
        let offers = offers(&mut dice, 24);
        let mechanism = dice.pick(&[Mechanism::Gsp, Mechanism::Vcg, Mechanism::FirstPrice]);
        let rule = rule(any_terms(&mut dice, mechanism));
        let shards = 1 + dice.roll(4) as u32;
        let homes: Vec<u32> = offers.iter().map(|_| dice.roll(u64::from(shards)) as u32).collect();
        let mut lists = answers(&offers, &rule, |i| homes[i], shards);
        dropped += offers.len() - lists.iter().map(|l| l.candidates.len()).sum::<usize>();
        let merged = merge(EPOCH, &lists).expect("the lists are sound");
        compare(&ranking(&offers), &merged, &rule, &mut Vec::new(), &format!("seed {seed}"));
        let turned = dice.roll(u64::from(shards)) as usize;
        lists.rotate_left(turned);
        assert_eq!(merge(EPOCH, &lists), Ok(merged), "seed {seed}: the arrival order matters");
    }
    assert!(dropped > 6_000, "{dropped} ads cut say little");
}

/// Longer lists of few advertisers and categories: where a cut that is too short would show first.
#[test]
fn crowded_markets() {
    for seed in 0..3_000 {
        let mut dice = Dice::new(seed ^ 0xc0de);
        let (advertisers, categories) = (1 + dice.roll(12), 1 + dice.roll(6));
        let n = 20 + dice.roll(40);
        // Scores fall one by one or stay: the market is decided by limits.
        let offers: Vec<Offer> = (0..n)
            .map(|ad| Offer {
                advertiser: AdvertiserId(dice.roll(advertisers)),
                limit_category: dice.roll(categories) + dice.roll(2),
                tie: dice.roll(100),
                ..offer(ad, 200 - ad / (1 + dice.roll(3)), 1)
            })
            .collect();
        let mechanism = dice.pick(&[Mechanism::Gsp, Mechanism::Vcg]);
        let terms = AuctionTerms {
            slots: 1 + dice.roll(4) as usize,
            position_factors_ppm: vec![9, 5, 2, 1],
            per_category: [None, Some(1), Some(1), Some(2)][dice.roll(4) as usize],
            neighbours: dice.pick(&[Neighbours::Any, Neighbours::Any, Neighbours::Apart]),
            ..any_terms(&mut dice, mechanism)
        };
        let rule = rule(terms);
        let merged = merge(EPOCH, &answers(&offers, &rule, |i| (i % 2) as u32, 2)).expect("the lists are sound");
        compare(&ranking(&offers), &merged, &rule, &mut Vec::new(), &format!("seed {seed}"));
    }
}

/// Every market of seven ads of falling score, three advertisers and two categories, on one shard.
#[test]
fn every_small_market() {
    let kinds = 3 * 3u32;
    let any = [(1, 1, Some(1)), (2, 1, Some(1)), (2, 2, Some(1)), (2, 1, None), (1, 2, None)];
    let any = any.map(|(slots, per_advertiser, per_category)| (slots, per_advertiser, per_category, Neighbours::Any));
    let apart = [(2, 1, None), (3, 1, None), (3, 1, Some(1)), (3, 2, None), (4, 1, None)];
    let apart =
        apart.map(|(slots, per_advertiser, per_category)| (slots, per_advertiser, per_category, Neighbours::Apart));
    let rules: Vec<AuctionRule> = any
        .into_iter()
        .chain(apart)
        .map(|(slots, per_advertiser, per_category, neighbours)| {
            let base = crate::market::terms(Mechanism::Vcg, slots);
            rule(AuctionTerms { per_advertiser, per_category, neighbours, position_factors_ppm: vec![5, 2], ..base })
        })
        .collect();
    // A stride that shares no factor with 9^7 visits an even sample of its 4,782,969 markets.
    for market in (0..kinds.pow(7)).step_by(241) {
        let kind = |ad: u64| market / kinds.pow(ad as u32) % kinds;
        let offers: Vec<Offer> = (0..7)
            .map(|ad| Offer {
                advertiser: AdvertiserId(u64::from(kind(ad) % 3)),
                limit_category: u64::from(kind(ad) / 3),
                ..offer(ad, 20 - ad, 1)
            })
            .collect();
        for rule in &rules {
            let merged = merge(EPOCH, &answers(&offers, rule, |_| 0, 1)).expect("the list is sound");
            compare(&ranking(&offers), &merged, rule, &mut Vec::new(), &format!("market {market}"));
        }
    }
}

/// The tail that failed too late leaves its slot empty, and nobody else's slot or price moves.
#[test]
fn a_third_failure_leaves_a_slot_empty() {
    let offers: Vec<Offer> = (0..9).map(|ad| offer(ad, 100 - 10 * ad, 1)).collect();
    let (ranking, rule) = (ranking(&offers), rule(crate::market::terms(Mechanism::Gsp, 3)));
    let after = |failed: &[u64]| {
        let failed: Vec<AdId> = failed.iter().map(|ad| AdId(*ad)).collect();
        sold(&ranking, &reclear_without(&ranking, &rule, &failed)).iter().map(|s| (s.0.0, s.1, s.2)).collect::<Vec<_>>()
    };
    assert_eq!(after(&[]), [(0, 0, 90), (1, 1, 80), (2, 2, 70)]);
    assert_eq!(after(&[1]), [(0, 0, 80), (2, 1, 70), (3, 2, 60)]);
    assert_eq!(after(&[1, 3]), [(0, 0, 80), (2, 1, 60), (4, 2, 50)]);
    assert_eq!(after(&[1, 3, 2]), [(0, 0, 80), (4, 2, 50)]);
    assert_eq!(after(&[1, 3, 2, 0]), [(4, 2, 50)]);
}

#[test]
fn unsound_lists_are_refused() {
    let offers: Vec<Offer> = (0..4).map(|ad| Offer { bid: Micros(9 - ad), ..offer(ad, 0, 1) }).collect();
    let list = |shard: u32, ads: &[usize]| ShardList {
        shard: ShardId(shard),
        epoch: EPOCH,
        candidates: ads.iter().map(|i| ranking(&[Offer { shard: ShardId(shard), ..offers[*i] }])[0]).collect(),
    };
    let shard = ShardId(1);
    let answered = Epoch { delivery: 3, ..EPOCH };
    let other = ShardList { epoch: answered, ..list(1, &[]) };
    assert_eq!(merge(EPOCH, &[other, list(0, &[0])]), Err(MergeError::MixedEpoch { shard, pinned: EPOCH, answered }));
    assert_eq!(merge(EPOCH, &[list(1, &[0]), list(1, &[1])]), Err(MergeError::AnsweredTwice { shard }));
    assert_eq!(merge(EPOCH, &[list(0, &[0]), list(1, &[2, 3, 1])]), Err(MergeError::OutOfOrder { shard, position: 2 }));
    for lists in [[list(0, &[0, 2]), list(1, &[1, 2])], [list(1, &[1, 2]), list(0, &[0, 2])]] {
        assert_eq!(merge(EPOCH, &lists), Err(MergeError::Duplicate { ad: AdId(2), shard }));
    }
    assert!(merge(EPOCH, &[]).is_ok_and(|ranking| ranking.is_empty()));
}
