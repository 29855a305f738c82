//! Where does the batch dimension stand in a tensor of the file?
//!
//! In the graph it is always the first and no operation touches it. Exporters move it all the same: torch's own
//! attention swaps it with the sequence, and merges it with the heads (`[length, batch * heads, width]`); jax moves it
//! to take the first entry of another axis. So each value carries the place that the batch dimension has in the
//! file's eyes, and an axis of the file is mapped to one of the graph. A transposition then permutes the rest, and a
//! reshape that merges the batch with its neighbours is a reshape of the rest, split where the batch stands.
//!
//! What mixes rows of the batch (a sum, a slice or a lookup along it) has no place here and is refused.

use super::Reader;
use super::node::{Call, Element};
use super::sizes::Size;
use crate::error::GraphError;
use crate::graph::{Op, TensorId};

/// The dimension of the file that holds the batch: `outer * batch * inner` entries, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Which dimension of the file it is.
    pub at: usize,
    /// Entries that were merged in front of it.
    pub outer: usize,
    /// Entries that were merged behind it.
    pub inner: usize,
}

impl Place {
    /// The first dimension, and nothing else in it.
    pub const FIRST: Self = Self { at: 0, outer: 1, inner: 1 };

    /// Dimensions of the graph that the batch's dimension of the file has beside the batch.
    pub const fn merged(self) -> usize {
        (self.outer != 1) as usize + (self.inner != 1) as usize
    }
}

/// A tensor of the graph as the file sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value {
    /// The tensor.
    pub id: TensorId,
    /// What it holds.
    pub element: Element,
    /// Where its batch dimension stands; without a meaning for a constant.
    pub place: Place,
}

impl Value {
    /// A tensor whose batch dimension, if it has one, is the first.
    pub const fn plain(id: TensorId, element: Element) -> Self {
        Self { id, element, place: Place::FIRST }
    }
}

impl Reader {
    /// Whether a value has a batch dimension.
    pub(super) fn batched(&self, value: Value) -> bool {
        self.graph.tensors[value.id].shape.batch
    }

    /// The dimensions that the file sees.
    pub(super) fn extents(&self, value: Value) -> Vec<Size> {
        let known = |d: &usize| Size::Known(*d as i64);
        let dims = self.graph.dims(value.id);
        if !self.batched(value) {
            return dims.iter().map(known).collect();
        }
        let Place { at, outer, inner } = value.place;
        let (before, rest) = dims.split_at(at.min(dims.len()));
        let behind = rest.get(value.place.merged()..).unwrap_or(&[]);
        let own = Size::Rows((outer * inner) as i64);
        before.iter().map(known).chain([own]).chain(behind.iter().map(known)).collect()
    }

    /// How many dimensions the file sees.
    pub(super) fn rank(&self, value: Value) -> usize {
        let dims = self.graph.dims(value.id).len();
        if self.batched(value) { dims + 1 - value.place.merged() } else { dims }
    }

    /// An axis of the file as one of the file's dimensions.
    pub(super) fn file_axis(call: &Call<'_>, rank: usize, axis: i64) -> Result<usize, GraphError> {
        let full = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
        match usize::try_from(full) {
            Ok(full) if full < rank => Ok(full),
            Ok(_) | Err(_) => call.refuse(format!("axis {axis} of {rank} dimensions")),
        }
    }

    /// An axis of the file as an axis of the graph.
    pub(super) fn axis(&self, call: &Call<'_>, value: Value, axis: i64) -> Result<usize, GraphError> {
        let axis = Self::file_axis(call, self.rank(value), axis)?;
        self.graph_axis(call, value, axis)
    }

    /// A dimension of the file as an axis of the graph.
    pub(super) fn graph_axis(&self, call: &Call<'_>, value: Value, axis: usize) -> Result<usize, GraphError> {
        if !self.batched(value) || axis < value.place.at {
            return Ok(axis);
        }
        if axis == value.place.at {
            return call.refuse("it would touch the batch dimension");
        }
        Ok(axis - 1 + value.place.merged())
    }

    /// Values that meet entry by entry, with the dimensions that make them meet in the graph.
    pub(super) fn aligned(&mut self, call: &Call<'_>, values: &[Value]) -> Result<(Vec<TensorId>, Place), GraphError> {
        let batched = |r: &Self, v: &Value| r.batched(*v);
        let lead = values.iter().filter(|v| batched(self, v)).max_by_key(|v| self.rank(**v)).copied();
        let Some(lead) = lead else { return Ok((values.iter().map(|v| v.id).collect(), Place::FIRST)) };
        let (rank, place) = (self.rank(lead), lead.place);
        let mut ids = Vec::with_capacity(values.len());
        for value in values {
            let missing = rank.checked_sub(self.rank(*value));
            ids.push(match (batched(self, value), missing) {
                (true, Some(missing)) => {
                    let same = Place { at: value.place.at + missing, ..value.place } == place;
                    if !same {
                        return call
                            .refuse("the batch dimension of one input would meet another dimension of the other");
                    }
                    let mut dims = vec![1; missing];
                    dims.extend_from_slice(self.graph.dims(value.id));
                    self.push(call, Op::Reshape { dims }, &[value.id])?
                }
                (false, missing) => self.constant_beside(call, *value, missing, (rank, place))?,
                (true, None) => return call.refuse("has inputs whose dimensions do not meet"),
            });
        }
        Ok((ids, place))
    }

    /// A constant that meets a batch whose dimension is not simply the first.
    fn constant_beside(
        &mut self,
        call: &Call<'_>,
        value: Value,
        missing: Option<usize>,
        (rank, place): (usize, Place),
    ) -> Result<TensorId, GraphError> {
        let own = self.graph.dims(value.id).to_vec();
        if place == Place::FIRST || own.len() < rank - place.at {
            return Ok(value.id);
        }
        let Some(missing) = missing else { return call.refuse(format!("a constant {own:?} has too many dimensions")) };
        let mut file = vec![1; missing];
        file.extend(own);
        if file[place.at] != 1 {
            return call.refuse("a constant would give the batch dimension a number");
        }
        let ones = std::iter::repeat_n(1, place.merged());
        let dims = file[..place.at].iter().copied().chain(ones).chain(file[place.at + 1..].iter().copied());
        self.push(call, Op::Reshape { dims: dims.collect() }, &[value.id])
    }

    /// The same values with the file's dimensions in another order.
    pub(super) fn transposed(&mut self, call: &Call<'_>, value: Value, order: &[usize]) -> Result<Value, GraphError> {
        let mut seen = order.to_vec();
        seen.sort_unstable();
        if seen.len() != self.rank(value) || seen.iter().enumerate().any(|(i, x)| i != *x) {
            return call.refuse(format!("{order:?} is not an order of {} dimensions", self.rank(value)));
        }
        if !self.batched(value) {
            let id = self.push(call, Op::Permute { order: order.to_vec() }, &[value.id])?;
            return Ok(Value { id, ..value });
        }
        let (at, merged) = (value.place.at, value.place.merged());
        let mut axes = Vec::with_capacity(order.len() + merged);
        for axis in order {
            match axis.cmp(&at) {
                std::cmp::Ordering::Less => axes.push(*axis),
                std::cmp::Ordering::Equal => axes.extend(at..at + merged),
                std::cmp::Ordering::Greater => axes.push(axis - 1 + merged),
            }
        }
        let id = self.push(call, Op::Permute { order: axes }, &[value.id])?;
        let at = order.iter().position(|axis| *axis == at).unwrap_or(0);
        Ok(Value { id, place: Place { at, ..value.place }, ..value })
    }

    /// The same values in other dimensions of the file, of which the batch's is one.
    pub(super) fn reshaped(&mut self, call: &Call<'_>, value: Value, target: &[Size]) -> Result<Value, GraphError> {
        let whole: usize = self.graph.dims(value.id).iter().product();
        if !self.batched(value) {
            // An expanded constant still has one entry where the batch will be.
            let dims = target.iter().map(|s| if *s == Size::Rows(1) { Size::Known(1) } else { *s });
            let dims = closed(call, &dims.collect::<Vec<_>>(), whole)?;
            let id = self.push(call, Op::Reshape { dims }, &[value.id])?;
            return Ok(Value { id, ..value });
        }
        let own = target.iter().position(|s| matches!(s, Size::Rows(_)));
        let own = own.or_else(|| target.iter().position(|s| *s == Size::Known(-1)));
        let Some(at) = own else {
            return call.refuse("the batch has a number here: export with a batch dimension that has a name");
        };
        let named = if let Size::Rows(times) = target[at] { Some(times) } else { None };
        let mut rest = target.to_vec();
        rest[at] = Size::Known(named.unwrap_or(-1));
        let sizes = closed(call, &rest, whole)?;
        let dims = self.graph.dims(value.id);
        let place = value.place;
        let from = place.at + usize::from(place.outer != 1);
        let front: usize = dims[..from.min(dims.len())].iter().product();
        let behind = whole / front.max(1);
        let (new_front, new_behind): (usize, usize) = (sizes[..at].iter().product(), sizes[at + 1..].iter().product());
        let parts = (front.checked_rem(new_front), behind.checked_rem(new_behind));
        let (outer, inner) = match parts {
            (Some(0), Some(0)) => (front / new_front, behind / new_behind),
            _ => return call.refuse("it would mix rows of the batch"),
        };
        if outer * inner != sizes[at] {
            return call.refuse("it would mix rows of the batch");
        }
        let merged = [outer, inner].into_iter().filter(|n| *n != 1);
        let dims = sizes[..at].iter().copied().chain(merged).chain(sizes[at + 1..].iter().copied()).collect();
        let id = self.push(call, Op::Reshape { dims }, &[value.id])?;
        Ok(Value { id, place: Place { at, outer, inner }, ..value })
    }
}

/// Dimensions whose product is `whole`, with the open one (-1) filled in.
fn closed(call: &Call<'_>, target: &[Size], whole: usize) -> Result<Vec<usize>, GraphError> {
    let mut open = None;
    let mut dims = Vec::with_capacity(target.len());
    for (i, size) in target.iter().enumerate() {
        match *size {
            Size::Known(-1) if open.is_none() => {
                open = Some(i);
                dims.push(1);
            }
            Size::Known(-1) => return call.refuse("two dimensions are open"),
            Size::Known(n) => match usize::try_from(n) {
                Ok(n) => dims.push(n),
                Err(_) => return call.refuse(format!("a dimension of {n}")),
            },
            Size::Rows(_) => return call.refuse("the batch dimension appears twice, or in a constant"),
        }
    }
    let known = dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|k| *k > 0);
    let Some(known) = known else { return call.refuse(format!("the dimensions {target:?}")) };
    if let Some(i) = open {
        dims[i] = whole / known;
    }
    if dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d)) != Some(whole) {
        return call.refuse(format!("{whole} values a row do not take the dimensions {target:?}"));
    }
    Ok(dims)
}
