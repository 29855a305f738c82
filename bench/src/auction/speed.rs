//! What does one clearing cost?
//!
//! Merge and mechanisms apart, for every limit, and the two together as a request pays for them. The latter have a bound,
//! which is about 500 candidates for 4 slots on one core: the report says whether it holds.

use super::{AuctionArgs, AuctionError};
use crate::clock::cpu_ns;
use gavel_proto::cut::Neighbours;
use gavel_proto::epoch::Epoch;
use gavel_proto::hash::mix64;
use gavel_proto::ids::{AdId, AdvertiserId, CampaignId, ItemId, ShardId};
use gavel_proto::money::{BidType, Micros};
use gavel_router::auction::{AuctionRule, AuctionTerms, Mechanism, TiePrice, UserModel, clear};
use gavel_router::merge::{Candidate, Offer, Ranking, ShardList, merge};
use serde::Serialize;

const SHARDS: u64 = 4;
/// Runs of one market between two looks at the clock, which takes a fraction of a microsecond.
const REPEATS: u32 = 50;
/// A hundred advertisers and twenty categories, so that limits bind.
const ADVERTISERS: u64 = 100;
const CATEGORIES: u64 = 20;

/// The market that the bounds are about: candidates, slots.
const BOUNDED: (usize, usize) = (500, 4);
/// Mechanism, and microseconds at most for merge and clearing.
const BOUNDS_US: [(&str, f64); 2] = [("gsp", 20.0), ("vcg", 40.0)];

/// CPU time of one clearing.
#[derive(Clone, Debug, Serialize)]
pub struct Speed {
    /// Mechanism and limits, merge or both.
    pub what: String,
    /// Median over the markets, microseconds.
    pub median_us: f64,
    /// 90th percentile over the markets.
    pub p90_us: f64,
    /// Of the prices of all markets, so that nothing is left out of the work.
    pub hash: String,
    /// What the median should be at most, where there is a bound.
    pub bound_us: Option<f64>,
    /// Whether it is.
    pub holds: Option<bool>,
}

impl Speed {
    fn bounded(self, bound_us: f64) -> Self {
        Self { bound_us: Some(bound_us), holds: Some(self.median_us <= bound_us), ..self }
    }

    /// One line for a person.
    #[must_use]
    pub fn line(&self) -> String {
        let bound = match (self.bound_us, self.holds) {
            (Some(bound), Some(true)) => format!("  at most {bound:.0} us: holds"),
            (Some(bound), Some(false)) => format!("  at most {bound:.0} us: does not hold"),
            (Some(_), None) | (None, _) => String::new(),
        };
        format!("{:<28} {:7.2} us (p90 {:.2})  {}{bound}", self.what, self.median_us, self.p90_us, self.hash)
    }
}

/// Times merge and every mechanism.
pub fn measure(args: &AuctionArgs) -> Result<Vec<Speed>, AuctionError> {
    let wrong = |error: String| AuctionError::Usage(error);
    let lists: Vec<Vec<ShardList>> = (0..args.markets.max(1)).map(|market| lists(args, market)).collect();
    let merged = |lists: &Vec<ShardList>| merge(Epoch::default(), lists).map_err(|e| wrong(e.to_string()));
    let markets: Vec<Ranking> = lists.iter().map(merged).collect::<Result<_, _>>()?;
    let mut speeds = vec![timed("merge of 4 shards", &lists, |lists| {
        merge(Epoch::default(), lists).map_or(0, |ranking| ranking.len() as u64)
    })];
    for (what, terms) in rules(args.slots) {
        let rule = AuctionRule::new(terms).map_err(|e| wrong(e.to_string()))?;
        speeds.push(timed(&what, &markets, |market| owed(market, &rule)));
        let Some(bound_us) = bound_us(&what) else { continue };
        let both = timed(&format!("merge and {what}"), &lists, |lists| {
            merge(Epoch::default(), lists).map_or(0, |market| owed(&market, &rule))
        });
        let is_bounded = (args.candidates, args.slots) == BOUNDED;
        speeds.push(if is_bounded { both.bounded(bound_us) } else { both });
    }
    Ok(speeds)
}

fn bound_us(what: &str) -> Option<f64> {
    BOUNDS_US.into_iter().find(|(name, _)| *name == what).map(|(_, bound_us)| bound_us)
}

/// What the winners pay, in the events of their bids.
fn owed(market: &Ranking, rule: &AuctionRule) -> u64 {
    clear(market, rule).winners.iter().map(|winner| winner.price.0).sum()
}

fn rules(slots: usize) -> Vec<(String, AuctionTerms)> {
    let mut rules = Vec::new();
    let mut factors: Vec<u32> = vec![1_000_000];
    factors.extend((1..slots).map(|slot| 1_000_000 / (slot as u32 + 1)));
    for (name, mechanism) in [("gsp", Mechanism::Gsp), ("vcg", Mechanism::Vcg), ("first_price", Mechanism::FirstPrice)]
    {
        for (limit, per_category, neighbours) in [
            ("", None, Neighbours::Any),
            (", 1 a category", Some(1), Neighbours::Any),
            (", neighbours apart", None, Neighbours::Apart),
        ] {
            let terms = AuctionTerms {
                mechanism,
                slots,
                per_advertiser: 1,
                per_category,
                position_factors_ppm: factors.clone(),
                tie_price: TiePrice::Keyed,
                neighbours,
                users: UserModel::Separable,
                page_threshold: 0,
            };
            rules.push((format!("{name}{limit}"), terms));
        }
    }
    if let Some((_, terms)) = rules.iter().find(|(name, _)| name == "vcg").cloned() {
        rules.push(("vcg, cascading users".to_owned(), AuctionTerms { users: UserModel::Cascade, ..terms }));
    }
    rules
}

fn timed<M>(what: &str, markets: &[M], work: impl Fn(&M) -> u64) -> Speed {
    let mut hash = 0;
    let mut one = |market: &M| {
        let before = cpu_ns();
        for _ in 0..REPEATS {
            hash = mix64(hash ^ work(std::hint::black_box(market)));
        }
        (cpu_ns() - before) as f64 / f64::from(REPEATS) / 1e3
    };
    // Twice: the first round warms caches and predictors up.
    markets.iter().for_each(|market| {
        one(market);
    });
    let mut times: Vec<f64> = markets.iter().map(one).collect();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default();
    Speed {
        what: what.to_owned(),
        median_us: at(0.5),
        p90_us: at(0.9),
        hash: format!("{hash:016x}"),
        bound_us: None,
        holds: None,
    }
}

fn lists(args: &AuctionArgs, market: u64) -> Vec<ShardList> {
    let list = |shard: u64| {
        let ads = (0..args.candidates as u64).filter(|ad| ad % SHARDS == shard);
        let mut candidates: Vec<Candidate> =
            ads.filter_map(|ad| Candidate::new(offer(args, market, ad)).ok()).collect();
        candidates.sort_by(Candidate::auction_order);
        ShardList { shard: ShardId(shard as u32), epoch: Epoch::default(), candidates }
    };
    (0..SHARDS).map(list).collect()
}

fn offer(args: &AuctionArgs, market: u64, ad: u64) -> Offer {
    let random = mix64(args.seed ^ mix64(market * CANDIDATES_STRIDE + ad));
    let weight = 1_000_000_000_000 + mix64(random + 1) % 50_000_000_000_000;
    Offer {
        ad: AdId(ad),
        item: ItemId(ad),
        campaign: CampaignId(ad),
        advertiser: AdvertiserId(mix64(random) % ADVERTISERS),
        limit_category: 1 + random % CATEGORIES,
        bid_type: BidType::Cpc,
        bid: Micros(100_000 + random % 2_000_000),
        weight,
        event_weight: weight,
        click_weight: 0,
        continuation_ppm: (mix64(random + 2) % 1_000_000) as u32,
        value: 0,
        reserve: Micros(50_000),
        tie: random,
        shard: ShardId((ad % SHARDS) as u32),
        row: (ad / SHARDS) as u32,
    }
}

/// More than any number of candidates, so that markets share no ad's numbers.
const CANDIDATES_STRIDE: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_together_have_a_bound() {
        let args = AuctionArgs { candidates: 500, slots: 4, markets: 2, check: 0, pages: 0, seed: 1, json: None };
        let speeds = measure(&args).unwrap_or_else(|error| panic!("{error}"));
        let of = |what: &str| speeds.iter().find(|speed| speed.what == what).unwrap_or_else(|| panic!("no {what}"));
        for (name, bound_us) in BOUNDS_US {
            let (alone, both) = (of(name), of(&format!("merge and {name}")));
            assert!(both.bound_us == Some(bound_us) && both.holds.is_some(), "{both:?}");
            assert_eq!((&alone.hash, alone.bound_us), (&both.hash, None), "the same prices");
        }
        let fewer = measure(&AuctionArgs { candidates: 40, ..args }).unwrap_or_else(|error| panic!("{error}"));
        assert!(fewer.iter().all(|speed| speed.bound_us.is_none()), "the bounds are about another market");
    }

    #[test]
    fn a_bound_holds_up_to_itself() {
        let taken = |median_us| Speed {
            what: "merge and gsp".to_owned(),
            median_us,
            p90_us: 30.0,
            hash: "0".to_owned(),
            bound_us: None,
            holds: None,
        };
        for (median_us, holds, end) in [
            (12.5, true, "at most 20 us: holds"),
            (20.0, true, "at most 20 us: holds"),
            (20.25, false, "at most 20 us: does not hold"),
        ] {
            let speed = taken(median_us).bounded(20.0);
            assert_eq!((speed.bound_us, speed.holds), (Some(20.0), Some(holds)), "{median_us}");
            assert!(speed.line().ends_with(end), "{}", speed.line());
        }
        assert!(taken(12.5).line().ends_with("us (p90 30.00)  0"), "nothing is said of what has no bound");
    }
}
