//! Which tensor of a graph holds the logits behind an output of probabilities?
//!
//! A bundle's raw output is a logit, and click models are often exported with a sigmoid at the end, or with a sigmoid and
//! then `squeeze(-1)`, a slice, a split or a concatenation. A sigmoid is taken entry by entry, so what moves its results
//! moves what goes into it just as well: those operators are copied over the sigmoid's input.
//!
//! What is a probability by the way it is made and has no such form (a softmax, a product of sigmoids) cannot be taken
//! for a logit: every prediction would lie between 0.5 and 0.73. It is refused. Whatever else comes is taken as it is.

use crate::onnx::wire::{GraphProto, NodeProto, element};
use std::collections::BTreeMap;

/// Operators that are looked through, one below the other: exporters write some three.
const DEPTH_MAX: usize = 64;

/// How the heads of a ranker were exported.
#[derive(Debug, Default)]
pub(super) struct Exported {
    /// Heads that were probabilities: the bundle takes their logits.
    pub probabilities: Vec<String>,
    /// Heads that are to be probabilities and whose outputs are taken for logits as they come.
    pub as_they_come: Vec<String>,
}

/// What an output is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A sigmoid of the tensor of this name, in the output's shape.
    Logits(String),
    /// A probability otherwise, and how.
    Probability(&'static str),
    /// A logit, as far as can be seen.
    AsItIs,
}

/// Finds what is behind an output, and adds the operators that it needs to the graph.
pub(super) fn behind(graph: &mut GraphProto, output: &str) -> Found {
    Walk { graph, known: BTreeMap::new() }.of(output, 0)
}

struct Walk<'a> {
    graph: &'a mut GraphProto,
    /// What was found before: a tensor that is joined with itself again and again is looked at once.
    known: BTreeMap<String, Found>,
}

impl Walk<'_> {
    fn of(&mut self, name: &str, depth: usize) -> Found {
        if depth == DEPTH_MAX || name.is_empty() {
            return Found::AsItIs;
        }
        if let Some(found) = self.known.get(name) {
            return found.clone();
        }
        // A file may have a circle, which is refused when it is read: it has no logits.
        self.known.insert(name.to_owned(), Found::AsItIs);
        let maker = self.graph.node.iter().find(|n| n.output.iter().any(|o| o == name)).cloned();
        let found = maker.map_or(Found::AsItIs, |node| self.made(&node, name, depth));
        self.known.insert(name.to_owned(), found.clone());
        found
    }

    fn made(&mut self, node: &NodeProto, name: &str, depth: usize) -> Found {
        let below = |walk: &mut Self, i: usize| walk.of(node.input.get(i).map_or("", String::as_str), depth + 1);
        match node.op_type.as_str() {
            "Sigmoid" => node.input.first().cloned().map_or(Found::AsItIs, Found::Logits),
            "Softmax" => Found::Probability("it is a share of a softmax"),
            "Concat" => self.joined(node, name, depth),
            "Clip" => match below(self, 0) {
                Found::AsItIs => Found::AsItIs,
                Found::Logits(_) | Found::Probability(_) => {
                    Found::Probability("it is cut to a range after its sigmoid")
                }
            },
            "Mul" => match (below(self, 0), below(self, 1)) {
                (Found::AsItIs, _) | (_, Found::AsItIs) => Found::AsItIs,
                _ => Found::Probability("it is a product of probabilities"),
            },
            "Cast" if !casts_to_floats(node) => Found::AsItIs,
            "Cast" | "Identity" | "Dropout" | "Squeeze" | "Unsqueeze" | "Reshape" | "Flatten" | "Slice" | "Gather"
            | "GatherElements" | "GatherND" | "Split" | "Transpose" | "Expand" | "Tile" => match below(self, 0) {
                Found::Logits(source) => Found::Logits(self.copied(node, name, &[source])),
                other @ (Found::Probability(_) | Found::AsItIs) => other,
            },
            _ => Found::AsItIs,
        }
    }

    fn joined(&mut self, node: &NodeProto, name: &str, depth: usize) -> Found {
        let parts: Vec<Found> = node.input.iter().map(|input| self.of(input, depth + 1)).collect();
        if parts.iter().all(|part| *part == Found::AsItIs) {
            return Found::AsItIs;
        }
        let sources = parts.into_iter().map(|part| if let Found::Logits(source) = part { Some(source) } else { None });
        match sources.collect::<Option<Vec<String>>>() {
            Some(sources) => Found::Logits(self.copied(node, name, &sources)),
            None => {
                Found::Probability("it is joined with values that are no probabilities, or not of one sigmoid each")
            }
        }
    }

    /// The same operator over these inputs, in the place of its first ones; gives what became of the output `name`.
    fn copied(&mut self, node: &NodeProto, name: &str, sources: &[String]) -> String {
        let renamed = |output: &String| if output.is_empty() { String::new() } else { format!("{output} as logits") };
        let wanted = renamed(&name.to_owned());
        // A split has several outputs, which all came with the first of them.
        if self.graph.node.iter().all(|n| !n.output.contains(&wanted)) {
            let mut copy = node.clone();
            copy.input.iter_mut().zip(sources).for_each(|(input, source)| input.clone_from(source));
            copy.output = copy.output.iter().map(renamed).collect();
            copy.name = format!("{} as logits", node.name);
            self.graph.node.push(copy);
        }
        wanted
    }
}

fn casts_to_floats(node: &NodeProto) -> bool {
    const FLOATS: [i32; 4] = [element::FLOAT, element::FLOAT16, element::BFLOAT16, element::DOUBLE];
    let to = node.attribute.iter().find(|a| a.name == "to").and_then(|a| i32::try_from(a.i).ok());
    to.is_some_and(|to| FLOATS.contains(&to))
}
