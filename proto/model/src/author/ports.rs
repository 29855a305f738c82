//! Do the graph's inputs and outputs and the schema's features and heads fit each other?

use super::draft::Draft;
use super::nearest::meant;
use super::{Problem, RANKER, Work, rewrite};
use crate::bundle::tables;
use crate::onnx::wire::{GraphProto, ValueInfo, element};
use crate::onnx::{self, Read};
use crate::schema::{FeatureKind, FeatureSpec, Schema};

/// Adds the ranker's file and what is wrong with it.
pub(super) fn ranker(bytes: &[u8], beside: &dyn Fn(&str) -> Option<Vec<u8>>, draft: &Draft, work: &mut Work) {
    let rewritten = match rewrite::ranker(bytes, beside, draft) {
        Ok(rewritten) => rewritten,
        Err(problems) => return work.problems.extend(problems),
    };
    if let Some(graph) = &rewritten.model.graph {
        inputs(graph, &draft.schema, work);
        outputs(graph, draft, work);
    }
    match onnx::read(rewritten.bytes.clone().into()) {
        Ok(read) => {
            rows_of_tables(&read, &draft.schema, work);
            widths_of_heads(&read, draft, work);
        }
        // What is wrong with an input was said above, with what to do.
        Err(crate::GraphError::Port { port: "input", .. }) if !work.problems.is_empty() => {}
        Err(e) => work.problems.push(Problem::new(
            format!("the ranker: {e}"),
            "change the model where it says so; docs/model-operators.md has the operators and their restrictions",
        )),
    }
    work.exported = rewritten.exported;
    work.files.insert(RANKER.to_owned(), rewritten.bytes);
}

/// What an input has to be: its width, and whether it holds rows of a table.
fn wanted(name: &str, schema: &Schema) -> Option<(usize, bool)> {
    let mut all = schema.user.iter().chain(&schema.item);
    if schema.cross.iter().any(|c| c.name == name) {
        return Some((1, false));
    }
    let is_dense = |spec: &FeatureSpec| matches!(spec.kind, FeatureKind::Dense { .. });
    if let Some(spec) = all.clone().find(|s| s.name == name) {
        return Some((spec.width(), !is_dense(spec)));
    }
    let listed = |s: &&FeatureSpec| !is_dense(s) && !matches!(s.kind, FeatureKind::Category { .. });
    let of = name.strip_suffix(".weight")?;
    all.find(|s| s.name == of).filter(listed).map(|s| (s.width(), false))
}

fn names(schema: &Schema) -> impl Iterator<Item = &str> {
    let features = schema.user.iter().chain(&schema.item).map(|s| s.name.as_str());
    features.chain(schema.cross.iter().map(|c| c.name.as_str()))
}

fn inputs(graph: &GraphProto, schema: &Schema, work: &mut Work) {
    for input in graph.input.iter().filter(|i| graph.initializer.iter().all(|t| t.name != i.name)) {
        let name = &input.name;
        let (element, dims) = described(input);
        let Some((width, integer)) = wanted(name, schema) else {
            let free = names(schema).filter(|n| graph.input.iter().all(|i| i.name != *n));
            let several = dims.get(1).copied().flatten().is_some_and(|d| d > 1);
            let fix = if several {
                format!("add [[input]] name = {name:?}, features = [...]: the features in its columns, in order")
            } else {
                "name the input after its feature (input_names=[...] at the export), or add the feature".to_owned()
            };
            work.problems.push(Problem::new(format!("input {name} is no feature{}", meant(name, free)), fix));
            continue;
        };
        work.read
            .insert(name.strip_suffix(".weight").filter(|n| names(schema).any(|x| x == *n)).unwrap_or(name).to_owned());
        if dims.first().copied().flatten().is_some_and(|d| d != 0) {
            work.problems.push(Problem::new(
                format!("input {name} has a batch of {}", dims.first().copied().flatten().unwrap_or(0)),
                format!(
                    "export with dynamic_axes={{{name:?}: {{0: 'batch'}}}} (torch, dynamo=False), dynamic_shapes (torch, \
                     dynamo=True), or a symbolic first dimension (jax)"
                ),
            ));
        }
        let found: Option<Vec<i64>> = dims.get(1..).unwrap_or(&[]).iter().copied().collect();
        let fits = found.as_deref() == Some(&[width as i64]) || (width == 1 && found.as_deref() == Some(&[]));
        if !fits {
            work.problems.push(Problem::new(
                format!("input {name} is [batch, {:?}], its feature is [batch, {width}]", found.unwrap_or_default()),
                "a category or a number is [batch, 1] or [batch], a set or a sequence [batch, max_len]",
            ));
        }
        let right =
            if integer { matches!(element, element::INT64 | element::INT32) } else { element == element::FLOAT };
        if !right {
            let fix = if integer {
                "a category, set or sequence reaches the graph as int64 rows of its table: export with int64 (or make \
                 the feature kind = \"dense\")"
            } else {
                "a number or a weight reaches the graph as float32: export with float32 (or make the feature kind = \
                 \"category\")"
            };
            work.problems.push(Problem::new(format!("input {name} has the element type {}", type_name(element)), fix));
        }
    }
}

/// Element type and dimensions of an input; `None` for a dimension without a number.
fn described(input: &ValueInfo) -> (i32, Vec<Option<i64>>) {
    let of = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
    let dims = of.and_then(|t| t.shape.as_ref()).map_or(&[][..], |s| &s.dim);
    (of.map_or(0, |t| t.elem_type), dims.iter().map(|d| d.dim_value).collect())
}

fn type_name(element: i32) -> String {
    match element {
        element::FLOAT => "float32".to_owned(),
        element::DOUBLE => "float64".to_owned(),
        element::INT64 => "int64".to_owned(),
        element::INT32 => "int32".to_owned(),
        element::BOOL => "bool".to_owned(),
        other => format!("number {other}"),
    }
}

fn outputs(graph: &GraphProto, draft: &Draft, work: &mut Work) {
    for output in &draft.outputs {
        // A head's own name is there once the graph was rewritten.
        if graph.output.iter().any(|o| o.name == output.name || o.name == output.head) {
            continue;
        }
        let meant = meant(&output.name, graph.output.iter().map(|o| o.name.as_str()));
        work.problems.push(Problem::new(
            format!("head {} has no output {} in the graph{meant}", output.head, output.name),
            "name the output after the head (output_names=[...] at the export), or say output = \"NAME\" at the head, \
             with its column as \"NAME[1]\" if it holds several",
        ));
    }
    for output in &graph.output {
        if draft.outputs.iter().all(|o| o.name != output.name && o.head != output.name) {
            work.warnings.push(format!("output {} is no head: it is left out", output.name));
        }
    }
}

fn widths_of_heads(read: &Read, draft: &Draft, work: &mut Work) {
    for (name, id) in &read.graph.outputs {
        let shape = &read.graph.tensors[*id].shape;
        let single = shape.dims.is_empty() || shape.dims == [1];
        if draft.schema.heads.iter().all(|h| h.name != *name) || (shape.batch && single) {
            continue;
        }
        work.problems.push(Problem::new(
            format!("output {name} is [batch, {:?}], a head is [batch, 1]", shape.dims),
            format!("say output = \"{name}[0]\" at the head whose column it is, or export one output a head"),
        ));
    }
}

/// Tables whose rows are not those of their feature's buckets.
fn rows_of_tables(read: &Read, schema: &Schema, work: &mut Work) {
    for id in &read.graph.inputs {
        let name = &read.graph.tensors[*id].name;
        let Some(spec) = schema.user.iter().chain(&schema.item).find(|s| s.name == *name) else { continue };
        if let Err(e) = tables(&read.graph, *id, spec) {
            work.problems.push(Problem::new(
                e.to_string(),
                "set buckets to the rows of the table less one: row 0 is a missing value, a value's row is 1 + hash % \
                 buckets",
            ));
        }
    }
}

/// Features that nothing reads: they cost the catalogue and every request, and change no score.
pub(super) fn unread(draft: &Draft, work: &mut Work) {
    let schema = &draft.schema;
    let crossed = |name: &str| schema.cross.iter().any(|c| c.user == name || c.item == name);
    let unread: Vec<&str> = names(schema).filter(|n| !work.read.contains(*n) && !crossed(n)).collect();
    work.warnings
        .extend(unread.into_iter().map(|n| format!("feature {n} is read by no input of the ranker or a tower")));
}
