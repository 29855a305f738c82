//! How do overrides and changes travel?

use super::{BidStrategy, Change, Erase, GroupChange, GroupOverride, Override, Pacing, Schedule, Status, check_groups};
use crate::frequency::{FrequencyRule, rules_from_wire};
use crate::wire;

impl From<Schedule> for wire::CampaignSchedule {
    fn from(schedule: Schedule) -> Self {
        Self { starts_s: schedule.starts_s, ends_s: schedule.ends_s }
    }
}

impl From<wire::CampaignSchedule> for Schedule {
    fn from(m: wire::CampaignSchedule) -> Self {
        Self { starts_s: m.starts_s, ends_s: m.ends_s }
    }
}

impl From<BidStrategy> for wire::CampaignStrategy {
    fn from(strategy: BidStrategy) -> Self {
        let (kind, target_micros) = match strategy {
            BidStrategy::Fixed => (wire::BidStrategy::Fixed, 0),
            BidStrategy::TargetCpa(target) => (wire::BidStrategy::TargetCpa, target),
            BidStrategy::MostConversions => (wire::BidStrategy::MostConversions, 0),
        };
        Self { kind: kind.into(), target_micros }
    }
}

fn unknown(field: &str) -> String {
    format!("{field} has a value that is not known here")
}

/// A strategy of the wire.
fn strategy(m: wire::CampaignStrategy) -> Result<BidStrategy, String> {
    match m.kind() {
        wire::BidStrategy::Fixed => Ok(BidStrategy::Fixed),
        wire::BidStrategy::TargetCpa => Ok(BidStrategy::TargetCpa(m.target_micros)),
        wire::BidStrategy::MostConversions => Ok(BidStrategy::MostConversions),
        wire::BidStrategy::Unspecified => Err(unknown("strategy.kind")),
    }
}

fn pacing_to_wire(pacing: Option<Pacing>) -> i32 {
    let pacing = match pacing {
        None => wire::CampaignPacing::Unspecified,
        Some(Pacing::Bid) => wire::CampaignPacing::Bid,
        Some(Pacing::Throttle) => wire::CampaignPacing::Throttle,
    };
    pacing.into()
}

fn pacing(value: i32) -> Result<Option<Pacing>, &'static str> {
    match wire::CampaignPacing::try_from(value) {
        Ok(wire::CampaignPacing::Unspecified) => Ok(None),
        Ok(wire::CampaignPacing::Bid) => Ok(Some(Pacing::Bid)),
        Ok(wire::CampaignPacing::Throttle) => Ok(Some(Pacing::Throttle)),
        Err(_) => Err("pacing"),
    }
}

/// Rules for the wire.
fn rules_to_wire(rules: &[FrequencyRule]) -> wire::FrequencyRules {
    wire::FrequencyRules { rules: rules.iter().map(|rule| rule.to_wire()).collect() }
}

/// Rules of the wire.
fn rules(m: &wire::FrequencyRules) -> Result<Vec<FrequencyRule>, String> {
    rules_from_wire(&m.rules).map_err(|reason| format!("frequency: {reason}"))
}

fn status_to_wire(status: Option<Status>) -> i32 {
    let status = match status {
        None => wire::CampaignStatus::Unspecified,
        Some(Status::Active) => wire::CampaignStatus::Active,
        Some(Status::Paused) => wire::CampaignStatus::Paused,
    };
    status.into()
}

/// An unknown status is an error: a pause of a newer version must not be read as none.
fn status(value: i32) -> Result<Option<Status>, String> {
    match wire::CampaignStatus::try_from(value) {
        Ok(wire::CampaignStatus::Unspecified) => Ok(None),
        Ok(wire::CampaignStatus::Active) => Ok(Some(Status::Active)),
        Ok(wire::CampaignStatus::Paused) => Ok(Some(Status::Paused)),
        Err(_) => Err(unknown("status")),
    }
}

fn group_to_wire((ad_group, said): &(u64, GroupOverride)) -> wire::AdGroupOverride {
    wire::AdGroupOverride { ad_group_id: *ad_group, bid_micros: said.bid_micros, status: status_to_wire(said.status) }
}

/// What is said of ad groups; one that says nothing that is known here is left out.
fn groups(messages: &[wire::AdGroupOverride]) -> Result<Vec<(u64, GroupOverride)>, String> {
    check_groups(messages.iter().map(|m| (m.ad_group_id, m.bid_micros)))?;
    // They are looked up by halves.
    if !messages.is_sorted_by_key(|m| m.ad_group_id) {
        return Err("ad_groups are not ascending".to_owned());
    }
    let read = |m: &wire::AdGroupOverride| {
        let said = GroupOverride { bid_micros: m.bid_micros, status: status(m.status)? };
        Ok::<_, String>((m.ad_group_id, said))
    };
    let mut read = messages.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    read.retain(|(_, said)| !said.is_empty());
    Ok(read)
}

fn group_change_to_wire(change: &GroupChange) -> wire::AdGroupChange {
    wire::AdGroupChange {
        ad_group_id: change.ad_group,
        bid_micros: change.bid_micros,
        status: status_to_wire(change.status),
        reset: change.reset,
    }
}

fn group_change(m: &wire::AdGroupChange) -> Result<GroupChange, String> {
    let said = status(m.status).map_err(|reason| format!("ad group {}: {reason}", m.ad_group_id))?;
    Ok(GroupChange { ad_group: m.ad_group_id, bid_micros: m.bid_micros, status: said, reset: m.reset })
}

impl Override {
    /// For the wire.
    #[must_use]
    pub fn to_wire(&self, campaign: u64) -> wire::CampaignOverride {
        wire::CampaignOverride {
            campaign_id: campaign,
            bid_micros: self.bid_micros,
            status: status_to_wire(self.status),
            schedule: (!self.schedule.is_open()).then(|| self.schedule.into()),
            strategy: self.strategy.map(Into::into),
            pacing: pacing_to_wire(self.pacing),
            frequency: (!self.frequency.is_empty()).then(|| rules_to_wire(&self.frequency)),
            ad_groups: self.ad_groups.iter().map(group_to_wire).collect(),
            multiplier_ppm: self.multiplier_ppm,
            throttle_ppm: self.throttle_ppm,
            auto_bid_micros: self.auto_bid_micros,
            out_of_budget: self.out_of_budget,
        }
    }

    /// The campaign and what stands of it.
    ///
    /// # Errors
    /// Names the field that cannot be read, and what is wrong with it.
    pub fn of_wire(m: &wire::CampaignOverride) -> Result<(u64, Self), String> {
        let read = Self {
            bid_micros: m.bid_micros,
            status: status(m.status)?,
            schedule: m.schedule.map(Into::into).unwrap_or_default(),
            strategy: m.strategy.map(strategy).transpose()?,
            pacing: pacing(m.pacing)?,
            frequency: m.frequency.as_ref().map(rules).transpose()?.unwrap_or_default(),
            ad_groups: groups(&m.ad_groups)?,
            multiplier_ppm: m.multiplier_ppm,
            throttle_ppm: m.throttle_ppm,
            auto_bid_micros: m.auto_bid_micros,
            out_of_budget: m.out_of_budget,
        };
        Ok((m.campaign_id, read))
    }
}

impl Change {
    /// For the wire.
    #[must_use]
    pub fn to_wire(&self) -> wire::DeliveryChange {
        let erase = match self.erase {
            Erase::Nothing => wire::Erase::Nothing,
            Erase::Operators => wire::Erase::Operators,
            Erase::All => wire::Erase::All,
        };
        wire::DeliveryChange {
            campaign_id: self.campaign,
            erase: erase.into(),
            bid_micros: self.bid_micros,
            status: status_to_wire(self.status),
            schedule: self.schedule.map(Into::into),
            strategy: self.strategy.map(Into::into),
            pacing: pacing_to_wire(self.pacing),
            frequency: self.frequency.as_deref().map(rules_to_wire),
            ad_groups: self.ad_groups.iter().map(group_change_to_wire).collect(),
            multiplier_ppm: self.multiplier_ppm,
            throttle_ppm: self.throttle_ppm,
            auto_bid_micros: self.auto_bid_micros,
            out_of_budget: self.out_of_budget,
        }
    }

    /// A change as it travelled; whether its values are possible is another question.
    ///
    /// # Errors
    /// Names the field that cannot be read, and what is wrong with it.
    pub fn of_wire(m: &wire::DeliveryChange) -> Result<Self, String> {
        let erase = match wire::Erase::try_from(m.erase) {
            Ok(wire::Erase::Nothing) => Erase::Nothing,
            Ok(wire::Erase::Operators) => Erase::Operators,
            Ok(wire::Erase::All) => Erase::All,
            Err(_) => return Err(unknown("erase")),
        };
        Ok(Self {
            campaign: m.campaign_id,
            erase,
            bid_micros: m.bid_micros,
            status: status(m.status)?,
            schedule: m.schedule.map(Into::into),
            strategy: m.strategy.map(strategy).transpose()?,
            pacing: pacing(m.pacing)?,
            frequency: m.frequency.as_ref().map(rules).transpose()?,
            ad_groups: m.ad_groups.iter().map(group_change).collect::<Result<_, _>>()?,
            multiplier_ppm: m.multiplier_ppm,
            throttle_ppm: m.throttle_ppm,
            auto_bid_micros: m.auto_bid_micros,
            out_of_budget: m.out_of_budget,
        })
    }
}
