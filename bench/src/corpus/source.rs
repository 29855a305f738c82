//! What do the tables of `cj-ads` hold, line by line?
//!
//! Typed rows over gzipped CSV, streamed: a callback per row, no table is kept here. A column is found by
//! its name in the header, so a reordered table is read rightly and a missing column is said.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use csv::StringRecord;
use flate2::read::MultiGzDecoder;

use super::CorpusError;

/// A product: the item of the catalogue.
#[derive(Clone, Debug, Default)]
pub struct Product {
    pub id: u64,
    pub manufacturer: u64,
    pub department: String,
    pub category: String,
    pub kind: String,
    pub brand: String,
    pub title: String,
    /// Transaction lines up to the last training week.
    pub lines: u64,
    pub list_price: Option<f64>,
    pub paid_price: Option<f64>,
    pub discount: Option<f64>,
    pub promoted: bool,
}

/// A product promoted in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    pub product: u64,
    pub store: u32,
    pub weeks: u32,
}

/// A line of a shopping basket.
#[derive(Clone, Copy, Debug)]
pub struct Purchase {
    pub household: u64,
    pub basket: u64,
    pub product: u64,
    pub week: u32,
}

/// A household and what it said of itself.
#[derive(Clone, Debug)]
pub struct Household {
    pub id: u64,
    pub traits: Vec<(&'static str, String)>,
}

/// A visit to a store at a time.
#[derive(Clone, Copy, Debug)]
pub struct Visit {
    pub ts: u64,
    pub week: u32,
    pub household: u64,
    pub store: u32,
}

/// A shown product and what followed.
#[derive(Clone, Copy, Debug)]
pub struct Impression {
    pub product: u64,
    pub clicked: bool,
    pub converted: bool,
    pub weight: f64,
}

/// A manufacturer's discounts in one week.
#[derive(Clone, Copy, Debug)]
pub struct Spend {
    pub manufacturer: u64,
    pub week: u32,
    pub discounts: f64,
}

/// Columns of `users.csv.gz` that become categorical features.
pub const TRAITS: [&str; 7] =
    ["age", "income", "home_ownership", "marital_status", "household_size", "household_comp", "kids_count"];

/// The folder with the tables.
#[derive(Clone, Debug)]
pub struct Tables {
    folder: PathBuf,
}

impl Tables {
    /// Opens the `cj-ads` folder below `data`; its absence is an error of its own.
    pub fn open(data: &Path) -> Result<Self, CorpusError> {
        let folder = data.join("cj-ads");
        let probe = folder.join("products.csv.gz");
        if probe.is_file() { Ok(Self { folder }) } else { Err(CorpusError::NoData { path: probe }) }
    }

    /// Every product, in the order of ids.
    pub fn products(&self) -> Result<Vec<Product>, CorpusError> {
        let mut products = Vec::new();
        self.each("products.csv.gz", |row| {
            products.push(Product {
                id: row.number("product_id")?,
                manufacturer: row.number("manufacturer_id")?,
                department: row.text("department")?.to_owned(),
                category: row.text("product_category")?.to_owned(),
                kind: row.text("product_type")?.to_owned(),
                brand: row.text("brand")?.to_owned(),
                title: row.text("title")?.to_owned(),
                lines: row.number("n_tx")?,
                list_price: row.optional("list_price")?,
                paid_price: row.optional("paid_price")?,
                discount: row.optional("disc_per_unit")?,
                promoted: row.number::<u64>("promo_rows")? > 0,
            });
            Ok(())
        })?;
        products.sort_by_key(|product: &Product| product.id);
        Ok(products)
    }

    /// Every promoted (product, store) pair, in the order of the table: by product, then store.
    pub fn pairs(&self, mut each: impl FnMut(Pair) -> Result<(), CorpusError>) -> Result<(), CorpusError> {
        self.each("ads_product_store.csv.gz", |row| {
            each(Pair {
                product: row.number("product_id")?,
                store: row.number("store_id")?,
                weeks: row.number("weeks")?,
            })
        })
    }

    /// Every line bought.
    pub fn purchases(&self, mut each: impl FnMut(Purchase)) -> Result<(), CorpusError> {
        self.each("transactions_w01_44.csv.gz", |row| {
            each(Purchase {
                household: row.number("household_id")?,
                basket: row.number("basket_id")?,
                product: row.number("product_id")?,
                week: row.number("week")?,
            });
            Ok(())
        })
    }

    /// Every household.
    pub fn households(&self) -> Result<Vec<Household>, CorpusError> {
        let mut households = Vec::new();
        self.each("users.csv.gz", |row| {
            let mut traits = Vec::new();
            for name in TRAITS {
                let value = row.text(name)?;
                if !value.is_empty() {
                    traits.push((name, value.to_owned()));
                }
            }
            households.push(Household { id: row.number("household_id")?, traits });
            Ok(())
        })?;
        Ok(households)
    }

    /// Every visit with its time, in time order.
    pub fn visits(&self, mut each: impl FnMut(Visit) -> Result<(), CorpusError>) -> Result<(), CorpusError> {
        self.each("requests.csv.gz", |row| {
            each(Visit {
                ts: row.number("ts")?,
                week: row.number("week")?,
                household: row.number("household_id")?,
                store: row.number("store_id")?,
            })
        })
    }

    /// Every impression of the training weeks.
    pub fn impressions(&self, each: impl FnMut(Impression)) -> Result<(), CorpusError> {
        self.impressions_of("impressions_train.csv.gz", each)
    }

    /// Every impression of the four weeks after.
    pub fn held_impressions(&self, each: impl FnMut(Impression)) -> Result<(), CorpusError> {
        self.impressions_of("impressions_valid.csv.gz", each)
    }

    fn impressions_of(&self, name: &str, mut each: impl FnMut(Impression)) -> Result<(), CorpusError> {
        self.each(name, |row| {
            each(Impression {
                product: row.number("product_id")?,
                clicked: row.text("click")? == "1",
                converted: row.text("conv")? == "1",
                weight: row.number("weight")?,
            });
            Ok(())
        })
    }

    /// What manufacturers gave away, by week.
    pub fn spend(&self, mut each: impl FnMut(Spend)) -> Result<(), CorpusError> {
        self.each("advertiser_week_spend.csv.gz", |row| {
            let discounts = row.number::<f64>("retail_disc")? + row.number::<f64>("coupon_disc")?;
            each(Spend { manufacturer: row.number("manufacturer_id")?, week: row.number("week")?, discounts });
            Ok(())
        })
    }

    fn each(&self, name: &str, mut each: impl FnMut(&Row<'_>) -> Result<(), CorpusError>) -> Result<(), CorpusError> {
        let path = self.folder.join(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(source) if source.kind() == ErrorKind::NotFound => return Err(CorpusError::NoData { path }),
            Err(source) => return Err(CorpusError::File { path, source }),
        };
        let mut reader = csv::Reader::from_reader(MultiGzDecoder::new(file));
        let bad =
            |line: u64, error: &csv::Error| CorpusError::Line { path: path.clone(), line, reason: error.to_string() };
        let header = reader.headers().map_err(|error| bad(1, &error))?.clone();
        let mut record = StringRecord::new();
        let mut line = 1;
        loop {
            line += 1;
            if !reader.read_record(&mut record).map_err(|error| bad(line, &error))? {
                return Ok(());
            }
            each(&Row { path: &path, line, header: &header, record: &record })?;
        }
    }
}

/// One row with the names of its columns.
struct Row<'a> {
    path: &'a Path,
    line: u64,
    header: &'a StringRecord,
    record: &'a StringRecord,
}

impl Row<'_> {
    fn text(&self, column: &str) -> Result<&str, CorpusError> {
        let place = self.header.iter().position(|name| name == column);
        place.and_then(|place| self.record.get(place)).ok_or_else(|| self.wrong(format!("no column {column}")))
    }

    fn number<T: FromStr>(&self, column: &str) -> Result<T, CorpusError> {
        let text = self.text(column)?;
        text.parse().map_err(|_| self.wrong(format!("{column} is {text:?}, not a number")))
    }

    fn optional(&self, column: &str) -> Result<Option<f64>, CorpusError> {
        if self.text(column)?.is_empty() { Ok(None) } else { self.number(column).map(Some) }
    }

    fn wrong(&self, reason: String) -> CorpusError {
        CorpusError::Line { path: self.path.to_path_buf(), line: self.line, reason }
    }
}
