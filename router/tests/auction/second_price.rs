//! GSP: the smallest bid that keeps the slot, and what follows from it (A3, A4, A7, A8, A9, A11, A13).

use gavel_proto::cut::Neighbours;
use gavel_proto::money::Micros;
use gavel_router::auction::{AuctionTerms, Mechanism, Outcome, TiePrice, outcomes};
use gavel_router::merge::Offer;

use crate::market::{
    Dice, any_terms, clear, offer, offers, plain_winners, priced_against, prices, ranking, rule, sales, separate,
    slot_with, terms,
};

/// A3, A13: the price is found by trying every bid from 0 up in the market without the winner's advertiser.
#[test]
fn the_price_is_the_smallest_bid_that_keeps_the_slot() {
    let mut slots = 0;
    for seed in 0..6_000 {
        let mut dice = Dice::new(seed);
        let offers = offers(&mut dice, 9);
        let terms = AuctionTerms { tie_price: TiePrice::Keyed, ..any_terms(&mut dice, Mechanism::Gsp) };
        let winners = plain_winners(&offers, &terms);
        let sales = sales(&offers, &terms);
        assert_eq!(sales.iter().map(|s| s.0).collect::<Vec<_>>(), winners.iter().map(|w| w.ad).collect::<Vec<_>>());
        for (ad, slot, price) in sales {
            let market = priced_against(&offers, &winners, slot);
            let keeps = |bid: &u64| slot_with(&market, &terms, ad, *bid).is_some_and(|s| s <= slot);
            assert_eq!(
                (0..=winners[slot].bid.0).find(keeps),
                Some(price),
                "seed {seed} slot {slot}: {offers:?} {terms:?}"
            );
            slots += 1;
        }
    }
    assert!(slots > 5_000, "{slots} slots say little");
}

/// A4, for every mechanism, under every limit.
#[test]
fn a_price_stands_between_reserve_and_bid() {
    for seed in 0..9_000 {
        let mut dice = Dice::new(seed);
        let offers = offers(&mut dice, 12);
        let mechanism = dice.pick(&[Mechanism::Gsp, Mechanism::Vcg, Mechanism::FirstPrice]);
        let terms = any_terms(&mut dice, mechanism);
        let ranking = ranking(&offers);
        for winner in clear(&offers, &terms).winners {
            let offer = ranking[winner.candidate].offer();
            assert!(offer.reserve <= winner.price && winner.price <= offer.bid, "seed {seed}: {winner:?} {offer:?}");
            assert!(mechanism != Mechanism::FirstPrice || winner.price == offer.bid);
        }
    }
}

/// A7: another unit of weight changes nothing; another unit of money changes prices by it, up to rounding.
#[test]
fn units_do_not_matter() {
    for seed in 0..4_000 {
        let mut dice = Dice::new(seed);
        let offers = offers(&mut dice, 9);
        let mechanism = dice.pick(&[Mechanism::Gsp, Mechanism::Vcg, Mechanism::FirstPrice]);
        let terms = AuctionTerms { tie_price: TiePrice::WinnerWins, ..any_terms(&mut dice, mechanism) };
        let before = sales(&offers, &terms);
        let c = 2 + dice.roll(50);
        let heavier: Vec<Offer> =
            offers.iter().map(|o| Offer { weight: o.weight * c, value: o.value * i128::from(c), ..*o }).collect();
        let dearer = AuctionTerms { page_threshold: terms.page_threshold * i128::from(c), ..terms.clone() };
        assert_eq!(sales(&heavier, &dearer), before, "seed {seed}");
        let money = |m: Micros| Micros(m.0 * c);
        let richer: Vec<Offer> = offers
            .iter()
            .map(|o| Offer { bid: money(o.bid), reserve: money(o.reserve), value: o.value * i128::from(c), ..*o })
            .collect();
        for ((ad, slot, price), (ad_then, slot_then, price_then)) in before.iter().zip(sales(&richer, &dearer)) {
            assert_eq!((*ad, *slot), (ad_then, slot_then), "seed {seed}");
            let exact = match mechanism {
                Mechanism::Gsp => price_then <= price * c && price_then + c > price * c,
                Mechanism::Vcg => price * c <= price_then && price_then < (price + 1) * c,
                Mechanism::FirstPrice => price_then == price * c,
            };
            assert!(exact, "seed {seed}: {price} x {c} became {price_then}");
        }
    }
}

/// A8: a higher bid never brings a worse slot (any limits), and a rival's higher bid never a lower price.
/// The second holds for one kind of limit at a time: two kinds together are no matroid, nor are neighbours apart.
#[test]
fn bids_are_monotone() {
    for seed in 0..4_000 {
        let mut dice = Dice::new(seed);
        let all = separate(offers(&mut dice, 8));
        if all.is_empty() {
            continue;
        }
        let mechanism = dice.pick(&[Mechanism::Gsp, Mechanism::Vcg]);
        let terms = AuctionTerms { neighbours: Neighbours::Any, ..any_terms(&mut dice, mechanism) };
        let one = all[dice.roll(all.len() as u64) as usize];
        let raised: Vec<Offer> = crate::market::with_bid(&all, one.ad, one.bid.0 + 1 + dice.roll(4));
        let (before, after) = (sales(&all, &terms), sales(&raised, &terms));
        let slot_of = |sales: &[(_, usize, u64)]| sales.iter().find(|s| s.0 == one.ad).map_or(usize::MAX, |s| s.1);
        assert!(slot_of(&after) <= slot_of(&before), "seed {seed}");
        for (ad, slot, price) in &before {
            let same_slot = after.iter().find(|s| (s.0, s.1) == (*ad, *slot) && *ad != one.ad);
            assert!(same_slot.is_none_or(|s| s.2 >= *price), "seed {seed}: {price} fell to {same_slot:?}");
        }
    }
}

/// A9: what ranks below every price setter might as well not be there.
#[test]
fn the_tail_is_irrelevant() {
    let mut deleted = 0;
    for seed in 0..4_000 {
        let mut dice = Dice::new(seed);
        let offers = offers(&mut dice, 12);
        let terms = any_terms(&mut dice, Mechanism::Gsp);
        let (ranking, clearing) = (ranking(&offers), clear(&offers, &terms));
        let setters: Option<Vec<usize>> = clearing.winners.iter().map(|w| w.runner_up).collect();
        let Some(lowest) = setters.and_then(|s| s.into_iter().max()) else { continue };
        let before = sales(&offers, &terms);
        for irrelevant in &ranking[lowest + 1..] {
            let fewer: Vec<Offer> = offers.iter().filter(|o| o.ad != irrelevant.offer().ad).copied().collect();
            assert_eq!(sales(&fewer, &terms), before, "seed {seed}");
            deleted += 1;
        }
    }
    assert!(deleted > 3_000, "{deleted} deletions say little");
}

/// A11: one slot and equal weights: GSP = VCG = the second highest bid or the reserve.
#[test]
fn one_slot_is_vickrey() {
    for seed in 0..4_000 {
        let mut dice = Dice::new(seed);
        let reserve = Micros(dice.roll(5));
        let bids: Vec<u64> = (0..1 + dice.roll(6)).map(|_| dice.roll(12)).collect();
        let offers: Vec<Offer> =
            bids.iter().zip(0..).map(|(bid, ad)| Offer { reserve, ..offer(ad, *bid, 1) }).collect();
        let mut valid: Vec<u64> = bids.into_iter().filter(|b| *b >= reserve.0).collect();
        valid.sort_unstable();
        let expected: Vec<u64> = valid.pop().map(|_| valid.pop().unwrap_or(0).max(reserve.0)).into_iter().collect();
        for mechanism in [Mechanism::Gsp, Mechanism::Vcg] {
            let terms = AuctionTerms { tie_price: TiePrice::WinnerWins, ..terms(mechanism, 1) };
            assert_eq!(prices(&offers, &terms), expected, "seed {seed}");
        }
    }
}

/// Every loser has one outcome, and a loser that is told which bid it needed wins with it and not with less.
#[test]
fn losers_learn_by_how_much() {
    let (mut lost, mut unworthy) = (0, 0);
    for seed in 0..4_000 {
        let mut dice = Dice::new(seed);
        let offers = separate(offers(&mut dice, 9));
        let terms = any_terms(&mut dice, Mechanism::Gsp);
        let (ranking, clearing) = (ranking(&offers), clear(&offers, &terms));
        let outcomes = outcomes(&ranking, &rule(terms.clone()), &clearing);
        assert_eq!(outcomes.len(), ranking.len());
        for (candidate, outcome) in ranking.iter().zip(&outcomes) {
            let offer = candidate.offer();
            let wins = |bid: u64| slot_with(&offers, &terms, offer.ad, bid).is_some();
            match outcome {
                Outcome::Won { slot } => assert_eq!(slot_with(&offers, &terms, offer.ad, offer.bid.0), Some(*slot)),
                Outcome::BelowReserve { short_by } => assert_eq!(offer.bid.0 + short_by.0, offer.reserve.0),
                Outcome::Lost { bid_needed: Some(bid), .. } => {
                    assert!(wins(bid.0) && !(bid.0 > 0 && wins(bid.0 - 1)), "seed {seed}: {offer:?} {outcome:?}");
                    lost += 1;
                }
                Outcome::Lost { bid_needed: None, .. } => assert_eq!(terms.slots, 0),
                Outcome::BelowThreshold { bid_needed: Some(bid), .. } => {
                    assert!(wins(bid.0) && !wins(bid.0 - 1), "seed {seed}: {offer:?} {outcome:?}");
                    assert!(clearing.winners.len() < terms.slots && terms.page_threshold > 0, "seed {seed}: {terms:?}");
                    unworthy += 1;
                }
                Outcome::BelowThreshold { bid_needed: None, .. } => panic!("seed {seed}: some bid wins"),
                Outcome::WorthLess { score_gap } => assert_eq!(-score_gap, candidate.score()),
                Outcome::Limited(_) => assert!(!wins(offer.bid.0)),
                Outcome::Removed => panic!("nothing was removed"),
            }
        }
    }
    assert!(lost > 2_000 && unworthy > 1_000, "{lost} and {unworthy} losers say little");
}
