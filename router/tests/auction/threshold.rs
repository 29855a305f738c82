//! Page thresholds: an ad is shown in slot k iff `score * x_k` reaches the threshold, and prices know it as a reserve.
//!
//! Prices under thresholds by trying every bid, as externality, as integral and over shards: with the other limits, in
//! [`crate::second_price`], [`crate::vcg`] and [`crate::shards`], whose random terms have thresholds.

use gavel_proto::cut::Neighbours;
use gavel_proto::ids::{AdId, AdvertiserId};
use gavel_proto::money::Micros;
use gavel_router::auction::{AuctionTerms, Mechanism, TiePrice};
use gavel_router::merge::Offer;

use crate::market::{Dice, any_terms, factors, offer, offers, sales, score, terms};

/// Scores 10, 6 and 5 in slots that all and half of the users see.
fn three(mechanism: Mechanism, page_threshold: i128) -> Vec<(u64, u64)> {
    let market: Vec<Offer> = [10, 6, 5].into_iter().zip(0..).map(|(bid, ad)| offer(ad, bid, 1)).collect();
    let terms = AuctionTerms {
        position_factors_ppm: vec![1_000_000, 500_000],
        page_threshold,
        tie_price: TiePrice::WinnerWins,
        ..terms(mechanism, 2)
    };
    sales(&market, &terms).iter().map(|(ad, _, price)| (ad.0, *price)).collect()
}

/// A threshold of 3 asks for 3 and 6, one of 4 for 4 and 8, one of 7 for 7 and 14.
#[test]
fn what_a_threshold_asks_for() {
    for (threshold, gsp, vcg) in [
        (0, vec![(0, 6), (1, 5)], vec![(0, 5), (1, 5)]),
        (2, vec![(0, 6), (1, 5)], vec![(0, 5), (1, 5)]),
        (3, vec![(0, 6), (1, 6)], vec![(0, 6), (1, 6)]),
        (4, vec![(0, 6)], vec![(0, 6)]),
        (7, vec![(0, 7)], vec![(0, 7)]),
        (10, vec![(0, 10)], vec![(0, 10)]),
        (11, vec![], vec![]),
    ] {
        assert_eq!(three(Mechanism::Gsp, threshold), gsp, "{threshold}");
        assert_eq!(three(Mechanism::Vcg, threshold), vcg, "{threshold}");
        let first: Vec<(u64, u64)> = gsp.iter().map(|(ad, _)| (*ad, [10, 6, 5][*ad as usize])).collect();
        assert_eq!(three(Mechanism::FirstPrice, threshold), first, "{threshold}");
    }
}

/// What a bid has to be for the threshold alone, in a slot that is seen so often.
fn least_bid(offer: &Offer, seen: u32, page_threshold: i128) -> u64 {
    let reaches =
        |bid: &u64| score(&Offer { bid: Micros(*bid), ..*offer }) * i128::from(seen) >= page_threshold * 1_000_000;
    (0..).find(reaches).expect("some bid does")
}

/// Where neighbours may be of one category: the slate is that without a threshold, up to the first slot whose ad does not
/// reach it, and a second price is the larger of the one without a threshold and of the least bid that reaches it.
#[test]
fn an_ad_is_shown_iff_it_reaches_the_threshold() {
    let (mut shown, mut hidden, mut raised) = (0, 0, 0);
    for seed in 0..6_000 {
        let mut dice = Dice::new(seed);
        let offers = offers(&mut dice, 9);
        let mechanism = dice.pick(&[Mechanism::Gsp, Mechanism::Vcg, Mechanism::FirstPrice]);
        let any = AuctionTerms { neighbours: Neighbours::Any, ..any_terms(&mut dice, mechanism) };
        let position_factors_ppm = factors(&mut dice, any.slots);
        let free = AuctionTerms { position_factors_ppm, page_threshold: 0, ..any };
        let terms = AuctionTerms { page_threshold: 1 + i128::from(dice.roll(20)), ..free.clone() };
        let seen = |slot: usize| terms.position_factors_ppm[slot];
        let of = |ad: AdId| offers.iter().find(|o| o.ad == ad).expect("an ad of the market");
        let reaches = |sale: &&(AdId, usize, u64)| {
            score(of(sale.0)) * i128::from(seen(sale.1)) >= terms.page_threshold * 1_000_000
        };
        let (all, sold) = (sales(&offers, &free), sales(&offers, &terms));
        let expected: Vec<_> = all.iter().take_while(reaches).map(|sale| (sale.0, sale.1)).collect();
        assert_eq!(sold.iter().map(|sale| (sale.0, sale.1)).collect::<Vec<_>>(), expected, "seed {seed}");
        assert_eq!(
            all.iter().filter(reaches).count(),
            expected.len(),
            "seed {seed}: nobody behind it reaches it either"
        );
        for ((ad, slot, price), (_, _, without)) in sold.iter().zip(&all) {
            let least = least_bid(of(*ad), seen(*slot), terms.page_threshold);
            match mechanism {
                Mechanism::Gsp => assert_eq!(*price, least.max(*without), "seed {seed}: {offers:?} {terms:?}"),
                Mechanism::FirstPrice => assert_eq!(price, without),
                // Rounded down, and never below what the others' bids and the threshold ask of one slot.
                Mechanism::Vcg => assert!(price + 1 >= least && price >= without, "seed {seed}: {offers:?} {terms:?}"),
            }
            raised += usize::from(price > without);
        }
        (shown, hidden) = (shown + sold.len(), hidden + all.len() - sold.len());
    }
    assert!(shown > 2_000 && hidden > 2_000 && raised > 500, "{shown} shown, {hidden} hidden, {raised} raised");
}

/// One slot: a threshold is a reserve in score units, whatever the mechanism makes of it.
#[test]
fn one_slot_with_a_threshold_is_one_with_a_reserve() {
    for seed in 0..3_000 {
        let mut dice = Dice::new(seed);
        let threshold = dice.roll(12);
        let market: Vec<Offer> = (0..dice.roll(6)).map(|ad| offer(ad, dice.roll(12), 1)).collect();
        let reserved = |o: &Offer| Offer { reserve: Micros(threshold), ..*o };
        for mechanism in [Mechanism::Gsp, Mechanism::Vcg, Mechanism::FirstPrice] {
            let terms = AuctionTerms { tie_price: TiePrice::WinnerWins, ..terms(mechanism, 1) };
            let thresholded = AuctionTerms { page_threshold: i128::from(threshold), ..terms.clone() };
            let with_reserves: Vec<Offer> = market.iter().map(reserved).collect();
            assert_eq!(sales(&market, &thresholded), sales(&with_reserves, &terms), "seed {seed}");
        }
    }
}

/// With neighbours apart an empty slot ends the slate, although the ad that was kept out of it, of the category above,
/// reaches the threshold one slot later. What ends the slate is the best ad that may stand there.
#[test]
fn an_empty_slot_ends_the_slate() {
    let of_category = |ad, bid, limit_category| Offer { limit_category, ..offer(ad, bid, 1) };
    let market = [of_category(0, 20, 1), of_category(1, 19, 1), of_category(2, 3, 2)];
    let with = |page_threshold, neighbours| {
        let terms = AuctionTerms { page_threshold, neighbours, ..terms(Mechanism::Gsp, 3) };
        sales(&market, &terms).iter().map(|(ad, _, price)| (ad.0, *price)).collect::<Vec<_>>()
    };
    assert_eq!(with(3, Neighbours::Apart).iter().map(|sale| sale.0).collect::<Vec<_>>(), [0, 2, 1]);
    assert_eq!(with(4, Neighbours::Apart), [(0, 19)]);
    assert_eq!(with(4, Neighbours::Any), [(0, 19), (1, 4)]);
}

/// An advertiser's second ad does not set the price of its first, and the threshold does where nobody else is left.
#[test]
fn the_threshold_is_what_is_left_of_the_market() {
    let mut market = [offer(0, 10, 1), offer(1, 9, 1)];
    (market[0].advertiser, market[1].advertiser) = (AdvertiserId(7), AdvertiserId(7));
    for mechanism in [Mechanism::Gsp, Mechanism::Vcg] {
        let terms = AuctionTerms { per_advertiser: 1, page_threshold: 4, ..terms(mechanism, 2) };
        assert_eq!(sales(&market, &terms).iter().map(|s| (s.0.0, s.2)).collect::<Vec<_>>(), [(0, 4)]);
    }
}
