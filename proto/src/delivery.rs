//! What stands of a campaign in a delivery version, beyond what its catalogue says?
//!
//! A catalogue gives each campaign a bid, a status and a multiplier. What is said of it afterwards is an [`Override`]:
//! operators say bid, status, schedule, strategy and frequency rules; the pacer says multiplier, throttle, the bid of a
//! strategy, and whether the budget is gone. The two own different fields, so neither undoes the other. A [`Change`]
//! names the fields that it sets; an override holds absolute values, so that applying one twice is applying it once.
//! Of a campaign's ad groups operators say bids and statuses ([`GroupOverride`]).
//!
//! Control plane, nodes and routers share these rules; they are values and pure functions.

mod book;
mod groups;
mod travel;

pub use book::{Book, News, Read};
pub use groups::{GroupChange, GroupOverride, check_catalogue_groups, check_groups, group_bid, total_groups};

use crate::frequency::FrequencyRule;
use crate::limits::{AD_GROUP_CHANGES_MAX, BID_MICROS_MAX, DELIVERY_CHANGES_MAX};
use crate::money::PPM;

/// May a campaign bid?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Its ads take part.
    Active,
    /// Its ads neither win nor set a price.
    Paused,
}

/// When a campaign runs: from the first second on, up to but without the last; 0 = open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Schedule {
    /// Unix seconds: the first in which it runs.
    pub starts_s: i64,
    /// Unix seconds: the first in which it does not.
    pub ends_s: i64,
}

impl Schedule {
    /// Whether a campaign runs at an instant.
    #[must_use]
    pub const fn runs_at(&self, unix_s: i64) -> bool {
        (self.starts_s == 0 || self.starts_s <= unix_s) && (self.ends_s == 0 || unix_s < self.ends_s)
    }

    /// True when it says nothing.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.starts_s == 0 && self.ends_s == 0
    }
}

/// How a bid comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BidStrategy {
    /// The bid stands.
    Fixed,
    /// The pacer bids so that a conversion costs at most so many micros.
    TargetCpa(u64),
    /// The pacer bids for as many conversions as the budget buys.
    MostConversions,
}

/// How spending is held back to the day's curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pacing {
    /// Lower bids.
    Bid,
    /// Fewer auctions, at full bids.
    Throttle,
}

/// What was said of a campaign; what is absent is as the catalogue says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Override {
    /// Operators: the bid, in micros.
    pub bid_micros: Option<u64>,
    /// Operators: whether it is paused.
    pub status: Option<Status>,
    /// Operators: when it runs.
    pub schedule: Schedule,
    /// Operators: how the bid comes about.
    pub strategy: Option<BidStrategy>,
    /// Operators: how spending is held back.
    pub pacing: Option<Pacing>,
    /// Operators: how often a user may see it, in place of the catalogue's rules; none: as the catalogue says.
    pub frequency: Vec<FrequencyRule>,
    /// Operators: by ad group, ascending; none is empty.
    pub ad_groups: Vec<(u64, GroupOverride)>,
    /// Pacer: what the bid is multiplied with, in millionths.
    pub multiplier_ppm: Option<u32>,
    /// Pacer: the share of the auctions that it takes part in, in millionths.
    pub throttle_ppm: Option<u32>,
    /// Pacer: what the strategy bids, in micros, in place of the bid.
    pub auto_bid_micros: Option<u64>,
    /// Pacer: nothing is left to spend.
    pub out_of_budget: bool,
}

/// Why a campaign takes no part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Silence {
    /// An operator paused it.
    Paused,
    /// Its budget is gone.
    OutOfBudget,
    /// It has not begun, or is over.
    OutOfSchedule,
}

impl Override {
    /// True when nothing was said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The bid in place of the catalogue's: the pacer's as long as an operator wants a strategy to bid.
    #[must_use]
    pub fn in_force_bid(&self) -> Option<u64> {
        self.strategy_bid().or(self.bid_micros)
    }

    /// What the pacer bids, as long as an operator wants a strategy to bid.
    fn strategy_bid(&self) -> Option<u64> {
        match self.strategy {
            Some(BidStrategy::TargetCpa(_) | BidStrategy::MostConversions) => self.auto_bid_micros,
            Some(BidStrategy::Fixed) | None => None,
        }
    }

    /// Why the campaign takes no part at an instant, as far as this says it.
    #[must_use]
    pub fn silence(&self, unix_s: i64) -> Option<Silence> {
        if self.status == Some(Status::Paused) {
            Some(Silence::Paused)
        } else if self.out_of_budget {
            Some(Silence::OutOfBudget)
        } else if !self.schedule.runs_at(unix_s) {
            Some(Silence::OutOfSchedule)
        } else {
            None
        }
    }

    /// Without what operators said.
    fn without_operators(self) -> Self {
        Self {
            multiplier_ppm: self.multiplier_ppm,
            throttle_ppm: self.throttle_ppm,
            auto_bid_micros: self.auto_bid_micros,
            out_of_budget: self.out_of_budget,
            ..Self::default()
        }
    }
}

/// What a change takes back before it says anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Erase {
    /// Nothing.
    #[default]
    Nothing,
    /// What operators said.
    Operators,
    /// All of it.
    All,
}

/// A wish about one campaign; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Change {
    /// Which campaign.
    pub campaign: u64,
    /// Before the rest.
    pub erase: Erase,
    /// The bid, in micros.
    pub bid_micros: Option<u64>,
    /// Paused or not.
    pub status: Option<Status>,
    /// When it runs; an open one takes the schedule back.
    pub schedule: Option<Schedule>,
    /// How the bid comes about.
    pub strategy: Option<BidStrategy>,
    /// How spending is held back.
    pub pacing: Option<Pacing>,
    /// All its frequency rules.
    pub frequency: Option<Vec<FrequencyRule>>,
    /// Those of its ad groups that change, each once.
    pub ad_groups: Vec<GroupChange>,
    /// The pacer's: in millionths.
    pub multiplier_ppm: Option<u32>,
    /// The pacer's: in millionths.
    pub throttle_ppm: Option<u32>,
    /// The pacer's: in micros; 0 takes it back.
    pub auto_bid_micros: Option<u64>,
    /// The pacer's.
    pub out_of_budget: Option<bool>,
}

impl Change {
    /// What stands afterwards.
    #[must_use]
    pub fn after(&self, before: Override) -> Override {
        let before = match self.erase {
            Erase::Nothing => before,
            Erase::Operators => before.without_operators(),
            Erase::All => Override::default(),
        };
        Override {
            bid_micros: self.bid_micros.or(before.bid_micros),
            status: self.status.or(before.status),
            schedule: self.schedule.unwrap_or(before.schedule),
            strategy: self.strategy.or(before.strategy),
            pacing: self.pacing.or(before.pacing),
            frequency: self.frequency.clone().unwrap_or(before.frequency),
            ad_groups: groups::after(&self.ad_groups, before.ad_groups),
            multiplier_ppm: self.multiplier_ppm.or(before.multiplier_ppm),
            throttle_ppm: self.throttle_ppm.or(before.throttle_ppm),
            auto_bid_micros: self.auto_bid_micros.map_or(before.auto_bid_micros, |bid| Some(bid).filter(|b| *b > 0)),
            out_of_budget: self.out_of_budget.unwrap_or(before.out_of_budget),
        }
    }

    /// Whether its values are possible ones.
    ///
    /// # Errors
    /// Names the field, what it holds, and what it may hold.
    pub fn check(&self) -> Result<(), String> {
        let id = self.campaign;
        if id == 0 {
            return Err("campaign_id is missing".to_owned());
        }
        if let Some(bid) = self.bid_micros.filter(|bid| *bid == 0 || *bid > BID_MICROS_MAX) {
            return Err(format!("campaign {id}: bid_micros is {bid}, must be 1 to {BID_MICROS_MAX}"));
        }
        if let Some(bid) = self.auto_bid_micros.filter(|bid| *bid > BID_MICROS_MAX) {
            return Err(format!("campaign {id}: auto_bid_micros is {bid}, at most {BID_MICROS_MAX} is possible"));
        }
        for (name, share) in [("multiplier_ppm", self.multiplier_ppm), ("throttle_ppm", self.throttle_ppm)] {
            if let Some(ppm) = share.filter(|ppm| *ppm > PPM) {
                return Err(format!("campaign {id}: {name} is {ppm}, at most {PPM} is possible"));
            }
        }
        if let Some(Schedule { starts_s, ends_s }) = self.schedule
            && (starts_s < 0 || ends_s < 0 || (ends_s != 0 && ends_s <= starts_s))
        {
            return Err(format!("campaign {id}: a schedule ends after it starts, given {starts_s} to {ends_s}"));
        }
        if let Some(BidStrategy::TargetCpa(target)) = self.strategy
            && (target == 0 || target > BID_MICROS_MAX)
        {
            return Err(format!("campaign {id}: target_micros is {target}, must be 1 to {BID_MICROS_MAX}"));
        }
        let groups = self.ad_groups.iter().map(|change| (change.ad_group, change.bid_micros));
        check_groups(groups).map_err(|reason| format!("campaign {id}: {reason}"))
    }
}

/// Whether one command may hold so many changes.
///
/// # Errors
/// Says how many there are, and how many there may be.
pub fn check_count(changes: &[Change]) -> Result<(), String> {
    if changes.len() > DELIVERY_CHANGES_MAX {
        let given = changes.len();
        return Err(format!("{given} changes, at most {DELIVERY_CHANGES_MAX}: send them in parts"));
    }
    match changes.iter().map(|change| change.ad_groups.len()).sum::<usize>() {
        groups if groups > AD_GROUP_CHANGES_MAX => {
            Err(format!("changes of {groups} ad groups, at most {AD_GROUP_CHANGES_MAX}: send them in parts"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
