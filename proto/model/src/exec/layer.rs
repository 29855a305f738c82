//! What does one dense layer cost by itself?
//!
//! The kernel of the executor without a graph around it, for measurements and instruction counts: nothing else
//! uses it.

use super::dense::{self, Int8, Panels, Right, Rows, Scale, Size};
use super::tail::{self, Block, Finishes, Layout, Step};
use crate::graph::{Binary, Unary};
use crate::schema::Precision;
use half::bf16;
use std::ops::Range;

/// `relu(x W + b)`, with `W` laid out for this processor.
#[derive(Clone, Debug)]
pub struct DenseLayer {
    k: usize,
    n: usize,
    matrix: Matrix,
    bias: Vec<f32>,
    words: Vec<i16>,
}

#[derive(Clone, Debug)]
enum Matrix {
    F32(Panels),
    Bf16(Panels<bf16>),
    Int8(Int8),
}

impl DenseLayer {
    /// A layer from `k` to `n` values; `weights` is row-major, `bias` has `n` values, and the inputs lie in -1..1.
    /// None when the lengths do not fit.
    #[must_use]
    pub fn new(precision: Precision, k: usize, n: usize, weights: &[f32], bias: &[f32]) -> Option<Self> {
        if n == 0 || k > dense::INPUTS_MAX || bias.len() != n || k.checked_mul(n) != Some(weights.len()) {
            return None;
        }
        let matrix = match precision {
            Precision::F32 => Matrix::F32(Panels::new(k, n, weights)),
            Precision::Bf16 => Matrix::Bf16(Panels::new(k, n, weights)),
            Precision::Int8 => Matrix::Int8(Int8::new(k, n, weights, Scale::of(-1.0, 1.0))),
        };
        Some(Self { k, n, matrix, bias: bias.to_vec(), words: Vec::new() })
    }

    /// Computes as many rows as `out` holds results of `n` values.
    pub fn run(&mut self, rows: &[f32], out: &mut [f32]) {
        let (m, n) = (out.len() / self.n, self.n);
        let size = Size { m, k: self.k, n, stride: n };
        let rows = Rows { values: rows, stride: self.k };
        let bias = &self.bias;
        let steps = [Step::With(Binary::Add, 0, Layout::Rows { rows: 1 }), Step::Unary(Unary::Relu)];
        let block = Block { rows: m, width: n };
        let mut finish = Finishes::default();
        let rest = finish.take(&steps, block, &|_| bias);
        let after =
            |out: &mut [f32], place: (Range<usize>, Range<usize>)| tail::run(rest, block, place, out, &|_| bias);
        match &self.matrix {
            Matrix::F32(panels) => dense::product(size, rows, Right::Panels(panels), finish.steps(), out, after),
            Matrix::Bf16(panels) => dense::product(size, rows, Right::Half(panels), finish.steps(), out, after),
            Matrix::Int8(matrix) => {
                self.words.resize(matrix.words(m), 0);
                matrix.run(m, rows, &mut self.words, out, |out, place| tail::run(&steps, block, place, out, &|_| bias));
            }
        }
    }
}
