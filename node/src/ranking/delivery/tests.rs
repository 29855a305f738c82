//! Does a version say what its catalogue and what was said of its campaigns come to?

use std::collections::BTreeMap;

use gavel_proto::delivery::{BidStrategy, GroupOverride, News, Read};
use proptest::collection::btree_map;
use proptest::prelude::*;

use super::*;

fn row(campaign: u64, bid: u64) -> DeliveryRow {
    DeliveryRow {
        campaign,
        bid_type: BidType::Cpc,
        bid: Micros(bid),
        multiplier_ppm: 500_000,
        status: CampaignStatus::Active,
        ..DeliveryRow::UNKNOWN
    }
}

/// What a catalogue says of an ad group.
fn group((campaign, ad_group): (u64, u64), bid: u64, status: CampaignStatus) -> DeliveryRow {
    DeliveryRow { ad_group, bid_type: BidType::Cpm, status, ..row(campaign, bid) }
}

fn news(since: u64, version: u64, rows: Vec<(u64, Override)>) -> News {
    News { formation: 1, version, since, rows }
}

fn status() -> impl Strategy<Value = CampaignStatus> {
    prop::sample::select(vec![CampaignStatus::Active, CampaignStatus::Paused])
}

fn said_status() -> impl Strategy<Value = Option<Status>> {
    prop::sample::select(vec![None, Some(Status::Paused), Some(Status::Active)])
}

prop_compose! {
    /// Of ad groups 1 to 5; a catalogue has the first four at most.
    fn said()(bid in 0u64..5, status in said_status(), auto_bid_micros in prop::option::of(1u64..5), is_automatic: bool,
              out_of_budget in prop::bool::weighted(0.1),
              groups in btree_map(1u64..6, (prop::option::of(1u64..5), said_status()), 0..4)) -> Override {
        let groups = groups.into_iter().map(|(id, (bid_micros, status))| (id, GroupOverride { bid_micros, status }));
        Override {
            bid_micros: Some(bid).filter(|b| *b > 0),
            status,
            strategy: is_automatic.then_some(BidStrategy::MostConversions),
            auto_bid_micros,
            out_of_budget,
            ad_groups: groups.filter(|(_, said)| !said.is_empty()).collect(),
            ..Override::default()
        }
    }
}

prop_compose! {
    /// Campaigns of up to four ad groups each.
    fn catalogue_rows()(campaigns in btree_map(0u64..30, btree_map(1u64..5, (0u64..3, status()), 0..4), 0..25))
        -> Vec<DeliveryRow> {
        let of_campaign = |(id, groups): (u64, BTreeMap<u64, (u64, CampaignStatus)>)| {
            let groups = groups.into_iter().map(move |(ad_group, (bid, status))| group((id, ad_group), bid, status));
            std::iter::once(row(id, id + 1)).chain(groups)
        };
        campaigns.into_iter().flat_map(of_campaign).collect()
    }
}

/// What an ad of a group should bid, and whether it should: rule by rule.
fn expected(campaign: &DeliveryRow, own: &DeliveryRow, said: Option<&Override>) -> (Micros, bool) {
    let of_group = said.map_or_else(GroupOverride::default, |said| said.of_group(own.ad_group));
    let rules = [
        said.filter(|said| said.strategy.is_some()).and_then(|said| said.auto_bid_micros),
        of_group.bid_micros,
        Some(own.bid.0).filter(|bid| *bid > 0),
        said.and_then(|said| said.bid_micros),
    ];
    let runs = |said: Option<Status>, row: &DeliveryRow| {
        said.map_or(row.status == CampaignStatus::Active, |said| said == Status::Active)
    };
    let is_gone = said.is_some_and(|said| said.out_of_budget);
    let is_active = runs(said.and_then(|said| said.status), campaign) && runs(of_group.status, own) && !is_gone;
    (Micros(rules.into_iter().flatten().next().unwrap_or(campaign.bid.0)), is_active)
}

proptest! {
    /// The twin lays everything over the catalogue anew.
    #[test]
    fn a_version_after_another_equals_one_from_the_catalogue(
        given in catalogue_rows(),
        rounds in prop::collection::vec(prop::collection::vec((0u64..30, said()), 0..6), 1..40),
        told in 1usize..4,
    ) {
        let catalogue = Delivery::new(0, given);
        let mut book = Book::new(1, 1, Vec::new());
        let mut held = Delivery::overlaid(&catalogue, None, &book).0;
        for (at, rows) in rounds.into_iter().enumerate() {
            match book.read(news(book.version, book.version + 1, rows)) {
                Read::Book(next) => book = next,
                refused @ (Read::Old | Read::Gap) => prop_assert!(false, "{refused:?}"),
            }
            if at % told == 0 {
                let (next, changed) = Delivery::overlaid(&catalogue, Some(&held), &book);
                let twin = Delivery::overlaid(&catalogue, None, &book).0;
                prop_assert_eq!(&next, &twin);
                let changed = changed.expect("the book remembers");
                for (before, after) in held.rows.iter().zip(&next.rows) {
                    prop_assert!(before == after || changed.contains(&after.campaign));
                }
                held = next;
            }
        }
    }

    /// The twin goes through the rules one by one.
    #[test]
    fn a_group_bids_by_its_rules_and_while_its_campaign_does(
        given in catalogue_rows(),
        said in btree_map(0u64..30, said(), 0..30),
    ) {
        let book = Book::new(1, 1, said.into_iter().collect());
        let stands = Delivery::overlaid(&Delivery::new(0, given.clone()), None, &book).0;
        prop_assert_eq!(stands.len(), given.iter().filter(|row| row.ad_group == 0).count());
        for own in given.iter().filter(|own| own.ad_group != 0) {
            let campaign = given.iter().find(|row| row.line() == (own.campaign, 0)).expect("of a campaign");
            let (bid, is_active) = expected(campaign, own, book.get(own.campaign));
            let row = stands.row(stands.row_of(own.campaign, own.ad_group));
            let of_campaign = stands.row(stands.row_of(own.campaign, 0));
            prop_assert_eq!((row.bid, row.status == CampaignStatus::Active), (bid, is_active));
            let other = DeliveryRow { ad_group: own.ad_group, bid: row.bid, status: row.status, ..*of_campaign };
            prop_assert_eq!(*row, other, "the rest is the campaign's");
            prop_assert_eq!(stands.row_of(own.campaign, 5), 0, "said of a group that the catalogue does not have");
        }
    }

    /// The twin is a search from the back of the list as it came.
    #[test]
    fn finds_what_a_scan_finds(
        ids in prop::collection::vec((0u64..20, 0u64..3), 0..60),
        asked in prop::collection::vec((0u64..25, 0u64..4), 0..40),
    ) {
        let of = |(line, bid): ((u64, u64), u64)| match line {
            (campaign, 0) => row(campaign, bid),
            line => group(line, bid, CampaignStatus::Active),
        };
        let rows: Vec<DeliveryRow> = ids.into_iter().zip(0..).map(of).collect();
        let delivery = Arc::new(Delivery::new(3, rows.clone()));
        let resolved = ResolvedDelivery::new(delivery, asked.clone());
        let scan = |line: (u64, u64)| rows.iter().rev().find(|row| row.line() == line);
        for (ordinal, (campaign, ad_group)) in asked.iter().copied().enumerate() {
            let found = scan((campaign, 0)).zip(scan((campaign, ad_group)));
            let twin = found.map_or(DeliveryRow::UNKNOWN, |(of, own)| {
                let bid = if own.bid == Micros(0) { of.bid } else { own.bid };
                DeliveryRow { ad_group, bid, ..*of }
            });
            prop_assert_eq!(*resolved.row(ordinal as u32), twin);
        }
        prop_assert_eq!(resolved.row(1_000), &DeliveryRow::UNKNOWN);
    }
}

#[test]
fn a_bid_that_pacing_rounds_to_nothing_does_not_bid() {
    assert!(!row(1, 1).bids());
    assert!(row(1, 2).bids());
    assert!(!DeliveryRow { status: CampaignStatus::Paused, ..row(1, 9) }.bids());
}

#[test]
fn what_is_said_stands_over_the_catalogue() {
    let check = |said: Override| row(1, 100).overlaid(Some(&said));
    assert_eq!(check(Override::default()), row(1, 100));
    assert_eq!(check(Override { bid_micros: Some(7), ..Override::default() }).bid, Micros(7));
    let auto = Override { bid_micros: Some(7), auto_bid_micros: Some(9), ..Override::default() };
    assert_eq!(check(auto.clone()).bid, Micros(7), "nobody wants the pacer to bid");
    assert_eq!(check(Override { strategy: Some(BidStrategy::MostConversions), ..auto }).bid, Micros(9));
    let gone = Override { out_of_budget: true, ..Override::default() };
    assert_eq!(check(gone.clone()).status, CampaignStatus::OutOfBudget);
    assert!(!check(gone.clone()).bids());
    assert_eq!(check(Override { status: Some(Status::Paused), ..gone }).status, CampaignStatus::Paused);
}

#[test]
fn a_group_is_paused_or_bids_by_itself() {
    let paused = CampaignStatus::Paused;
    let catalogue =
        Delivery::new(0, [row(1, 100), group((1, 2), 0, CampaignStatus::Active), group((1, 3), 70, paused)]);
    assert_eq!(catalogue.row(catalogue.row_of(1, 2)), &DeliveryRow { ad_group: 2, ..row(1, 100) });
    assert_eq!(catalogue.row(catalogue.row_of(1, 3)), &DeliveryRow { ad_group: 3, status: paused, ..row(1, 70) });
    let check = |said: Override, expected: [(u64, CampaignStatus); 3]| {
        let stands = Delivery::overlaid(&catalogue, None, &Book::new(1, 1, vec![(1, said)])).0;
        let rows = [0, 2, 3].map(|ad_group| *stands.row(stands.row_of(1, ad_group)));
        assert_eq!(rows.map(|row| (row.bid.0, row.status)), expected);
    };
    let active = CampaignStatus::Active;
    let of = |ad_group, bid_micros, status| vec![(ad_group, GroupOverride { bid_micros, status })];
    let said = |ad_groups| Override { ad_groups, bid_micros: Some(50), ..Override::default() };
    check(said(of(2, None, Some(Status::Paused))), [(50, active), (50, paused), (70, paused)]);
    check(said(of(3, Some(90), Some(Status::Active))), [(50, active), (50, active), (90, active)]);
    let gone = Override { out_of_budget: true, ..said(of(3, None, Some(Status::Active))) };
    let out = CampaignStatus::OutOfBudget;
    check(gone.clone(), [(50, out), (50, out), (70, out)]);
    check(Override { ad_groups: Vec::new(), ..gone }, [(50, out), (50, out), (70, paused)]);
    let stopped = Override { status: Some(Status::Paused), ..said(of(2, None, Some(Status::Active))) };
    check(stopped, [(50, paused), (50, paused), (70, paused)]);
}
