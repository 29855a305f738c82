//! Who wins, and at what price, if all ranked ads meet in one auction?
//!
//! The obvious twin of the router's clearing: it sorts, walks greedily under the limits, and finds each GSP price by
//! trying bids. The price of a winner is the smallest bid at which it, without its advertiser's other ads, still gets
//! its slot or a better one. It shares nothing with the router but the definition of a score and of a tie.

use gavel_proto::hash::tie_key;
use gavel_proto::money::{BidType, Micros};
use gavel_proto::score::{CPM_WEIGHT, score};

/// The rule of one auction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// How winners pay.
    pub mechanism: Mechanism,
    /// Slots.
    pub slots: usize,
    /// Ads of one advertiser at most.
    pub per_advertiser: usize,
    /// Ads of one category at most; 0 = no limit.
    pub per_category: usize,
    /// Key of the ties.
    pub tie_key: u64,
    /// The auction.
    pub auction_id: u64,
}

/// How winners pay, as far as the twin knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// The smallest bid that keeps the slot.
    Gsp,
    /// The paced bid.
    FirstPrice,
}

/// One ranked and scored ad.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ad {
    /// Its id.
    pub ad: u64,
    /// Who pays.
    pub advertiser: u64,
    /// Its limit category; 0 = none.
    pub category: u64,
    /// In which event the bid is stated.
    pub bid_type: BidType,
    /// Paced bid, micros.
    pub bid: u64,
    /// Score units per micro.
    pub weight: u64,
    /// Additive value in score units.
    pub value: i128,
    /// Smallest price, micros per event of the bid.
    pub reserve: u64,
}

/// (index into the ads, price in micros per billed unit), by slot.
pub type Clearing = Vec<(usize, u64)>;

/// Clears one auction.
#[must_use]
pub fn clear(ads: &[Ad], rule: &Rule) -> Clearing {
    let bids: Vec<u64> = ads.iter().map(|a| a.bid).collect();
    let everyone: Vec<usize> = (0..ads.len()).collect();
    let order = greedy(ads, &bids, &everyone, rule);
    order
        .iter()
        .enumerate()
        .map(|(slot, winner)| {
            let bid = match rule.mechanism {
                Mechanism::FirstPrice => ads[*winner].bid,
                Mechanism::Gsp => smallest_bid(ads, &bids, *winner, slot, rule),
            };
            (*winner, billed(&ads[*winner], bid))
        })
        .collect()
}

/// The winners by slot when `among` take part with `bids`.
fn greedy(ads: &[Ad], bids: &[u64], among: &[usize], rule: &Rule) -> Vec<usize> {
    let key = |i: &usize| {
        let ad = &ads[*i];
        let points = score(Micros(bids[*i]), ad.weight, ad.value).unwrap_or(i128::MIN);
        (std::cmp::Reverse(points), tie_key(rule.tie_key, rule.auction_id, ad.ad), ad.ad)
    };
    let mut sorted: Vec<usize> = among.iter().copied().filter(|i| bids[*i] >= ads[*i].reserve).collect();
    sorted.sort_by_key(key);
    let mut won: Vec<usize> = Vec::new();
    for i in sorted {
        let of_advertiser = won.iter().filter(|w| ads[**w].advertiser == ads[i].advertiser).count();
        let of_category = won.iter().filter(|w| ads[**w].category == ads[i].category).count();
        let category_full = rule.per_category > 0 && ads[i].category != 0 && of_category >= rule.per_category;
        if won.len() < rule.slots && of_advertiser < rule.per_advertiser && !category_full {
            won.push(i);
        }
    }
    won
}

/// The smallest bid at which `winner`, alone of its advertiser, gets `slot` or a better one.
fn smallest_bid(ads: &[Ad], bids: &[u64], winner: usize, slot: usize, rule: &Rule) -> u64 {
    let rivals: Vec<usize> =
        (0..ads.len()).filter(|i| *i == winner || ads[*i].advertiser != ads[winner].advertiser).collect();
    let keeps = |bid: u64| {
        let mut tried = bids.to_vec();
        tried[winner] = bid;
        greedy(ads, &tried, &rivals, rule).iter().take(slot + 1).any(|w| *w == winner)
    };
    // Winning is monotone in the own bid, and the bid itself wins.
    let (mut low, mut high) = (0, ads[winner].bid);
    while low < high {
        let middle = low + (high - low) / 2;
        if keeps(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    high
}

/// A price in the event of the bid, in the unit that is billed: oCPM bids per conversion and pays per mille.
fn billed(ad: &Ad, bid: u64) -> u64 {
    match ad.bid_type {
        BidType::Ocpm => {
            let units = u128::from(bid) * u128::from(ad.weight);
            u64::try_from(units / u128::from(CPM_WEIGHT)).unwrap_or(u64::MAX)
        }
        BidType::Cpm | BidType::Cpc | BidType::Cpa | BidType::Ocpc => bid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ad(ad: u64, advertiser: u64, bid: u64) -> Ad {
        Ad { ad, advertiser, category: 0, bid_type: BidType::Cpc, bid, weight: 1, value: 0, reserve: 0 }
    }

    fn rule(slots: usize) -> Rule {
        Rule { mechanism: Mechanism::Gsp, slots, per_advertiser: 1, per_category: 0, tie_key: 0, auction_id: 0 }
    }

    /// Self-competition (auction chapter 1.8): A's second ad sets no price for its first.
    #[test]
    fn an_advertiser_does_not_compete_with_itself() {
        let ads = [ad(1, 1, 10), ad(2, 1, 9), ad(3, 2, 5), ad(4, 3, 3)];
        let won = clear(&ads, &rule(2));
        assert_eq!(won.iter().map(|w| w.0).collect::<Vec<_>>(), vec![0, 2]);
        // The smallest bid that wins a tie by key, or one more.
        assert!((5..=6).contains(&won[0].1) && (3..=4).contains(&won[1].1), "{won:?}");
    }

    /// EOS-1: bids 10, 4, 2 on two slots pay 4 and 2 (here up to one more for a lost tie).
    #[test]
    fn the_published_example() {
        let won = clear(&[ad(1, 1, 10), ad(2, 2, 4), ad(3, 3, 2)], &rule(2));
        assert!((4..=5).contains(&won[0].1) && (2..=3).contains(&won[1].1), "{won:?}");
    }
}
