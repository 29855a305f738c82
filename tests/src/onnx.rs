//! How does a test change one thing in an ONNX file?
//!
//! The fields of the published schema that the demo's graphs use; the rest is not there in them.

use prost::Message;

/// A file.
#[derive(Clone, PartialEq, Message)]
pub struct Model {
    /// IR version.
    #[prost(int64, tag = "1")]
    pub ir_version: i64,
    /// The graph.
    #[prost(message, optional, tag = "7")]
    pub graph: Option<Graph>,
    /// Operator sets, as they are.
    #[prost(bytes = "vec", repeated, tag = "8")]
    pub opset_import: Vec<Vec<u8>>,
}

/// A graph.
#[derive(Clone, PartialEq, Message)]
pub struct Graph {
    /// Nodes.
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<Node>,
    /// Its name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Constants.
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<Tensor>,
    /// Inputs, as they are.
    #[prost(bytes = "vec", repeated, tag = "11")]
    pub input: Vec<Vec<u8>>,
    /// Outputs, as they are.
    #[prost(bytes = "vec", repeated, tag = "12")]
    pub output: Vec<Vec<u8>>,
}

/// A node.
#[derive(Clone, PartialEq, Message)]
pub struct Node {
    /// Inputs.
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    /// Outputs.
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    /// Its name.
    #[prost(string, tag = "3")]
    pub name: String,
    /// The operator.
    #[prost(string, tag = "4")]
    pub op_type: String,
    /// Attributes, as they are.
    #[prost(bytes = "vec", repeated, tag = "5")]
    pub attribute: Vec<Vec<u8>>,
    /// The operator's domain.
    #[prost(string, tag = "7")]
    pub domain: String,
}

/// A constant.
#[derive(Clone, PartialEq, Message)]
pub struct Tensor {
    /// Its shape.
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub dims: Vec<i64>,
    /// 1 = float, 7 = int64.
    #[prost(int32, tag = "2")]
    pub data_type: i32,
    /// Values.
    #[prost(float, repeated, tag = "4")]
    pub float_data: Vec<f32>,
    /// Values.
    #[prost(int64, repeated, tag = "7")]
    pub int64_data: Vec<i64>,
    /// Its name.
    #[prost(string, tag = "8")]
    pub name: String,
    /// Values, little-endian.
    #[prost(bytes = "vec", optional, tag = "9")]
    pub raw_data: Option<Vec<u8>>,
    /// Where the values are instead.
    #[prost(bytes = "vec", repeated, tag = "13")]
    pub external_data: Vec<Vec<u8>>,
    /// 1 = elsewhere.
    #[prost(int32, tag = "14")]
    pub data_location: i32,
}

/// Reads, changes and writes a graph.
///
/// # Panics
/// When the bytes are no model.
pub fn change(bytes: &mut Vec<u8>, change: impl FnOnce(&mut Graph)) {
    let mut model = Model::decode(&bytes[..]).expect("an ONNX file");
    change(model.graph.as_mut().expect("a graph"));
    *bytes = model.encode_to_vec();
}

/// The largest float constant: a table or the widest layer.
///
/// # Panics
/// When there is none.
pub fn largest(graph: &mut Graph) -> &mut Tensor {
    let floats = graph.initializer.iter_mut().filter(|t| t.data_type == 1);
    floats.max_by_key(|t| t.dims.iter().product::<i64>()).expect("a float constant")
}

/// Puts a value into the middle of a constant.
///
/// # Panics
/// When it has no values.
pub fn plant(tensor: &mut Tensor, value: f32) {
    if let Some(raw) = &mut tensor.raw_data {
        let at = raw.len() / 8 * 4;
        raw[at..at + 4].copy_from_slice(&value.to_le_bytes());
    } else {
        let at = tensor.float_data.len() / 2;
        tensor.float_data[at] = value;
    }
}
