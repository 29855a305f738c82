//! What would the auction decide if integers had no end?
//!
//! The obvious twin of the clearing for the auctions of a file: no limits, one advertiser per bid, equal
//! scores by index, prices as if the winner won every tie. It clears what does not fit the machine's
//! integers, such as weights of many coprime denominators, and the tests hold the two against each other.

use gavel_proto::money::PPM;
use num_bigint::BigUint;
use num_traits::{ToPrimitive, Zero};

use super::ClearedAuction;
use super::document::StatedAuction;
use crate::auction::Mechanism;

/// Clears one auction.
pub fn clear(auction: &StatedAuction) -> ClearedAuction {
    let scores: Vec<BigUint> = auction.bids.iter().zip(&auction.weights).map(|(bid, weight)| weight * bid).collect();
    let mut order: Vec<usize> = (0..scores.len()).filter(|i| auction.bids[*i] >= auction.reserve).collect();
    // A stable sort leaves equal scores by index.
    order.sort_by(|a, b| scores[*b].cmp(&scores[*a]));
    let ranked: Vec<&BigUint> = order.iter().map(|i| &scores[*i]).collect();
    let is_shown = |slot: usize| ranked.get(slot).is_some_and(|score| **score >= least_score(auction, slot));
    // Scores fall from slot to slot, and what they have to reach rises.
    order.truncate((0..auction.factors.len()).take_while(|slot| is_shown(*slot)).count());
    let price = |(slot, winner): (usize, &usize)| {
        let price = match auction.mechanism {
            Mechanism::Gsp => second_price(auction, &ranked, slot, *winner),
            Mechanism::Vcg => ladder_price(auction, &ranked, slot, *winner),
            Mechanism::FirstPrice => auction.bids[*winner],
        };
        price.max(auction.reserve)
    };
    let price_micros = order.iter().enumerate().map(price).collect();
    ClearedAuction { id: auction.id.clone(), order, price_micros }
}

/// What the page threshold asks of the score in a slot.
fn least_score(auction: &StatedAuction, slot: usize) -> BigUint {
    up(&auction.page_threshold * PPM, &auction.factors[slot])
}

/// The quotient, rounded up.
fn up(dividend: BigUint, divisor: &BigUint) -> BigUint {
    (dividend + divisor - 1u8) / divisor
}

fn second_price(auction: &StatedAuction, ranked: &[&BigUint], slot: usize, winner: usize) -> u64 {
    let next = ranked.get(slot + 1).copied().cloned().unwrap_or_default();
    let price = up(next.max(least_score(auction, slot)), &auction.weights[winner]);
    // At most the bid: the next score is no larger than the winner's.
    price.to_u64().unwrap_or(auction.bids[winner])
}

fn ladder_price(auction: &StatedAuction, ranked: &[&BigUint], slot: usize, winner: usize) -> u64 {
    let floor = &auction.weights[winner] * auction.reserve;
    let factor = |position: usize| auction.factors.get(position).cloned().unwrap_or_default();
    let (mut total, mut threshold) = (BigUint::zero(), ranked[slot].clone());
    for position in slot..auction.factors.len() {
        let least = least_score(auction, position);
        let next = ranked.get(position + 1).map(|score| (*score).clone()).filter(|score| *score >= least);
        // Behind a slot that would be empty no other one is to be had.
        let below = if next.is_some() { factor(position + 1) } else { BigUint::zero() };
        let is_last = next.is_none();
        threshold = threshold.min(next.unwrap_or(least));
        total += (factor(position) - below) * threshold.clone().max(floor.clone());
        if is_last {
            break;
        }
    }
    let price = total / (factor(slot) * &auction.weights[winner]);
    price.to_u64().unwrap_or(auction.bids[winner])
}
