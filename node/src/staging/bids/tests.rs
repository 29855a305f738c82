//! Is a version that follows another the one made anew, and do versions stand beside each other?

use gavel_proto::delivery::{Book, News, Override, Read, Status};
use gavel_proto::money::BidType;
use proptest::prelude::*;

use super::*;
use crate::pipeline::fixture::{GENERATION, SHARD, STAGED, campaigns};
use crate::ranking::delivery::VERSIONS_KEPT;

fn said() -> impl Strategy<Value = Override> {
    let status = prop_oneof![Just(None), Just(Some(Status::Active)), Just(Some(Status::Paused))];
    let schedule = prop_oneof![Just((0, 0)), Just((100, 200)), Just((150, 0)), Just((0, 180))];
    let throttle = prop::option::of(0u32..1_500_000);
    (prop::option::of(1u64..5_000_000), status, schedule, any::<bool>(), throttle).prop_map(
        |(bid_micros, status, (starts_s, ends_s), out_of_budget, throttle_ppm)| Override {
            bid_micros,
            status,
            schedule: Schedule { starts_s, ends_s },
            out_of_budget,
            throttle_ppm,
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
        rounds in prop::collection::vec(prop::collection::vec((0u64..64, said()), 0..5), 1..12)
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
            let silent = held.silent_at(content, 120);
            for auction in 0..8 {
                let within = held.silent_in(&silent, content, auction);
                for ad in 0..content.ads() {
                    let row = twin.resolved.row(content.campaign_place(ad));
                    let out = row.bids() && !participates(auction, row.campaign, row.throttle_ppm);
                    prop_assert_eq!(within.contains(ad), silent.contains(ad) || out);
                }
            }
            for unix_s in [99, 100, 149, 150, 179, 180, 199, 200, 120] {
                let silent = held.silent_at(content, unix_s);
                for ad in 0..content.ads() {
                    let row = twin.resolved.row(content.campaign_place(ad));
                    let speaks = row.bids() && row.schedule.runs_at(unix_s);
                    prop_assert_eq!(silent.contains(ad), !speaks);
                    prop_assert_eq!(held.resolved.row(content.campaign_place(ad)), row);
                }
            }
        }
    }
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
        assert_eq!(delivery.row(delivery.row_of(by_click)).bid.0, 1_000 + held.version() - 2);
    }
    // Another control plane begins anew.
    holdings.take_book(Arc::new(Book::new(2, 3, Vec::new())));
    assert_eq!(holdings.versions(GENERATION), [3]);
}
