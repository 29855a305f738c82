//! Which shape has the result of an operation?
//!
//! A shape is a row shape, with or without a batch dimension in front of it. Two tensors with a batch dimension
//! meet row by row; a tensor without one (a constant) meets every row alike. Whatever would move, merge or
//! contract the batch dimension has no shape here and is refused.

use super::Shape;
use super::op::Op;
use crate::limits::{CONSTANT_VALUES_MAX, RANK_MAX, ROW_VALUES_MAX};

/// The shape of `op` over inputs of these shapes, or why there is none.
pub(crate) fn infer(op: &Op, inputs: &[&Shape]) -> Result<Shape, String> {
    let shape = match (op, inputs) {
        (Op::MatMul, [a, b]) => matmul(a, b)?,
        (Op::Gather { axis }, [table, at]) => gather(*axis, table, at)?,
        (Op::Unary(_), [a]) => (*a).clone(),
        (Op::Binary(_), [_, _]) | (Op::Select, [_, _, _]) | (Op::Sum, [_, ..]) => broadcast(inputs)?,
        (Op::Concat { axis }, [_, ..]) => concat(*axis, inputs)?,
        (Op::Reduce { from, to, .. }, [a]) if from < to && *to <= a.dims.len() => {
            let mut dims = a.dims.clone();
            dims.drain(from..to);
            Shape { batch: a.batch, dims }
        }
        (Op::Softmax { axis }, [a]) if *axis < a.dims.len() => (*a).clone(),
        (Op::Normalise { from, .. }, [a]) if *from < a.dims.len() => (*a).clone(),
        (Op::Reshape { dims }, [a]) => {
            if product(dims)? != product(&a.dims)? {
                return Err(format!("{:?} values cannot take the shape {dims:?}", a.dims));
            }
            Shape { batch: a.batch, dims: dims.clone() }
        }
        (Op::Permute { order }, [a]) => permute(order, a)?,
        (Op::Slice { axis, start, step, count }, [a]) => slice(a, *axis, *start, *step, *count)?,
        (Op::Broadcast { dims }, [a]) => expand(dims, a)?,
        _ => return Err(format!("{op:?} cannot take inputs of the shapes {inputs:?}")),
    };
    if shape.dims.len() > RANK_MAX {
        return Err(format!("{} dimensions, {RANK_MAX} are possible", shape.dims.len()));
    }
    let (values, limit) = (product(&shape.dims)?, if shape.batch { ROW_VALUES_MAX } else { CONSTANT_VALUES_MAX });
    if values > limit {
        return Err(format!("{values} values, {limit} are possible"));
    }
    Ok(shape)
}

/// The number of values, without overflow.
pub(crate) fn product(dims: &[usize]) -> Result<usize, String> {
    dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).ok_or_else(|| format!("{dims:?} is too large"))
}

/// The row dimensions of one input where it meets rows of `rank` dimensions.
fn row_dims(shape: &Shape, rank: usize, batch: bool) -> Result<&[usize], String> {
    match (shape.batch, batch, shape.dims.len()) {
        (true, _, found) if found != rank => {
            Err(format!("a batch of rank {found} meets one of rank {rank}: the batch dimension would meet another"))
        }
        // `[1, d]` meets `[batch, d]`.
        (false, true, found) if found == rank + 1 && shape.dims[0] == 1 => Ok(&shape.dims[1..]),
        (false, true, found) if found > rank => Err(format!("a constant {:?} meets rows of rank {rank}", shape.dims)),
        _ => Ok(&shape.dims),
    }
}

fn broadcast(inputs: &[&Shape]) -> Result<Shape, String> {
    let batch = inputs.iter().any(|s| s.batch);
    let ranks = inputs.iter().filter(|s| s.batch || !batch).map(|s| s.dims.len());
    let rank = ranks.max().unwrap_or(0);
    let mut dims = vec![1; rank];
    for input in inputs {
        merge(&mut dims, row_dims(input, rank, batch)?)?;
    }
    Ok(Shape { batch, dims })
}

/// Broadcasts `other` into `dims`, aligned at the end.
fn merge(dims: &mut [usize], other: &[usize]) -> Result<(), String> {
    let offset = dims.len() - other.len();
    for (d, o) in dims[offset..].iter_mut().zip(other) {
        match (*d, *o) {
            (a, b) if a == b || b == 1 => {}
            (1, b) => *d = b,
            (a, b) => return Err(format!("a dimension of {a} meets one of {b}")),
        }
    }
    Ok(())
}

fn matmul(a: &Shape, b: &Shape) -> Result<Shape, String> {
    let fail = || format!("a product of {a:?} and {b:?}");
    let batch = a.batch || b.batch;
    let [a_outer @ .., k] = a.dims.as_slice() else { return Err(fail()) };
    let (b_outer, [k2, n]) = b.dims.split_last_chunk::<2>().ok_or_else(fail)?;
    if k != k2 {
        return Err(fail());
    }
    // A row that is a vector: [batch, k] x [k, n].
    if a.batch && !b.batch && a_outer.is_empty() {
        return if b_outer.is_empty() { Ok(Shape { batch, dims: vec![*n] }) } else { Err(fail()) };
    }
    let [a_outer @ .., m] = a_outer else { return Err(fail()) };
    if a.batch && b.batch && a_outer.len() != b_outer.len() {
        return Err(fail());
    }
    let short =
        (batch && !b.batch && b_outer.len() > a_outer.len()) || (batch && !a.batch && a_outer.len() > b_outer.len());
    if short {
        return Err(fail());
    }
    let mut dims = vec![1; a_outer.len().max(b_outer.len())];
    merge(&mut dims, a_outer)?;
    merge(&mut dims, b_outer)?;
    dims.extend([*m, *n]);
    Ok(Shape { batch, dims })
}

fn gather(axis: usize, table: &Shape, at: &Shape) -> Result<Shape, String> {
    if axis >= table.dims.len() {
        return Err(format!("no axis {axis} in {table:?}"));
    }
    if table.dims[axis] == 0 {
        return Err("a table without rows".to_owned());
    }
    if at.batch && (table.batch || axis != 0) {
        return Err("rows are looked up in a constant table, along its first dimension".to_owned());
    }
    let (before, after) = (&table.dims[..axis], &table.dims[axis + 1..]);
    let dims = before.iter().chain(&at.dims).chain(after).copied().collect();
    Ok(Shape { batch: table.batch || at.batch, dims })
}

fn concat(axis: usize, inputs: &[&Shape]) -> Result<Shape, String> {
    let batch = inputs.iter().any(|s| s.batch);
    let Some(first) = inputs.iter().find(|s| s.batch == batch) else { return Err("nothing to join".to_owned()) };
    let mut dims = first.dims.clone();
    if axis >= dims.len() {
        return Err(format!("no axis {axis} in {first:?}"));
    }
    dims[axis] = 0;
    for input in inputs {
        let row = row_dims(input, dims.len(), batch)?;
        let fits = row.len() == dims.len() && row.iter().zip(&dims).enumerate().all(|(i, (r, d))| i == axis || r == d);
        if !fits {
            return Err(format!("{input:?} does not join {first:?} along axis {axis}"));
        }
        dims[axis] += row[axis];
    }
    Ok(Shape { batch, dims })
}

fn permute(order: &[usize], a: &Shape) -> Result<Shape, String> {
    let mut sorted = order.to_vec();
    sorted.sort_unstable();
    if sorted != (0..a.dims.len()).collect::<Vec<_>>() {
        return Err(format!("{order:?} is not an order of the dimensions {:?}", a.dims));
    }
    Ok(Shape { batch: a.batch, dims: order.iter().map(|i| a.dims[*i]).collect() })
}

fn slice(a: &Shape, axis: usize, start: usize, step: isize, count: usize) -> Result<Shape, String> {
    let mut dims = a.dims.clone();
    let size = *dims.get(axis).ok_or_else(|| format!("no axis {axis} in {a:?}"))?;
    let last = start as i128 + step as i128 * (count as i128 - 1);
    if count > 0 && (start >= size || last < 0 || last >= size as i128) {
        return Err(format!("{count} entries from {start}, {step} apart, of {size}"));
    }
    dims[axis] = count;
    Ok(Shape { batch: a.batch, dims })
}

fn expand(dims: &[usize], a: &Shape) -> Result<Shape, String> {
    let mut result = dims.to_vec();
    if a.dims.len() != dims.len() {
        return Err(format!("{:?} does not expand to {dims:?}", a.dims));
    }
    merge(&mut result, &a.dims)?;
    if result != dims {
        return Err(format!("{:?} does not expand to {dims:?}", a.dims));
    }
    Ok(Shape { batch: a.batch, dims: result })
}
