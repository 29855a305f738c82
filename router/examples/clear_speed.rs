//! How long does one clearing take?
//!
//! `cargo run --release -p gavel-router --example clear_speed` prints medians over 200 markets of 500
//! candidates and 4 slots, merged from 4 shards.

use gavel_member::clock::now_us;
use gavel_proto::epoch::Epoch;
use gavel_proto::hash::mix64;
use gavel_proto::ids::{AdId, AdvertiserId, CampaignId, ItemId, ShardId};
use gavel_proto::money::{BidType, Micros};
use gavel_router::auction::{AuctionRule, AuctionTerms, Mechanism, TiePrice, clear};
use gavel_router::merge::{Candidate, MergeError, Offer, Ranking, ShardList, merge};

const MARKETS: u64 = 200;
const CANDIDATES: u64 = 500;
const SHARDS: u64 = 4;
const SLOTS: usize = 4;

fn offer(market: u64, ad: u64) -> Offer {
    let random = mix64(market * CANDIDATES + ad);
    Offer {
        ad: AdId(ad),
        item: ItemId(ad),
        campaign: CampaignId(ad),
        // A hundred advertisers and twenty categories, so that limits bind.
        advertiser: AdvertiserId(mix64(random) % 100),
        limit_category: 1 + random % 20,
        bid_type: BidType::Cpc,
        bid: Micros(100_000 + random % 2_000_000),
        weight: 1_000_000_000_000 + mix64(random + 1) % 50_000_000_000_000,
        click_weight: 0,
        value: 0,
        reserve: Micros(50_000),
        tie: random,
        shard: ShardId((ad % SHARDS) as u32),
        row: (ad / SHARDS) as u32,
    }
}

fn lists(market: u64) -> Result<Vec<ShardList>, MergeError> {
    let list = |shard: u64| {
        let ads = (0..CANDIDATES).filter(|ad| ad % SHARDS == shard);
        let held: Vec<Candidate> = ads.filter_map(|ad| Candidate::new(offer(market, ad)).ok()).collect();
        let ranking = Ranking::sorted(&held)?;
        Ok(ShardList { shard: ShardId(shard as u32), epoch: Epoch::default(), candidates: ranking.to_vec() })
    };
    (0..SHARDS).map(list).collect()
}

/// Median microseconds; each market is run often enough for a clock that counts micros.
fn median_us<M>(markets: &[M], work: impl Fn(&M) -> u64) -> (f64, u64) {
    const REPEATS: u32 = 20;
    let mut checksum = 0;
    let mut times: Vec<f64> = Vec::with_capacity(markets.len());
    for market in markets {
        let start = now_us();
        for _ in 0..REPEATS {
            checksum = mix64(checksum ^ work(market));
        }
        times.push((now_us().0 - start.0) as f64 / f64::from(REPEATS));
    }
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], checksum)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let all: Vec<Vec<ShardList>> = (0..MARKETS).map(lists).collect::<Result<_, _>>()?;
    let markets: Vec<Ranking> = all.iter().map(|l| merge(Epoch::default(), l)).collect::<Result<_, _>>()?;
    let (merging, _) =
        median_us(&all, |lists| merge(Epoch::default(), lists).map_or(0, |ranking| ranking.len() as u64));
    println!("merge        {CANDIDATES} candidates of {SHARDS} shards  {merging:6.2} us");
    for (name, mechanism) in [("gsp", Mechanism::Gsp), ("vcg", Mechanism::Vcg), ("first_price", Mechanism::FirstPrice)]
    {
        for per_category in [None, Some(1)] {
            let rule = AuctionRule::new(AuctionTerms {
                mechanism,
                slots: SLOTS,
                per_advertiser: 1,
                per_category,
                position_factors_ppm: vec![1_000_000, 700_000, 500_000, 400_000],
                tie_price: TiePrice::Keyed,
            })?;
            let (time, checksum) =
                median_us(&markets, |market| clear(market, &rule).winners.iter().map(|w| w.price.0).sum());
            let limit = if per_category.is_some() { "1 per category" } else { "no category limit" };
            println!("{name:<12} {SLOTS} slots, {limit:<18} {time:6.2} us  prices {checksum:016x}");
        }
    }
    Ok(())
}
