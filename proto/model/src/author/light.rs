//! Does the light head fit the towers that it stands on?
//!
//! It reads second outputs of the towers, `user_light` and `item_light`, and the `similarity` of query and vector; it
//! puts out the logit of a click, `light`, and may put out that of a conversion given one, `light_conversion`.

use super::nearest::meant;
use super::{LIGHT, Problem, Towers, Work, rewrite};
use crate::bundle::light::{CLICK, CONVERSION, ITEM, SIMILARITY, USER};
use crate::onnx::wire::GraphProto;
use prost::Message;

/// Adds the head's file and what is wrong with it.
pub(super) fn add(bytes: &[u8], towers: &Towers, beside: &dyn Fn(&str) -> Option<Vec<u8>>, work: &mut Work) {
    let Towers::Given { user, item } = towers else {
        return work.problems.push(Problem::new(
            "a light head reads what trained towers put out, and there are none",
            "give --user-tower FILE --item-tower FILE, or leave --light out",
        ));
    };
    let (model, changed) = match rewrite::load(bytes, beside) {
        Ok(loaded) => loaded,
        Err(problems) => return work.problems.extend(problems),
    };
    if let Some(graph) = &model.graph {
        for (input, tower, option) in [(USER, user, "--user-tower"), (ITEM, item, "--item-tower")] {
            let outputs = rewrite::load(tower, beside).ok().and_then(|(model, _)| model.graph);
            let has = outputs.is_none_or(|g| g.output.iter().any(|o| o.name == input));
            if graph.input.iter().any(|i| i.name == input) && !has {
                work.problems.push(Problem::new(
                    format!("the light head reads {input}, which the graph of {option} does not put out"),
                    format!("export that tower with a second output called {input}, [batch, n]"),
                ));
            }
        }
        ports(graph, work);
    }
    let bytes = if changed { model.encode_to_vec() } else { bytes.to_vec() };
    work.files.insert(LIGHT.to_owned(), bytes);
}

fn ports(graph: &GraphProto, work: &mut Work) {
    let known = [USER, ITEM, SIMILARITY];
    for input in graph.input.iter().filter(|i| !known.contains(&i.name.as_str())) {
        if graph.initializer.iter().any(|t| t.name == input.name) {
            continue;
        }
        work.problems.push(Problem::new(
            format!("input {} of the light head is none{}", input.name, meant(&input.name, known.into_iter())),
            format!("a light head reads {USER}, {ITEM} and {SIMILARITY}, or some of them"),
        ));
    }
    let outputs = graph.output.iter().map(|o| o.name.as_str());
    if !outputs.clone().any(|name| name == CLICK) {
        work.problems.push(Problem::new(
            format!("the light head has no output {CLICK}{}", meant(CLICK, outputs.clone())),
            format!("name it at the export: output_names=[\"{CLICK}\"], the logit of a click"),
        ));
    }
    let more = outputs.filter(|name| ![CLICK, CONVERSION].contains(name));
    work.warnings.extend(more.map(|name| format!("output {name} of the light head is left out")));
    if graph.output.iter().all(|o| o.name != CONVERSION) {
        work.warnings.push(format!(
            "the light head has no output {CONVERSION}: bids on conversions are ordered by the click and one rate for \
             all, prior_conversion"
        ));
    }
}
