//! What is lost between all eligible ads and the few that are ranked?
//!
//! The slate of the served candidates against the slate of a ranking of every eligible item, each cleared by the twin
//! ([`super::oracle`]): welfare is what the winners are expected to be worth at their paced bids, revenue what they are
//! expected to pay, per impression of each slot and without position factors. Both are what the node's integer weights
//! say; nothing here knows of clicks that happened.

use super::oracle::{self, Ad, Clearing, Rule};
use gavel_proto::money::{BidType, Micros};
use gavel_proto::score::{CPM_WEIGHT, score};
use serde::Serialize;
use std::collections::HashMap;

/// Score units of a currency unit: micros × 1e15.
const UNITS: f64 = 1e21;

/// Sums over the slates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Worth {
    /// Slates compared.
    pub slates: u64,
    /// Those with the same winners.
    pub equal: u64,
    /// Expected value of the served winners, currency units.
    pub served_welfare: f64,
    /// Of those of the exhaustive ranking.
    pub exhaustive_welfare: f64,
    /// What the served winners are expected to pay, currency units.
    pub served_revenue: f64,
    /// Those of the exhaustive ranking.
    pub exhaustive_revenue: f64,
}

impl Worth {
    /// Adds one request.
    pub fn count(&mut self, served: &[Ad], exhaustive: &[Ad], rule: &Rule) {
        let exhaustive = contenders(exhaustive, rule);
        let (before, after) = (oracle::clear(served, rule), oracle::clear(&exhaustive, rule));
        let winners = |ads: &[Ad], won: &Clearing| won.iter().map(|(i, _)| ads[*i].ad).collect::<Vec<_>>();
        self.slates += 1;
        self.equal += u64::from(winners(served, &before) == winners(&exhaustive, &after));
        let (welfare, revenue) = worth(served, &before);
        self.served_welfare += welfare;
        self.served_revenue += revenue;
        let (welfare, revenue) = worth(&exhaustive, &after);
        self.exhaustive_welfare += welfare;
        self.exhaustive_revenue += revenue;
    }

    /// Served against exhaustive: welfare, revenue.
    #[must_use]
    pub fn shares(&self) -> (f64, f64) {
        (self.served_welfare / self.exhaustive_welfare, self.served_revenue / self.exhaustive_revenue)
    }
}

/// The ads that could matter: of each advertiser and category the best few. A greedy walk takes no more of them, and a
/// price is set by other advertisers' best.
fn contenders(ads: &[Ad], rule: &Rule) -> Vec<Ad> {
    /// Points, from the best down, and tie; then the index.
    type Places = Vec<(i128, u64, usize)>;
    let mut groups: HashMap<(u64, u64), Places> = HashMap::new();
    for (index, ad) in ads.iter().enumerate() {
        let points = score(Micros(ad.bid), ad.weight, ad.value).unwrap_or(i128::MIN);
        let tie = gavel_proto::hash::tie_key(rule.tie_key, rule.auction_id, ad.ad);
        groups.entry((ad.advertiser, ad.category)).or_default().push((-points, tie, index));
    }
    let best = groups.into_values().flat_map(|mut group| {
        group.sort_unstable();
        group.truncate(rule.per_advertiser);
        group.into_iter().map(|(_, _, index)| index)
    });
    let mut kept: Vec<usize> = best.collect();
    kept.sort_unstable();
    kept.into_iter().map(|index| ads[index].clone()).collect()
}

/// Welfare and revenue of a slate, currency units.
fn worth(ads: &[Ad], won: &Clearing) -> (f64, f64) {
    let of = |(index, price): &(usize, u64)| {
        let ad = &ads[*index];
        let value = score(Micros(ad.bid), ad.weight, ad.value).unwrap_or(0) as f64 / UNITS;
        let weight = match ad.bid_type {
            // Bid per conversion, billed per mille or per click.
            BidType::Ocpm => CPM_WEIGHT,
            BidType::Ocpc => ad.click_weight,
            BidType::Cpm | BidType::Cpc | BidType::Cpa => ad.event_weight,
        };
        (value, *price as f64 * weight as f64 / UNITS)
    };
    won.iter().map(of).fold((0.0, 0.0), |(values, prices), (value, price)| (values + value, prices + price))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::truth::oracle::Mechanism;

    fn ad(ad: u64, advertiser: u64, bid: u64) -> Ad {
        let weight = 1_000_000_000_000_000;
        Ad {
            ad,
            advertiser,
            category: ad % 3,
            bid_type: BidType::Cpc,
            bid,
            weight,
            event_weight: weight,
            click_weight: weight,
            value: 0,
            reserve: 0,
        }
    }

    fn rule() -> Rule {
        Rule {
            mechanism: Mechanism::Gsp,
            slots: 3,
            per_advertiser: 1,
            per_category: 2,
            apart: oracle::Apart::No,
            factors: Vec::new(),
            tie_key: gavel_proto::hash::TieKey::from_number(4),
            auction_id: 5,
            page_threshold: 0,
        }
    }

    #[test]
    fn contenders_win_what_all_win() {
        let ads: Vec<Ad> = (0..400u64).map(|n| ad(n, n * n % 37, 1_000 + n * 7_919 % 3_001)).collect();
        let few = contenders(&ads, &rule());
        assert!(few.len() < 120, "{}", few.len());
        let winners = |ads: &[Ad]| {
            oracle::clear(ads, &rule()).into_iter().map(|(i, price)| (ads[i].ad, price)).collect::<Vec<_>>()
        };
        assert_eq!(winners(&ads), winners(&few));
    }

    #[test]
    fn a_slate_is_worth_its_bids_and_pays_its_prices() {
        let all: Vec<Ad> = (0..6).map(|n| ad(n, n, 1_000_000 * (n + 1))).collect();
        let mut worth = Worth::default();
        worth.count(&all, &all, &rule());
        // Clicked for certain: 6, 5 and 4 units, which pay at most a micro more than the next one's bid.
        assert_eq!((worth.slates, worth.equal, worth.shares()), (1, 1, (1.0, 1.0)));
        assert!((worth.served_welfare - 15.0).abs() < 1e-9 && (worth.served_revenue - 12.0).abs() < 1e-4, "{worth:?}");
        worth.count(&all[..3], &all, &rule());
        assert!(worth.equal == 1 && worth.shares().0 < 0.8 && worth.shares().1 < 0.8, "{worth:?}");
    }
}
