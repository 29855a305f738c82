//! What do the operators that compute numbers become?

use super::node::{Call, Element};
use super::sizes::Size;
use super::value::{Place, Value};
use super::{Reader, wire::element};
use crate::error::GraphError;
use crate::graph::{Binary, Op, Reduction, Unary};

impl Reader {
    /// The result, or `None` when the operator moves values only.
    pub(super) fn arithmetic(&mut self, call: &Call<'_>) -> Result<Option<Value>, GraphError> {
        if let Some(result) = self.elementwise(call)? {
            return Ok(Some(result));
        }
        if let Some(result) = self.composed(call)? {
            return Ok(Some(result));
        }
        match call.proto.op_type.as_str() {
            "MatMul" => {
                let (a, b) = (self.value(call, 0)?, self.value(call, 1)?);
                self.matmul(call, a, b).map(Some)
            }
            "Gemm" => self.gemm(call).map(Some),
            "Einsum" => self.einsum(call).map(Some),
            "Softmax" | "LogSoftmax" => {
                let a = self.value(call, 0)?;
                let axis = self.axis(call, a, call.int("axis", -1))?;
                match call.proto.op_type.as_str() {
                    "Softmax" => self.on(call, Op::Softmax { axis }, a).map(Some),
                    _ => self.log_softmax(call, a).map(Some),
                }
            }
            "ReduceSum" => self.reduce(call, Reduction::Sum),
            "ReduceMean" => self.reduce(call, Reduction::Mean),
            "ReduceMax" => self.reduce(call, Reduction::Max),
            "ReduceMin" => self.reduce(call, Reduction::Min),
            "ReduceL2" => self.reduce(call, Reduction::L2),
            "ReduceSumSquare" => self.reduce(call, Reduction::SumSquare),
            "GlobalAveragePool" => call.refuse("use ReduceMean"),
            "LayerNormalization" => self.layer_normalisation(call).map(Some),
            "BatchNormalization" => self.batch_normalisation(call).map(Some),
            "Cast" => self.cast(call).map(Some),
            "Where" => {
                let [c, a, b] = self.all_values(call)?[..] else { return call.refuse("has three inputs") };
                self.select(call, c, a, b).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// `x - max - ln(sum(exp(x - max)))`: the logarithm of a softmax is infinite where its share is too small for an f32.
    fn log_softmax(&mut self, call: &Call<'_>, a: Value) -> Result<Value, GraphError> {
        let axis = Self::file_axis(call, self.rank(a), call.int("axis", -1))?;
        let largest = self.reduced(call, a, Reduction::Max, vec![axis], true)?;
        let shifted = self.with(call, Binary::Sub, a, largest)?;
        let powers = self.on(call, Op::Unary(Unary::Exp), shifted)?;
        let sum = self.reduced(call, powers, Reduction::Sum, vec![axis], true)?;
        let log = self.on(call, Op::Unary(Unary::Log), sum)?;
        self.with(call, Binary::Sub, shifted, log)
    }

    /// An operation on one value that leaves its dimensions as they are.
    pub(super) fn on(&mut self, call: &Call<'_>, op: Op, a: Value) -> Result<Value, GraphError> {
        Ok(Value { id: self.push(call, op, &[a.id])?, ..a })
    }

    /// Two values entry by entry; the result holds what the first one holds.
    pub(super) fn with(&mut self, call: &Call<'_>, kind: Binary, a: Value, b: Value) -> Result<Value, GraphError> {
        let (ids, place) = self.aligned(call, &[a, b])?;
        Ok(Value { id: self.push(call, Op::Binary(kind), &ids)?, element: a.element, place })
    }

    pub(super) fn select(&mut self, call: &Call<'_>, c: Value, a: Value, b: Value) -> Result<Value, GraphError> {
        let (ids, place) = self.aligned(call, &[c, a, b])?;
        // A condition that is known chooses now: guards of exporters go, and the NaN that they guard against.
        let known = self.graph.values(c.id).and_then(|v| {
            let first = *v.first()? != 0.0;
            v.iter().all(|x| (*x != 0.0) == first).then_some(first)
        });
        let chosen = known.map(|holds| if holds { a } else { b }).filter(|v| self.batched(*v) && v.place == place);
        if let Some(value) = chosen.filter(|v| [a, b, c].into_iter().all(|other| self.widens_to(other, *v))) {
            return Ok(value);
        }
        Ok(Value { id: self.push(call, Op::Select, &ids)?, element: a.element, place })
    }

    /// Whether a value broadcasts to the dimensions of another without changing them.
    fn widens_to(&self, value: Value, to: Value) -> bool {
        let (own, to) = (self.extents(value), self.extents(to));
        own.len() <= to.len() && own.iter().rev().zip(to.iter().rev()).all(|(a, b)| *a == Size::Known(1) || a == b)
    }

    fn elementwise(&mut self, call: &Call<'_>) -> Result<Option<Value>, GraphError> {
        let name = call.proto.op_type.as_str();
        if let Some(kind) = unary(call, name)? {
            let a = self.value(call, 0)?;
            let result = self.on(call, Op::Unary(kind), a)?;
            let element = if kind == Unary::Not { Element::Bool } else { a.element };
            return Ok(Some(Value { element, ..result }));
        }
        match name {
            // The one number that does not equal itself.
            "IsNaN" => {
                let a = self.value(call, 0)?;
                let equal = self.with(call, Binary::Equal, a, a)?;
                let result = self.on(call, Op::Unary(Unary::Not), equal)?;
                Ok(Some(Value { element: Element::Bool, ..result }))
            }
            "Clip" => {
                let low = self.scalar(call, 1)?.unwrap_or(f32::MIN);
                let high = self.scalar(call, 2)?.unwrap_or(f32::MAX);
                let a = self.value(call, 0)?;
                self.on(call, Op::Unary(Unary::Clip(low, high)), a).map(Some)
            }
            "Sum" | "Mean" | "Max" | "Min" => {
                let inputs = self.all_values(call)?;
                let Some((first, rest)) = inputs.split_first() else { return call.refuse("has no inputs") };
                let kind = match name {
                    "Sum" | "Mean" => Binary::Add,
                    "Max" => Binary::Max,
                    _ => Binary::Min,
                };
                let mut result = *first;
                for next in rest {
                    result = self.with(call, kind, result, *next)?;
                }
                if name == "Mean" {
                    let share = self.number(1.0 / inputs.len() as f32);
                    result = self.with(call, Binary::Mul, result, share)?;
                }
                Ok(Some(result))
            }
            _ => self.two_inputs(call, name),
        }
    }

    fn two_inputs(&mut self, call: &Call<'_>, name: &str) -> Result<Option<Value>, GraphError> {
        let (kind, negated) = match name {
            "Add" => (Binary::Add, false),
            "Sub" => (Binary::Sub, false),
            "Mul" => (Binary::Mul, false),
            "Div" => (Binary::Div, false),
            "Pow" => return self.power(call).map(Some),
            "Equal" => (Binary::Equal, false),
            "Xor" => (Binary::Equal, true),
            "Greater" => (Binary::Greater, false),
            "Less" => (Binary::Less, false),
            "GreaterOrEqual" => return self.or_equal(call, Binary::Greater).map(Some),
            "LessOrEqual" => return self.or_equal(call, Binary::Less).map(Some),
            "And" => (Binary::And, false),
            "Or" => (Binary::Or, false),
            _ => return Ok(None),
        };
        let (a, b) = (self.value(call, 0)?, self.value(call, 1)?);
        let element = match kind {
            Binary::Equal | Binary::Greater | Binary::Less | Binary::And | Binary::Or => Element::Bool,
            Binary::Add | Binary::Sub | Binary::Mul | Binary::Div | Binary::Pow | Binary::Max | Binary::Min => {
                a.element
            }
        };
        if kind == Binary::Div && element == Element::Integer {
            return call.refuse("integers are not divided");
        }
        let mut result = self.with(call, kind, a, b)?;
        if negated {
            result = self.on(call, Op::Unary(Unary::Not), result)?;
        }
        Ok(Some(Value { element, ..result }))
    }

    /// Not the opposite of the other comparison, which holds for a NaN.
    fn or_equal(&mut self, call: &Call<'_>, kind: Binary) -> Result<Value, GraphError> {
        let (a, b) = (self.value(call, 0)?, self.value(call, 1)?);
        let strictly = self.with(call, kind, a, b)?;
        let equal = self.with(call, Binary::Equal, a, b)?;
        let result = self.with(call, Binary::Or, strictly, equal)?;
        Ok(Value { element: Element::Bool, ..result })
    }

    /// Exporters write squares and roots as powers: both have an operation of their own.
    fn power(&mut self, call: &Call<'_>) -> Result<Value, GraphError> {
        let (a, b) = (self.value(call, 0)?, self.value(call, 1)?);
        match self.graph.values(b.id).map(|v| v.as_ref()) {
            Some([2.0]) if self.rank(b) <= self.rank(a) => self.with(call, Binary::Mul, a, a),
            Some([0.5]) if self.rank(b) <= self.rank(a) => self.on(call, Op::Unary(Unary::Sqrt), a),
            Some(_) | None => self.with(call, Binary::Pow, a, b),
        }
    }

    pub(super) fn matmul(&mut self, call: &Call<'_>, a: Value, b: Value) -> Result<Value, GraphError> {
        let (of_a, of_b) = (self.batched(a), self.batched(b));
        let (rank_a, rank_b) = (self.rank(a), self.rank(b));
        let contracted = (of_a && a.place.at + 1 >= rank_a) || (of_b && b.place.at + 2 >= rank_b);
        if contracted {
            return call.refuse("it would mix rows of the batch");
        }
        let result = |id, place| Value { id, element: Element::Float, place };
        match (of_a, of_b) {
            (true, false) if rank_b == 1 => {
                let dims = vec![self.graph.dims(b.id)[0], 1];
                let column = self.push(call, Op::Reshape { dims }, &[b.id])?;
                let id = self.push(call, Op::MatMul, &[a.id, column])?;
                let mut dims = self.graph.dims(id).to_vec();
                dims.pop();
                let id = self.push(call, Op::Reshape { dims }, &[id])?;
                Ok(result(id, a.place))
            }
            (true, false) if rank_b == 2 || a.place == Place::FIRST => {
                Ok(result(self.push(call, Op::MatMul, &[a.id, b.id])?, a.place))
            }
            (false, true) if rank_a == 2 || b.place == Place::FIRST => {
                Ok(result(self.push(call, Op::MatMul, &[a.id, b.id])?, b.place))
            }
            (true, true) => {
                if a.place.at + 2 >= rank_a {
                    return call.refuse("it would mix rows of the batch");
                }
                // Aligned from the right, as products are too.
                let (ids, place) = self.aligned(call, &[a, b])?;
                Ok(result(self.push(call, Op::MatMul, &ids)?, place))
            }
            (false, false) => Ok(result(self.push(call, Op::MatMul, &[a.id, b.id])?, Place::FIRST)),
            (true, false) | (false, true) => call.refuse("a constant of more than two dimensions beside a moved batch"),
        }
    }

    /// `alpha * A * B + beta * C`, with the factors folded into constants.
    fn gemm(&mut self, call: &Call<'_>) -> Result<Value, GraphError> {
        let (mut a, mut b) = (self.value(call, 0)?, self.value(call, 1)?);
        if self.batched(b) || self.rank(b) != 2 || self.rank(a) != 2 {
            return call.refuse("A is a matrix and B a constant one");
        }
        if call.int("transA", 0) != 0 {
            a = self.transposed(call, a, &[1, 0])?;
        }
        if call.int("transB", 0) != 0 {
            b = self.transposed(call, b, &[1, 0])?;
        }
        let (alpha, beta) = (call.float("alpha", 1.0)?, call.float("beta", 1.0)?);
        b = self.scaled(call, b, alpha)?;
        let product = self.matmul(call, a, b)?;
        let Some(c) = self.optional(call, 2)?.filter(|_| beta != 0.0) else { return Ok(product) };
        let c = self.scaled(call, c, beta)?;
        self.with(call, Binary::Add, product, c)
    }

    pub(super) fn scaled(&mut self, call: &Call<'_>, a: Value, factor: f32) -> Result<Value, GraphError> {
        if factor == 1.0 {
            return Ok(a);
        }
        let factor = self.number(factor);
        self.with(call, Binary::Mul, a, factor)
    }

    fn reduce(&mut self, call: &Call<'_>, kind: Reduction) -> Result<Option<Value>, GraphError> {
        let a = self.value(call, 0)?;
        let rank = self.rank(a);
        let axes = match self.ints(call, 1, "axes")? {
            Some(axes) if !axes.is_empty() => {
                axes.iter().map(|axis| Self::file_axis(call, rank, *axis)).collect::<Result<Vec<_>, _>>()?
            }
            _ if call.int("noop_with_empty_axes", 0) != 0 => return Ok(Some(a)),
            _ if self.batched(a) => return call.refuse("without axes it would reduce the batch dimension"),
            _ => (0..rank).collect(),
        };
        let keep = call.int("keepdims", 1) != 0;
        self.reduced(call, a, kind, axes, keep).map(Some)
    }

    /// One value for these dimensions of the file; they stay as ones, or go.
    pub(super) fn reduced(
        &mut self,
        call: &Call<'_>,
        a: Value,
        kind: Reduction,
        mut axes: Vec<usize>,
        keep: bool,
    ) -> Result<Value, GraphError> {
        axes.sort_unstable();
        axes.dedup();
        let mut own = axes.iter().map(|axis| self.graph_axis(call, a, *axis)).collect::<Result<Vec<_>, _>>()?;
        let mut dims = self.graph.dims(a.id).to_vec();
        let mut result = a;
        let mut first = true;
        // From behind, so that the axes in front keep their numbers; those side by side at once.
        while let Some(last) = own.pop() {
            let mut from = last;
            while own.last().is_some_and(|axis| axis + 1 == from) {
                from = own.pop().unwrap_or(from);
            }
            let kind = match (kind, first) {
                (Reduction::L2, _) if !own.is_empty() || !first => {
                    return call.refuse(format!("the axes {axes:?} do not lie side by side"));
                }
                // Squares are taken once.
                (Reduction::SumSquare, false) => Reduction::Sum,
                (kind, _) => kind,
            };
            result.id = self.push(call, Op::Reduce { kind, from, to: last + 1 }, &[result.id])?;
            dims[from..=last].fill(1);
            first = false;
        }
        if keep {
            result.id = self.push(call, Op::Reshape { dims }, &[result.id])?;
        } else {
            result.place.at -= axes.iter().filter(|axis| **axis < a.place.at).count();
        }
        Ok(result)
    }

    fn layer_normalisation(&mut self, call: &Call<'_>) -> Result<Value, GraphError> {
        let a = self.value(call, 0)?;
        let axis = Self::file_axis(call, self.rank(a), call.int("axis", -1))?;
        if self.batched(a) && axis <= a.place.at {
            return call.refuse("it would touch the batch dimension");
        }
        let from = self.graph_axis(call, a, axis)?;
        let epsilon = call.float("epsilon", 1e-5)?;
        let mut result = self.on(call, Op::Normalise { from, epsilon }, a)?;
        if let Some(scale) = self.optional(call, 1)? {
            result = self.with(call, Binary::Mul, result, scale)?;
        }
        match self.optional(call, 2)? {
            Some(bias) => self.with(call, Binary::Add, result, bias),
            None => Ok(result),
        }
    }

    /// In inference it is a line per channel, and the channel is the dimension after the batch.
    fn batch_normalisation(&mut self, call: &Call<'_>) -> Result<Value, GraphError> {
        if call.int("training_mode", 0) != 0 {
            return call.refuse("is in training mode: call model.eval() before the export");
        }
        let inputs = (0..5).map(|i| self.value(call, i)).collect::<Result<Vec<_>, _>>()?;
        let [a, scale, bias, mean, variance] = inputs[..] else { return call.refuse("has five inputs") };
        let rank = self.rank(a);
        if rank < 2 || (self.batched(a) && a.place.at != 0) {
            return call.refuse("there is no channel dimension after the batch");
        }
        let epsilon = call.float("epsilon", 1e-5)?;
        let epsilon = self.number(epsilon);
        let variance = self.with(call, Binary::Add, variance, epsilon)?;
        let deviation = self.on(call, Op::Unary(Unary::Sqrt), variance)?;
        let factor = self.with(call, Binary::Div, scale, deviation)?;
        let shift = self.with(call, Binary::Mul, mean, factor)?;
        let shift = self.with(call, Binary::Sub, bias, shift)?;
        let channels = self.graph.dims(factor.id).first().copied().unwrap_or(1);
        let mut dims = vec![1; rank - 1];
        dims[0] = channels;
        let factor = self.on(call, Op::Reshape { dims: dims.clone() }, factor)?;
        let shift = self.on(call, Op::Reshape { dims }, shift)?;
        let scaled = self.with(call, Binary::Mul, a, factor)?;
        self.with(call, Binary::Add, scaled, shift)
    }

    fn cast(&mut self, call: &Call<'_>) -> Result<Value, GraphError> {
        let a = self.value(call, 0)?;
        let to = match i32::try_from(call.int("to", 0)) {
            Ok(element::FLOAT | element::FLOAT16 | element::BFLOAT16 | element::DOUBLE) => Element::Float,
            Ok(element::INT64 | element::INT32) => Element::Integer,
            Ok(element::BOOL) => Element::Bool,
            _ => return call.refuse(format!("to element type {}", call.int("to", 0))),
        };
        let result = match (a.element, to) {
            (Element::Float, Element::Integer) => self.on(call, Op::Unary(Unary::Truncate), a)?,
            (Element::Float | Element::Integer, Element::Bool) => self.on(call, Op::Unary(Unary::ToBool), a)?,
            (Element::Float | Element::Integer | Element::Bool, _) => a,
        };
        Ok(Value { element: to, ..result })
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
