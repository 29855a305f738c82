//! Which chances of a click and of a conversion do the two towers imply, before the ranker is asked?
//!
//! Retrieval finds thousands, the ranker takes hundreds: the light order stands between. Without a head the click is a
//! line through the similarity. A head is a small graph over what the towers put out beside query and vector:
//! `user_light` once a request, `item_light` once an item, and the `similarity` of the two. It is distilled from the
//! ranker, so that fewer of the ranker's best are cut before it sees them. A conversion given a click is its second,
//! optional output: bids on conversions have another order than bids on clicks, and one number cannot give both. It
//! runs in the same blocks as the ranker.

use crate::error::GraphError;
use crate::exec::{Arena, BLOCK_ROWS, Program};
use crate::graph::Graph;
use crate::limits::LIGHT_VALUES_MAX;
use crate::onnx;
use crate::partition::{self, PartCost};
use crate::schema::Light;
use prost::bytes::Bytes;

/// The second output of the user tower, and an input of the head.
pub(crate) const USER: &str = "user_light";
/// The second output of the item tower, and an input of the head.
pub(crate) const ITEM: &str = "item_light";
pub(crate) const SIMILARITY: &str = "similarity";
/// The output with the logit of a click.
pub(crate) const CLICK: &str = "light";
/// The output with the logit of a conversion given a click; a head may go without it.
pub(crate) const CONVERSION: &str = "light_conversion";

/// What the light order says of items, a value for each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LightLogits {
    /// Logits of a click.
    pub clicks: Vec<f32>,
    /// Logits of a conversion given a click; empty where the bundle has one rate for all
    /// ([`prior_conversion`](crate::Schema::prior_conversion)).
    pub conversions: Vec<f32>,
}

/// What an input of the head takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Feed {
    User,
    Item,
    Similarity,
}

/// The head of the light order.
#[derive(Debug)]
pub(super) struct LightHead {
    program: Program,
    feeds: Vec<Feed>,
    /// Whether there is a second output.
    predicts_conversions: bool,
    /// What it costs for an item.
    pub cost: PartCost,
    /// f32s of the user's side.
    pub user_width: usize,
    /// f32s of an item's side.
    pub item_width: usize,
}

/// f32s that a tower puts out for the head; 0 when it has no such output.
pub(super) fn tower_width(graph: &Graph, name: &'static str) -> Result<usize, GraphError> {
    let Some((_, id)) = graph.outputs.iter().find(|(n, _)| n == name) else { return Ok(0) };
    let shape = &graph.tensors[*id].shape;
    let wrong = |reason: String| GraphError::Port { port: "output", name: name.to_owned(), reason };
    match shape.dims.as_slice() {
        [width] if shape.batch && (1..=LIGHT_VALUES_MAX).contains(width) => Ok(*width),
        _ => Err(wrong(format!("is {shape:?}, [batch, n] with n from 1 to {LIGHT_VALUES_MAX} is possible"))),
    }
}

impl LightHead {
    /// Reads a head between towers that put out as many values for it.
    pub fn read(bytes: Bytes, user_width: usize, item_width: usize) -> Result<Self, GraphError> {
        let read = onnx::read(bytes)?;
        let predicts_conversions = read.graph.outputs.iter().any(|(name, _)| name == CONVERSION);
        let wanted = [(CLICK, 1), (CONVERSION, 1)].into_iter().take(1 + usize::from(predicts_conversions));
        let outputs = super::ranker::outputs(&read.graph, wanted)?;
        let graph = read.graph.extract(&read.graph.inputs, &outputs).map_err(GraphError::Extract)?;
        let mut feeds = Vec::with_capacity(graph.inputs.len());
        for id in &graph.inputs {
            let name = &graph.tensors[*id].name;
            let wrong = |reason: String| GraphError::Port { port: "input", name: name.clone(), reason };
            let (feed, width) = match name.as_str() {
                USER => (Feed::User, user_width),
                ITEM => (Feed::Item, item_width),
                SIMILARITY => (Feed::Similarity, 1),
                _ => return Err(wrong(format!("a light head reads {USER}, {ITEM} and {SIMILARITY}"))),
            };
            if width == 0 {
                return Err(wrong("the tower has no such output".to_owned()));
            }
            if graph.dims(*id) != [width] && !(graph.dims(*id).is_empty() && width == 1) {
                return Err(wrong(format!("is [batch, {:?}], the tower puts out [batch, {width}]", graph.dims(*id))));
            }
            feeds.push(feed);
        }
        let rows: Vec<usize> = feeds.iter().map(|f| if *f == Feed::User { 1 } else { BLOCK_ROWS }).collect();
        let program = Program::compile(&graph, &rows).map_err(GraphError::Compile)?;
        // What the head does not read is not carried.
        let width_of = |feed: Feed, width: usize| if feeds.contains(&feed) { width } else { 0 };
        let (user_width, item_width) = (width_of(Feed::User, user_width), width_of(Feed::Item, item_width));
        let cost = partition::cost(&graph);
        Ok(Self { program, feeds, predicts_conversions, cost, user_width, item_width })
    }

    /// Outputs: a click's, and perhaps a conversion's.
    pub fn outputs(&self) -> usize {
        1 + usize::from(self.predicts_conversions)
    }

    /// Appends the logits for each similarity; `items` has a row for each.
    pub fn run(&self, arena: &mut Arena, user: &[f32], items: &[f32], similarities: &[f32], out: &mut LightLogits) {
        let program = &self.program;
        program.prepare(arena);
        for (block, similarities) in similarities.chunks(BLOCK_ROWS).enumerate() {
            let from = block * BLOCK_ROWS * self.item_width;
            let items = &items[from..from + similarities.len() * self.item_width];
            for (input, feed) in self.feeds.iter().enumerate() {
                let source = match feed {
                    Feed::User => user,
                    Feed::Item => items,
                    Feed::Similarity => similarities,
                };
                let values = program.input(arena, input);
                values[..source.len()].copy_from_slice(source);
                values[source.len()..].fill(0.0);
            }
            program.run(arena, similarities.len());
            let outputs = [&mut out.clicks, &mut out.conversions];
            for (at, out) in outputs.into_iter().take(self.outputs()).enumerate() {
                let logits = program.output(arena, at);
                // What reads the user alone has one row for all.
                let one = program.outputs[at].rows == 1;
                out.extend((0..similarities.len()).map(|row| logits[if one { 0 } else { row }]));
            }
        }
    }
}

/// The logits of a line through the similarity.
pub(super) fn line(light: Light, similarities: &[f32], out: &mut Vec<f32>) {
    out.extend(similarities.iter().map(|s| light.scale.mul_add(*s, light.offset)));
}
