//! How does an author start a schema?
//!
//! With a skeleton made of what the exported file says: names, widths, rows of tables. What it cannot say, whose
//! feature it is and what a head means, is left as a comment to be decided.

use super::{Problem, Ranker};
use crate::onnx::wire::{GraphProto, Model, element};
use crate::trees::Ensemble;
use prost::Message;
use std::fmt::Write as _;

const HEAD: &str = "\
# A schema for `gavel model pack`. Decide what is marked with a question mark; docs/bring-your-own-model.md explains it.
name = \"my-model\"                # ? what people call it

# side: user, context (of the request) or item. kind: category, dense (a number), set (values with weights, heaviest
# first) or sequence (values in order, newest first). An input that is the weight of the item's value in a set of the
# user is no feature: write [[cross]] with its name, user = the set and item = the category.
";

/// A schema skeleton for a ranker.
///
/// # Errors
/// When the file cannot be read.
pub fn template(ranker: &Ranker) -> Result<String, Problem> {
    match ranker {
        Ranker::Graph(bytes) => {
            let model = Model::decode(bytes.as_slice())
                .map_err(|e| Problem::new(format!("not an ONNX file: {e}"), "give the file that the exporter wrote"))?;
            let graph = model.graph.ok_or_else(|| Problem::new("the file has no graph", "export it again"))?;
            Ok(of_graph(&graph))
        }
        Ranker::Trees(models) => of_trees(models),
    }
}

fn feature(text: &mut String, name: &str, kind: &str) {
    let _ = writeln!(text, "\n[[feature]]\nname = {name:?}\nside = \"user\"                    # ?\n{kind}");
}

const DENSE: &str = "kind = \"dense\"\n# transform = \"log1p\"\n# mean = 0.0\n# std = 1.0\n# default = 0.0                   # the raw value of a missing one";

fn of_graph(graph: &GraphProto) -> String {
    let mut text = HEAD.to_owned();
    let inputs: Vec<_> = graph.input.iter().filter(|i| graph.initializer.iter().all(|t| t.name != i.name)).collect();
    let mut packed = String::new();
    for input in &inputs {
        let of = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
        let dims = of.and_then(|t| t.shape.as_ref()).map_or(&[][..], |s| &s.dim);
        let width = dims.get(1).and_then(|d| d.dim_value).unwrap_or(1);
        let integer = of.is_some_and(|t| matches!(t.elem_type, element::INT64 | element::INT32));
        let weights = format!("{}.weight", input.name);
        let has_weights = inputs.iter().any(|i| i.name == weights);
        let of_set = inputs.iter().any(|i| input.name == format!("{}.weight", i.name));
        let buckets = rows_of(graph, &input.name).map_or_else(
            || "buckets = 1000                   # ? the rows of its table less one".to_owned(),
            |rows| format!("buckets = {}", (rows - 1).max(1)),
        );
        match (integer, width) {
            _ if of_set => {}
            (true, 1) => feature(&mut text, &input.name, &format!("kind = \"category\"\n{buckets}")),
            (true, _) if has_weights || rows_of(graph, &input.name).is_some() => {
                // A graph that does not ask for weights more often reads an order than a bag.
                let kind = if has_weights {
                    "kind = \"set\"                     # ? or sequence"
                } else {
                    "kind = \"sequence\"                # ? or set"
                };
                feature(&mut text, &input.name, &format!("{kind}\n{buckets}\nmax_len = {width}"));
            }
            (false, 1) => feature(&mut text, &input.name, DENSE),
            (_, width) => {
                let names: Vec<String> = (0..width).map(|i| format!("{}_{i}", input.name)).collect();
                for name in &names {
                    let category = format!("kind = \"category\"\n{buckets}");
                    feature(&mut text, name, if integer { &category } else { DENSE });
                }
                let _ = writeln!(
                    packed,
                    "\n# One input with several features side by side: name them in the order of its columns.\n[[input]]\nname = {:?}\nfeatures = {names:?}",
                    input.name
                );
            }
        }
    }
    text.push_str(&packed);
    for (i, output) in graph.output.iter().enumerate() {
        head(&mut text, &output.name, i == 0);
    }
    text
}

fn head(text: &mut String, name: &str, first: bool) {
    let role = if first {
        "role = \"click\"                   # ? the head that predicts the click"
    } else {
        "# role = \"conversion_given_click\" # ?"
    };
    let _ = writeln!(
        text,
        "\n[[head]]\nname = {name:?}\n# output = \"logits[0]\"             # if the graph's output has another name, or several columns\nkind = \"probability\"              # ? or value\n{role}\n# negative_rate = 0.1              # the share of the negatives that training kept\n# calibration = {{ kind = \"platt\", scale = 1.0, offset = 0.0 }}"
    );
}

/// Rows of the table that an input is looked up in, through operators that only reshape it.
fn rows_of(graph: &GraphProto, input: &str) -> Option<i64> {
    let mut names = vec![input.to_owned()];
    for node in &graph.node {
        let passes =
            matches!(node.op_type.as_str(), "Cast" | "Unsqueeze" | "Squeeze" | "Reshape" | "Flatten" | "Identity");
        if passes && node.input.first().is_some_and(|i| names.contains(i)) {
            names.extend(node.output.iter().cloned());
        }
        if let ("Gather", [table, at, ..]) = (node.op_type.as_str(), node.input.as_slice())
            && names.contains(at)
            && let Some(table) = graph.initializer.iter().find(|t| t.name == *table)
        {
            return table.dims.first().copied();
        }
    }
    None
}

fn of_trees(models: &std::collections::BTreeMap<String, Vec<u8>>) -> Result<String, Problem> {
    let mut text = HEAD.to_owned();
    let mut seen = std::collections::BTreeSet::new();
    for bytes in models.values() {
        let ensemble = Ensemble::read(bytes)
            .map_err(|e| Problem::new(e.to_string(), "give the text file that Booster.save_model wrote"))?;
        let model = String::from_utf8_lossy(bytes);
        let infos: Vec<&str> = model
            .lines()
            .find_map(|l| l.strip_prefix("feature_infos="))
            .map_or_else(Vec::new, |l| l.split(' ').collect());
        for (at, name) in ensemble.features.iter().enumerate() {
            if !seen.insert(name.clone()) {
                continue;
            }
            // A range is a number; a list is a category, whose values the file itself lists if pandas gave them.
            let is_category = infos.get(at).is_some_and(|i| !i.starts_with('[') && *i != "none");
            let unread = if ensemble.reads(at) { "" } else { "\n# No split reads it: it may be left out." };
            let kind = if is_category {
                "kind = \"category\"\nbuckets = 1000                   # ? any, if pandas gave the values"
            } else {
                "kind = \"dense\""
            };
            feature(&mut text, name, &format!("{kind}{unread}"));
        }
    }
    for (i, name) in models.keys().enumerate() {
        head(&mut text, if name.is_empty() { "click" } else { name }, i == 0);
    }
    Ok(text)
}
