//! VCG: the externality, the integral, and truthfulness (A1, A2, A5, A6, A14, A15).

use gavel_proto::ids::AdvertiserId;
use gavel_proto::money::Micros;
use gavel_router::auction::{AuctionTerms, Mechanism, TiePrice};
use gavel_router::merge::Offer;

use crate::market::{
    Dice, any_terms, factors, halves, offer, offers, plain_winners, priced_against, prices, sales, score, separate,
    slot_with, terms, with_bid,
};

/// The best welfare over all assignments of ads to slots within the limits, by trying them all. Whatever is shown costs the
/// page what the threshold says: that is the welfare that a slot is worth filling by.
fn welfare(offers: &[Offer], terms: &AuctionTerms) -> i128 {
    fn fill(slot: usize, taken: &mut Vec<Offer>, offers: &[Offer], terms: &AuctionTerms) -> i128 {
        if slot == terms.slots {
            return 0;
        }
        let mut best = fill(slot + 1, taken, offers, terms);
        for offer in offers {
            let of_advertiser = taken.iter().filter(|t| t.advertiser == offer.advertiser).count();
            let of_category = taken.iter().filter(|t| t.limit_category == offer.limit_category).count();
            let category_full = offer.limit_category != 0 && terms.per_category.is_some_and(|l| of_category >= l);
            if taken.iter().any(|t| t.ad == offer.ad) || of_advertiser >= terms.per_advertiser || category_full {
                continue;
            }
            taken.push(*offer);
            let value = i128::from(terms.position_factors_ppm[slot]) * score(offer) - terms.page_threshold * 1_000_000;
            best = best.max(value + fill(slot + 1, taken, offers, terms));
            taken.pop();
        }
        best
    }
    fill(0, &mut Vec::new(), offers, terms)
}

/// A1: what the others lose by the winner's advertiser, under one kind of limit at a time.
#[test]
fn the_price_is_the_externality() {
    let mut empty = 0;
    for seed in 0..3_000 {
        let mut dice = Dice::new(seed);
        let slots = 1 + dice.roll(3) as usize;
        let mut all = offers(&mut dice, 5);
        for offer in &mut all {
            (offer.value, offer.reserve) = (0, Micros(0));
        }
        // What a threshold asks of scores is whole, so that the greedy rounds nothing up that the welfare knows in full.
        let page_threshold = dice.pick(&[0, 0, 1, 3, 8, 12]);
        let seen = if page_threshold > 0 { halves(&mut dice, slots) } else { factors(&mut dice, slots) };
        let mut terms = AuctionTerms { position_factors_ppm: seen, page_threshold, ..terms(Mechanism::Vcg, slots) };
        match dice.roll(3) {
            0 => (terms.per_advertiser, terms.per_category) = (1, None),
            1 => (all, terms.per_category) = (separate(all), Some(1 + dice.roll(2) as usize)),
            _ => all = separate(all),
        }
        let best = welfare(&all, &terms);
        let winners = plain_winners(&all, &terms);
        let share = |slot: usize| i128::from(terms.position_factors_ppm[slot]) * score(&winners[slot]);
        let cost = page_threshold * 1_000_000 * winners.len() as i128;
        let served = (0..winners.len()).map(share).sum::<i128>() - cost;
        assert_eq!(served, best, "seed {seed}: the greedy is not optimal");
        empty += usize::from(page_threshold > 0 && winners.len() < slots.min(all.len()));
        for (slot, price) in prices(&all, &terms).into_iter().enumerate() {
            let others: Vec<Offer> = all.iter().filter(|o| o.advertiser != winners[slot].advertiser).copied().collect();
            let owed = welfare(&others, &terms) - (best - share(slot));
            let per_event = i128::from(terms.position_factors_ppm[slot]) * i128::from(winners[slot].weight);
            assert_eq!(i128::from(price), owed / per_event, "seed {seed} slot {slot}: {all:?} {terms:?}");
        }
    }
    assert!(empty > 500, "thresholds left slots empty in {empty} markets, which say little");
}

/// A15: Myerson's payment `b x(b) - integral of x`, for every limit at once. Rivals' scores, reserves and
/// values and thresholds are even and the winner's weight is 1, so that x is constant between even bids.
#[test]
fn the_price_is_the_integral() {
    let mut slots = 0;
    for seed in 0..4_000 {
        let mut dice = Dice::new(seed);
        let even = |o: &Offer| Offer {
            bid: Micros(o.bid.0 * 2),
            reserve: Micros(o.reserve.0 * 2),
            value: o.value * 2,
            weight: 1,
            ..*o
        };
        let offers: Vec<Offer> = offers(&mut dice, 8).iter().map(even).collect();
        let terms = any_terms(&mut dice, Mechanism::Vcg);
        let winners = plain_winners(&offers, &terms);
        for (ad, slot, price) in sales(&offers, &terms) {
            let market = priced_against(&offers, &winners, slot);
            let seen =
                |bid: u64| slot_with(&market, &terms, ad, bid).map_or(0, |s| u64::from(terms.position_factors_ppm[s]));
            let bid = winners[slot].bid.0;
            let x = u64::from(terms.position_factors_ppm[slot]);
            let integral: u64 = (0..bid / 2).map(|half| 2 * seen(2 * half + 1)).sum();
            assert_eq!(price, (bid * x - integral) / x, "seed {seed} slot {slot}: {offers:?} {terms:?}");
            slots += 1;
        }
    }
    assert!(slots > 3_000, "{slots} slots say little");
}

/// A2, A14: no price above that of GSP, hence no more revenue from the same bids.
#[test]
fn vcg_is_at_most_gsp() {
    for seed in 0..5_000 {
        let mut dice = Dice::new(seed);
        let offers = offers(&mut dice, 12);
        let vcg = any_terms(&mut dice, Mechanism::Vcg);
        let gsp = AuctionTerms { mechanism: Mechanism::Gsp, ..vcg.clone() };
        for (low, high) in sales(&offers, &vcg).iter().zip(sales(&offers, &gsp)) {
            assert_eq!((low.0, low.1), (high.0, high.1));
            assert!(low.2 <= high.2, "seed {seed}: {low:?} {high:?}");
        }
    }
}

/// A5: no misreport gains more than the rounding, one micro per event, with any weights, reserves and categories.
#[test]
fn truth_pays() {
    let mut misreports = 0;
    for seed in 0..1_500 {
        let mut dice = Dice::new(seed);
        // A currency of 1,000: the grid of misreports crosses every rival's threshold, and rounding is small.
        let coarse =
            |o: &Offer| Offer { bid: Micros(o.bid.0 * 1_000), reserve: Micros(o.reserve.0 * 1_000), value: 0, ..*o };
        let offers: Vec<Offer> = separate(offers(&mut dice, 6)).iter().map(coarse).collect();
        let mut terms = any_terms(&mut dice, Mechanism::Vcg);
        terms.page_threshold *= 1_000;
        let utility = |market: &[Offer], one: &Offer| {
            let sale = sales(market, &terms).into_iter().find(|s| s.0 == one.ad);
            sale.map_or((0, 0), |(_, slot, price)| {
                let x = i128::from(terms.position_factors_ppm[slot]);
                (x * (i128::from(one.bid.0) - i128::from(price)), x)
            })
        };
        for one in &offers {
            let (truth, seen) = utility(&offers, one);
            for half in 0..26 {
                let (lie, seen_then) = utility(&with_bid(&offers, one.ad, half * 500), one);
                assert!(lie <= truth + seen.max(seen_then), "seed {seed}: {one:?} gains {lie} over {truth} by {half}");
                misreports += 1;
            }
        }
    }
    assert!(misreports > 12_000, "{misreports} misreports say little");
}

/// A6, A14: with the bids B* of Edelman, Ostrovsky and Schwarz (theorem 7), GSP is VCG: same slots, same
/// payments, bids sorted, nobody envies a neighbour, and who is left out does not envy the last slot.
#[test]
fn the_envy_free_bids_make_gsp_pay_vcg() {
    for seed in 0..3_000 {
        let mut dice = Dice::new(seed);
        let slots = 1 + dice.roll(4) as usize;
        // Divisors of 12 and values that 12 divides keep every B* whole.
        let x: Vec<u32> = [12, 6, 4, 3, 2, 1][dice.roll(3) as usize..][..slots].to_vec();
        let mut values: Vec<u64> = (0..slots as u64 + 1 + dice.roll(3)).map(|_| 12 * (1 + dice.roll(500))).collect();
        values.sort_unstable_by(|a, b| b.cmp(a));
        values.dedup();
        let terms = |mechanism| AuctionTerms {
            position_factors_ppm: x.clone(),
            tie_price: TiePrice::WinnerWins,
            ..terms(mechanism, slots)
        };
        let market =
            |bids: &[u64]| -> Vec<Offer> { bids.iter().zip(0..).map(|(bid, ad)| offer(ad, *bid, 1)).collect() };
        let vcg = prices(&market(&values), &terms(Mechanism::Vcg));
        let mut bids = values.clone();
        for (slot, price) in vcg.iter().enumerate().filter(|(slot, _)| slot + 1 < values.len()) {
            bids[slot + 1] = *price;
        }
        assert!(bids.is_sorted_by(|a, b| a >= b), "seed {seed}: {bids:?}");
        let gsp = sales(&market(&bids), &terms(Mechanism::Gsp));
        assert_eq!(gsp.iter().map(|s| s.2).collect::<Vec<_>>(), vcg, "seed {seed}");
        let utility =
            |bidder: usize, slot: usize| i128::from(x[slot]) * (i128::from(values[bidder]) - i128::from(vcg[slot]));
        for slot in 1..vcg.len() {
            assert!(utility(slot, slot) >= utility(slot, slot - 1), "seed {seed}: envy upwards");
            assert!(utility(slot - 1, slot - 1) >= utility(slot - 1, slot), "seed {seed}: envy downwards");
        }
        if values.len() > slots {
            assert!(utility(slots, slots - 1) <= 0, "seed {seed}: who is left out envies the last slot");
        }
    }
}

/// An advertiser's own second ad neither raises its price nor that of the slot it leaves.
#[test]
fn no_externality_on_oneself() {
    let mut pair = [offer(0, 10, 1), offer(1, 9, 1), offer(2, 5, 1)];
    (pair[0].advertiser, pair[1].advertiser) = (AdvertiserId(9), AdvertiserId(9));
    let terms = AuctionTerms { per_advertiser: 1, ..terms(Mechanism::Vcg, 1) };
    assert_eq!(prices(&pair, &terms), [5]);
}
