//! How does a model that was trained elsewhere become a bundle?
//!
//! A team has a ranker (an ONNX file, or LightGBM's model files) and says in a schema which input is which feature.
//! [`write`] puts the bundle together: the schema without what only packing needs ([`draft`]), the graph with its
//! inputs and outputs named as features and heads ([`rewrite`]), towers ([`towers`]), the light head ([`light`]) and
//! golden rows ([`rows`]).
//! Whatever does not fit is found at once and said with what to do ([`ports`], [`tree_ports`]): nobody should have to
//! mend ten mistakes in ten runs.
//!
//! Nothing here decides whether a bundle is sound: the result is opened and its golden rows are run as a server does.

mod draft;
mod light;
mod logits;
mod nearest;
mod ports;
mod rewrite;
mod rows;
mod template;
mod towers;
mod tree_ports;
pub mod vary;

pub use rows::Golden;
#[cfg(test)]
pub(crate) use rows::of_inputs as golden_row;
pub use template::template;
pub use towers::Towers;

use crate::bundle::{Bundle, GoldenReport, pack};
use draft::Draft;
use logits::Exported;
use std::collections::BTreeMap;
use std::path::Path;

/// Files of a bundle by name.
type Files = BTreeMap<String, Vec<u8>>;

/// Something that must change before there can be a bundle.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub fix: String,
}

impl Problem {
    pub(crate) fn new(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what: what.into(), fix: fix.into() }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; {}", self.what, self.fix)
    }
}

/// The ranker as it was exported.
#[derive(Clone, Debug)]
pub enum Ranker {
    /// One graph.
    Graph(Vec<u8>),
    /// LightGBM's file for each head; with one head its name may be empty.
    Trees(BTreeMap<String, Vec<u8>>),
}

/// What a bundle is made of.
#[derive(Clone, Debug)]
pub struct Source {
    /// `bundle.toml` without `[files]`, with what only packing needs (`docs/bring-your-own-model.md`).
    pub schema: String,
    /// The ranker.
    pub ranker: Ranker,
    /// The towers of retrieval.
    pub towers: Towers,
    /// The light head, ONNX, over second outputs of the towers; without one the light order is a line.
    pub light: Option<Vec<u8>>,
    /// The golden rows; without them all other problems are still found.
    pub golden: Option<Golden>,
}

/// A bundle that was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// The name in its schema.
    pub name: String,
    /// BLAKE3 of its packed form.
    pub hash: [u8; 32],
    /// How its golden rows did.
    pub golden: GoldenReport,
    /// What works and may not be meant.
    pub warnings: Vec<String>,
}

/// Why no bundle was written.
#[derive(Debug)]
pub enum Refusal {
    /// The model, the schema or the rows have to change.
    Problems(Vec<Problem>),
    /// The folder is there already, or cannot be written.
    Folder(String),
}

/// Files under construction, and what was noticed.
#[derive(Debug, Default)]
struct Work {
    files: Files,
    warnings: Vec<String>,
    problems: Vec<Problem>,
    /// How the ranker puts its heads out.
    exported: Exported,
    /// Features that the ranker or a tower reads.
    read: std::collections::BTreeSet<String>,
}

const GOLDEN: &str = "golden.jsonl.zst";
const RANKER: &str = "ranker.onnx";
const USER_TOWER: &str = "user_tower.onnx";
const ITEM_TOWER: &str = "item_tower.onnx";
const LIGHT: &str = "light.onnx";

/// Writes a bundle to a folder that does not exist yet, whole or not at all, and runs its golden rows. `beside` finds
/// a file that an ONNX file names: exporters put large weights beside it.
///
/// # Errors
/// All problems that can be told apart, or why the folder cannot be written.
pub fn write(source: &Source, out: &Path, beside: &dyn Fn(&str) -> Option<Vec<u8>>) -> Result<Written, Refusal> {
    if out.exists() {
        return Err(Refusal::Folder(format!("{} is there already: remove it or name another folder", out.display())));
    }
    let mut work = Work::default();
    let draft = compose(source, beside, &mut work);
    if source.golden.is_none() {
        work.problems.push(rows::missing());
    }
    work.problems.sort();
    work.problems.dedup();
    let (Some(draft), Some(golden), true) = (draft, &source.golden, work.problems.is_empty()) else {
        return Err(Refusal::Problems(work.problems));
    };
    let mut name = out.file_name().unwrap_or_default().to_os_string();
    name.push(".partial");
    let partial = out.with_file_name(name);
    let written = fill(&mut work, golden, &partial);
    let done = written.and_then(|report| {
        std::fs::rename(&partial, out).map_err(|e| folder(out, &e))?;
        Ok(report)
    });
    if done.is_err() {
        // What was half made is of no use; that it cannot be removed changes nothing.
        let _ = std::fs::remove_dir_all(&partial);
    }
    let (hash, golden) = done?;
    Ok(Written { name: draft.schema.name, hash, golden, warnings: work.warnings })
}

/// Every file but the golden rows.
fn compose(source: &Source, beside: &dyn Fn(&str) -> Option<Vec<u8>>, work: &mut Work) -> Option<Draft> {
    let draft = match Draft::read(source) {
        Ok(draft) => draft,
        Err(problem) => {
            work.problems.push(problem);
            return None;
        }
    };
    match &source.ranker {
        Ranker::Graph(bytes) => ports::ranker(bytes, beside, &draft, work),
        Ranker::Trees(models) => tree_ports::check(models, &draft, work),
    }
    towers::add(&source.towers, &draft, beside, work);
    if let Some(head) = &source.light {
        light::add(head, &source.towers, beside, work);
    }
    if draft.schema.head(crate::schema::HeadRole::Click).is_none() {
        work.problems.push(Problem::new(
            "no head has the role of a click",
            "say role = \"click\" at the head that predicts it: every auction needs its probability",
        ));
    }
    ports::unread(&draft, work);
    work.files.insert("bundle.toml".to_owned(), draft.text.clone().into_bytes());
    Some(draft)
}

/// Writes the files, computes what the golden rows leave out, opens the whole and verifies it. The rows are those of the
/// model before anything is rounded: what the bundle is then compared with, and what the ranges of int8 come from.
fn fill(work: &mut Work, golden: &Golden, dir: &Path) -> Result<([u8; 32], GoldenReport), Refusal> {
    let refused = |e: crate::BundleError| {
        Refusal::Problems(vec![Problem::new(e.to_string(), "docs/bring-your-own-model.md says what a bundle needs")])
    };
    let none = zstd::encode_all(&b""[..], 0).map_err(|e| folder(dir, &e))?;
    work.files.insert(GOLDEN.to_owned(), none);
    seal(&work.files, dir)?;
    let exact = Bundle::open_exact(dir).map_err(refused)?;
    let rows = rows::complete(&exact, golden, &work.exported).map_err(Refusal::Problems)?;
    work.warnings.extend(rows.warnings);
    let packed = zstd::encode_all(rows.text.as_bytes(), 0).map_err(|e| folder(dir, &e))?;
    work.files.insert(GOLDEN.to_owned(), packed);
    seal(&work.files, dir)?;
    let bundle = Bundle::open(dir).map_err(refused)?;
    let report = bundle.verify_golden().map_err(|e| {
        Refusal::Problems(vec![Problem::new(
            e.to_string(),
            "the model does not give what its rows say: compare the inputs that your runtime saw with the raw values \
             of the row (hashing, scaling, missing values; docs/bring-your-own-model.md has the recipe)",
        )])
    })?;
    Ok((bundle.hash(), report))
}

/// Writes the files with their checksums.
fn seal(files: &Files, dir: &Path) -> Result<(), Refusal> {
    if dir.exists() {
        std::fs::remove_dir_all(dir).map_err(|e| folder(dir, &e))?;
    }
    std::fs::create_dir_all(dir).map_err(|e| folder(dir, &e))?;
    let files = files.iter().map(|(name, content)| (name.as_str(), content.as_slice()));
    pack::write_folder(dir, files).map_err(|e| Refusal::Folder(e.to_string()))
}

fn folder(path: &Path, error: &std::io::Error) -> Refusal {
    Refusal::Folder(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests;
