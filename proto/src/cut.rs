//! Which of a shard's ads could still matter to the auction?
//!
//! The merged auction must equal a single-node auction (ME1), although each shard sends only a prefix of
//! its ads in score order (decision 11). With K slots, `spare` ads that may be taken out after the
//! auction, at most one ad counted per advertiser, a shard may stop once a greedy walk under the limits
//! has picked
//!
//! * `K + 1 + spare` ads without a category limit: of these, K - 1 can be held by better ads' advertisers,
//!   one by the advertiser whose price is asked, and `spare` can be taken out; one is left that goes
//!   before anything beyond the prefix;
//! * `2K + spare` ads with one: full categories can hold K - 1 more;
//! * `2K + spare + c - 1` ads when neighbours must be of other categories, c of a category at most: the
//!   category of the slot before can hold c more without being full, and then K - 2 are left to full ones.
//!
//! Within the prefix, an advertiser's ads of one category beyond `per_advertiser + spare` are dropped:
//! even with `spare` of the earlier ones taken out, the rest fill the advertiser's limit first.
//! The bound is tested exhaustively against the single-node clearing.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::wire;

/// Ads that may be taken out after an auction (a lease or a cap that failed) before slots stay empty.
pub const SPARE: usize = 2;

/// May two ads of one category stand next to each other?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Neighbours {
    /// They may.
    #[default]
    Any,
    /// Adjacent slots hold different categories; ads without a category stand anywhere.
    Apart,
}

impl From<wire::Neighbours> for Neighbours {
    fn from(n: wire::Neighbours) -> Self {
        match n {
            wire::Neighbours::Any => Self::Any,
            wire::Neighbours::Apart => Self::Apart,
        }
    }
}

impl From<Neighbours> for wire::Neighbours {
    fn from(n: Neighbours) -> Self {
        match n {
            Neighbours::Any => Self::Any,
            Neighbours::Apart => Self::Apart,
        }
    }
}

/// The limits of an auction, as far as the cut depends on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutRule {
    /// Slots K.
    pub slots: usize,
    /// At most so many ads of one advertiser; at least 1.
    pub per_advertiser: usize,
    /// At most so many ads of one category; `None` without a limit.
    pub per_category: Option<usize>,
    /// Whether neighbours must differ in category.
    pub neighbours: Neighbours,
    /// Ads that may be taken out after the auction.
    pub spare: usize,
}

impl CutRule {
    /// At most so many ads of one category get a slot; `None` when no number of them is too large. Apart, every
    /// other slot is the most that a category can have (decision 11).
    #[must_use]
    pub fn category_limit(&self) -> Option<usize> {
        let apart = match self.neighbours {
            Neighbours::Apart => Some(self.slots.div_ceil(2)),
            Neighbours::Any => None,
        };
        // A limit of K or more can never bind.
        self.per_category.into_iter().chain(apart).min().filter(|limit| *limit < self.slots)
    }

    /// Picks of the greedy walk after which a shard may stop.
    #[must_use]
    pub fn picks(&self) -> usize {
        match (self.category_limit(), self.neighbours) {
            (Some(limit), Neighbours::Apart) => 2 * self.slots + self.spare + limit - 1,
            (Some(_), Neighbours::Any) => 2 * self.slots + self.spare,
            (None, _) => self.slots + 1 + self.spare,
        }
    }
}

/// The indexes of the ads a shard returns, ascending; `ads` are (advertiser, category) in (score desc, tie asc).
/// Category 0 means none and is never limited.
pub fn cut(ads: impl IntoIterator<Item = (u64, u64)>, rule: CutRule) -> Vec<usize> {
    let limit = rule.category_limit();
    let keep_per_pair = rule.per_advertiser.max(1) + rule.spare;
    let mut pairs: HashMap<(u64, u64), usize> = HashMap::new();
    let mut advertisers: HashMap<u64, ()> = HashMap::new();
    let mut categories: HashMap<u64, usize> = HashMap::new();
    let (mut kept, mut picked) = (Vec::new(), 0);
    for (index, (advertiser, category)) in ads.into_iter().enumerate() {
        if picked == rule.picks() {
            break;
        }
        let pair = pairs.entry((advertiser, category)).or_insert(0);
        *pair += 1;
        if *pair <= keep_per_pair {
            kept.push(index);
        }
        let full = category != 0 && limit.is_some_and(|limit| categories.get(&category).copied().unwrap_or(0) >= limit);
        if !full && advertisers.insert(advertiser, ()).is_none() {
            *categories.entry(category).or_insert(0) += 1;
            picked += 1;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_at_the_bound() {
        let rule =
            CutRule { slots: 2, per_advertiser: 1, per_category: None, neighbours: Neighbours::Any, spare: SPARE };
        let ads = (0..100).map(|i| (i, 0));
        assert_eq!(cut(ads, rule).len(), 5);
        let same = std::iter::repeat_n((7, 3), 10).chain((0..3).map(|i| (i, 0)));
        assert_eq!(cut(same, rule), vec![0, 1, 2, 10, 11, 12]);
    }

    #[test]
    fn a_category_limit_needs_twice_the_slots() {
        let rule =
            CutRule { slots: 3, per_advertiser: 1, per_category: Some(1), neighbours: Neighbours::Any, spare: SPARE };
        assert_eq!(rule.picks(), 8);
        let ads = (0..100).map(|i| (i, 1 + i / 10));
        // One pick per category of ten ads: the prefix goes on to the eighth category.
        assert_eq!(cut(ads, rule).len(), 71);
    }
}
