//! Which candidates of all shards meet in one auction, and in which order?
//!
//! Every shard answers a list in auction order. The lists become one [`Ranking`], which is the only
//! input of the auction: sorted, and each ad in it once. The order is total, so neither the arrival of
//! the answers nor the number of shards can change a clearing (AU2).
//!
//! A list of another epoch is never mixed in (RQ3): two delivery versions would be two bids in one
//! auction. A list that is not in order is refused too, since a cut of it has lost the wrong ads. Each
//! refusal names its shard, so that the caller can go on without that shard and count it as lost coverage.

mod candidate;

use std::cmp::Ordering;

use gavel_proto::epoch::Epoch;
use gavel_proto::hash::mix64;
use gavel_proto::ids::{AdId, ShardId};

pub use candidate::{Candidate, Offer, OfferError, SCORE_BOUND};

/// One shard's answer: candidates in auction order, under one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardList {
    /// Who answered.
    pub shard: ShardId,
    /// The epoch that the answer echoed.
    pub epoch: Epoch,
    /// In auction order.
    pub candidates: Vec<Candidate>,
}

/// Candidates in auction order, each ad once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranking(Vec<Candidate>);

/// Why the lists cannot meet in one auction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// The list was computed under another epoch than the request's.
    #[error("shard {shard} answered epoch {answered:?}, the request is pinned to {pinned:?}")]
    MixedEpoch {
        /// Who answered.
        shard: ShardId,
        /// The request's.
        pinned: Epoch,
        /// The answer's.
        answered: Epoch,
    },
    /// Two answers of one shard are never merged.
    #[error("shard {shard} answered twice")]
    AnsweredTwice {
        /// Who answered.
        shard: ShardId,
    },
    /// Not in auction order.
    #[error("shard {shard} answered out of order at position {position}")]
    OutOfOrder {
        /// Who answered.
        shard: ShardId,
        /// The first candidate that belongs before its predecessor.
        position: usize,
    },
    /// An ad can stand in an auction once.
    #[error("ad {ad} came twice, the second time from shard {shard}")]
    Duplicate {
        /// The first in auction order that came before.
        ad: AdId,
        /// The higher of the two shards.
        shard: ShardId,
    },
}

impl MergeError {
    /// Whose list to leave out.
    #[must_use]
    pub const fn shard(&self) -> ShardId {
        match *self {
            Self::MixedEpoch { shard, .. }
            | Self::AnsweredTwice { shard }
            | Self::OutOfOrder { shard, .. }
            | Self::Duplicate { shard, .. } => shard,
        }
    }
}

/// Merges the shards' lists.
///
/// # Errors
/// When a list is of another epoch, out of order, or holds an ad that another one holds too. Which of
/// several faults is reported does not depend on the order of `lists`.
pub fn merge<'a>(pinned: Epoch, lists: impl IntoIterator<Item = &'a ShardList>) -> Result<Ranking, MergeError> {
    let mut by_shard: Vec<&ShardList> = lists.into_iter().collect();
    by_shard.sort_by_key(|list| list.shard);
    for pair in by_shard.windows(2) {
        if pair[0].shard == pair[1].shard {
            return Err(MergeError::AnsweredTwice { shard: pair[1].shard });
        }
    }
    for list in &by_shard {
        check(pinned, list)?;
    }
    Ranking::of(by_shard.iter().flat_map(|list| &list.candidates).collect())
}

/// Epoch and order of one list.
fn check(pinned: Epoch, list: &ShardList) -> Result<(), MergeError> {
    let shard = list.shard;
    if list.epoch != pinned {
        return Err(MergeError::MixedEpoch { shard, pinned, answered: list.epoch });
    }
    // Equal means the same ad, which is reported as a duplicate.
    let misplaced = list.candidates.windows(2).position(|pair| pair[0].auction_order(&pair[1]) == Ordering::Greater);
    misplaced.map_or(Ok(()), |position| Err(MergeError::OutOfOrder { shard, position: position + 1 }))
}

impl Ranking {
    /// Puts candidates into auction order.
    ///
    /// # Errors
    /// When an ad is in it twice.
    pub fn sorted(candidates: &[Candidate]) -> Result<Self, MergeError> {
        Self::of(candidates.iter().collect())
    }

    fn of(mut candidates: Vec<&Candidate>) -> Result<Self, MergeError> {
        // A stable sort recognises the runs that the shards' lists are; references, because a candidate is wide.
        candidates.sort_by(|a, b| a.auction_order(b));
        if let Some([first, again]) = repeated(&candidates) {
            let shard = first.offer().shard.max(again.offer().shard);
            return Err(MergeError::Duplicate { ad: again.offer().ad, shard });
        }
        Ok(Self(candidates.into_iter().copied().collect()))
    }

    /// The same auction without the candidates that this says.
    #[must_use]
    pub fn without(mut self, is_out: impl Fn(&Candidate) -> bool) -> Self {
        self.0.retain(|candidate| !is_out(candidate));
        self
    }
}

/// The first candidate whose ad came before, with the one that it came as. The common answer is none, and a table by
/// hash knows it in a third of the time that sorting takes.
fn repeated<'a>(candidates: &[&'a Candidate]) -> Option<[&'a Candidate; 2]> {
    const FREE: u32 = u32::MAX;
    // Half of the places stay free, so that a search soon meets one.
    let mask = (candidates.len() * 2).next_power_of_two() - 1;
    let mut places = vec![FREE; mask + 1];
    for (number, candidate) in candidates.iter().enumerate() {
        let ad = candidate.offer().ad;
        let mut at = mix64(ad.0) as usize & mask;
        while places[at] != FREE {
            let before = candidates[places[at] as usize];
            if before.offer().ad == ad {
                return Some([before, candidate]);
            }
            at = (at + 1) & mask;
        }
        places[at] = number as u32;
    }
    None
}

impl std::ops::Deref for Ranking {
    type Target = [Candidate];

    fn deref(&self) -> &[Candidate] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use gavel_proto::money::{BidType, Micros};
    use proptest::prelude::*;

    use super::*;

    fn candidate(ad: u64, shard: u32) -> Candidate {
        let offer = Offer::plain(AdId(ad), BidType::Cpc, Micros(1), 1);
        Candidate::new(Offer { tie: 0, shard: ShardId(shard), ..offer }).expect("valid")
    }

    proptest! {
        /// Ads that fall into few places of the table, some of them twice.
        #[test]
        fn the_table_finds_what_looking_back_finds(
            ads in prop::collection::vec((prop_oneof![0..40u64, any::<u64>()], 0..4u32), 0..60),
        ) {
            let candidates: Vec<Candidate> = ads.into_iter().map(|(ad, shard)| candidate(ad, shard)).collect();
            let candidates: Vec<&Candidate> = candidates.iter().collect();
            let ad = |at: usize| candidates[at].offer().ad;
            let before = |at: usize| (0..at).find(|earlier| ad(*earlier) == ad(at)).map(|earlier| [earlier, at]);
            let expected = (0..candidates.len()).find_map(before).map(|pair| pair.map(|at| candidates[at]));
            prop_assert_eq!(repeated(&candidates), expected);
        }
    }
}
