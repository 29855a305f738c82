//! What does each campaign bid, and does it take part?
//!
//! The pacer that serves (`gavel_control::pacing`): who is out of budget, with what bids are multiplied or in which share
//! of the auctions a campaign takes part, and what one with a target cost bids. Beside it stands the published controller
//! of throttling, for comparison.

use super::world::MarketCampaign;
use super::{MarketArgs, PacingChoice};
use crate::workload::Seeded;
use gavel_control::pacing::{Budget, Decision, Goal, Look, Means, Pacer};
use gavel_proto::hash::combine;
use gavel_proto::money::{BidType, Micros, PPM};
use gavel_proto::pacing::{Throttle, participates};

/// What stands of every campaign.
#[derive(Debug)]
pub struct Controls {
    pacing: PacingChoice,
    pacer: Pacer,
    standing: Vec<Decision>,
    goals: Vec<Goal>,
    throttle: Vec<Throttle>,
    ids: Vec<u64>,
    /// Rounds in which bids were held back, and how many are counted.
    held_back: Vec<u32>,
    counted: u32,
}

impl Controls {
    /// Nobody is held back.
    pub fn new(args: &MarketArgs, campaigns: &[MarketCampaign], pacing: PacingChoice) -> Self {
        let count = campaigns.len();
        Self {
            pacing,
            pacer: Pacer::default(),
            standing: vec![Decision::default(); count],
            goals: campaigns.iter().map(|campaign| goal(args, campaign)).collect(),
            throttle: vec![Throttle::default(); count],
            ids: campaigns.iter().map(|campaign| campaign.id).collect(),
            held_back: vec![0; count],
            counted: 0,
        }
    }

    /// What a campaign bids in this auction; nothing leaves it out.
    pub fn bid(&self, campaign: u32, bid_micros: u64, auction: u64) -> Option<Micros> {
        let place = campaign as usize;
        let standing = &self.standing[place];
        let multiplier_ppm = match self.pacing {
            PacingChoice::Multiplier => standing.multiplier_ppm,
            PacingChoice::None => PPM,
            PacingChoice::Throttle => self.takes_part(place, auction, standing.throttle_ppm),
            PacingChoice::Linkedin => self.takes_part(place, auction, self.throttle[place].probability_ppm()),
        };
        let bid = Micros(self.in_force(place, bid_micros)).paced(multiplier_ppm);
        Some(bid).filter(|bid| bid.0 > 0 && standing.budget == Budget::Left)
    }

    /// A campaign's bid before it is held back: what its target cost bids, if it has one.
    pub fn in_force(&self, place: usize, bid_micros: u64) -> u64 {
        match self.standing[place].auto_bid_micros {
            0 => bid_micros,
            auto_bid => auto_bid,
        }
    }

    /// The whole bid, in a share of the auctions.
    fn takes_part(&self, place: usize, auction: u64, share_ppm: u32) -> u32 {
        if participates(auction, self.ids[place], share_ppm) { PPM } else { 0 }
    }

    /// How spending is held back.
    pub const fn means(&self) -> Means {
        match self.pacing {
            PacingChoice::Multiplier | PacingChoice::None => Means::Bid,
            PacingChoice::Throttle | PacingChoice::Linkedin => Means::Participation,
        }
    }

    /// What a campaign wants.
    pub fn goal(&self, place: usize) -> Goal {
        self.goals[place]
    }

    /// What stands of a campaign.
    pub fn standing(&self, place: usize) -> Decision {
        self.standing[place]
    }

    /// Ends a round for one campaign.
    pub fn decide(&mut self, place: usize, look: &Look<'_>) {
        if let Some(decision) = self.pacer.decide(look) {
            self.standing[place] = decision;
        }
    }

    /// Ends a round: every campaign was looked at.
    pub fn end_round(&mut self) {
        self.pacer.end_round();
    }

    /// Counts who is held back now.
    pub fn count(&mut self) {
        self.counted += 1;
        for place in 0..self.standing.len() {
            self.held_back[place] += u32::from(self.share_ppm(place) < PPM);
        }
    }

    /// Per campaign, the share of the counted rounds in which its bids were held back.
    pub fn held_back(&self) -> Vec<f64> {
        self.held_back.iter().map(|rounds| f64::from(*rounds) / f64::from(self.counted.max(1))).collect()
    }

    /// What holds a campaign back now, whether its bids or its part in the auctions; whole for one that nothing does.
    pub fn share_ppm(&self, place: usize) -> u32 {
        match self.pacing {
            PacingChoice::Multiplier => self.standing[place].multiplier_ppm,
            PacingChoice::Throttle => self.standing[place].throttle_ppm,
            PacingChoice::Linkedin => self.throttle[place].probability_ppm(),
            PacingChoice::None => PPM,
        }
    }

    /// Ends a minute of the published controller: spent and planned, by campaign.
    pub fn throttle(&mut self, spending: impl Iterator<Item = (f64, f64)>) {
        for (throttle, (spent, planned)) in self.throttle.iter_mut().zip(spending) {
            throttle.observe(spent, planned);
        }
    }
}

/// A seeded share of the campaigns that bid for conversions have their bid as a target cost.
fn goal(args: &MarketArgs, campaign: &MarketCampaign) -> Goal {
    const NAME: u64 = 0x7461_7267_6574;
    let is_drawn = Seeded::new(combine(combine(NAME, args.seed), campaign.id)).unit() <= args.target_cpa_share;
    match campaign.bid_type {
        BidType::Cpa | BidType::Ocpm | BidType::Ocpc if is_drawn => Goal::Cost(campaign.bid_micros.max(1)),
        BidType::Cpm | BidType::Cpc | BidType::Cpa | BidType::Ocpm | BidType::Ocpc => Goal::Bid,
    }
}
