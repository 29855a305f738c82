//! What is said of campaigns beyond the catalogue that serves?
//!
//! Overrides by campaign, a number that grows with every difference, and which campaigns the last versions changed, so
//! that a member that has missed a few is told only of those. Whether a campaign or an ad group is in the catalogue is not
//! known here: the voter that leads has read it, refuses wishes for others, and takes overrides of what is gone back
//! after a generation has become active. The overrides of all others stay over generations, by id.

use std::collections::{BTreeMap, VecDeque};

use gavel_proto::delivery::{Change, Override, check_count};
use gavel_proto::limits::{
    AD_GROUP_OVERRIDES_MAX, AD_GROUPS_MAX, DELIVERY_DELTA_CAMPAIGNS_MAX, DELIVERY_DELTAS_MAX, DELIVERY_OVERRIDES_MAX,
};

use super::command::PublishDelivery;
use super::{State, Verdict};

/// What is said of campaigns, and since when.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delivery {
    /// The newest version; 0 before the first generation.
    pub version: u64,
    /// The version with which the active generation began.
    pub since: u64,
    /// By campaign; none is empty.
    pub overrides: BTreeMap<u64, Override>,
    /// The last versions, oldest first.
    pub deltas: VecDeque<Delta>,
}

/// Which campaigns a version changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// The version.
    pub version: u64,
    /// When, as the leader's clock said.
    pub at_ms: u64,
    /// Ascending.
    pub campaigns: Vec<u64>,
}

/// What has changed since a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Since {
    /// Nothing.
    Nothing,
    /// These campaigns, ascending, each once.
    Campaigns(Vec<u64>),
    /// The version is not known any more, or never was.
    Unknown,
}

impl Delivery {
    /// What has changed since `version`.
    #[must_use]
    pub fn since(&self, version: u64) -> Since {
        if version == self.version {
            return Since::Nothing;
        }
        // Every version has a delta, so the one after must be there.
        let is_known = self.deltas.front().is_some_and(|first| first.version <= version + 1) && version < self.version;
        if !is_known || version == 0 {
            return Since::Unknown;
        }
        let newer = self.deltas.iter().filter(|delta| delta.version > version);
        let mut campaigns: Vec<u64> = newer.flat_map(|delta| delta.campaigns.iter().copied()).collect();
        campaigns.sort_unstable();
        campaigns.dedup();
        Since::Campaigns(campaigns)
    }

    /// Whether there is room for what would stand of some campaigns.
    fn check_room(&self, changed: &BTreeMap<u64, Override>) -> Result<(), String> {
        let crowded = changed.iter().find(|(_, after)| after.ad_groups.len() > AD_GROUPS_MAX);
        if let Some((id, _)) = crowded {
            return Err(format!(
                "resource_exhausted: campaign {id}: something is said of {AD_GROUPS_MAX} of its ad groups already"
            ));
        }
        let is_new = |id: &u64, after: &Override| !after.is_empty() && !self.overrides.contains_key(id);
        let more = changed.iter().filter(|(id, after)| is_new(id, after)).count();
        let fewer = changed.values().filter(|after| after.is_empty()).count();
        if more > fewer && self.overrides.len() + more - fewer > DELIVERY_OVERRIDES_MAX {
            return Err(format!("resource_exhausted: something is said of {DELIVERY_OVERRIDES_MAX} campaigns already"));
        }
        let after: usize = changed.values().map(|after| after.ad_groups.len()).sum();
        let before = changed.keys().filter_map(|id| self.overrides.get(id)).map(|stands| stands.ad_groups.len());
        let before: usize = before.sum();
        // All of them are counted only where there come more.
        if after > before && self.groups() + after - before > AD_GROUP_OVERRIDES_MAX {
            return Err(format!("resource_exhausted: something is said of {AD_GROUP_OVERRIDES_MAX} ad groups already"));
        }
        Ok(())
    }

    /// Ad groups of which something is said.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.overrides.values().map(|stands| stands.ad_groups.len()).sum()
    }

    /// Begins version `number` with what it changed.
    fn advance(&mut self, number: u64, at_ms: u64, campaigns: Vec<u64>) {
        self.version = number;
        self.deltas.push_back(Delta { version: number, at_ms, campaigns });
        let mut named: usize = self.deltas.iter().map(|delta| delta.campaigns.len()).sum();
        while self.deltas.len() > DELIVERY_DELTAS_MAX || named > DELIVERY_DELTA_CAMPAIGNS_MAX {
            named -= self.deltas.pop_front().map_or(named, |gone| gone.campaigns.len());
        }
    }
}

/// Whether one command may hold changes, and their values are possible ones.
fn check(changes: &[Change]) -> Result<(), String> {
    let values = || changes.iter().try_for_each(Change::check);
    check_count(changes).and_then(|()| values()).map_err(|refused| format!("invalid_argument: {refused}"))
}

/// Bids, statuses, multipliers and what else is said of campaigns. Answers the version in which it counts.
pub fn publish(state: &mut State, wish: &PublishDelivery) -> Verdict {
    check(&wish.changes)?;
    let active = state.active_generation.ok_or("failed_precondition: no catalogue serves")?;
    if wish.generation != 0 && wish.generation != active {
        return Err(format!("failed_precondition: generation {} does not serve", wish.generation));
    }
    let delivery = &mut state.delivery;
    let mut changed: BTreeMap<u64, Override> = BTreeMap::new();
    for change in &wish.changes {
        let id = change.campaign;
        let before = changed.get(&id).or_else(|| delivery.overrides.get(&id)).cloned().unwrap_or_default();
        changed.insert(id, change.after(before));
    }
    let stands = |id: &u64| delivery.overrides.get(id).cloned().unwrap_or_default();
    changed.retain(|id, after| stands(id) != *after);
    if changed.is_empty() {
        return Ok(delivery.version);
    }
    delivery.check_room(&changed)?;
    let campaigns = changed.keys().copied().collect();
    for (id, after) in changed {
        if after.is_empty() {
            delivery.overrides.remove(&id);
        } else {
            delivery.overrides.insert(id, after);
        }
    }
    delivery.advance(delivery.version + 1, state.applied_ms, campaigns);
    Ok(delivery.version)
}

/// A generation has become active. Before anything is said of campaigns, versions are the numbers of generations.
pub fn begin_generation(state: &mut State, generation: u64) {
    let delivery = &mut state.delivery;
    delivery.advance(generation.max(delivery.version + 1), state.applied_ms, Vec::new());
    delivery.since = delivery.version;
}
