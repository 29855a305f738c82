//! What is refused at the door, so that the arithmetic behind it has no error of its own.

use gavel_proto::limits::{BID_MICROS_MAX, SLOTS_MAX};
use gavel_proto::money::{BidType, Micros};
use gavel_router::auction::{AuctionRule, AuctionTerms, Limit, Mechanism, Outcome, RuleError, outcomes};
use gavel_router::merge::{Candidate, Offer, OfferError, SCORE_BOUND};

use crate::market::{Dice, clear, offer, ranking, rule, terms};

#[test]
fn terms_that_do_not_hold_together() {
    let check = |change: &dyn Fn(&mut AuctionTerms)| {
        let mut terms = terms(Mechanism::Vcg, 2);
        change(&mut terms);
        AuctionRule::new(terms).map(|_| ())
    };
    assert_eq!(check(&|_| {}), Ok(()));
    assert_eq!(check(&|t| t.per_advertiser = 0), Err(RuleError::LimitZero("advertiser")));
    assert_eq!(check(&|t| t.per_category = Some(0)), Err(RuleError::LimitZero("category")));
    assert_eq!(check(&|t| t.position_factors_ppm = vec![2, 0]), Err(RuleError::FactorZero(1)));
    assert_eq!(check(&|t| t.position_factors_ppm = vec![1, 2]), Err(RuleError::FactorsRise(1)));
    assert_eq!(check(&|t| t.page_threshold = -1), Err(RuleError::PageThreshold));
    assert_eq!(check(&|t| t.page_threshold = SCORE_BOUND + 1), Err(RuleError::PageThreshold));
    assert_eq!(check(&|t| t.page_threshold = SCORE_BOUND), Ok(()));
}

#[test]
fn offers_that_cannot_be_priced() {
    let check = |offer: Offer| Candidate::new(offer).map(|c| c.score());
    let ad = offer(1, 5, 3);
    assert_eq!(check(ad), Ok(15));
    assert_eq!(check(Offer { weight: 0, ..ad }), Err(OfferError::NoWeight(ad.ad)));
    assert_eq!(check(Offer { bid_type: BidType::Ocpc, ..ad }), Err(OfferError::NoClickWeight(ad.ad)));
    assert_eq!(check(Offer { value: i128::MIN, ..ad }), Err(OfferError::OutOfBounds(ad.ad)));
    assert_eq!(check(Offer { bid: Micros(u64::MAX), weight: u64::MAX, ..ad }), Err(OfferError::OutOfBounds(ad.ad)));
    assert_eq!(check(Offer { value: SCORE_BOUND, bid: Micros(0), ..ad }), Ok(SCORE_BOUND));
}

/// At the bounds of everything at once, prices still stand between reserve and bid.
#[test]
fn the_largest_amounts_are_cleared() {
    for seed in 0..3_000 {
        let mut dice = Dice::new(seed);
        let mut offers = Vec::new();
        for ad in 0..12 {
            let bid = dice.pick(&[0, 1, BID_MICROS_MAX - 1, BID_MICROS_MAX]);
            let (weight, reserve) =
                (dice.pick(&[1, 999_999_999_999_999, 1_000_000_000_000_000]), dice.pick(&[0, 1, bid]));
            let bid_type = dice.pick(&BidType::ALL);
            let value = dice.pick(&[0, 0, 1 << 89, -(1 << 89), -1]);
            offers.push(Offer { bid_type, value, reserve: Micros(reserve), click_weight: 1, ..offer(ad, bid, weight) });
        }
        for mechanism in [Mechanism::Gsp, Mechanism::Vcg] {
            let factors = [u32::MAX, u32::MAX - 1, 7, 1].repeat(4);
            let mut position_factors_ppm = factors;
            position_factors_ppm.sort_by(|a, b| b.cmp(a));
            let page_threshold = dice.pick(&[0, 1, 1 << 70, SCORE_BOUND]);
            let terms = AuctionTerms { position_factors_ppm, page_threshold, ..terms(mechanism, SLOTS_MAX as usize) };
            let ranking = ranking(&offers);
            for winner in clear(&offers, &terms).winners {
                let offer = ranking[winner.candidate].offer();
                assert!(
                    offer.reserve <= winner.price && winner.price <= offer.bid,
                    "seed {seed}: {winner:?} {offer:?}"
                );
            }
        }
    }
}

#[test]
fn limits_say_which() {
    let mut offers: Vec<Offer> = (0..5).map(|ad| offer(ad, 100 - ad, 1)).collect();
    offers[1].advertiser = offers[0].advertiser;
    (offers[0].limit_category, offers[2].limit_category) = (4, 4);
    offers[4].reserve = Micros(99);
    let terms = AuctionTerms { per_advertiser: 1, per_category: Some(1), ..terms(Mechanism::Gsp, 2) };
    let ranking = ranking(&offers);
    let clearing = clear(&offers, &terms);
    assert_eq!(
        outcomes(&ranking, &rule(terms), &clearing),
        [
            Outcome::Won { slot: 0 },
            Outcome::Limited(Limit::Advertiser),
            Outcome::Limited(Limit::Category),
            Outcome::Won { slot: 1 },
            Outcome::BelowReserve { short_by: Micros(3) },
        ]
    );
    // The ad that the category kept out still sets the price of the one that fills the category.
    assert_eq!(clearing.winners[0].price, Micros(98));
}
