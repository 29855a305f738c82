//! Which initialisers of a file are tables that can stay in it?
//!
//! Large matrices in raw form that nothing reads but lookups of whole rows. Everything else becomes f32 in memory.

use super::tensor;
use super::wire::{GraphProto, NodeProto, TensorProto, element};
use crate::error::GraphError;
use crate::graph::{Stored, TABLE_BYTES_MIN, Table};
use std::collections::BTreeSet;

/// The names of the tables.
pub(super) fn names(graph: &GraphProto) -> BTreeSet<&str> {
    let large = graph.initializer.iter().filter(|t| is_large(t)).map(|t| t.name.as_str());
    let mut names: BTreeSet<&str> = large.collect();
    for node in &graph.node {
        for (place, input) in node.input.iter().enumerate() {
            if !(place == 0 && looks_up_rows(node)) {
                names.remove(input.as_str());
            }
        }
    }
    for port in graph.output.iter().chain(&graph.input) {
        names.remove(port.name.as_str());
    }
    names
}

fn is_large(tensor: &TensorProto) -> bool {
    let size = tensor.raw_data.as_ref().map_or(0, prost::bytes::Bytes::len);
    tensor.dims.len() == 2 && size >= TABLE_BYTES_MIN && stored(tensor).is_some()
}

fn stored(tensor: &TensorProto) -> Option<Stored> {
    match tensor.data_type {
        element::FLOAT => Some(Stored::F32),
        element::FLOAT16 => Some(Stored::F16),
        element::BFLOAT16 => Some(Stored::Bf16),
        element::INT8 => Some(Stored::I8),
        _ => None,
    }
}

fn looks_up_rows(node: &NodeProto) -> bool {
    let along_rows = |a: &super::wire::Attribute| a.name != "axis" || a.i == 0;
    node.op_type == "Gather" && matches!(node.domain.as_str(), "" | "ai.onnx") && node.attribute.iter().all(along_rows)
}

/// One of them, with its dimensions.
pub(super) fn read(tensor: &TensorProto) -> Result<(Table, Vec<usize>, Stored), GraphError> {
    let make = || {
        let dims = tensor::dimensions(tensor)?;
        let (Some(stored), Some(bytes)) = (stored(tensor), &tensor.raw_data) else {
            return Err("is not a table".to_owned());
        };
        Ok((Table::new(bytes.clone(), stored, &dims)?, dims, stored))
    };
    make().map_err(|reason| GraphError::Initialiser { name: tensor.name.clone(), reason })
}
