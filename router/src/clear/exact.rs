//! What would the auction decide if integers had no end?
//!
//! The obvious twin of the clearing for the auctions of a file: no limits, one advertiser per bid, equal
//! scores by index, prices as if the winner won every tie. It clears what does not fit the machine's
//! integers, such as weights of many coprime denominators, and the tests hold the two against each other.

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
    order.truncate(auction.factors.len());
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

fn second_price(auction: &StatedAuction, ranked: &[&BigUint], slot: usize, winner: usize) -> u64 {
    let weight = &auction.weights[winner];
    let price = ranked.get(slot + 1).map_or_else(BigUint::zero, |score| (*score + weight - 1u8) / weight);
    // At most the bid: the next score is no larger than the winner's.
    price.to_u64().unwrap_or(auction.bids[winner])
}

fn ladder_price(auction: &StatedAuction, ranked: &[&BigUint], slot: usize, winner: usize) -> u64 {
    let floor = &auction.weights[winner] * auction.reserve;
    let factor = |position: usize| auction.factors.get(position).cloned().unwrap_or_default();
    let owed =
        |position: usize| ranked.get(position + 1).map_or_else(|| floor.clone(), |s| (*s).clone().max(floor.clone()));
    let steps = (slot..auction.factors.len()).map(|p| (factor(p) - factor(p + 1)) * owed(p));
    let price = steps.sum::<BigUint>() / (factor(slot) * &auction.weights[winner]);
    price.to_u64().unwrap_or(auction.bids[winner])
}
