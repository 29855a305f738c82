//! Who advertises a product, how does it pay, how much, and how widely?
//!
//! Campaign = manufacturer × department. Bid type and breadth are drawn by a seeded hash of the campaign, so
//! that they do not depend on the size of the corpus. A product's worth of a conversion is
//! `max(0.05, discount a unit, 0.10 × paid price)`; the campaign bids the mean over its promoted products,
//! converted by the rates of each product's type: CPC by conversions a click, CPM by conversions a thousand
//! impressions. Rates are shrunk towards the rate of all by [`SHRINKAGE`], since a type that was
//! never bought would otherwise bid 0 and never be served.

use std::collections::{BTreeMap, HashMap};

use gavel_proto::hash::combine;

use super::source::{Impression, Product};

/// Departments a manufacturer can have; keeps campaign ids readable: manufacturer × 100 + department.
pub const DEPARTMENTS_MAX: u64 = 100;
/// Weighted events of the overall rate added to every type: about four sampled impressions.
const SHRINKAGE: f64 = 1_000.0;
/// No conversion is worth less, in currency units.
const WORTH_MIN: f64 = 0.05;
/// Share of the paid price that a conversion is worth.
const WORTH_OF_PRICE: f64 = 0.10;
/// No campaign has less a week, in currency units.
const WEEKLY_BUDGET_MIN: f64 = 5.0;

const BREADTH: u64 = 0x62_7265_6164_7468;
const BID_TYPE: u64 = 0x62_6964_5f74_7970;

/// Which event is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BidType {
    Cpa,
    Cpc,
    Cpm,
}

impl BidType {
    /// 50 % CPA, 35 % CPC, 15 % CPM.
    pub fn of(seed: u64, campaign: u64) -> Self {
        match percent(seed ^ BID_TYPE, campaign) {
            0..50 => Self::Cpa,
            50..85 => Self::Cpc,
            _ => Self::Cpm,
        }
    }

    /// As the catalogue spells it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Cpa => "cpa",
            Self::Cpc => "cpc",
            Self::Cpm => "cpm",
        }
    }
}

/// In how many stores a campaign's ads may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breadth {
    National,
    Regional,
    SingleStore,
}

impl Breadth {
    /// 40 % national, 30 % regional, 30 % single store.
    pub fn of(seed: u64, campaign: u64) -> Self {
        match percent(seed ^ BREADTH, campaign) {
            0..40 => Self::National,
            40..70 => Self::Regional,
            _ => Self::SingleStore,
        }
    }
}

fn percent(seed: u64, campaign: u64) -> u64 {
    combine(seed, campaign) % 100
}

/// Numbers of the departments, by name order.
#[derive(Debug)]
pub struct Departments(BTreeMap<String, u64>);

impl Departments {
    pub fn of(products: &[Product]) -> Self {
        let mut names: BTreeMap<String, u64> = products.iter().map(|p| (p.department.clone(), 0)).collect();
        for (number, place) in names.values_mut().zip(0..DEPARTMENTS_MAX) {
            *number = place;
        }
        Self(names)
    }

    /// The campaign of a product.
    pub fn campaign(&self, product: &Product) -> u64 {
        product.manufacturer * DEPARTMENTS_MAX + self.0.get(&product.department).copied().unwrap_or(0)
    }
}

/// Conversions a click and conversions an impression, per product type and over all.
#[derive(Debug, Default)]
pub struct Rates {
    by_type: HashMap<String, Events>,
    all: Events,
}

#[derive(Clone, Copy, Debug, Default)]
struct Events {
    impressions: f64,
    clicks: f64,
    conversions: f64,
}

impl Rates {
    /// Counts one weighted impression of a product of this type.
    pub fn add(&mut self, kind: &str, impression: Impression) {
        if !self.by_type.contains_key(kind) {
            self.by_type.insert(kind.to_owned(), Events::default());
        }
        let of_type = self.by_type.get_mut(kind);
        for events in of_type.into_iter().chain([&mut self.all]) {
            events.impressions += impression.weight;
            events.clicks += if impression.clicked { impression.weight } else { 0.0 };
            events.conversions += if impression.converted { impression.weight } else { 0.0 };
        }
    }

    /// What of a conversion's worth one paid event carries.
    fn conversions_per_event(&self, bid_type: BidType, kind: &str) -> f64 {
        let own = self.by_type.get(kind).copied().unwrap_or_default();
        let (own_events, all_events, scale) = match bid_type {
            BidType::Cpa => return 1.0,
            BidType::Cpc => (own.clicks, self.all.clicks, 1.0),
            BidType::Cpm => (own.impressions, self.all.impressions, 1_000.0),
        };
        let overall = self.all.conversions / all_events.max(1.0);
        scale * (own.conversions + SHRINKAGE * overall) / (own_events + SHRINKAGE)
    }
}

/// Paid prices, with the medians that stand in for missing ones: of the type, then of the department.
#[derive(Debug)]
pub struct Prices {
    by_type: HashMap<String, f64>,
    by_department: HashMap<String, f64>,
}

impl Prices {
    pub fn of(products: &[Product]) -> Self {
        let medians = |key: fn(&Product) -> &String| {
            let mut prices: HashMap<String, Vec<f64>> = HashMap::new();
            for product in products {
                if let Some(price) = product.paid_price {
                    prices.entry(key(product).clone()).or_default().push(price);
                }
            }
            prices.into_iter().map(|(name, prices)| (name, median(prices))).collect()
        };
        Self { by_type: medians(|p| &p.kind), by_department: medians(|p| &p.department) }
    }

    fn paid(&self, product: &Product) -> f64 {
        let of_type = if product.kind.is_empty() { None } else { self.by_type.get(&product.kind) };
        let stand_in = || of_type.or_else(|| self.by_department.get(&product.department)).copied();
        product.paid_price.or_else(stand_in).unwrap_or(0.0)
    }

    /// What a conversion of this product is worth to its manufacturer.
    pub fn worth(&self, product: &Product) -> f64 {
        WORTH_MIN.max(product.discount.unwrap_or(0.0)).max(WORTH_OF_PRICE * self.paid(product))
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// The running mean of what a campaign's products would bid, and how many ads it has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Campaign {
    pub manufacturer: u64,
    pub ads: u64,
    products: u64,
    bids: f64,
}

impl Campaign {
    /// Adds one product with this many ads.
    pub fn add(&mut self, seed: u64, campaign: u64, product: &Product, ads: u64, prices: &Prices, rates: &Rates) {
        let events = rates.conversions_per_event(BidType::of(seed, campaign), &product.kind);
        self.manufacturer = product.manufacturer;
        self.ads += ads;
        self.products += 1;
        self.bids += prices.worth(product) * events;
    }

    /// The bid in micros; at least one, since a bid of 0 is never served.
    pub fn bid_micros(&self) -> u64 {
        to_micros(self.bids / self.products.max(1) as f64).max(1)
    }
}

/// The manufacturer's mean weekly discounts, split over its campaigns by their ads.
pub fn weekly_budget_micros(weekly_discounts: f64, ads: u64, ads_of_manufacturer: u64) -> u64 {
    let share = ads as f64 / ads_of_manufacturer.max(1) as f64;
    to_micros(WEEKLY_BUDGET_MIN.max(weekly_discounts * share))
}

fn to_micros(units: f64) -> u64 {
    // Amounts of a supermarket: far below the 2^53 where this would lose a micro.
    (units * 1e6).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(kind: &str, paid_price: Option<f64>, discount: Option<f64>) -> Product {
        Product { kind: kind.into(), department: "D".into(), paid_price, discount, ..Product::default() }
    }

    #[test]
    fn a_missing_price_takes_the_median_of_its_type_then_department() {
        let products = [product("T", Some(2.0), None), product("T", Some(4.0), None), product("U", Some(30.0), None)];
        let prices = Prices::of(&products);
        let worth = |kind, price, discount| prices.worth(&product(kind, price, discount));
        assert!((worth("T", None, None) - 0.3).abs() < 1e-12);
        assert!((worth("V", None, None) - 0.4).abs() < 1e-12);
        assert!((worth("T", Some(0.1), None) - 0.05).abs() < 1e-12);
        assert!((worth("T", Some(2.0), Some(0.7)) - 0.7).abs() < 1e-12);
    }

    #[test]
    fn shares_of_types_and_breadth_are_as_decided() {
        let mut counts = [0u32; 6];
        for campaign in 0..20_000 {
            counts[BidType::of(7, campaign) as usize] += 1;
            counts[3 + Breadth::of(7, campaign) as usize] += 1;
        }
        for (count, share) in counts.into_iter().zip([0.5, 0.35, 0.15, 0.4, 0.3, 0.3]) {
            assert!((f64::from(count) / 20_000.0 - share).abs() < 0.02, "{counts:?}");
        }
    }

    #[test]
    fn bids_follow_the_rate_of_the_type() {
        let mut rates = Rates::default();
        for n in 0..1_000 {
            let clicked = n < 100;
            rates.add("T", Impression { product: 1, clicked, converted: n < 10, weight: 1_000.0 });
        }
        // One type alone: shrinking towards the overall rate changes nothing.
        assert!((rates.conversions_per_event(BidType::Cpc, "T") - 0.1).abs() < 1e-9);
        assert!((rates.conversions_per_event(BidType::Cpm, "T") - 10.0).abs() < 1e-9);
        assert!((rates.conversions_per_event(BidType::Cpa, "T") - 1.0).abs() < 1e-9);
        assert!(rates.conversions_per_event(BidType::Cpc, "never shown") > 0.0);
    }

    #[test]
    fn budgets_are_split_by_ads_above_a_floor() {
        assert_eq!(weekly_budget_micros(100.0, 1, 4), 25_000_000);
        assert_eq!(weekly_budget_micros(100.0, 1, 100), 5_000_000);
    }
}
