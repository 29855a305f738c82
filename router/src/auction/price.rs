//! What does a winner pay?
//!
//! Every price comes from the walk re-run without the winner's advertiser; ads of that advertiser that
//! already stand above the winner stay, which matters only when an advertiser may win more than one slot.
//! Nobody bids against oneself, and an ad that a limit kept out of the slate still competes (auction
//! chapter, 1.8: "the next shown ad" undercharges, "the next in the ranking" overcharges).
//!
//! * GSP: to keep slot k is to stay before the k-th pick of that re-run. The price is the smallest integer
//!   bid that does.
//! * VCG: the payment for a monotone allocation. To get slot j or better is to beat the j-th pick, unless
//!   the winner's category is full after an earlier pick f: then it is to beat that one. With `x` the
//!   position factors and `t_j` that score, the winner of slot k owes
//!   `sum over j >= k of (x_j - x_(j+1)) * max(t_j - value, reserve * weight, 0)` score units, per
//!   `x_k * weight`, rounded down. Without limits this is the externality; truthful to within one micro.
//! * First price: the paced bid.
//!
//! Without a rival the winner beats the empty slot, whose score is 0.

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
    market.next_pick(&picks[..slot], picks[slot] + 1, Some(winner.offer().advertiser))
}

fn second_price(market: &Market<'_>, picks: &[usize], slot: usize) -> Option<Micros> {
    let winner = &market.ranking[picks[slot]];
    let Some(index) = runner_up(market, picks, slot) else { return smallest_bid(winner, 0, Beat::Reach) };
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
    let mut rivals = picks[..slot].to_vec();
    let mut from = picks[slot] + 1;
    let mut total: i128 = 0;
    for position in slot..market.rule.terms().slots {
        let threshold = match market.next_pick(&rivals, from, Some(offer.advertiser)) {
            Some(index) => {
                rivals.push(index);
                from = index + 1;
                market.ranking[index].score()
            }
            None => 0,
        };
        let owed = threshold.checked_sub(offer.value)?.max(floor).max(0);
        // Behind the pick that fills the winner's category there is no slot left to fall back to.
        let last = market.category_full(&rivals, offer.limit_category);
        let next = if last { 0 } else { market.rule.factor(position + 1) };
        let step = i128::from(market.rule.factor(position)) - i128::from(next);
        total = total.checked_add(step.checked_mul(owed)?)?;
        if last {
            break;
        }
    }
    let per_event = i128::from(market.rule.factor(slot)).checked_mul(i128::from(offer.weight))?;
    u64::try_from(total.checked_div(per_event)?).ok().map(Micros)
}
