//! How long does a delivery version take until searches may name it?
//!
//! `cargo run --release -p gavel-node --example delivery_figures -- [CAMPAIGNS] [ADS]` has a shard of ADS synthetic ads
//! (by default 200,000) of CAMPAIGNS (100,000), changes a few or all of them, and times each step: the book, the table of
//! campaigns, what the shard resolves of it, beside the same made anew. Times are CPU time, medians of several rounds.

use gavel_node::pipeline::thread::cpu_us;
use gavel_node::ranking::delivery::{CampaignStatus, Delivery, DeliveryRow};
use gavel_node::segment::{Content, ContentBuilder, DocAd, DocItem, SegmentError, ShardKey};
use gavel_node::staging::holdings::ShardDelivery;
use gavel_proto::delivery::{Book, News, Override, Read, Status};
use gavel_proto::hash::mix64;
use gavel_proto::ids::{AdId, AdvertiserId, CampaignId, ItemId};
use gavel_proto::money::{BidType, Micros};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

const KEY: ShardKey = ShardKey { generation: 1, shard: 0 };
const ROUNDS: usize = 9;

fn content(folder: &Path, campaigns: u64, ads: u64) -> Result<Content, SegmentError> {
    let mut builder = ContentBuilder::new(folder, KEY)?;
    for n in 1..=ads {
        let (item, campaign) = (ItemId(n), CampaignId(1 + mix64(n) % campaigns));
        let advertiser = AdvertiserId(campaign.0 / 10);
        builder.push_item(DocItem { item, advertiser, ..DocItem::default() })?;
        builder.push_ad(&DocAd { ad: AdId(n), item, campaign, ..DocAd::default() })?;
    }
    builder.seal()?;
    Content::open(folder, KEY)
}

fn rows(campaigns: u64) -> impl Iterator<Item = DeliveryRow> {
    (1..=campaigns).map(|campaign| DeliveryRow {
        campaign,
        bid_type: if campaign % 7 == 0 { BidType::Cpm } else { BidType::Cpc },
        bid: Micros(100_000 + mix64(campaign) % 1_000_000),
        multiplier_ppm: 1_000_000,
        status: CampaignStatus::Active,
        ..DeliveryRow::UNKNOWN
    })
}

fn timed<T>(us: &mut Vec<u64>, work: impl FnOnce() -> T) -> T {
    let began = cpu_us();
    let done = work();
    us.push(cpu_us() - began);
    done
}

fn median(mut us: Vec<u64>) -> f64 {
    us.sort_unstable();
    us.get(us.len() / 2).map_or(0.0, |us| *us as f64 / 1e3)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse());
    let (campaigns, ads) = (number(100_000)?, number(200_000)?);
    let folder = tempfile::tempdir()?;
    let content = content(folder.path(), campaigns, ads)?;
    let catalogue = Delivery::new(0, rows(campaigns));
    println!("{campaigns} campaigns, {ads} ads; CPU ms: book, campaigns, shard, and both made anew");
    for changed in [1, 100, 4_096, campaigns] {
        let (mut book_us, mut table_us, mut shard_us, mut anew_us) = (vec![], vec![], vec![], vec![]);
        // Something is said of every campaign already, as the pacer does.
        let said = (1..=campaigns).map(|id| (id, Override { multiplier_ppm: Some(900_000), ..Override::default() }));
        let mut book = Book::new(1, 1, said.collect());
        let mut delivery = Arc::new(Delivery::overlaid(&catalogue, None, &book).0);
        let mut shard = ShardDelivery::new(&content, &delivery);
        for round in 0..ROUNDS as u64 {
            let status = if round % 2 == 0 { Status::Paused } else { Status::Active };
            let row = Override { status: Some(status), multiplier_ppm: Some(900_000), ..Override::default() };
            let rows = (0..changed).map(|n| (1 + (mix64(n) + round) % campaigns, row.clone())).collect();
            let news = News { formation: 1, version: book.version + 1, since: book.version, rows };
            match timed(&mut book_us, || book.read(news)) {
                Read::Book(next) => book = next,
                refused @ (Read::Old | Read::Gap) => return Err(format!("{refused:?}").into()),
            }
            let (next, changed) = timed(&mut table_us, || Delivery::overlaid(&catalogue, Some(&delivery), &book));
            delivery = Arc::new(next);
            let changed = changed.ok_or("the book has forgotten")?;
            shard = timed(&mut shard_us, || shard.following(&content, &delivery, &changed));
            let anew = timed(&mut anew_us, || {
                let delivery = Arc::new(Delivery::overlaid(&catalogue, None, &book).0);
                ShardDelivery::new(&content, &delivery)
            });
            assert_eq!(anew.impression_bids, shard.impression_bids, "the twin");
        }
        println!(
            "{changed:>8} changed: {:>8.2} {:>8.2} {:>8.2} {:>8.2}",
            median(book_us),
            median(table_us),
            median(shard_us),
            median(anew_us)
        );
    }
    Ok(())
}
