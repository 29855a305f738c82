//! In which order is a corpus made?
//!
//! Products and rates first, then one pass over the ads for what a campaign has, then one that writes.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use serde::Serialize;

use super::campaign::{BidType, Campaign, Departments, Prices, Rates, weekly_budget_micros};
use super::distinct::Recombination;
use super::history::Histories;
use super::records::{AdLine, CampaignLine, FeatureText, Features, ItemLine, RequestLine, RequestTerm, decimal};
use super::selection::Selection;
use super::source::{Product, Tables};
use super::targeting::{DECLARED, Stores};
use super::taxonomy::Taxonomy;
use super::write::LineFile;
use super::{CorpusArgs, CorpusError, CorpusSize, LAST_TRAINING_WEEK};

/// Requests of the demo, spread evenly over the four weeks.
const DEMO_REQUESTS: u64 = 4_000;
/// Slots that every request offers.
const SLOTS: u32 = 4;
/// Ads of one product are numbered below this: store ordinal + 1, or 0 for a product's only ad.
const ADS_PER_ITEM: u64 = 4_096;
/// Popularity is counted in lines a hundred weeks, shares in lines of ten thousand: most products are rare, and the
/// logarithm that models take of these numbers tells nothing apart far below 1.
const POPULARITY_WEEKS: f64 = 100.0;
const SHARE_OF: f64 = 10_000.0;
const SECONDS_PER_DAY: u64 = 86_400;

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Lines of `items.jsonl.zst`.
    pub items: u64,
    /// Lines of `ads.jsonl.zst`.
    pub ads: u64,
    /// Lines of `campaigns.jsonl.zst`.
    pub campaigns: u64,
    /// Manufacturers with at least one ad.
    pub advertisers: u64,
    /// Lines of `users.jsonl.zst`.
    pub users: u64,
    /// Lines of `requests.jsonl.zst`.
    pub requests: u64,
}

/// Builds the corpus that the arguments ask for.
pub fn run(args: &CorpusArgs) -> Result<Summary, CorpusError> {
    let tables = Tables::open(&args.data)?;
    let products = tables.products()?;
    let by_id: HashMap<u64, &Product> = products.iter().map(|product| (product.id, product)).collect();
    let corpus = Corpus::prepare(args, &tables, &products, &by_id)?;
    let mut summary = match args.distinct {
        Some(items) => corpus.write_distinct(&products, items)?,
        None => corpus.write_real(&tables, &products, &by_id)?,
    };
    summary.users = corpus.write_users(&tables, &by_id)?;
    summary.requests = corpus.write_requests(&tables)?;
    let declared = args.out.join("targeting.toml");
    fs::write(&declared, DECLARED).map_err(|source| CorpusError::File { path: declared, source })?;
    Ok(summary)
}

/// What every part of the writing needs.
struct Corpus<'a> {
    args: &'a CorpusArgs,
    level: i32,
    departments: Departments,
    prices: Prices,
    rates: Rates,
    stores: Stores,
    taxonomy: Taxonomy,
    lines_by_type: HashMap<&'a str, u64>,
    weekly_discounts: HashMap<u64, f64>,
}

impl<'a> Corpus<'a> {
    fn prepare(
        args: &'a CorpusArgs,
        tables: &Tables,
        products: &'a [Product],
        by_id: &HashMap<u64, &'a Product>,
    ) -> Result<Self, CorpusError> {
        let mut rates = Rates::default();
        tables.impressions(|impression| {
            let kind = by_id.get(&impression.product).map_or("", |product| product.kind.as_str());
            rates.add(kind, impression);
        })?;
        let mut weekly_discounts: HashMap<u64, f64> = HashMap::new();
        tables.spend(|spend| {
            if spend.week <= LAST_TRAINING_WEEK {
                *weekly_discounts.entry(spend.manufacturer).or_default() +=
                    spend.discounts / f64::from(LAST_TRAINING_WEEK);
            }
        })?;
        let mut stores = Vec::new();
        tables.pairs(|pair| {
            if stores.last() != Some(&pair.store) {
                stores.push(pair.store);
            }
            if stores.len() > 100_000 {
                stores.sort_unstable();
                stores.dedup();
            }
            Ok(())
        })?;
        let mut lines_by_type: HashMap<&str, u64> = HashMap::new();
        for product in products {
            *lines_by_type.entry(&product.kind).or_default() += product.lines;
        }
        Ok(Self {
            args,
            level: if args.size == CorpusSize::Demo { 19 } else { 3 },
            departments: Departments::of(products),
            prices: Prices::of(products),
            rates,
            stores: Stores::new(args.seed, stores),
            taxonomy: Taxonomy::new(),
            lines_by_type,
            weekly_discounts,
        })
    }

    fn write_real(
        &self,
        tables: &Tables,
        products: &[Product],
        by_id: &HashMap<u64, &Product>,
    ) -> Result<Summary, CorpusError> {
        let selection = Selection::of(self.args.size, tables, products)?;
        let mut ads_of_product: BTreeMap<u64, u64> = BTreeMap::new();
        selection.each(tables, |product, _| {
            *ads_of_product.entry(product).or_default() += 1;
            Ok(())
        })?;
        let mut items = self.file("items")?;
        let mut campaigns = BTreeMap::new();
        for (id, ads) in ads_of_product {
            if let Some(product) = by_id.get(&id) {
                items.push(&self.item(product))?;
                self.count(&mut campaigns, product, ads);
            }
        }
        let mut ads = self.file("ads")?;
        let per_product = matches!(selection, Selection::PerProduct(_));
        selection.each(tables, |id, stores| {
            let Some(product) = by_id.get(&id) else { return Ok(()) };
            let ordinal = if per_product { 0 } else { stores.first().map_or(0, |store| self.stores.ordinal(*store)) };
            ads.push(&self.ad(product, ordinal, stores))
        })?;
        self.summary(items, ads, &campaigns)
    }

    fn write_distinct(&self, products: &[Product], count: u64) -> Result<Summary, CorpusError> {
        let mut items = self.file("items")?;
        let mut ads = self.file("ads")?;
        let mut campaigns = BTreeMap::new();
        if let Some(recombination) = Recombination::new(self.args.seed, products) {
            for n in 0..count {
                let product = recombination.item(n);
                items.push(&self.item(&product))?;
                ads.push(&self.ad(&product, 0, &[recombination.store(n, self.stores.all())]))?;
                self.count(&mut campaigns, &product, 1);
            }
        }
        self.summary(items, ads, &campaigns)
    }

    fn summary(
        &self,
        items: LineFile,
        ads: LineFile,
        campaigns: &BTreeMap<u64, Campaign>,
    ) -> Result<Summary, CorpusError> {
        let mut ads_of: BTreeMap<u64, u64> = BTreeMap::new();
        for campaign in campaigns.values() {
            *ads_of.entry(campaign.manufacturer).or_default() += campaign.ads;
        }
        let mut file = self.file("campaigns")?;
        for (&id, campaign) in campaigns {
            let discounts = self.weekly_discounts.get(&campaign.manufacturer).copied().unwrap_or(0.0);
            let all = ads_of.get(&campaign.manufacturer).copied().unwrap_or(campaign.ads);
            file.push(&CampaignLine {
                campaign_id: id,
                advertiser_id: campaign.manufacturer,
                bid_type: BidType::of(self.args.seed, id).text(),
                bid: decimal(campaign.bid_micros()),
                status: "active",
                multiplier_ppm: 1_000_000,
                weekly_budget: decimal(weekly_budget_micros(discounts, campaign.ads, all)),
            })?;
        }
        Ok(Summary {
            items: items.finish()?,
            ads: ads.finish()?,
            campaigns: file.finish()?,
            advertisers: ads_of.len() as u64,
            ..Summary::default()
        })
    }

    fn write_users(&self, tables: &Tables, by_id: &HashMap<u64, &Product>) -> Result<u64, CorpusError> {
        let mut histories = Histories::default();
        tables.purchases(|purchase| histories.add(purchase))?;
        let mut file = self.file("users")?;
        for household in tables.households()? {
            file.push(&histories.line(&household, by_id))?;
        }
        file.finish()
    }

    fn write_requests(&self, tables: &Tables) -> Result<u64, CorpusError> {
        let mut after_training = 0;
        tables.visits(|visit| {
            after_training += u64::from(visit.week > LAST_TRAINING_WEEK);
            Ok(())
        })?;
        let wanted = if self.args.size == CorpusSize::Demo { DEMO_REQUESTS } else { after_training };
        let mut file = self.file("requests")?;
        let mut seen = 0;
        tables.visits(|visit| {
            if visit.week <= LAST_TRAINING_WEEK {
                return Ok(());
            }
            seen += 1;
            // Evenly spread, so that the curve of the day and the week stays.
            if seen * wanted / after_training == (seen - 1) * wanted / after_training {
                return Ok(());
            }
            let store = visit.store.to_string();
            let context = BTreeMap::from([
                ("store", store.clone()),
                ("hour", (visit.ts % SECONDS_PER_DAY / 3_600).to_string()),
                ("weekday", weekday(visit.ts).to_string()),
            ]);
            file.push(&RequestLine {
                ts: visit.ts,
                user_id: visit.household.to_string(),
                placement: "home",
                terms: vec![RequestTerm { dimension: "store", values: vec![store] }],
                context,
                slots: SLOTS,
            })
        })?;
        file.finish()
    }

    fn item(&self, product: &Product) -> ItemLine {
        let mut features = Features::new();
        let categories = [
            ("product", product.id.to_string()),
            ("product_type", product.kind.clone()),
            ("product_category", product.category.clone()),
            ("department", product.department.clone()),
            ("manufacturer", product.manufacturer.to_string()),
            ("brand", product.brand.clone()),
        ];
        for (name, value) in categories.into_iter().filter(|(_, value)| !value.is_empty()) {
            features.insert(name, FeatureText::Category(value));
        }
        let of_type = self.lines_by_type.get(product.kind.as_str()).copied().unwrap_or(0);
        let share = (!product.kind.is_empty() && of_type > 0).then(|| product.lines as f64 / of_type as f64 * SHARE_OF);
        let numbers = [
            ("price", product.list_price),
            ("discount", product.discount),
            ("popularity", Some(product.lines as f64 / f64::from(LAST_TRAINING_WEEK) * POPULARITY_WEEKS)),
            ("type_share", share),
        ];
        for (name, value) in numbers {
            if let Some(value) = value {
                features.insert(name, FeatureText::Dense((value * 1e3).round() / 1e3));
            }
        }
        ItemLine {
            item_id: product.id,
            advertiser_id: product.manufacturer,
            categories: self.taxonomy.ids(product),
            features,
            title: product.title.clone(),
            url: format!("https://shop.example/p/{}", product.id),
            image_url: format!("https://shop.example/i/{}.webp", product.id),
        }
    }

    fn ad(&self, product: &Product, ordinal: u64, stores: &[u32]) -> AdLine {
        let campaign_id = self.departments.campaign(product);
        AdLine {
            ad_id: product.id * ADS_PER_ITEM + ordinal,
            item_id: product.id,
            campaign_id,
            targeting: self.stores.terms(campaign_id, stores),
        }
    }

    fn count(&self, campaigns: &mut BTreeMap<u64, Campaign>, product: &Product, ads: u64) {
        let id = self.departments.campaign(product);
        campaigns.entry(id).or_default().add(self.args.seed, id, product, ads, &self.prices, &self.rates);
    }

    fn file(&self, name: &str) -> Result<LineFile, CorpusError> {
        LineFile::create(Path::new(&self.args.out), name, self.level)
    }
}

/// 0 = Monday; 1970-01-01 was a Thursday.
fn weekday(ts: u64) -> u64 {
    (ts / SECONDS_PER_DAY + 3) % 7
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weekdays_begin_with_monday() {
        assert_eq!(weekday(0), 3);
        // 2017-01-01 was a Sunday.
        assert_eq!(weekday(1_483_271_606), 6);
    }

    #[test]
    fn absent_tables_are_said_plainly() {
        let folder = tempfile::tempdir().unwrap();
        let args = CorpusArgs {
            size: CorpusSize::S,
            out: folder.path().join("out"),
            distinct: None,
            seed: 1,
            data: folder.path().to_path_buf(),
        };
        let error = run(&args).unwrap_err().to_string();
        assert!(error.contains("products.csv.gz is absent") && error.contains("GAVEL_DATA"), "{error}");
    }
}
