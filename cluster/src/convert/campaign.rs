//! What is asked of a campaign, and what is in force?

use gavel_proto::delivery::{BidStrategy, Change, Erase, Override, Silence, Status, check_count, group_bid};
use gavel_proto::ids::CampaignId;
use gavel_proto::limits::ZONE_OFFSETS_MAX;
use gavel_proto::money::{BidType, Micros, Nanos, PPM};
use gavel_proto::wire;
use prost::Message;

use super::ledger::budgets_to_wire;
use crate::catalogue::{Catalogue, is_paused};
use crate::ledger::Ledger;
use crate::state::State;

/// Updates of one request. Ours: with their budgets they stay below the ledger's largest batch.
pub const UPDATES_MAX: usize = 512;

/// Ad groups that a refusal names.
const GROUPS_NAMED: usize = 10;

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
        check_groups(&change, campaign, catalogue)?;
        let says_nothing = change == Change { campaign: id, ..Change::default() };
        if let Some(budgets) = &update.budgets {
            check_budgets(id, budgets)?;
            wishes.budgets.push((id, budgets.clone()));
        } else if says_nothing {
            return Err(format!("campaign {id}: nothing is to change"));
        }
        wishes.changes.push(change);
    }
    // Before the budgets are set, though the state refuses it as well.
    check_count(&wishes.changes)?;
    if !wishes.budgets.is_empty() {
        let mut digest = blake3::Hasher::new();
        for (id, budgets) in &wishes.budgets {
            digest.update(&id.to_le_bytes()).update(&budgets.encode_to_vec());
        }
        wishes.beside = digest.finalize().as_bytes().to_vec();
    }
    Ok(wishes)
}

/// Whether the campaign has the ad groups that are to change.
fn check_groups(change: &Change, campaign: &wire::Campaign, catalogue: &Catalogue) -> Result<(), String> {
    let id = change.campaign;
    for group in &change.ad_groups {
        let wanted = group.ad_group;
        if !catalogue.has_group(id, wanted) {
            let of_it = campaign.ad_groups.iter().map(|group| group.ad_group_id.to_string());
            let named: Vec<String> = of_it.take(GROUPS_NAMED).collect();
            let has = match campaign.ad_groups.len() {
                0 => "none".to_owned(),
                all if all > named.len() => format!("{} and {} more", named.join(", "), all - named.len()),
                _ => named.join(", "),
            };
            return Err(format!(
                "campaign {id} has no ad group {wanted} in the catalogue that serves (generation {}); it has {has}",
                catalogue.generation
            ));
        }
        if group.says_nothing() {
            return Err(format!("campaign {id}: ad group {wanted}: nothing is to change"));
        }
    }
    Ok(())
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
    let paused = said.status.map_or(campaign.paused, |status| status == Status::Paused);
    let silence = match said.silence(unix_s) {
        _ if paused => "paused",
        Some(Silence::OutOfBudget) => "out_of_budget",
        Some(Silence::OutOfSchedule) => "out_of_schedule",
        Some(Silence::Paused) | None => "",
    };
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
        status: status(paused).into(),
        catalogue_bid_micros: campaign.bid_micros,
        catalogue_paused: campaign.paused,
        said: (!said.is_empty()).then(|| said.to_wire(id)),
        budgets,
        silence: silence.to_owned(),
        ad_groups: campaign.ad_groups.iter().map(|group| group_state(group, campaign, said)).collect(),
    }
}

/// What is in force of one of its ad groups.
fn group_state(group: &wire::AdGroup, campaign: &wire::Campaign, said: &Override) -> wire::AdGroupState {
    wire::AdGroupState {
        ad_group_id: group.ad_group_id,
        bid_micros: group_bid(Some(said), group.ad_group_id, group.bid_micros, campaign.bid_micros),
        status: status(is_paused(group, Some(said))).into(),
        catalogue_bid_micros: group.bid_micros,
        catalogue_paused: group.paused,
    }
}

const fn status(is_paused: bool) -> wire::CampaignStatus {
    if is_paused { wire::CampaignStatus::Paused } else { wire::CampaignStatus::Active }
}

#[cfg(test)]
mod tests {
    use gavel_proto::delivery::GroupOverride;
    use gavel_proto::limits::AD_GROUPS_MAX;

    use super::*;

    /// The first campaign with as many ad groups as there may be.
    const FULL: u64 = 100;

    fn catalogue() -> Catalogue {
        let group = |ad_group_id, bid_micros, paused| wire::AdGroup { ad_group_id, bid_micros, paused };
        let campaign = |campaign_id, ad_groups| wire::Campaign {
            campaign_id,
            bid_type: BidType::Cpc.number(),
            bid_micros: 50,
            ad_groups,
            ..Default::default()
        };
        let two = vec![group(3, 70, false), group(4, 0, true)];
        let full = || (1..=AD_GROUPS_MAX as u64).map(|id| group(id, 0, false)).collect();
        let many = (FULL..FULL + 33).map(|id| campaign(id, full()));
        let all = many.chain([campaign(7, two), campaign(8, Vec::new())]);
        Catalogue { generation: 2, campaigns: all.map(|campaign| (campaign.campaign_id, campaign)).collect() }
    }

    fn update(campaign_id: u64, ad_groups: Vec<wire::AdGroupChange>) -> wire::CampaignUpdate {
        let change = wire::DeliveryChange { campaign_id, ad_groups, ..Default::default() };
        wire::CampaignUpdate { change: Some(change), budgets: None }
    }

    fn bid(ad_group_id: u64, bid_micros: u64) -> wire::AdGroupChange {
        wire::AdGroupChange { ad_group_id, bid_micros: Some(bid_micros), ..Default::default() }
    }

    #[test]
    fn wishes_for_ad_groups_that_are_not_there_are_refused() {
        let catalogue = catalogue();
        let check = |campaign: u64, groups: Vec<wire::AdGroupChange>, word: &str| {
            let refused = wishes(&[update(campaign, groups)], &catalogue).unwrap_err();
            assert!(refused.contains(word), "{refused}");
        };
        check(
            7,
            vec![bid(3, 1), bid(9, 1)],
            "campaign 7 has no ad group 9 in the catalogue that serves (generation 2)",
        );
        check(7, vec![bid(9, 1)], "it has 3, 4");
        check(8, vec![bid(3, 1)], "it has none");
        check(FULL, vec![bid(999, 1)], "9, 10 and 246 more");
        check(7, vec![bid(0, 1)], "an ad group's id is missing");
        check(7, vec![bid(3, 0)], "ad group 3: bid_micros is 0");
        check(7, vec![bid(3, 1), bid(3, 2)], "ad group 3 is named twice");
        check(7, vec![wire::AdGroupChange { ad_group_id: 3, ..Default::default() }], "nothing is to change");
        check(7, vec![], "nothing is to change");
        let reset = wire::AdGroupChange { ad_group_id: 4, reset: true, ..Default::default() };
        let taken = wishes(&[update(7, vec![bid(3, 1), reset])], &catalogue).unwrap();
        assert_eq!(taken.changes[0].ad_groups.len(), 2);
        let full = |id| update(id, (1..=AD_GROUPS_MAX as u64).map(|group| bid(group, 1)).collect());
        let all: Vec<_> = (FULL..FULL + 33).map(full).collect();
        assert_eq!(wishes(&all[..32], &catalogue).unwrap().changes.len(), 32);
        assert!(wishes(&all, &catalogue).unwrap_err().contains("changes of 8448 ad groups, at most 8192"));
    }

    #[test]
    fn what_is_in_force_of_groups_is_shown_beside_the_catalogue() {
        let catalogue = catalogue();
        let campaign = &catalogue.campaigns[&7];
        let mut state = State::genesis("c");
        let mut shown = |said: Override| {
            state.delivery.overrides = [(7, said)].into();
            let shown = state_of(campaign, &state, &Ledger::genesis("c"), 0);
            let groups = shown.ad_groups.iter().map(|g| (g.ad_group_id, g.bid_micros, g.status())).collect::<Vec<_>>();
            assert_eq!(shown.ad_groups.iter().map(|g| g.catalogue_bid_micros).collect::<Vec<_>>(), [70, 0]);
            assert_eq!(shown.ad_groups.iter().map(|g| g.catalogue_paused).collect::<Vec<_>>(), [false, true]);
            groups
        };
        let (active, paused) = (wire::CampaignStatus::Active, wire::CampaignStatus::Paused);
        assert_eq!(shown(Override::default()), [(3, 70, active), (4, 50, paused)]);
        let said = Override { bid_micros: Some(60), status: Some(Status::Paused), ..Override::default() };
        assert_eq!(shown(said.clone()), [(3, 70, active), (4, 60, paused)], "of the group alone");
        let three = GroupOverride { bid_micros: None, status: Some(Status::Paused) };
        let four = GroupOverride { bid_micros: Some(90), status: Some(Status::Active) };
        let said = Override { ad_groups: vec![(3, three), (4, four)], ..said };
        assert_eq!(shown(said), [(3, 70, paused), (4, 90, active)]);
    }
}
