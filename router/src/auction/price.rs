//! What does a winner pay?
//!
//! Every price comes from the walk re-run without the winner's advertiser; ads of that advertiser that
//! already stand above the winner stay, which matters only when an advertiser may win more than one slot.
//! Nobody bids against oneself, and an ad that a limit kept out of the slate still competes (auction
//! chapter, 1.8: "the next shown ad" undercharges, "the next in the ranking" overcharges).
//!
//! With p_j the pick of that re-run for slot j, an ad gets the first slot that no limit closes to it and
//! whose p_j it beats. So what it takes to get slot k or a better one is the least score of the p_j, j <= k,
//! over the slots open to it: t_k.
//!
//! * GSP: the smallest integer bid that keeps slot k.
//! * VCG: the payment for that monotone allocation (Myerson). With `x` the position factors the winner of
//!   slot k owes `sum over j >= k of (x_j - x_(j+1)) * max(t_j - value, reserve * weight, 0)` score units,
//!   per `x_k * weight`, rounded down. Under one kind of limit this is the externality; with weights that
//!   are no click rates it is the laddered auction (Aggarwal, Goel and Motwani, EC 2006). Truthful to
//!   within one micro. Where neighbours must differ the greedy slate is not always the best one, and the
//!   payment is Myerson's for the greedy.
//! * First price: the paced bid.
//!
//! Without a rival the winner beats the empty slot, whose score is 0, or the least that the page threshold asks of it.

use gavel_proto::money::Micros;

use super::rule::{Mechanism, TiePrice};
use super::walk::Market;
use crate::merge::Candidate;

/// Must the score be more than a threshold, or is reaching it enough?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// Who reaches it wins: the tie is ours.
    Reach,
    /// Who reaches it still loses: the tie is theirs.
    Exceed,
}

/// The smallest bid, no smaller than the reserve, with which the candidate's score beats `threshold`.
/// `None` when no bid of 64 bits does.
#[must_use]
pub fn smallest_bid(candidate: &Candidate, threshold: i128, beat: Beat) -> Option<Micros> {
    let offer = candidate.offer();
    let weight = i128::from(offer.weight);
    let needed = threshold.checked_sub(offer.value)?;
    let bid = match beat {
        Beat::Reach if needed <= 0 => 0,
        // Not `(needed + weight - 1) / weight`: that could overflow at the edge.
        Beat::Reach => (needed - 1) / weight + 1,
        Beat::Exceed if needed < 0 => 0,
        Beat::Exceed => needed / weight + 1,
    };
    u64::try_from(bid).ok().map(|bid| Micros(bid.max(offer.reserve.0)))
}

/// The price of `picks[slot]`, in the event of its bid.
pub(super) fn price(market: &Market<'_>, picks: &[usize], slot: usize) -> Micros {
    let winner = &market.ranking[picks[slot]];
    // Every threshold below is one that the winner beats with its bid, so `None` cannot come out;
    // the bid itself is the largest price that could be right.
    match market.rule.terms().mechanism {
        Mechanism::Gsp => second_price(market, picks, slot).unwrap_or(winner.offer().bid),
        Mechanism::Vcg => ladder_price(market, picks, slot).unwrap_or(winner.offer().bid),
        Mechanism::FirstPrice => winner.offer().bid,
    }
}

/// Who sets the price of `picks[slot]` in a generalised second-price auction.
pub(super) fn runner_up(market: &Market<'_>, picks: &[usize], slot: usize) -> Option<usize> {
    let winner = &market.ranking[picks[slot]];
    // Slots before this one were out of the winner's reach: it would have them.
    market.next_pick(&picks[..slot], Some(winner.offer().advertiser))
}

fn second_price(market: &Market<'_>, picks: &[usize], slot: usize) -> Option<Micros> {
    let winner = &market.ranking[picks[slot]];
    let Some(index) = runner_up(market, picks, slot) else {
        return smallest_bid(winner, market.rule.least_score(slot), Beat::Reach);
    };
    let rival = &market.ranking[index];
    let key = |c: &Candidate| (c.offer().tie, c.offer().ad);
    let beat = match market.rule.terms().tie_price {
        TiePrice::WinnerWins => Beat::Reach,
        TiePrice::Keyed if key(winner) < key(rival) => Beat::Reach,
        TiePrice::Keyed => Beat::Exceed,
    };
    smallest_bid(winner, rival.score(), beat)
}

fn ladder_price(market: &Market<'_>, picks: &[usize], slot: usize) -> Option<Micros> {
    let winner = &market.ranking[picks[slot]];
    let offer = winner.offer();
    let floor = i128::from(offer.reserve.0) * i128::from(offer.weight);
    let slots = market.rule.terms().slots;
    let mut rivals = picks[..slot].to_vec();
    let (mut threshold, mut total) = (i128::MAX, 0i128);
    for position in slot..slots {
        let next = market.next_pick(&rivals, Some(offer.advertiser));
        if market.limit_of_category(&rivals, offer.limit_category).is_none() {
            // Nobody there: an empty slot is beaten by any score that the page threshold lets stand in it.
            let empty = || market.rule.least_score(position);
            threshold = threshold.min(next.map_or_else(empty, |index| market.ranking[index].score()));
        }
        let owed = threshold.checked_sub(offer.value)?.max(floor).max(0);
        // Nothing changes behind a walk that has ended: the rest of the ladder is one step.
        let below = if next.is_some() { market.rule.factor(position + 1) } else { 0 };
        let step = i128::from(market.rule.factor(position)) - i128::from(below);
        total = total.checked_add(step.checked_mul(owed)?)?;
        let Some(next) = next else { break };
        rivals.push(next);
    }
    let per_event = i128::from(market.rule.factor(slot)).checked_mul(i128::from(offer.weight))?;
    u64::try_from(total.checked_div(per_event)?).ok().map(Micros)
}
