//! Which operations does a graph consist of, once its ONNX operators are lowered?
//!
//! Few on purpose: `Gemm`, `BatchNormalization`, `Split`, `Flatten` and their like become combinations of these.
//! An axis counts the dimensions of one row: the batch dimension is not among them and no operation touches it.

/// One operation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Op {
    /// Matrix product over the last two dimensions; the others broadcast.
    MatMul,
    /// Entries of the first input along an axis, at the second input's integers.
    Gather { axis: usize },
    /// A function of each value.
    Unary(Unary),
    /// A function of two values each, broadcast.
    Binary(Binary),
    /// The sum of all inputs, broadcast.
    Sum,
    /// The inputs one after the other along an axis.
    Concat { axis: usize },
    /// One value for the dimensions `from..to`, which disappear.
    Reduce { kind: Reduction, from: usize, to: usize },
    /// Exponentials over an axis, divided by their sum.
    Softmax { axis: usize },
    /// Zero mean and unit variance over the dimensions from `from` on.
    Normalise { from: usize, epsilon: f32 },
    /// The same values in other dimensions.
    Reshape { dims: Vec<usize> },
    /// Dimension `i` of the result is dimension `order[i]`.
    Permute { order: Vec<usize> },
    /// `count` entries along an axis, `step` apart.
    Slice { axis: usize, start: usize, step: isize, count: usize },
    /// Dimensions of 1 repeated.
    Broadcast { dims: Vec<usize> },
    /// The second input where the first is not 0, the third elsewhere.
    Select,
}

/// A function of one value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Unary {
    Relu,
    LeakyRelu(f32),
    Elu(f32),
    Sigmoid,
    Tanh,
    Softplus,
    Erf,
    Exp,
    Log,
    Sqrt,
    Reciprocal,
    Neg,
    Abs,
    Clip(f32, f32),
    /// To integer, towards 0.
    Truncate,
    /// 1 for 0, 0 for the rest.
    Not,
    /// 0 for 0, 1 for the rest.
    ToBool,
}

/// A function of two values. The comparisons give 1 or 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Pow,
    Max,
    Min,
    Equal,
    Greater,
    Less,
    And,
    Or,
}

/// What a reduction computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reduction {
    Sum,
    Mean,
    Max,
    Min,
    /// Root of the sum of squares.
    L2,
    SumSquare,
}
