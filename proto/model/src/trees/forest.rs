//! How are the models of all heads scored together, fast?
//!
//! The trees of a bundle's heads share their columns: each input is encoded once for all of them (see [`super::slots`]),
//! at the place where it is known. User-only codes are made once a request, item-only codes once an item at staging;
//! what is left for a candidate is to lay codes into columns and to run the trees over blocks of 64 rows
//! (see [`super::kernel`]).

use super::ensemble::{Child, Ensemble, Rule, Tree};
use super::kernel::{self, FastTree, NARROW_LEAVES, Node, Planes, ROWS, Step, WAITING_MAX};
use super::limits::COLUMNS_MAX;
use super::slots::Slots;
use std::ops::Range;

/// One head's model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member<'a> {
    pub ensemble: &'a Ensemble,
    /// The input that each of its features is.
    pub inputs: &'a [usize],
}

/// Models over common inputs. Equal bundles give equal forests.
#[derive(Debug)]
pub struct Forest {
    slots: Slots,
    trees: Vec<FastTree>,
    /// The trees of each model.
    outputs: Vec<Range<usize>>,
    inputs: usize,
}

impl Forest {
    /// One model over its own features.
    ///
    /// # Errors
    /// When its splits need more columns than there may be.
    pub fn new(ensemble: &Ensemble) -> Result<Self, String> {
        let inputs: Vec<usize> = (0..ensemble.features.len()).collect();
        Self::of(&[Member { ensemble, inputs: &inputs }], inputs.len())
    }

    /// Models over `inputs` inputs.
    pub(crate) fn of(members: &[Member<'_>], inputs: usize) -> Result<Self, String> {
        let splits = members
            .iter()
            .flat_map(|m| m.ensemble.trees.iter().flat_map(|t| &t.splits).map(|s| (m.inputs[s.feature], &s.rule)));
        let slots = Slots::new(splits)?;
        if slots.columns > COLUMNS_MAX {
            return Err(format!("{} columns, {COLUMNS_MAX} are possible", slots.columns));
        }
        let (mut trees, mut outputs) = (Vec::new(), Vec::new());
        for member in members {
            let place = |feature: usize, rule: &Rule| slots.place(member.inputs[feature], rule);
            let first = trees.len();
            for tree in &member.ensemble.trees {
                trees.push(compile(tree, &place).ok_or("a split has no column")?);
            }
            outputs.push(first..trees.len());
        }
        Ok(Self { slots, trees, outputs, inputs })
    }

    #[cfg(test)]
    pub(super) fn trees(&self) -> &[FastTree] {
        &self.trees
    }

    /// Codes of a row, by the input that each is made of; inputs rise.
    pub(crate) fn codes(&self) -> impl ExactSizeIterator<Item = usize> {
        self.slots.slots.iter().map(|s| s.input)
    }

    /// The code that a slot has for its input's value.
    pub(crate) fn code(&self, slot: usize, value: f32) -> f32 {
        self.slots.slots[slot].code(value)
    }

    /// Takes the buffers that the forest needs.
    pub(crate) fn prepare(&self, planes: &mut Planes) {
        planes.planes.clear();
        planes.planes.resize(self.slots.columns, [0; ROWS]);
        planes.sums.resize(self.outputs.len(), [0.0; ROWS]);
    }

    /// Lays the codes of some slots into a block: `codes` has those of the first row, the next row's follow after
    /// `stride`. With one row and `stride` 0 the row is every row.
    pub(crate) fn fill(&self, slots: Range<usize>, (codes, stride): (&[f32], usize), planes: &mut Planes) {
        let mut repeated = [0.0; ROWS];
        for (at, slot) in self.slots.slots[slots].iter().enumerate() {
            if stride == 0 {
                repeated.fill(codes[at]);
                slot.fill(&repeated, 1, &mut planes.planes);
            } else {
                slot.fill(&codes[at..], stride, &mut planes.planes);
            }
        }
    }

    /// Leaves the raw scores of a block's rows, model by model, in the buffers' `sums`.
    pub(crate) fn run(&self, planes: &mut Planes) {
        for (output, trees) in self.outputs.iter().enumerate() {
            let mut sums = [0.0; ROWS];
            kernel::run(&self.trees[trees.clone()], planes, &mut sums);
            planes.sums[output] = sums;
        }
    }

    /// The raw scores of rows, one value for each input and row, row-major; missing values are NaN. `out` gets a
    /// score for each row and model, row-major.
    pub fn score(&self, scorer: &mut Scorer, rows: &[f32], out: &mut Vec<f64>) {
        let (width, models) = (self.inputs.max(1), self.outputs.len());
        out.clear();
        out.resize(rows.len() / width * models, 0.0);
        self.prepare(&mut scorer.planes);
        let blocks = rows.chunks(width * ROWS).zip(out.chunks_mut((models * ROWS).max(1)));
        for (rows, out) in blocks {
            for slot in &self.slots.slots {
                let mut values = [0.0; ROWS];
                for (value, row) in values.iter_mut().zip(rows.chunks_exact(width)) {
                    *value = row[slot.input];
                }
                slot.fill_values(&values, &mut scorer.planes.planes);
            }
            self.run(&mut scorer.planes);
            for (model, sums) in scorer.planes.sums.iter().enumerate() {
                for (row, sum) in out.chunks_exact_mut(models).zip(sums) {
                    row[model] = *sum;
                }
            }
        }
    }
}

/// Buffers of one thread, for [`Forest::score`].
#[derive(Debug, Default)]
pub struct Scorer {
    pub(super) planes: Planes,
}

type Place<'a> = dyn Fn(usize, &Rule) -> Option<(usize, u8)> + 'a;

fn compile(tree: &Tree, place: &Place<'_>) -> Option<FastTree> {
    let leaves = tree.leaves.clone();
    if leaves.len() <= NARROW_LEAVES {
        return Some(FastTree::Narrow { steps: steps(tree, place)?, leaves });
    }
    let splits = tree.splits.len();
    let target = |child: Child| match child {
        Child::Split(i) => i as u32,
        Child::Leaf(i) => (splits + i) as u32,
    };
    let mut nodes = Vec::with_capacity(splits + leaves.len());
    for split in &tree.splits {
        let (column, rank) = place(split.feature, &split.rule)?;
        nodes.push(Node { column: column as u16, rank, left: target(split.left), right: target(split.right) });
    }
    for leaf in splits..splits + leaves.len() {
        nodes.push(Node { column: 0, rank: 0, left: leaf as u32, right: leaf as u32 });
    }
    Some(FastTree::Wide { nodes, splits, leaves })
}

/// The splits below-first, the larger side of each before the smaller.
fn steps(tree: &Tree, place: &Place<'_>) -> Option<Vec<Step>> {
    let sizes = sizes(tree);
    let mut steps = Vec::with_capacity(tree.splits.len());
    // (split, results that wait already, whether its sides are done)
    let mut open: Vec<(usize, usize, Sides)> = Vec::new();
    if !tree.splits.is_empty() {
        open.push((0, 0, Sides::Open));
    }
    while let Some((at, waiting, sides)) = open.pop() {
        let split = &tree.splits[at];
        let left_first = size(&sizes, split.left) >= size(&sizes, split.right);
        let (first, second) = if left_first { (split.left, split.right) } else { (split.right, split.left) };
        // The first side waits at `waiting`, and the second above it; a leaf takes no place.
        let above = waiting + usize::from(matches!(first, Child::Split(_)));
        if let Sides::Open = sides {
            open.push((at, waiting, Sides::Done));
            for (side, waiting) in [(second, above), (first, waiting)] {
                if let Child::Split(below) = side {
                    open.push((below, waiting, Sides::Open));
                }
            }
            continue;
        }
        let lane = |child: Child, waiting: usize| match child {
            Child::Leaf(leaf) => leaf as u16,
            Child::Split(_) => (NARROW_LEAVES + waiting) as u16,
        };
        let (first, second) = (lane(first, waiting), lane(second, above));
        let (left, right) = if left_first { (first, second) } else { (second, first) };
        let (column, rank) = place(split.feature, &split.rule)?;
        if waiting >= WAITING_MAX || above > WAITING_MAX {
            return None;
        }
        steps.push(Step { column: column as u16, left, right, rank, into: waiting as u8 });
    }
    Some(steps)
}

enum Sides {
    Open,
    Done,
}

const fn size(sizes: &[usize], child: Child) -> usize {
    match child {
        Child::Split(i) => sizes[i],
        Child::Leaf(_) => 0,
    }
}

/// Splits below each split, itself included.
fn sizes(tree: &Tree) -> Vec<usize> {
    let (mut order, mut open) = (Vec::with_capacity(tree.splits.len()), vec![0]);
    while let Some(at) = open.pop() {
        let Some(split) = tree.splits.get(at) else { continue };
        order.push(at);
        for child in [split.left, split.right] {
            if let Child::Split(below) = child {
                open.push(below);
            }
        }
    }
    let mut sizes = vec![1; tree.splits.len()];
    for at in order.into_iter().rev() {
        let split = &tree.splits[at];
        sizes[at] = 1 + size(&sizes, split.left) + size(&sizes, split.right);
    }
    sizes
}
