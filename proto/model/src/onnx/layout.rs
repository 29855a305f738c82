//! What do the operators that move values become?

use super::Reader;
use super::node::{Call, Element, Named};
use super::tensor::{self, Array, Numbers};
use crate::error::GraphError;
use crate::graph::{Op, TensorId};

impl Reader {
    /// The results, or `None` when the operator is not known.
    pub(super) fn layout(&mut self, call: &Call<'_>) -> Result<Option<Vec<Named>>, GraphError> {
        let id = match call.proto.op_type.as_str() {
            "Constant" => return self.constant(call).map(|n| Some(vec![n])),
            "Identity" | "Dropout" => {
                let Some(Some(named)) = call.inputs.first() else { return call.refuse("input 0 is missing") };
                return Ok(Some(vec![named.clone()]));
            }
            "Split" => return self.split(call).map(Some),
            "Gather" => {
                let (table, at) = (self.tensor(call, 0)?, self.tensor(call, 1)?);
                if Self::element(call, 1) != Element::Integer {
                    return call.refuse("the indices are not integers");
                }
                let axis = self.axis(call, table, call.int("axis", 0))?;
                self.push(call, Op::Gather { axis }, &[table, at])?
            }
            "Concat" => {
                let inputs = self.tensors(call)?;
                let widest = inputs.iter().find(|i| self.graph.tensors[**i].shape.batch).or(inputs.first());
                let Some(widest) = widest else { return call.refuse("has no inputs") };
                let axis = self.axis(call, *widest, call.int("axis", 0))?;
                self.push(call, Op::Concat { axis }, &inputs)?
            }
            "Reshape" => self.reshape(call)?,
            "Flatten" => self.flatten(call)?,
            "Squeeze" => self.squeeze(call)?,
            "Unsqueeze" => self.unsqueeze(call)?,
            "Transpose" => self.transpose(call)?,
            "Slice" => self.slice(call)?,
            "Expand" => self.expand(call)?,
            _ => return Ok(None),
        };
        Ok(Some(vec![Named::Tensor(id, Self::element(call, 0))]))
    }

    /// An axis of the file as an axis of a row.
    pub(super) fn axis(&self, call: &Call<'_>, id: TensorId, axis: i64) -> Result<usize, GraphError> {
        let shape = &self.graph.tensors[id].shape;
        let rank = shape.dims.len() + usize::from(shape.batch);
        self.axis_within(call, shape.batch, rank, axis)
    }

    fn axis_within(&self, call: &Call<'_>, batch: bool, rank: usize, axis: i64) -> Result<usize, GraphError> {
        let full = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
        match usize::try_from(full) {
            Ok(0) if batch => call.refuse("it would touch the batch dimension"),
            Ok(full) if full < rank => Ok(full - usize::from(batch)),
            Ok(_) | Err(_) => call.refuse(format!("axis {axis} of {rank} dimensions")),
        }
    }

    fn constant(&mut self, call: &Call<'_>) -> Result<Named, GraphError> {
        let integers = |dims, values| Array { dims, numbers: Numbers::Integers(values) };
        let floats = |dims, values| Array { dims, numbers: Numbers::Floats(values) };
        let [attribute] = call.proto.attribute.as_slice() else { return call.refuse("has one attribute") };
        let array = match attribute.name.as_str() {
            "value" => match &attribute.t {
                Some(proto) => tensor::array(proto)?,
                None => return call.refuse("has no value"),
            },
            "value_float" => floats(vec![], vec![attribute.f]),
            "value_floats" => floats(vec![attribute.floats.len()], attribute.floats.clone()),
            "value_int" => integers(vec![], vec![attribute.i]),
            "value_ints" => integers(vec![attribute.ints.len()], attribute.ints.clone()),
            other => return call.refuse(format!("the attribute {other} is not supported")),
        };
        if let Numbers::Floats(values) = &array.numbers
            && !values.iter().all(|v| v.is_finite())
        {
            return call.refuse("a value is not finite");
        }
        Ok(self.named(call.name(), array))
    }

    fn reshape(&mut self, call: &Call<'_>) -> Result<TensorId, GraphError> {
        let a = self.tensor(call, 0)?;
        let Some(target) = call.ints(1, "shape")? else { return call.refuse("the shape is missing") };
        if call.int("allowzero", 0) != 0 {
            return call.refuse("allowzero");
        }
        let shape = self.graph.tensors[a].shape.clone();
        let target = match (shape.batch, target.split_first()) {
            (false, _) => &target[..],
            (true, Some((0 | -1, row))) => row,
            (true, _) => return call.refuse("the first dimension is not the batch: 0 or -1 stand for it"),
        };
        let mut dims = Vec::with_capacity(target.len());
        let mut open = None;
        for (i, dim) in target.iter().enumerate() {
            match *dim {
                -1 if open.is_none() => open = Some(i),
                -1 => return call.refuse("two dimensions are open"),
                0 => match shape.dims.get(i) {
                    Some(dim) => dims.push(*dim),
                    None => return call.refuse(format!("there is no dimension {i} to copy")),
                },
                dim => match usize::try_from(dim) {
                    Ok(dim) => dims.push(dim),
                    Err(_) => return call.refuse(format!("a dimension of {dim}")),
                },
            }
        }
        if let Some(at) = open {
            let known = dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|k| *k > 0);
            let Some(known) = known else { return call.refuse("the open dimension is not known") };
            dims.insert(at, shape.values() / known);
        }
        self.push(call, Op::Reshape { dims }, &[a])
    }

    fn flatten(&mut self, call: &Call<'_>) -> Result<TensorId, GraphError> {
        let a = self.tensor(call, 0)?;
        let shape = &self.graph.tensors[a].shape;
        if !shape.batch {
            return call.refuse("of a constant");
        }
        let axis = self.axis(call, a, call.int("axis", 1))?;
        if axis != 0 {
            return call.refuse("axis is 1: any other would merge dimensions with the batch");
        }
        let dims = vec![self.graph.tensors[a].shape.values()];
        self.push(call, Op::Reshape { dims }, &[a])
    }

    fn squeeze(&mut self, call: &Call<'_>) -> Result<TensorId, GraphError> {
        let a = self.tensor(call, 0)?;
        let dims = self.graph.dims(a).to_vec();
        let axes = match call.ints(1, "axes")? {
            Some(axes) => axes.iter().map(|x| self.axis(call, a, *x)).collect::<Result<Vec<_>, _>>()?,
            None => (0..dims.len()).filter(|i| dims[*i] == 1).collect(),
        };
        if let Some(axis) = axes.iter().find(|i| dims[**i] != 1) {
            return call.refuse(format!("dimension {axis} of a row is {}", dims[*axis]));
        }
        let dims = dims.iter().enumerate().filter(|(i, _)| !axes.contains(i)).map(|(_, d)| *d).collect();
        self.push(call, Op::Reshape { dims }, &[a])
    }

    fn unsqueeze(&mut self, call: &Call<'_>) -> Result<TensorId, GraphError> {
        let a = self.tensor(call, 0)?;
        let Some(axes) = call.ints(1, "axes")? else { return call.refuse("axes are missing") };
        let shape = self.graph.tensors[a].shape.clone();
        if axes.len() > crate::limits::RANK_MAX {
            return call.refuse("too many axes");
        }
        let rank = shape.dims.len() + axes.len();
        let full = rank + usize::from(shape.batch);
        let axes = axes.iter().map(|x| self.axis_within(call, shape.batch, full, *x)).collect::<Result<Vec<_>, _>>()?;
        let mut old = shape.dims.iter().copied();
        let dims: Vec<usize> = (0..rank).map(|i| if axes.contains(&i) { 1 } else { old.next().unwrap_or(1) }).collect();
        if old.next().is_some() {
            return call.refuse("an axis is given twice");
        }
        self.push(call, Op::Reshape { dims }, &[a])
    }

    fn transpose(&mut self, call: &Call<'_>) -> Result<TensorId, GraphError> {
        let a = self.tensor(call, 0)?;
        let shape = self.graph.tensors[a].shape.clone();
        let rank = shape.dims.len() + usize::from(shape.batch);
        let order = call.proto.attribute.iter().find(|x| x.name == "perm").map(|x| x.ints.clone());
        let order = order.unwrap_or_else(|| (0..rank as i64).rev().collect());
        let row = match (shape.batch, order.split_first()) {
            (false, _) => &order[..],
            (true, Some((0, row))) => row,
            (true, _) => return call.refuse("it would move the batch dimension"),
        };
        let order = row.iter().map(|x| self.axis(call, a, *x)).collect::<Result<Vec<_>, _>>()?;
        self.push(call, Op::Permute { order }, &[a])
    }

    fn slice(&mut self, call: &Call<'_>) -> Result<TensorId, GraphError> {
        let mut a = self.tensor(call, 0)?;
        let (Some(starts), Some(ends)) = (call.ints(1, "starts")?, call.ints(2, "ends")?) else {
            return call.refuse("starts or ends are missing");
        };
        let axes = call.ints(3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = call.ints(4, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
        if starts.len() != ends.len() || starts.len() != axes.len() || starts.len() != steps.len() {
            return call.refuse("starts, ends, axes and steps are not equally many");
        }
        for (((start, end), axis), step) in starts.iter().zip(&ends).zip(&axes).zip(&steps) {
            let axis = self.axis(call, a, *axis)?;
            let size = self.graph.dims(a)[axis] as i64;
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
            let op = Op::Slice { axis, start: start as usize, step, count: count as usize };
            a = self.push(call, op, &[a])?;
        }
        Ok(a)
    }

    fn split(&mut self, call: &Call<'_>) -> Result<Vec<Named>, GraphError> {
        let a = self.tensor(call, 0)?;
        let axis = self.axis(call, a, call.int("axis", 0))?;
        let size = self.graph.dims(a)[axis];
        let parts = call.proto.output.len().max(1);
        let lengths = match call.ints(1, "split")? {
            Some(lengths) => lengths,
            None => {
                let each = size.div_ceil(parts);
                (0..parts).map(|i| size.saturating_sub(i * each).min(each) as i64).collect()
            }
        };
        if lengths.len() != call.proto.output.len() || lengths.iter().any(|l| *l <= 0 || *l > size as i64) {
            return call.refuse(format!("{size} entries do not split into {lengths:?}"));
        }
        if lengths.iter().sum::<i64>() != size as i64 {
            return call.refuse(format!("{size} entries do not split into {lengths:?}"));
        }
        let mut start = 0;
        let mut results = Vec::with_capacity(lengths.len());
        for count in lengths.iter().map(|l| *l as usize) {
            let id = self.push(call, Op::Slice { axis, start, step: 1, count }, &[a])?;
            results.push(Named::Tensor(id, Self::element(call, 0)));
            start += count;
        }
        Ok(results)
    }

    /// The batch dimension stays: a target of 1, 0 or -1 for it broadcasts.
    fn expand(&mut self, call: &Call<'_>) -> Result<TensorId, GraphError> {
        let mut a = self.tensor(call, 0)?;
        let Some(target) = call.ints(1, "shape")? else { return call.refuse("the shape is missing") };
        let shape = self.graph.tensors[a].shape.clone();
        let rank = shape.dims.len() + usize::from(shape.batch);
        if target.len() > crate::limits::RANK_MAX || (shape.batch && target.len() > rank) {
            return call.refuse(format!("{rank} dimensions to {target:?}"));
        }
        let mut row = target.as_slice();
        if shape.batch && target.len() == rank {
            let Some((-1..=1, rest)) = target.split_first() else {
                return call.refuse("it would give the batch dimension a number");
            };
            row = rest;
        }
        let mut dims = shape.dims.clone();
        let missing = row.len().saturating_sub(dims.len());
        dims.splice(0..0, std::iter::repeat_n(1, missing));
        a = self.push(call, Op::Reshape { dims: dims.clone() }, &[a])?;
        let offset = dims.len() - row.len();
        for (dim, to) in dims[offset..].iter_mut().zip(row) {
            match usize::try_from(*to) {
                Ok(to) if *dim == 1 && to > 0 => *dim = to,
                Ok(to) if to == 1 || to == *dim => {}
                Ok(_) | Err(_) => return call.refuse(format!("{:?} does not expand to {target:?}", shape.dims)),
            }
        }
        self.push(call, Op::Broadcast { dims }, &[a])
    }
}
