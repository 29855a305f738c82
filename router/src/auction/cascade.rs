//! Which slate is best for users who read from the top and go on from ad to ad?
//!
//! With `e` the score of an ad and `c` its continuation probability, a slate is worth
//! `e_1 + c_1 * (e_2 + c_2 * (...))`. The best one stands in decreasing `e / (1 - c)`; which ads are in it is
//! the recursion `F(i, k) = max(F(i+1, k), e_i + c_i * F(i+1, k-1))` over that order (Aggarwal, Feldman,
//! Muthukrishnan and Pal; Kempe and Mahdian, both WINE 2008). An advertiser takes part with its best ad by score.
//!
//! Integers only: products with `c` are rounded down to a score unit, 1e-15 of a micro, so the slate is the best
//! to within one unit a slot. An ad with K + 1 others of no lower score and no lower continuation is in no best slate, with
//! or without one of them, and is left out first: that is what keeps the recursion short.
//!
//! VCG prices are the externality: the best slate without the winner's advertiser, less what the others have
//! with it, per event of the winner as often as users get to it. These sums are exact, over one common
//! denominator, and the price rounds down.

use std::collections::HashSet;

use gavel_proto::ids::AdvertiserId;
use gavel_proto::money::{Micros, PPM};
use num_bigint::BigInt;
use num_traits::{Pow, Zero};

use super::Winner;
use super::rule::Mechanism;
use super::walk::Market;
use crate::merge::Candidate;

/// The largest continuation: at 1 an ad would be worth infinitely many slots.
const CONTINUATION_PPM_MAX: u32 = PPM - 1;

/// The best slate with its prices.
pub(super) fn slate(market: &Market<'_>) -> Vec<Winner> {
    let picks = best(market, None);
    let winner = |(slot, candidate): (usize, &usize)| {
        let bid = market.ranking[*candidate].offer().bid;
        let price = match market.rule.terms().mechanism {
            Mechanism::Vcg => externality(market, &picks, slot).unwrap_or(bid),
            // A rule of cascading users has no second price.
            Mechanism::Gsp | Mechanism::FirstPrice => bid,
        };
        let billed = market.ranking[*candidate].billed(price);
        Winner { candidate: *candidate, slot, price, billed, runner_up: None }
    };
    picks.iter().enumerate().map(winner).collect()
}

fn continuation(candidate: &Candidate) -> i128 {
    i128::from(candidate.offer().continuation_ppm.min(CONTINUATION_PPM_MAX))
}

/// The best slate, one advertiser left out, as indexes into the ranking in slot order.
fn best(market: &Market<'_>, without: Option<AdvertiserId>) -> Vec<usize> {
    let slots = market.rule.terms().slots;
    let mut field = undominated(market, without, slots);
    let rest = |i: usize| i128::from(PPM) - continuation(&market.ranking[i]);
    // By e / (1 - c), multiplied out; a stable sort leaves equal ones in the order of the auction.
    field.sort_by(|a, b| {
        let (left, right) = (market.ranking[*a].score(), market.ranking[*b].score());
        right.saturating_mul(rest(*a)).cmp(&left.saturating_mul(rest(*b)))
    });
    // worth[i][k]: the best of field[i..] in k slots.
    let mut worth = vec![vec![0i128; slots + 1]; field.len() + 1];
    for (i, index) in field.iter().enumerate().rev() {
        for k in 1..=slots {
            worth[i][k] = worth[i + 1][k].max(with(&market.ranking[*index], worth[i + 1][k - 1]));
        }
    }
    let (mut picks, mut k) = (Vec::with_capacity(slots), slots);
    for (i, index) in field.iter().enumerate() {
        if k > 0 && worth[i][k] > worth[i + 1][k] {
            picks.push(*index);
            k -= 1;
        }
    }
    picks
}

/// What the ad is worth with a slate of this worth below it.
fn with(candidate: &Candidate, below: i128) -> i128 {
    candidate.score() + below * continuation(candidate) / i128::from(PPM)
}

/// Each advertiser's best eligible ad, without those that K + 1 others dominate.
fn undominated(market: &Market<'_>, without: Option<AdvertiserId>, slots: usize) -> Vec<usize> {
    let mut advertisers = HashSet::new();
    // The continuations of the ads so far, which have no lower score, the K + 1 highest in falling order.
    let mut highest: Vec<i128> = Vec::with_capacity(slots + 2);
    let mut field = Vec::new();
    for (index, candidate) in market.ranking.iter().enumerate() {
        let offer = candidate.offer();
        let takes_part = Some(offer.advertiser) != without
            && candidate.eligible()
            && !market.removed.contains(&offer.ad)
            && advertisers.insert(offer.advertiser);
        let goes_on = continuation(candidate);
        let dominated = highest.len() > slots && highest[slots] >= goes_on;
        if takes_part && !dominated {
            field.push(index);
            let place = highest.partition_point(|c| *c >= goes_on);
            highest.insert(place, goes_on);
            highest.truncate(slots + 1);
        }
    }
    field
}

/// What each ad of a slate has, `reach * score`, and how often users get to it, all times `PPM^(len - 1)`.
fn shares(market: &Market<'_>, picks: &[usize], scale: usize) -> Vec<(BigInt, BigInt)> {
    let mut reach = BigInt::from(PPM).pow(scale as u32);
    let share = |index: &usize| {
        let candidate = &market.ranking[*index];
        let own = (&reach * candidate.score(), reach.clone());
        reach = &reach * continuation(candidate) / PPM;
        own
    };
    picks.iter().map(share).collect()
}

/// The price of the externality, between reserve and bid.
fn externality(market: &Market<'_>, picks: &[usize], slot: usize) -> Option<Micros> {
    let offer = market.ranking[picks[slot]].offer();
    // Each step divides by PPM at most once: with one factor a slot every quotient is exact.
    let scale = market.rule.terms().slots;
    let sum = |shares: &[(BigInt, BigInt)]| shares.iter().fold(BigInt::zero(), |sum, (worth, _)| sum + worth);
    let own = shares(market, picks, scale);
    let (share, reach) = &own[slot];
    let owed = sum(&shares(market, &best(market, Some(offer.advertiser)), scale)) - (sum(&own) - share);
    if reach.is_zero() {
        return Some(offer.reserve);
    }
    // Additive value is part of the payment: what is left is per event of the bid. The sums are no less than
    // nothing but for the rounding of the recursion, which the reserve takes.
    let owed = (owed - reach * offer.value).max(BigInt::zero());
    let price = u64::try_from(owed / (reach * offer.weight)).ok()?;
    Some(Micros(price.clamp(offer.reserve.0, offer.bid.0)))
}
