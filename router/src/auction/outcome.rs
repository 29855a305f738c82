//! Why did this ad not win?
//!
//! Every candidate has exactly one outcome, with the amount that was missing. Computed on demand, for
//! explanations; serving never does.

use std::cmp::Ordering;

use gavel_proto::cut::SPARE;
use gavel_proto::money::Micros;

use super::price::{Beat, smallest_bid};
use super::walk::{Limit, Market};
use super::{AuctionRule, Clearing, UserModel};
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
        /// Score units behind the cheapest slot that was open to it.
        score_gap: i128,
        /// The bid that would have won it, all else equal; `None` where scores alone do not decide.
        bid_needed: Option<Micros>,
    },
    /// It was next in line for a slot, and showing it there would have brought less than the page threshold.
    BelowThreshold {
        /// Score units behind what would have won it a slot.
        score_gap: i128,
        /// The bid that would have; `None` when no bid of 64 bits does.
        bid_needed: Option<Micros>,
    },
    /// It could not be served when its slot was reserved.
    Removed,
}

/// The outcome of every candidate, in the order of the ranking; `clearing` came from the same ranking and rule.
#[must_use]
pub fn outcomes(ranking: &Ranking, rule: &AuctionRule, clearing: &Clearing) -> Vec<Outcome> {
    let market = Market::new(ranking, rule, &[]);
    let picks: Vec<usize> = clearing.winners.iter().map(|winner| winner.candidate).collect();
    // A slot that was vacated too late is nobody's, and the ones below keep their ads.
    let is_whole = clearing.failed.len() <= SPARE;
    let empty = Some(picks.len()).filter(|slot| is_whole && *slot < rule.terms().slots);
    let one = |(index, candidate): (usize, &Candidate)| match clearing.winners.iter().find(|w| w.candidate == index) {
        Some(winner) => Outcome::Won { slot: winner.slot },
        None if clearing.failed.contains(&candidate.offer().ad) => Outcome::Removed,
        None => outcome(&market, &picks, empty, candidate),
    };
    ranking.iter().enumerate().map(one).collect()
}

/// The outcome of a loser; `empty` is the first slot that nobody got.
fn outcome(market: &Market<'_>, picks: &[usize], empty: Option<usize>, candidate: &Candidate) -> Outcome {
    let offer = candidate.offer();
    if offer.bid < offer.reserve {
        return Outcome::BelowReserve { short_by: Micros(offer.reserve.0 - offer.bid.0) };
    }
    if candidate.score() < 0 {
        return Outcome::WorthLess { score_gap: -candidate.score() };
    }
    match market.limit(picks, candidate) {
        Some(limit @ (Limit::Advertiser | Limit::Category)) => return Outcome::Limited(limit),
        Some(Limit::Neighbour) | None => {}
    }
    if market.rule.terms().users == UserModel::Cascade {
        return Outcome::Lost { score_gap: 0, bid_needed: None };
    }
    let beats = |pick: &usize| candidate.auction_order(&market.ranking[*pick]) == Ordering::Less;
    let open = (0..picks.len()).filter(|slot| market.limit(&picks[..*slot], candidate).is_none());
    if picks.iter().any(beats) {
        // Better than a winner, and not picked: it was the neighbour of its category.
        return Outcome::Limited(Limit::Neighbour);
    }
    let needed = |slot: usize| {
        let rival = &market.ranking[picks[slot]];
        let wins_tie = (offer.tie, offer.ad) < (rival.offer().tie, rival.offer().ad);
        let beat = if wins_tie { Beat::Reach } else { Beat::Exceed };
        (rival.score() - candidate.score(), smallest_bid(candidate, rival.score(), beat))
    };
    // Whom no limit keeps out of the empty slot, the page threshold does.
    let missed = empty.filter(|_| market.limit(picks, candidate).is_none()).map(|slot| {
        let least = market.rule.least_score(slot);
        (least - candidate.score(), smallest_bid(candidate, least, Beat::Reach))
    });
    // By score gap; of equal ones, the smaller bid is that of the tie that it wins.
    let nearest = open.map(needed).chain(missed).min_by_key(|(gap, bid)| (*gap, *bid));
    let (score_gap, bid_needed) = nearest.map_or((0, None), |(gap, bid)| (gap, bid));
    match missed {
        Some(_) => Outcome::BelowThreshold { score_gap, bid_needed },
        None => Outcome::Lost { score_gap, bid_needed },
    }
}
