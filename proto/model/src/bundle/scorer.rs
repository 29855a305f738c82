//! Which kind of ranker does a bundle hold?
//!
//! A graph (ONNX) or trees (LightGBM): both have a user part, activations and a part for each candidate, so that
//! nothing outside the bundle knows the difference.

use super::manifest::Files;
use super::pack::FileMap;
use super::ranker::Ranker;
use super::trees::TreeRanker;
use super::{Scratch, file_of};
use crate::error::{BundleError, ModelError};
use crate::exec;
use crate::feature::FeatureRow;
use crate::onnx;
use crate::partition::PartitionReport;
use crate::schema::Schema;

/// A ranker of either kind.
pub(super) enum Scorer {
    Graph(Box<Ranker>),
    Trees(Box<TreeRanker>),
}

impl Scorer {
    /// Reads what the bundle names.
    pub fn new(files: &FileMap, names: &Files, schema: &Schema) -> Result<Self, BundleError> {
        if !names.trees.is_empty() {
            let trees = TreeRanker::new(&names.trees, schema, |name| file_of(files, name))?;
            return Ok(Self::Trees(Box::new(trees)));
        }
        let of_ranker = |reason| BundleError::Graph { file: names.ranker.clone(), reason };
        let read = onnx::read(file_of(files, &names.ranker)?.clone()).map_err(of_ranker)?;
        Ok(Self::Graph(Box::new(Ranker::new(&read, schema).map_err(of_ranker)?)))
    }

    /// Keeps the part for each candidate less exactly; trees are exact.
    pub fn keep(&mut self, precision: &exec::Precision) -> Result<(), String> {
        match self {
            Self::Graph(graph) => graph.keep(precision),
            Self::Trees(_) => Ok(()),
        }
    }

    pub fn hash(&self) -> [u8; 32] {
        match self {
            Self::Graph(graph) => graph.hash,
            Self::Trees(trees) => trees.hash,
        }
    }

    pub fn report(&self) -> PartitionReport {
        match self {
            Self::Graph(graph) => graph.report,
            Self::Trees(trees) => trees.report,
        }
    }

    pub fn user_width(&self) -> usize {
        match self {
            Self::Graph(graph) => graph.user_width,
            Self::Trees(trees) => trees.user_width(),
        }
    }

    pub fn item_width(&self) -> usize {
        match self {
            Self::Graph(graph) => graph.item_width,
            Self::Trees(trees) => trees.item_width(),
        }
    }

    /// Appends the user part.
    pub fn run_user(
        &self,
        schema: &Schema,
        user: &FeatureRow,
        scratch: &mut Scratch,
        part: &mut Vec<f32>,
    ) -> Result<(), ModelError> {
        match self {
            Self::Graph(graph) => graph.run_user(schema, user, (&mut scratch.arena, &mut scratch.encoding), part),
            Self::Trees(trees) => trees.run_user(schema, user, part),
        }
    }

    /// Appends the activations of at most a block of items.
    pub fn run_items(
        &self,
        schema: &Schema,
        items: &[FeatureRow],
        scratch: &mut Scratch,
        activations: &mut Vec<f32>,
    ) -> Result<(), ModelError> {
        match self {
            Self::Graph(graph) => {
                graph.run_items(schema, items, (&mut scratch.arena, &mut scratch.encoding), activations)
            }
            Self::Trees(trees) => trees.run_items(schema, items, activations),
        }
    }

    /// Calls `sink` with head and raw output, candidate by candidate.
    pub fn rank(
        &self,
        scratch: &mut Scratch,
        (user_part, activations): (&[f32], &[f32]),
        cross: (&[f32], usize),
        n: usize,
        sink: impl FnMut(usize, f32),
    ) {
        match self {
            Self::Graph(graph) => graph.rank(&mut scratch.arena, user_part, activations, cross, n, sink),
            Self::Trees(trees) => trees.rank(scratch, (user_part, activations), cross, n, sink),
        }
    }

    /// The unsplit ranker, on at most a block of candidates.
    pub fn whole(
        &self,
        schema: &Schema,
        rows: (&FeatureRow, &[FeatureRow]),
        cross: &[f32],
        scratch: &mut Scratch,
        sink: impl FnMut(usize, f32),
    ) -> Result<(), ModelError> {
        match self {
            Self::Graph(graph) => graph.whole(schema, rows, cross, (&mut scratch.arena, &mut scratch.encoding), sink),
            Self::Trees(trees) => trees.whole(schema, rows, (cross, schema.cross.len()), sink),
        }
    }
}
