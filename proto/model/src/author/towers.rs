//! What finds the candidates when a team has a ranker only?
//!
//! Retrieval compares a query of the user tower with a vector of the item tower. Without towers all items are alike
//! to it ([`Towers::Constant`]): a shard answers with as many eligible items as it is asked for, whichever they are,
//! and the ranker orders those. That is right for a catalogue where no request has more eligible items than are
//! ranked, and a start for any other. The made towers say so in a warning.

use super::draft::Draft;
use super::{ITEM_TOWER, Problem, USER_TOWER, Work, rewrite};
use crate::onnx::wire::{
    Attribute, Dimension, GraphProto, Model, NodeProto, OperatorSet, TensorProto, TensorShape, TensorType, TypeProto,
    ValueInfo, element,
};
use crate::schema::{FeatureKind, FeatureSpec};
use prost::Message;

/// Where the towers come from.
#[derive(Clone, Debug)]
pub enum Towers {
    /// Trained ones.
    Given {
        /// ONNX, output `query`.
        user: Vec<u8>,
        /// ONNX, output `vector`.
        item: Vec<u8>,
    },
    /// Made here: every query and every vector is the same.
    Constant,
    /// None was named.
    Missing,
}

/// Adds the towers' files and what is wrong with them.
pub(super) fn add(towers: &Towers, draft: &Draft, beside: &dyn Fn(&str) -> Option<Vec<u8>>, work: &mut Work) {
    let schema = &draft.schema;
    let sides = [(USER_TOWER, "query", &schema.user), (ITEM_TOWER, "vector", &schema.item)];
    match towers {
        Towers::Missing => work.problems.push(Problem::new(
            "there are no towers, which find the candidates that the ranker orders",
            "give --user-tower FILE --item-tower FILE (outputs query and vector), or --towers constant: then retrieval \
             tells no item from another, which is right while a request has no more eligible items than are ranked",
        )),
        Towers::Constant => {
            for (file, output, specs) in sides {
                match specs.first() {
                    Some(spec) => {
                        work.files.insert(file.to_owned(), constant(spec, output, schema.dimension));
                    }
                    None => work.problems.push(Problem::new(
                        format!("the tower with the output {output} has no feature to read"),
                        "name a feature of the user or context and one of the item: a ranker needs both",
                    )),
                }
            }
            work.warnings.push(
                "the towers are constant: retrieval tells no item from another, so that the ranker sees as many \
                 eligible items as are retrieved, whichever they are; recall means nothing until there are trained \
                 towers"
                    .to_owned(),
            );
        }
        Towers::Given { user, item } => {
            for ((file, output, specs), bytes) in sides.into_iter().zip([user, item]) {
                given(file, (output, specs), bytes, beside, work);
            }
        }
    }
}

fn given(
    file: &str,
    (output, specs): (&str, &[FeatureSpec]),
    bytes: &[u8],
    beside: &dyn Fn(&str) -> Option<Vec<u8>>,
    work: &mut Work,
) {
    let (model, changed) = match rewrite::load(bytes, beside) {
        Ok(loaded) => loaded,
        Err(problems) => return work.problems.extend(problems),
    };
    let graph = model.graph.as_ref();
    for input in graph.iter().flat_map(|g| &g.input) {
        let name = input.name.strip_suffix(".weight").unwrap_or(&input.name);
        if specs.iter().any(|s| s.name == name) {
            work.read.insert(name.to_owned());
        } else {
            let meant = super::nearest::meant(name, specs.iter().map(|s| s.name.as_str()));
            work.problems.push(Problem::new(
                format!("input {} of {file} is no feature of its side{meant}", input.name),
                "a tower reads the features of the user and the context, or those of the item",
            ));
        }
    }
    if !graph.is_some_and(|g| g.output.iter().any(|o| o.name == output)) {
        work.problems.push(Problem::new(
            format!("{file} has no output {output}"),
            "name it at the export: output_names=[\"query\"] for the user, [\"vector\"] for the item",
        ));
    }
    let bytes = if changed { model.encode_to_vec() } else { bytes.to_vec() };
    work.files.insert(file.to_owned(), bytes);
}

/// `[1, 0, 0, ...]` for every row: zero times a feature, plus it.
fn constant(spec: &FeatureSpec, output: &str, dimension: usize) -> Vec<u8> {
    let is_dense = matches!(spec.kind, FeatureKind::Dense { .. });
    let elem_type = if is_dense { element::FLOAT } else { element::INT64 };
    let dim = vec![
        Dimension { dim_value: None, dim_param: Some("batch".to_owned()) },
        Dimension { dim_value: Some(spec.width() as i64), dim_param: None },
    ];
    let tensor_type = Some(TensorType { elem_type, shape: Some(TensorShape { dim }) });
    let node = |op: &str, inputs: &[&str], output: &str, attribute: Option<i64>| NodeProto {
        input: inputs.iter().map(|s| (*s).to_owned()).collect(),
        output: vec![output.to_owned()],
        name: format!("{op} of {output}"),
        op_type: op.to_owned(),
        attribute: attribute
            .map(|to| Attribute { name: "to".to_owned(), i: to, r#type: 2, ..Attribute::default() })
            .into_iter()
            .collect(),
        domain: String::new(),
    };
    let floats = |name: &str, dims: &[usize], values: Vec<f32>| TensorProto {
        name: name.to_owned(),
        dims: dims.iter().map(|d| *d as i64).collect(),
        data_type: element::FLOAT,
        float_data: values,
        ..TensorProto::default()
    };
    let mut first = vec![0.0; dimension];
    if let Some(x) = first.first_mut() {
        *x = 1.0;
    }
    let graph = GraphProto {
        name: "constant".to_owned(),
        node: vec![
            node("Cast", &[&spec.name], "number of the feature", Some(i64::from(element::FLOAT))),
            node("MatMul", &["number of the feature", "zeros"], "nothing", None),
            node("Add", &["nothing", "first"], output, None),
        ],
        initializer: vec![
            floats("zeros", &[spec.width(), dimension], vec![0.0; spec.width() * dimension]),
            floats("first", &[dimension], first),
        ],
        input: vec![ValueInfo { name: spec.name.clone(), r#type: Some(TypeProto { tensor_type }) }],
        output: vec![ValueInfo { name: output.to_owned(), r#type: None }],
        sparse_initializer: vec![],
    };
    let opset_import = vec![OperatorSet { domain: String::new(), version: 17 }];
    Model { ir_version: 8, graph: Some(graph), opset_import, functions: vec![] }.encode_to_vec()
}
