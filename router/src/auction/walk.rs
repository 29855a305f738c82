//! Who gets a slot?
//!
//! One greedy walk: each slot in turn goes to the best ad that is eligible, not yet picked, and kept out by
//! no limit given the picks before it (decision 11); there is no earlier deduplication. The walk ends at
//! the first slot that nobody can take. It may be resumed from any of its prefixes: that is what makes
//! prices cheap, because the re-run without a winner equals the walk up to that winner.
//!
//! Where neighbours may be of one category, limits only ever fill up, so an ad that was passed over stays
//! out and the walk goes down the ranking once. Where they must differ, an ad that was passed over may
//! stand one slot later, so each slot is looked for from the top.
//!
//! A page threshold is a least score that rises from slot to slot: a slot whose best ad does not reach it stays empty, and
//! so do those below.

use gavel_proto::cut::Neighbours;
use gavel_proto::ids::{AdId, AdvertiserId};

use super::rule::AuctionRule;
use crate::merge::Candidate;

/// Which limit keeps an ad out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Its advertiser has as many ads in the slate as allowed.
    Advertiser,
    /// Its category has.
    Category,
    /// The slot before holds its category.
    Neighbour,
}

/// The market of one auction: who may take part, under which rule.
#[derive(Clone, Copy)]
pub(super) struct Market<'a> {
    pub ranking: &'a [Candidate],
    pub rule: &'a AuctionRule,
    /// Ads that were taken out after an earlier clearing.
    pub removed: &'a [AdId],
    /// At most so many ads of one category, if that can bind.
    pub category_limit: Option<usize>,
}

impl<'a> Market<'a> {
    pub fn new(ranking: &'a [Candidate], rule: &'a AuctionRule, removed: &'a [AdId]) -> Self {
        Self { ranking, rule, removed, category_limit: rule.category_limit() }
    }

    /// Picks up to all slots, from the first on, as indexes into the ranking.
    pub fn walk(&self) -> Vec<usize> {
        let slots = self.rule.terms().slots.min(self.ranking.len());
        let mut picks = Vec::with_capacity(slots);
        while picks.len() < slots {
            let Some(next) = self.next_pick(&picks, None) else { break };
            picks.push(next);
        }
        picks
    }

    /// The ad that takes the slot after `picks`, with one advertiser left out.
    pub fn next_pick(&self, picks: &[usize], without: Option<AdvertiserId>) -> Option<usize> {
        let from = match self.rule.terms().neighbours {
            Neighbours::Any => picks.last().map_or(0, |last| last + 1),
            Neighbours::Apart => 0,
        };
        let least = self.rule.least_score(picks.len());
        let mut worthy =
            self.ranking[from..].iter().enumerate().take_while(|(_, candidate)| candidate.score() >= least);
        let found = worthy.find(|(offset, candidate)| {
            Some(candidate.offer().advertiser) != without
                && candidate.eligible()
                && self.limit(picks, candidate).is_none()
                && !picks.contains(&(from + offset))
                && !self.removed.contains(&candidate.offer().ad)
        });
        found.map(|(offset, _)| from + offset)
    }

    /// The limit that keeps this ad out of the slot after `picks`. Slates are short: counting beats a map.
    pub fn limit(&self, picks: &[usize], candidate: &Candidate) -> Option<Limit> {
        let offer = candidate.offer();
        let of_advertiser = picks.iter().filter(|p| self.ranking[**p].offer().advertiser == offer.advertiser);
        if of_advertiser.count() >= self.rule.terms().per_advertiser {
            return Some(Limit::Advertiser);
        }
        self.limit_of_category(picks, offer.limit_category)
    }

    /// The limit that keeps ads of this category out of the slot after `picks`.
    pub fn limit_of_category(&self, picks: &[usize], category: u64) -> Option<Limit> {
        if category == 0 {
            return None;
        }
        let is_of_it = |pick: &usize| self.ranking[*pick].offer().limit_category == category;
        if self.category_limit.is_some_and(|limit| picks.iter().filter(|p| is_of_it(p)).count() >= limit) {
            return Some(Limit::Category);
        }
        let beside = self.rule.terms().neighbours == Neighbours::Apart && picks.last().is_some_and(is_of_it);
        beside.then_some(Limit::Neighbour)
    }
}
