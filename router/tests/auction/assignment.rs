//! Assignments of ads to slots: the optimum, its smallest prices, and what is left out because it is not separable.
//!
//! Where ad i is worth `x_k * s_i` in slot k, ads in the order of their scores are the best assignment, and the greedy walk is
//! exact. It would not be if an ad were worth something else in each slot, as one that is paid per served impression is:
//! its worth does not shrink with the slot. Then the best assignment would have to be searched for. Here a CPM ad is billed
//! per viewable impression instead, so that it shrinks like all others ([`gavel_router::auction`]); an offer has no place for
//! a worth by slot, and no code serves such auctions.

use gavel_proto::cut::Neighbours;
use gavel_proto::money::BidType;
use gavel_proto::score::{CPM_WEIGHT, weight};
use gavel_router::auction::{AuctionTerms, Mechanism, TiePrice};
use gavel_router::merge::Offer;

use crate::market::{Dice, offer, plain_winners, prices, sales, score, terms};

/// The best assignment of ads to slots by what each is worth in each, by trying them all: its worth, and who stands where.
fn best(worth: &[Vec<i128>], may_stand: &dyn Fn(&[Option<usize>], usize) -> bool) -> (i128, Vec<Option<usize>>) {
    fn fill(
        taken: &mut Vec<Option<usize>>,
        worth: &[Vec<i128>],
        may_stand: &dyn Fn(&[Option<usize>], usize) -> bool,
    ) -> (i128, Vec<Option<usize>>) {
        let slot = taken.len();
        if worth.first().is_none_or(|ad| slot == ad.len()) {
            return (0, taken.clone());
        }
        taken.push(None);
        let mut best = fill(taken, worth, may_stand);
        taken.pop();
        for ad in 0..worth.len() {
            if !taken.contains(&Some(ad)) && may_stand(taken, ad) {
                taken.push(Some(ad));
                let (below, slate) = fill(taken, worth, may_stand);
                taken.pop();
                if worth[ad][slot] + below > best.0 {
                    best = (worth[ad][slot] + below, slate);
                }
            }
        }
        best
    }
    fill(&mut Vec::new(), worth, may_stand)
}

fn separable(offers: &[Offer], factors: &[u32]) -> Vec<Vec<i128>> {
    offers.iter().map(|o| factors.iter().map(|x| i128::from(*x) * score(o)).collect()).collect()
}

fn with_factors(mechanism: Mechanism, factors: &[u32]) -> AuctionTerms {
    AuctionTerms {
        position_factors_ppm: factors.to_vec(),
        tie_price: TiePrice::WinnerWins,
        ..terms(mechanism, factors.len())
    }
}

/// A CPM bid of 11 a mille and clicks that are worth 10, on a slot that all and one that a tenth of the users see. Both worth
/// shrinks: CPM stands first, which is the best assignment. Were the CPM ad paid per served impression, the best one would
/// be the other way round, worth 21 instead of 12.
#[test]
fn a_cpm_ad_shrinks_with_its_slot() {
    let factors = [1_000_000, 100_000];
    let cpm = Offer { bid_type: BidType::Cpm, ..offer(0, 11_000_000, CPM_WEIGHT) };
    let cpc = offer(1, 1_000_000, weight(BidType::Cpc, 0.01, 0.0).expect("valid"));
    let offers = [cpm, cpc];
    let milles = |worth: i128| worth / 1_000_000 / (i128::from(CPM_WEIGHT) * 100_000);
    let anyone = |_: &[Option<usize>], _: usize| true;
    let viewable = best(&separable(&offers, &factors), &anyone);
    assert_eq!((milles(viewable.0), viewable.1), (120, vec![Some(0), Some(1)]));
    let served: Vec<usize> =
        sales(&offers, &with_factors(Mechanism::Vcg, &factors)).iter().map(|sale| sale.0.0 as usize).collect();
    assert_eq!(served, [0, 1]);
    let flat = vec![vec![score(&cpm) * 1_000_000; 2], separable(&[cpc], &factors).remove(0)];
    let unseparable = best(&flat, &anyone);
    assert_eq!((milles(unseparable.0), unseparable.1), (210, vec![Some(1), Some(0)]));
}

/// Among all prices of slots at which nobody would rather have another slot or none, and no empty slot costs anything,
/// those of VCG are the smallest, slot by slot (the smallest dual of the assignment; Algorithmic Game Theory, 28.5 to 28.7).
#[test]
fn vcg_prices_are_the_smallest_that_clear_the_market() {
    let mut vectors = 0;
    for seed in 0..600 {
        let mut dice = Dice::new(seed);
        let factors = dice.pick(&[[2_u32, 1], [3, 1], [3, 2], [1, 1]]);
        let values: Vec<i64> = (0..1 + dice.roll(4)).map(|_| 6 * dice.roll(4) as i64).collect();
        let offers: Vec<Offer> = values.iter().zip(0..).map(|(value, ad)| offer(ad, *value as u64, 1)).collect();
        let sold = sales(&offers, &with_factors(Mechanism::Vcg, &factors));
        // By slot, of all its clicks. Values are sixfold: no price was rounded.
        let x = |slot: usize| i64::from(factors[slot]);
        let mut paid = [0; 2];
        sold.iter().for_each(|(_, slot, price)| paid[*slot] = x(*slot) * *price as i64);
        let holder = |slot: usize| sold.iter().find(|sale| sale.1 == slot).map(|sale| sale.0.0 as usize);
        let gain = |ad: usize, slot: usize, of: [i64; 2]| x(slot) * values[ad] - of[slot];
        let clears = |of: [i64; 2]| {
            let own = |ad: usize| (0..2).find(|slot| holder(*slot) == Some(ad)).map_or(0, |slot| gain(ad, slot, of));
            (0..values.len()).all(|ad| own(ad) >= 0 && (0..2).all(|slot| own(ad) >= gain(ad, slot, of)))
                && (0..2).all(|slot| holder(slot).is_some() || of[slot] == 0)
        };
        assert!(clears(paid), "seed {seed}: {values:?} {factors:?} {paid:?}");
        for of in (0..=3 * 18).flat_map(|first| (0..=3 * 18).map(move |second| [first, second])) {
            if clears(of) {
                assert!(paid[0] <= of[0] && paid[1] <= of[1], "seed {seed}: {of:?} clears below {paid:?}");
                vectors += 1;
            }
        }
    }
    assert!(vectors > 15_000, "{vectors} price vectors say little");
}

/// The greedy slate is worth as much as the best assignment, with at most c ads of a category and any falling factors: a
/// partition is a matroid.
#[test]
fn greedy_is_the_best_under_one_limit() {
    let mut limited = 0;
    for seed in 0..2_000 {
        let mut dice = Dice::new(seed);
        let slots = 1 + dice.roll(4) as usize;
        let per_category = 1 + dice.roll(2) as usize;
        let offers: Vec<Offer> = (0..dice.roll(7))
            .map(|ad| Offer { limit_category: 1 + dice.roll(3), ..offer(ad, dice.roll(30), 1) })
            .collect();
        let factors = crate::market::factors(&mut dice, slots);
        let terms = AuctionTerms { per_category: Some(per_category), ..with_factors(Mechanism::Gsp, &factors) };
        let category = |ad: usize| offers[ad].limit_category;
        let may_stand = |taken: &[Option<usize>], ad: usize| {
            taken.iter().flatten().filter(|t| category(**t) == category(ad)).count() < per_category
        };
        let worth = separable(&offers, &factors);
        let greedy: i128 = sales(&offers, &terms).iter().map(|(ad, slot, _)| worth[ad.0 as usize][*slot]).sum();
        assert_eq!(greedy, best(&worth, &may_stand).0, "seed {seed}: {offers:?} {terms:?}");
        let free = AuctionTerms { per_category: None, ..terms.clone() };
        limited += usize::from(plain_winners(&offers, &free) != plain_winners(&offers, &terms));
    }
    assert!(limited > 300, "{limited} limits say little");
}

/// What neighbours apart cost: the greedy slate of the code that serves, and the best one that keeps them apart.
fn apart(offers: &[Offer], factors: &[u32]) -> (i128, i128) {
    let terms = AuctionTerms { neighbours: Neighbours::Apart, ..with_factors(Mechanism::Gsp, factors) };
    let worth = separable(offers, factors);
    let at = |ad: u64| offers.iter().position(|o| o.ad.0 == ad).expect("an ad of the market");
    let greedy = sales(offers, &terms).iter().map(|(ad, slot, _)| worth[at(ad.0)][*slot]).sum();
    // As in the greedy: a slate has no holes, so that what stands next to each other is what is seen next to each other.
    let may_stand = |taken: &[Option<usize>], ad: usize| {
        let of = |ad: usize| offers[ad].limit_category;
        let alike = taken.iter().flatten().filter(|t| of(**t) == of(ad)).count();
        let follows = taken.last().is_none_or(|last| last.is_some_and(|last| of(last) != of(ad)));
        follows && alike < factors.len().div_ceil(2)
    };
    (greedy, best(&worth, &may_stand).0)
}

/// Scores 24, 29, 2, 26, 22 of categories 0, 1, 1, 0, 0, seen 8, 6, 6 times: the greedy slate is worth 400, the best one 526.
/// Category 0 is none here, so both are one higher.
#[test]
fn neighbours_apart_are_no_matroid() {
    let ads = [(24, 1), (29, 2), (2, 2), (26, 1), (22, 1)];
    let offers: Vec<Offer> =
        (0..).zip(ads).map(|(ad, (bid, limit_category))| Offer { limit_category, ..offer(ad, bid, 1) }).collect();
    assert_eq!(apart(&offers, &[8, 6, 6]), (400, 526));
    let terms = AuctionTerms { neighbours: Neighbours::Apart, ..with_factors(Mechanism::Gsp, &[8, 6, 6]) };
    let slate: Vec<u64> = sales(&offers, &terms).iter().map(|sale| sale.0.0).collect();
    assert_eq!((slate, prices(&offers, &terms)), (vec![1, 3, 2], vec![26, 24, 0]));
}

/// How often the greedy slate is not the best one, over random markets of the same kind.
#[test]
fn what_neighbours_apart_cost() {
    let (mut worst, mut below) = (1.0_f64, 0);
    for seed in 0..500 {
        let mut dice = Dice::new(seed);
        let offers: Vec<Offer> =
            (0..5).map(|ad| Offer { limit_category: 1 + dice.roll(2), ..offer(ad, 1 + dice.roll(30), 1) }).collect();
        let mut factors: Vec<u32> = (0..3).map(|_| 1 + dice.roll(9) as u32).collect();
        factors.sort_by(|a, b| b.cmp(a));
        let (greedy, best) = apart(&offers, &factors);
        assert!(greedy <= best, "seed {seed}: the oracle missed a slate");
        worst = worst.min(greedy as f64 / best as f64);
        below += i32::from(greedy < best);
    }
    // As found; another walk would show here.
    assert_eq!((below, (worst * 1e3).round()), (82, 741.0));
}
