//! Do operators and the pacer leave each other alone, and does what is said survive its message?

use proptest::option::of;
use proptest::prelude::*;

use super::*;
use crate::frequency::{FrequencyScope, FrequencyWindow};
use crate::limits::{AD_GROUPS_MAX, CATALOGUE_AD_GROUPS_MAX};
use crate::wire;
use std::collections::BTreeMap;

/// At most one rule of a scope and window, as they come from the wire.
fn rules() -> impl Strategy<Value = Vec<FrequencyRule>> {
    let scope = prop_oneof![Just(FrequencyScope::Ad), Just(FrequencyScope::Campaign), Just(FrequencyScope::Advertiser)];
    let window = prop::sample::select(vec![1u32, 6, 24, 168, 720]);
    prop::collection::vec((scope, window, 1u8..50), 0..4).prop_map(|drawn| {
        let drawn: BTreeMap<_, _> = drawn.into_iter().map(|(scope, hours, max)| ((scope, hours), max)).collect();
        let rule =
            |((scope, hours), max)| Some(FrequencyRule { scope, window: FrequencyWindow::of_hours(hours)?, max });
        drawn.into_iter().filter_map(rule).collect()
    })
}

fn status() -> impl Strategy<Value = Status> {
    prop_oneof![Just(Status::Active), Just(Status::Paused)]
}

/// Changes of a few groups, each once and in any order.
fn group_changes() -> impl Strategy<Value = Vec<GroupChange>> {
    let said = (of(1u64..99), of(status()), any::<bool>());
    let change = |(ad_group, (bid_micros, status, reset))| GroupChange { ad_group, bid_micros, status, reset };
    let changes = prop::collection::btree_map(1u64..6, said, 0..5)
        .prop_map(move |drawn| drawn.into_iter().map(change).collect::<Vec<_>>());
    changes.prop_shuffle()
}

fn said_by_operators() -> impl Strategy<Value = Change> {
    let strategy = prop_oneof![
        Just(BidStrategy::Fixed),
        (1u64..99).prop_map(BidStrategy::TargetCpa),
        Just(BidStrategy::MostConversions)
    ];
    let schedule = (0i64..9, 10i64..20).prop_map(|(starts_s, ends_s)| Schedule { starts_s, ends_s });
    (
        of(1u64..99),
        of(status()),
        of(schedule),
        of(strategy),
        of(rules()),
        group_changes(),
        prop_oneof![Just(Erase::Nothing), Just(Erase::Operators)],
    )
        .prop_map(|(bid_micros, status, schedule, strategy, frequency, ad_groups, erase)| Change {
            campaign: 7,
            erase,
            bid_micros,
            status,
            schedule,
            strategy,
            frequency,
            ad_groups,
            ..Change::default()
        })
}

fn said_by_pacer() -> impl Strategy<Value = Change> {
    (of(0u32..PPM), of(0u32..PPM), of(0u64..99), of(any::<bool>())).prop_map(
        |(multiplier_ppm, throttle_ppm, auto_bid_micros, out_of_budget)| Change {
            campaign: 7,
            multiplier_ppm,
            throttle_ppm,
            auto_bid_micros,
            out_of_budget,
            ..Change::default()
        },
    )
}

proptest! {
    /// Whoever speaks first: operators and the pacer never undo each other.
    #[test]
    fn operators_and_the_pacer_never_undo_each_other(
        first in said_by_operators(),
        one in said_by_operators(),
        two in said_by_pacer(),
    ) {
        let before = first.after(Override::default());
        prop_assert_eq!(two.after(one.after(before.clone())), one.after(two.after(before)));
    }

    #[test]
    fn a_change_applied_twice_is_applied_once(first in said_by_pacer(), one in said_by_operators()) {
        let once = one.after(first.after(Override::default()));
        prop_assert_eq!(one.after(once.clone()), once);
    }

    #[test]
    fn nothing_is_lost_on_the_wire(one in said_by_operators(), two in said_by_pacer()) {
        for change in [&one, &two] {
            prop_assert_eq!(&Change::of_wire(&change.to_wire()).unwrap(), change);
        }
        let stands = two.after(one.after(Override::default()));
        prop_assert_eq!(Override::of_wire(&stands.to_wire(7)).unwrap(), (7, stands));
    }

    /// The twin holds what was said of each group in a map of its own.
    #[test]
    fn groups_keep_what_is_not_changed_and_are_ascending(
        changes in prop::collection::vec(said_by_operators(), 1..8),
    ) {
        let (mut stands, mut twin) = (Override::default(), BTreeMap::<u64, GroupOverride>::new());
        for change in &changes {
            if change.erase != Erase::Nothing {
                twin.clear();
            }
            for GroupChange { ad_group, bid_micros, status, reset } in change.ad_groups.iter().copied() {
                if reset {
                    twin.remove(&ad_group);
                }
                let said = twin.entry(ad_group).or_default();
                said.bid_micros = bid_micros.or(said.bid_micros);
                said.status = status.or(said.status);
            }
            twin.retain(|_, said| *said != GroupOverride::default());
            stands = change.after(stands);
            prop_assert_eq!(&stands.ad_groups, &twin.iter().map(|(id, said)| (*id, *said)).collect::<Vec<_>>());
            for id in 0..7 {
                prop_assert_eq!(stands.of_group(id), twin.get(&id).copied().unwrap_or_default());
            }
        }
        let all = Change { campaign: 7, erase: Erase::All, ..Change::default() };
        prop_assert!(all.after(stands).is_empty());
    }
}

/// The bid is looked for in four places, in this order.
#[test]
fn a_group_bids_by_the_first_rule_that_says_something() {
    let group = |bid_micros| vec![(3, GroupOverride { bid_micros, status: None })];
    let auto = Override {
        strategy: Some(BidStrategy::TargetCpa(1)),
        auto_bid_micros: Some(90),
        bid_micros: Some(60),
        ad_groups: group(Some(80)),
        ..Override::default()
    };
    assert_eq!(group_bid(Some(&auto), 3, 70, 50), 90, "the strategy's is for the whole campaign");
    let fixed = Override { strategy: Some(BidStrategy::Fixed), ..auto };
    assert_eq!(group_bid(Some(&fixed), 3, 70, 50), 80, "said of the group");
    assert_eq!(group_bid(Some(&fixed), 4, 70, 50), 70, "another group's in the catalogue");
    assert_eq!(
        [group_bid(Some(&fixed), 4, 0, 50), group_bid(Some(&fixed), 0, 0, 50)],
        [60, 60],
        "said of the campaign"
    );
    let silent = Override { bid_micros: None, ad_groups: group(None), ..fixed };
    assert_eq!([group_bid(Some(&silent), 3, 70, 50), group_bid(Some(&silent), 3, 0, 50)], [70, 50]);
    assert_eq!([group_bid(None, 3, 70, 50), group_bid(None, 3, 0, 50), group_bid(None, 0, 0, 50)], [70, 50, 50]);
}

#[test]
fn a_schedule_has_its_first_second_and_not_its_last() {
    let schedule = Schedule { starts_s: 10, ends_s: 20 };
    let runs = [9, 10, 19, 20].map(|at| schedule.runs_at(at));
    assert_eq!(runs, [false, true, true, false]);
    assert!(Schedule::default().runs_at(i64::MIN));
}

#[test]
fn impossible_values_are_named() {
    let check = |change: Change, word: &str| {
        let refused = Change { campaign: 7, ..change }.check().unwrap_err();
        assert!(refused.contains(word) && refused.contains("campaign 7"), "{refused}");
    };
    check(Change { bid_micros: Some(0), ..Change::default() }, "bid_micros is 0");
    check(Change { bid_micros: Some(BID_MICROS_MAX + 1), ..Change::default() }, "bid_micros");
    check(Change { multiplier_ppm: Some(PPM + 1), ..Change::default() }, "multiplier_ppm is 1000001");
    check(Change { schedule: Some(Schedule { starts_s: 9, ends_s: 9 }), ..Change::default() }, "given 9 to 9");
    check(Change { strategy: Some(BidStrategy::TargetCpa(0)), ..Change::default() }, "target_micros is 0");
    let group = |ad_group| GroupChange { ad_group, ..GroupChange::default() };
    let groups = |ad_groups| Change { ad_groups, ..Change::default() };
    check(groups(vec![group(0)]), "an ad group's id is missing");
    check(groups(vec![group(3), group(4), group(3)]), "ad group 3 is named twice");
    check(groups(vec![GroupChange { bid_micros: Some(0), ..group(3) }]), "ad group 3: bid_micros is 0");
    check(groups(vec![GroupChange { bid_micros: Some(BID_MICROS_MAX + 1), ..group(3) }]), "ad group 3: bid_micros");
    check(groups((1..=AD_GROUPS_MAX as u64 + 1).map(group).collect()), "257 ad groups, at most 256");
    assert!(Change::default().check().unwrap_err().contains("campaign_id"));
}

#[test]
fn a_catalogue_has_so_many_ad_groups() {
    let of = |groups: usize| wire::Campaign { ad_groups: vec![wire::AdGroup::default(); groups], ..Default::default() };
    assert_eq!(total_groups(CATALOGUE_AD_GROUPS_MAX - 2, &of(2)), Ok(CATALOGUE_AD_GROUPS_MAX));
    assert_eq!(total_groups(CATALOGUE_AD_GROUPS_MAX, &of(0)), Ok(CATALOGUE_AD_GROUPS_MAX));
    assert!(total_groups(CATALOGUE_AD_GROUPS_MAX - 1, &of(2)).unwrap_err().contains("more than 1048576 ad groups"));
    let group = |ad_group_id, bid_micros| wire::AdGroup { ad_group_id, bid_micros, ..Default::default() };
    assert_eq!(
        check_catalogue_groups(&[group(9, 0), group(3, BID_MICROS_MAX)]),
        Ok(()),
        "none of its own, in any order"
    );
    assert!(check_catalogue_groups(&[group(9, BID_MICROS_MAX + 1)]).unwrap_err().contains("ad group 9: bid_micros"));
}

#[test]
fn one_command_holds_so_many_changes() {
    let of = |groups: usize| Change { ad_groups: vec![GroupChange::default(); groups], ..Change::default() };
    let full = vec![of(AD_GROUP_CHANGES_MAX / DELIVERY_CHANGES_MAX); DELIVERY_CHANGES_MAX];
    assert_eq!(check_count(&full), Ok(()));
    assert!(check_count(&[full.clone(), vec![of(0)]].concat()).unwrap_err().contains("4097 changes, at most 4096"));
    let more = [&full[1..], &[of(3)]].concat();
    assert!(check_count(&more).unwrap_err().contains("changes of 8193 ad groups, at most 8192"));
}

#[test]
fn what_cannot_be_read_is_named() {
    let rule = wire::FrequencyRule { scope: FrequencyScope::Ad.number(), window_hours: 25, max: 1 };
    let frequency = Some(wire::FrequencyRules { rules: vec![rule] });
    let check = |change: wire::DeliveryChange, word: &str| {
        let refused = Change::of_wire(&change).unwrap_err();
        assert!(refused.contains(word), "{refused}");
    };
    check(wire::DeliveryChange { frequency, ..Default::default() }, "frequency: a window of 25 hours");
    check(wire::DeliveryChange { status: 9, ..Default::default() }, "status has a value");
    check(wire::DeliveryChange { strategy: Some(Default::default()), ..Default::default() }, "strategy.kind");
    let group = wire::AdGroupChange { ad_group_id: 3, status: 9, ..Default::default() };
    check(wire::DeliveryChange { ad_groups: vec![group], ..Default::default() }, "ad group 3: status has a value");

    let said = |ids: &[u64], status: i32| {
        let group = |id: &u64| wire::AdGroupOverride { ad_group_id: *id, bid_micros: Some(1), status };
        Override::of_wire(&wire::CampaignOverride {
            campaign_id: 7,
            ad_groups: ids.iter().map(group).collect(),
            ..Default::default()
        })
    };
    assert_eq!(said(&[3, 4], 2).unwrap().1.ad_groups.len(), 2);
    let too_many: Vec<u64> = (1..=AD_GROUPS_MAX as u64 + 1).collect();
    for (ids, word) in [
        (&[4, 3][..], "not ascending"),
        (&[3, 3], "ad group 3 is named twice"),
        (&[0, 3], "id is missing, or 0"),
        (&too_many, "257 ad groups, at most 256"),
    ] {
        let refused = said(ids, 2).unwrap_err();
        assert!(refused.contains(word), "{refused}");
    }
    assert!(said(&[3], 9).unwrap_err().contains("status has a value"));
}
