//! Closed forms of private values: what first prices bring in equilibrium, and which reserve brings the most (Myerson).
//!
//! Values stand on even grids of quantiles where there are few bidders, so that nothing is left to chance; else they are
//! drawn, and tolerances are those of the number of draws. Every auction is cleared by the code that serves.

use gavel_proto::money::Micros;
use gavel_router::auction::{AuctionRule, Mechanism, clear};
use gavel_router::merge::Offer;

use crate::market::{Dice, offer, ranking, rule, terms};

/// A currency unit.
const UNIT: f64 = 1e6;

/// One slot.
fn one_slot(mechanism: Mechanism) -> AuctionRule {
    rule(terms(mechanism, 1))
}

/// Who gets the slot for these bids, in currency units, and for how much.
fn sold(bids: &[f64], reserve: f64, rule: &AuctionRule) -> Option<(usize, f64)> {
    let micros = |amount: f64| Micros((amount * UNIT).round() as u64);
    let offers: Vec<Offer> = (0..)
        .zip(bids)
        .map(|(ad, bid)| Offer { bid: micros(*bid), reserve: micros(reserve), ..offer(ad, 0, 1) })
        .collect();
    let ranking = ranking(&offers);
    let clearing = clear(&ranking, rule);
    let winner = clearing.winners.first()?;
    Some((ranking[winner.candidate].offer().ad.0 as usize, winner.price.0 as f64 / UNIT))
}

/// The middles of so many equal parts of [0, 1].
fn quantiles(parts: u32) -> impl Iterator<Item = f64> + Clone {
    (0..parts).map(move |part| (f64::from(part) + 0.5) / f64::from(parts))
}

/// Against n - 1 rivals of U[0, 1] that bid (n - 1)/n of their values nothing gains more than the same. The rivals' values
/// are quantiles such that a bid on the grid of lies beats exactly the share of them that it beats of the continuum.
#[test]
fn shading_by_one_bidder_in_n_is_the_best_reply() {
    let first_price = one_slot(Mechanism::FirstPrice);
    let mut lies = 0;
    for (bidders, parts, steps) in [(2, 400, 40), (3, 60, 30)] {
        let shade = f64::from(bidders - 1) / f64::from(bidders);
        let rivals: Vec<Vec<f64>> = match bidders {
            2 => quantiles(parts).map(|one| vec![one]).collect(),
            _ => quantiles(parts).flat_map(|one| quantiles(parts).map(move |two| vec![one, two])).collect(),
        };
        let gain = |value: f64, bid: f64| {
            let one = |rivals: &Vec<f64>| {
                let bids = [&[bid][..], &rivals.iter().map(|rival| shade * rival).collect::<Vec<_>>()].concat();
                sold(&bids, 0.0, &first_price).filter(|(who, _)| *who == 0).map_or(0.0, |(_, price)| value - price)
            };
            rivals.iter().map(one).sum::<f64>() / rivals.len() as f64
        };
        for value in [0.3, 0.6, 0.9] {
            let truth = gain(value, shade * value);
            // (v - b) (b / shade)^(n - 1) at the best b.
            let expected = value.powi(bidders) / f64::from(bidders);
            assert!((truth - expected).abs() < 1e-6, "{bidders} bidders, {value}: {truth} for {expected}");
            for step in 0..=steps {
                let bid = f64::from(step) / f64::from(steps);
                assert!(gain(value, bid) <= truth + 1e-6, "{bidders} bidders, {value}: {bid} gains more");
                lies += 1;
            }
        }
    }
    assert_eq!(lies, 3 * 41 + 3 * 31);
}

/// In that equilibrium first prices bring (n - 1)/(n + 1), and so do second prices of true values: the same to whom has
/// the value (revenue equivalence). The revenue of one auction deviates by less than 0.25, the mean of 200,000 by 0.0006:
/// the tolerance is four of these.
#[test]
fn first_prices_bring_what_second_prices_bring() {
    const AUCTIONS: u32 = 200_000;
    let (first_price, gsp) = (one_slot(Mechanism::FirstPrice), one_slot(Mechanism::Gsp));
    for bidders in [2_u32, 3, 5] {
        let n = f64::from(bidders);
        let mut dice = Dice::new(u64::from(bidders));
        let (mut shaded, mut truthful) = (0.0, 0.0);
        for _ in 0..AUCTIONS {
            let values: Vec<f64> = (0..bidders).map(|_| dice.roll(1_000_000) as f64 / UNIT).collect();
            let bids: Vec<f64> = values.iter().map(|value| (n - 1.0) / n * value).collect();
            shaded += sold(&bids, 0.0, &first_price).map_or(0.0, |(_, price)| price);
            truthful += sold(&values, 0.0, &gsp).map_or(0.0, |(_, price)| price);
        }
        for (what, total) in [("first", shaded), ("second", truthful)] {
            let (mean, published) = (total / f64::from(AUCTIONS), (n - 1.0) / (n + 1.0));
            assert!((mean - published).abs() < 0.0024, "{bidders} bidders, {what} price: {mean} for {published}");
        }
    }
}

/// The revenue of second prices by reserve, over the same values for each, and the reserve that brings the most.
fn best_reserve(
    markets: &[Vec<f64>],
    reserves: impl Iterator<Item = f64>,
    revenue: &dyn Fn(f64) -> Option<f64>,
) -> f64 {
    let gsp = one_slot(Mechanism::Gsp);
    let mut best = (f64::NEG_INFINITY, 0.0);
    for reserve in reserves {
        let total: f64 = markets.iter().filter_map(|values| sold(values, reserve, &gsp)).map(|(_, price)| price).sum();
        let mean = total / markets.len() as f64;
        if let Some(expected) = revenue(reserve) {
            assert!((mean - expected).abs() < 0.004, "a reserve of {reserve} brings {mean} for {expected}");
        }
        if mean > best.0 {
            best = (mean, reserve);
        }
    }
    best.1
}

/// Myerson: the best reserve of U[0, 1] is 1/2, for one bidder as for three; on the way every R(n, r) of the grid.
#[test]
fn the_best_reserve_of_even_values_is_a_half() {
    for bidders in 1..=3_u32 {
        let n = f64::from(bidders);
        let mut dice = Dice::new(u64::from(bidders) + 70);
        let market = |_| (0..bidders).map(|_| dice.roll(1_000_000) as f64 / UNIT).collect();
        let markets: Vec<Vec<f64>> = (0..100_000).map(market).collect();
        let formula = |r: f64| {
            let below = |power: u32| r.powi(power as i32);
            Some(2.0 * n / (n + 1.0) * (1.0 - below(bidders + 1)) - (1.0 - below(bidders)))
        };
        let reserves = (0..=9).map(|tenth| f64::from(tenth) / 10.0);
        let best = best_reserve(&markets, reserves, &formula);
        assert!((best - 0.5).abs() < 1e-9, "{bidders} bidders: {best}");
    }
}

/// Values of Exp(l): one bidder brings r e^(-l r), the most at 1/l, and at 1/l two bidders bring the most, too.
#[test]
fn the_best_reserve_of_exponential_values_is_their_mean() {
    for rate in [1.0, 2.0] {
        let value = |u: f64| -(1.0 - u).ln() / rate;
        let reserves = |steps: u32| (0..=2 * steps).map(move |step| f64::from(step) / f64::from(steps) / rate);
        let one: Vec<Vec<f64>> = quantiles(20_000).map(|u| vec![value(u)]).collect();
        let best = best_reserve(&one, reserves(10), &|r| Some(r * (-rate * r).exp()));
        assert!((best - 1.0 / rate).abs() < 1e-9, "one bidder of Exp({rate}): {best}");
        // A hundred and fifty quantiles are too coarse to tell reserves that are closer.
        let two: Vec<Vec<f64>> =
            quantiles(150).flat_map(|u| quantiles(150).map(move |v| vec![value(u), value(v)])).collect();
        let best = best_reserve(&two, reserves(5), &|_| None);
        assert!((best - 1.0 / rate).abs() < 1e-9, "two bidders of Exp({rate}): {best}");
    }
}
