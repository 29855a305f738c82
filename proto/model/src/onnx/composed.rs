//! What do operators become that are sentences of simpler ones?

use super::Reader;
use super::node::{Call, Element};
use super::value::Value;
use crate::error::GraphError;
use crate::graph::{Binary, Op, Reduction, Unary};

/// `sqrt(2 / pi)`, of the approximation of Gelu by `tanh`.
const GELU_TANH: f32 = 0.797_884_6;
/// The cubic term of the same (Hendrycks and Gimpel 2016).
const GELU_CUBIC: f32 = 0.044_715;

impl Reader {
    /// The result, or `None` when the operator is none of these.
    pub(super) fn composed(&mut self, call: &Call<'_>) -> Result<Option<Value>, GraphError> {
        let name = call.proto.op_type.as_str();
        if let "PRelu" = name {
            return self.prelu(call).map(Some);
        }
        if let "RMSNormalization" = name {
            return self.rms_normalisation(call).map(Some);
        }
        if !matches!(
            name,
            "HardSigmoid"
                | "HardSwish"
                | "Gelu"
                | "Swish"
                | "Mish"
                | "Softsign"
                | "Selu"
                | "Erfc"
                | "ReduceL1"
                | "ReduceLogSumExp"
        ) {
            return Ok(None);
        }
        let a = self.value(call, 0)?;
        Ok(Some(match name {
            "HardSigmoid" => {
                let (alpha, beta) = (call.float("alpha", 0.2)?, call.float("beta", 0.5)?);
                self.hard_sigmoid(call, a, alpha, beta)?
            }
            "HardSwish" => {
                let gate = self.hard_sigmoid(call, a, 1.0 / 6.0, 0.5)?;
                self.with(call, Binary::Mul, a, gate)?
            }
            "Swish" => {
                let alpha = call.float("alpha", 1.0)?;
                let scaled = self.scaled(call, a, alpha)?;
                let gate = self.on(call, Op::Unary(Unary::Sigmoid), scaled)?;
                self.with(call, Binary::Mul, a, gate)?
            }
            "Mish" => {
                let soft = self.on(call, Op::Unary(Unary::Softplus), a)?;
                let gate = self.on(call, Op::Unary(Unary::Tanh), soft)?;
                self.with(call, Binary::Mul, a, gate)?
            }
            "Softsign" => {
                let size = self.on(call, Op::Unary(Unary::Abs), a)?;
                let one = self.number(1.0);
                let size = self.with(call, Binary::Add, size, one)?;
                self.with(call, Binary::Div, a, size)?
            }
            "Selu" => {
                // Defaults of the ONNX specification.
                let (alpha, gamma) = (call.float("alpha", 1.673_263_2)?, call.float("gamma", 1.050_701)?);
                let elu = self.on(call, Op::Unary(Unary::Elu(alpha)), a)?;
                self.scaled(call, elu, gamma)?
            }
            "Erfc" => {
                let erf = self.on(call, Op::Unary(Unary::Erf), a)?;
                let one = self.number(1.0);
                Value { element: Element::Float, ..self.with(call, Binary::Sub, one, erf)? }
            }
            "ReduceL1" | "ReduceLogSumExp" => self.reduce_of(call, name, a)?,
            _ => self.gelu(call, a)?,
        }))
    }

    fn hard_sigmoid(&mut self, call: &Call<'_>, a: Value, alpha: f32, beta: f32) -> Result<Value, GraphError> {
        let scaled = self.scaled(call, a, alpha)?;
        let beta = self.number(beta);
        let moved = self.with(call, Binary::Add, scaled, beta)?;
        self.on(call, Op::Unary(Unary::Clip(0.0, 1.0)), moved)
    }

    fn gelu(&mut self, call: &Call<'_>, a: Value) -> Result<Value, GraphError> {
        let half = self.number(0.5);
        let inner = match call.text("approximate") {
            None | Some(b"none" | b"") => {
                let scaled = self.scaled(call, a, std::f32::consts::FRAC_1_SQRT_2)?;
                self.on(call, Op::Unary(Unary::Erf), scaled)?
            }
            Some(b"tanh") => {
                let square = self.with(call, Binary::Mul, a, a)?;
                let cube = self.with(call, Binary::Mul, square, a)?;
                let cube = self.scaled(call, cube, GELU_CUBIC)?;
                let sum = self.with(call, Binary::Add, a, cube)?;
                let scaled = self.scaled(call, sum, GELU_TANH)?;
                self.on(call, Op::Unary(Unary::Tanh), scaled)?
            }
            Some(_) => return call.refuse("the approximation is not known"),
        };
        let halved = self.with(call, Binary::Mul, inner, half)?;
        let gate = self.with(call, Binary::Add, halved, half)?;
        self.with(call, Binary::Mul, a, gate)
    }

    fn prelu(&mut self, call: &Call<'_>) -> Result<Value, GraphError> {
        let (a, slope, zero) = (self.value(call, 0)?, self.value(call, 1)?, self.number(0.0));
        let above = self.with(call, Binary::Max, a, zero)?;
        let below = self.with(call, Binary::Min, a, zero)?;
        let below = self.with(call, Binary::Mul, below, slope)?;
        self.with(call, Binary::Add, above, below)
    }

    /// `x / sqrt(mean(x^2) + epsilon) * scale`, over the dimensions from `axis` on.
    fn rms_normalisation(&mut self, call: &Call<'_>) -> Result<Value, GraphError> {
        let (a, scale) = (self.value(call, 0)?, self.value(call, 1)?);
        let rank = self.rank(a);
        let from = Self::file_axis(call, rank, call.int("axis", -1))?;
        let epsilon = call.float("epsilon", 1e-5)?;
        let epsilon = self.number(epsilon);
        let squares = self.with(call, Binary::Mul, a, a)?;
        let mean = self.reduced(call, squares, Reduction::Mean, (from..rank).collect(), true)?;
        let mean = self.with(call, Binary::Add, mean, epsilon)?;
        let root = self.on(call, Op::Unary(Unary::Sqrt), mean)?;
        let scaled = self.with(call, Binary::Div, a, root)?;
        self.with(call, Binary::Mul, scaled, scale)
    }

    fn reduce_of(&mut self, call: &Call<'_>, name: &str, a: Value) -> Result<Value, GraphError> {
        let Some(axes) = self.ints(call, 1, "axes")? else { return call.refuse("has no axes") };
        let rank = self.rank(a);
        let axes = axes.iter().map(|x| Self::file_axis(call, rank, *x)).collect::<Result<Vec<_>, _>>()?;
        let keep = call.int("keepdims", 1) != 0;
        if name == "ReduceL1" {
            let sizes = self.on(call, Op::Unary(Unary::Abs), a)?;
            return self.reduced(call, sizes, Reduction::Sum, axes, keep);
        }
        // The largest is taken out, so that no exponential overflows.
        let largest = self.reduced(call, a, Reduction::Max, axes.clone(), true)?;
        let rest = self.with(call, Binary::Sub, a, largest)?;
        let powers = self.on(call, Op::Unary(Unary::Exp), rest)?;
        let sum = self.reduced(call, powers, Reduction::Sum, axes.clone(), keep)?;
        let log = self.on(call, Op::Unary(Unary::Log), sum)?;
        let largest = self.reduced(call, largest, Reduction::Max, axes, keep)?;
        self.with(call, Binary::Add, log, largest)
    }
}
