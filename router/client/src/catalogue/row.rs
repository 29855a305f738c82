//! How does a CSV row say the same as a JSON line?
//!
//! Columns of single values carry the names of the JSON fields; the rest is told by a prefix: `feature.NAME` a
//! category, `number.NAME` a number, `set.NAME` a weighted set, `any.DIMENSION`, `none.DIMENSION` and `range.DIMENSION` targeting. A list
//! is written `a|b`, a weighted set `a:0.5|b:2`; a value that holds one of these signs needs the JSON form.
//! An empty cell means that the field is absent.

use super::line::{FeatureText, Line, RangeText, TargetingText};
use super::{frequency, groups};
use std::collections::BTreeMap;

/// What a column holds.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Column {
    Field(Field),
    Category(String),
    Number(String),
    Set(String),
    AnyOf(String),
    NoneOf(String),
    Ranges(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    ItemId,
    AdId,
    CampaignId,
    AdvertiserId,
    UserId,
    Categories,
    Title,
    Url,
    ImageUrl,
    BidType,
    Bid,
    Status,
    MultiplierPpm,
    WeeklyBudget,
    Reserve,
    Schedule,
    TimeZone,
    Frequency,
    AdGroup,
    AdGroups,
}

const FIELDS: [(&str, Field); 20] = [
    ("item_id", Field::ItemId),
    ("ad_id", Field::AdId),
    ("campaign_id", Field::CampaignId),
    ("advertiser_id", Field::AdvertiserId),
    ("user_id", Field::UserId),
    ("categories", Field::Categories),
    ("title", Field::Title),
    ("url", Field::Url),
    ("image_url", Field::ImageUrl),
    ("bid_type", Field::BidType),
    ("bid", Field::Bid),
    ("status", Field::Status),
    ("multiplier_ppm", Field::MultiplierPpm),
    ("weekly_budget", Field::WeeklyBudget),
    ("reserve", Field::Reserve),
    ("schedule", Field::Schedule),
    ("time_zone", Field::TimeZone),
    ("frequency", Field::Frequency),
    ("ad_group", Field::AdGroup),
    ("ad_groups", Field::AdGroups),
];

/// The meaning of each column of a file.
#[derive(Clone, Debug)]
pub(super) struct Header(Vec<Column>);

impl Header {
    /// Reads the first row.
    pub(super) fn parse(row: &csv::StringRecord) -> Result<Self, String> {
        let mut seen = std::collections::BTreeSet::new();
        let columns: Result<Vec<Column>, String> = row
            .iter()
            .map(|name| {
                let name = name.trim().trim_start_matches('\u{feff}');
                if !seen.insert(name.to_owned()) {
                    return Err(format!("column {name:?} stands twice"));
                }
                column(name).ok_or_else(|| format!("column {name:?} means nothing: see the catalogue format"))
            })
            .collect();
        columns.map(Self)
    }

    /// Reads a row.
    pub(super) fn line(&self, row: &csv::StringRecord) -> Result<Line, String> {
        if row.len() != self.0.len() {
            return Err(format!("{} cells under {} columns", row.len(), self.0.len()));
        }
        let mut line = Line::default();
        let mut rules: BTreeMap<&str, TargetingText> = BTreeMap::new();
        for (column, cell) in self.0.iter().zip(row).filter(|(_, cell)| !cell.is_empty()) {
            match column {
                Column::Field(field) => set_field(&mut line, *field, cell)?,
                Column::Category(name) => {
                    line.features.insert(name.clone(), FeatureText::Category(cell.to_owned()));
                }
                Column::Number(name) => {
                    let number = cell.trim().parse().map_err(|_| format!("number.{name}: {cell:?} is no number"))?;
                    line.features.insert(name.clone(), FeatureText::Dense(number));
                }
                Column::Set(name) => {
                    line.features.insert(name.clone(), weighted(cell).map_err(|e| format!("set.{name}: {e}"))?);
                }
                Column::AnyOf(name) => rules.entry(name).or_default().any_of = list(cell),
                Column::NoneOf(name) => rules.entry(name).or_default().none_of = list(cell),
                Column::Ranges(name) => {
                    let ranges = cell.split('|').map(range).collect::<Result<_, _>>();
                    rules.entry(name).or_default().ranges = ranges.map_err(|e| format!("range.{name}: {e}"))?;
                }
            }
        }
        line.targeting =
            rules.into_iter().map(|(name, rule)| TargetingText { dimension: name.to_owned(), ..rule }).collect();
        Ok(line)
    }
}

fn column(name: &str) -> Option<Column> {
    if let Some((_, field)) = FIELDS.iter().find(|(n, _)| *n == name) {
        return Some(Column::Field(*field));
    }
    let (prefix, rest) = name.split_once('.')?;
    let rest = rest.to_owned();
    match prefix {
        "feature" => Some(Column::Category(rest)),
        "number" => Some(Column::Number(rest)),
        "set" => Some(Column::Set(rest)),
        "any" => Some(Column::AnyOf(rest)),
        "none" => Some(Column::NoneOf(rest)),
        "range" => Some(Column::Ranges(rest)),
        _ => None,
    }
}

fn set_field(line: &mut Line, field: Field, cell: &str) -> Result<(), String> {
    let id = || cell.trim().parse::<u64>().map(Some).map_err(|_| format!("{cell:?} is no id"));
    let text = || Some(cell.trim().to_owned());
    match field {
        Field::ItemId => line.item_id = id()?,
        Field::AdId => line.ad_id = id()?,
        Field::CampaignId => line.campaign_id = id()?,
        Field::AdvertiserId => line.advertiser_id = id()?,
        Field::UserId => line.user_id = Some(cell.to_owned()),
        Field::Categories => line.categories = list(cell),
        Field::Title => cell.clone_into(&mut line.title),
        Field::Url => cell.clone_into(&mut line.url),
        Field::ImageUrl => cell.clone_into(&mut line.image_url),
        Field::BidType => line.bid_type = text(),
        Field::Bid => line.bid = text(),
        Field::Status => line.status = text(),
        Field::MultiplierPpm => {
            line.multiplier_ppm =
                Some(cell.trim().parse().map_err(|_| format!("multiplier_ppm {cell:?} is no number"))?);
        }
        Field::WeeklyBudget => line.weekly_budget = text(),
        Field::Reserve => line.reserve = text(),
        Field::Schedule => line.schedule = list(cell),
        Field::TimeZone => line.time_zone = text(),
        Field::Frequency => line.frequency = cell.split('|').map(frequency::rule).collect::<Result<_, _>>()?,
        Field::AdGroup => line.ad_group = id()?,
        Field::AdGroups => line.ad_groups = cell.split('|').map(groups::group).collect::<Result<_, _>>()?,
    }
    Ok(())
}

fn list(cell: &str) -> Vec<String> {
    cell.split('|').map(str::to_owned).collect()
}

/// `18..24`, both ends inside; `18..<25`, the second outside; either end may be left out.
fn range(text: &str) -> Result<RangeText, String> {
    let wrong = || format!("{text:?} is no range: write 18..24, 18..<25, 65.. or ..17");
    let (low, high) = text.trim().split_once("..").ok_or_else(wrong)?;
    let end = |text: &str| match text.trim() {
        "" => Ok(None),
        number => number.parse().map(Some).map_err(|_| wrong()),
    };
    let min = end(low)?;
    Ok(match high.strip_prefix('<') {
        Some(below) => RangeText { min, below: end(below)?, ..RangeText::default() },
        None => RangeText { min, max: end(high)?, ..RangeText::default() },
    })
}

/// `a:0.5|b:2`, or `a|b` with every weight 1.
fn weighted(cell: &str) -> Result<FeatureText, String> {
    let parts: Vec<&str> = cell.split('|').collect();
    if !parts.iter().any(|p| p.contains(':')) {
        return Ok(FeatureText::List(list(cell)));
    }
    let mut values = Vec::with_capacity(parts.len());
    let mut weights = Vec::with_capacity(parts.len());
    for part in parts {
        let (value, weight) = part.rsplit_once(':').ok_or_else(|| format!("{part:?} has no weight"))?;
        values.push(value.to_owned());
        weights.push(weight.trim().parse().map_err(|_| format!("{weight:?} is no weight"))?);
    }
    Ok(FeatureText::Set { values, weights })
}
