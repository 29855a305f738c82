//! What is a campaign, a lease, an issuer, and what is answered?

use gavel_proto::ids::{AdId, AdvertiserId, AuctionId, CampaignId, MemberId};
use gavel_proto::money::Nanos;
use gavel_proto::pacing::arrival::{CLICK_S, CONVERSION_S, IMPRESSION_S};
use serde::{Deserialize, Serialize};

use super::account::Account;
use super::calendar::{Period, Span, Zone};

/// What happened to an ad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// It was seen.
    Impression,
    /// It was clicked.
    Click,
    /// Something was bought.
    Conversion,
}

impl EventKind {
    /// How long an event may come after its ad was served: an impression within the minute for which its lease's money is
    /// kept, a click within a day, a conversion within a week. What is known of tokens is kept by it (decision 17).
    #[must_use]
    pub const fn window_ms(self) -> u64 {
        const _: () = assert!(CONVERSION_S as u64 * 1_000 == super::ATTRIBUTION_MS, "no window is longer than that");
        let seconds = match self {
            Self::Impression => IMPRESSION_S,
            Self::Click => CLICK_S,
            Self::Conversion => CONVERSION_S,
        };
        seconds as u64 * 1_000
    }
}

/// A token as it was issued: never two with one id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChargeId {
    /// The incarnation of the router, granted by the ledger.
    pub issuer: u64,
    /// Its count.
    pub sequence: u64,
    /// The event that is billed.
    pub kind: EventKind,
}

/// Where money for a charge is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// Held in a lease since the ad was served.
    Lease(u64),
    /// Whatever the budget has left.
    Budget,
}

/// Where a price was made. No rule asks for it: it is in the journal so that a charge can be held against the clearing
/// that it came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The auction; 0 in entries of versions that did not write it.
    pub auction: AuctionId,
    /// The ad that won a slot in it.
    pub ad: AdId,
}

/// A charge: what a verified token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Its id.
    pub id: ChargeId,
    /// Who pays.
    pub campaign: CampaignId,
    /// When the token was issued, milliseconds of the ledger's wall time.
    pub issued_ms: u64,
    /// The last moment at which the event counts.
    pub expires_ms: u64,
    /// The instant whose day and week pay: the lease's grant, or the issue.
    pub period_ms: u64,
    /// What the event costs.
    pub price: Nanos,
    /// What it may cost at most.
    pub bid: Nanos,
    /// Where the money is.
    pub source: Source,
    /// Where the price was made.
    pub origin: Origin,
}

/// Budgets by span; at least one.
pub type Budgets = [Option<Nanos>; 3];

/// A campaign as the ledger knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Campaign {
    /// Who pays.
    pub advertiser: AdvertiserId,
    /// By span, in the order of [`Span::ALL`].
    pub budgets: Budgets,
    /// Where its midnight is.
    pub zone: Zone,
    /// All charges that were ever posted, refunded ones included.
    pub charged: Nanos,
    /// Events that were delivered when the budget was gone, and what they would have cost.
    pub free_events: u64,
    /// See `free_events`.
    pub free: Nanos,
    /// The sums of its days and weeks that are over, by span.
    pub closed: [Account; 3],
}

impl Campaign {
    /// The periods that an instant's charges are counted in.
    pub fn periods(&self, ms: u64) -> impl Iterator<Item = (Period, Nanos)> + '_ {
        let budgets = Span::ALL.into_iter().zip(self.budgets);
        budgets.filter_map(move |(span, budget)| Some((self.zone.period(span, ms), budget?)))
    }
}

/// Money that one router may serve from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Whose tokens may be charged to it.
    pub issuer: u64,
    /// Whose money.
    pub campaign: CampaignId,
    /// The accounts that hold it.
    pub periods: Vec<Period>,
    /// Held: smaller once the router has reported how much it issued.
    pub amount: Nanos,
    /// Charged.
    pub posted: Nanos,
    /// Replicated interval time at which it was granted.
    pub granted_clock_ms: u64,
    /// Wall time of that moment, which picked the accounts.
    pub granted_wall_ms: u64,
    /// The question that it was the answer to; 0 for none.
    pub wish: u64,
    /// Whether the router still issues from it.
    pub stage: LeaseStage,
}

/// How far a lease is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseStage {
    /// Tokens may be issued until its time is over.
    Open,
    /// The router has reported; only charges come.
    Reported,
}

/// Who may issue tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// The router.
    pub member: MemberId,
    /// Its process.
    pub incarnation: u64,
    /// Wall time of the grant.
    pub granted_ms: u64,
}

/// A key that tokens are sealed with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenKey {
    /// Names it in a token.
    pub id: u32,
    /// The secret.
    pub secret: [u8; 32],
    /// Wall time from which it is used.
    pub since_ms: u64,
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenKey({}, since {})", self.id, self.since_ms)
    }
}

/// What is answered to one event of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Charged, refunded, set or closed now.
    Done,
    /// Done before, by an event with the same id.
    Duplicate,
    /// An issuer with this id.
    Issuer(u64),
    /// A lease.
    Lease {
        /// Its id.
        id: u64,
        /// What may be served from it.
        amount: Nanos,
        /// The wall time that picked its accounts; its tokens say it.
        wall_ms: u64,
    },
    /// Not done, and nothing has changed but a count of free deliveries.
    Refused(Refusal),
}

/// Why an event has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Refusal {
    /// The budget is gone: delivered free, and free it stays.
    OverBudget,
    /// Issued so long ago that nothing is known of it any more.
    Late,
    /// Its attribution window is over.
    Expired,
    /// Issued in the future.
    Early,
    /// Nobody was granted this issuer, or not for that time.
    UnknownIssuer,
    /// No budget was ever set.
    UnknownCampaign,
    /// There never was such a lease.
    LeaseUnknown,
    /// The lease has given its rest back.
    LeaseClosed,
    /// The lease is of another issuer, campaign or period.
    LeaseForeign,
    /// The lease does not hold so much.
    ExceedsLease,
    /// The price is above the bid, or negative.
    Price,
    /// Two leases of this router for this campaign are open.
    TooManyLeases,
    /// More is leased or charged than the smaller budget would hold.
    BelowCommitted,
    /// There is no such charge to refund.
    NotCharged,
    /// More than the charge.
    ExceedsCharge,
    /// A field is beyond its limits.
    Invalid,
    /// There are as many of these as there may be.
    Full,
}

impl Refusal {
    /// Every one, in the order of their numbers on the wire, from 1.
    pub const ALL: [Self; 17] = [
        Self::OverBudget,
        Self::Late,
        Self::Expired,
        Self::Early,
        Self::UnknownIssuer,
        Self::UnknownCampaign,
        Self::LeaseUnknown,
        Self::LeaseClosed,
        Self::LeaseForeign,
        Self::ExceedsLease,
        Self::Price,
        Self::TooManyLeases,
        Self::BelowCommitted,
        Self::NotCharged,
        Self::ExceedsCharge,
        Self::Invalid,
        Self::Full,
    ];

    /// The word on the wire, in metrics and documents.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::OverBudget => "over_budget",
            Self::Late => "late",
            Self::Expired => "expired",
            Self::Early => "early",
            Self::UnknownIssuer => "unknown_issuer",
            Self::UnknownCampaign => "unknown_campaign",
            Self::LeaseUnknown => "lease_unknown",
            Self::LeaseClosed => "lease_closed",
            Self::LeaseForeign => "lease_foreign",
            Self::ExceedsLease => "exceeds_lease",
            Self::Price => "price",
            Self::TooManyLeases => "too_many_leases",
            Self::BelowCommitted => "below_committed",
            Self::NotCharged => "not_charged",
            Self::ExceedsCharge => "exceeds_charge",
            Self::Invalid => "invalid",
            Self::Full => "full",
        }
    }
}
