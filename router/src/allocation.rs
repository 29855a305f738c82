//! Where on the page does each winner stand?
//!
//! Ads and organic items each keep their own order; allocation merges the two from the top. At every
//! position the next ad is placed iff the rules allow it and it is worth more than the organic item it
//! displaces: `r_ad + alpha * u_ad > alpha * u_organic`, with `r` the score of the auction, `u` the
//! expected engagement and `alpha` the shadow bid, the price of one unit of engagement. On equality the
//! organic item stands.
//!
//! This greedy merge is what is deployed elsewhere and what replays exactly; it is not always optimal
//! when ads must keep a distance (the tests report by how much). What it adds to prices: the organic item
//! that an ad displaced is one more rival for the position, so the ad pays at least the smallest bid that
//! displaces it ([`Placed::floor`]). At alpha 0 that changes nothing.
//!
//! Without organic items there is no page to share: each winner stands at its slot.
//!
//! Everything is an integer: engagement in millionths of a unit, rounded once on entry.

use gavel_proto::limits::SHADOW_BID_MAX;
use gavel_proto::money::PPM;

use crate::auction::{Beat, Winner, smallest_bid};
use crate::merge::Candidate;

/// Expected engagement, in millionths of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Engagement(i64);

/// The price of one unit of engagement, in micros of the currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ShadowBid(u64);

/// Engagement units above which an amount is taken for an error; with [`SHADOW_BID_MAX`] the product
/// stays below 1e37 score units, which i128 holds.
const ENGAGEMENT_MAX: f64 = 1e9;
/// Score units per micro and millionth: 1e15 / 1e6.
const UNITS_PER_MICRO_MILLIONTH: i128 = 1_000_000_000;

impl Engagement {
    /// Rounds to millionths. `None` when the number is not finite or its size is beyond a thousand million.
    #[must_use]
    pub fn from_units(units: f64) -> Option<Self> {
        // Within the bounds, the cast is exact.
        (units.is_finite() && units.abs() <= ENGAGEMENT_MAX).then(|| Self((units * f64::from(PPM)).round() as i64))
    }

    /// Its worth in score units.
    #[must_use]
    pub fn worth(self, shadow_bid: ShadowBid) -> i128 {
        i128::from(self.0) * i128::from(shadow_bid.0) * UNITS_PER_MICRO_MILLIONTH
    }
}

impl ShadowBid {
    /// Rounds to whole micros. `None` when the number is not finite, negative, or above the limit.
    #[must_use]
    pub fn from_micros(micros: f64) -> Option<Self> {
        (micros.is_finite() && (0.0..=SHADOW_BID_MAX).contains(&micros)).then(|| Self(micros.round() as u64))
    }
}

/// What a page may look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocationRule {
    /// Positions of the page at most.
    pub positions: usize,
    /// No ad above this position, 0-based.
    pub first_position: usize,
    /// Organic items between two ads at least.
    pub min_gap: usize,
    /// Ads on the page at most.
    pub max_ads: usize,
    /// Ads per million positions of the page at most.
    pub max_load_ppm: u32,
    /// The price of engagement.
    pub shadow_bid: ShadowBid,
}

/// A winner as the page sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotAd {
    /// Its slot in the auction.
    pub slot: usize,
    /// Its score: what one impression is worth, in score units.
    pub score: i128,
    /// What one impression brings in engagement.
    pub engagement: Engagement,
}

/// What stands at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// An index into the ads.
    Ad(usize),
    /// An index into the organic items.
    Organic(usize),
}

/// An entry with its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// 0-based.
    pub position: usize,
    /// What stands there.
    pub entry: Entry,
    /// For an ad that displaced an organic item: the score it had to exceed.
    pub floor: Option<i128>,
}

/// Merges ads, in slot order, with organic items, in page order.
#[must_use]
pub fn allocate(ads: &[SlotAd], organic: &[Engagement], rule: &AllocationRule) -> Vec<Placed> {
    if organic.is_empty() {
        let alone = ads.iter().enumerate().take(rule.max_ads);
        return alone.map(|(index, ad)| Placed { position: ad.slot, entry: Entry::Ad(index), floor: None }).collect();
    }
    let ads_max = ads_allowed(ads.len(), organic.len(), rule);
    let mut page: Vec<Placed> = Vec::with_capacity(rule.positions.min(ads.len() + organic.len()));
    let (mut next_ad, mut next_organic) = (0, 0);
    // The first ad keeps no distance from anything.
    let mut since_ad = rule.min_gap;
    while page.len() < rule.positions {
        let position = page.len();
        let free = position >= rule.first_position && since_ad >= rule.min_gap && next_ad < ads_max;
        let ad = ads.get(next_ad).filter(|_| free);
        let stands = organic.get(next_organic).map(|engagement| engagement.worth(rule.shadow_bid));
        // Where the feed has ended, the ad displaces an empty position, worth nothing.
        let floor = ad.map(|ad| stands.unwrap_or(0) - ad.engagement.worth(rule.shadow_bid));
        if let Some(floor) = floor.filter(|floor| ad.is_some_and(|ad| ad.score > *floor)) {
            page.push(Placed { position, entry: Entry::Ad(next_ad), floor: Some(floor) });
            (next_ad, since_ad) = (next_ad + 1, 0);
        } else if stands.is_some() {
            page.push(Placed { position, entry: Entry::Organic(next_organic), floor: None });
            (next_organic, since_ad) = (next_organic + 1, since_ad + 1);
        } else {
            break;
        }
    }
    page
}

/// The most ads that keep the load of the page they make: n <= load * min(positions, organic + n).
fn ads_allowed(ads: usize, organic: usize, rule: &AllocationRule) -> usize {
    let load = u128::from(rule.max_load_ppm.min(PPM));
    let fits = |n: &usize| *n as u128 * u128::from(PPM) <= load * rule.positions.min(organic + n) as u128;
    // The left side grows by a million per ad, the right side by at most as much: once it fails, it fails.
    (1..=ads.min(rule.max_ads)).take_while(fits).last().unwrap_or(0)
}

/// The winner at the price of its position: no less than the smallest bid that displaces the organic item.
///
/// For GSP this is the smallest bid that keeps slot and position (AL3). For VCG it is a lower bound of
/// the externality on the feed; a first price already exceeds it.
#[must_use]
pub fn priced_in_place(candidate: &Candidate, winner: &Winner, placed: &Placed) -> Winner {
    let needed = placed.floor.and_then(|floor| smallest_bid(candidate, floor, Beat::Exceed));
    let price = needed.map_or(winner.price, |needed| needed.max(winner.price));
    Winner { price, billed: candidate.billed(price), ..*winner }
}
