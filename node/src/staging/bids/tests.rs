//! Is a version that follows another the one made anew, and do versions stand beside each other?

use gavel_proto::delivery::{Book, GroupOverride, News, Override, Read, Status};
use gavel_proto::money::BidType;
use proptest::prelude::*;

use super::*;
use crate::pipeline::fixture::{GENERATION, SHARD, STAGED, campaigns, has_groups};
use crate::ranking::delivery::VERSIONS_KEPT;

fn status() -> impl Strategy<Value = Option<Status>> {
    prop_oneof![Just(None), Just(Some(Status::Active)), Just(Some(Status::Paused))]
}

/// Of the ad groups that campaigns have, and of one that ads alone name.
fn ad_groups() -> impl Strategy<Value = Vec<(u64, GroupOverride)>> {
    let group = (prop::option::of(1u64..5_000_000), status());
    prop::collection::btree_map(1u64..5, group, 0..4).prop_map(|groups| {
        let groups = groups.into_iter().map(|(id, (bid_micros, status))| (id, GroupOverride { bid_micros, status }));
        groups.filter(|(_, said)| !said.is_empty()).collect()
    })
}

/// Half of them have ad groups.
fn campaign() -> impl Strategy<Value = u64> {
    let grouped: Vec<u64> = (0..60).filter(|campaign| has_groups(*campaign)).collect();
    prop_oneof![0u64..64, prop::sample::select(grouped)]
}

fn said() -> impl Strategy<Value = Override> {
    let schedule = prop_oneof![Just((0, 0)), Just((100, 200)), Just((150, 0)), Just((0, 180))];
    let throttle = prop::option::of(0u32..1_500_000);
    (prop::option::of(1u64..5_000_000), status(), schedule, any::<bool>(), throttle, ad_groups()).prop_map(
        |(bid_micros, status, (starts_s, ends_s), out_of_budget, throttle_ppm, ad_groups)| Override {
            bid_micros,
            status,
            schedule: Schedule { starts_s, ends_s },
            out_of_budget,
            throttle_ppm,
            ad_groups,
            ..Override::default()
        },
    )
}

fn next(book: &Book, rows: Vec<(u64, Override)>) -> Book {
    let news = News { formation: 1, version: book.version + 1, since: book.version, rows };
    match book.read(news) {
        Read::Book(book) => book,
        refused @ (Read::Old | Read::Gap) => panic!("{refused:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// The twin resolves every version anew, and asks every ad at every time.
    #[test]
    fn a_following_version_equals_one_made_anew(
        rounds in prop::collection::vec(prop::collection::vec((campaign(), said()), 0..5), 1..12)
    ) {
        let holdings = STAGED.holdings.current();
        let content = &holdings.contents[&(GENERATION, SHARD)].content;
        let catalogue = Delivery::new(0, campaigns());
        let mut book = Book::new(1, 1, Vec::new());
        let mut delivery = Arc::new(Delivery::overlaid(&catalogue, None, &book).0);
        let mut held = ShardDelivery::new(content, &delivery);
        for rows in rounds {
            book = next(&book, rows);
            let (now, changed) = Delivery::overlaid(&catalogue, Some(&delivery), &book);
            delivery = Arc::new(now);
            held = held.following(content, &delivery, &changed.unwrap());
            let twin = ShardDelivery::new(content, &delivery);
            prop_assert_eq!(&held.silent, &twin.silent);
            prop_assert_eq!(&held.impression_ads, &twin.impression_ads);
            prop_assert_eq!(&held.impression_bids, &twin.impression_bids);
            prop_assert_eq!(&held.timed, &twin.timed);
            prop_assert_eq!(&held.throttled, &twin.throttled);
            let row_of = |ad: u32| {
                let (campaign, ad_group) = content.line(content.line_place(ad));
                delivery.row(delivery.row_of(campaign, ad_group))
            };
            for ad in 0..content.ads() {
                let (row, line) = (row_of(ad), content.line_place(ad));
                prop_assert_eq!(held.resolved.row(line), row);
                let listed = held.impression_bids.iter().find(|(listed, _)| *listed == line).map(|(_, bid)| *bid);
                let pays = row.bids() && row.bid_type == BidType::Cpm;
                prop_assert_eq!((listed, held.impression_ads.contains(ad)), (pays.then(|| row.paced().0), pays));
            }
            prop_assert!(held.impression_bids.is_sorted_by(|a, b| a.1 >= b.1));
            let silent = held.silent_at(content, 120);
            for auction in 0..8 {
                let within = held.silent_in(&silent, content, auction);
                for ad in 0..content.ads() {
                    let row = row_of(ad);
                    let out = row.bids() && !participates(auction, row.campaign, row.throttle_ppm);
                    prop_assert_eq!(within.contains(ad), silent.contains(ad) || out);
                }
            }
            for unix_s in [99, 100, 149, 150, 179, 180, 199, 200, 120] {
                let silent = held.silent_at(content, unix_s);
                for ad in 0..content.ads() {
                    let row = row_of(ad);
                    let speaks = row.bids() && row.schedule.runs_at(unix_s);
                    prop_assert_eq!(silent.contains(ad), !speaks);
                }
            }
        }
    }
}

/// The ads of a campaign by their ad groups: a bid of its own, the campaign's, paused, and one that the campaign does not
/// have, of which nothing can be said either.
#[test]
fn groups_of_a_campaign_bid_apart() {
    let holdings = STAGED.holdings.current();
    let content = &holdings.contents[&(GENERATION, SHARD)].content;
    let catalogue = Delivery::new(0, campaigns());
    let id = campaigns().find(|row| row.bid_type == BidType::Cpm && has_groups(row.campaign)).unwrap().campaign;
    let check = |rows: Vec<(u64, Override)>, expected: [Option<u64>; 5]| {
        let book = next(&Book::new(1, 1, Vec::new()), rows);
        let bids = ShardDelivery::new(content, &Arc::new(Delivery::overlaid(&catalogue, None, &book).0));
        for (ad_group, expected) in (0..).zip(expected) {
            let line = content.find_line((id, ad_group)).expect("every group has ads here");
            let ads = content.ads_of_line(line);
            assert!(!ads.is_empty());
            assert!(ads.iter().all(|ad| bids.silent.contains(*ad) == expected.is_none()), "ad group {ad_group}");
            assert!(ads.iter().all(|ad| bids.impression_ads.contains(*ad) == expected.is_some()));
            let listed = bids.impression_bids.iter().find(|(listed, _)| *listed == line).map(|(_, bid)| *bid);
            assert_eq!(listed, expected, "ad group {ad_group}");
        }
    };
    let paced = |bid: u64| Some(bid / 10 * 9);
    let whole = paced(2_000_000 + id * 10_000);
    check(Vec::new(), [whole, paced(1_000_000), whole, None, None]);
    let group = |bid_micros, status| GroupOverride { bid_micros, status };
    let said = vec![(2, group(None, Some(Status::Paused))), (3, group(Some(50), Some(Status::Active)))];
    let ad_groups = said.into_iter().chain([(4, group(Some(7_000_000), Some(Status::Active)))]).collect();
    let change = Override { bid_micros: Some(3_000_000), ad_groups, ..Override::default() };
    check(vec![(id, change.clone())], [paced(3_000_000), paced(1_000_000), None, paced(50), None]);
    let stopped = Override { status: Some(Status::Paused), ..change };
    check(vec![(id, stopped)], [None; 5]);
}

/// Searches name a version; the last ones are there, each as it was, and what is older is said to be gone.
#[test]
fn versions_stand_beside_each_other() {
    let mut holdings = crate::staging::holdings::Holdings::clone(&STAGED.holdings.current());
    holdings.deliveries.clear();
    holdings.add_campaigns(GENERATION, Arc::new(Delivery::new(0, campaigns())));
    assert!(holdings.versions(GENERATION).is_empty(), "nothing is searched before it is known what is paused");
    let mut book = Book::new(1, 1, Vec::new());
    let by_click = campaigns().find(|row| row.bid_type == BidType::Cpc && row.bids()).unwrap().campaign;
    holdings.take_book(Arc::new(book.clone()));
    for round in 0..20 {
        let said = Override { bid_micros: Some(1_000 + round), ..Override::default() };
        book = next(&book, vec![(by_click, said)]);
        holdings.take_book(Arc::new(book.clone()));
    }
    let versions = holdings.versions(GENERATION);
    assert_eq!(versions, (22 - VERSIONS_KEPT as u64..22).collect::<Vec<u64>>());
    let contents = &holdings.contents[&(GENERATION, SHARD)];
    for held in &contents.deliveries {
        let delivery = held.resolved.delivery();
        assert_eq!(delivery.row(delivery.row_of(by_click, 0)).bid.0, 1_000 + held.version() - 2);
    }
    // Another control plane begins anew.
    holdings.take_book(Arc::new(Book::new(2, 3, Vec::new())));
    assert_eq!(holdings.versions(GENERATION), [3]);
}
