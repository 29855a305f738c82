//! Where on the page does each winner stand?
//!
//! Ads and organic items each keep their own order; allocation merges the two from the top. At every
//! position the next ad is placed iff the rules allow it and it is worth more than the organic item it
//! displaces: `r_ad + alpha * u_ad > alpha * u_organic`, with `r` the score of the auction, `u` the
//! expected engagement and `alpha` the shadow bid, the price of one unit of engagement. On equality the
//! organic item stands. Soon after another ad an ad may be worth less: its side is multiplied by the gap effect
//! of the organic items in between.
//!
//! An ad that may not stand here, for the gap, or because its category stood too close above, waits: the
//! organic item stands, and the ads behind it wait with it, since both lists keep their order.
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
use serde::{Deserialize, Serialize};

use crate::auction::{Beat, Winner, smallest_bid};
use crate::merge::Candidate;

/// Expected engagement, in millionths of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(into = "i64", try_from = "i64")]
pub struct Engagement(i64);

/// The price of one unit of engagement, in micros of the currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(into = "u64", try_from = "u64")]
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

impl From<Engagement> for i64 {
    fn from(engagement: Engagement) -> Self {
        engagement.0
    }
}

impl TryFrom<i64> for Engagement {
    type Error = &'static str;

    fn try_from(millionths: i64) -> Result<Self, Self::Error> {
        let most = (ENGAGEMENT_MAX * f64::from(PPM)) as u64;
        if millionths.unsigned_abs() > most { Err("an engagement is out of bounds") } else { Ok(Self(millionths)) }
    }
}

impl From<ShadowBid> for u64 {
    fn from(bid: ShadowBid) -> Self {
        bid.0
    }
}

impl TryFrom<u64> for ShadowBid {
    type Error = &'static str;

    fn try_from(micros: u64) -> Result<Self, Self::Error> {
        if micros > SHADOW_BID_MAX as u64 { Err("the shadow bid is out of bounds") } else { Ok(Self(micros)) }
    }
}

/// What a page may look like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
    /// Worth of an ad, parts per million, by the number of organic items since the last ad; whole beyond the list and
    /// for the first ad.
    pub gap_effect_ppm: Vec<u32>,
    /// Positions between two ads of one category at least.
    pub category_spacing: usize,
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
    /// Its limit category; 0 = none.
    pub category: u64,
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
    let mut since_ad: Option<usize> = None;
    while page.len() < rule.positions {
        let position = page.len();
        let stands = organic.get(next_organic).map(|engagement| engagement.worth(rule.shadow_bid));
        let ad = ads.get(next_ad).filter(|_| next_ad < ads_max);
        let ad = ad.filter(|ad| position >= rule.first_position && rule.lets_stand(ad, ads, &page, since_ad));
        // Where the feed has ended, the ad displaces an empty position, worth nothing.
        let floor = ad.map(|ad| rule.floor(stands.unwrap_or(0), since_ad, ad));
        if let Some(floor) = floor.filter(|floor| ad.is_some_and(|ad| ad.score > *floor)) {
            page.push(Placed { position, entry: Entry::Ad(next_ad), floor: Some(floor) });
            (next_ad, since_ad) = (next_ad + 1, Some(0));
        } else if stands.is_some() {
            page.push(Placed { position, entry: Entry::Organic(next_organic), floor: None });
            (next_organic, since_ad) = (next_organic + 1, since_ad.map(|items| items + 1));
        } else {
            break;
        }
    }
    page
}

impl AllocationRule {
    /// The worth of an ad after so many organic items since the last one, parts per million.
    fn gap_effect(&self, since_ad: Option<usize>) -> u32 {
        since_ad.and_then(|items| self.gap_effect_ppm.get(items)).copied().unwrap_or(PPM).min(PPM)
    }

    /// Whether gap and category let this ad stand below the page so far; the first ad keeps no distance from anything.
    fn lets_stand(&self, ad: &SlotAd, ads: &[SlotAd], page: &[Placed], since_ad: Option<usize>) -> bool {
        let near = &page[page.len().saturating_sub(self.category_spacing)..];
        let is_alike = |placed: &Placed| match placed.entry {
            Entry::Ad(index) => ads[index].category == ad.category,
            Entry::Organic(_) => false,
        };
        since_ad.is_none_or(|items| items >= self.min_gap) && (ad.category == 0 || !near.iter().any(is_alike))
    }

    /// The largest score with which the ad would not displace what `stands` there: with the gap effect `t`,
    /// `t * (score + u) > stands` holds in integers iff `score > floor(stands / t) - u`.
    fn floor(&self, stands: i128, since_ad: Option<usize>, ad: &SlotAd) -> i128 {
        let effect = i128::from(self.gap_effect(since_ad));
        let own = ad.engagement.worth(self.shadow_bid);
        if effect == 0 {
            return i128::MAX;
        }
        // Divided first, so that only what no score reaches is saturated.
        let (whole, part) = (stands.div_euclid(effect), stands.rem_euclid(effect));
        let ppm = i128::from(PPM);
        whole.saturating_mul(ppm).saturating_add(part * ppm / effect).saturating_sub(own)
    }
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
