//! What does the auction know about one ad?
//!
//! An [`Offer`] is what a shard answered: integers only, priced as received and never recomputed
//! (decision 9). A [`Candidate`] is an offer whose bounds were checked once, with its score, so that no
//! later sum can overflow. Probabilities and floats do not get past this point.

use std::cmp::Ordering;

use gavel_proto::ids::{AdId, AdvertiserId, CampaignId, ItemId, ShardId};
use gavel_proto::money::{BidType, Micros};
use gavel_proto::score::{self, CPM_WEIGHT};

/// Bound of |score| and of |additive value|: 2^90. The largest bid (1e10 micros) at certainty (1e15) is
/// 1e25 < 2^84; with a position factor of 32 bits every sum of the VCG ladder stays below 2^124.
pub const SCORE_BOUND: i128 = 1 << 90;

/// One ad of a shard's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The ad.
    pub ad: AdId,
    /// Its item.
    pub item: ItemId,
    /// Its campaign.
    pub campaign: CampaignId,
    /// Who pays.
    pub advertiser: AdvertiserId,
    /// Hashed category that limits count; 0 means none and is never limited.
    pub limit_category: u64,
    /// In which event the bid is stated and which event is billed.
    pub bid_type: BidType,
    /// Paced bid, per event of the bid type.
    pub bid: Micros,
    /// Score units per micro of bid, above 0.
    pub weight: u64,
    /// 1e15 times the probability of the bid's event: `weight` without quality, what bills oCPM and oCPC.
    pub event_weight: u64,
    /// Score units per micro of a click, `score::weight(Cpc, P(click), _)`: needed to bill oCPC, else 0.
    pub click_weight: u64,
    /// How likely a user goes on past this ad, parts per million below one; read for cascading users alone.
    pub continuation_ppm: u32,
    /// Additive value in score units.
    pub value: i128,
    /// Reserve, per event of the bid type.
    pub reserve: Micros,
    /// Tie key of this auction: lower wins.
    pub tie: u64,
    /// The shard that answered.
    pub shard: ShardId,
    /// Row of the shard's answer, to find predictions again.
    pub row: u32,
}

impl Offer {
    /// The plain case: one bid for one event, of an advertiser and an item of its own, without quality, additive value,
    /// reserve or category, that wins ties by its id. Only an oCPC bid needs more: its click weight.
    #[must_use]
    pub const fn plain(ad: AdId, bid_type: BidType, bid: Micros, weight: u64) -> Self {
        Self {
            ad,
            item: ItemId(ad.0),
            campaign: CampaignId(ad.0),
            advertiser: AdvertiserId(ad.0),
            limit_category: 0,
            bid_type,
            bid,
            weight,
            event_weight: weight,
            click_weight: 0,
            continuation_ppm: 0,
            value: 0,
            reserve: Micros(0),
            tie: ad.0,
            shard: ShardId(0),
            row: 0,
        }
    }
}

/// An offer that can take part: its score fits, and its price can be billed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    offer: Offer,
    score: i128,
}

/// Why an offer cannot take part. A node that sends one is broken, or of another version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// A weight of 0 divides by zero.
    #[error("ad {0} has no weight")]
    NoWeight(AdId),
    /// Above the bounds that keep the arithmetic exact.
    #[error("the score of ad {0} is out of bounds")]
    OutOfBounds(AdId),
    /// An oCPC bid is billed per click, and P(click) did not come with it.
    #[error("ad {0} bids oCPC without a click weight")]
    NoClickWeight(AdId),
}

impl Candidate {
    /// Checks an offer and computes its score.
    ///
    /// # Errors
    /// When the offer could not be priced exactly.
    pub fn new(offer: Offer) -> Result<Self, OfferError> {
        if offer.weight == 0 {
            return Err(OfferError::NoWeight(offer.ad));
        }
        if offer.bid_type == BidType::Ocpc && offer.click_weight == 0 {
            return Err(OfferError::NoClickWeight(offer.ad));
        }
        let bounded = |x: i128| (-SCORE_BOUND..=SCORE_BOUND).contains(&x);
        score::score(offer.bid, offer.weight, offer.value)
            .filter(|score| bounded(*score) && bounded(offer.value))
            .map(|score| Self { offer, score })
            .ok_or(OfferError::OutOfBounds(offer.ad))
    }

    /// What the shard answered.
    #[must_use]
    pub const fn offer(&self) -> &Offer {
        &self.offer
    }

    /// `bid * weight + value`.
    #[must_use]
    pub const fn score(&self) -> i128 {
        self.score
    }

    /// Whether the ad may be shown at all: the bid reaches the reserve, and showing the ad is worth no
    /// less than an empty slot, which a cost (additive value below 0) may bring about.
    #[must_use]
    pub fn eligible(&self) -> bool {
        self.offer.bid >= self.offer.reserve && self.score >= 0
    }

    /// The order of the auction: score descending, tie ascending, then ad id. Total over distinct ads.
    #[must_use]
    pub fn auction_order(&self, other: &Self) -> Ordering {
        (other.score, self.offer.tie, self.offer.ad).cmp(&(self.score, other.offer.tie, other.offer.ad))
    }

    /// What is billed per billed event when the bid would have had to be `price`.
    ///
    /// CPM, CPC and CPA are billed in the event of their bid. The others bid per conversion:
    /// `price * event_weight` is what one impression brings at that price, so oCPM is billed
    /// `price * event_weight / 1e12` micros per mille, and oCPC `price * event_weight / click_weight` micros
    /// per click. Both round down: the exact
    /// amount is at most what the bid is worth, and an integer above it might not be.
    #[must_use]
    pub fn billed(&self, price: Micros) -> Micros {
        let units = u128::from(price.0) * u128::from(self.offer.event_weight);
        let per = |divisor: u64| Micros(u64::try_from(units / u128::from(divisor.max(1))).unwrap_or(u64::MAX));
        match self.offer.bid_type {
            BidType::Cpm | BidType::Cpc | BidType::Cpa => price,
            BidType::Ocpm => per(CPM_WEIGHT),
            // P(conversion given click) is at most 1; the click weight may have been rounded below the weight.
            BidType::Ocpc => per(self.offer.click_weight).min(price),
        }
    }
}
