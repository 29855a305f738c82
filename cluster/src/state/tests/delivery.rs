//! Do overrides stand, and is a member told of no more than it missed?

use gavel_proto::delivery::{Change, Erase, GroupChange, Override, Status};
use gavel_proto::limits::{
    AD_GROUP_CHANGES_MAX, AD_GROUP_OVERRIDES_MAX, AD_GROUPS_MAX, DELIVERY_CHANGES_MAX, DELIVERY_DELTAS_MAX,
};

use super::super::command::PublishDelivery;
use super::super::{Delivery, Since};
use super::*;

pub(super) fn publish_delivery(changes: Vec<Change>) -> Body {
    Body::PublishDelivery(PublishDelivery { changes, ..PublishDelivery::default() })
}

pub(super) fn pause(campaign: u64, status: Status) -> Change {
    Change { campaign, status: Some(status), ..Change::default() }
}

pub(super) fn pause_group(ad_group: u64, status: Status) -> GroupChange {
    GroupChange { ad_group, status: Some(status), ..GroupChange::default() }
}

/// Pauses of ad groups of one campaign.
fn groups(campaign: u64, ids: std::ops::Range<u64>) -> Change {
    let ad_groups = ids.map(|id| pause_group(id, Status::Paused)).collect();
    Change { campaign, ad_groups, ..Change::default() }
}

fn paced(campaign: u64, multiplier: u32) -> Change {
    Change { campaign, multiplier_ppm: Some(multiplier), ..Change::default() }
}

/// A log with an active generation.
fn serving() -> Log {
    let mut log = Log::new();
    log.state.active_generation = Some(1);
    log.state.delivery = Delivery { version: 1, since: 1, ..Delivery::default() };
    log
}

#[test]
fn every_difference_is_a_version_and_a_repetition_is_none() {
    let mut log = serving();
    assert_eq!(log.done(&publish_delivery(vec![pause(7, Status::Paused)])), 2);
    assert_eq!(log.done(&publish_delivery(vec![pause(7, Status::Paused)])), 2);
    assert_eq!(log.done(&publish_delivery(vec![paced(7, 400_000), paced(9, 1)])), 3);
    assert_eq!(log.state.delivery.overrides[&7].status, Some(Status::Paused), "the pacer undid nothing");
    assert_eq!(log.state.delivery.since(1), Since::Campaigns(vec![7, 9]));
    assert_eq!(log.state.delivery.since(2), Since::Campaigns(vec![7, 9]));
    assert_eq!(log.state.delivery.since(3), Since::Nothing);
    for version in [0, 4] {
        assert_eq!(log.state.delivery.since(version), Since::Unknown);
    }
    let erased = Change { campaign: 9, erase: Erase::All, ..Change::default() };
    assert_eq!(log.done(&publish_delivery(vec![erased.clone()])), 4);
    assert!(!log.state.delivery.overrides.contains_key(&9));
    assert_eq!(log.done(&publish_delivery(vec![erased])), 4);
}

#[test]
fn a_retry_under_the_same_id_changes_nothing() {
    let mut log = serving();
    let wish = publish_delivery(vec![pause(7, Status::Paused)]);
    assert_eq!(log.say("a", &wish), Outcome::Done(2));
    assert_eq!(log.say("b", &publish_delivery(vec![pause(7, Status::Active)])), Outcome::Done(3));
    assert_eq!(log.say("a", &wish), Outcome::Done(2), "answered as before");
    assert_eq!(log.state.delivery.overrides[&7].status, Some(Status::Active));
    let other = log.say("a", &publish_delivery(vec![pause(8, Status::Paused)]));
    assert_eq!(other, Outcome::refused("exists_different"));
}

#[test]
fn impossible_wishes_are_refused_whole() {
    let mut log = Log::new();
    assert!(log.refused(&publish_delivery(vec![paced(1, 1)])).contains("no catalogue"));
    let mut log = serving();
    let wrong = vec![paced(1, 1), Change { campaign: 2, bid_micros: Some(0), ..Change::default() }];
    assert!(log.refused(&publish_delivery(wrong)).contains("campaign 2: bid_micros is 0"));
    assert_eq!(log.state.delivery.overrides.len(), 0);
    let many = (1..=DELIVERY_CHANGES_MAX as u64 + 1).map(|id| paced(id, 1)).collect();
    assert!(log.refused(&publish_delivery(many)).contains("send them in parts"));
    let elsewhere = PublishDelivery { changes: vec![paced(1, 1)], generation: 2, ..PublishDelivery::default() };
    assert!(log.refused(&Body::PublishDelivery(elsewhere)).contains("generation 2 does not serve"));
}

#[test]
fn what_is_said_of_groups_is_a_version_of_their_campaign_and_comes_out_of_a_snapshot() {
    let mut log = serving();
    assert_eq!(log.done(&publish_delivery(vec![groups(7, 3..5)])), 2);
    assert_eq!(log.done(&publish_delivery(vec![groups(7, 3..4)])), 2, "that stands already");
    assert_eq!(log.state.delivery.since(1), Since::Campaigns(vec![7]));
    log.state.active_generation = None;
    let (again, _) = decode(&encode(&log.state, &Position::default()), CLUSTER).expect("a state");
    assert_eq!(again.delivery, log.state.delivery);
    log.state.active_generation = Some(1);
    let reset = GroupChange { ad_group: 3, reset: true, ..GroupChange::default() };
    log.done(&publish_delivery(vec![Change { ad_groups: vec![reset], ..pause(7, Status::Active) }]));
    assert_eq!(log.state.delivery.overrides[&7].ad_groups.len(), 1);
    let back = Change { campaign: 7, erase: Erase::Operators, ..Change::default() };
    log.done(&publish_delivery(vec![back]));
    assert!(log.state.delivery.overrides.is_empty());
}

#[test]
fn there_are_as_many_groups_as_a_member_takes_and_no_more() {
    let max = AD_GROUPS_MAX as u64;
    let mut log = serving();
    let per_command = AD_GROUP_CHANGES_MAX / AD_GROUPS_MAX;
    let full = |campaigns: std::ops::Range<u64>| campaigns.map(|id| groups(id, 1..max + 1)).collect::<Vec<_>>();
    let many = full(1..per_command as u64 + 2);
    assert!(log.refused(&publish_delivery(many)).contains("changes of 8448 ad groups, at most 8192"));
    // Changes of groups that are gone from the catalogue and not taken back yet would come on top.
    log.done(&publish_delivery(full(1..2)));
    assert!(log.refused(&publish_delivery(vec![groups(1, max + 1..max + 2)])).contains("of 256 of its ad groups"));
    for part in 0..(AD_GROUP_OVERRIDES_MAX / AD_GROUP_CHANGES_MAX) as u64 {
        let first = 1 + part * per_command as u64;
        log.done(&publish_delivery(full(first..first + per_command as u64)));
    }
    assert_eq!(log.state.delivery.groups(), AD_GROUP_OVERRIDES_MAX);
    let one_more = publish_delivery(vec![groups(1_000_000, 1..2)]);
    assert!(log.refused(&one_more).contains("of 524288 ad groups already"));
    let reset = Change { campaign: 1, erase: Erase::Operators, ..Change::default() };
    log.done(&publish_delivery(vec![reset, groups(1_000_000, 1..2)]));
}

/// What a member that was told in parts holds equals what is there.
#[test]
fn parts_add_up_to_the_whole() {
    let mut log = serving();
    let mut told: (u64, std::collections::BTreeMap<u64, Override>) = (1, Default::default());
    for round in 0..3 * DELIVERY_DELTAS_MAX as u64 {
        let change = paced(1 + round % 11, (round % 5) as u32);
        log.done(&publish_delivery(vec![change]));
        if round % 7 == 0 {
            let delivery = &log.state.delivery;
            let Since::Campaigns(campaigns) = delivery.since(told.0) else { panic!("seven are kept") };
            for id in campaigns {
                told.1.insert(id, delivery.overrides.get(&id).cloned().unwrap_or_default());
            }
            told.0 = delivery.version;
            assert_eq!(told.1, delivery.overrides);
        }
    }
    assert_eq!(log.state.delivery.since(2), Since::Unknown, "long gone");
    assert_eq!(log.state.delivery.deltas.len(), DELIVERY_DELTAS_MAX);
    let again = decode(&encode(&log.state, &Position::default()), CLUSTER);
    // The test's generation is not in the state.
    assert!(again.is_err());
}
