//! Is this bundle fit to follow that one?
//!
//! Every check is a sentence with its numbers and whether it holds, so that a CI job's log says what to look at.

use super::metrics::{self, HeadMetrics, Labelled};
use super::{GateError, open};
use crate::lines::{LINE_BYTES_MAX, LineError, Lines};
use gavel_model::{Bundle, FeatureSpec, HeadKind, HeadSpec, Schema, Scratch};
use gavel_proto::windows::{PREDICTION_BINS, prediction_bin, stability_index};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

/// Rows that are read: a percent of a mean is then well above the noise.
const ROWS_MAX: usize = 200_000;
/// Rows whose ranking is timed, and how often, turn by turn.
const TIMED: (usize, usize) = (256, 15);

/// How far the new bundle may be from the old one.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Relative growth of the loss of any labelled head: logarithmic, or of a value the squared error of `log1p`.
    pub log_loss_growth: f64,
    /// Loss of area under the curve of any labelled head of probabilities.
    pub auc_drop: f64,
    /// Predictions over labels, either way, of any labelled head.
    pub calibration: f64,
    /// Mean prediction against the old bundle's, either way, of any head.
    pub prediction_ratio: f64,
    /// Population stability index of any head of probabilities.
    pub psi: f64,
    /// Time of the ranker against the old bundle's.
    pub latency_ratio: f64,
}

/// One question and its answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// What was asked.
    pub name: String,
    /// Whether it holds.
    pub holds: bool,
    /// With which numbers.
    pub detail: String,
}

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// True when every check holds.
    pub passes: bool,
    /// Rows of the table.
    pub rows: usize,
    /// One by one.
    pub checks: Vec<Check>,
    /// By the new bundle's name of the head: the new bundle, then the old one.
    pub heads: BTreeMap<String, [HeadMetrics; 2]>,
    /// Time of the ranker against the old bundle's, median of the turns.
    pub latency_ratio: f64,
}

#[derive(Deserialize)]
struct Labels {
    #[serde(default)]
    labels: BTreeMap<String, f64>,
    weight: Option<f64>,
}

/// Predictions of one bundle for each of its heads, in the order of the rows.
type Predictions = Vec<Vec<f64>>;

/// Compares `new` with `old` on the rows of `data`.
///
/// # Errors
/// When a bundle cannot be opened or a row cannot be read; what does not hold is no error.
pub fn compare(new: &Path, old: &Path, data: &Path, limits: &Limits) -> Result<Verdict, GateError> {
    let (new, old) = (open(new)?, open(old)?);
    let mut checks = schema(&new, &old);
    let followed = Followed::of(new.schema(), old.schema());
    checks.push(check("heads of the old bundle", &followed.wrong, || format!("{} are followed", followed.pairs.len())));
    let golden = new.verify_golden();
    let detail =
        golden.as_ref().map_or_else(ToString::to_string, |g| format!("{} rows, worst {:.1e}", g.rows, g.worst));
    checks.push(Check { name: "golden rows".to_owned(), holds: golden.is_ok(), detail });
    let (rows, labels) = read(data)?;
    let predictions = [predict(&new, &rows, data)?, predict(&old, &rows, data)?];
    let mut heads = BTreeMap::new();
    for (at, before) in &followed.pairs {
        let (head, was) = (&new.schema().heads[*at], &old.schema().heads[*before]);
        let (a, b) = (&predictions[0][*at], &predictions[1][*before]);
        let labels = of_labels(&rows, &labels, [head, was], data)?;
        let found = [a, b].map(|p| metrics::of(head.kind, p, &labelled(p, &labels)));
        checks.extend(of_head(head, &found, limits));
        if head.kind == HeadKind::Probability {
            let psi = stability_index(&bins(b), &bins(a));
            checks.push(limit(&format!("{}: psi", head.name), psi, limits.psi));
        }
        heads.insert(head.name.clone(), found);
    }
    checks.push(is_labelled(&heads, &labels));
    let latency_ratio = latency(&new, &old, &rows, data)?;
    checks.push(limit("latency ratio", latency_ratio, limits.latency_ratio));
    let passes = checks.iter().all(|c| c.holds);
    Ok(Verdict { passes, rows: rows.len(), checks, heads, latency_ratio })
}

fn limit(name: &str, found: f64, most: f64) -> Check {
    // NaN does not hold.
    Check { name: name.to_owned(), holds: found <= most, detail: format!("{found:.4}, limit {most:.4}") }
}

fn check(name: &str, wrong: &[String], fine: impl FnOnce() -> String) -> Check {
    let holds = wrong.is_empty();
    Check { name: name.to_owned(), holds, detail: if holds { fine() } else { wrong.join("; ") } }
}

/// Which head of the new bundle predicts what a head of the old one does: the one with its role, or else with its name.
struct Followed {
    /// Positions, of the new bundle and of the old one.
    pairs: Vec<(usize, usize)>,
    /// Heads that nothing follows.
    wrong: Vec<String>,
}

impl Followed {
    fn of(new: &Schema, old: &Schema) -> Self {
        let mut found = Self { pairs: Vec::new(), wrong: Vec::new() };
        for (before, head) in old.heads.iter().enumerate() {
            let by_role = head.role.and_then(|role| new.head(role));
            let at = by_role.or_else(|| new.heads.iter().position(|h| h.name == head.name));
            match at.filter(|at| new.heads[*at].kind == head.kind) {
                Some(at) => found.pairs.push((at, before)),
                None if at.is_some() => found.wrong.push(format!("{} predicts something of another kind", head.name)),
                None => found.wrong.push(format!("no head has the role or the name of {}", head.name)),
            }
        }
        found
    }
}

/// Whether any head was judged by labels: a table with other names would otherwise pass unseen.
fn is_labelled(heads: &BTreeMap<String, [HeadMetrics; 2]>, labels: &[Labels]) -> Check {
    let counts = heads.iter().filter(|(_, found)| found[0].labelled > 0);
    let counts: Vec<String> = counts.map(|(name, found)| format!("{name}: {}", found[0].labelled)).collect();
    let mut wrong = Vec::new();
    if counts.is_empty() {
        let names: BTreeSet<&str> = labels.iter().flat_map(|l| l.labels.keys().map(String::as_str)).collect();
        let names: Vec<&str> = names.into_iter().take(10).collect();
        let has = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let heads: Vec<&str> = heads.keys().map(String::as_str).collect();
        wrong.push(format!("nothing was labelled: the heads are {}, the labels of the rows {has}", heads.join(", ")));
    }
    check("labels", &wrong, || counts.join(", "))
}

/// What a catalogue, a request log and a report of the old bundle expect of the new one.
fn schema(new: &Bundle, old: &Bundle) -> Vec<Check> {
    let (new, old) = (new.schema(), old.schema());
    let kind = |f: &FeatureSpec| format!("{:?}", std::mem::discriminant(&f.kind));
    let pairs = [(&new.user, &old.user, "user"), (&new.item, &old.item, "item")];
    let mut wrong = Vec::new();
    let mut added = Vec::new();
    for (features, before, side) in pairs {
        for feature in features {
            match before.iter().find(|f| f.name == feature.name) {
                Some(known) if kind(known) == kind(feature) => {}
                Some(_) => wrong.push(format!("{} of the {side} is of another kind", feature.name)),
                None => added.push(feature.name.clone()),
            }
        }
    }
    let fine = || if added.is_empty() { "no new ones".to_owned() } else { format!("new: {}", added.join(", ")) };
    let roles = old.heads.iter().filter(|h| h.role.is_some() && new.heads.iter().all(|n| n.role != h.role));
    let lost: Vec<String> = roles.map(|h| format!("no head has the role of {}", h.name)).collect();
    vec![check("features", &wrong, fine), check("roles of heads", &lost, || format!("{} heads", new.heads.len()))]
}

fn of_head(head: &HeadSpec, [new, old]: &[HeadMetrics; 2], limits: &Limits) -> Vec<Check> {
    let name = &head.name;
    let ratio = |a: f64, b: f64| if b == 0.0 { f64::INFINITY } else { (a / b).max(b / a) };
    let mut checks =
        vec![limit(&format!("{name}: mean prediction"), ratio(new.mean, old.mean), limits.prediction_ratio)];
    if new.labelled > 0 {
        let loss = match head.kind {
            HeadKind::Probability => "log loss",
            HeadKind::Value => "squared log1p error",
        };
        let growth = if new.loss == old.loss { 0.0 } else { new.loss / old.loss - 1.0 };
        checks.push(limit(&format!("{name}: growth of {loss}"), growth, limits.log_loss_growth));
        if let (Some(new), Some(old)) = (new.auc, old.auc) {
            checks.push(limit(&format!("{name}: drop of AUC"), old - new, limits.auc_drop));
        }
        checks.push(limit(&format!("{name}: calibration"), ratio(new.calibration, 1.0), limits.calibration));
    }
    checks
}

fn bins(predictions: &[f64]) -> [u64; PREDICTION_BINS] {
    let mut bins = [0; PREDICTION_BINS];
    for bin in predictions.iter().filter_map(|p| prediction_bin(*p)) {
        bins[bin] += 1;
    }
    bins
}

/// A head's label and weight in each row; rows know it by the new name or by the old one.
fn of_labels(
    rows: &[Row],
    labels: &[Labels],
    [head, was]: [&HeadSpec; 2],
    path: &Path,
) -> Result<Vec<Option<(f64, f64)>>, GateError> {
    let most = if head.kind == HeadKind::Probability { 1.0 } else { f64::MAX };
    let each = rows.iter().zip(labels).map(|((line, _), row)| {
        let Some(label) = row.labels.get(&head.name).or_else(|| row.labels.get(&was.name)) else { return Ok(None) };
        let weight = row.weight.unwrap_or(1.0);
        if (0.0..=most).contains(label) && (0.0..=f64::MAX).contains(&weight) {
            return Ok(Some((*label, weight)));
        }
        let kind =
            if most == 1.0 { "a probability has labels from 0 to 1" } else { "a value has labels of at least 0" };
        let reason = format!("head {} has the label {label} with the weight {weight}: {kind}", head.name);
        Err(GateError::Row { path: path.to_path_buf(), line: *line, reason })
    });
    each.collect()
}

fn labelled(predictions: &[f64], labels: &[Option<(f64, f64)>]) -> Vec<Labelled> {
    let rows = predictions.iter().zip(labels);
    rows.filter_map(|(prediction, label)| {
        label.map(|(label, weight)| Labelled { prediction: *prediction, label, weight })
    })
    .collect()
}

/// A line of the table with its number.
type Row = (usize, String);

/// The lines of the table with their labels.
fn read(path: &Path) -> Result<(Vec<Row>, Vec<Labels>), GateError> {
    let wrong = |line, reason| GateError::Row { path: path.to_path_buf(), line, reason };
    let mut lines = Lines::open(path).map_err(|source| GateError::Io { path: path.to_path_buf(), source })?;
    let (mut rows, mut labels) = (Vec::new(), Vec::new());
    while rows.len() < ROWS_MAX
        && let Some((number, line)) = lines.next_line().map_err(|e| match e {
            LineError::Io(source) => GateError::Io { path: path.to_path_buf(), source },
            LineError::TooLong(number) => wrong(number, format!("longer than {LINE_BYTES_MAX} bytes")),
        })?
    {
        labels.push(serde_json::from_str(&line).map_err(|e| wrong(number, e.to_string()))?);
        rows.push((number, line));
    }
    if rows.is_empty() { Err(GateError::Empty("the table has no rows")) } else { Ok((rows, labels)) }
}

fn example(bundle: &Bundle, (line, row): &Row, path: &Path) -> Result<gavel_model::Example, GateError> {
    let wrong =
        |e: gavel_model::BundleError| GateError::Row { path: path.to_path_buf(), line: *line, reason: e.to_string() };
    bundle.example(row).map_err(wrong)
}

fn predict(bundle: &Bundle, rows: &[Row], path: &Path) -> Result<Predictions, GateError> {
    let mut predictions = vec![Vec::with_capacity(rows.len()); bundle.schema().heads.len()];
    let (mut scratch, mut out) = (Scratch::default(), Vec::new());
    for row in rows {
        let row = example(bundle, row, path)?;
        let cross = bundle.cross(&row.user, &row.item);
        let part = bundle.run_user(&mut scratch, &row.user)?.part;
        let activations = bundle.run_items(&mut scratch, std::slice::from_ref(&row.item))?.activations;
        bundle.rank(&mut scratch, &part, &activations, &cross, 1, &mut out)?;
        predictions.iter_mut().zip(&out).for_each(|(head, prediction)| head.push(f64::from(*prediction)));
    }
    Ok(predictions)
}

/// What ranking a request of the first rows' items takes, new over old: turn by turn, so that both see the same machine.
fn latency(new: &Bundle, old: &Bundle, rows: &[Row], path: &Path) -> Result<f64, GateError> {
    let (rows, turns) = (&rows[..rows.len().min(TIMED.0)], TIMED.1);
    let mut ratios = Vec::new();
    let (new, old) = (Prepared::of(new, rows, path)?, Prepared::of(old, rows, path)?);
    let mut scratch = Scratch::default();
    for _ in 0..turns {
        let (a, b) = (new.time(&mut scratch)?, old.time(&mut scratch)?);
        ratios.push(a / b.max(1e-9));
    }
    ratios.sort_by(f64::total_cmp);
    Ok(ratios.get(turns / 2).copied().unwrap_or(0.0))
}

/// The inputs of the part that is computed for each candidate.
struct Prepared<'a> {
    bundle: &'a Bundle,
    part: Vec<f32>,
    activations: Vec<f32>,
    cross: Vec<f32>,
    candidates: usize,
}

impl<'a> Prepared<'a> {
    fn of(bundle: &'a Bundle, rows: &[Row], path: &Path) -> Result<Self, GateError> {
        let mut scratch = Scratch::default();
        let examples = rows.iter().map(|row| example(bundle, row, path)).collect::<Result<Vec<_>, _>>()?;
        let user = &examples.first().ok_or(GateError::Empty("the table has no rows"))?.user;
        let items: Vec<_> = examples.iter().map(|e| e.item.clone()).collect();
        let cross = items.iter().flat_map(|item| bundle.cross(user, item)).collect();
        let part = bundle.run_user(&mut scratch, user)?.part;
        let activations = bundle.run_items(&mut scratch, &items)?.activations;
        Ok(Self { bundle, part, activations, cross, candidates: items.len() })
    }

    #[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
    fn time(&self, scratch: &mut Scratch) -> Result<f64, GateError> {
        let (from, mut out) = (Instant::now(), Vec::new());
        self.bundle.rank(scratch, &self.part, &self.activations, &self.cross, self.candidates, &mut out)?;
        std::hint::black_box(&out);
        Ok(from.elapsed().as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gavel_model::author::vary::{Variation, vary};
    use std::fmt::Write as _;

    const LIMITS: Limits = Limits {
        log_loss_growth: 0.01,
        auc_drop: 0.005,
        calibration: 1.2,
        prediction_ratio: 1.5,
        psi: 0.25,
        // No test is timed.
        latency_ratio: f64::INFINITY,
    };

    /// A table whose labels are the demo's own predictions: the demo is calibrated on it by construction.
    fn table(dir: &Path, demo: &Path, labels: fn(&serde_json::Value) -> serde_json::Value) -> std::path::PathBuf {
        let packed = std::fs::read(demo.join("golden.jsonl.zst")).expect("rows");
        let text = String::from_utf8(zstd::decode_all(&packed[..]).expect("zstd")).expect("text");
        let mut out = String::new();
        for line in text.lines().take(200) {
            let row: serde_json::Value = serde_json::from_str(line).expect("a row");
            let labels = labels(&row["predictions"]);
            let row = serde_json::json!({"user": row["user"], "item": row["item"], "labels": labels});
            writeln!(out, "{row}").expect("written");
        }
        let path = dir.join("table.jsonl");
        std::fs::write(&path, out).expect("written");
        path
    }

    fn demo() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../cluster/bootstrap/demo/bundle")
    }

    fn failed(verdict: &Verdict) -> Vec<&str> {
        verdict.checks.iter().filter(|c| !c.holds).map(|c| c.name.as_str()).collect()
    }

    #[test]
    fn labels_that_name_no_head_do_not_pass() {
        let (demo, dir) = (demo(), tempfile::tempdir().expect("a folder"));
        for (labels, part) in [
            ((|p| serde_json::json!({"clicks": p["click"]})) as fn(&serde_json::Value) -> serde_json::Value, "clicks"),
            (|_| serde_json::json!({}), "the labels of the rows none"),
        ] {
            let found = compare(&demo, &demo, &table(dir.path(), &demo, labels), &LIMITS).expect("compared");
            assert_eq!((found.passes, failed(&found)), (false, vec!["labels"]));
            let labels = found.checks.iter().find(|c| c.name == "labels").expect("a check");
            assert!(labels.detail.contains(part) && labels.detail.contains("click, conversion"), "{}", labels.detail);
        }
        let beyond = table(dir.path(), &demo, |_| serde_json::json!({"click": 2.0}));
        let error = compare(&demo, &demo, &beyond, &LIMITS).expect_err("no label of a probability").to_string();
        assert!(error.contains("table.jsonl:1: head click has the label 2"), "{error}");
    }

    #[test]
    fn a_value_is_compared_by_its_logarithm() {
        let (demo, dir) = (demo(), tempfile::tempdir().expect("a folder"));
        let half = |p: &serde_json::Value| serde_json::json!({"value": p["value"].as_f64().unwrap_or(0.0) * 2.0 + 1.0});
        let found = compare(&demo, &demo, &table(dir.path(), &demo, half), &LIMITS).expect("compared");
        let names: Vec<&str> = found.checks.iter().map(|c| c.name.as_str()).collect();
        assert!(names.contains(&"value: growth of squared log1p error") && !names.contains(&"value: drop of AUC"));
        let [new, old] = &found.heads["value"];
        // ln(2 + 2 p) is the logarithm of two more than ln(1 + p), in every row.
        assert!((new.loss - 2f64.ln().powi(2)).abs() < 1e-4 && new == old && new.auc.is_none(), "{new:?}");
        assert_eq!(failed(&found), ["value: calibration"]);
    }

    #[test]
    fn a_head_is_followed_by_its_role_and_then_by_its_name() {
        let old = open(&demo()).expect("a bundle").schema().clone();
        let mut new = old.clone();
        new.heads.reverse();
        let found = Followed::of(&new, &old);
        assert_eq!((found.pairs, found.wrong.is_empty()), (vec![(3, 0), (2, 1), (1, 2), (0, 3)], true));
        // Another name for the same role is the same head; another name without a role is none.
        for head in &mut new.heads {
            head.name.push('s');
        }
        let found = Followed::of(&new, &old);
        assert_eq!(found.pairs, [(3, 0), (2, 1)]);
        assert_eq!(found.wrong.len(), 2, "{:?}", found.wrong);
        assert!(found.wrong[0].contains("multi_unit") && found.wrong[1].contains("value"), "{:?}", found.wrong);
        new.heads[0] = HeadSpec { name: "multi_unit".to_owned(), ..new.heads[0].clone() };
        assert!(Followed::of(&new, &old).wrong[0].contains("another kind"));
    }

    #[test]
    fn an_equal_bundle_passes_and_a_shifted_one_does_not() {
        let demo = demo();
        let dir = tempfile::tempdir().expect("a folder");
        let data = table(dir.path(), &demo, |p| serde_json::json!({"click": p["click"]}));
        let same = compare(&demo, &demo, &data, &LIMITS).expect("compared");
        assert!(same.passes && same.rows == 200, "{:?}", same.checks);
        assert!((same.heads["click"][0].calibration - 1.0).abs() < 1e-3);
        let shifted = dir.path().join("shifted");
        vary(&demo, &shifted, Variation::Odds { factor: 2.0 }).expect("varied");
        let found = compare(&shifted, &demo, &data, &LIMITS).expect("compared");
        let failed = failed(&found);
        assert!(!found.passes && failed.contains(&"click: calibration"), "{failed:?}");
        assert!(failed.contains(&"click: growth of log loss"), "{failed:?}");
        assert!(found.checks.iter().any(|c| c.name == "golden rows" && c.holds));
    }
}
