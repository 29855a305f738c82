//! Do the columns of LightGBM's models and the schema's features fit each other?

use super::draft::{Draft, tree_files};
use super::nearest::meant;
use super::{Problem, Work};
use crate::schema::FeatureKind;
use crate::trees::Ensemble;
use std::collections::BTreeMap;

/// Adds the models' files and what is wrong with them.
pub(super) fn check(models: &BTreeMap<String, Vec<u8>>, draft: &Draft, work: &mut Work) {
    let named = match tree_files(models.keys().map(String::as_str), &draft.outputs) {
        Ok(named) => named,
        Err(what) => return work.problems.push(Problem::new(what, "gavel model pack --help shows the form")),
    };
    for head in &draft.schema.heads {
        if named.iter().all(|(n, _)| *n != head.name) {
            work.problems.push(Problem::new(
                format!("head {} has no model", head.name),
                format!("give its file with --ranker {}=FILE, or take the head out of the schema", head.name),
            ));
        }
    }
    for ((head, file), bytes) in named.into_iter().zip(models.values()) {
        match Ensemble::read(bytes) {
            Ok(ensemble) => columns(&ensemble, &head, draft, work),
            Err(e) => work.problems.push(Problem::new(
                format!("the model of head {head}: {e}"),
                "give the text file that Booster.save_model wrote",
            )),
        }
        work.files.insert(file, bytes.clone());
    }
}

fn columns(ensemble: &Ensemble, head: &str, draft: &Draft, work: &mut Work) {
    let schema = &draft.schema;
    let features = || schema.user.iter().chain(&schema.item);
    for (at, name) in ensemble.features.iter().enumerate().filter(|(at, _)| ensemble.reads(*at)) {
        let spec = features().find(|s| s.name == *name);
        match spec.map(|s| &s.kind) {
            Some(FeatureKind::Category { .. } | FeatureKind::Dense { .. }) => {}
            Some(_) => work.problems.push(Problem::new(
                format!("column {name} of head {head} is a set or a sequence, and trees read numbers and categories"),
                "train on a cross feature: the weight of the item's value in the user's set",
            )),
            None if schema.cross.iter().any(|c| c.name == *name) => {}
            None => {
                let all = features().map(|s| s.name.as_str()).chain(schema.cross.iter().map(|c| c.name.as_str()));
                let free = all.filter(|n| ensemble.features.iter().all(|f| f != n));
                let unnamed = name.starts_with("Column_") && name[7..].parse::<usize>().is_ok();
                let fix = if unnamed {
                    "train on a table with column names (pandas, or feature_name=[...])"
                } else {
                    "add the feature to the schema under this name"
                };
                let what = format!("column {name} (number {at}) of head {head} is no feature{}", meant(name, free));
                work.problems.push(Problem::new(what, fix));
            }
        }
        work.read.insert(name.clone());
    }
}
