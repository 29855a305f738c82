//! Which golden rows does a bundle get from the rows that its author has?
//!
//! The author gives raw features and what the own runtime made of them: a row proves that the export, the hashing and
//! the scaling here are those of the training. What follows from the rest is filled in: predictions (calibration is
//! this crate's own), and query and vector where no expected ones are given. Rows without expected outputs prove less:
//! the unsplit graph's own numbers show that the split changes nothing, and not that the export is right.

use super::Problem;
use super::logits::Exported;
use crate::bundle::light::{CLICK, CONVERSION};
use crate::bundle::{Bundle, RawRow, Scratch, light_of_item};
use crate::limits::GOLDEN_ROWS_MAX;
use crate::schema::HeadSpec;
use serde_json::{Map, Value, json};

/// Rows, one JSON object a line.
#[derive(Clone, Debug)]
pub enum Golden {
    /// With `heads`: what the author's runtime gave for each output.
    Expected(String),
    /// Without: computed here.
    Inputs(String),
}

/// Rows as a bundle has them.
pub(super) struct Rows {
    pub text: String,
    pub warnings: Vec<String>,
}

/// What is said when nobody gave rows.
pub(super) fn missing() -> Problem {
    Problem::new(
        "there are no golden rows",
        "give --golden ROWS.jsonl: lines {\"user\": {...}, \"item\": {...}, \"heads\": {\"click\": ...}} with raw features \
         and the outputs of your own runtime; or --golden-from ROWS.jsonl without heads, which checks the split but not \
         the export",
    )
}

/// Fills in what the rows leave out.
pub(super) fn complete(bundle: &Bundle, golden: &Golden, exported: &Exported) -> Result<Rows, Vec<Problem>> {
    let (text, outputs) = match golden {
        Golden::Expected(text) => (text, Outputs::Given { probabilities: &exported.probabilities }),
        Golden::Inputs(text) => (text, Outputs::Computed),
    };
    let mut rows = Rows { text: String::new(), warnings: Vec::new() };
    let mut problems = Vec::new();
    let count = text.lines().filter(|l| !l.trim().is_empty()).count();
    if count > GOLDEN_ROWS_MAX {
        let what = format!("there are {count} golden rows, {GOLDEN_ROWS_MAX} are possible");
        problems.push(Problem::new(what, "give some of them: every server runs them all before it uses the bundle"));
    }
    let mut scratch = Scratch::default();
    let mut given = Given { vectors: true, light: bundle.light_cost().is_some() };
    let has_head = given.light;
    let mut suspects: Vec<&String> = exported.as_they_come.iter().collect();
    let lines = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()).take(GOLDEN_ROWS_MAX);
    for (at, line) in lines {
        match row(bundle, &mut scratch, line, outputs) {
            Ok((row, with)) => {
                given = Given { vectors: given.vectors && with.vectors, light: given.light && with.light };
                suspects.retain(|head| row["heads"][*head].as_f64().is_some_and(|x| (0.0..=1.0).contains(&x)));
                rows.text.push_str(&format!("{row}\n"));
            }
            Err(what) => problems.push(Problem::new(format!("golden row {}: {what}", at + 1), "mend the row")),
        }
        /// A person mends the first few and sees the rest go.
        const TOLD_MAX: usize = 10;
        if problems.len() == TOLD_MAX {
            break;
        }
    }
    if rows.text.is_empty() && problems.is_empty() {
        problems.push(missing());
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    // No refusal: a few rows of a model with such logits are possible, and nothing in the graph says otherwise.
    rows.warnings.extend(suspects.into_iter().map(|head| {
        format!(
            "head {head} puts out a number from 0 to 1 in every golden row, as a probability does; it is taken for a logit, \
             which stands for predictions from 0.50 to 0.73: export what goes into the last sigmoid if that is not meant"
        )
    }));
    if outputs == Outputs::Computed {
        rows.warnings.push(
            "the golden rows' outputs are this build's own: they check that the split equals the graph, not that the \
             graph is what you trained; give --golden with the outputs of your runtime for that"
                .to_owned(),
        );
        return Ok(rows);
    }
    if !given.vectors {
        rows.warnings.push(
            "the golden rows have no query and vector: the towers are checked against themselves only".to_owned(),
        );
    }
    if has_head && !given.light {
        rows.warnings.push(
            "the golden rows have no light (and light_conversion): the light head is checked against itself only"
                .to_owned(),
        );
    }
    Ok(rows)
}

/// Where the outputs of the heads come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outputs<'a> {
    /// From the row.
    Given {
        /// Heads that were exported as probabilities and are given as such.
        probabilities: &'a [String],
    },
    /// From this build.
    Computed,
}

/// What all rows had of what is filled in otherwise.
#[derive(Clone, Copy)]
struct Given {
    vectors: bool,
    light: bool,
}

/// The row that a bundle passes, of raw features.
#[cfg(test)]
pub(crate) fn of_inputs(bundle: &Bundle, scratch: &mut Scratch, line: &str) -> Result<Value, String> {
    row(bundle, scratch, line, Outputs::Computed).map(|(row, _)| row)
}

/// One row, and what of it was given.
fn row(bundle: &Bundle, scratch: &mut Scratch, line: &str, outputs: Outputs<'_>) -> Result<(Value, Given), String> {
    let mut row: Map<String, Value> = serde_json::from_str(line).map_err(|e| e.to_string())?;
    let raw = RawRow::read(bundle.schema(), row.get("user"), row.get("item"))?;
    let cross = bundle.cross(&raw.user, &raw.item);
    let of_user = bundle.run_user(scratch, &raw.user).map_err(|e| e.to_string())?;
    let of_item = bundle.run_items(scratch, std::slice::from_ref(&raw.item)).map_err(|e| e.to_string())?;
    let given =
        Given { vectors: row.contains_key("query") && row.contains_key("vector"), light: row.contains_key(CLICK) };
    row.entry("query").or_insert_with(|| json!(of_user.query));
    row.entry("vector").or_insert_with(|| json!(of_item.vectors));
    if bundle.light_cost().is_some() {
        let light = light_of_item(bundle, scratch, &of_user, &of_item)?;
        for (name, logits) in [(CLICK, light.clicks), (CONVERSION, light.conversions)] {
            if let Some(logit) = logits.first() {
                row.entry(name).or_insert_with(|| json!(logit));
            }
        }
    }
    let heads = &bundle.schema().heads;
    let raws = match outputs {
        Outputs::Given { probabilities } => {
            let given = row.get("heads").and_then(Value::as_object).ok_or("it has no heads: what your runtime gave")?;
            heads.iter().map(|h| expected_of(h, given, probabilities)).collect::<Result<Vec<f64>, _>>()?
        }
        Outputs::Computed => {
            let mut whole = Vec::new();
            let items = std::slice::from_ref(&raw.item);
            bundle.whole_raw(scratch, &raw.user, items, &cross, &mut whole).map_err(|e| e.to_string())?;
            whole.into_iter().map(f64::from).collect()
        }
    };
    if let Some(at) = raws.iter().position(|x| !x.is_finite()) {
        return Err(format!("head {} is not a finite number", heads[at].name));
    }
    let named = |f: &dyn Fn(&HeadSpec, f64) -> f64| -> Value {
        heads.iter().zip(&raws).map(|(h, raw)| (h.name.clone(), json!(f(h, *raw)))).collect::<Map<_, _>>().into()
    };
    row.insert("heads".to_owned(), named(&|_, raw| raw));
    row.entry("predictions").or_insert_with(|| named(&|h, raw| f64::from(h.predict(raw as f32))));
    Ok((Value::Object(row), given))
}

/// A head's expected raw output; one that was exported as a probability is given as such.
fn expected_of(head: &HeadSpec, outputs: &Map<String, Value>, probabilities: &[String]) -> Result<f64, String> {
    let value = outputs.get(&head.name).ok_or_else(|| format!("heads has no {}", head.name))?;
    // Runtimes give a column: [0.3] is 0.3.
    let value = value.as_array().filter(|v| v.len() == 1).map_or(value, |v| &v[0]);
    let value = value.as_f64().ok_or_else(|| format!("heads.{} is no number", head.name))?;
    if !probabilities.contains(&head.name) {
        return Ok(value);
    }
    Ok((value / (1.0 - value)).ln())
}
