//! Rule: a product of something linear is taken apart, until its matrix meets what a candidate really brings.
//!
//! `x W` with a constant `W` is distributed over sums, over factors that depend on the user alone (or are constant)
//! and over the product that `x` is itself:
//!
//! * `(x + y) W = x W + y W`;
//! * `(c * x) W = x (diag(c) W)` with a constant `c`: normalisation before a layer;
//! * `(u * (z U + b)) W = z (U diag(u) W) + (u * b) W` with `u` of the user. `U diag(u) W` is a matrix of the user: as
//!   many rows as `z` has columns. In a cross layer of low rank, `u` has a thousand columns and `z` thirty-two, so
//!   that the user's columns leave the request path altogether, with their elementwise work;
//! * the same with `a` of the item, where the matrix has no more values than `a` has columns, since every item keeps it;
//! * `(z U) W = z (U W)`: two layers with nothing between them;
//! * `broadcast(x) W = broadcast(x W)`.
//!
//! Exact but for the order of additions and products. Every way has a price ([`super::price`]); the cheapest is
//! taken, and that is the product as it stands unless another one is cheaper.

use super::Label;
use super::draft::{Rebuild, rebuild};
use super::price;
use crate::graph::{Binary, Graph, Node, Op, TensorId, Unary};

/// Values of one matrix of the user: as many as a layer of 64 columns over a rank of 256 has.
const USER_MATRIX_VALUES_MAX: usize = 1 << 14;
/// Tensors that are looked at for one product: sums may share terms, and then their chains are as many as their paths.
const VISITS_MAX: usize = 1_024;
/// Operations between a product and what it meets in the end.
const DEPTH_MAX: usize = 32;

/// The graph with its products taken apart where that is cheaper.
pub(super) fn apply(graph: &Graph, inputs: &[Label]) -> Result<Graph, String> {
    rebuild(graph, inputs, product)
}

fn product(r: &mut Rebuild<'_>, node: &Node) -> Result<Option<TensorId>, String> {
    let (Op::MatMul, [x, matrix]) = (&node.op, node.inputs.as_slice()) else { return Ok(None) };
    let (Label::Both, Label::Constant, [_, columns]) = (r.labels[*x], r.labels[*matrix], r.old.dims(*matrix)) else {
        return Ok(None);
    };
    let mut search = Search { r, columns: *columns, visits: 0 };
    let way = search.best(*x, Factor::None, 0);
    if matches!(way, Way::Direct) {
        return Ok(None);
    }
    let name = r.old.tensors[node.output].name.clone();
    let (mut terms, weights) = (Vec::new(), r.map[*matrix]);
    build(r, *x, &way, Weights { matrix: weights, factor: None }, &mut terms)?;
    let sum = r.new.push(Op::Sum, &terms, &name)?;
    let dims = r.old.dims(node.output).to_vec();
    r.new.push(Op::Broadcast { dims }, &[sum], &name).map(Some)
}

/// What has been taken out of the left side so far, apart from constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Factor {
    None,
    User,
    Item,
}

/// How a product with one left side is computed.
#[derive(Debug)]
enum Way {
    /// As it stands, the factor multiplied in before.
    Direct,
    /// Each term by itself.
    Terms(Vec<(TensorId, Sign, Way)>),
    /// Without a factor.
    Scaled { by: TensorId, of: TensorId, way: Box<Way> },
    /// The inner product's left side with a matrix made of both right sides.
    Inner { left: TensorId, right: TensorId, way: Box<Way> },
    /// Before it is broadcast.
    Narrow { of: TensorId, way: Box<Way> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    Plus,
    Minus,
}

struct Search<'r, 'a> {
    r: &'r Rebuild<'a>,
    columns: usize,
    visits: usize,
}

impl Search<'_, '_> {
    /// The cheapest way.
    fn best(&mut self, x: TensorId, factor: Factor, depth: usize) -> Way {
        self.priced(x, factor, depth).1
    }

    fn rows_and_width(&self, x: TensorId) -> (u64, u64) {
        let (width, outer) = self.r.old.dims(x).split_last().map_or((1, &[][..]), |(w, o)| (*w, o));
        (outer.iter().product::<usize>() as u64, width as u64)
    }

    fn priced(&mut self, x: TensorId, factor: Factor, depth: usize) -> (u64, Way) {
        self.visits += 1;
        let (rows, width) = self.rows_and_width(x);
        let out = rows * self.columns as u64;
        let label = self.r.labels[x];
        let off_path = match (label, factor) {
            // Joins the bias.
            (Label::Constant | Label::User, Factor::None | Factor::User) => Some(0),
            (Label::Ad | Label::Constant, Factor::None | Factor::Item) => Some(out * (price::ACTIVATION + 1)),
            _ => None,
        };
        if let Some(cost) = off_path {
            return (cost, Way::Direct);
        }
        let multiplied = if factor == Factor::None { 0 } else { 3 * rows * width };
        let direct = 2 * out * width + multiplied;
        if depth >= DEPTH_MAX || self.visits >= VISITS_MAX || label != Label::Both {
            return (direct, Way::Direct);
        }
        let Some(node) = self.r.old.maker(x).cloned() else { return (direct, Way::Direct) };
        // What nothing else reads need not be made if it is taken apart.
        let made = price::step(&node) + price::compute(self.r.old, &node);
        let saved = if self.r.readers[x] == 1 { made } else { 0 };
        match self.apart(&node, factor, depth) {
            Some((cost, way)) if cost < direct + saved => (cost, way),
            _ => (direct + saved, Way::Direct),
        }
    }

    /// The price of what the operation that makes `x` allows.
    fn apart(&mut self, node: &Node, factor: Factor, depth: usize) -> Option<(u64, Way)> {
        let old = self.r.old;
        let dims = old.dims(node.output);
        let width = *dims.last()?;
        match (&node.op, node.inputs.as_slice()) {
            (Op::Sum | Op::Binary(Binary::Add | Binary::Sub), inputs) => {
                if inputs.iter().any(|i| old.dims(*i).last() != Some(&width) || old.dims(*i).len() > dims.len()) {
                    return None;
                }
                let mut cost = (inputs.len() as u64 - 1) * self.columns as u64;
                let mut terms = Vec::with_capacity(inputs.len());
                for (at, input) in inputs.iter().enumerate() {
                    let minus = at == 1 && node.op == Op::Binary(Binary::Sub);
                    let (price, way) = self.priced(*input, factor, depth + 1);
                    cost += price;
                    terms.push((*input, if minus { Sign::Minus } else { Sign::Plus }, way));
                }
                Some((cost, Way::Terms(terms)))
            }
            (Op::Unary(Unary::Neg), [of]) => {
                let (cost, way) = self.priced(*of, factor, depth + 1);
                Some((cost, Way::Terms(vec![(*of, Sign::Minus, way)])))
            }
            (Op::Binary(Binary::Mul), [a, b]) => {
                [(*a, *b), (*b, *a)].into_iter().find_map(|(by, of)| self.scaled(by, of, dims, factor, depth))
            }
            (Op::MatMul, [left, right]) => self.inner(*left, *right, factor, depth),
            (Op::Broadcast { .. }, [of]) if old.dims(*of).last() == Some(&width) => {
                let (cost, way) = self.priced(*of, factor, depth + 1);
                Some((cost, Way::Narrow { of: *of, way: Box::new(way) }))
            }
            _ => None,
        }
    }

    /// `(by * of) W`, with `by` one value a column.
    fn scaled(
        &mut self,
        by: TensorId,
        of: TensorId,
        dims: &[usize],
        factor: Factor,
        depth: usize,
    ) -> Option<(u64, Way)> {
        let old = self.r.old;
        let (last, outer) = old.dims(by).split_last()?;
        let fits = (*last == 1 || Some(last) == dims.last()) && outer.iter().all(|d| *d == 1);
        let joined = match (self.r.labels[by], factor) {
            (Label::Constant, factor) => factor,
            (Label::User, Factor::None | Factor::User) => Factor::User,
            (Label::Ad, Factor::None) => Factor::Item,
            _ => return None,
        };
        if !fits || old.dims(of) != dims {
            return None;
        }
        let (cost, way) = self.priced(of, joined, depth + 1);
        // With the factor of a user or an item, a product as it stands gains nothing.
        if joined != factor && matches!(way, Way::Direct) && self.r.labels[of] == Label::Both {
            return None;
        }
        Some((cost, Way::Scaled { by, of, way: Box::new(way) }))
    }

    /// `(left right) W = left (right W)`.
    fn inner(&mut self, left: TensorId, right: TensorId, factor: Factor, depth: usize) -> Option<(u64, Way)> {
        let [height, _] = self.r.old.dims(right) else { return None };
        let height = *height;
        let values = height * self.columns;
        let (rows, _) = self.rows_and_width(left);
        let product = 2 * rows * (values as u64);
        let of_user = factor == Factor::User || self.r.labels[right] == Label::User;
        match (self.r.labels[right], factor) {
            (Label::Constant, Factor::None) => {
                let (cost, way) = self.priced(left, Factor::None, depth + 1);
                Some((cost, Way::Inner { left, right, way: Box::new(way) }))
            }
            (Label::Constant | Label::User, Factor::None | Factor::User) if of_user => {
                let sent = price::USER_VALUE * values as u64 / price::BLOCK;
                let made = 2 * self.r.old.dims(right)[1] as u64 * values as u64 / price::CANDIDATES;
                let fits = values <= USER_MATRIX_VALUES_MAX;
                fits.then(|| {
                    (product + made + sent + price::STEP, Way::Inner { left, right, way: Box::new(Way::Direct) })
                })
            }
            (Label::Constant, Factor::Item) => {
                let width = self.r.old.dims(right)[1];
                let kept = price::ACTIVATION * values as u64;
                let way = Way::Inner { left, right, way: Box::new(Way::Direct) };
                (values <= width).then_some((product + kept + price::STEP, way))
            }
            _ => None,
        }
    }
}

/// The right side of a product under way: `diag(factor) matrix`.
#[derive(Clone, Copy)]
struct Weights {
    /// Constant.
    matrix: TensorId,
    /// Of the user or the item, one value a row of the matrix.
    factor: Option<TensorId>,
}

/// Appends the terms of `x weights`.
fn build(
    r: &mut Rebuild<'_>,
    x: TensorId,
    way: &Way,
    weights: Weights,
    terms: &mut Vec<TensorId>,
) -> Result<(), String> {
    match way {
        Way::Direct => {
            let term = direct(r, x, weights)?;
            terms.push(term);
        }
        Way::Terms(parts) => {
            for (part, sign, way) in parts {
                let matrix = match sign {
                    Sign::Plus => weights.matrix,
                    Sign::Minus => r.new.push(Op::Unary(Unary::Neg), &[weights.matrix], "")?,
                };
                build(r, *part, way, Weights { matrix, ..weights }, terms)?;
            }
        }
        Way::Scaled { by, of, way } => {
            let label = r.labels[*by];
            let flat = last_only(r, *by)?;
            let weights = if label == Label::Constant {
                Weights { matrix: row_scaled(r, flat, weights.matrix)?, ..weights }
            } else {
                let factor = match weights.factor {
                    Some(before) => r.new.push(Op::Binary(Binary::Mul), &[before, flat], "")?,
                    None => flat,
                };
                Weights { factor: Some(factor), ..weights }
            };
            build(r, *of, way, weights, terms)?;
        }
        Way::Inner { left, right, way } => {
            let outer = match weights.factor {
                Some(factor) => row_scaled(r, factor, weights.matrix)?,
                None => weights.matrix,
            };
            let matrix = r.new.push(Op::MatMul, &[r.map[*right], outer], "")?;
            if r.new.label(matrix) == Label::Constant {
                build(r, *left, way, Weights { matrix, factor: None }, terms)?;
            } else {
                let term = times(r, r.map[*left], matrix)?;
                terms.push(term);
            }
        }
        Way::Narrow { of, way } => build(r, *of, way, weights, terms)?,
    }
    Ok(())
}

/// `(factor * x) matrix`, as it stands.
fn direct(r: &mut Rebuild<'_>, x: TensorId, weights: Weights) -> Result<TensorId, String> {
    let mut left = r.map[x];
    if let Some(factor) = weights.factor {
        let factor = factor_like(r, factor, left)?;
        left = r.new.push(Op::Binary(Binary::Mul), &[factor, left], "")?;
    }
    if r.new.label(left) != Label::Constant {
        return r.new.push(Op::MatMul, &[left, weights.matrix], "");
    }
    // A constant vector is a matrix of one row.
    let dims = r.new.dims(left).to_vec();
    if dims.len() > 1 {
        return r.new.push(Op::MatMul, &[left, weights.matrix], "");
    }
    let row = r.new.push(Op::Reshape { dims: vec![1, dims.iter().product()] }, &[left], "")?;
    let columns = r.new.dims(weights.matrix)[1];
    let product = r.new.push(Op::MatMul, &[row, weights.matrix], "")?;
    r.new.push(Op::Reshape { dims: vec![columns] }, &[product], "")
}

/// `left matrix` where the matrix has a batch dimension: a row is a matrix of one row.
fn times(r: &mut Rebuild<'_>, left: TensorId, matrix: TensorId) -> Result<TensorId, String> {
    let dims = r.new.dims(left).to_vec();
    if dims.len() != 1 {
        // Rows of more dimensions meet one matrix as one stack of rows.
        let (width, rows) = (dims[dims.len() - 1], dims[..dims.len() - 1].iter().product());
        let flat = r.new.push(Op::Reshape { dims: vec![rows, width] }, &[left], "")?;
        let product = r.new.push(Op::MatMul, &[flat, matrix], "")?;
        let mut result = dims;
        let last = result.len() - 1;
        result[last] = r.new.dims(matrix)[1];
        return r.new.push(Op::Reshape { dims: result }, &[product], "");
    }
    let row = r.new.push(Op::Reshape { dims: vec![1, dims[0]] }, &[left], "")?;
    let product = r.new.push(Op::MatMul, &[row, matrix], "")?;
    let columns = r.new.dims(matrix)[1];
    r.new.push(Op::Reshape { dims: vec![columns] }, &[product], "")
}

/// A factor as a vector.
fn last_only(r: &mut Rebuild<'_>, factor: TensorId) -> Result<TensorId, String> {
    let last = r.old.dims(factor).last().copied().unwrap_or(1);
    r.new.push(Op::Reshape { dims: vec![last] }, &[r.map[factor]], "")
}

/// A vector factor in as many dimensions as `x` has, so that rows meet rows.
fn factor_like(r: &mut Rebuild<'_>, factor: TensorId, x: TensorId) -> Result<TensorId, String> {
    let mut dims = vec![1; r.new.dims(x).len().max(1)];
    if let Some(last) = dims.last_mut() {
        *last = r.new.dims(factor)[0];
    }
    r.new.push(Op::Reshape { dims }, &[factor], "")
}

/// `diag(factor) matrix`.
fn row_scaled(r: &mut Rebuild<'_>, factor: TensorId, matrix: TensorId) -> Result<TensorId, String> {
    let rows = r.new.dims(factor)[0];
    let column = r.new.push(Op::Reshape { dims: vec![rows, 1] }, &[factor], "")?;
    r.new.push(Op::Binary(Binary::Mul), &[column, matrix], "")
}
