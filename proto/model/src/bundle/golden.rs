//! Does this build of the executor give the numbers that the trainer got?
//!
//! One JSON object a line, zstd-compressed: raw features in, and the numbers of the trainer for query, vector, raw
//! heads and predictions. Every row goes the whole way that a request goes.
//!
//! A difference is relative. A vector's component is compared with the vector's largest, since a component near 0
//! is the difference of large numbers; a raw output with at least 0.1, a prediction with at least 0.001, for the
//! same reason.

use super::light::{CLICK, CONVERSION, LightLogits};
use super::scorer::Scorer;
use super::{Bundle, ItemOutput, Scratch, UserOutput};
use crate::error::BundleError;
use crate::exec::Ranges;
use crate::feature::{FeatureRow, FeatureValue};
use crate::limits::{GOLDEN_BYTES_MAX, GOLDEN_ROWS_MAX};
use crate::schema::{FeatureKind, FeatureSpec, RankerOptions};
use gavel_proto::hash::value_hash;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::Read;

/// Largest relative difference of a vector's component: towers run in f32, whatever the ranker's options say.
const TOLERANCE: f64 = RankerOptions::TOLERANCE_EXACT;
const RAW_SCALE: f64 = 0.1;
const PREDICTION_SCALE: f64 = 1e-3;

/// How the model did on its golden rows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GoldenReport {
    /// Rows compared.
    pub rows: usize,
    /// Those of them that say what the light head gives for a click.
    pub light_rows: usize,
    /// Those of them that say what it gives for a conversion.
    pub light_conversion_rows: usize,
    /// Largest relative difference of any number.
    pub worst: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    user: BTreeMap<String, Raw>,
    item: BTreeMap<String, Raw>,
    query: Vec<f64>,
    vector: Vec<f64>,
    heads: BTreeMap<String, f64>,
    predictions: BTreeMap<String, f64>,
    /// What the light order says: the logit of a click, and of a conversion given one.
    light: Option<f64>,
    light_conversion: Option<f64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Raw {
    Number(f64),
    Text(String),
    List(Vec<String>),
    Set {
        values: Vec<String>,
        #[serde(default)]
        weights: Vec<f64>,
    },
}

/// Compares every row.
pub(super) fn verify(bundle: &Bundle, packed: &[u8]) -> Result<GoldenReport, BundleError> {
    let mut scratch = Scratch::default();
    let mut report = GoldenReport::default();
    report.rows = each(packed, |row| {
        report.worst = report.worst.max(compare(bundle, &mut scratch, row)?);
        report.light_rows += usize::from(row.light.is_some());
        report.light_conversion_rows += usize::from(row.light_conversion.is_some());
        Ok(())
    })?;
    let outputs = bundle.light_outputs();
    let verified = [(CLICK, report.light_rows), (CONVERSION, report.light_conversion_rows)];
    if let Some((name, _)) = verified.into_iter().take(outputs).find(|(_, rows)| *rows == 0) {
        return Err(BundleError::Golden(format!(
            "no row has `{name}`, what the light head gives: nothing verifies it"
        )));
    }
    Ok(report)
}

/// The largest relative difference between the split and the whole ranker, over the raw outputs of every row.
pub(super) fn deviation(bundle: &Bundle, packed: &[u8]) -> Result<f64, BundleError> {
    let (mut scratch, mut split, mut whole, mut worst) = (Scratch::default(), Vec::new(), Vec::new(), 0f64);
    each(packed, |row| {
        let schema = bundle.schema();
        let (user, item) = (features(&schema.user, &row.user)?, features(&schema.item, &row.item)?);
        let (cross, items) = (bundle.cross(&user, &item), [item]);
        let fault = |e: crate::error::ModelError| e.to_string();
        let part = bundle.run_user(&mut scratch, &user).map_err(fault)?.part;
        let activations = bundle.run_items(&mut scratch, &items).map_err(fault)?.activations;
        bundle.rank_raw(&mut scratch, &part, &activations, &cross, 1, &mut split).map_err(fault)?;
        bundle.whole_raw(&mut scratch, &user, &items, &cross, &mut whole).map_err(fault)?;
        for (s, w) in split.iter().zip(&whole) {
            let difference = f64::from((s - w).abs()) / f64::from(w.abs()).max(RAW_SCALE);
            // Written so that NaN counts, and stays.
            worst = if difference <= worst || worst.is_nan() { worst } else { difference };
        }
        Ok(())
    })?;
    Ok(worst)
}

/// The lines of the packed file.
pub(super) fn text(packed: &[u8]) -> Result<String, BundleError> {
    let wrong = |reason: String| BundleError::Golden(reason);
    let decoder = zstd::stream::read::Decoder::new(packed).map_err(|e| wrong(e.to_string()))?;
    let mut text = String::new();
    decoder.take(GOLDEN_BYTES_MAX as u64 + 1).read_to_string(&mut text).map_err(|e| wrong(e.to_string()))?;
    if text.len() > GOLDEN_BYTES_MAX {
        return Err(wrong(format!("more than {GOLDEN_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// The ranges that the ranker's layers read on the golden rows: what lies outside is cut where inputs are rounded.
pub(super) fn ranges(bundle: &Bundle, packed: &[u8]) -> Result<Ranges, BundleError> {
    let (mut scratch, mut ranges) = (Scratch::default(), Ranges::new());
    let Scorer::Graph(ranker) = &bundle.ranker else { return Ok(ranges) };
    let precision = bundle.schema.options.precision.name();
    let program = ranker.observer().map_err(|reason| BundleError::Precision { precision, reason })?;
    each(packed, |row| {
        let schema = bundle.schema();
        let (user, item) = (features(&schema.user, &row.user)?, features(&schema.item, &row.item)?);
        let cross = bundle.cross(&user, &item);
        let part = bundle.run_user(&mut scratch, &user).map_err(|e| e.to_string())?.part;
        let activations = bundle.run_items(&mut scratch, &[item]).map_err(|e| e.to_string())?.activations;
        ranker.observe(&program, &mut scratch.arena, (&part, &activations, &cross), &mut ranges);
        Ok(())
    })?;
    Ok(ranges)
}

/// Visits every row and counts them; there is at least one.
fn each(packed: &[u8], mut visit: impl FnMut(&Row) -> Result<(), String>) -> Result<usize, BundleError> {
    let wrong = |reason: String| BundleError::Golden(reason);
    let text = text(packed)?;
    let mut rows = 0;
    for line in text.lines().filter(|l| !l.trim().is_empty()) {
        rows += 1;
        if rows > GOLDEN_ROWS_MAX {
            return Err(wrong(format!("more than {GOLDEN_ROWS_MAX} rows")));
        }
        let row: Row = serde_json::from_str(line).map_err(|e| wrong(format!("row {rows}: {e}")))?;
        visit(&row).map_err(|e| wrong(format!("row {rows}: {e}")))?;
    }
    if rows == 0 {
        return Err(wrong("there are none".to_owned()));
    }
    Ok(rows)
}

fn compare(bundle: &Bundle, scratch: &mut Scratch, row: &Row) -> Result<f64, String> {
    let schema = bundle.schema();
    let user = features(&schema.user, &row.user)?;
    let item = features(&schema.item, &row.item)?;
    let cross = bundle.cross(&user, &item);
    let of_user = bundle.run_user(scratch, &user).map_err(|e| e.to_string())?;
    let of_item = bundle.run_items(scratch, std::slice::from_ref(&item)).map_err(|e| e.to_string())?;
    let mut raw = Vec::new();
    bundle.rank_raw(scratch, &of_user.part, &of_item.activations, &cross, 1, &mut raw).map_err(|e| e.to_string())?;
    let tolerance = schema.options.tolerance;
    let precision = schema.options.precision.name();
    let near = |what: &str, expected, found, scale| {
        near(what, expected, found, (scale, tolerance))
            .map_err(|e| format!("{e}, with precision {precision} and a tolerance of {tolerance:e}"))
    };
    let mut worst = vector("query", &row.query, &of_user.query)?;
    worst = worst.max(vector("vector", &row.vector, &of_item.vectors)?);
    if row.light.is_some() || row.light_conversion.is_some() {
        let LightLogits { clicks, conversions } = light(bundle, scratch, &of_user, &of_item)?;
        for (name, expected, found) in [(CLICK, row.light, clicks), (CONVERSION, row.light_conversion, conversions)] {
            let Some(expected) = expected else { continue };
            let found = found.first().copied().ok_or_else(|| format!("the bundle gives no {name}"))?;
            worst = worst.max(near(name, expected, found, RAW_SCALE)?);
        }
    }
    for (head, raw) in schema.heads.iter().zip(&raw) {
        let expected =
            |of: &BTreeMap<String, f64>| of.get(&head.name).copied().ok_or(format!("{} is missing", head.name));
        let prediction = head.predict(*raw);
        worst = worst.max(near(&head.name, expected(&row.heads)?, *raw, RAW_SCALE)?);
        worst = worst.max(near(&head.name, expected(&row.predictions)?, prediction, PREDICTION_SCALE)?);
    }
    Ok(worst)
}

fn vector(what: &str, expected: &[f64], found: &[f32]) -> Result<f64, String> {
    if expected.len() != found.len() {
        return Err(format!("{what} has {} dimensions, {} are expected", found.len(), expected.len()));
    }
    let scale = expected.iter().fold(PREDICTION_SCALE, |m, x| m.max(x.abs()));
    expected.iter().zip(found).try_fold(0f64, |worst, (e, f)| Ok(worst.max(near(what, *e, *f, (scale, TOLERANCE))?)))
}

/// What the light order says of one item, whose similarity is that of exact vectors.
pub(crate) fn light(
    bundle: &Bundle,
    scratch: &mut Scratch,
    user: &UserOutput,
    item: &ItemOutput,
) -> Result<LightLogits, String> {
    let similarity = [bundle.schema().metric.similarity(&user.query, &item.vectors)];
    let mut logits = LightLogits::default();
    bundle.light(scratch, &user.part, &item.lights, &similarity, &mut logits).map_err(|e| e.to_string())?;
    Ok(logits)
}

fn near(what: &str, expected: f64, found: f32, (scale, tolerance): (f64, f64)) -> Result<f64, String> {
    let difference = (expected - f64::from(found)).abs() / expected.abs().max(scale);
    // Written so that NaN fails.
    if difference <= tolerance {
        return Ok(difference);
    }
    Err(format!("{what} is {found}, {expected} is expected: a relative difference of {difference:e}"))
}

/// The features of one side, as a row spells them.
pub(super) fn features(specs: &[FeatureSpec], raw: &BTreeMap<String, Raw>) -> Result<FeatureRow, String> {
    if let Some(name) = raw.keys().find(|n| specs.iter().all(|s| s.name != **n)) {
        return Err(format!("the schema has no feature {name}"));
    }
    let values = specs.iter().map(|spec| match raw.get(&spec.name) {
        None => Ok(FeatureValue::Missing),
        Some(raw) => value(spec, raw),
    });
    Ok(FeatureRow { values: values.collect::<Result<_, _>>()? })
}

fn value(spec: &FeatureSpec, raw: &Raw) -> Result<FeatureValue, String> {
    match (&spec.kind, raw) {
        (FeatureKind::Category { .. }, Raw::Text(text)) => Ok(FeatureValue::Category(value_hash(text))),
        (FeatureKind::Dense { .. }, Raw::Number(x)) => Ok(FeatureValue::Dense(*x as f32)),
        (FeatureKind::Set { .. } | FeatureKind::Sequence { .. }, Raw::List(values)) => Ok(pairs(values, &[])),
        (FeatureKind::Set { .. } | FeatureKind::Sequence { .. }, Raw::Set { values, weights })
            if values.len() == weights.len() || weights.is_empty() =>
        {
            Ok(pairs(values, weights))
        }
        (
            FeatureKind::Category { .. }
            | FeatureKind::Dense { .. }
            | FeatureKind::Set { .. }
            | FeatureKind::Sequence { .. },
            _,
        ) => Err(format!("feature {} has another kind of value", spec.name)),
    }
}

/// The features of a row, from its raw values.
pub(crate) struct RawRow {
    pub user: FeatureRow,
    pub item: FeatureRow,
}

impl RawRow {
    /// Reads both sides; a side that is not there has no values.
    pub fn read(
        schema: &crate::schema::Schema,
        user: Option<&serde_json::Value>,
        item: Option<&serde_json::Value>,
    ) -> Result<Self, String> {
        let side = |name: &str, value: Option<&serde_json::Value>| -> Result<BTreeMap<String, Raw>, String> {
            let Some(value) = value else { return Err(format!("{name} is missing: {{}} stands for no values")) };
            BTreeMap::deserialize(value).map_err(|e| format!("{name}: {e}"))
        };
        Ok(Self {
            user: features(&schema.user, &side("user", user)?)?,
            item: features(&schema.item, &side("item", item)?)?,
        })
    }
}

/// Hashed values in their order; without weights each weighs 1.
fn pairs(values: &[String], weights: &[f64]) -> FeatureValue {
    let weight = |at: usize| weights.get(at).map_or(1.0, |w| *w as f32);
    FeatureValue::Set(values.iter().enumerate().map(|(at, v)| (value_hash(v), weight(at))).collect())
}
