//! What do the operators that compute numbers become?

use super::node::{Call, Element};
use super::{Reader, wire::element};
use crate::error::GraphError;
use crate::graph::{Binary, Op, Reduction, TensorId, Unary};

type Computed = (TensorId, Element);

impl Reader {
    /// The result, or `None` when the operator moves values only.
    pub(super) fn arithmetic(&mut self, call: &Call<'_>) -> Result<Option<Computed>, GraphError> {
        if let Some(result) = self.elementwise(call)? {
            return Ok(Some(result));
        }
        let float = |id| Ok(Some((id, Element::Float)));
        match call.proto.op_type.as_str() {
            "MatMul" => {
                let inputs = [self.tensor(call, 0)?, self.tensor(call, 1)?];
                float(self.push(call, Op::MatMul, &inputs)?)
            }
            "Gemm" => float(self.gemm(call)?),
            "Softmax" | "LogSoftmax" => {
                let a = self.tensor(call, 0)?;
                let axis = self.axis(call, a, call.int("axis", -1))?;
                let soft = self.push(call, Op::Softmax { axis }, &[a])?;
                match call.proto.op_type.as_str() {
                    "Softmax" => float(soft),
                    _ => float(self.push(call, Op::Unary(Unary::Log), &[soft])?),
                }
            }
            "ReduceSum" => self.reduce(call, Reduction::Sum),
            "ReduceMean" => self.reduce(call, Reduction::Mean),
            "ReduceMax" => self.reduce(call, Reduction::Max),
            "ReduceMin" => self.reduce(call, Reduction::Min),
            "ReduceL2" => self.reduce(call, Reduction::L2),
            "ReduceSumSquare" => self.reduce(call, Reduction::SumSquare),
            "GlobalAveragePool" => call.refuse("use ReduceMean"),
            "LayerNormalization" => float(self.layer_normalisation(call)?),
            "BatchNormalization" => float(self.batch_normalisation(call)?),
            "Cast" => self.cast(call).map(Some),
            "Where" => {
                let inputs = self.tensors(call)?;
                let element = Self::element(call, 1);
                Ok(Some((self.push(call, Op::Select, &inputs)?, element)))
            }
            _ => Ok(None),
        }
    }

    fn elementwise(&mut self, call: &Call<'_>) -> Result<Option<Computed>, GraphError> {
        let name = call.proto.op_type.as_str();
        if let Some(kind) = unary(call, name)? {
            let a = self.tensor(call, 0)?;
            let element = if kind == Unary::Not { Element::Bool } else { Self::element(call, 0) };
            return Ok(Some((self.push(call, Op::Unary(kind), &[a])?, element)));
        }
        match name {
            "Clip" => {
                let low = self.scalar(call, 1)?.unwrap_or(f32::MIN);
                let high = self.scalar(call, 2)?.unwrap_or(f32::MAX);
                let a = self.tensor(call, 0)?;
                let element = Self::element(call, 0);
                return Ok(Some((self.push(call, Op::Unary(Unary::Clip(low, high)), &[a])?, element)));
            }
            "Sum" | "Max" | "Min" => {
                let inputs = self.tensors(call)?;
                let Some((first, rest)) = inputs.split_first() else { return call.refuse("has no inputs") };
                let kind = match name {
                    "Sum" => Binary::Add,
                    "Max" => Binary::Max,
                    _ => Binary::Min,
                };
                let mut result = *first;
                for next in rest {
                    result = self.push(call, Op::Binary(kind), &[result, *next])?;
                }
                return Ok(Some((result, Self::element(call, 0))));
            }
            "HardSigmoid" | "Gelu" | "Swish" => return self.composed(call, name).map(Some),
            "PRelu" => {
                let (a, slope) = (self.tensor(call, 0)?, self.tensor(call, 1)?);
                let zero = self.graph.constant("", vec![1], [0.0].into());
                let above = self.push(call, Op::Binary(Binary::Max), &[a, zero])?;
                let below = self.push(call, Op::Binary(Binary::Min), &[a, zero])?;
                let below = self.push(call, Op::Binary(Binary::Mul), &[below, slope])?;
                return Ok(Some((self.push(call, Op::Binary(Binary::Add), &[above, below])?, Element::Float)));
            }
            _ => {}
        }
        self.two_inputs(call, name)
    }

    fn two_inputs(&mut self, call: &Call<'_>, name: &str) -> Result<Option<Computed>, GraphError> {
        let (kind, negated) = match name {
            "Add" => (Binary::Add, false),
            "Sub" => (Binary::Sub, false),
            "Mul" => (Binary::Mul, false),
            "Div" => (Binary::Div, false),
            "Pow" => (Binary::Pow, false),
            "Equal" => (Binary::Equal, false),
            "Greater" => (Binary::Greater, false),
            "Less" => (Binary::Less, false),
            "GreaterOrEqual" => (Binary::Less, true),
            "LessOrEqual" => (Binary::Greater, true),
            "And" => (Binary::And, false),
            "Or" => (Binary::Or, false),
            _ => return Ok(None),
        };
        let element = match kind {
            Binary::Equal | Binary::Greater | Binary::Less | Binary::And | Binary::Or => Element::Bool,
            Binary::Add | Binary::Sub | Binary::Mul | Binary::Div | Binary::Pow | Binary::Max | Binary::Min => {
                Self::element(call, 0)
            }
        };
        if kind == Binary::Div && element == Element::Integer {
            return call.refuse("integers are not divided");
        }
        let inputs = [self.tensor(call, 0)?, self.tensor(call, 1)?];
        let mut result = self.push(call, Op::Binary(kind), &inputs)?;
        if negated {
            result = self.push(call, Op::Unary(Unary::Not), &[result])?;
        }
        Ok(Some((result, element)))
    }

    fn composed(&mut self, call: &Call<'_>, name: &str) -> Result<Computed, GraphError> {
        let a = self.tensor(call, 0)?;
        let constant = |r: &mut Self, x: f32| r.graph.constant("", vec![1], [x].into());
        let gate = match name {
            "HardSigmoid" => {
                let (alpha, beta) = (call.float("alpha", 0.2)?, call.float("beta", 0.5)?);
                let (alpha, beta) = (constant(self, alpha), constant(self, beta));
                let scaled = self.push(call, Op::Binary(Binary::Mul), &[a, alpha])?;
                let moved = self.push(call, Op::Binary(Binary::Add), &[scaled, beta])?;
                let result = self.push(call, Op::Unary(Unary::Clip(0.0, 1.0)), &[moved])?;
                return Ok((result, Element::Float));
            }
            "Swish" => self.push(call, Op::Unary(Unary::Sigmoid), &[a])?,
            _ if call.text("approximate").is_some_and(|t| t != b"none") => {
                return call.refuse("only the exact form is supported");
            }
            _ => {
                let (root, half) = (constant(self, std::f32::consts::FRAC_1_SQRT_2), constant(self, 0.5));
                let scaled = self.push(call, Op::Binary(Binary::Mul), &[a, root])?;
                let erf = self.push(call, Op::Unary(Unary::Erf), &[scaled])?;
                let halved = self.push(call, Op::Binary(Binary::Mul), &[erf, half])?;
                self.push(call, Op::Binary(Binary::Add), &[halved, half])?
            }
        };
        Ok((self.push(call, Op::Binary(Binary::Mul), &[a, gate])?, Element::Float))
    }

    /// `alpha * A * B + beta * C`, with the factors folded into constants.
    fn gemm(&mut self, call: &Call<'_>) -> Result<TensorId, GraphError> {
        if call.int("transA", 0) != 0 {
            return call.refuse("transA would move the batch dimension");
        }
        let (a, mut b) = (self.tensor(call, 0)?, self.tensor(call, 1)?);
        if self.graph.tensors[b].shape.batch || self.graph.dims(b).len() != 2 {
            return call.refuse("B is a constant matrix");
        }
        if call.int("transB", 0) != 0 {
            b = self.push(call, Op::Permute { order: vec![1, 0] }, &[b])?;
        }
        b = self.scaled(call, b, call.float("alpha", 1.0)?)?;
        let product = self.push(call, Op::MatMul, &[a, b])?;
        let Some(c) = self.optional(call, 2)? else { return Ok(product) };
        let c = self.scaled(call, c, call.float("beta", 1.0)?)?;
        self.push(call, Op::Binary(Binary::Add), &[product, c])
    }

    fn scaled(&mut self, call: &Call<'_>, a: TensorId, factor: f32) -> Result<TensorId, GraphError> {
        if factor == 1.0 {
            return Ok(a);
        }
        let factor = self.graph.constant("", vec![1], [factor].into());
        self.push(call, Op::Binary(Binary::Mul), &[a, factor])
    }

    fn reduce(&mut self, call: &Call<'_>, kind: Reduction) -> Result<Option<Computed>, GraphError> {
        let a = self.tensor(call, 0)?;
        let shape = self.graph.tensors[a].shape.clone();
        let mut axes = match call.ints(1, "axes")? {
            Some(axes) if !axes.is_empty() => {
                axes.iter().map(|axis| self.axis(call, a, *axis)).collect::<Result<Vec<_>, _>>()?
            }
            _ if call.int("noop_with_empty_axes", 0) != 0 => return Ok(Some((a, Element::Float))),
            _ if shape.batch => return call.refuse("without axes it would reduce the batch dimension"),
            _ => (0..shape.dims.len()).collect(),
        };
        axes.sort_unstable();
        let (Some(first), Some(last)) = (axes.first(), axes.last()) else { return Ok(Some((a, Element::Float))) };
        let (from, to) = (*first, last + 1);
        if axes.len() != to - from {
            return call.refuse(format!("the axes {axes:?} do not lie side by side"));
        }
        let mut result = self.push(call, Op::Reduce { kind, from, to }, &[a])?;
        if call.int("keepdims", 1) != 0 {
            let mut dims = shape.dims;
            dims[from..to].fill(1);
            result = self.push(call, Op::Reshape { dims }, &[result])?;
        }
        Ok(Some((result, Element::Float)))
    }

    fn layer_normalisation(&mut self, call: &Call<'_>) -> Result<TensorId, GraphError> {
        let a = self.tensor(call, 0)?;
        let from = self.axis(call, a, call.int("axis", -1))?;
        let epsilon = call.float("epsilon", 1e-5)?;
        let mut result = self.push(call, Op::Normalise { from, epsilon }, &[a])?;
        if let Some(scale) = self.optional(call, 1)? {
            result = self.push(call, Op::Binary(Binary::Mul), &[result, scale])?;
        }
        match self.optional(call, 2)? {
            Some(bias) => self.push(call, Op::Binary(Binary::Add), &[result, bias]),
            None => Ok(result),
        }
    }

    /// In inference it is a line per channel, and the channel is the first dimension of a row.
    fn batch_normalisation(&mut self, call: &Call<'_>) -> Result<TensorId, GraphError> {
        if call.int("training_mode", 0) != 0 {
            return call.refuse("training mode");
        }
        let inputs = (0..5).map(|i| self.tensor(call, i)).collect::<Result<Vec<_>, _>>()?;
        let [a, scale, bias, mean, variance] = inputs[..] else { return call.refuse("has five inputs") };
        let epsilon = call.float("epsilon", 1e-5)?;
        let epsilon = self.graph.constant("", vec![1], [epsilon].into());
        let variance = self.push(call, Op::Binary(Binary::Add), &[variance, epsilon])?;
        let deviation = self.push(call, Op::Unary(Unary::Sqrt), &[variance])?;
        let factor = self.push(call, Op::Binary(Binary::Div), &[scale, deviation])?;
        let shift = self.push(call, Op::Binary(Binary::Mul), &[mean, factor])?;
        let shift = self.push(call, Op::Binary(Binary::Sub), &[bias, shift])?;
        let rank = self.graph.dims(a).len();
        let channels = self.graph.dims(factor).first().copied().unwrap_or(1);
        let mut dims = vec![1; rank];
        let Some(first) = dims.first_mut() else { return call.refuse("there is no channel dimension") };
        *first = channels;
        let factor = self.push(call, Op::Reshape { dims: dims.clone() }, &[factor])?;
        let shift = self.push(call, Op::Reshape { dims }, &[shift])?;
        let scaled = self.push(call, Op::Binary(Binary::Mul), &[a, factor])?;
        self.push(call, Op::Binary(Binary::Add), &[scaled, shift])
    }

    fn cast(&mut self, call: &Call<'_>) -> Result<Computed, GraphError> {
        let a = self.tensor(call, 0)?;
        let from = Self::element(call, 0);
        let to = match i32::try_from(call.int("to", 0)) {
            Ok(element::FLOAT | element::FLOAT16 | element::BFLOAT16 | element::DOUBLE) => Element::Float,
            Ok(element::INT64 | element::INT32) => Element::Integer,
            Ok(element::BOOL) => Element::Bool,
            _ => return call.refuse(format!("to element type {}", call.int("to", 0))),
        };
        let result = match (from, to) {
            (Element::Float, Element::Integer) => self.push(call, Op::Unary(Unary::Truncate), &[a])?,
            (Element::Float | Element::Integer, Element::Bool) => self.push(call, Op::Unary(Unary::ToBool), &[a])?,
            (Element::Float | Element::Integer | Element::Bool, _) => a,
        };
        Ok((result, to))
    }
}

fn unary(call: &Call<'_>, name: &str) -> Result<Option<Unary>, GraphError> {
    Ok(Some(match name {
        "Relu" => Unary::Relu,
        "LeakyRelu" => Unary::LeakyRelu(call.float("alpha", 0.01)?),
        "Elu" => Unary::Elu(call.float("alpha", 1.0)?),
        "Sigmoid" => Unary::Sigmoid,
        "Tanh" => Unary::Tanh,
        "Softplus" => Unary::Softplus,
        "Erf" => Unary::Erf,
        "Exp" => Unary::Exp,
        "Log" => Unary::Log,
        "Sqrt" => Unary::Sqrt,
        "Reciprocal" => Unary::Reciprocal,
        "Neg" => Unary::Neg,
        "Abs" => Unary::Abs,
        "Not" => Unary::Not,
        _ => return Ok(None),
    }))
}
