//! What is said of an ad group, and what does an ad in it bid?
//!
//! An ad group is a level between a campaign and its ads. It has a bid and a status of its own, and shares everything
//! else with its campaign: budgets, pacing, strategy, schedule, frequency rules. An ad directly under its campaign is in
//! group 0, which has nothing of its own. [`group_bid`] is the one order in which bids are looked for; nodes, control
//! plane and pacer all ask it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Override, Status};
use crate::limits::{AD_GROUPS_MAX, BID_MICROS_MAX, CATALOGUE_AD_GROUPS_MAX};
use crate::wire;

/// What operators said of one ad group; what is absent is as the catalogue says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct GroupOverride {
    /// The bid, in micros.
    pub bid_micros: Option<u64>,
    /// Whether it is paused.
    pub status: Option<Status>,
}

impl GroupOverride {
    /// True when nothing was said.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bid_micros.is_none() && self.status.is_none()
    }
}

/// A wish about one ad group; what is absent stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct GroupChange {
    /// Which one of the campaign's.
    pub ad_group: u64,
    /// The bid, in micros.
    pub bid_micros: Option<u64>,
    /// Paused or not.
    pub status: Option<Status>,
    /// Takes back what was said of it, before the rest.
    pub reset: bool,
}

impl GroupChange {
    /// True when it changes nothing, whatever was said before.
    #[must_use]
    pub const fn says_nothing(&self) -> bool {
        self.bid_micros.is_none() && self.status.is_none() && !self.reset
    }

    /// What stands afterwards.
    fn after(&self, before: GroupOverride) -> GroupOverride {
        let before = if self.reset { GroupOverride::default() } else { before };
        GroupOverride { bid_micros: self.bid_micros.or(before.bid_micros), status: self.status.or(before.status) }
    }
}

impl Override {
    /// What is said of one of its ad groups.
    #[must_use]
    pub fn of_group(&self, ad_group: u64) -> GroupOverride {
        let at = self.ad_groups.binary_search_by_key(&ad_group, |(id, _)| *id).ok();
        at.and_then(|at| self.ad_groups.get(at)).map(|(_, said)| *said).unwrap_or_default()
    }

    /// The bid in place of what the catalogue gives an ad group: a strategy's, which is for the whole campaign, else what
    /// operators said of the group. None: see [`group_bid`].
    #[must_use]
    pub fn in_force_group_bid(&self, ad_group: u64) -> Option<u64> {
        self.strategy_bid().or_else(|| self.of_group(ad_group).bid_micros)
    }
}

/// What an ad of a group bids, in micros, before the campaign's multiplier: the bid of a strategy, else what operators
/// said of the group, else the group's in the catalogue (`group_bid`, 0: none), else the campaign's, as said or as in the
/// catalogue (`campaign_bid`).
#[must_use]
pub fn group_bid(said: Option<&Override>, ad_group: u64, group_bid: u64, campaign_bid: u64) -> u64 {
    said.and_then(|said| said.in_force_group_bid(ad_group))
        .or(Some(group_bid).filter(|bid| *bid > 0))
        .or_else(|| said.and_then(Override::in_force_bid))
        .unwrap_or(campaign_bid)
}

/// What stands of a campaign's ad groups after changes.
pub(super) fn after(changes: &[GroupChange], before: Vec<(u64, GroupOverride)>) -> Vec<(u64, GroupOverride)> {
    if changes.is_empty() {
        return before;
    }
    let mut groups: BTreeMap<u64, GroupOverride> = before.into_iter().collect();
    for change in changes {
        let stands = groups.get(&change.ad_group).copied().unwrap_or_default();
        groups.insert(change.ad_group, change.after(stands));
    }
    groups.into_iter().filter(|(_, said)| !said.is_empty()).collect()
}

/// Whether these may be ad groups of one campaign, each with its id and its own bid in micros, in any order: of a
/// catalogue, of what is said of it, or of a change.
///
/// # Errors
/// Names the ad group, what is wrong with it, and what it may be.
pub fn check_groups(groups: impl IntoIterator<Item = (u64, Option<u64>)>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for (id, bid_micros) in groups {
        if id == 0 {
            return Err("an ad group's id is missing, or 0: what is under no ad group is the campaign's".to_owned());
        }
        if !seen.insert(id) {
            return Err(format!("ad group {id} is named twice"));
        }
        if let Some(bid) = bid_micros.filter(|bid| *bid == 0 || *bid > BID_MICROS_MAX) {
            return Err(format!("ad group {id}: bid_micros is {bid}, must be 1 to {BID_MICROS_MAX}"));
        }
    }
    match seen.len() {
        given if given > AD_GROUPS_MAX => Err(format!("{given} ad groups, at most {AD_GROUPS_MAX}")),
        _ => Ok(()),
    }
}

/// The same of a campaign of a catalogue, in which a bid of 0 stands for none.
///
/// # Errors
/// As [`check_groups`].
pub fn check_catalogue_groups(groups: &[wire::AdGroup]) -> Result<(), String> {
    check_groups(groups.iter().map(|group| (group.ad_group_id, Some(group.bid_micros).filter(|bid| *bid > 0))))
}

/// The ad groups of a catalogue so far, with those of one more of its campaigns.
///
/// # Errors
/// When they are more than a catalogue may have.
pub fn total_groups(so_far: usize, campaign: &wire::Campaign) -> Result<usize, String> {
    match so_far + campaign.ad_groups.len() {
        total if total > CATALOGUE_AD_GROUPS_MAX => {
            Err(format!("the catalogue has more than {CATALOGUE_AD_GROUPS_MAX} ad groups"))
        }
        total => Ok(total),
    }
}
