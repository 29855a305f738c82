//! How is a ranker run on rows from a file, and measured without the work around it?
//!
//! A row of examples is a golden row without its numbers. An [`EncodedRequest`] is a request whose features have been
//! written as the inputs of the graphs, once, before a clock starts: another runtime that is compared is given encoded
//! inputs, too. Trees have no such form: what they do first with a feature is a part of their work.

use super::golden::{self, Raw};
use super::scorer::Scorer;
use super::{Bundle, Scratch, width};
use crate::error::{BundleError, ModelError};
use crate::exec::{Arena, BLOCK_ROWS, Program};
use crate::feature::FeatureRow;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The raw features of one user and one item.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Example {
    /// Of the user and the context.
    pub user: FeatureRow,
    /// Of the item.
    pub item: FeatureRow,
}

/// One line; the numbers of a golden row may stand beside and are not read.
#[derive(Deserialize)]
struct Line {
    user: BTreeMap<String, Raw>,
    item: BTreeMap<String, Raw>,
}

/// A user and candidates, with everything that the ranker's graphs read of them.
#[derive(Clone, Debug, Default)]
pub struct EncodedRequest {
    user: FeatureRow,
    items: Vec<FeatureRow>,
    cross: Vec<f32>,
    /// The inputs of the user's graph, one after the other.
    user_inputs: Vec<f32>,
    /// The inputs of the unsplit graph, for each block of candidates.
    blocks: Vec<Vec<f32>>,
}

impl Bundle {
    /// Reads a row of examples: a JSON object in the form of a golden row, with `user` and `item`.
    ///
    /// # Errors
    /// When it is no such object, or does not fit the schema.
    pub fn example(&self, line: &str) -> Result<Example, BundleError> {
        let line: Line = serde_json::from_str(line).map_err(|e| BundleError::Golden(e.to_string()))?;
        let user = golden::features(&self.schema.user, &line.user).map_err(BundleError::Golden)?;
        let item = golden::features(&self.schema.item, &line.item).map_err(BundleError::Golden)?;
        Ok(Example { user, item })
    }

    /// Reads a row that was written for another bundle: features that this one does not know are left out.
    ///
    /// # Errors
    /// When it is no such object, or a feature has a value of another kind than this schema says.
    pub fn example_of_other(&self, line: &str) -> Result<Example, BundleError> {
        let mut line: Line = serde_json::from_str(line).map_err(|e| BundleError::Golden(e.to_string()))?;
        line.user.retain(|name, _| self.schema.user.iter().any(|s| s.name == *name));
        line.item.retain(|name, _| self.schema.item.iter().any(|s| s.name == *name));
        let user = golden::features(&self.schema.user, &line.user).map_err(BundleError::Golden)?;
        let item = golden::features(&self.schema.item, &line.item).map_err(BundleError::Golden)?;
        Ok(Example { user, item })
    }

    /// The golden rows as they stand in the file, a JSON object a line.
    ///
    /// # Errors
    /// When the file cannot be unpacked.
    pub fn golden_lines(&self) -> Result<Vec<String>, BundleError> {
        let text = golden::text(&self.golden)?;
        Ok(text.lines().filter(|l| !l.trim().is_empty()).map(str::to_owned).collect())
    }

    /// The features of the golden rows.
    ///
    /// # Errors
    /// When a row cannot be read.
    pub fn golden_examples(&self) -> Result<Vec<Example>, BundleError> {
        self.golden_lines()?.iter().map(|line| self.example(line)).collect()
    }

    /// Encodes a request; `cross` is row-major.
    ///
    /// # Errors
    /// When a row does not fit the schema, or `cross` has a wrong length.
    pub fn encode_request(
        &self,
        scratch: &mut Scratch,
        user: &FeatureRow,
        items: &[FeatureRow],
        cross: &[f32],
    ) -> Result<EncodedRequest, ModelError> {
        let columns = self.schema.cross.len();
        width("cross features", cross.len(), items.len().saturating_mul(columns))?;
        let (user, items, cross) = (user.clone(), items.to_vec(), cross.to_vec());
        let mut request = EncodedRequest { user, items, cross, ..EncodedRequest::default() };
        let Scorer::Graph(graph) = &self.ranker else { return Ok(request) };
        let (arena, encoding) = (&mut scratch.arena, &mut scratch.encoding);
        graph.fill_user(&self.schema, &request.user, (arena, encoding))?;
        request.user_inputs = inputs(graph.user_program(), arena);
        for (i, block) in request.items.chunks(BLOCK_ROWS).enumerate() {
            let from = i * BLOCK_ROWS * columns;
            let cross = &request.cross[from..from + block.len() * columns];
            graph.fill_whole(&self.schema, (&request.user, block), cross, (arena, encoding))?;
            request.blocks.push(inputs(graph.whole_program(), arena));
        }
        Ok(request)
    }

    /// The user part of an encoded request. The user tower is not run: what the light head would read of it, and the
    /// ranker does not, is 0.
    ///
    /// # Errors
    /// When the request was encoded by another bundle.
    pub fn run_user_part(
        &self,
        scratch: &mut Scratch,
        request: &EncodedRequest,
        part: &mut Vec<f32>,
    ) -> Result<(), ModelError> {
        part.clear();
        match &self.ranker {
            Scorer::Trees(_) => self.ranker.run_user(&self.schema, &request.user, scratch, part)?,
            Scorer::Graph(graph) => {
                write(graph.user_program(), &mut scratch.arena, &request.user_inputs)?;
                graph.run_user_filled(&mut scratch.arena, part);
            }
        }
        part.resize(self.user_part_width(), 0.0);
        Ok(())
    }

    /// The raw outputs of the unsplit ranker, row-major, one column a head.
    ///
    /// # Errors
    /// When the request was encoded by another bundle.
    pub fn rank_unsplit(
        &self,
        scratch: &mut Scratch,
        request: &EncodedRequest,
        out: &mut Vec<f32>,
    ) -> Result<(), ModelError> {
        out.clear();
        let Scorer::Graph(graph) = &self.ranker else {
            let rows = (&request.user, request.items.as_slice());
            return self.ranker.whole(&self.schema, rows, &request.cross, scratch, |_, raw| out.push(raw));
        };
        for (block, items) in request.blocks.iter().zip(request.items.chunks(BLOCK_ROWS)) {
            write(graph.whole_program(), &mut scratch.arena, block)?;
            graph.run_whole_filled(&mut scratch.arena, items.len(), |_, raw| out.push(raw));
        }
        Ok(())
    }

    /// Turns raw outputs, row-major, into predictions.
    pub fn calibrate(&self, raw: &mut [f32]) {
        for row in raw.chunks_exact_mut(self.schema.heads.len()) {
            for (value, head) in row.iter_mut().zip(&self.schema.heads) {
                *value = head.predict(*value);
            }
        }
    }
}

/// What stands in a program's inputs.
fn inputs(program: &Program, arena: &mut Arena) -> Vec<f32> {
    (0..program.inputs.len()).flat_map(|i| program.input(arena, i).to_vec()).collect()
}

fn write(program: &Program, arena: &mut Arena, mut values: &[f32]) -> Result<(), ModelError> {
    program.prepare(arena);
    let (found, mut expected) = (values.len(), 0);
    for i in 0..program.inputs.len() {
        let input = program.input(arena, i);
        expected += input.len();
        let Some((own, rest)) = values.split_at_checked(input.len()) else {
            return Err(ModelError::Width { what: "encoded request", found, expected });
        };
        input.copy_from_slice(own);
        values = rest;
    }
    width("encoded request", found, expected)
}
