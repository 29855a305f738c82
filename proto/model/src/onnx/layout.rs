//! What do the operators that move values become?

use super::Reader;
use super::node::{Call, Element, Named};
use super::sizes::Size;
use super::tensor::{self, Array, Numbers};
use super::value::{Place, Value};
use crate::error::GraphError;
use crate::graph::{Op, Source};
use crate::limits::{FOLDED_VALUES_MAX, RANK_MAX};

/// An end of a slice from here on is the end of the axis: exporters write the largest integer.
const END: i64 = i32::MAX as i64;
/// Copies that `Tile` may make: more are meant as a broadcast.
const COPIES_MAX: usize = 1_024;

impl Reader {
    /// The results, or `None` when the operator is not known.
    pub(super) fn layout(&mut self, call: &Call<'_>) -> Result<Option<Vec<Named>>, GraphError> {
        let value = match call.proto.op_type.as_str() {
            "Constant" => return self.constant(call).map(|n| Some(vec![n])),
            "Identity" | "Dropout" => return self.identity(call).map(|n| Some(vec![n])),
            "Split" => return self.split(call).map(Some),
            "Range" => return self.range(call).map(|n| Some(vec![n])),
            "Gather" => self.gather(call)?,
            "GatherElements" => self.gather_elements(call)?,
            "GatherND" => self.gather_nd(call)?,
            "Concat" => {
                let inputs = self.all_values(call)?;
                self.concat(call, &inputs, call.int("axis", 0))?
            }
            "Reshape" => self.reshape(call)?,
            "Flatten" => self.flatten(call)?,
            "Squeeze" => self.squeeze(call)?,
            "Unsqueeze" => self.unsqueeze(call)?,
            "Transpose" => self.transpose(call)?,
            "Slice" => self.slice(call)?,
            "Expand" => self.expand(call)?,
            "Tile" => self.tile(call)?,
            _ => return Ok(None),
        };
        Ok(Some(vec![Named::Tensor(value)]))
    }

    fn identity(&mut self, call: &Call<'_>) -> Result<Named, GraphError> {
        if call.proto.op_type == "Dropout" && self.scalar(call, 2)?.is_some_and(|x| x != 0.0) {
            return call.refuse("is in training mode: call model.eval() before the export");
        }
        match call.inputs.first() {
            Some(Some(named)) => Ok(named.clone()),
            Some(None) | None => call.refuse("input 0 is missing"),
        }
    }

    fn constant(&mut self, call: &Call<'_>) -> Result<Named, GraphError> {
        let integers = |dims, values| Array { dims, numbers: Numbers::Integers(values) };
        let floats = |dims, values| Array { dims, numbers: Numbers::Floats(values) };
        let [attribute] = call.proto.attribute.as_slice() else { return call.refuse("has one attribute") };
        let array = match attribute.name.as_str() {
            "value" => match &attribute.t {
                Some(proto) => tensor::constant(proto).map_err(|r| call.refusal(r))?,
                None => return call.refuse("has no value"),
            },
            "value_float" => floats(vec![], vec![attribute.f]),
            "value_floats" => floats(vec![attribute.floats.len()], attribute.floats.clone()),
            "value_int" => integers(vec![], vec![attribute.i]),
            "value_ints" => integers(vec![attribute.ints.len()], attribute.ints.clone()),
            other => return call.refuse(format!("the attribute {other} is not supported")),
        };
        let array = array.into_code().map_err(|r| call.refusal(r))?;
        Ok(self.named(call.name(), array))
    }

    /// `start, start + delta, ...` below `limit`.
    fn range(&mut self, call: &Call<'_>) -> Result<Named, GraphError> {
        if call.inputs.iter().any(|i| matches!(i, Some(Named::Sizes(_)))) {
            return call.refuse(
                "it would number the rows of the batch; EmbeddingBag is exported so: write (table(ids) * \
                 weights.unsqueeze(-1)).sum(1)",
            );
        }
        let element = self.value(call, 0)?.element;
        let [Some(start), Some(limit), Some(delta)] =
            [self.scalar(call, 0)?, self.scalar(call, 1)?, self.scalar(call, 2)?]
        else {
            return call.refuse("start, limit and delta are constant");
        };
        let count = ((f64::from(limit) - f64::from(start)) / f64::from(delta)).ceil().max(0.0);
        // Written so that NaN is refused.
        if !(count >= 1.0 && count <= FOLDED_VALUES_MAX as f64) {
            return call.refuse(format!("{count} values"));
        }
        self.charge(call, count as usize)?;
        let values: Vec<f32> = (0..count as usize).map(|i| start + i as f32 * delta).collect();
        let id = self.graph.constant("", vec![values.len()], values.into());
        Ok(Named::Tensor(Value::plain(id, element)))
    }

    fn gather(&mut self, call: &Call<'_>) -> Result<Value, GraphError> {
        let (table, at) = (self.value(call, 0)?, self.value(call, 1)?);
        if at.element != Element::Integer {
            return call.refuse("the indices are not integers");
        }
        let axis = Self::file_axis(call, self.rank(table), call.int("axis", 0))?;
        let own = self.graph_axis(call, table, axis)?;
        if self.batched(at) {
            let id = self.push(call, Op::Gather { axis: own }, &[table.id, at.id])?;
            return Ok(Value { id, element: table.element, place: at.place });
        }
        if let ([], Some(&[index])) = (self.graph.dims(at.id), self.graph.values(at.id).map(|v| v.as_ref()))
            && let Some(value) = self.entry(call, table, axis, index)?
        {
            return Ok(value);
        }
        let rank = self.rank(at);
        let id = self.push(call, Op::Gather { axis: own }, &[table.id, at.id])?;
        let moved = if axis < table.place.at { table.place.at - 1 + rank } else { table.place.at };
        Ok(Value { id, place: Place { at: moved, ..table.place }, ..table })
    }

    /// Entries of the first axis, which torch takes so when it indexes with a constant list.
    fn gather_nd(&mut self, call: &Call<'_>) -> Result<Value, GraphError> {
        let (data, at) = (self.value(call, 0)?, self.value(call, 1)?);
        let [dims @ .., 1] = self.graph.dims(at.id) else { return call.refuse("only the first axis is looked up") };
        if self.batched(at) || call.int("batch_dims", 0) != 0 {
            return call.refuse("only constant entries of the first axis are looked up");
        }
        let dims = dims.to_vec();
        let rank = dims.len();
        let axis = self.graph_axis(call, data, 0)?;
        let at = self.push(call, Op::Reshape { dims }, &[at.id])?;
        let id = self.push(call, Op::Gather { axis }, &[data.id, at])?;
        let moved = if data.place.at > 0 { data.place.at - 1 + rank } else { 0 };
        Ok(Value { id, place: Place { at: moved, ..data.place }, ..data })
    }

    /// One entry of an axis, which goes: a slice, so that what is cut from a concatenation is found again.
    fn entry(&mut self, call: &Call<'_>, a: Value, axis: usize, index: f32) -> Result<Option<Value>, GraphError> {
        let own = self.graph_axis(call, a, axis)?;
        let mut dims = self.graph.dims(a.id).to_vec();
        let start = if index < 0.0 { index + dims[own] as f32 } else { index };
        if !(start >= 0.0 && start < dims[own] as f32) {
            return call.refuse(format!("entry {index} of {}", dims[own]));
        }
        if self.graph.values(a.id).is_some() || self.graph.table_of(a.id).is_some() {
            return Ok(None);
        }
        let cut = self.cut(call, a, own, (start as usize, 1, 1))?;
        dims.remove(own);
        let id = self.push(call, Op::Reshape { dims }, &[cut.id])?;
        let at = if axis < a.place.at { a.place.at - 1 } else { a.place.at };
        Ok(Some(Value { id, place: Place { at, ..a.place }, ..a }))
    }

    /// Entries of an axis of the graph. What was joined before is not cut again: models that take all features as
    /// one tensor cut it into its features first, and a tensor of all of them belongs to no side.
    fn cut(
        &mut self,
        call: &Call<'_>,
        a: Value,
        axis: usize,
        (start, step, count): (usize, isize, usize),
    ) -> Result<Value, GraphError> {
        let mut id = a.id;
        let (mut from, mut open) = (start, step == 1);
        while open {
            open = false;
            let Source::Node(node) = self.graph.tensors[id].source else { break };
            let node = &self.graph.nodes[node];
            if node.op != (Op::Concat { axis }) {
                break;
            }
            let (rank, mut before) = (self.graph.dims(id).len(), 0);
            for part in &node.inputs {
                let shape = &self.graph.tensors[*part].shape;
                // Aligned from behind: a constant may have one dimension more, where the others have the batch.
                let own = (shape.dims.len() + axis).checked_sub(rank);
                let Some(width) = own.and_then(|own| shape.dims.get(own)).copied() else { break };
                if shape.batch && from >= before && from + count <= before + width {
                    (id, from, open) = (*part, from - before, true);
                    break;
                }
                before += width;
            }
        }
        let id = self.push(call, Op::Slice { axis, start: from, step, count }, &[id])?;
        Ok(Value { id, ..a })
    }

    /// A lookup along an axis of each row, as a choice among the entries: `out = sum over l of (index = l) data[l]`.
    fn gather_elements(&mut self, call: &Call<'_>) -> Result<Value, GraphError> {
        let (data, at) = (self.value(call, 0)?, self.value(call, 1)?);
        let axis = self.axis(call, data, call.int("axis", 0))?;
        if data.place != at.place || !self.batched(data) || !self.batched(at) {
            return call.refuse("data and indices both have the batch as their dimension of the same place");
        }
        let (mut wide, mut index) = (self.graph.dims(data.id).to_vec(), self.graph.dims(at.id).to_vec());
        let same = wide.len() == index.len() && (0..wide.len()).all(|i| i == axis || wide[i] == index[i]);
        if !same {
            return call.refuse("data and indices differ in another dimension than the axis");
        }
        let size = wide[axis];
        wide.insert(axis, 1);
        index.insert(axis + 1, 1);
        let data_id = self.push(call, Op::Reshape { dims: wide }, &[data.id])?;
        let at_id = self.push(call, Op::Reshape { dims: index }, &[at.id])?;
        let mut dims = vec![1; self.graph.dims(data_id).len()];
        dims[axis + 1] = size;
        let numbers: Vec<f32> = (0..size).map(|i| i as f32).collect();
        let below: Vec<f32> = numbers.iter().map(|x| x - size as f32).collect();
        let (numbers, below) =
            (self.graph.constant("", dims.clone(), numbers.into()), self.graph.constant("", dims, below.into()));
        let binary = crate::graph::Binary::Equal;
        let here = self.push(call, Op::Binary(binary), &[at_id, numbers])?;
        let from_end = self.push(call, Op::Binary(binary), &[at_id, below])?;
        let here = self.push(call, Op::Binary(crate::graph::Binary::Or), &[here, from_end])?;
        let zero = self.number(0.0);
        let chosen = self.push(call, Op::Select, &[here, data_id, zero.id])?;
        let kind = crate::graph::Reduction::Sum;
        let id = self.push(call, Op::Reduce { kind, from: axis + 1, to: axis + 2 }, &[chosen])?;
        Ok(Value { id, ..data })
    }

    fn concat(&mut self, call: &Call<'_>, inputs: &[Value], axis: i64) -> Result<Value, GraphError> {
        let widest = inputs.iter().find(|v| self.batched(**v)).or(inputs.first()).copied();
        let Some(widest) = widest else { return call.refuse("has no inputs") };
        let axis = self.axis(call, widest, axis)?;
        let (ids, place) = self.aligned(call, inputs)?;
        let id = self.push(call, Op::Concat { axis }, &ids)?;
        Ok(Value { id, element: widest.element, place })
    }

    fn reshape(&mut self, call: &Call<'_>) -> Result<Value, GraphError> {
        let a = self.value(call, 0)?;
        let Some(mut target) = self
            .sizes(call, 1)?
            .or_else(|| call.attribute_ints("shape").map(|v| v.into_iter().map(Size::Known).collect()))
        else {
            return call.refuse("the shape is missing");
        };
        let own = self.extents(a);
        for (i, size) in target.iter_mut().enumerate().filter(|(_, s)| **s == Size::Known(0)) {
            match own.get(i) {
                Some(extent) if call.int("allowzero", 0) == 0 => *size = *extent,
                Some(_) => return call.refuse("a dimension of 0"),
                None => return call.refuse(format!("there is no dimension {i} to copy")),
            }
        }
        self.reshaped(call, a, &target)
    }

    fn flatten(&mut self, call: &Call<'_>) -> Result<Value, GraphError> {
        let a = self.value(call, 0)?;
        let own = self.extents(a);
        let axis = call.int("axis", 1);
        let axis = if axis == own.len() as i64 { own.len() } else { Self::file_axis(call, own.len(), axis)? };
        let product = |sizes: &[Size]| {
            sizes.iter().try_fold(Size::Known(1), |n, s| match (n, *s) {
                (Size::Known(a), Size::Known(b)) => Some(Size::Known(a.checked_mul(b)?)),
                (Size::Rows(a), Size::Known(b)) | (Size::Known(a), Size::Rows(b)) => {
                    Some(Size::Rows(a.checked_mul(b)?))
                }
                (Size::Rows(_), Size::Rows(_)) => None,
            })
        };
        let (Some(front), Some(behind)) = (product(&own[..axis]), product(&own[axis..])) else {
            return call.refuse("too large");
        };
        self.reshaped(call, a, &[front, behind])
    }

    fn squeeze(&mut self, call: &Call<'_>) -> Result<Value, GraphError> {
        let a = self.value(call, 0)?;
        let mut own = self.extents(a);
        let axes = match self.ints(call, 1, "axes")? {
            Some(axes) => axes.iter().map(|x| Self::file_axis(call, own.len(), *x)).collect::<Result<Vec<_>, _>>()?,
            None => (0..own.len()).filter(|i| own[*i] == Size::Known(1)).collect(),
        };
        if let Some(axis) = axes.iter().find(|i| own[**i] != Size::Known(1)) {
            return call.refuse(format!("dimension {axis} is not 1, it is {:?}", own[*axis]));
        }
        let mut at = 0..;
        own.retain(|_| at.next().is_some_and(|i| !axes.contains(&i)));
        self.reshaped(call, a, &own)
    }

    fn unsqueeze(&mut self, call: &Call<'_>) -> Result<Value, GraphError> {
        let a = self.value(call, 0)?;
        let Some(axes) = self.ints(call, 1, "axes")? else { return call.refuse("axes are missing") };
        if axes.len() > RANK_MAX {
            return call.refuse("too many axes");
        }
        let own = self.extents(a);
        let full = own.len() + axes.len();
        let axes = axes.iter().map(|x| Self::file_axis(call, full, *x)).collect::<Result<Vec<_>, _>>()?;
        let mut old = own.iter().copied();
        let one = Size::Known(1);
        let target: Vec<Size> =
            (0..full).map(|i| if axes.contains(&i) { one } else { old.next().unwrap_or(one) }).collect();
        if old.next().is_some() || target.len() != full {
            return call.refuse("an axis is given twice");
        }
        self.reshaped(call, a, &target)
    }

    fn transpose(&mut self, call: &Call<'_>) -> Result<Value, GraphError> {
        let a = self.value(call, 0)?;
        let rank = self.rank(a);
        let order = call.attribute_ints("perm").unwrap_or_else(|| (0..rank as i64).rev().collect());
        let order = order.iter().map(|x| Self::file_axis(call, rank, *x)).collect::<Result<Vec<_>, _>>()?;
        self.transposed(call, a, &order)
    }

    fn slice(&mut self, call: &Call<'_>) -> Result<Value, GraphError> {
        let mut a = self.value(call, 0)?;
        let (Some(starts), Some(ends)) = (self.ints(call, 1, "starts")?, self.ints(call, 2, "ends")?) else {
            return call.refuse("starts or ends are missing");
        };
        let axes = self.ints(call, 3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = self.ints(call, 4, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
        if starts.len() != ends.len() || starts.len() != axes.len() || starts.len() != steps.len() {
            return call.refuse("starts, ends, axes and steps are not equally many");
        }
        for (((start, end), axis), step) in starts.iter().zip(&ends).zip(&axes).zip(&steps) {
            // All of the batch: nothing is cut.
            let whole = *start == 0 && *end >= END && *step == 1;
            if whole && Self::file_axis(call, self.rank(a), *axis)? == a.place.at && self.batched(a) {
                continue;
            }
            let axis = self.axis(call, a, *axis)?;
            let size = self.graph.dims(a.id)[axis] as i64;
            let Ok(step @ (1.. | isize::MIN..=-1)) = isize::try_from(*step) else { return call.refuse("a step of 0") };
            let from_end = |x: i64| if x < 0 { x.saturating_add(size) } else { x };
            let (low, high) = if step > 0 { (0, size) } else { (-1, size - 1) };
            let start = from_end(*start).clamp(low.max(0), high.max(0));
            let end = from_end(*end).clamp(low, high);
            let distance = if step > 0 { end - start } else { start - end };
            let count = if distance <= 0 { 0 } else { (distance as u64).div_ceil(step.unsigned_abs() as u64) };
            if count == 0 {
                return call.refuse("nothing is left");
            }
            a = self.cut(call, a, axis, (start as usize, step, count as usize))?;
        }
        Ok(a)
    }

    fn split(&mut self, call: &Call<'_>) -> Result<Vec<Named>, GraphError> {
        let a = self.value(call, 0)?;
        let axis = self.axis(call, a, call.int("axis", 0))?;
        let size = self.graph.dims(a.id)[axis];
        let parts = call.proto.output.len().max(1);
        let lengths = match self.ints(call, 1, "split")? {
            Some(lengths) => lengths,
            None => {
                let each = size.div_ceil(parts);
                (0..parts).map(|i| size.saturating_sub(i * each).min(each) as i64).collect()
            }
        };
        let fits = lengths.len() == call.proto.output.len()
            && lengths.iter().all(|l| *l > 0 && *l <= size as i64)
            && lengths.iter().sum::<i64>() == size as i64;
        if !fits {
            return call.refuse(format!("{size} entries do not split into {lengths:?}"));
        }
        let mut start = 0;
        let mut results = Vec::with_capacity(lengths.len());
        for count in lengths.iter().map(|l| *l as usize) {
            results.push(Named::Tensor(self.cut(call, a, axis, (start, 1, count))?));
            start += count;
        }
        Ok(results)
    }

    /// The batch dimension stays: the rows, 1 or -1 stand for it.
    fn expand(&mut self, call: &Call<'_>) -> Result<Value, GraphError> {
        let a = self.value(call, 0)?;
        let Some(target) = self.sizes(call, 1)? else { return call.refuse("the shape is missing") };
        let own = self.extents(a);
        if target.len() > RANK_MAX {
            return call.refuse("too many dimensions");
        }
        let rank = own.len().max(target.len());
        let one = Size::Known(1);
        let padded = |sizes: &[Size]| {
            std::iter::repeat_n(one, rank - sizes.len()).chain(sizes.iter().copied()).collect::<Vec<Size>>()
        };
        let (own, target) = (padded(&own), padded(&target));
        let a = self.reshaped(call, a, &own)?;
        let mut dims = self.graph.dims(a.id).to_vec();
        for (axis, (from, to)) in own.iter().zip(&target).enumerate() {
            let fail = || format!("{own:?} does not expand to {target:?}");
            match (*from, *to) {
                (from, to) if from == to || to == one => {}
                // A constant keeps its one entry, which meets every row of the batch.
                (Size::Rows(_), Size::Known(-1)) | (Size::Known(1), Size::Rows(1))
                    if !self.batched(a) || *from != one => {}
                (Size::Known(1), Size::Known(n)) if n > 0 => {
                    let own = self.graph_axis(call, a, axis)?;
                    dims[own] = n as usize;
                }
                (Size::Rows(_), Size::Known(_)) => return call.refuse("it would give the batch dimension a number"),
                (Size::Known(_) | Size::Rows(_), _) => return call.refuse(fail()),
            }
        }
        self.on(call, Op::Broadcast { dims }, a)
    }

    fn tile(&mut self, call: &Call<'_>) -> Result<Value, GraphError> {
        let mut a = self.value(call, 0)?;
        let Some(repeats) = self.sizes(call, 1)? else { return call.refuse("the repeats are missing") };
        if repeats.len() != self.rank(a) {
            return call.refuse("has not one repeat for each dimension");
        }
        for (axis, repeat) in repeats.iter().enumerate() {
            let count = match *repeat {
                Size::Known(1) => continue,
                Size::Rows(1) if !self.batched(a) && self.graph.dims(a.id)[axis] == 1 => continue,
                Size::Known(n) => usize::try_from(n).ok().filter(|n| (1..=COPIES_MAX).contains(n)),
                Size::Rows(_) => None,
            };
            let Some(count) = count else { return call.refuse(format!("repeats {repeat:?} times")) };
            let own = self.graph_axis(call, a, axis)?;
            let mut dims = self.graph.dims(a.id).to_vec();
            a = if dims[own] == 1 {
                dims[own] = count;
                self.on(call, Op::Broadcast { dims }, a)?
            } else {
                self.concat(call, &vec![a; count], axis as i64)?
            };
        }
        Ok(a)
    }
}
