//! Which entries of a tensor depend on the user, which on the item, and which on both?
//!
//! A concatenation of features has all three. Its *groups* are the same entries sorted by label along the axis of
//! the concatenation: one tensor for each group, and the places that its entries have in the whole. With them an
//! operation can be applied to each group alone ([`super::spread`]), and a matrix that reads the whole falls into
//! the rows that each group meets.

use super::Label;
use super::draft::Draft;
use crate::graph::{Node, Op, TensorId};
use std::ops::Range;

/// Entries of one tensor along an axis, kept apart.
#[derive(Clone, Debug)]
pub(super) struct Groups {
    /// The axis of a row along which they lie.
    pub axis: usize,
    pub members: Vec<Group>,
}

/// Some of the entries.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub tensor: TensorId,
    /// Their places in the whole, rising and apart, in the order they have in `tensor`.
    pub places: Vec<Range<usize>>,
}

impl Groups {
    /// Whether both keep the same entries together.
    pub fn alike(&self, other: &Self) -> bool {
        self.axis == other.axis
            && self.members.len() == other.members.len()
            && self.members.iter().zip(&other.members).all(|(a, b)| a.places == b.places)
    }

    /// The same places, each group with what `f` makes of it, along `axis` of the result.
    pub fn map<E>(&self, axis: usize, mut f: impl FnMut(&Group) -> Result<TensorId, E>) -> Result<Self, E> {
        let members = self.members.iter().map(|g| Ok(Group { tensor: f(g)?, places: g.places.clone() }));
        Ok(Self { axis, members: members.collect::<Result<_, E>>()? })
    }

    /// Collects members of a concatenation: those of one label together, in order. Members that depend on both and
    /// are groups of another concatenation stay apart, so that what is known of them is not lost.
    pub fn collect(draft: &mut Draft, axis: usize, pieces: &[Piece], name: &str) -> Result<Self, String> {
        let home = [Label::User, Label::Ad].into_iter().find(|l| pieces.iter().any(|p| draft.label(p.tensor) == *l));
        let home = home.unwrap_or(Label::Both);
        let label = |draft: &Draft, p: &Piece| match draft.label(p.tensor) {
            Label::Constant => home,
            label @ (Label::User | Label::Ad | Label::Both) => label,
        };
        let mut members = Vec::new();
        for wanted in [Label::User, Label::Ad, Label::Both] {
            let (mut tensors, mut places) = (Vec::new(), Vec::new());
            for piece in pieces.iter().filter(|p| label(draft, p) == wanted) {
                if wanted == Label::Both && piece.apart == Apart::Yes {
                    members.push(Group { tensor: piece.tensor, places: piece.places.clone() });
                } else {
                    tensors.push(piece.tensor);
                    places.extend(piece.places.iter().cloned());
                }
            }
            if !tensors.is_empty() {
                let (tensor, places) = joined(draft, axis, &tensors, places, name)?;
                members.push(Group { tensor, places });
            }
        }
        Ok(Self { axis, members })
    }
}

/// One member of a concatenation.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub tensor: TensorId,
    pub places: Vec<Range<usize>>,
    pub apart: Apart,
}

/// Whether a piece was a group of another concatenation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Apart {
    Yes,
    No,
}

/// The tensors one after the other, in the order of their places.
fn joined(
    draft: &mut Draft,
    axis: usize,
    tensors: &[TensorId],
    places: Vec<Range<usize>>,
    name: &str,
) -> Result<(TensorId, Vec<Range<usize>>), String> {
    let tensor = draft.push(Op::Concat { axis }, tensors, name)?;
    // Rising already, except where a group of an inner concatenation lies around another piece.
    if places.windows(2).all(|w| w[0].end <= w[1].start) {
        return Ok((tensor, merged(places)));
    }
    let mut offset = 0;
    let mut order: Vec<(Range<usize>, usize)> = Vec::with_capacity(places.len());
    for place in places {
        let length = place.len();
        order.push((place, offset));
        offset += length;
    }
    order.sort_by_key(|(place, _)| place.start);
    let local: Vec<Range<usize>> = order.iter().map(|(place, from)| *from..from + place.len()).collect();
    let tensor = entries(draft, tensor, axis, &local, name)?;
    Ok((tensor, merged(order.into_iter().map(|(place, _)| place).collect())))
}

/// Neighbouring places as one.
fn merged(places: Vec<Range<usize>>) -> Vec<Range<usize>> {
    let mut result: Vec<Range<usize>> = Vec::with_capacity(places.len());
    for place in places {
        match result.last_mut() {
            Some(last) if last.end == place.start => last.end = place.end,
            _ => result.push(place),
        }
    }
    result
}

/// Some entries of a tensor along an axis, by slices.
pub(super) fn entries(
    draft: &mut Draft,
    tensor: TensorId,
    axis: usize,
    places: &[Range<usize>],
    name: &str,
) -> Result<TensorId, String> {
    let mut slices = Vec::with_capacity(places.len());
    for place in places {
        let slice = Op::Slice { axis, start: place.start, step: 1, count: place.len() };
        slices.push(draft.push(slice, &[tensor], name)?);
    }
    draft.push(Op::Concat { axis }, &slices, name)
}

/// Some entries of a tensor along an axis, where it can be done before the arithmetic that makes them: columns of a
/// product are the product with those columns of the matrix, entries of an elementwise result the result of those
/// entries. What depends on one side alone is cut where it stands: that is off the request's path.
pub(super) fn select(
    draft: &mut Draft,
    tensor: TensorId,
    axis: usize,
    places: &[Range<usize>],
    depth: usize,
) -> Result<TensorId, String> {
    /// A bias behind a product behind a sum is three; the bound keeps the recursion small whatever the file says.
    const DEPTH_MAX: usize = 16;
    let dims = draft.dims(tensor).to_vec();
    let maker = draft.maker(tensor).filter(|_| draft.label(tensor) == Label::Both && depth < DEPTH_MAX).cloned();
    let Some(Node { op, inputs, .. }) = maker else { return entries(draft, tensor, axis, places, "") };
    match (&op, inputs.as_slice()) {
        (Op::Unary(_) | Op::Binary(_) | Op::Sum | Op::Select, inputs) => {
            let mut selected = Vec::with_capacity(inputs.len());
            for input in inputs {
                selected.push(aligned(draft, *input, (axis, dims.len()), places, depth + 1)?);
            }
            draft.push(op, &selected, "")
        }
        (Op::MatMul, [left, matrix])
            if axis + 1 == dims.len() && draft.label(*matrix) == Label::Constant && draft.dims(*matrix).len() == 2 =>
        {
            let block = entries(draft, *matrix, 1, places, "")?;
            draft.push(Op::MatMul, &[*left, block], "")
        }
        _ => entries(draft, tensor, axis, places, ""),
    }
}

/// The entries of an operand of an elementwise operation whose result has `rank` dimensions: one that repeats along
/// the axis stays as it is.
pub(super) fn aligned(
    draft: &mut Draft,
    operand: TensorId,
    (axis, rank): (usize, usize),
    places: &[Range<usize>],
    depth: usize,
) -> Result<TensorId, String> {
    let own = draft.dims(operand).len();
    match (own + axis).checked_sub(rank) {
        Some(at) if draft.dims(operand)[at] > 1 => select(draft, operand, at, places, depth),
        Some(_) | None => Ok(operand),
    }
}
