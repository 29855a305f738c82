//! Who advertises what to whom, and how do users behave?
//!
//! Campaigns, bids, budgets and stores follow the rules of the corpora (`corpus`). Rates are per product type: the
//! platform predicts with those of the training weeks, users behave by those of the four weeks after, drawn towards the
//! former where there is little of them. Both are multiplied with how much more of the type the household has bought
//! than others, and behaviour with a factor of (household, type) that no prediction knows. With a trainer's held
//! predictions users behave by those instead, drawn towards the type's mean times the same factor of the household.

use super::arrivals::{WEEK, period_days};
use super::day::Played;
use super::held::HeldPredictions;
use super::{Days, Largest, MarketArgs, MarketError};
use crate::corpus::LAST_TRAINING_WEEK;
use crate::corpus::campaign::{BidType as CorpusBid, Campaign, Departments, Prices, Rates, weekly_budget_micros};
use crate::corpus::source::{Impression, Product, Tables};
use crate::corpus::targeting::Stores;
use gavel_proto::hash::{combine, value_hash};
use gavel_proto::money::BidType;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

/// Weighted impressions or clicks of the overall rate that each type begins with.
const SHRINKAGE: f64 = 1_000.0;
/// The same for held-out weeks, of the type's own rate: they are a tenth of the data.
const HELD_SHRINKAGE: f64 = 3_000.0;
/// Lines of the average household that each household begins with, a type.
const LIFT_SHRINKAGE: f64 = 5.0;
/// Bounds of how much more a household likes a type than others.
const LIFT: (f64, f64) = (0.3, 5.0);
/// No click is surer. Ours.
pub const CHANCE_MAX: f64 = 0.9;
/// Spread of what predictions do not know: a factor between 0.7 and 1.4, mostly.
const UNKNOWN_SPREAD: f64 = 0.35;
/// Types a household is retrieved by.
const FAVOURITES: usize = 30;
/// The campaigns whose spend and budget set the factor (decision of the market day).
const LARGEST: usize = 200;

/// A campaign.
#[derive(Clone, Debug)]
pub struct MarketCampaign {
    pub id: u64,
    pub advertiser: u64,
    pub bid_type: BidType,
    pub bid_micros: u64,
    /// Of one period: a day of the market, a week of the panel.
    pub budget_nanos: i64,
}

/// An ad: a promoted product.
#[derive(Clone, Copy, Debug)]
pub struct MarketAd {
    pub id: u64,
    pub campaign: u32,
    pub kind: u32,
    pub category: u64,
}

/// Rates of one product type.
#[derive(Clone, Copy, Debug, Default)]
pub struct KindRates {
    pub predicted_click: f64,
    pub predicted_conversion: f64,
    pub true_click: f64,
    pub true_conversion: f64,
}

/// The ads that may be shown in one place.
#[derive(Clone, Debug, Default)]
pub struct Place {
    pub all: Vec<u32>,
    pub by_kind: HashMap<u32, Vec<u32>>,
}

impl Place {
    fn add(&mut self, ad: u32, kind: u32) {
        self.all.push(ad);
        self.by_kind.entry(kind).or_default().push(ad);
    }
}

/// A household.
#[derive(Clone, Debug, Default)]
pub struct Household {
    pub favourites: Vec<u32>,
    lines: f64,
    by_kind: HashMap<u32, f64>,
}

/// The market before the first visit.
pub struct World {
    pub campaigns: Vec<MarketCampaign>,
    pub ads: Vec<MarketAd>,
    pub kinds: Vec<KindRates>,
    pub everywhere: Place,
    pub stores: HashMap<u32, Place>,
    pub households: HashMap<u64, Household>,
    /// (unix seconds, household, store) of every recorded visit.
    pub visits: Vec<(u64, u64, u32)>,
    kind_shares: Vec<f64>,
    held: Option<HeldPredictions>,
    seed: u64,
}

/// Events of one product type.
#[derive(Clone, Copy, Default)]
struct Events {
    impressions: f64,
    clicks: f64,
    conversions: f64,
}

impl Events {
    fn add(&mut self, impression: &Impression) {
        self.impressions += impression.weight;
        self.clicks += if impression.clicked { impression.weight } else { 0.0 };
        self.conversions += if impression.converted { impression.weight } else { 0.0 };
    }
}

impl World {
    /// Reads the records.
    pub fn read(args: &MarketArgs) -> Result<Self, MarketError> {
        let tables = Tables::open(&args.data)?;
        let products = tables.products()?;
        let mut kind_ids: HashMap<&str, u32> = HashMap::new();
        for product in &products {
            let next = kind_ids.len() as u32;
            kind_ids.entry(&product.kind).or_insert(next);
        }
        let kind_of: HashMap<u64, u32> = products.iter().map(|p| (p.id, kind_ids[p.kind.as_str()])).collect();
        let mut world = Self {
            campaigns: Vec::new(),
            ads: Vec::new(),
            kinds: kinds(&tables, &kind_of, kind_ids.len())?,
            everywhere: Place::default(),
            stores: HashMap::new(),
            households: HashMap::new(),
            visits: Vec::new(),
            kind_shares: vec![0.0; kind_ids.len()],
            held: args.held.as_ref().map(|path| HeldPredictions::read(path, &kind_of)).transpose()?,
            seed: args.seed,
        };
        world.read_households(&tables, &kind_of)?;
        tables.visits(|visit| {
            world.visits.push((visit.ts, visit.household, visit.store));
            Ok(())
        })?;
        world.read_campaigns(&tables, &products, &kind_of, args.days)?;
        Ok(world)
    }

    fn read_households(&mut self, tables: &Tables, kind_of: &HashMap<u64, u32>) -> Result<(), MarketError> {
        let (households, shares) = (&mut self.households, &mut self.kind_shares);
        tables.purchases(|line| {
            if let Some(kind) = kind_of.get(&line.product).filter(|_| line.week <= LAST_TRAINING_WEEK) {
                let household = households.entry(line.household).or_default();
                household.lines += 1.0;
                *household.by_kind.entry(*kind).or_default() += 1.0;
                shares[*kind as usize] += 1.0;
            }
        })?;
        let all: f64 = shares.iter().sum::<f64>().max(1.0);
        shares.iter_mut().for_each(|share| *share /= all);
        for household in households.values_mut() {
            let mut kinds: Vec<(u32, f64)> = household.by_kind.iter().map(|(kind, lines)| (*kind, *lines)).collect();
            kinds.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            household.favourites = kinds.into_iter().take(FAVOURITES).map(|(kind, _)| kind).collect();
        }
        Ok(())
    }

    fn read_campaigns(
        &mut self,
        tables: &Tables,
        products: &[Product],
        kind_of: &HashMap<u64, u32>,
        days: Days,
    ) -> Result<(), MarketError> {
        let by_id: HashMap<u64, &Product> = products.iter().map(|p| (p.id, p)).collect();
        let (departments, prices, mut rates) = (Departments::of(products), Prices::of(products), Rates::default());
        tables.impressions(|impression| {
            rates.add(by_id.get(&impression.product).map_or("", |p| p.kind.as_str()), impression);
        })?;
        let mut stores_of: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        tables.pairs(|pair| {
            stores_of.entry(pair.product).or_default().push(pair.store);
            Ok(())
        })?;
        let all_stores: Vec<u32> = stores_of.values().flatten().copied().collect();
        let stores = Stores::new(self.seed, all_stores);
        let mut campaigns: BTreeMap<u64, Campaign> = BTreeMap::new();
        let mut ads_of_manufacturer: HashMap<u64, u64> = HashMap::new();
        for product in products.iter().filter(|p| p.promoted) {
            let id = departments.campaign(product);
            campaigns.entry(id).or_default().add(self.seed, id, product, 1, &prices, &rates);
            *ads_of_manufacturer.entry(product.manufacturer).or_default() += 1;
        }
        let mut discounts: HashMap<u64, f64> = HashMap::new();
        tables.spend(|spend| {
            if spend.week <= LAST_TRAINING_WEEK {
                *discounts.entry(spend.manufacturer).or_default() += spend.discounts / f64::from(LAST_TRAINING_WEEK);
            }
        })?;
        let mut place_of: HashMap<u64, u32> = HashMap::new();
        for (id, campaign) in &campaigns {
            place_of.insert(*id, self.campaigns.len() as u32);
            let of_manufacturer = ads_of_manufacturer.get(&campaign.manufacturer).copied().unwrap_or(1);
            let weekly = discounts.get(&campaign.manufacturer).copied().unwrap_or(0.0);
            let weekly_micros = weekly_budget_micros(weekly, campaign.ads, of_manufacturer);
            self.campaigns.push(MarketCampaign {
                id: *id,
                advertiser: campaign.manufacturer,
                bid_type: match CorpusBid::of(self.seed, *id) {
                    CorpusBid::Cpa => BidType::Cpa,
                    CorpusBid::Cpc => BidType::Cpc,
                    CorpusBid::Cpm => BidType::Cpm,
                },
                bid_micros: campaign.bid_micros(),
                budget_nanos: i64::try_from(weekly_micros * period_days(days) / WEEK * 1_000).unwrap_or(i64::MAX),
            });
        }
        for product in products.iter().filter(|p| p.promoted) {
            let id = departments.campaign(product);
            let (Some(campaign), Some(own)) = (place_of.get(&id), stores_of.get(&product.id)) else { continue };
            self.add_ad(product, *campaign, kind_of[&product.id], &stores.terms(id, own));
        }
        Ok(())
    }

    fn add_ad(&mut self, product: &Product, campaign: u32, kind: u32, terms: &[crate::corpus::records::TermLine]) {
        let ad = self.ads.len() as u32;
        self.ads.push(MarketAd { id: product.id, campaign, kind, category: value_hash(&product.category) });
        if terms.is_empty() {
            self.everywhere.add(ad, kind);
        }
        for store in terms.iter().flat_map(|term| &term.any_of).filter_map(|store| store.parse::<u32>().ok()) {
            self.stores.entry(store).or_default().add(ad, kind);
        }
    }

    /// One factor on all budgets, such that the largest campaigns would spend twice theirs unpaced; answers it.
    pub fn scale_budgets(&mut self, free: &Played, periods: u64, largest: Largest) -> f64 {
        let mut by_size: Vec<(i64, i64)> =
            free.accounts.total.iter().zip(&self.campaigns).map(|(total, c)| (total.charged, c.budget_nanos)).collect();
        // Largest first; the other figure breaks ties, so that the order does not depend on that of the campaigns.
        by_size.sort_unstable_by_key(|(spent, budget)| match largest {
            Largest::Budget => Reverse((*budget, *spent)),
            Largest::Spend => Reverse((*spent, *budget)),
        });
        let largest = || by_size.iter().take(LARGEST);
        let spent: f64 = largest().map(|(spent, _)| *spent as f64).sum();
        let budget: f64 = largest().map(|(_, budget)| *budget as f64).sum();
        let factor = spent / (2.0 * budget.max(1.0) * periods as f64);
        for campaign in &mut self.campaigns {
            campaign.budget_nanos = ((campaign.budget_nanos as f64 * factor) as i64).max(1);
        }
        factor
    }

    /// How much more this household likes the type than others.
    fn lift(&self, household: u64, kind: u32) -> f64 {
        let Some(known) = self.households.get(&household) else { return 1.0 };
        let lines = known.by_kind.get(&kind).copied().unwrap_or(0.0);
        let expected = known.lines * self.kind_shares.get(kind as usize).copied().unwrap_or(0.0);
        ((lines + LIFT_SHRINKAGE) / (expected + LIFT_SHRINKAGE)).clamp(LIFT.0, LIFT.1)
    }

    /// Predicted probabilities of a click, and of a conversion after it.
    pub fn predicted(&self, household: u64, kind: u32) -> (f64, f64) {
        let rates = self.kinds[kind as usize];
        ((rates.predicted_click * self.lift(household, kind)).min(CHANCE_MAX), rates.predicted_conversion)
    }

    /// The probabilities that users behave by.
    pub fn behaviour(&self, household: u64, kind: u32) -> (f64, f64) {
        let lift = self.lift(household, kind);
        if let Some(chances) = self.held.as_ref().and_then(|held| held.chances(household, kind, lift)) {
            return chances;
        }
        let rates = self.kinds[kind as usize];
        // The sum of four uniform numbers is nearly normal, with mean 2 and variance 1/3.
        let word = combine(combine(self.seed, household), u64::from(kind));
        let sum: f64 = (0..4).map(|part| ((word >> (16 * part)) & 0xffff) as f64 / 65_536.0).sum();
        let unknown = ((sum - 2.0) * 3f64.sqrt() * UNKNOWN_SPREAD - UNKNOWN_SPREAD * UNKNOWN_SPREAD / 2.0).exp();
        ((rates.true_click * lift * unknown).min(CHANCE_MAX), rates.true_conversion)
    }
}

fn kinds(tables: &Tables, kind_of: &HashMap<u64, u32>, count: usize) -> Result<Vec<KindRates>, MarketError> {
    let mut trained = vec![Events::default(); count];
    let mut held = vec![Events::default(); count];
    let add = |into: &mut [Events], impression: &Impression| {
        if let Some(kind) = kind_of.get(&impression.product) {
            into[*kind as usize].add(impression);
        }
    };
    tables.impressions(|impression| add(&mut trained, &impression))?;
    tables.held_impressions(|impression| add(&mut held, &impression))?;
    let all = trained.iter().fold(Events::default(), |all, e| Events {
        impressions: all.impressions + e.impressions,
        clicks: all.clicks + e.clicks,
        conversions: all.conversions + e.conversions,
    });
    let (click, conversion) = (all.clicks / all.impressions.max(1.0), all.conversions / all.clicks.max(1.0));
    let rate = |events: f64, of: f64, prior: f64, weight: f64| (events + prior * weight) / (of + weight);
    let one = |(trained, held): (&Events, &Events)| {
        let predicted_click = rate(trained.clicks, trained.impressions, click, SHRINKAGE);
        let predicted_conversion = rate(trained.conversions, trained.clicks, conversion, SHRINKAGE);
        KindRates {
            predicted_click,
            predicted_conversion,
            true_click: rate(held.clicks, held.impressions, predicted_click, HELD_SHRINKAGE),
            true_conversion: rate(held.conversions, held.clicks, predicted_conversion, HELD_SHRINKAGE),
        }
    };
    Ok(trained.iter().zip(&held).map(one).collect())
}

#[cfg(test)]
impl World {
    /// A market without records: a third of the campaigns pays for each event, with five ads that may be shown everywhere,
    /// and a day of visits has twice as many at noon as at midnight.
    pub fn made_up(campaigns: u32, seed: u64) -> Self {
        const KINDS: u32 = 20;
        let kind = |kind: u32| {
            let (click, conversion) = (0.02 + 0.002 * f64::from(kind), 0.2);
            KindRates {
                predicted_click: click,
                predicted_conversion: conversion,
                true_click: click * 0.95,
                true_conversion: conversion,
            }
        };
        let mut world = Self {
            campaigns: Vec::new(),
            ads: Vec::new(),
            kinds: (0..KINDS).map(kind).collect(),
            everywhere: Place::default(),
            stores: HashMap::new(),
            households: HashMap::new(),
            visits: Vec::new(),
            kind_shares: vec![1.0 / f64::from(KINDS); KINDS as usize],
            held: None,
            seed,
        };
        for number in 0..campaigns {
            let cost = 2_000_000 + 100_000 * u64::from(number);
            // The same worth of an impression, at 4 clicks in a hundred and a conversion in five clicks.
            let (bid_type, bid_micros) =
                [(BidType::Cpm, cost * 8), (BidType::Cpc, cost / 5), (BidType::Cpa, cost)][number as usize % 3];
            let (id, advertiser) = (u64::from(number) + 100, u64::from(number) + 1);
            world.campaigns.push(MarketCampaign { id, advertiser, bid_type, bid_micros, budget_nanos: 1_000_000_000 });
            for kind in (0..5).map(|ad| (number * 5 + ad) % KINDS) {
                let ad = world.ads.len() as u32;
                world.ads.push(MarketAd {
                    id: u64::from(ad) + 1_000,
                    campaign: number,
                    kind,
                    category: u64::from(kind) + 1,
                });
                world.everywhere.add(ad, kind);
            }
        }
        for hour in 0..24u64 {
            let visits = 40 + 40 * hour.min(23 - hour) / 11;
            world.visits.extend((0..visits).map(|visit| (hour * 3_600 + visit * 30, visit * 31 % 97, 0)));
        }
        world
    }
}
