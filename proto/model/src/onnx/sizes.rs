//! Which number will a computed dimension be, when only the batch is not known?
//!
//! Exporters compute shapes: `Shape`, `Gather`, a product, `Concat`, `Reshape`. All of it is known when the file is
//! read but for one number, the rows of the batch. So an integer is a number, or a multiple of the rows, and the
//! operators that exporters use on shapes are evaluated over these. What does not stay such an integer (rows plus
//! one, a range over the rows) would make a score depend on its neighbours, and is refused where it is used.

use super::Reader;
use super::node::{Call, Element, Named};
use super::tensor::{self, Array, Numbers};
use super::value::Value;
use crate::error::GraphError;
use crate::limits::FOLDED_VALUES_MAX;

/// Integers of one shape: more are no shape.
const SIZES_MAX: usize = 64;

/// An integer of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// A number.
    Known(i64),
    /// So many times the rows of the batch, at least once.
    Rows(i64),
}

/// Integers of which some may not be known: a list, or a single one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub scalar: bool,
    pub values: Vec<Size>,
}

impl Sizes {
    fn list(values: Vec<Size>) -> Self {
        Self { scalar: false, values }
    }

    /// The integers, when all of them are known.
    pub fn known(&self) -> Option<Vec<i64>> {
        let known = |s: &Size| if let Size::Known(n) = s { Some(*n) } else { None };
        self.values.iter().map(known).collect()
    }

    fn named(self) -> Named {
        match self.known() {
            None => Named::Sizes(self),
            Some(values) => {
                let dims = if self.scalar { vec![] } else { vec![values.len()] };
                Named::Integers(Array { dims, numbers: Numbers::Integers(values) })
            }
        }
    }
}

impl Reader {
    /// A name as integers, if it is a short list of them.
    pub(super) fn sizes_of(&self, named: &Named) -> Option<Sizes> {
        let list = |dims: &[usize], values: Vec<i64>| {
            let values = values.into_iter().map(Size::Known).collect();
            (dims.len() <= 1).then_some(Sizes { scalar: dims.is_empty(), values })
        };
        match named {
            Named::Sizes(sizes) => Some(sizes.clone()),
            Named::Integers(Array { dims, numbers: Numbers::Integers(v) }) if v.len() <= SIZES_MAX => {
                list(dims, v.clone())
            }
            Named::Tensor(Value { id, element: Element::Integer | Element::Bool, .. }) => {
                let values = self.graph.values(*id).filter(|v| v.len() <= SIZES_MAX)?;
                list(self.graph.dims(*id), values.iter().map(|x| *x as i64).collect())
            }
            Named::Integers(_) | Named::Tensor(_) => None,
        }
    }

    /// Integers from an input.
    pub(super) fn sizes(&self, call: &Call<'_>, i: usize) -> Result<Option<Vec<Size>>, GraphError> {
        match call.inputs.get(i) {
            Some(Some(named)) => match self.sizes_of(named) {
                Some(sizes) => Ok(Some(sizes.values)),
                None => call.refuse(format!("input {i} is not a list of constant integers")),
            },
            Some(None) | None => Ok(None),
        }
    }

    /// Known integers from an input, or from an attribute as older operator sets have them.
    pub(super) fn ints(&self, call: &Call<'_>, i: usize, attribute: &str) -> Result<Option<Vec<i64>>, GraphError> {
        let Some(sizes) = self.sizes(call, i)? else { return Ok(call.attribute_ints(attribute)) };
        match Sizes::list(sizes).known() {
            Some(values) => Ok(Some(values)),
            None => call.refuse(format!("input {i} depends on the number of rows of the batch")),
        }
    }

    /// The result of an operator over integers, or `None` when it is not one, or not one that can be evaluated.
    pub(super) fn shape_arithmetic(&mut self, call: &Call<'_>) -> Result<Option<Named>, GraphError> {
        match call.proto.op_type.as_str() {
            "Shape" => return self.shape(call).map(Some),
            "Size" => {
                let sizes = self.shape_of(call)?;
                let product = sizes.into_iter().try_fold(Size::Known(1), times);
                return match product {
                    Some(size) => Ok(Some(Sizes { scalar: true, values: vec![size] }.named())),
                    None => call.refuse("too large"),
                };
            }
            "ConstantOfShape" => return self.constant_of_shape(call).map(Some),
            _ => {}
        }
        let integers = |n: &Option<Named>| matches!(n, Some(Named::Integers(_) | Named::Sizes(_)));
        if !call.inputs.iter().any(integers) {
            return Ok(None);
        }
        let mut inputs = Vec::with_capacity(call.inputs.len());
        for named in &call.inputs {
            match named.as_ref().map(|n| self.sizes_of(n)) {
                Some(Some(sizes)) => inputs.push(Some(sizes)),
                Some(None) => return Ok(None),
                None => inputs.push(None),
            }
        }
        Ok(evaluate(call, &inputs).filter(|s| s.values.len() <= SIZES_MAX).map(Sizes::named))
    }

    /// The dimensions of the first input.
    fn shape_of(&self, call: &Call<'_>) -> Result<Vec<Size>, GraphError> {
        match call.inputs.first() {
            Some(Some(Named::Tensor(value))) => Ok(self.extents(*value)),
            Some(Some(Named::Integers(array))) => Ok(array.dims.iter().map(|d| Size::Known(*d as i64)).collect()),
            Some(Some(Named::Sizes(s))) if s.scalar => Ok(vec![]),
            Some(Some(Named::Sizes(s))) => Ok(vec![Size::Known(s.values.len() as i64)]),
            Some(None) | None => call.refuse("input 0 is missing"),
        }
    }

    fn shape(&self, call: &Call<'_>) -> Result<Named, GraphError> {
        let all = self.shape_of(call)?;
        let rank = all.len() as i64;
        let place = |at: i64| if at < 0 { at.saturating_add(rank) } else { at }.clamp(0, rank) as usize;
        let (start, end) = (place(call.int("start", 0)), place(call.int("end", rank)));
        Ok(Sizes::list(all.get(start..end).unwrap_or(&[]).to_vec()).named())
    }

    /// A constant, with one entry where the batch will be.
    fn constant_of_shape(&mut self, call: &Call<'_>) -> Result<Named, GraphError> {
        let Some(sizes) = self.sizes(call, 0)? else { return call.refuse("the shape is missing") };
        let mut dims = Vec::with_capacity(sizes.len());
        for size in sizes {
            match size {
                Size::Rows(1) => dims.push(1),
                Size::Known(n) if n >= 0 => dims.push(n as usize),
                Size::Known(_) | Size::Rows(_) => return call.refuse(format!("a dimension of {size:?}")),
            }
        }
        let count = dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= FOLDED_VALUES_MAX);
        let Some(count) = count else { return call.refuse(format!("{dims:?} is too large")) };
        self.charge(call, count)?;
        let value = call.proto.attribute.iter().find(|a| a.name == "value").and_then(|a| a.t.as_ref());
        let numbers = match value.map(tensor::array).transpose()?.map(|a| a.numbers) {
            None => Numbers::Floats(vec![0.0; count]),
            Some(Numbers::Floats(v)) => Numbers::Floats(vec![v.first().copied().unwrap_or(0.0); count]),
            Some(Numbers::Integers(v)) => Numbers::Integers(vec![v.first().copied().unwrap_or(0); count]),
        };
        Ok(self.named(call.name(), Array { dims, numbers }))
    }
}

fn evaluate(call: &Call<'_>, inputs: &[Option<Sizes>]) -> Option<Sizes> {
    let input = |i: usize| inputs.get(i).and_then(Option::as_ref);
    let first = input(0)?;
    match call.proto.op_type.as_str() {
        "Identity" => Some(first.clone()),
        // To int32 or int64.
        "Cast" if matches!(call.int("to", 0), 6 | 7) => Some(first.clone()),
        "Gather" if call.int("axis", 0) == 0 && !first.scalar => {
            let at = input(1)?;
            let values = at.values.iter().map(|i| entry(&first.values, *i)).collect::<Option<Vec<_>>>()?;
            Some(Sizes { scalar: at.scalar, values })
        }
        "Slice" if !first.scalar => slice(first, input(1)?, input(2)?, input(3), input(4)).map(Sizes::list),
        "Concat" => {
            let all = inputs.iter().map(|i| i.as_ref().filter(|s| !s.scalar).map(|s| s.values.clone()));
            all.collect::<Option<Vec<_>>>().map(|v| Sizes::list(v.concat()))
        }
        "Unsqueeze" if first.scalar => Some(Sizes::list(first.values.clone())),
        "Squeeze" if first.values.len() == 1 => Some(Sizes { scalar: true, values: first.values.clone() }),
        "Reshape" => match input(1)?.known()?.as_slice() {
            [] if first.values.len() == 1 => Some(Sizes { scalar: true, values: first.values.clone() }),
            [n] if *n == -1 || *n == first.values.len() as i64 => Some(Sizes::list(first.values.clone())),
            _ => None,
        },
        "ReduceProd" => {
            let product = first.values.iter().copied().try_fold(Size::Known(1), times)?;
            Some(Sizes { scalar: call.int("keepdims", 1) == 0, values: vec![product] })
        }
        "Range" => range(first, input(1)?, input(2)?).map(Sizes::list),
        "Where" => choose(first, input(1)?, input(2)?),
        "Not" => each(first, |s| if let Size::Known(n) = s { Some(Size::Known(i64::from(n == 0))) } else { None }),
        "Neg" => each(first, |s| if let Size::Known(n) = s { n.checked_neg().map(Size::Known) } else { None }),
        name => {
            let (scalar, pairs) = broadcast(first, input(1)?)?;
            let values = pairs.into_iter().map(|(a, b)| binary(name, a, b)).collect::<Option<_>>()?;
            Some(Sizes { scalar, values })
        }
    }
}

fn each(sizes: &Sizes, f: impl Fn(Size) -> Option<Size>) -> Option<Sizes> {
    let values = sizes.values.iter().map(|s| f(*s)).collect::<Option<_>>()?;
    Some(Sizes { scalar: sizes.scalar, values })
}

/// Pairs of a list and a list, or of a list and a single one.
fn broadcast(a: &Sizes, b: &Sizes) -> Option<(bool, Vec<(Size, Size)>)> {
    let n = a.values.len().max(b.values.len());
    let fits = |s: &Sizes| s.values.len() == n || s.values.len() == 1;
    if n == 0 || !fits(a) || !fits(b) {
        return None;
    }
    let at = |s: &Sizes, i: usize| s.values[i.min(s.values.len() - 1)];
    Some((a.scalar && b.scalar, (0..n).map(|i| (at(a, i), at(b, i))).collect()))
}

fn choose(condition: &Sizes, a: &Sizes, b: &Sizes) -> Option<Sizes> {
    let (scalar, pairs) = broadcast(a, b)?;
    let pairs_only = Sizes { scalar, values: vec![Size::Known(0); pairs.len()] };
    let (scalar, conditions) = broadcast(condition, &pairs_only)?;
    let pick = |(i, (condition, _)): (usize, &(Size, Size))| match (condition, pairs[i.min(pairs.len() - 1)]) {
        (Size::Known(0), (_, b)) => Some(b),
        (Size::Known(_), (a, _)) => Some(a),
        (Size::Rows(_), _) => None,
    };
    let values = conditions.iter().enumerate().map(pick).collect::<Option<_>>()?;
    Some(Sizes { scalar, values })
}

fn entry(values: &[Size], at: Size) -> Option<Size> {
    let Size::Known(at) = at else { return None };
    let at = if at < 0 { at.checked_add(values.len() as i64)? } else { at };
    values.get(usize::try_from(at).ok()?).copied()
}

fn times(a: Size, b: Size) -> Option<Size> {
    match (a, b) {
        (Size::Known(a), Size::Known(b)) => a.checked_mul(b).map(Size::Known),
        (Size::Rows(rows), Size::Known(n)) | (Size::Known(n), Size::Rows(rows)) if n > 0 => {
            rows.checked_mul(n).map(Size::Rows)
        }
        (Size::Rows(_), Size::Known(0)) | (Size::Known(0), Size::Rows(_)) => Some(Size::Known(0)),
        (Size::Rows(_), _) | (_, Size::Rows(_)) => None,
    }
}

fn binary(name: &str, a: Size, b: Size) -> Option<Size> {
    use Size::{Known, Rows};
    let word = |holds: bool| Some(Known(i64::from(holds)));
    match (name, a, b) {
        ("Add", Known(a), Known(b)) => a.checked_add(b).map(Known),
        ("Add", Rows(a), Rows(b)) => a.checked_add(b).map(Rows),
        ("Add", Rows(_), Known(0)) | ("Sub", Rows(_), Known(0)) => Some(a),
        ("Add", Known(0), Rows(_)) => Some(b),
        ("Sub", Known(a), Known(b)) => a.checked_sub(b).map(Known),
        ("Sub", Rows(a), Rows(b)) if a == b => Some(Known(0)),
        ("Sub", Rows(a), Rows(b)) if a > b => Some(Rows(a - b)),
        ("Mul", a, b) => times(a, b),
        ("Div", Known(a), Known(b)) => a.checked_div(b).map(Known),
        ("Div", Rows(a), Known(b)) if b > 0 && a % b == 0 => Some(Rows(a / b)),
        ("Div", Rows(a), Rows(b)) if a % b == 0 => Some(Known(a / b)),
        ("Mod", Known(a), Known(b)) if b > 0 => Some(Known(a.rem_euclid(b))),
        ("Max", Known(a), Known(b)) => Some(Known(a.max(b))),
        ("Min", Known(a), Known(b)) => Some(Known(a.min(b))),
        // There is at least one row.
        ("Max", Rows(_), Known(..=1)) => Some(a),
        ("Max", Known(..=1), Rows(_)) => Some(b),
        ("Equal", Known(a), Known(b)) => word(a == b),
        ("Equal", Rows(a), Rows(b)) => word(a == b),
        ("Equal", Rows(_), Known(..=0)) | ("Equal", Known(..=0), Rows(_)) => word(false),
        ("Greater", Known(a), Known(b)) => word(a > b),
        ("Greater", Rows(_), Known(..=0)) => word(true),
        ("Less", Known(a), Known(b)) => word(a < b),
        ("Less", Rows(_), Known(..=0)) => word(false),
        ("GreaterOrEqual", Known(a), Known(b)) => word(a >= b),
        ("LessOrEqual", Known(a), Known(b)) => word(a <= b),
        ("And", Known(a), Known(b)) => word(a != 0 && b != 0),
        ("Or", Known(a), Known(b)) => word(a != 0 || b != 0),
        _ => None,
    }
}

fn slice(of: &Sizes, start: &Sizes, end: &Sizes, axes: Option<&Sizes>, steps: Option<&Sizes>) -> Option<Vec<Size>> {
    let single = |s: Option<&Sizes>, default: i64| match s.map(Sizes::known) {
        None => Some(default),
        Some(known) => known?.as_slice().first().copied(),
    };
    let n = of.values.len() as i64;
    let (axis, step) = (single(axes, 0)?, single(steps, 1)?);
    if !matches!(axis, 0 | -1) || step != 1 || start.values.len() != 1 || end.values.len() != 1 {
        return None;
    }
    let place = |at: i64| if at < 0 { at.saturating_add(n) } else { at }.clamp(0, n) as usize;
    let (from, to) = (place(single(Some(start), 0)?), place(single(Some(end), 0)?));
    Some(of.values.get(from..to.max(from))?.to_vec())
}

fn range(start: &Sizes, limit: &Sizes, delta: &Sizes) -> Option<Vec<Size>> {
    let one = |s: &Sizes| s.known()?.first().copied();
    let (start, limit, delta) = (one(start)?, one(limit)?, one(delta)?);
    let mut values = Vec::new();
    let mut at = start;
    while (delta > 0 && at < limit) || (delta < 0 && at > limit) {
        if values.len() == SIZES_MAX {
            return None;
        }
        values.push(Size::Known(at));
        at = at.checked_add(delta)?;
    }
    Some(values)
}
