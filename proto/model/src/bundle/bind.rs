//! Which feature feeds which input of a graph?
//!
//! Inputs are named by feature (`NAME`, and `NAME.weight` for the weights of a set or sequence). A graph may use any
//! of the features that its side allows; an input that the schema does not know, or knows in another width or type,
//! is refused, and so is an embedding table with fewer rows than its feature has buckets.

use crate::error::{GraphError, ModelError};
use crate::exec::{Arena, Program};
use crate::feature::{self, FeatureRow};
use crate::graph::{Graph, Op, TensorId, Unary};
use crate::onnx::Element;
use crate::partition::Label;
use crate::schema::{FeatureKind, FeatureSpec, Schema};

/// What an input takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Feed {
    /// A feature of one side: its rows or numbers.
    Values(Label, usize),
    /// The weights of a set or sequence feature.
    Weights(Label, usize),
    /// A feature of the meeting.
    Cross(usize),
}

impl Feed {
    /// What the input depends on.
    pub const fn label(self) -> Label {
        match self {
            Self::Values(label, _) | Self::Weights(label, _) => label,
            Self::Cross(_) => Label::Both,
        }
    }
}

/// The feed of each input of a graph.
pub(super) fn feeds(graph: &Graph, elements: &[(String, Element)], schema: &Schema) -> Result<Vec<Feed>, GraphError> {
    let mut feeds = Vec::with_capacity(graph.inputs.len());
    for id in &graph.inputs {
        let name = &graph.tensors[*id].name;
        let wrong = |reason: String| GraphError::Port { port: "input", name: name.clone(), reason };
        let element = elements.iter().find(|(n, _)| n == name).map(|(_, e)| *e);
        let (feed, spec) = find(name, schema).ok_or_else(|| wrong("no feature has this name".to_owned()))?;
        let (width, integer) = match (feed, spec) {
            (Feed::Values(..), Some(spec)) => (spec.width(), !matches!(spec.kind, FeatureKind::Dense { .. })),
            (Feed::Weights(..), Some(spec)) => (spec.width(), false),
            (Feed::Cross(_) | Feed::Values(..) | Feed::Weights(..), _) => (1, false),
        };
        let dims = graph.dims(*id);
        if !(dims == [width] || (dims.is_empty() && width == 1)) {
            return Err(wrong(format!("is [batch, {dims:?}], the schema says [batch, {width}]")));
        }
        let expected = if integer { Element::Integer } else { Element::Float };
        if element != Some(expected) {
            return Err(wrong(format!("is {element:?}, the schema says {expected:?}")));
        }
        if let (Feed::Values(..), Some(spec)) = (feed, spec) {
            tables(graph, *id, spec)?;
        }
        feeds.push(feed);
    }
    Ok(feeds)
}

fn find<'a>(name: &str, schema: &'a Schema) -> Option<(Feed, Option<&'a FeatureSpec>)> {
    for (label, side) in [(Label::User, &schema.user), (Label::Ad, &schema.item)] {
        for (i, spec) in side.iter().enumerate() {
            if spec.name == name {
                return Some((Feed::Values(label, i), Some(spec)));
            }
            if spec.kind.is_weighted() && name.strip_suffix(".weight") == Some(spec.name.as_str()) {
                return Some((Feed::Weights(label, i), Some(spec)));
            }
        }
    }
    schema.cross.iter().position(|c| c.name == name).map(|i| (Feed::Cross(i), None))
}

/// Tables that are read at an input's rows have a row for each.
pub(crate) fn tables(graph: &Graph, input: TensorId, spec: &FeatureSpec) -> Result<(), GraphError> {
    let Some(buckets) = spec.kind.buckets() else { return Ok(()) };
    for node in &graph.nodes {
        let (Op::Gather { .. }, [table, at]) = (&node.op, node.inputs.as_slice()) else { continue };
        let mut at = *at;
        // Ids that came in one tensor with numbers were cut back to integers.
        let passes = |op: &Op| matches!(op, Op::Reshape { .. } | Op::Unary(Unary::Truncate));
        while let Some(view) = graph.maker(at).filter(|n| passes(&n.op)) {
            at = view.inputs[0];
        }
        let rows = graph.dims(*table).first().copied().unwrap_or(0);
        if at == input && rows != buckets as usize + 1 {
            return Err(GraphError::Port {
                port: "input",
                name: spec.name.clone(),
                reason: format!(
                    "its table has {rows} rows, {buckets} buckets and a missing value need {}",
                    buckets + 1
                ),
            });
        }
    }
    Ok(())
}

/// Buffers for one value.
#[derive(Debug, Default)]
pub(super) struct Encoding {
    rows: Vec<f32>,
    weights: Vec<f32>,
    order: Vec<(u64, f32)>,
}

/// Writes the features of one side into row `at` of a program's inputs.
pub(super) fn write(
    (program, feeds): (&Program, &[Feed]),
    (side, specs): (Label, &[FeatureSpec]),
    row: &FeatureRow,
    at: usize,
    (arena, encoding): (&mut Arena, &mut Encoding),
) -> Result<(), ModelError> {
    if row.values.len() != specs.len() {
        let what = if side == Label::User { "user features" } else { "item features" };
        return Err(ModelError::Width { what, found: row.values.len(), expected: specs.len() });
    }
    for (input, feed) in feeds.iter().enumerate() {
        let (index, of_weights) = match feed {
            Feed::Values(label, i) if *label == side => (*i, false),
            Feed::Weights(label, i) if *label == side => (*i, true),
            Feed::Values(..) | Feed::Weights(..) | Feed::Cross(_) => continue,
        };
        let spec = &specs[index];
        let width = spec.width();
        encoding.rows.resize(width, 0.0);
        encoding.weights.resize(width, 0.0);
        let Encoding { rows, weights, order } = encoding;
        feature::encode(spec, &row.values[index], rows, weights, order)?;
        let source = if of_weights { weights } else { rows };
        program.input(arena, input)[at * width..(at + 1) * width].copy_from_slice(source);
    }
    Ok(())
}
