//! Who gets a slot?
//!
//! One walk down the ranking. An ad is picked when it is eligible and no limit that counts the ads
//! picked before it is full (decision 11); there is no earlier deduplication. Counts only grow, so an ad
//! that was passed over stays out, and a walk may be resumed from any of its prefixes: that is what makes
//! prices cheap, because the re-run without a winner equals the walk up to that winner.

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
}

/// The market of one auction: who may take part, under which rule.
#[derive(Clone, Copy)]
pub(super) struct Market<'a> {
    pub ranking: &'a [Candidate],
    pub rule: &'a AuctionRule,
    /// Ads that were taken out after an earlier clearing.
    pub removed: &'a [AdId],
}

impl Market<'_> {
    /// Picks up to all slots, best first, as indexes into the ranking.
    pub fn walk(&self) -> Vec<usize> {
        let slots = self.rule.terms().slots.min(self.ranking.len());
        let mut picks = Vec::with_capacity(slots);
        let mut from = 0;
        while picks.len() < slots {
            let Some(next) = self.next_pick(&picks, from, None) else { break };
            picks.push(next);
            from = next + 1;
        }
        picks
    }

    /// The next ad from `from` on that joins `picks`, with one advertiser left out.
    pub fn next_pick(&self, picks: &[usize], from: usize, without: Option<AdvertiserId>) -> Option<usize> {
        (from..self.ranking.len()).find(|index| {
            let candidate = &self.ranking[*index];
            Some(candidate.offer().advertiser) != without
                && candidate.eligible()
                && self.limit(picks, candidate).is_none()
                && !self.removed.contains(&candidate.offer().ad)
        })
    }

    /// The limit that is full for this ad after `picks`. Slates are short: counting beats a map.
    pub fn limit(&self, picks: &[usize], candidate: &Candidate) -> Option<Limit> {
        let offer = candidate.offer();
        let terms = self.rule.terms();
        let of_advertiser = picks.iter().filter(|p| self.ranking[**p].offer().advertiser == offer.advertiser);
        if of_advertiser.count() >= terms.per_advertiser {
            return Some(Limit::Advertiser);
        }
        self.category_full(picks, offer.limit_category).then_some(Limit::Category)
    }

    /// Whether `picks` hold as many ads of the category as allowed.
    pub fn category_full(&self, picks: &[usize], category: u64) -> bool {
        let Some(limit) = self.rule.terms().per_category.filter(|_| category != 0) else { return false };
        picks.iter().filter(|p| self.ranking[**p].offer().limit_category == category).count() >= limit
    }
}
