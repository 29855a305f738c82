//! Random markets, and the auction written down as plainly as possible.

use gavel_proto::cut::Neighbours;
use gavel_proto::hash::mix64;
use gavel_proto::ids::{AdId, AdvertiserId};
use gavel_proto::money::{BidType, Micros};
use gavel_router::auction::{AuctionRule, AuctionTerms, Clearing, Mechanism, TiePrice};
use gavel_router::merge::{Candidate, Offer, Ranking};

/// The unit of [`factors`], in millionths.
pub const EIGHTH: u32 = 125_000;

/// A seeded sequence.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(mix64(seed.wrapping_add(0x5eed)))
    }

    /// Uniform in 0..below.
    pub fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix64(self.0) % below
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len() as u64) as usize]
    }
}

/// A CPC offer of an advertiser of its own, tie = ad id.
pub fn offer(ad: u64, bid: u64, weight: u64) -> Offer {
    Offer::plain(AdId(ad), BidType::Cpc, Micros(bid), weight)
}

/// Up to `most` offers with small amounts; advertisers and categories repeat.
pub fn offers(dice: &mut Dice, most: u64) -> Vec<Offer> {
    let n = dice.roll(most + 1);
    let (advertisers, categories) = (1 + dice.roll(6), 1 + dice.roll(4));
    let highest_bid = 1 + dice.roll(12);
    let with_value = dice.roll(3) == 0;
    (0..n)
        .map(|ad| {
            let base = offer(ad, dice.roll(highest_bid + 1), 1 + dice.roll(4));
            Offer {
                advertiser: AdvertiserId(dice.roll(advertisers)),
                limit_category: dice.roll(categories),
                value: if with_value { i128::from(dice.roll(13)) - 6 } else { 0 },
                reserve: Micros(dice.roll(2) * dice.roll(5)),
                tie: dice.roll(3),
                ..base
            }
        })
        .collect()
}

/// Each offer with an advertiser of its own.
pub fn separate(mut offers: Vec<Offer>) -> Vec<Offer> {
    for offer in &mut offers {
        offer.advertiser = AdvertiserId(offer.ad.0);
    }
    offers
}

/// Terms with `slots` slots and no limit that binds.
pub fn terms(mechanism: Mechanism, slots: usize) -> AuctionTerms {
    AuctionTerms { per_advertiser: usize::MAX, ..AuctionTerms::plain(mechanism, slots) }
}

pub fn rule(terms: AuctionTerms) -> AuctionRule {
    AuctionRule::new(terms).expect("the terms hold together")
}

/// Random terms with limits. Every third has a page threshold that a large part of [`offers`] reach in some slots; it is
/// even and comes with factors by which it is divided without a rest, so that what it asks of a score is even, too.
pub fn any_terms(dice: &mut Dice, mechanism: Mechanism) -> AuctionTerms {
    let slots = dice.roll(5) as usize;
    let page_threshold = if dice.roll(3) == 0 { 2 + 2 * i128::from(dice.roll(6)) } else { 0 };
    AuctionTerms {
        per_advertiser: 1 + (dice.roll(4) / 2) as usize,
        per_category: [None, Some(1), Some(1), Some(2), Some(3)][dice.roll(5) as usize],
        neighbours: if dice.roll(4) == 0 { Neighbours::Apart } else { Neighbours::Any },
        position_factors_ppm: if page_threshold > 0 { halves(dice, slots) } else { factors(dice, slots) },
        page_threshold,
        tie_price: if dice.roll(4) == 0 { TiePrice::WinnerWins } else { TiePrice::Keyed },
        ..terms(mechanism, slots)
    }
}

/// Eighths, not rising, above 0.
pub fn factors(dice: &mut Dice, slots: usize) -> Vec<u32> {
    let mut factors: Vec<u32> = (0..slots).map(|_| (1 + dice.roll(6) as u32) * EIGHTH).collect();
    factors.sort_by(|a, b| b.cmp(a));
    factors
}

/// All, a half, a quarter and an eighth, not rising.
pub fn halves(dice: &mut Dice, slots: usize) -> Vec<u32> {
    let mut factors: Vec<u32> = (0..slots).map(|_| EIGHTH << dice.roll(4)).collect();
    factors.sort_by(|a, b| b.cmp(a));
    factors
}

pub fn ranking(offers: &[Offer]) -> Ranking {
    let candidates: Vec<Candidate> = offers.iter().map(|o| Candidate::new(*o).expect("a valid offer")).collect();
    Ranking::sorted(&candidates).expect("distinct ads")
}

pub fn clear(offers: &[Offer], terms: &AuctionTerms) -> Clearing {
    gavel_router::auction::clear(&ranking(offers), &rule(terms.clone()))
}

/// Winners as (ad, slot, price), whatever the indexes of the ranking.
pub fn sold(ranking: &Ranking, clearing: &Clearing) -> Vec<(AdId, usize, u64)> {
    clearing.winners.iter().map(|w| (ranking[w.candidate].offer().ad, w.slot, w.price.0)).collect()
}

pub fn sales(offers: &[Offer], terms: &AuctionTerms) -> Vec<(AdId, usize, u64)> {
    sold(&ranking(offers), &clear(offers, terms))
}

pub fn prices(offers: &[Offer], terms: &AuctionTerms) -> Vec<u64> {
    sales(offers, terms).iter().map(|(_, _, price)| *price).collect()
}

pub fn score(offer: &Offer) -> i128 {
    i128::from(offer.bid.0) * i128::from(offer.weight) + offer.value
}

/// The winners, by the definition: reserve filter, order, then each slot in turn to the best that no limit keeps out.
pub fn plain_winners(offers: &[Offer], terms: &AuctionTerms) -> Vec<Offer> {
    let mut in_order: Vec<Offer> = offers.iter().filter(|o| o.bid >= o.reserve && score(o) >= 0).copied().collect();
    in_order.sort_by_key(|o| (-score(o), o.tie, o.ad));
    let apart = terms.neighbours == Neighbours::Apart;
    let every_other = if apart { terms.slots.div_ceil(2) } else { usize::MAX };
    let per_category = terms.per_category.unwrap_or(usize::MAX).min(every_other);
    let mut winners: Vec<Offer> = Vec::new();
    while winners.len() < terms.slots {
        let may_stand = |offer: &&Offer| {
            let of_advertiser = winners.iter().filter(|w| w.advertiser == offer.advertiser).count();
            let of_category = winners.iter().filter(|w| w.limit_category == offer.limit_category).count();
            let beside = apart && winners.last().is_some_and(|w| w.limit_category == offer.limit_category);
            let category_closed = offer.limit_category != 0 && (of_category >= per_category || beside);
            !winners.iter().any(|w| w.ad == offer.ad) && of_advertiser < terms.per_advertiser && !category_closed
        };
        let Some(next) = in_order.iter().find(may_stand) else { break };
        let factors = &terms.position_factors_ppm;
        let seen = factors.get(winners.len()).or(factors.last()).map_or(1_000_000, |x| i128::from(*x));
        if score(next) * seen < terms.page_threshold * 1_000_000 {
            break;
        }
        winners.push(*next);
    }
    winners
}

/// The market in which `winner`, in `slot`, is priced: without its advertiser's other ads, except those above it.
pub fn priced_against(offers: &[Offer], winners: &[Offer], slot: usize) -> Vec<Offer> {
    let winner = &winners[slot];
    let stays = |o: &&Offer| {
        o.advertiser != winner.advertiser || o.ad == winner.ad || winners[..slot].iter().any(|above| above.ad == o.ad)
    };
    offers.iter().filter(stays).copied().collect()
}

/// The same offers with another bid of one ad.
pub fn with_bid(offers: &[Offer], ad: AdId, bid: u64) -> Vec<Offer> {
    offers.iter().map(|o| if o.ad == ad { Offer { bid: Micros(bid), ..*o } } else { *o }).collect()
}

/// The slot that an ad gets with a bid, if any.
pub fn slot_with(offers: &[Offer], terms: &AuctionTerms, ad: AdId, bid: u64) -> Option<usize> {
    plain_winners(&with_bid(offers, ad, bid), terms).iter().position(|w| w.ad == ad)
}
