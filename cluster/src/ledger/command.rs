//! What stands in one entry of the ledger's log?

use gavel_proto::ids::{AdvertiserId, CampaignId, MemberId};
use gavel_proto::money::Nanos;

use super::calendar::Zone;
use super::types::{Budgets, Charge, TokenKey};

/// One entry: some time, and what happened in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// What the proposer's own clock saw pass since its last entry. Intervals are counted in it: a wall clock that
    /// jumps moves no lease.
    pub elapsed_ms: u64,
    /// The proposer's wall clock, for days and hours; one that stands back is not followed.
    pub wall_ms: u64,
    /// In their order.
    pub events: Vec<Event>,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A router wants to issue tokens.
    GrantIssuer {
        /// Which.
        member: MemberId,
        /// Its process: the same one gets the same issuer again.
        incarnation: u64,
    },
    /// Budgets and zone of a campaign, whole.
    SetCampaign {
        /// Which.
        campaign: CampaignId,
        /// Who pays.
        advertiser: AdvertiserId,
        /// By span.
        budgets: Budgets,
        /// Where its midnight is.
        zone: Zone,
    },
    /// A router wants money to serve from.
    OpenLease(LeaseWish),
    /// A router's last word on a lease.
    CloseLease {
        /// Whose.
        issuer: u64,
        /// Which.
        lease: u64,
        /// What its tokens cost together.
        issued: Nanos,
    },
    /// Something that is billed happened.
    Charge(Charge),
    /// A charge is given back.
    Refund {
        /// The charge, as its token says it.
        charge: Charge,
        /// How much of it.
        amount: Nanos,
    },
    /// A key for tokens.
    AddKey(TokenKey),
}

/// What a router says when it asks for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseWish {
    /// Who asks.
    pub issuer: u64,
    /// Which of its questions for this campaign: the same one again is answered by the same lease. 0 for one that is
    /// never asked again.
    pub wish: u64,
    /// Whose money.
    pub campaign: CampaignId,
    /// What it spends of it in a second.
    pub rate: Nanos,
    /// What one impression may cost at most.
    pub price_max: Nanos,
    /// Routers among which the budget is to be shared.
    pub routers: u32,
    /// Who gets what is too little to share.
    pub heir: Heir,
}

/// Is the asking router the one that holds a campaign's rest?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heir {
    /// Yes, by the hash of the campaign.
    Own,
    /// Another one is.
    Other,
}
