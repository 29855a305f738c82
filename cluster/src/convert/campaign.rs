//! What is asked of a campaign, and what is in force?

use gavel_proto::delivery::{BidStrategy, Change, Erase, Override, Silence, Status};
use gavel_proto::ids::CampaignId;
use gavel_proto::limits::ZONE_OFFSETS_MAX;
use gavel_proto::money::{BidType, Micros, Nanos, PPM};
use gavel_proto::wire;
use prost::Message;

use super::ledger::budgets_to_wire;
use crate::catalogue::Catalogue;
use crate::ledger::Ledger;
use crate::state::State;

/// Updates of one request. Ours: with their budgets they stay below the ledger's largest batch.
pub const UPDATES_MAX: usize = 512;

/// What a request wants.
#[derive(Debug, Default)]
pub struct Wishes {
    /// Of delivery.
    pub changes: Vec<Change>,
    /// Of the ledger, as they were given.
    pub budgets: Vec<(u64, wire::CampaignBudgets)>,
    /// Digest of the budgets.
    pub beside: Vec<u8>,
}

/// Reads the updates of a request.
///
/// # Errors
/// What is wrong with them, and with which campaign.
pub fn wishes(updates: &[wire::CampaignUpdate], catalogue: &Catalogue) -> Result<Wishes, String> {
    if updates.is_empty() || updates.len() > UPDATES_MAX {
        return Err(format!("{} updates: give 1 to {UPDATES_MAX}", updates.len()));
    }
    let mut wishes = Wishes::default();
    let mut seen = std::collections::BTreeSet::new();
    for update in updates {
        let given = update.change.clone().unwrap_or_default();
        let change = Change::of_wire(&given).map_err(|reason| format!("campaign {}: {reason}", given.campaign_id))?;
        change.check()?;
        let id = change.campaign;
        if !seen.insert(id) {
            return Err(format!("campaign {id} is named twice"));
        }
        let Some(campaign) = catalogue.campaigns.get(&id) else {
            return Err(format!(
                "campaign {id} is not in the catalogue that serves (generation {})",
                catalogue.generation
            ));
        };
        let bids_for_conversions = BidType::from_number(campaign.bid_type).is_some_and(BidType::is_for_conversions);
        if change.strategy.is_some_and(|strategy| strategy != BidStrategy::Fixed) && !bids_for_conversions {
            return Err(format!(
                "campaign {id}: a target cost and most conversions need a bid per conversion (cpa, ocpm, ocpc), which the catalogue does not give it"
            ));
        }
        let pacers = [change.multiplier_ppm.is_some(), change.throttle_ppm.is_some(), change.auto_bid_micros.is_some()];
        if pacers.contains(&true) || change.out_of_budget.is_some() || change.erase == Erase::All {
            return Err(format!("campaign {id}: multiplier, throttle, auto bid and out of budget are the pacer's"));
        }
        let says_nothing = change == Change { campaign: id, ..Change::default() };
        if let Some(budgets) = &update.budgets {
            check_budgets(id, budgets)?;
            wishes.budgets.push((id, budgets.clone()));
        } else if says_nothing {
            return Err(format!("campaign {id}: nothing is to change"));
        }
        wishes.changes.push(change);
    }
    if !wishes.budgets.is_empty() {
        let mut digest = blake3::Hasher::new();
        for (id, budgets) in &wishes.budgets {
            digest.update(&id.to_le_bytes()).update(&budgets.encode_to_vec());
        }
        wishes.beside = digest.finalize().as_bytes().to_vec();
    }
    Ok(wishes)
}

fn check_budgets(id: u64, budgets: &wire::CampaignBudgets) -> Result<(), String> {
    for (name, micros) in
        [("daily", budgets.day_micros), ("weekly", budgets.week_micros), ("lifetime", budgets.lifetime_micros)]
    {
        let Some(micros) = micros else { continue };
        let fits =
            Nanos::of_micros(Micros(micros)).is_some_and(|n| n.0 <= gavel_proto::limits::LEDGER_AMOUNT_NANOS_MAX);
        if !fits {
            return Err(format!("campaign {id}: the {name} budget of {} is too large", Micros(micros)));
        }
    }
    let (starts, offsets) = (budgets.zone_starts.len(), budgets.zone_offsets.len());
    if starts != offsets || starts > ZONE_OFFSETS_MAX {
        return Err(format!("campaign {id}: a zone has as many starts as offsets, at most {ZONE_OFFSETS_MAX}"));
    }
    Ok(())
}

/// What the ledger is to hold: what it has, with what is given in its place.
#[must_use]
pub fn merged(id: u64, given: &wire::CampaignBudgets, ledger: &Ledger, catalogue: &Catalogue) -> wire::SetBudgets {
    let held = ledger.campaigns.get(&CampaignId(id));
    let advertiser = catalogue.campaigns.get(&id).map_or(0, |campaign| campaign.advertiser_id);
    let before = held.map(|held| budgets_to_wire(CampaignId(id), held.advertiser, &held.budgets, &held.zone));
    let before =
        before.unwrap_or(wire::SetBudgets { campaign_id: id, advertiser_id: advertiser, ..Default::default() });
    // 0 takes a budget away; what was checked fits.
    let of = |given: Option<u64>, before: Option<i64>| match given {
        None => before,
        Some(0) => None,
        Some(micros) => Nanos::of_micros(Micros(micros)).map(|nanos| nanos.0),
    };
    wire::SetBudgets {
        day_nanos: of(given.day_micros, before.day_nanos),
        week_nanos: of(given.week_micros, before.week_nanos),
        lifetime_nanos: of(given.lifetime_micros, before.lifetime_nanos),
        zone_starts: if given.zone_starts.is_empty() { before.zone_starts } else { given.zone_starts.clone() },
        zone_offsets: if given.zone_starts.is_empty() { before.zone_offsets } else { given.zone_offsets.clone() },
        ..before
    }
}

/// What is in force of a campaign at an instant.
#[must_use]
pub fn state_of(campaign: &wire::Campaign, state: &State, ledger: &Ledger, unix_s: i64) -> wire::CampaignState {
    let id = campaign.campaign_id;
    let none = Override::default();
    let said = state.delivery.overrides.get(&id).unwrap_or(&none);
    let is_paused = said.status.map_or(campaign.paused, |status| status == Status::Paused);
    let silence = match said.silence(unix_s) {
        _ if is_paused => "paused",
        Some(Silence::OutOfBudget) => "out_of_budget",
        Some(Silence::OutOfSchedule) => "out_of_schedule",
        Some(Silence::Paused) | None => "",
    };
    let status = if is_paused { wire::CampaignStatus::Paused } else { wire::CampaignStatus::Active };
    let micros = |nanos: Option<Nanos>| nanos.map(|nanos| u64::try_from(nanos.0 / 1_000).unwrap_or(0));
    let budgets = ledger.campaigns.get(&CampaignId(id)).map(|held| {
        let [day, week, lifetime] = held.budgets;
        wire::CampaignBudgets {
            day_micros: micros(day),
            week_micros: micros(week),
            lifetime_micros: micros(lifetime),
            zone_starts: held.zone.offsets().iter().map(|(start, _)| *start).collect(),
            zone_offsets: held.zone.offsets().iter().map(|(_, offset)| *offset).collect(),
        }
    });
    wire::CampaignState {
        campaign_id: id,
        advertiser_id: campaign.advertiser_id,
        bid_type: u32::try_from(campaign.bid_type).unwrap_or(0),
        bid_micros: said.in_force_bid().unwrap_or(campaign.bid_micros),
        multiplier_ppm: said.multiplier_ppm.unwrap_or(campaign.multiplier_ppm).min(PPM),
        status: status.into(),
        catalogue_bid_micros: campaign.bid_micros,
        catalogue_paused: campaign.paused,
        said: (!said.is_empty()).then(|| said.to_wire(id)),
        budgets,
        silence: silence.to_owned(),
    }
}
