//! Who wins, and at what price, if all ranked ads meet in one auction?
//!
//! The obvious twin of the router's clearing: it sorts, walks greedily under the limits, and finds each price by
//! trying. A GSP price is the smallest bid at which the winner, without its advertiser's other ads, still gets its slot
//! or a better one; a VCG price sums the smallest scores that keep each slot from there down. What is billed is found
//! by trying, too: the largest amount that brings no more than the price. It shares nothing with the router but the
//! definition of a score and of a tie.
//!
//! Where few amounts come into question each is tried, from 0 up. Among many the smallest is found by bisection, which
//! takes for granted that who keeps a slot with one bid keeps it with any higher one.

use gavel_proto::hash::{TieKey, tie_key};
use gavel_proto::money::{BidType, Micros, PPM};
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
    /// Whether adjacent slots differ in category.
    pub apart: Apart,
    /// How often each slot is seen; beyond the list as often as the last, an empty list sees every slot alike.
    pub factors: Vec<u32>,
    /// Key of the ties.
    pub tie_key: TieKey,
    /// The auction.
    pub auction_id: u64,
    /// Score units that an impression in its slot has to bring; 0 = none.
    pub page_threshold: i128,
}

impl Rule {
    /// How often a slot is seen, in a million.
    fn factor(&self, slot: usize) -> i128 {
        let seen = self.factors.get(slot).or(self.factors.last()).copied().unwrap_or(PPM);
        if slot < self.slots { i128::from(seen) } else { 0 }
    }

    /// Whether an ad of this score may be shown in a slot.
    fn is_worth_showing(&self, score: i128, slot: usize) -> bool {
        score * self.factor(slot) >= self.page_threshold * i128::from(PPM)
    }
}

/// May neighbours be of one category?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apart {
    /// They may.
    No,
    /// They may not; then a category has at most every other slot.
    Yes,
}

/// How winners pay, as far as the twin knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// The smallest bid that keeps the slot.
    Gsp,
    /// Myerson's payment for the slot.
    Vcg,
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
    /// 1e15 times the probability of the bid's event.
    pub event_weight: u64,
    /// 1e15 times the probability of a click, which bills oCPC; read for nothing else.
    pub click_weight: u64,
    /// Additive value in score units.
    pub value: i128,
    /// Smallest price, micros per event of the bid.
    pub reserve: u64,
}

/// (index into the ads, price in micros per billed unit), by slot.
pub type Clearing = Vec<(usize, u64)>;

/// An ad's own score and tie, as tried.
#[derive(Clone, Copy)]
struct Try {
    ad: usize,
    score: i128,
    tie: u64,
}

/// Clears one auction.
#[must_use]
pub fn clear(ads: &[Ad], rule: &Rule) -> Clearing {
    let everyone: Vec<Try> =
        (0..ads.len()).filter(|i| ads[*i].bid >= ads[*i].reserve).map(|i| own(ads, i, rule)).collect();
    let order = greedy(ads, &everyone, rule);
    let price = |(slot, winner): (usize, &usize)| {
        let bid = match rule.mechanism {
            Mechanism::FirstPrice => ads[*winner].bid,
            Mechanism::Gsp => smallest_bid(ads, &rivals(ads, &everyone, *winner, &order[..slot]), *winner, slot, rule),
            Mechanism::Vcg => ladder(ads, &rivals(ads, &everyone, *winner, &order[..slot]), *winner, slot, rule),
        };
        (*winner, billed(&ads[*winner], bid))
    };
    order.iter().enumerate().map(price).collect()
}

fn own(ads: &[Ad], i: usize, rule: &Rule) -> Try {
    Try { ad: i, score: worth(&ads[i], ads[i].bid), tie: tie(&ads[i], rule) }
}

/// What breaks an ad's ties: lower wins.
#[must_use]
pub fn tie(ad: &Ad, rule: &Rule) -> u64 {
    tie_key(rule.tie_key, rule.auction_id, ad.ad)
}

/// The score of an ad with this bid.
#[must_use]
pub fn worth(ad: &Ad, bid: u64) -> i128 {
    score(Micros(bid), ad.weight, ad.value).unwrap_or(i128::MIN)
}

/// The winners by slot: each slot in turn goes to the best that is let in.
fn greedy(ads: &[Ad], tries: &[Try], rule: &Rule) -> Vec<usize> {
    let mut sorted: Vec<&Try> = tries.iter().filter(|t| t.score >= 0).collect();
    sorted.sort_by_key(|t| (std::cmp::Reverse(t.score), t.tie, ads[t.ad].ad));
    let apart_limit = match rule.apart {
        Apart::Yes => rule.slots.div_ceil(2),
        Apart::No => usize::MAX,
    };
    let category_limit = if rule.per_category == 0 { apart_limit } else { rule.per_category.min(apart_limit) };
    let mut won: Vec<usize> = Vec::new();
    while won.len() < rule.slots {
        let let_in = |i: usize| {
            let of_advertiser = won.iter().filter(|w| ads[**w].advertiser == ads[i].advertiser).count();
            let of_category = won.iter().filter(|w| ads[**w].category == ads[i].category).count();
            let beside = rule.apart == Apart::Yes && won.last().is_some_and(|w| ads[*w].category == ads[i].category);
            let category_closed = ads[i].category != 0 && (of_category >= category_limit || beside);
            !won.contains(&i) && of_advertiser < rule.per_advertiser && !category_closed
        };
        let Some(next) = sorted.iter().find(|t| let_in(t.ad)) else { break };
        if !rule.is_worth_showing(next.score, won.len()) {
            break;
        }
        won.push(next.ad);
    }
    won
}

/// Who competes with a winner: everybody but its advertiser's ads, of which those that stand above it stay.
fn rivals(ads: &[Ad], everyone: &[Try], winner: usize, above: &[usize]) -> Vec<Try> {
    let is_rival = |t: &&Try| ads[t.ad].advertiser != ads[winner].advertiser || above.contains(&t.ad);
    everyone.iter().filter(is_rival).copied().collect()
}

/// Whether `tried` gets `slot` or a better one among its rivals.
fn gets(ads: &[Ad], rivals: &[Try], tried: Try, slot: usize, rule: &Rule) -> bool {
    let mut tries: Vec<Try> = rivals.to_vec();
    tries.push(tried);
    greedy(ads, &tries, rule).iter().take(slot + 1).any(|w| *w == tried.ad)
}

/// The smallest bid that gets the slot or a better one.
fn smallest_bid(ads: &[Ad], rivals: &[Try], winner: usize, slot: usize, rule: &Rule) -> u64 {
    let (ad, own) = (&ads[winner], own(ads, winner, rule));
    let keeps = |bid: i128| {
        let bid = u64::try_from(bid).unwrap_or(u64::MAX);
        bid >= ad.reserve && gets(ads, rivals, Try { score: worth(ad, bid), ..own }, slot, rule)
    };
    // The bid itself wins.
    u64::try_from(smallest(0, i128::from(ad.bid), keeps)).unwrap_or(u64::MAX)
}

/// Each step down in how often the slot is seen costs the least score that avoids it, per event of the slot that was won.
fn ladder(ads: &[Ad], rivals: &[Try], winner: usize, slot: usize, rule: &Rule) -> u64 {
    let ad = &ads[winner];
    let factor = |slot| rule.factor(slot);
    let step = |to: usize| {
        let keeps = |score| gets(ads, rivals, Try { ad: winner, score, tie: 0 }, to, rule);
        let least = smallest(0, worth(ad, ad.bid), keeps);
        (factor(to) - factor(to + 1)) * (least - ad.value).max(i128::from(ad.reserve) * i128::from(ad.weight)).max(0)
    };
    let owed: i128 = (slot..rule.slots).map(step).sum();
    u64::try_from(owed / (factor(slot) * i128::from(ad.weight)).max(1)).unwrap_or(u64::MAX)
}

/// Up to so many numbers are tried one by one.
const TRIED_MAX: i128 = 64;

/// The smallest number in `low..=high` for which the condition holds, as it does for `high`.
fn smallest(low: i128, high: i128, holds: impl Fn(i128) -> bool) -> i128 {
    if high - low <= TRIED_MAX { (low..high).find(|n| holds(*n)).unwrap_or(high) } else { bisected(low, high, holds) }
}

/// The same, of a condition that holds above where it holds once.
fn bisected(mut low: i128, mut high: i128, holds: impl Fn(i128) -> bool) -> i128 {
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    high
}

/// A price in the event of the bid, in the unit that is billed: the largest amount that brings no more, each as often as
/// its event happens. oCPM pays per mille of impressions, oCPC per click, and a click leads to one conversion at most.
#[must_use]
pub fn billed(ad: &Ad, price: u64) -> u64 {
    let (often, most) = match ad.bid_type {
        BidType::Cpm | BidType::Cpc | BidType::Cpa => return price,
        BidType::Ocpm => (CPM_WEIGHT, u64::MAX),
        BidType::Ocpc => (ad.click_weight, price),
    };
    let brings = u128::from(price) * u128::from(ad.event_weight);
    let is_more = |amount: i128| amount.unsigned_abs() * u128::from(often) > brings;
    // One above the most is where the search ends, so that the most itself may be the answer.
    let too_much = bisected(0, i128::from(most) + 1, is_more);
    u64::try_from(too_much - 1).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ad(ad: u64, advertiser: u64, bid: u64) -> Ad {
        Ad {
            ad,
            advertiser,
            category: 0,
            bid_type: BidType::Cpc,
            bid,
            weight: 1,
            event_weight: 1,
            click_weight: 1,
            value: 0,
            reserve: 0,
        }
    }

    fn rule(slots: usize) -> Rule {
        Rule {
            mechanism: Mechanism::Gsp,
            slots,
            per_advertiser: 1,
            per_category: 0,
            apart: Apart::No,
            factors: Vec::new(),
            tie_key: TieKey::from_number(0),
            auction_id: 0,
            page_threshold: 0,
        }
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

    /// EOS-1: bids 10, 4, 2 on two slots, the first seen twice as often, pay 3 and 2 with VCG.
    #[test]
    fn the_published_ladder() {
        let rule = Rule { mechanism: Mechanism::Vcg, factors: vec![2, 1], ..rule(2) };
        let won = clear(&[ad(1, 1, 10), ad(2, 2, 4), ad(3, 3, 2)], &rule);
        assert_eq!(won, [(0, 3), (1, 2)]);
    }

    /// Scores of 10, 6 and 5 on slots that are seen by all and by half: a threshold of 3 asks for 3 and 6, one of 4 for 4
    /// and 8, and then the second slot stays empty. Who has no rival pays what the threshold asks for.
    #[test]
    fn a_threshold_leaves_slots_empty() {
        let sold = |mechanism, page_threshold| {
            let rule = Rule { mechanism, factors: vec![1_000_000, 500_000], page_threshold, ..rule(2) };
            clear(&[ad(1, 1, 10), ad(2, 2, 6), ad(3, 3, 5)], &rule)
        };
        assert_eq!(sold(Mechanism::FirstPrice, 3), [(0, 10), (1, 6)]);
        assert_eq!(sold(Mechanism::FirstPrice, 4), [(0, 10)]);
        assert_eq!(sold(Mechanism::Vcg, 3), [(0, 6), (1, 6)]);
        assert_eq!(sold(Mechanism::Vcg, 4), [(0, 6)]);
        assert_eq!(sold(Mechanism::FirstPrice, 11), []);
        assert_eq!(sold(Mechanism::Gsp, 3)[1], (1, 6), "not 5, the bid of a rival that may not stand there");
    }

    #[test]
    fn neighbours_stand_apart() {
        let alike = |id, bid| Ad { category: 7, ..ad(id, id, bid) };
        let won = clear(&[alike(1, 10), alike(2, 9), ad(3, 3, 5), alike(4, 4)], &Rule { apart: Apart::Yes, ..rule(3) });
        assert_eq!(won.iter().map(|w| w.0).collect::<Vec<_>>(), [0, 2, 1]);
    }

    /// 40 per conversion at 1 % clicks and 8 % conversions of these, won at 37.50 (auction chapter, section 0): 30 per mille,
    /// 3 per click. A click never costs more than the conversion that it may lead to.
    #[test]
    fn what_is_billed_brings_no_more_than_the_price() {
        let one = |bid_type| Ad {
            bid_type,
            event_weight: 800_000_000_000,
            click_weight: 10_000_000_000_000,
            ..ad(1, 1, 40_000_000)
        };
        let bills = BidType::ALL.map(|bid_type| billed(&one(bid_type), 37_500_000));
        assert_eq!(bills, [37_500_000, 37_500_000, 37_500_000, 30_000_000, 3_000_000]);
        // 7 * 8 / 100 per click and 7 * 0.8 per mille, down.
        assert_eq!([BidType::Ocpm, BidType::Ocpc].map(|bid_type| billed(&one(bid_type), 7)), [5, 0]);
        assert_eq!(billed(&Ad { click_weight: 1, ..one(BidType::Ocpc) }, 7), 7);
        assert_eq!(billed(&one(BidType::Ocpm), 0), 0);
    }

    /// Both searches find the same where the condition is monotone; only the one that tries all sees the first of several.
    #[test]
    fn few_numbers_are_all_tried() {
        for limit in 0..=64 {
            assert_eq!((smallest(0, 64, |n| n >= limit), bisected(0, 64, |n| n >= limit)), (limit, limit));
            assert_eq!(smallest(0, 6_400, |n| n >= limit), limit);
        }
        assert_eq!(smallest(0, 64, |n| n == 3 || n > 60), 3);
    }

    /// EOS-1 with GSP: 4 and 2 (here up to one more for a lost tie).
    #[test]
    fn the_published_example() {
        let won = clear(&[ad(1, 1, 10), ad(2, 2, 4), ad(3, 3, 2)], &rule(2));
        assert!((4..=5).contains(&won[0].1) && (2..=3).contains(&won[1].1), "{won:?}");
    }
}
