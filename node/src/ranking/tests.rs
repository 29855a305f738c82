//! The kernels of ranking against their obvious twins, on tables of a few ads.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use gavel_proto::cut::{CutRule, Neighbours, SPARE};
use gavel_proto::hash::{TieKey, tie_key};
use gavel_proto::money::{BidType, Micros};
use gavel_proto::score;
use proptest::prelude::*;

use super::{AuctionTerms, Candidate, HeadRoles, score_and_cut};
use crate::ranking::AdTable;
use crate::ranking::delivery::{CampaignStatus, DeliveryRow};
use crate::ranking::explain::{Account, Reason, Unwatched};
use crate::ranking::light::{LightItem, LightModel, Retrieved, light_cut};

/// A shard as plain vectors: item -> ads, each with a campaign of its own.
#[derive(Clone, Debug)]
struct Table {
    starts: Vec<u32>,
    rows: Vec<DeliveryRow>,
    eligible: Vec<bool>,
    advertisers: Vec<u64>,
    categories: Vec<u64>,
}

impl AdTable for Table {
    fn ads_of(&self, item: u32) -> Range<u32> {
        self.starts[item as usize]..self.starts[item as usize + 1]
    }
    fn admits(&self, ad: u32) -> bool {
        self.eligible[ad as usize] && self.rows[ad as usize].bids()
    }
    fn delivery(&self, ad: u32) -> &DeliveryRow {
        &self.rows[ad as usize]
    }
    fn ad_id(&self, ad: u32) -> u64 {
        1_000 + u64::from(ad)
    }
    fn item_id(&self, item: u32) -> u64 {
        u64::from(item)
    }
    fn advertiser(&self, item: u32) -> u64 {
        self.advertisers[item as usize]
    }
    fn limit_category(&self, item: u32) -> u64 {
        self.categories[item as usize]
    }
}

fn bid_type() -> impl Strategy<Value = BidType> {
    prop::sample::select(BidType::ALL.to_vec())
}

prop_compose! {
    fn any_row()(bid in 0u64..5_000_000, bid_type in bid_type(), paused in prop::bool::weighted(0.1),
                 multiplier_ppm in prop::sample::select(vec![1u32, 400_000, 1_000_000]), reserve in 0u64..100_000) -> DeliveryRow {
        let status = if paused { CampaignStatus::Paused } else { CampaignStatus::Active };
        DeliveryRow { campaign: bid, bid_type, bid: Micros(bid), multiplier_ppm, status, reserve_micros: reserve, ..DeliveryRow::UNKNOWN }
    }
}

prop_compose! {
    fn any_table()(sizes in prop::collection::vec(0u32..4, 1..25))
        (rows in prop::collection::vec(any_row(), sizes.iter().sum::<u32>() as usize),
         eligible in prop::collection::vec(prop::bool::weighted(0.8), sizes.iter().sum::<u32>() as usize),
         advertisers in prop::collection::vec(0u64..6, sizes.len()),
         categories in prop::collection::vec(0u64..4, sizes.len()), sizes in Just(sizes)) -> Table {
        let mut starts = vec![0];
        for size in sizes {
            starts.push(starts.last().expect("one") + size);
        }
        Table { starts, rows, eligible, advertisers, categories }
    }
}

const MODEL: LightModel = LightModel { prior_conversion: 0.05 };
const ROLES: HeadRoles =
    HeadRoles { heads: 3, click: 0, conversion: Some(1), hide: Some(2), long_click: None, prior_conversion: 0.05 };

fn open_ads(table: &Table, item: u32) -> Vec<u32> {
    table.ads_of(item).filter(|ad| table.admits(*ad)).collect()
}

/// The light order as one sentence: value everything, sort everything, take the first.
fn light_twin(table: &Table, retrieved: &[Retrieved], keep: usize) -> Vec<(u32, f64)> {
    let mut all: Vec<(u32, f64)> = Vec::new();
    let finite = |r: &&Retrieved| r.click.is_finite() && r.conversion.is_none_or(f32::is_finite);
    for Retrieved { item, click, conversion, .. } in retrieved.iter().filter(finite) {
        let probability = |logit: f32| 1.0 / (1.0 + (-f64::from(logit)).exp());
        let (click, conversion) = (probability(*click), conversion.map_or(f64::from(0.05f32), probability));
        let value = |ad: &u32| {
            let row = &table.rows[*ad as usize];
            let bid = row.paced().0 as f64;
            match row.bid_type {
                BidType::Cpm => bid / 1_000.0,
                BidType::Cpc => bid * click,
                BidType::Cpa | BidType::Ocpm | BidType::Ocpc => bid * click * conversion,
            }
        };
        let values: Vec<f64> = open_ads(table, *item).iter().map(value).collect();
        if let Some(best) = values.into_iter().reduce(f64::max) {
            all.push((*item, best));
        }
    }
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    all.truncate(keep);
    all
}

/// The score and cut as written in the auction chapter, without any of the kernel's bookkeeping.
fn score_twin(table: &Table, items: &[u32], predictions: &[f32], terms: &AuctionTerms) -> Vec<(i128, u64, u32)> {
    let mut best: BTreeMap<u32, (i128, u64, u32)> = BTreeMap::new();
    for (i, item) in items.iter().enumerate() {
        let p: Vec<f64> = predictions[i * 3..i * 3 + 3].iter().map(|p| f64::from(*p)).collect();
        if p.iter().any(|p| !p.is_finite()) {
            continue;
        }
        for ad in open_ads(table, *item) {
            let row = &table.rows[ad as usize];
            let Some(weight) = score::weight(row.bid_type, p[0], p[1]) else { continue };
            let Some(value) = score::additive_value(-(terms.quality.hide_cost_micros as i64), p[2]) else { continue };
            let total = score::score(row.paced(), weight, value).expect("fits");
            let floor = row.reserve_micros.max(score::reserve_from_cpm(terms.reserve_cpm_micros, weight));
            if total < 0 || row.paced().0 < floor {
                continue;
            }
            let entry = (-total, tie_key(terms.tie_key, terms.auction_id, table.ad_id(ad)), ad);
            best.entry(*item).and_modify(|best| *best = (*best).min(entry)).or_insert(entry);
        }
    }
    let mut order: Vec<_> = best.into_values().collect();
    order.sort();
    order
}

proptest! {
    #[test]
    fn light_cut_is_the_head_of_the_full_order(table in any_table(), keep in 0usize..30, seed in 0u32..1_000) {
        let items = table.starts.len() as u32 - 1;
        let logits = [-1.0, -0.6, -0.2, 0.2, 0.6, f32::NAN, f32::INFINITY];
        let logit = |item: u32| logits[((item * 3 + seed) % 7) as usize];
        // One kind of bundle in two has a conversion of its own for each item.
        let of = |item: u32| Retrieved {
            item,
            similarity: 0.5,
            click: logit(item),
            conversion: (seed % 2 == 0).then(|| logit(item / 2 + 1)),
        };
        let retrieved: Vec<Retrieved> = (0..items).map(of).collect();
        let finite = |r: &Retrieved| r.click.is_finite() && r.conversion.is_none_or(f32::is_finite);
        let mut out = Vec::new();
        let funnel = light_cut(&table, MODEL, retrieved.iter().copied(), keep, &mut out, &mut Unwatched);
        let got: Vec<(u32, f64)> = out.iter().map(|l: &LightItem| (l.item, l.value)).collect();
        prop_assert_eq!(got, light_twin(&table, &retrieved, keep));
        prop_assert_eq!(funnel.kept_by_bid_type.iter().sum::<u64>(), funnel.kept);
        prop_assert_eq!(funnel.non_finite, retrieved.iter().filter(|r| !finite(r)).count() as u64);
    }

    #[test]
    fn the_cut_is_what_the_chapter_says(
        table in any_table(), auction_id in 0u64..50, slots in 1usize..4, per_category in prop::option::of(1usize..3),
        reserve in prop::sample::select(vec![0u64, 50_000, 2_000_000]), hide in prop::sample::select(vec![0u64, 900_000]),
        raw in prop::collection::vec(prop::sample::select(vec![0.0f32, 0.01, 0.2, 0.2, 1.0, f32::NAN]), 75),
    ) {
        let items: Vec<u32> = (0..table.starts.len() as u32 - 1).rev().collect();
        let neighbours = if auction_id % 2 == 0 { Neighbours::Any } else { Neighbours::Apart };
        let rule = CutRule { slots, per_advertiser: 1, per_category, neighbours, spare: SPARE };
        let quality = score::QualityRule { hide_cost_micros: hide, ..score::QualityRule::default() };
        let tie_key = TieKey::from_number(5);
        let terms = AuctionTerms { auction_id, tie_key, reserve_cpm_micros: reserve, quality, cut: None };
        let predictions = &raw[..items.len() * 3];
        let order = score_twin(&table, &items, predictions, &terms);
        let (mut all, mut kept) = (Vec::new(), Vec::new());
        let barrier = |ad| (!table.admits(ad)).then_some(Reason::NotEligibleTargeting);
        let mut account = Account::new(table.rows.len() as u32, barrier, || false).unwrap();
        score_and_cut(&table, &items, predictions, ROLES, &terms, &mut all, &mut Unwatched);
        let cutting = AuctionTerms { cut: Some(rule), ..terms };
        let funnel = score_and_cut(&table, &items, predictions, ROLES, &cutting, &mut kept, &mut account);
        let got: Vec<_> = all.iter().map(|c: &Candidate| (-c.score, c.tie, c.ad)).collect();
        prop_assert_eq!(&got, &order);
        let expected = gavel_proto::cut::cut(all.iter().map(|c| (c.advertiser, c.limit_category)), rule);
        prop_assert_eq!(&kept, &expected.iter().map(|i| all[*i]).collect::<Vec<_>>());
        let counts: HashMap<Reason, u64> = account.counts().into_iter().collect();
        prop_assert_eq!(counts.values().sum::<u64>(), table.rows.len() as u64);
        prop_assert_eq!(counts.get(&Reason::Returned).copied().unwrap_or(0), funnel.returned);
        let nearest = account.nearest(8);
        let winners: HashSet<u32> = kept.iter().take(8).map(|c| c.ad).collect();
        prop_assert_eq!(nearest.len(), table.rows.len().min(8));
        prop_assert!(winners.iter().all(|ad| nearest.iter().any(|n| n.ad == *ad)));
    }
}
