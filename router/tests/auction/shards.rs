//! The merged auction is the single-node auction (ME1, AU2, A10): whatever the partition, the arrival
//! order, the limits, the ties, and the ads that are taken out afterwards.

use gavel_proto::cut::{CutRule, Neighbours, SPARE, cut};
use gavel_proto::epoch::Epoch;
use gavel_proto::ids::{AdId, AdvertiserId, ShardId};
use gavel_proto::money::Micros;
use gavel_router::auction::{AuctionRule, AuctionTerms, Mechanism, reclear_without};
use gavel_router::merge::{MergeError, Offer, Ranking, ShardList, merge};

use crate::market::{Dice, any_terms, offer, offers, ranking, rule, sold, terms};

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

/// Clears both, then takes out every winner in turn and clears again, down to so many removals: the first of them after
/// which the auctions differ.
fn difference(
    whole: &Ranking,
    merged: &Ranking,
    rule: &AuctionRule,
    failed: &mut Vec<AdId>,
    removals: usize,
) -> Option<Vec<AdId>> {
    let (one, many) = (reclear_without(whole, rule, failed), reclear_without(merged, rule, failed));
    let sales = sold(whole, &one);
    if sold(merged, &many) != sales {
        return Some(failed.clone());
    }
    if failed.len() == removals {
        return None;
    }
    sales.into_iter().find_map(|(ad, _, _)| {
        failed.push(ad);
        let found = difference(whole, merged, rule, failed, removals);
        failed.pop();
        found
    })
}

/// No difference down to [`SPARE`] removals and one more, which leaves a slot empty.
fn compare(whole: &Ranking, merged: &Ranking, rule: &AuctionRule, story: &str) {
    let found = difference(whole, merged, rule, &mut Vec::new(), SPARE + 1);
    assert_eq!(found, None, "{story} without these, {rule:?}:\n{whole:#?}");
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
        compare(&ranking(&offers), &merged, &rule, &format!("seed {seed}"));
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
            position_factors_ppm: vec![900_000, 500_000, 200_000, 100_000],
            page_threshold: dice.pick(&[0, 0, 0, 10, 20, 90]),
            per_category: [None, Some(1), Some(1), Some(2)][dice.roll(4) as usize],
            neighbours: dice.pick(&[Neighbours::Any, Neighbours::Any, Neighbours::Apart]),
            ..any_terms(&mut dice, mechanism)
        };
        let rule = rule(terms);
        let merged = merge(EPOCH, &answers(&offers, &rule, |i| (i % 2) as u32, 2)).expect("the lists are sound");
        compare(&ranking(&offers), &merged, &rule, &format!("seed {seed}"));
    }
}

/// Every way to name so many things, new names in the order of their numbers, when so many are in use.
fn namings(things: usize, used: u64) -> Vec<Vec<u64>> {
    if things == 0 {
        return vec![Vec::new()];
    }
    let with = |first: u64| {
        let rest = namings(things - 1, used.max(first + 1));
        rest.into_iter().map(move |rest| [vec![first], rest].concat())
    };
    (0..=used).flat_map(with).collect()
}

/// Every market of five ads, whoever shares an advertiser (52 ways) or a category, 0 being none (203). Scores fall by
/// twos, so that every other rank is decided by a tie.
fn small_markets() -> Vec<Vec<Offer>> {
    let market = |(advertisers, categories): (&Vec<u64>, &Vec<u64>)| -> Vec<Offer> {
        let named = advertisers.iter().zip(categories);
        let ad = |(ad, (advertiser, category)): (u64, (&u64, &u64))| Offer {
            advertiser: AdvertiserId(*advertiser),
            limit_category: *category,
            ..offer(ad, 20 - ad / 2, 1)
        };
        (0..).zip(named).map(ad).collect()
    };
    let (advertisers, categories) = (namings(5, 0), namings(5, 1));
    advertisers.iter().flat_map(|one| categories.iter().map(move |other| market((one, other)))).collect()
}

/// Every split of five ads over at most three shards (41): what each holds, as bits.
fn small_splits() -> Vec<[usize; 3]> {
    let held = |homes: &Vec<u64>, shard: u64| -> usize {
        (0..homes.len()).filter(|ad| homes[*ad] == shard).map(|ad| 1usize << ad).sum()
    };
    let splits = namings(5, 0).into_iter().filter(|homes| homes.iter().all(|shard| *shard < 3));
    splits.map(|homes| [0, 1, 2].map(|shard| held(&homes, shard))).collect()
}

/// Ten limits, each under every mechanism.
fn small_rules() -> [[AuctionRule; 3]; 10] {
    let any = |slots, per_advertiser, per_category| (slots, per_advertiser, per_category, Neighbours::Any);
    let apart = |slots, per_category| (slots, 1, per_category, Neighbours::Apart);
    let limits: [(usize, usize, Option<usize>, Neighbours); 10] = [
        any(1, 1, None),
        any(2, 1, None),
        any(2, 2, None),
        any(2, 1, Some(1)),
        any(2, 2, Some(1)),
        any(3, 1, None),
        any(3, 1, Some(1)),
        any(3, 2, Some(2)),
        apart(2, None),
        apart(3, Some(1)),
    ];
    limits.map(|(slots, per_advertiser, per_category, neighbours)| {
        [Mechanism::Gsp, Mechanism::Vcg, Mechanism::FirstPrice].map(|mechanism| {
            let position_factors_ppm = vec![5, 2, 1];
            let base = terms(mechanism, slots);
            rule(AuctionTerms { per_advertiser, per_category, neighbours, position_factors_ppm, ..base })
        })
    })
}

/// Auctions of small markets whose shards expect `spare` removals, and which have up to `removals`.
#[derive(Debug, Default)]
struct Sweep {
    spare: usize,
    removals: usize,
    auctions: u64,
    /// Those of which a cut left ads out.
    cut: u64,
    /// Sets of ads that were sent and do not clear like the whole market.
    different: u64,
    /// The first of them.
    story: String,
}

impl Sweep {
    /// Every split of one market, under the mechanisms of one limit.
    fn market(&mut self, offers: &[Offer], splits: &[[usize; 3]], rules: &[AuctionRule; 3]) {
        let whole = ranking(offers);
        let cut_rule = CutRule { spare: self.spare, ..rules[0].cut_rule() };
        let kept: Vec<usize> = (0..1usize << offers.len()).map(|held| kept(offers, held, cut_rule)).collect();
        let everything = kept.len() - 1;
        // The auction sees what was sent, not by whom: each set is cleared once, and all ads are the whole market.
        let mut cleared = vec![false; kept.len()];
        cleared[everything] = true;
        for split in splits {
            let sent: usize = split.iter().map(|held| kept[*held]).sum();
            self.auctions += rules.len() as u64;
            self.cut += if sent == everything { 0 } else { rules.len() as u64 };
            if std::mem::replace(&mut cleared[sent], true) {
                continue;
            }
            let list = |(shard, held): (u32, &usize)| ShardList {
                shard: ShardId(shard),
                epoch: EPOCH,
                // Offers are in auction order: an ad's bit is its place in the ranking.
                candidates: ads_of(kept[*held]).map(|ad| whole[ad]).collect(),
            };
            let lists: Vec<ShardList> = (0..).zip(split).map(list).collect();
            let merged = merge(EPOCH, &lists).expect("the lists are sound");
            for rule in rules {
                if let Some(failed) = difference(&whole, &merged, rule, &mut Vec::new(), self.removals) {
                    if self.different == 0 {
                        self.story = format!("{split:?} without {failed:?}, {rule:?}:\n{offers:#?}");
                    }
                    self.different += 1;
                }
            }
        }
    }
}

fn ads_of(bits: usize) -> impl Iterator<Item = usize> {
    let width = (usize::BITS - bits.leading_zeros()) as usize;
    (0..width).filter(move |ad| (bits >> ad) & 1 == 1)
}

/// What a shard that holds these ads sends of them.
fn kept(offers: &[Offer], held: usize, rule: CutRule) -> usize {
    let ads: Vec<usize> = ads_of(held).collect();
    let kept = cut(ads.iter().map(|ad| (offers[*ad].advertiser.0, offers[*ad].limit_category)), rule);
    kept.into_iter().map(|index| 1usize << ads[index]).sum()
}

/// Every small market over every split: 10,556 x 41 x 30 rules, with cuts for no removal, one, and two: 38,951,640
/// auctions. Five ads are enough to show a cut that is one pick too short for one slot, for two with one kind of limit,
/// and for three without a category limit; longer ones are left to the samples above and below.
#[test]
fn every_small_market() {
    let (markets, splits, rules) = (small_markets(), small_splits(), small_rules());
    assert_eq!((markets.len(), splits.len()), (10_556, 41));
    let mut auctions = 0;
    for spare in 0..=SPARE {
        // Where the cut expects all that the auction makes room for, one more leaves a slot empty.
        let removals = if spare == SPARE { SPARE + 1 } else { spare };
        let mut sweep = Sweep { spare, removals, ..Sweep::default() };
        for market in &markets {
            rules.iter().for_each(|rules| sweep.market(market, &splits, rules));
        }
        assert_eq!(sweep.different, 0, "{}", sweep.story);
        assert!(sweep.cut > 4_000, "{} auctions with a cut, for {spare} removals, say little", sweep.cut);
        auctions += sweep.auctions;
    }
    assert_eq!(auctions, 38_951_640);
}

/// Seven ads of falling score are enough for the cut that serves to leave some out. A sample of the markets of three
/// advertisers and three categories, where an advertiser's repeats are dropped, and of seven and two, where the walk
/// ends early; on one shard, and on two that hold every other ad.
#[test]
fn a_sample_of_larger_markets() {
    let any = [(1, 1, Some(1)), (2, 1, Some(1)), (2, 2, Some(1)), (2, 1, None), (1, 2, None)];
    let any = any.map(|(slots, per_advertiser, per_category)| (slots, per_advertiser, per_category, Neighbours::Any));
    let apart = [(2, 1, None), (3, 1, None), (3, 1, Some(1)), (3, 2, None), (4, 1, None)];
    let apart =
        apart.map(|(slots, per_advertiser, per_category)| (slots, per_advertiser, per_category, Neighbours::Apart));
    let limits = any.into_iter().chain(apart);
    let rules = limits.map(|(slots, per_advertiser, per_category, neighbours)| {
        [Mechanism::Gsp, Mechanism::Vcg].map(|mechanism| {
            let base = terms(mechanism, slots);
            rule(AuctionTerms { per_advertiser, per_category, neighbours, position_factors_ppm: vec![5, 2], ..base })
        })
    });
    let rules: Vec<[AuctionRule; 2]> = rules.collect();
    let mut cuts = vec![0; rules.len()];
    // Strides that share no factor with 9^7 and 14^7 visit even samples of these markets: 9,924 and 9,995.
    for (advertisers, categories, stride) in [(3, 3, 482), (7, 2, 10_547)] {
        let kinds: u32 = advertisers * categories;
        for market in (0..kinds.pow(7)).step_by(stride) {
            let kind = |ad: u64| market / kinds.pow(ad as u32) % kinds;
            let offers: Vec<Offer> = (0..7)
                .map(|ad| Offer {
                    advertiser: AdvertiserId(u64::from(kind(ad) % advertisers)),
                    limit_category: u64::from(kind(ad) / advertisers),
                    ..offer(ad, 20 - ad, 1)
                })
                .collect();
            let story = format!("market {market} of {advertisers} advertisers");
            for (rules, cuts) in rules.iter().zip(&mut cuts) {
                *cuts += (1..=2).filter(|shards| is_cut_and_the_same(&offers, rules, *shards, &story)).count();
            }
        }
    }
    assert!(cuts.iter().all(|cuts| *cuts > 20), "so few cuts say little: {cuts:?}, by limit");
}

/// Whether shards that hold the ads in turn leave some out; those that do clear like one under each of the rules, which
/// have the same limits.
fn is_cut_and_the_same(offers: &[Offer], rules: &[AuctionRule], shards: u32, story: &str) -> bool {
    let lists = answers(offers, &rules[0], |ad| ad as u32 % shards, shards);
    let sent: usize = lists.iter().map(|list| list.candidates.len()).sum();
    // All of the ads are the whole market.
    if sent == offers.len() {
        return false;
    }
    let merged = merge(EPOCH, &lists).expect("the lists are sound");
    rules.iter().for_each(|rule| compare(&ranking(offers), &merged, rule, story));
    true
}

/// One removal more than the cuts expect: the comparison finds what is missing, under every limit.
#[test]
fn a_cut_for_fewer_removals_is_too_short() {
    let (markets, splits) = (small_markets(), small_splits());
    for rules in small_rules() {
        let mut sweep = Sweep { spare: 0, removals: 1, ..Sweep::default() };
        // 97 shares no factor with the ways to name categories, so that the sample is even.
        markets.iter().step_by(97).for_each(|market| sweep.market(market, &splits, &rules));
        assert!(sweep.different > 0, "{:?}", rules[0]);
    }
}

/// The tail that failed too late leaves its slot empty, and nobody else's slot or price moves.
#[test]
fn a_third_failure_leaves_a_slot_empty() {
    let offers: Vec<Offer> = (0..9).map(|ad| offer(ad, 100 - 10 * ad, 1)).collect();
    let (ranking, rule) = (ranking(&offers), rule(terms(Mechanism::Gsp, 3)));
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
