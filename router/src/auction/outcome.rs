//! Why did this ad not win?
//!
//! Every candidate has exactly one outcome, with the amount that was missing. Computed on demand, for
//! explanations; serving never does.

use gavel_proto::money::Micros;

use super::price::{Beat, smallest_bid};
use super::walk::{Limit, Market};
use super::{AuctionRule, Clearing};
use crate::merge::{Candidate, Ranking};

/// What became of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has this slot.
    Won {
        /// 0-based.
        slot: usize,
    },
    /// Its bid is below its reserve.
    BelowReserve {
        /// Missing, in the event of the bid.
        short_by: Micros,
    },
    /// Its additive value is a cost above what its bid is worth.
    WorthLess {
        /// Score units below 0.
        score_gap: i128,
    },
    /// A limit was full when its turn came.
    Limited(Limit),
    /// Others were worth more.
    Lost {
        /// Score units behind the last slot.
        score_gap: i128,
        /// The bid that would have won the last slot, all else equal.
        bid_needed: Option<Micros>,
    },
    /// It could not be served when its slot was reserved.
    Removed,
}

/// The outcome of every candidate, in the order of the ranking; `clearing` came from the same ranking and rule.
#[must_use]
pub fn outcomes(ranking: &Ranking, rule: &AuctionRule, clearing: &Clearing) -> Vec<Outcome> {
    let market = Market { ranking, rule, removed: &[] };
    let picks: Vec<usize> = clearing.winners.iter().map(|winner| winner.candidate).collect();
    let one = |(index, candidate): (usize, &Candidate)| match clearing.winners.iter().find(|w| w.candidate == index) {
        Some(winner) => Outcome::Won { slot: winner.slot },
        None if clearing.failed.contains(&candidate.offer().ad) => Outcome::Removed,
        None => outcome(&market, &picks, candidate),
    };
    ranking.iter().enumerate().map(one).collect()
}

fn outcome(market: &Market<'_>, picks: &[usize], candidate: &Candidate) -> Outcome {
    let offer = candidate.offer();
    if offer.bid < offer.reserve {
        return Outcome::BelowReserve { short_by: Micros(offer.reserve.0 - offer.bid.0) };
    }
    if candidate.score() < 0 {
        return Outcome::WorthLess { score_gap: -candidate.score() };
    }
    if let Some(limit) = market.limit(picks, candidate) {
        return Outcome::Limited(limit);
    }
    let Some(last) = picks.last().map(|pick| &market.ranking[*pick]) else {
        return Outcome::Lost { score_gap: 0, bid_needed: None };
    };
    let wins_tie = (offer.tie, offer.ad) < (last.offer().tie, last.offer().ad);
    let beat = if wins_tie { Beat::Reach } else { Beat::Exceed };
    Outcome::Lost {
        score_gap: last.score() - candidate.score(),
        bid_needed: smallest_bid(candidate, last.score(), beat),
    }
}
