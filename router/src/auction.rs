//! Who wins, in which slot, and what does it cost?
//!
//! A clearing is a function of the ranking and the rule, in integers: the same on every router, and on
//! a replay years later. Ads are picked by one greedy walk under all limits, then each winner is priced
//! by its mechanism. AU1 holds for every one: reserve <= price <= paced bid, in the event of the bid.
//!
//! Users who cascade down the slate, ad by ad, make the order of the ads part of their worth: then the best
//! slate is found by a recursion instead of the walk (`cascade`).
//!
//! Each winner carries two amounts. `price` is what the bid would have had to be, in the event of the
//! bid; `billed` is what one billed event costs, which differs for oCPM and oCPC alone. A CPM ad is billed
//! per viewable impression, so that its value shrinks with the slot like that of the others; else
//! slots would not be separable and sorting by score not optimal.
//!
//! An ad whose budget or frequency fails after the clearing is taken out and the auction cleared anew.
//! The shards send enough for [`SPARE`] of these; what fails beyond leaves its slot empty, and no price
//! is ever taken from a list that is too short to know the runner-up (decision 12).

mod cascade;
mod outcome;
mod price;
mod rule;
mod walk;

use gavel_proto::cut::SPARE;
use gavel_proto::ids::AdId;
use gavel_proto::money::Micros;

use crate::merge::Ranking;

pub use outcome::{Outcome, outcomes};
pub use price::{Beat, smallest_bid};
pub use rule::{AuctionRule, AuctionTerms, Mechanism, RuleError, TiePrice, UserModel};
pub use walk::Limit;

/// What an auction decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clearing {
    /// In slot order. A slot may be missing after removals.
    pub winners: Vec<Winner>,
    /// Ads that won and could not be served, in the order in which they failed.
    pub failed: Vec<AdId>,
}

/// An ad with a slot and a price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Winner {
    /// Index into the ranking.
    pub candidate: usize,
    /// 0-based.
    pub slot: usize,
    /// Price in the event of the bid: per mille, click or conversion.
    pub price: Micros,
    /// What one billed event costs: per mille for CPM and oCPM, per click for CPC and oCPC, per
    /// conversion for CPA. This is the `price_micros` of answers.
    pub billed: Micros,
    /// The ad next in line for this slot, an index into the ranking.
    pub runner_up: Option<usize>,
}

/// Clears an auction.
#[must_use]
pub fn clear(ranking: &Ranking, rule: &AuctionRule) -> Clearing {
    reclear_without(ranking, rule, &[])
}

/// Clears the auction without ads that cannot be served after all, in the order in which they failed.
///
/// The first [`SPARE`] of them make room for others. Any further one was found out too late: its slot
/// stays empty, and the other winners keep slot and price.
#[must_use]
pub fn reclear_without(ranking: &Ranking, rule: &AuctionRule, failed: &[AdId]) -> Clearing {
    let (removed, vacated) = failed.split_at(failed.len().min(SPARE));
    let market = walk::Market::new(ranking, rule, removed);
    let mut winners = match rule.terms().users {
        UserModel::Separable => slate(&market),
        UserModel::Cascade => cascade::slate(&market),
    };
    winners.retain(|winner| !vacated.contains(&ranking[winner.candidate].offer().ad));
    Clearing { winners, failed: failed.to_vec() }
}

/// The greedy slate with its prices.
fn slate(market: &walk::Market<'_>) -> Vec<Winner> {
    let picks = market.walk();
    let winner = |(slot, candidate): (usize, &usize)| {
        let price = price::price(market, &picks, slot);
        Winner {
            candidate: *candidate,
            slot,
            price,
            billed: market.ranking[*candidate].billed(price),
            runner_up: price::runner_up(market, &picks, slot),
        }
    };
    picks.iter().enumerate().map(winner).collect()
}
