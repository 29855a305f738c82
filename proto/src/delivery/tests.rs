//! Do operators and the pacer leave each other alone, and does what is said survive its message?

use proptest::option::of;
use proptest::prelude::*;

use super::*;
use crate::frequency::{FrequencyScope, FrequencyWindow};
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

fn said_by_operators() -> impl Strategy<Value = Change> {
    let status = prop_oneof![Just(Status::Active), Just(Status::Paused)];
    let strategy = prop_oneof![
        Just(BidStrategy::Fixed),
        (1u64..99).prop_map(BidStrategy::TargetCpa),
        Just(BidStrategy::MostConversions)
    ];
    let schedule = (0i64..9, 10i64..20).prop_map(|(starts_s, ends_s)| Schedule { starts_s, ends_s });
    (
        of(1u64..99),
        of(status),
        of(schedule),
        of(strategy),
        of(rules()),
        prop_oneof![Just(Erase::Nothing), Just(Erase::Operators)],
    )
        .prop_map(|(bid_micros, status, schedule, strategy, frequency, erase)| Change {
            campaign: 7,
            erase,
            bid_micros,
            status,
            schedule,
            strategy,
            frequency,
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
    assert!(Change::default().check().unwrap_err().contains("campaign_id"));
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
}
