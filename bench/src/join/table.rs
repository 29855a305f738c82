//! Which rows has the table, and how do they look?
//!
//! Three files: `visits.csv.gz`, a row a request with the user's features; `impressions_train.csv.gz` and
//! `impressions_valid.csv.gz`, a row an ad with its labels, weight, predictions and the item's features. Columns of
//! features are named `u.`, `i.`, `m.` and `p.` with the feature or head; a category is 16 hexadecimal digits, a set
//! `HASH:WEIGHT` parted by blanks, a missing value empty.

use super::labels::{Exposure, Labels};
use super::{JoinError, Report, Rows};
use flate2::Compression;
use flate2::write::GzEncoder;
use gavel_router::logged::{LoggedValue, ScoredCandidate, ScoredLine};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::File;
use std::path::Path;

type Csv = csv::Writer<GzEncoder<File>>;

/// Which ads become rows.
pub struct Rule<'a> {
    /// Those that were seen, or all.
    pub rows: Rows,
    /// Served until then.
    pub closed_until: u64,
    /// The period of a time.
    pub period: &'a dyn Fn(u64) -> u64,
}

/// What becomes of each ad.
pub struct Plan {
    /// In the order of the log; `None` when it is no row.
    rows: Vec<Option<(Labels, u64)>>,
    /// The first period of the validation.
    first_valid: u64,
}

impl Plan {
    /// Applies the rule.
    pub fn of(
        exposures: &[Exposure],
        labels: &[Option<Labels>],
        rule: &Rule<'_>,
        valid_periods: u64,
        report: &mut Report,
    ) -> Self {
        let mut row = |(exposure, labels): (&Exposure, &Option<Labels>)| {
            let Some(labels) = labels else {
                report.repeated += 1;
                return None;
            };
            if exposure.served_ms > rule.closed_until {
                report.open += 1;
                return None;
            }
            if rule.rows == Rows::Shown && !labels.was_seen() {
                report.unseen += 1;
                return None;
            }
            Some((*labels, (rule.period)(exposure.served_ms)))
        };
        let rows: Vec<_> = exposures.iter().zip(labels).map(&mut row).collect();
        let periods: BTreeSet<u64> = rows.iter().flatten().map(|(_, period)| *period).collect();
        report.periods = periods.len() as u64;
        // The last ones that have rows; without enough of them everything is training, and the caller says so.
        let skipped = (periods.len() as u64).saturating_sub(valid_periods) as usize;
        let enough = periods.len() as u64 > valid_periods;
        let first_valid = periods.into_iter().nth(skipped).filter(|_| enough).unwrap_or(u64::MAX);
        Self { rows, first_valid }
    }
}

/// Names of all features and heads of a log, each list sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    user: BTreeSet<String>,
    item: BTreeSet<String>,
    matches: BTreeSet<String>,
    heads: BTreeSet<String>,
}

impl Names {
    /// Adds those of a request.
    pub fn add(&mut self, line: &ScoredLine) {
        let add = |names: &mut BTreeSet<String>, name: &String| {
            // Nearly always there.
            if !names.contains(name) {
                names.insert(name.clone());
            }
        };
        line.user.keys().for_each(|name| add(&mut self.user, name));
        for candidate in line.candidates.iter().filter(|c| c.position.is_some()) {
            candidate.features.keys().for_each(|name| add(&mut self.item, name));
            candidate.matches.keys().for_each(|name| add(&mut self.matches, name));
            candidate.predictions.keys().for_each(|name| add(&mut self.heads, name));
        }
    }
}

/// The files that are being written.
pub struct Tables {
    names: Names,
    visits: Csv,
    train: Csv,
    valid: Csv,
    visit: u64,
    counts: Report,
}

const VISIT_COLUMNS: [&str; 5] = ["visit", "ts", "period", "user", "placement"];
const ROW_COLUMNS: [&str; 17] = [
    "visit",
    "ts",
    "period",
    "user",
    "placement",
    "item",
    "ad",
    "campaign",
    "advertiser",
    "slot",
    "position",
    "bid_type",
    "price_micros",
    "weight",
    "click",
    "conv",
    "win",
];

impl Tables {
    /// Begins the files.
    pub fn create(folder: &Path, names: Names) -> Result<Self, JoinError> {
        std::fs::create_dir_all(folder).map_err(|source| JoinError::Io { path: folder.to_owned(), source })?;
        let with = |prefix: &str, names: &BTreeSet<String>| -> Vec<String> {
            names.iter().map(|name| format!("{prefix}.{name}")).collect()
        };
        let mut visits = csv(&folder.join("visits.csv.gz"))?;
        let head = VISIT_COLUMNS.iter().map(|c| (*c).to_owned()).chain(with("u", &names.user));
        visits.write_record(head)?;
        let columns = [with("i", &names.item), with("m", &names.matches), with("p", &names.heads)].concat();
        let rows = |name: &str| -> Result<Csv, JoinError> {
            let mut table = csv(&folder.join(name))?;
            table.write_record(ROW_COLUMNS.iter().map(|c| (*c).to_owned()).chain(columns.clone()))?;
            Ok(table)
        };
        let (train, valid) = (rows("impressions_train.csv.gz")?, rows("impressions_valid.csv.gz")?);
        Ok(Self { names, visits, train, valid, visit: 0, counts: Report::default() })
    }

    /// Adds the rows of a request; `place` counts the ads with a token, in the order of the log.
    pub fn add(
        &mut self,
        line: &ScoredLine,
        exposures: &[Exposure],
        plan: &Plan,
        place: &mut usize,
    ) -> Result<(), JoinError> {
        let mut period_of_visit = None;
        for candidate in &line.candidates {
            let Some(exposure) = Exposure::of(line, candidate) else { continue };
            let at = *place;
            *place += 1;
            if exposures.get(at) != Some(&exposure) {
                return Err(JoinError::Usage("the log changed while it was read: join it again".to_owned()));
            }
            if let Some((labels, period)) = plan.rows.get(at).copied().flatten() {
                period_of_visit = Some(period);
                self.row(line, candidate, labels, (period, plan.first_valid))?;
            }
        }
        let Some(period) = period_of_visit else { return Ok(()) };
        let mut record = self.front(line, period);
        record.extend(self.names.user.iter().map(|name| line.user.get(name).map(cell).unwrap_or_default()));
        self.visits.write_record(record)?;
        self.visit += 1;
        Ok(())
    }

    fn front(&self, line: &ScoredLine, period: u64) -> Vec<String> {
        vec![
            self.visit.to_string(),
            (line.time_ms / 1_000).to_string(),
            period.to_string(),
            line.user_id.clone().unwrap_or_default(),
            line.placement.clone(),
        ]
    }

    fn row(
        &mut self,
        line: &ScoredLine,
        candidate: &ScoredCandidate,
        labels: Labels,
        (period, first_valid): (u64, u64),
    ) -> Result<(), JoinError> {
        let mut record = self.front(line, period);
        let bid_type = serde_json::to_value(candidate.bid_type).ok();
        let bid_type = bid_type.and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default();
        record
            .extend([candidate.item, candidate.ad, candidate.campaign, candidate.advertiser].map(|id| id.to_string()));
        record.extend([candidate.slot, candidate.position].map(|at| at.map(|at| at.to_string()).unwrap_or_default()));
        record.push(bid_type);
        record.push(candidate.price_micros.map(|price| price.to_string()).unwrap_or_default());
        record.push(candidate.sampling_weight.to_string());
        record.extend([labels.click, labels.conversion, labels.win].map(|label| u8::from(label).to_string()));
        let of = &self.names;
        record.extend(of.item.iter().map(|name| candidate.features.get(name).map(cell).unwrap_or_default()));
        record
            .extend(of.matches.iter().map(|name| candidate.matches.get(name).map(f32::to_string).unwrap_or_default()));
        record.extend(
            of.heads.iter().map(|name| candidate.predictions.get(name).map(f32::to_string).unwrap_or_default()),
        );
        let counts = &mut self.counts;
        counts.clicks += u64::from(labels.click);
        counts.conversions += u64::from(labels.conversion);
        counts.weight += candidate.sampling_weight;
        let is_valid = period >= first_valid;
        *(if is_valid { &mut counts.valid_rows } else { &mut counts.train_rows }) += 1;
        let table = if is_valid { &mut self.valid } else { &mut self.train };
        Ok(table.write_record(record)?)
    }

    /// Ends the files.
    pub fn finish(self, report: &mut Report) -> Result<(), JoinError> {
        for table in [self.visits, self.train, self.valid] {
            let packed = table.into_inner().map_err(|e| csv::Error::from(e.into_error()))?;
            packed.finish().map_err(csv::Error::from)?;
        }
        let counts = self.counts;
        (report.train_rows, report.valid_rows) = (counts.train_rows, counts.valid_rows);
        (report.clicks, report.conversions, report.weight) = (counts.clicks, counts.conversions, counts.weight);
        Ok(())
    }
}

fn csv(path: &Path) -> Result<Csv, JoinError> {
    let file = File::create(path).map_err(|source| JoinError::Io { path: path.to_owned(), source })?;
    Ok(csv::Writer::from_writer(GzEncoder::new(file, Compression::fast())))
}

/// A value as a cell.
fn cell(value: &LoggedValue) -> String {
    match value {
        LoggedValue::Category(hash) => format!("{:016x}", hash.0),
        LoggedValue::Number(number) => number.to_string(),
        LoggedValue::Set(pairs) => {
            let mut out = String::new();
            for (hash, weight) in pairs {
                let _ = write!(out, "{}{:016x}:{weight}", if out.is_empty() { "" } else { " " }, hash.0);
            }
            out
        }
    }
}
