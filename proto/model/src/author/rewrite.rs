//! Which graph has a feature for each input and a head for each output?
//!
//! Three changes, each exact: weights that an exporter put into a file beside the graph come into it; an input that
//! holds several features side by side is joined from them; an output is cut into its heads and named after them. A
//! head whose output ends in a sigmoid takes what goes into it ([`logits`](super::logits)), because a bundle's raw output
//! is a logit.
//!
//! A file that needs no change is left as it is, byte by byte.

use super::Problem;
use super::draft::{Draft, Output, Packed};
use super::logits::{self, Exported, Found};
use crate::limits::FILE_BYTES_MAX;
use crate::onnx::wire::{
    Attribute, Dimension, GraphProto, Model, NodeProto, TensorProto, TensorShape, TensorType, TypeProto, ValueInfo,
    element,
};
use crate::schema::{FeatureKind, HeadKind, Schema};
use prost::Message;

/// A graph that was changed.
pub(super) struct Rewritten {
    pub model: Model,
    pub bytes: Vec<u8>,
    /// How the heads were put out.
    pub exported: Exported,
}

/// Decodes a file and brings the weights beside it into it.
pub(super) fn load(bytes: &[u8], beside: &dyn Fn(&str) -> Option<Vec<u8>>) -> Result<(Model, bool), Vec<Problem>> {
    let wrong = |what: String, fix: &str| vec![Problem::new(what, fix)];
    let mut model = Model::decode(bytes)
        .map_err(|e| wrong(format!("the ranker is not an ONNX file: {e}"), "give the file that the exporter wrote"))?;
    let Some(graph) = &mut model.graph else {
        return Err(wrong("the ONNX file has no graph".to_owned(), "give the file that the exporter wrote"));
    };
    let mut problems = Vec::new();
    let mut changed = false;
    for tensor in graph.initializer.iter_mut().filter(|t| !t.external_data.is_empty() || t.data_location != 0) {
        match inline(tensor, beside) {
            Ok(()) => changed = true,
            Err(reason) => problems.push(Problem::new(
                format!("the weights {} are in another file: {reason}", tensor.name),
                "keep the .data file beside the .onnx file, or export with external_data=False",
            )),
        }
    }
    if problems.is_empty() { Ok((model, changed)) } else { Err(problems) }
}

/// A pair of strings, as ONNX has them for external data.
#[derive(Clone, PartialEq, prost::Message)]
struct Entry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

fn inline(tensor: &mut TensorProto, beside: &dyn Fn(&str) -> Option<Vec<u8>>) -> Result<(), String> {
    let entries = tensor.external_data.iter().map(|e| Entry::decode(e.as_slice())).collect::<Result<Vec<_>, _>>();
    let entries = entries.map_err(|e| e.to_string())?;
    let value = |key: &str| entries.iter().find(|e| e.key == key).map(|e| e.value.as_str());
    let name = value("location").ok_or("it has no name")?;
    let file = beside(name).ok_or_else(|| format!("{name} is not beside it"))?;
    let number = |key: &str, default: usize| value(key).map_or(Ok(default), |v| v.parse().map_err(|_| "bad offsets"));
    let offset = number("offset", 0)?;
    let length = number("length", file.len().saturating_sub(offset))?;
    let end = offset.checked_add(length).ok_or("bad offsets")?;
    let data = file.get(offset..end).ok_or_else(|| format!("{name} is too short"))?;
    tensor.raw_data = Some(data.to_vec().into());
    tensor.external_data.clear();
    tensor.data_location = 0;
    Ok(())
}

/// The ranker as the bundle has it.
pub(super) fn ranker(
    bytes: &[u8],
    beside: &dyn Fn(&str) -> Option<Vec<u8>>,
    draft: &Draft,
) -> Result<Rewritten, Vec<Problem>> {
    let (mut model, mut changed) = load(bytes, beside)?;
    let mut exported = Exported::default();
    let mut problems = Vec::new();
    if let Some(graph) = &mut model.graph {
        for packed in &draft.packed {
            changed = true;
            if let Err(problem) = unpack(graph, packed, &draft.schema) {
                problems.push(problem);
            }
        }
        for output in &draft.outputs {
            let spec = draft.schema.heads.iter().find(|h| h.name == output.head);
            match name_head(graph, output, spec.map_or(HeadKind::Value, |h| h.kind), &mut exported) {
                Ok(is_changed) => changed |= is_changed,
                Err(problem) => problems.push(problem),
            }
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let bytes = if changed { model.encode_to_vec() } else { bytes.to_vec() };
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let what = format!("the graph has {} bytes, {FILE_BYTES_MAX} are possible", bytes.len());
        return Err(vec![Problem::new(what, "store its tables in float16: weights of a bundle may be halves")]);
    }
    Ok(Rewritten { model, bytes, exported })
}

fn node(op: &str, inputs: Vec<String>, output: &str, attribute: Option<(&str, i64)>) -> NodeProto {
    NodeProto {
        input: inputs,
        output: vec![output.to_owned()],
        name: format!("{op} of {output}"),
        op_type: op.to_owned(),
        attribute: attribute
            .map(|(name, i)| Attribute { name: name.to_owned(), i, r#type: 2, ..Attribute::default() })
            .into_iter()
            .collect(),
        domain: String::new(),
    }
}

fn port(name: &str, elem_type: i32, width: usize) -> ValueInfo {
    let dim = vec![
        Dimension { dim_value: None, dim_param: Some("batch".to_owned()) },
        Dimension { dim_value: Some(width as i64), dim_param: None },
    ];
    let tensor_type = Some(TensorType { elem_type, shape: Some(TensorShape { dim }) });
    ValueInfo { name: name.to_owned(), r#type: Some(TypeProto { tensor_type }) }
}

/// Replaces an input by the features that lie side by side in it.
fn unpack(graph: &mut GraphProto, packed: &Packed, schema: &Schema) -> Result<(), Problem> {
    let Some(at) = graph.input.iter().position(|i| i.name == packed.name) else {
        let names = graph.input.iter().map(|i| i.name.as_str());
        let meant = super::nearest::meant(&packed.name, names);
        return Err(Problem::new(format!("the graph has no input {}{meant}", packed.name), "mend [[input]]"));
    };
    let of = graph.input.remove(at);
    let of_type = of.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
    let floats = of_type.is_some_and(|t| t.elem_type == element::FLOAT);
    let mut width = 0;
    let (mut nodes, mut parts) = (Vec::new(), Vec::new());
    for name in &packed.features {
        let spec = schema.user.iter().chain(&schema.item).find(|s| s.name == *name);
        let cross = schema.cross.iter().any(|c| c.name == *name);
        let (integer, own) = match spec {
            Some(spec) => (!matches!(spec.kind, FeatureKind::Dense { .. }), spec.width()),
            None if cross => (false, 1),
            None => {
                let known = schema.user.iter().chain(&schema.item).map(|s| s.name.as_str());
                let meant = super::nearest::meant(name, known.chain(schema.cross.iter().map(|c| c.name.as_str())));
                let what = format!("input {} names the feature {name}, which the schema does not have{meant}", of.name);
                return Err(Problem::new(what, "mend [[input]] or add the feature"));
            }
        };
        width += own;
        graph.input.push(port(name, if integer { element::INT64 } else { element::FLOAT }, own));
        if integer == floats {
            let cast = format!("{name} of {}", of.name);
            let to = if floats { element::FLOAT } else { element::INT64 };
            nodes.push(node("Cast", vec![name.clone()], &cast, Some(("to", i64::from(to)))));
            parts.push(cast);
        } else {
            parts.push(name.clone());
        }
    }
    let dims = of_type.and_then(|t| t.shape.as_ref()).map_or(&[][..], |s| &s.dim);
    let found = dims.get(1).and_then(|d| d.dim_value);
    if dims.len() != 2 || found != Some(width as i64) {
        let what =
            format!("input {} is [batch, {}], its features are {width} wide together", of.name, found.unwrap_or(0));
        return Err(Problem::new(what, "list its features in their order, each once for each of its columns"));
    }
    nodes.push(node("Concat", parts, &of.name, Some(("axis", 1))));
    graph.node.splice(0..0, nodes);
    Ok(())
}

/// Gives a head its output; true if something changed.
fn name_head(graph: &mut GraphProto, of: &Output, kind: HeadKind, exported: &mut Exported) -> Result<bool, Problem> {
    if graph.output.iter().all(|o| o.name != of.name) {
        // Told by the check of the ports.
        return Ok(false);
    }
    let found = match kind {
        HeadKind::Probability => logits::behind(graph, &of.name),
        HeadKind::Value => Found::AsItIs,
    };
    let source = match found {
        Found::Logits(name) => {
            exported.probabilities.push(of.head.clone());
            name
        }
        Found::Probability(why) => {
            return Err(Problem::new(
                format!("head {}: its output {} is a probability and has no logit of its own: {why}", of.head, of.name),
                "export each head as an output of its own that is a logit, what goes into the last sigmoid; a product of \
                 probabilities is two heads, a click and a conversion_given_click",
            ));
        }
        Found::AsItIs => {
            if kind == HeadKind::Probability {
                exported.as_they_come.push(of.head.clone());
            }
            if of.column.is_none() && of.name == of.head {
                return Ok(false);
            }
            of.name.clone()
        }
    };
    let mut target = of.head.clone();
    if of.name == of.head {
        // The sigmoid's result keeps its name for nobody.
        target = format!("{} as a logit", of.head);
    }
    match of.column {
        None => graph.node.push(node("Identity", vec![source], &target, None)),
        Some(column) => {
            let at = format!("column of {target}");
            graph.initializer.push(TensorProto {
                name: at.clone(),
                dims: vec![1],
                data_type: element::INT64,
                int64_data: vec![column],
                ..TensorProto::default()
            });
            graph.node.push(node("Gather", vec![source, at], &target, Some(("axis", 1))));
        }
    }
    if target == of.head {
        graph.output.push(ValueInfo { name: target, r#type: None });
        return Ok(true);
    }
    // The old name goes to the new result.
    let old = format!("{} as exported", of.head);
    for node in &mut graph.node {
        for name in node.input.iter_mut().chain(&mut node.output) {
            if *name == of.name {
                name.clone_from(&old);
            } else if *name == target {
                name.clone_from(&of.head);
            }
        }
    }
    Ok(true)
}
