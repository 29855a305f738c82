//! How do the dimensions of a product become calls of the dense kernel?
//!
//! One right matrix for all rows is one call. Pairs of matrices are a call each; where the left ones are single
//! rows (a candidate's query against the user's keys), the rows that meet the same right matrix are one call.

use super::dense::{self, Int8, Panels, Right, Rows, Size};
use super::tail::{self, Block, Finishes, Step};
use super::walk::Walk;
use crate::graph::{TensorId, product};
use half::bf16;
use std::sync::Arc;

/// A right matrix that was known when the program was made.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Matrix {
    /// The constant of the graph.
    pub id: TensorId,
    pub kept: Kept,
}

/// How exactly a matrix is kept.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kept {
    F32(Arc<Panels>),
    Bf16(Arc<Panels<bf16>>),
    Int8(Arc<Int8>),
}

/// Products whose dimensions are known.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Products {
    /// Positions of the left matrix, the right matrix and the result of each call.
    calls: Walk<3>,
    size: Size,
    /// From one left row to the next.
    left_stride: usize,
    /// The right matrix, if it was known.
    matrix: Option<Matrix>,
    /// What follows; only after a single call.
    steps: Vec<Step>,
}

impl Products {
    /// The product of matrices of these dimensions; those before the last two are broadcast.
    pub fn of(a: &[usize], b: &[usize], output: &[usize]) -> Result<Self, String> {
        let fail = || format!("a product of {a:?} and {b:?}");
        let (b_outer, [k, n]) = b.split_last_chunk::<2>().ok_or_else(fail)?;
        let [a_outer @ .., m, _] = a else { return Err(fail()) };
        let (m, k, n) = (*m, *k, *n);
        if b_outer.iter().all(|d| *d == 1) {
            let size = Size { m: product(a_outer)? * m, k, n, stride: n };
            return Ok(Self { calls: Walk::new(&[], &[], [0; 3]), size, left_stride: k, matrix: None, steps: vec![] });
        }
        let mut dims = output[..output.len() - 2].to_vec();
        let mut strides = strides([a_outer, b_outer, &dims], [m * k, k * n, m * n], &dims);
        let mut size = Size { m, k, n, stride: n };
        let mut left_stride = k;
        let shared = (0..dims.len()).find(|i| dims[*i] > 1 && strides[*i][1] == 0 && strides[*i][0] != 0);
        if let (1, Some(at)) = (m, shared) {
            let [left, _, result] = strides.remove(at);
            (size.m, size.stride, left_stride) = (dims.remove(at), result as usize, left as usize);
        }
        Ok(Self { calls: Walk::new(&dims, &strides, [0; 3]), size, left_stride, matrix: None, steps: vec![] })
    }

    /// The same with a right matrix that is laid out, and with what follows.
    pub fn with(self, matrix: Option<Matrix>, steps: Vec<Step>) -> Self {
        Self { matrix, steps, ..self }
    }

    /// The constant that is the right matrix.
    pub const fn matrix(&self) -> Option<&Matrix> {
        self.matrix.as_ref()
    }

    /// Rounded numbers that a run takes.
    pub fn words(&self) -> usize {
        match &self.matrix {
            Some(Matrix { kept: Kept::Int8(matrix), .. }) => matrix.words(self.size.m),
            Some(_) | None => 0,
        }
    }

    /// Rows and columns of the one right matrix, if the first product is all there is.
    pub const fn right(&self) -> (usize, usize) {
        (self.size.k, self.size.n)
    }

    /// Computes all of them; `words` has [`Self::words`].
    pub fn run<'a>(&self, operand: &impl Fn(usize) -> &'a [f32], words: &mut [i16], out: &mut [f32]) {
        let Size { m, k, n, .. } = self.size;
        match self.matrix.as_ref().map(|m| &m.kept) {
            Some(Kept::F32(panels)) => return self.call(operand(0), Right::Panels(panels), operand, out),
            Some(Kept::Bf16(panels)) => return self.call(operand(0), Right::Half(panels), operand, out),
            Some(Kept::Int8(matrix)) => {
                let rows = Rows { values: operand(0), stride: self.left_stride };
                return matrix.run(m, rows, words, out, |out, place| {
                    tail::run(&self.steps, Block { rows: m, width: n }, place, out, operand);
                });
            }
            None => {}
        }
        let (a, b) = (operand(0), operand(1));
        self.calls.runs(|[x, y, z]| {
            for i in 0..self.calls.run {
                let at = |from: usize, input: usize| from + i * self.calls.step[input] as usize;
                let (x, y, z) = (at(x, 0), at(y, 1), at(z, 2));
                let right = Right::Rows(&b[y..y + k * n]);
                let left = &a[x..(x + (m.max(1) - 1) * self.left_stride + k).min(a.len())];
                self.call(left, right, operand, &mut out[z..]);
            }
        });
    }

    fn call<'a>(&self, left: &[f32], right: Right<'_>, operand: &impl Fn(usize) -> &'a [f32], out: &mut [f32]) {
        let block = Block { rows: self.size.m, width: self.size.n };
        let rows = Rows { values: left, stride: self.left_stride };
        let mut finish = Finishes::default();
        let rest = finish.take(&self.steps, block, operand);
        dense::product(self.size, rows, right, finish.steps(), out, |out, place| {
            tail::run(rest, block, place, out, operand);
        });
    }
}

/// For each outer dimension, how far apart its entries lie in the three.
fn strides(inputs: [&[usize]; 3], matrix: [usize; 3], dims: &[usize]) -> Vec<[isize; 3]> {
    let mut strides = vec![[0isize; 3]; dims.len()];
    for (i, input) in inputs.iter().enumerate() {
        let mut stride = matrix[i] as isize;
        for (at, dim) in input.iter().enumerate().rev() {
            if *dim != 1 {
                strides[at + dims.len() - input.len()][i] = stride;
            }
            stride *= *dim as isize;
        }
    }
    strides
}
