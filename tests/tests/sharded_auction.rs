//! Is an auction over shards the auction over one shard (ME1, AU2), through the node's own scoring and cut?
//!
//! Random catalogues of items with several ads, campaigns that are paced, paused or excluded for the user, predictions,
//! quality rules, reserves and limits. The shards' candidates are made by the kernel that nodes run, merged and cleared
//! by those of the router, and compared with one list of everything: winners, slots, prices and bills, also after up to
//! two ads were taken out. An excluded campaign never wins and never sets a price (RE1, decision 12).

use gavel_node::ranking::AdTable;
use gavel_node::ranking::auction::{self as node, AuctionTerms as NodeTerms, HeadRoles, score_and_cut};
use gavel_node::ranking::delivery::{CampaignStatus, DeliveryRow};
use gavel_node::ranking::explain::Unwatched;
use gavel_proto::cut::{CutRule, Neighbours, SPARE};
use gavel_proto::epoch::Epoch;
use gavel_proto::hash::{TieKey, mix64};
use gavel_proto::ids::{AdId, AdvertiserId, CampaignId, ItemId, ShardId};
use gavel_proto::money::{BidType, Micros};
use gavel_proto::score::{CPM_WEIGHT, QualityRule, weight};
use gavel_router::auction::{AuctionRule, AuctionTerms, Mechanism, TiePrice, UserModel, reclear_without};
use gavel_router::merge::{Candidate, Offer, Ranking, ShardList, merge};
use std::collections::HashSet;
use std::ops::Range;

const EPOCH: Epoch = Epoch { map: 1, generation: 1, model: 1, delivery: 9 };
const ROLES: HeadRoles =
    HeadRoles { heads: 4, click: 0, conversion: Some(1), hide: Some(2), long_click: Some(3), prior_conversion: 0.05 };

struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix64(self.0) % below
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len() as u64) as usize]
    }
}

/// The items of one shard, or of all.
#[derive(Clone, Default)]
struct Table {
    items: Vec<Item>,
    rows: Vec<DeliveryRow>,
    excluded: HashSet<u64>,
}

#[derive(Clone)]
struct Item {
    id: u64,
    advertiser: u64,
    category: u64,
    predicted: [f32; 4],
    ads: Vec<(u64, usize)>,
}

impl Table {
    fn flat(&self) -> Vec<(u64, usize)> {
        self.items.iter().flat_map(|item| item.ads.iter().copied()).collect()
    }
}

impl AdTable for Table {
    fn ads_of(&self, item: u32) -> Range<u32> {
        let before: usize = self.items[..item as usize].iter().map(|i| i.ads.len()).sum();
        before as u32..(before + self.items[item as usize].ads.len()) as u32
    }
    fn admits(&self, ad: u32) -> bool {
        let row = self.delivery(ad);
        row.bids() && !self.excluded.contains(&row.campaign)
    }
    fn delivery(&self, ad: u32) -> &DeliveryRow {
        &self.rows[self.flat()[ad as usize].1]
    }
    fn ad_id(&self, ad: u32) -> u64 {
        self.flat()[ad as usize].0
    }
    fn item_id(&self, item: u32) -> u64 {
        self.items[item as usize].id
    }
    fn advertiser(&self, item: u32) -> u64 {
        self.items[item as usize].advertiser
    }
    fn limit_category(&self, item: u32) -> u64 {
        self.items[item as usize].category
    }
}

fn catalogue(dice: &mut Dice) -> Table {
    let campaigns = 1 + dice.roll(8);
    let row = |campaign: u64, dice: &mut Dice| DeliveryRow {
        campaign,
        bid_type: dice.pick(&BidType::ALL),
        bid: Micros(dice.roll(6) * 100_000 * dice.pick(&[1, 1, 40])),
        multiplier_ppm: dice.pick(&[1_000_000, 1_000_000, 700_000, 333_333, 1]),
        status: if dice.roll(8) == 0 { CampaignStatus::Paused } else { CampaignStatus::Active },
        reserve_micros: dice.pick(&[0, 0, 50_000]),
        ..DeliveryRow::UNKNOWN
    };
    let rows: Vec<DeliveryRow> = (0..campaigns).map(|campaign| row(campaign, dice)).collect();
    let (advertisers, categories) = (1 + dice.roll(9), 1 + dice.roll(5));
    let mut next_ad = 0;
    let item = |id: u64, dice: &mut Dice| Item {
        id,
        advertiser: dice.roll(advertisers),
        category: dice.roll(categories),
        predicted: [
            dice.pick(&[0.01, 0.02, 0.02, 0.5]),
            dice.pick(&[0.05, 0.1]),
            dice.pick(&[0.0, 0.01]),
            dice.pick(&[0.3, 0.6]),
        ],
        ads: (0..1 + dice.roll(3))
            .map(|_| {
                next_ad += 1;
                (next_ad, dice.roll(campaigns) as usize)
            })
            .collect(),
    };
    let mut item = item;
    let items = (0..1 + dice.roll(100)).map(|id| item(id, dice)).collect();
    let excluded = (0..campaigns).filter(|_| dice.roll(5) == 0).collect();
    Table { items, rows, excluded }
}

/// What a shard answers, as the router reads it.
fn answer(table: &Table, shard: u32, terms: &NodeTerms) -> ShardList {
    let items: Vec<u32> = (0..table.items.len() as u32).collect();
    let predictions: Vec<f32> = table.items.iter().flat_map(|item| item.predicted).collect();
    let mut scored = Vec::new();
    score_and_cut(table, &items, &predictions, ROLES, terms, &mut scored, &mut Unwatched);
    let offer = |c: &node::Candidate| {
        let click = f64::from(table.items[c.item as usize].predicted[0]);
        let offer = Offer {
            ad: AdId(c.ad_id),
            item: ItemId(table.item_id(c.item)),
            campaign: CampaignId(c.campaign),
            advertiser: AdvertiserId(c.advertiser),
            limit_category: c.limit_category,
            bid_type: c.bid_type,
            bid: Micros(c.bid_micros),
            weight: c.weight,
            event_weight: c.event_weight,
            click_weight: weight(BidType::Cpc, click, 0.0).unwrap_or(0),
            continuation_ppm: (click * 1e6) as u32,
            value: c.value,
            reserve: Micros(c.reserve_micros),
            tie: c.tie,
            shard: ShardId(shard),
            row: 0,
        };
        Candidate::new(offer).expect("what nodes answer can be priced")
    };
    ShardList { shard: ShardId(shard), epoch: EPOCH, candidates: scored.iter().map(offer).collect() }
}

type Sale = (u64, usize, u64, u64);

fn sales(ranking: &Ranking, rule: &AuctionRule, failed: &[AdId]) -> Vec<Sale> {
    let sale = |w: &gavel_router::auction::Winner| (ranking[w.candidate].offer().ad.0, w.slot, w.price.0, w.billed.0);
    reclear_without(ranking, rule, failed).winners.iter().map(sale).collect()
}

fn rule(dice: &mut Dice) -> AuctionRule {
    let cascade = dice.roll(8) == 0;
    let limited = !cascade && dice.roll(2) == 0;
    AuctionRule::new(AuctionTerms {
        mechanism: if cascade {
            Mechanism::Vcg
        } else {
            dice.pick(&[Mechanism::Gsp, Mechanism::Vcg, Mechanism::FirstPrice])
        },
        slots: 1 + dice.roll(5) as usize,
        per_advertiser: if cascade { 1 } else { 1 + (dice.roll(4) / 3) as usize },
        per_category: limited.then(|| 1 + dice.roll(3) as usize),
        position_factors_ppm: vec![1_000_000, 700_000, 400_000],
        tie_price: TiePrice::Keyed,
        neighbours: if !cascade && dice.roll(3) == 0 { Neighbours::Apart } else { Neighbours::Any },
        users: if cascade { UserModel::Cascade } else { UserModel::Separable },
        page_threshold: if cascade { 0 } else { i128::from(dice.pick(&[0, 0, 300_000])) * i128::from(CPM_WEIGHT) },
    })
    .expect("the terms hold together")
}

fn quality(dice: &mut Dice) -> QualityRule {
    QualityRule {
        squashing_ppm: dice.pick(&[0, 0, 300_000]),
        quality_ppm: dice.pick(&[0, 0, 1_000_000]),
        hide_cost_micros: dice.pick(&[0, 0, 100_000]),
        user_value_micros: dice.pick(&[0, 0, 2_000]),
        score_floor_cpm_micros: dice.pick(&[0, 0, 1_000_000]),
        ..QualityRule::default()
    }
}

/// What nodes are asked to cut: nothing when users cascade, as the wire's `whole` does.
fn cut_rule(rule: &AuctionRule) -> CutRule {
    match rule.terms().users {
        UserModel::Separable => rule.cut_rule(),
        UserModel::Cascade => CutRule {
            slots: 1_000,
            per_advertiser: 1_000,
            per_category: None,
            neighbours: Neighbours::Any,
            spare: SPARE,
        },
    }
}

#[test]
fn sharded_equals_single_through_the_nodes_cut() {
    let (mut sold, mut cut, mut excluded) = (0, 0, 0);
    for seed in 0..3_000 {
        let mut dice = Dice(mix64(seed));
        let table = catalogue(&mut dice);
        let (rule, quality) = (rule(&mut dice), quality(&mut dice));
        let reserve_cpm_micros = dice.pick(&[0, 500_000]);
        let tie_key = TieKey::from_number(77);
        let terms = NodeTerms { auction_id: seed, tie_key, reserve_cpm_micros, quality, cut: None };
        let whole = merge(EPOCH, &[answer(&table, 0, &terms)]).expect("sound");

        let shards = 1 + dice.roll(5) as usize;
        let mut parts = vec![Table { items: Vec::new(), ..table.clone() }; shards];
        for item in &table.items {
            parts[dice.roll(shards as u64) as usize].items.push(item.clone());
        }
        let cutting = NodeTerms { cut: Some(cut_rule(&rule)), ..terms };
        let mut lists: Vec<ShardList> = (0..).zip(&parts).map(|(shard, part)| answer(part, shard, &cutting)).collect();
        cut += whole.len() - lists.iter().map(|list| list.candidates.len()).sum::<usize>();
        let turned = dice.roll(shards as u64) as usize;
        lists.rotate_left(turned);
        let merged = merge(EPOCH, &lists).expect("sound");

        let mut failed: Vec<AdId> = Vec::new();
        for _ in 0..=SPARE {
            let one = sales(&whole, &rule, &failed);
            assert_eq!(sales(&merged, &rule, &failed), one, "seed {seed}, {rule:?}, without {failed:?}");
            sold += one.len();
            let Some(next) = one.get(dice.roll(one.len().max(1) as u64) as usize) else { break };
            failed.push(AdId(next.0));
        }
        for candidate in merged.iter() {
            assert!(!table.excluded.contains(&candidate.offer().campaign.0), "seed {seed}: an excluded campaign came");
        }
        excluded += table.excluded.len();
    }
    assert!(sold > 5_000 && cut > 5_000 && excluded > 1_000, "{sold} sold, {cut} cut, {excluded} excluded say little");
}
