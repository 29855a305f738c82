//! Which graph does an ONNX file describe?
//!
//! One pass over the nodes in the file's order, which ONNX requires to be topological. Each operator becomes one or
//! a few operations of [`crate::graph`]; constants are folded on the way. Whatever is outside
//! `docs/model-operators.md` is refused by operator and node name, never approximated.
//!
//! A float input is a tensor `[batch, ...]` with a first dimension that has a name or nothing in it, an integer
//! input likewise. All tensors are carried as f32; integers are bounded by 2^24, where f32 is exact. Integers that
//! exporters compute from shapes are evaluated here, with the rows of the batch as the one unknown ([`sizes`]).

mod arithmetic;
mod composed;
mod einsum;
mod layout;
mod node;
mod refusal;
mod sizes;
mod tables;
mod tensor;
#[cfg(test)]
pub(crate) mod testing;
mod value;
pub(crate) mod wire;

pub(crate) use node::Element;

use crate::error::GraphError;
use crate::graph::{Graph, Op, Shape, Stored, TensorId};
use crate::limits::{CONSTANT_VALUES_MAX, INITIALISERS_MAX, NODES_MAX, PORTS_MAX, RANK_MAX};
use node::{Call, Named, carried};
use prost::Message;
use prost::bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use tensor::{Array, Numbers};
use value::{Place, Value};
use wire::{GraphProto, Model, NodeProto, ValueInfo, element};

/// Operator sets that we read: before 13 `Softmax` and `Squeeze` mean something else.
const OPSETS: std::ops::RangeInclusive<i64> = 13..=24;

/// A graph with the names and the element types of its inputs.
#[derive(Debug)]
pub(crate) struct Read {
    pub graph: Graph,
    pub inputs: Vec<(String, Element)>,
}

/// Reads a file. Large tables stay in its bytes, which the graph then keeps alive.
pub(crate) fn read(bytes: Bytes) -> Result<Read, GraphError> {
    Reader::default().read(&graph_of(bytes)?)
}

/// Every reason why a file is refused, node by node: what a refused node makes is unknown, and what needs it is
/// passed over, so that each reason stands on its own. Empty when [`read`] succeeds.
pub(crate) fn refusals(bytes: Bytes) -> Vec<GraphError> {
    let proto = match graph_of(bytes) {
        Ok(proto) => proto,
        Err(error) => return vec![error],
    };
    Reader::default().refusals(&proto)
}

/// The graph of a file, within its limits.
fn graph_of(bytes: Bytes) -> Result<GraphProto, GraphError> {
    let model = Model::decode(bytes).map_err(|e| GraphError::Decode(e.to_string()))?;
    let Some(proto) = model.graph else { return Err(GraphError::Decode("there is no graph".to_owned())) };
    let decode = |reason: &str| Err(GraphError::Decode(reason.to_owned()));
    if !model.functions.is_empty() || !proto.sparse_initializer.is_empty() {
        return decode("model-local functions and sparse initialisers are not supported");
    }
    match model.opset_import.iter().find(|o| o.domain.is_empty() || o.domain == "ai.onnx") {
        Some(set) if OPSETS.contains(&set.version) => {}
        Some(set) => return decode(&format!("operator set {}, {OPSETS:?} are read", set.version)),
        None => return decode("no operator set is imported"),
    }
    limit("nodes", proto.node.len(), NODES_MAX)?;
    limit("initialisers", proto.initializer.len(), INITIALISERS_MAX)?;
    limit("inputs", proto.input.len(), PORTS_MAX)?;
    limit("outputs", proto.output.len(), PORTS_MAX)?;
    Ok(proto)
}

fn limit(what: &'static str, found: usize, limit: usize) -> Result<(), GraphError> {
    if found <= limit { Ok(()) } else { Err(GraphError::Limit { what, found: found as u64, limit: limit as u64 }) }
}

#[derive(Default)]
pub(crate) struct Reader {
    graph: Graph,
    names: BTreeMap<String, Named>,
    inputs: Vec<(String, Element)>,
    /// Values of constants that nodes made: each is bounded, and so is their sum.
    folded: usize,
}

impl Reader {
    fn read(mut self, proto: &GraphProto) -> Result<Read, GraphError> {
        self.sources(proto)?;
        for node in &proto.node {
            self.take(node)?;
        }
        self.results(proto)?;
        Ok(Read { graph: self.graph, inputs: self.inputs })
    }

    fn refusals(mut self, proto: &GraphProto) -> Vec<GraphError> {
        if let Err(error) = self.sources(proto) {
            return vec![error];
        }
        let (mut refused, mut unknown) = (Vec::new(), BTreeSet::new());
        for node in &proto.node {
            let taken = if node.input.iter().any(|i| unknown.contains(i)) { None } else { Some(self.take(node)) };
            if !matches!(taken, Some(Ok(()))) {
                unknown.extend(node.output.iter().filter(|o| !o.is_empty()).cloned());
            }
            refused.extend(taken.and_then(Result::err));
        }
        if refused.is_empty() {
            refused.extend(self.results(proto).err());
        }
        refused
    }

    /// Initialisers and inputs.
    fn sources(&mut self, proto: &GraphProto) -> Result<(), GraphError> {
        let tables = tables::names(proto);
        for initialiser in &proto.initializer {
            if tables.contains(initialiser.name.as_str()) {
                let (table, dims, stored) = tables::read(initialiser)?;
                let id = self.graph.table(&initialiser.name, dims, table.into());
                let element = if stored == Stored::I8 { Element::Integer } else { Element::Float };
                self.name(&initialiser.name, Named::Tensor(Value::plain(id, element)))?;
                continue;
            }
            let array = tensor::array(initialiser)?;
            self.array(&initialiser.name, array)?;
        }
        for input in proto.input.iter().filter(|i| !proto.initializer.iter().any(|t| t.name == i.name)) {
            self.input(input)?;
        }
        Ok(())
    }

    fn take(&mut self, node: &NodeProto) -> Result<(), GraphError> {
        let call = Call::new(node, |name| self.names.get(name).cloned())?;
        if !matches!(node.domain.as_str(), "" | "ai.onnx") {
            return call.refuse(format!("the domain {} is not known", node.domain));
        }
        let results = self.node(&call)?;
        for (name, result) in node.output.iter().zip(results).filter(|(n, _)| !n.is_empty()) {
            self.name(name, result)?;
        }
        Ok(())
    }

    fn results(&mut self, proto: &GraphProto) -> Result<(), GraphError> {
        for output in &proto.output {
            let wrong = |reason: &str| GraphError::Port {
                port: "output",
                name: output.name.clone(),
                reason: reason.to_owned(),
            };
            let Some(named) = self.names.get(&output.name).cloned() else { return Err(wrong("nothing makes it")) };
            let value = self.value_of(&named).map_err(|r| wrong(&r))?;
            if self.batched(value) && value.place != Place::FIRST {
                return Err(wrong("the batch is not its first dimension"));
            }
            self.graph.outputs.push((output.name.clone(), value.id));
        }
        Ok(())
    }

    fn name(&mut self, name: &str, named: Named) -> Result<(), GraphError> {
        match self.names.insert(name.to_owned(), named) {
            None => Ok(()),
            Some(_) => Err(GraphError::Tensor { name: name.to_owned(), reason: "is made twice".to_owned() }),
        }
    }

    fn array(&mut self, name: &str, array: Array) -> Result<(), GraphError> {
        let named = self.named(name, array);
        self.name(name, named)
    }

    fn named(&mut self, name: &str, array: Array) -> Named {
        match array.numbers {
            Numbers::Floats(values) => {
                Named::Tensor(Value::plain(self.graph.constant(name, array.dims, values.into()), Element::Float))
            }
            Numbers::Integers(_) => Named::Integers(array),
        }
    }

    fn input(&mut self, proto: &ValueInfo) -> Result<(), GraphError> {
        let wrong = |reason: String| GraphError::Port { port: "input", name: proto.name.clone(), reason };
        let tensor = proto.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
        let tensor = tensor.ok_or_else(|| wrong("is not a tensor".to_owned()))?;
        let element = match tensor.elem_type {
            element::FLOAT => Element::Float,
            element::INT64 | element::INT32 => Element::Integer,
            element::DOUBLE => return Err(wrong("holds doubles: export with float32 inputs".to_owned())),
            other => return Err(wrong(format!("element type {other}, float, int64 and int32 are possible"))),
        };
        let dims = tensor.shape.as_ref().map_or(&[][..], |s| &s.dim);
        let Some((batch, row)) = dims.split_first() else { return Err(wrong("has no dimensions".to_owned())) };
        if batch.dim_value.is_some_and(|v| v != 0) {
            let fix = format!(
                "the first dimension is a number, and the batch has a name: export with dynamic_axes={{{:?}: {{0: 'batch'}}}} \
                 (torch, dynamo=False), dynamic_shapes (torch, dynamo=True) or a symbolic dimension (jax)",
                proto.name
            );
            return Err(wrong(fix));
        }
        if row.len() >= RANK_MAX {
            return Err(wrong(format!("{} dimensions, {RANK_MAX} are possible", dims.len())));
        }
        let mut values = 1usize;
        let mut shape = Vec::with_capacity(row.len());
        for dim in row {
            let dim = dim.dim_value.and_then(|v| usize::try_from(v).ok()).filter(|v| *v > 0);
            let dim = dim.ok_or_else(|| wrong("a dimension after the first has no number".to_owned()))?;
            values = values.saturating_mul(dim);
            shape.push(dim);
        }
        if values > crate::limits::ROW_VALUES_MAX {
            return Err(wrong(format!("{values} values a row")));
        }
        let id = self.graph.input(&proto.name, Shape { batch: true, dims: shape });
        self.inputs.push((proto.name.clone(), element));
        self.name(&proto.name, Named::Tensor(Value::plain(id, element)))
    }

    /// A name as a tensor; integers become one when they are first used so.
    fn value_of(&mut self, named: &Named) -> Result<Value, String> {
        match named {
            Named::Tensor(value) => Ok(*value),
            Named::Integers(Array { dims, numbers: Numbers::Integers(values) }) => {
                let values = carried(values)?;
                Ok(Value::plain(self.graph.constant("", dims.clone(), values.into()), Element::Integer))
            }
            Named::Integers(_) => Err("is no integer".to_owned()),
            Named::Sizes(_) => {
                Err("depends on the number of rows of the batch, and may only be part of a shape".to_owned())
            }
        }
    }

    /// Input `i` of a node as a tensor.
    fn value(&mut self, call: &Call<'_>, i: usize) -> Result<Value, GraphError> {
        match call.inputs.get(i) {
            Some(Some(named)) => self.value_of(named).map_err(|r| call.refusal(format!("input {i}: {r}"))),
            Some(None) | None => call.refuse(format!("input {i} is missing")),
        }
    }

    fn optional(&mut self, call: &Call<'_>, i: usize) -> Result<Option<Value>, GraphError> {
        match call.inputs.get(i) {
            Some(Some(_)) => self.value(call, i).map(Some),
            Some(None) | None => Ok(None),
        }
    }

    /// All inputs as tensors; none may be left out.
    fn all_values(&mut self, call: &Call<'_>) -> Result<Vec<Value>, GraphError> {
        (0..call.inputs.len()).map(|i| self.value(call, i)).collect()
    }

    /// A number as a constant.
    fn number(&mut self, x: f32) -> Value {
        Value::plain(self.graph.constant("", vec![], [x].into()), Element::Float)
    }

    /// The single number that input `i` is.
    fn scalar(&mut self, call: &Call<'_>, i: usize) -> Result<Option<f32>, GraphError> {
        let Some(value) = self.optional(call, i)? else { return Ok(None) };
        match self.graph.values(value.id).map(|v| v.as_ref()) {
            Some([value]) => Ok(Some(*value)),
            Some(_) | None => call.refuse(format!("input {i} is not one constant number")),
        }
    }

    fn push(&mut self, call: &Call<'_>, op: Op, inputs: &[TensorId]) -> Result<TensorId, GraphError> {
        let output = call.proto.output.first().map_or("", String::as_str);
        let before = self.graph.tensors.len();
        // A constant in other dimensions is the same values.
        let is_view = matches!(op, Op::Reshape { .. });
        let id = self.graph.push(op, inputs, output).map_err(|reason| GraphError::Shape {
            node: format!("{} ({})", call.name(), call.proto.op_type),
            reason,
        })?;
        let made = if id >= before && !is_view { self.graph.values(id).map_or(0, |v| v.len()) } else { 0 };
        self.charge(call, made)?;
        Ok(id)
    }

    /// Counts the values of a constant that a node makes.
    fn charge(&mut self, call: &Call<'_>, values: usize) -> Result<(), GraphError> {
        self.folded = self.folded.saturating_add(values);
        if self.folded > CONSTANT_VALUES_MAX {
            return call.refuse(format!("constants of more than {CONSTANT_VALUES_MAX} values come of a small file"));
        }
        Ok(())
    }

    fn node(&mut self, call: &Call<'_>) -> Result<Vec<Named>, GraphError> {
        if let Some(integers) = self.shape_arithmetic(call)? {
            return Ok(vec![integers]);
        }
        if let Some(result) = self.arithmetic(call)? {
            return Ok(vec![Named::Tensor(result)]);
        }
        if let Some(results) = self.layout(call)? {
            return Ok(results);
        }
        call.refuse(refusal::reason(&call.proto.op_type))
    }
}

#[cfg(test)]
mod numbers_tests;
#[cfg(test)]
mod tests;
