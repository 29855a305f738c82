//! What does one node of an ONNX file say, apart from what it means?
//!
//! Attributes by name and type, and inputs by position, of which trailing and empty ones are absent.

use super::sizes::Sizes;
use super::tensor::Array;
use super::value::Value;
use super::wire::NodeProto;
use crate::error::GraphError;
use crate::limits::{ATTRIBUTES_MAX, INTEGER_MAX, PORTS_MAX};

/// What a name stands for while a graph is read.
#[derive(Clone, Debug)]
pub(crate) enum Named {
    /// A tensor of the graph.
    Tensor(Value),
    /// Integers that have not been used as a tensor yet: most are axes and shapes.
    Integers(Array),
    /// Integers of which one depends on the number of rows of the batch: part of a shape.
    Sizes(Sizes),
}

/// What a tensor holds. All of them are carried as f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    Float,
    Integer,
    Bool,
}

/// A node with its inputs found.
pub(crate) struct Call<'a> {
    pub proto: &'a NodeProto,
    pub inputs: Vec<Option<Named>>,
}

impl<'a> Call<'a> {
    pub fn new(proto: &'a NodeProto, mut find: impl FnMut(&str) -> Option<Named>) -> Result<Self, GraphError> {
        let limit = |what, found: usize, limit: usize| {
            if found <= limit {
                Ok(())
            } else {
                Err(GraphError::Limit { what, found: found as u64, limit: limit as u64 })
            }
        };
        limit("inputs of a node", proto.input.len(), PORTS_MAX)?;
        limit("outputs of a node", proto.output.len(), PORTS_MAX)?;
        limit("attributes of a node", proto.attribute.len(), ATTRIBUTES_MAX)?;
        let mut inputs = Vec::with_capacity(proto.input.len());
        for name in &proto.input {
            if name.is_empty() {
                inputs.push(None);
                continue;
            }
            let missing = || GraphError::Tensor { name: name.clone(), reason: "is used before it is made".to_owned() };
            inputs.push(Some(find(name).ok_or_else(missing)?));
        }
        Ok(Self { proto, inputs })
    }

    /// How people find the node.
    pub fn name(&self) -> &str {
        let output = self.proto.output.first().map_or("", String::as_str);
        if self.proto.name.is_empty() { output } else { &self.proto.name }
    }

    /// A refusal.
    pub fn refuse<T>(&self, reason: impl Into<String>) -> Result<T, GraphError> {
        Err(self.refusal(reason))
    }

    pub fn refusal(&self, reason: impl Into<String>) -> GraphError {
        GraphError::Operator { op: self.proto.op_type.clone(), node: self.name().to_owned(), reason: reason.into() }
    }

    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.proto.attribute.iter().find(|a| a.name == name).map_or(default, |a| a.i)
    }

    pub fn float(&self, name: &str, default: f32) -> Result<f32, GraphError> {
        let value = self.proto.attribute.iter().find(|a| a.name == name).map_or(default, |a| a.f);
        if value.is_finite() { Ok(value) } else { self.refuse(format!("{name} is not finite")) }
    }

    pub fn text(&self, name: &str) -> Option<&[u8]> {
        self.proto.attribute.iter().find(|a| a.name == name).map(|a| a.s.as_slice())
    }

    /// Integers from an attribute.
    pub fn attribute_ints(&self, name: &str) -> Option<Vec<i64>> {
        self.proto.attribute.iter().find(|a| a.name == name).map(|a| a.ints.clone())
    }
}

/// Integers as the f32 that carry them.
pub(crate) fn carried(values: &[i64]) -> Result<Vec<f32>, String> {
    let fits = |v: &i64| (-INTEGER_MAX..=INTEGER_MAX).contains(v);
    match values.iter().find(|v| !fits(v)) {
        Some(v) => Err(format!("the integer {v} is beyond 2^24")),
        None => Ok(values.iter().map(|v| *v as f32).collect()),
    }
}
