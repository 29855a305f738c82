//! What does one line of the clearing log hold?

use gavel_proto::epoch::Epoch;
use gavel_proto::ids::{AdId, AdvertiserId, AuctionId, CampaignId, ItemId, ShardId};
use gavel_proto::money::{BidType, Micros};
use serde::{Deserialize, Serialize};

use super::FORMAT;
use crate::allocation::{AllocationRule, Engagement, Entry, Placed, SlotAd, priced_in_place};
use crate::auction::{AuctionTerms, Clearing, Limit, Outcome, Winner};
use crate::merge::{Candidate, Offer, Ranking};

/// A clearing with everything that it was made from and everything that came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClearingRecord {
    /// What it was made from.
    pub inputs: ClearingInputs,
    /// Winners by slot.
    pub winners: Vec<LoggedWinner>,
    /// The page from the top.
    pub placed: Vec<LoggedPlace>,
    /// Every candidate that has no slot, in the order of the ranking.
    pub others: Vec<LoggedOutcome>,
}

/// What a clearing is made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClearingInputs {
    /// Of the line.
    pub format: u32,
    /// The caller's name of the request, or the router's.
    pub request_id: String,
    /// Names the auction.
    pub auction_id: AuctionId,
    /// Of the key that made the ties: [`gavel_proto::hash::TieKey::id`].
    pub tie_key_id: u64,
    /// The versions that every shard answered under.
    pub epoch: Epoch,
    /// The auction's terms.
    pub terms: AuctionTerms,
    /// The page's rule.
    pub page: AllocationRule,
    /// Engagement of the feed, millionths.
    pub organic: Vec<Engagement>,
    /// Ads that won and could not be served, in the order in which they failed.
    pub failed: Vec<AdId>,
    /// In the order of the auction.
    pub candidates: Vec<LoggedCandidate>,
}

/// A candidate: the integers that nodes answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoggedCandidate {
    /// The ad.
    pub ad: AdId,
    /// Its item.
    pub item: ItemId,
    /// Its campaign.
    pub campaign: CampaignId,
    /// Who pays.
    pub advertiser: AdvertiserId,
    /// Hashed limit category; 0 = none.
    pub category: u64,
    /// The event of the bid.
    pub bid_type: BidType,
    /// Paced bid.
    pub bid_micros: Micros,
    /// Score units per micro of bid.
    pub weight: u64,
    /// 1e15 times the probability of the bid's event.
    pub event_weight: u64,
    /// 1e15 times the probability of a click, where it bills.
    pub click_weight: u64,
    /// How likely a user goes on past it.
    pub continuation_ppm: u32,
    /// Additive value in score units.
    pub value: i128,
    /// Least price.
    pub reserve_micros: Micros,
    /// Lower wins.
    pub tie: u64,
    /// What an impression brings in engagement, millionths.
    pub engagement: Engagement,
    /// Which shard answered it.
    pub shard: ShardId,
    /// In which row.
    pub row: u32,
}

/// A winner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoggedWinner {
    /// The ad.
    pub ad: AdId,
    /// Its slot.
    pub slot: usize,
    /// In the event of its bid.
    pub price_micros: Micros,
    /// Per billed event.
    pub billed_micros: Micros,
    /// Who is next in line.
    pub runner_up: Option<AdId>,
}

/// A position of the page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoggedPlace {
    /// 0-based.
    pub position: usize,
    /// The ad, if one stands there.
    pub ad: Option<AdId>,
    /// The place in the feed of the organic item, if one stands there.
    pub organic: Option<usize>,
    /// What one billed event of the ad costs at this position.
    pub billed_micros: Option<Micros>,
}

/// Why a candidate has no slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoggedOutcome {
    /// The ad.
    pub ad: AdId,
    /// In one word, as in explanations.
    pub reason: LoggedReason,
    /// The bid that would have won, all else equal.
    pub bid_needed_micros: Option<Micros>,
}

/// The words of explanations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoggedReason {
    BelowReserve,
    WorthLess,
    LimitAdvertiser,
    LimitCategory,
    LimitNeighbour,
    LostAuction,
    BelowPageThreshold,
    NotEligibleBudget,
}

impl LoggedCandidate {
    /// A candidate with what an impression of it brings in engagement.
    #[must_use]
    pub fn new(offer: &Offer, engagement: Engagement) -> Self {
        Self {
            ad: offer.ad,
            item: offer.item,
            campaign: offer.campaign,
            advertiser: offer.advertiser,
            category: offer.limit_category,
            bid_type: offer.bid_type,
            bid_micros: offer.bid,
            weight: offer.weight,
            event_weight: offer.event_weight,
            click_weight: offer.click_weight,
            continuation_ppm: offer.continuation_ppm,
            value: offer.value,
            reserve_micros: offer.reserve,
            tie: offer.tie,
            engagement,
            shard: offer.shard,
            row: offer.row,
        }
    }

    /// The offer.
    #[must_use]
    pub const fn offer(&self) -> Offer {
        Offer {
            ad: self.ad,
            item: self.item,
            campaign: self.campaign,
            advertiser: self.advertiser,
            limit_category: self.category,
            bid_type: self.bid_type,
            bid: self.bid_micros,
            weight: self.weight,
            event_weight: self.event_weight,
            click_weight: self.click_weight,
            continuation_ppm: self.continuation_ppm,
            value: self.value,
            reserve: self.reserve_micros,
            tie: self.tie,
            shard: self.shard,
            row: self.row,
        }
    }
}

/// The winners as the page sees them.
pub fn slot_ads(ranking: &Ranking, clearing: &Clearing, engagement: impl Fn(&Candidate) -> Engagement) -> Vec<SlotAd> {
    let ad = |winner: &Winner| {
        let candidate = &ranking[winner.candidate];
        SlotAd {
            slot: winner.slot,
            score: candidate.score(),
            engagement: engagement(candidate),
            category: candidate.offer().limit_category,
        }
    };
    clearing.winners.iter().map(ad).collect()
}

/// The record of a clearing; the inputs' candidates are put into the order of the ranking.
pub fn record(
    mut inputs: ClearingInputs,
    ranking: &Ranking,
    clearing: &Clearing,
    page: &[Placed],
    outcomes: &[Outcome],
) -> ClearingRecord {
    let order: std::collections::HashMap<AdId, usize> = ranking.iter().map(|c| c.offer().ad).zip(0..).collect();
    inputs.format = FORMAT;
    inputs.candidates.sort_by_key(|logged| order.get(&logged.ad).copied());
    let winner = |winner: &Winner| LoggedWinner {
        ad: ranking[winner.candidate].offer().ad,
        slot: winner.slot,
        price_micros: winner.price,
        billed_micros: winner.billed,
        runner_up: winner.runner_up.map(|index| ranking[index].offer().ad),
    };
    let place = |placed: &Placed| match placed.entry {
        Entry::Organic(index) => {
            LoggedPlace { position: placed.position, ad: None, organic: Some(index), billed_micros: None }
        }
        Entry::Ad(index) => {
            let won = clearing.winners.get(index).map(|winner| {
                let candidate = &ranking[winner.candidate];
                (candidate.offer().ad, priced_in_place(candidate, winner, placed).billed)
            });
            let (ad, billed_micros) = won.unzip();
            LoggedPlace { position: placed.position, ad, organic: None, billed_micros }
        }
    };
    let other = |(candidate, outcome): (&Candidate, &Outcome)| {
        let (reason, bid_needed_micros) = reason(*outcome)?;
        Some(LoggedOutcome { ad: candidate.offer().ad, reason, bid_needed_micros })
    };
    ClearingRecord {
        inputs,
        winners: clearing.winners.iter().map(winner).collect(),
        placed: page.iter().map(place).collect(),
        others: ranking.iter().zip(outcomes).filter_map(other).collect(),
    }
}

fn reason(outcome: Outcome) -> Option<(LoggedReason, Option<Micros>)> {
    Some(match outcome {
        Outcome::Won { .. } => return None,
        Outcome::BelowReserve { .. } => (LoggedReason::BelowReserve, None),
        Outcome::WorthLess { .. } => (LoggedReason::WorthLess, None),
        Outcome::Limited(Limit::Advertiser) => (LoggedReason::LimitAdvertiser, None),
        Outcome::Limited(Limit::Category) => (LoggedReason::LimitCategory, None),
        Outcome::Limited(Limit::Neighbour) => (LoggedReason::LimitNeighbour, None),
        Outcome::Lost { bid_needed, .. } => (LoggedReason::LostAuction, bid_needed),
        Outcome::BelowThreshold { bid_needed, .. } => (LoggedReason::BelowPageThreshold, bid_needed),
        Outcome::Removed => (LoggedReason::NotEligibleBudget, None),
    })
}
