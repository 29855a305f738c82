//! Which trees stand in a model file of LightGBM?
//!
//! The text form that `save_model` writes (versions v3 and v4): lines of `key=value`, a header, one paragraph a
//! tree, `end of trees`, and what we do not need but for the categories of pandas. Every number is parsed to the
//! nearest f64, as LightGBM does. A file that is damaged or asks for what is not built is refused with the number of
//! the line: nothing is guessed.

use super::ensemble::{Child, Ensemble, Missing, Objective, Rule, Split, Tree};
use super::limits::{
    CATEGORY_CODE_MAX, CATEGORY_CODES_MAX, CATEGORY_VALUES_MAX, LEAVES_MAX, SPLITS_MAX, TREE_FEATURES_MAX, TREES_MAX,
};
use std::collections::BTreeMap;
use std::str::FromStr;

/// Why a model file was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct TreeError {
    /// The line, from 1.
    pub line: usize,
    /// Why.
    pub reason: String,
}

fn fail<T>(line: usize, reason: impl Into<String>) -> Result<T, TreeError> {
    Err(TreeError { line, reason: reason.into() })
}

/// The keys of one paragraph.
struct Keys<'a> {
    /// Where the paragraph starts.
    line: usize,
    values: BTreeMap<&'a str, (usize, &'a str)>,
}

impl<'a> Keys<'a> {
    fn insert(&mut self, line: usize, text: &'a str) -> Result<(), TreeError> {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        match self.values.insert(key, (line, value)) {
            None => Ok(()),
            Some((before, _)) => fail(line, format!("{key} stands in line {before} already")),
        }
    }

    fn text(&self, key: &str) -> Result<(usize, &'a str), TreeError> {
        match self.values.get(key) {
            Some(found) => Ok(*found),
            None => fail(self.line, format!("{key} is missing")),
        }
    }

    fn number(&self, key: &str) -> Result<(usize, usize), TreeError> {
        let (line, text) = self.text(key)?;
        match text.parse() {
            Ok(number) => Ok((line, number)),
            Err(_) => fail(line, format!("{key} is {text:?} and not a number")),
        }
    }

    /// As many values as expected.
    fn list<T: FromStr>(&self, key: &str, expected: usize) -> Result<(usize, Vec<T>), TreeError> {
        let (line, text) = self.text(key)?;
        let mut values = Vec::with_capacity(expected);
        for word in text.split_ascii_whitespace() {
            match word.parse() {
                Ok(value) if values.len() < expected => values.push(value),
                Ok(_) => return fail(line, format!("{key} has more than {expected} values")),
                Err(_) => return fail(line, format!("{key}: {word:?} is not a value")),
            }
        }
        if values.len() < expected {
            return fail(line, format!("{key} has {} values, {expected} are expected", values.len()));
        }
        Ok((line, values))
    }
}

/// Reads a model file.
pub(super) fn read(bytes: &[u8]) -> Result<Ensemble, TreeError> {
    let text = std::str::from_utf8(bytes).or_else(|e| {
        let before = &bytes[..e.valid_up_to()];
        fail(1 + before.iter().filter(|b| **b == b'\n').count(), "is not text")
    })?;
    let mut lines = (1..).zip(text.lines().map(str::trim_end));
    match lines.next() {
        Some((_, "tree")) => {}
        Some(_) | None => return fail(1, "a model file of LightGBM starts with the line \"tree\""),
    }
    let (header, mut next) = paragraph(1, &mut lines)?;
    let mut ensemble = head(&header)?;
    let (mut splits, mut codes) = (0, 0);
    loop {
        let (line, heading) = next;
        if heading == "end of trees" {
            break;
        }
        let number = ensemble.trees.len();
        if heading.strip_prefix("Tree=").and_then(|n| n.parse().ok()) != Some(number) {
            return fail(line, format!("Tree={number} or \"end of trees\" is expected, {heading:?} is found"));
        }
        if number >= TREES_MAX {
            return fail(line, format!("more than {TREES_MAX} trees"));
        }
        let (keys, after) = paragraph(line, &mut lines)?;
        let tree = tree(&keys, ensemble.features.len(), &mut codes)?;
        splits += tree.splits.len();
        if splits > SPLITS_MAX {
            return fail(line, format!("more than {SPLITS_MAX} splits"));
        }
        ensemble.trees.push(tree);
        next = after;
    }
    if ensemble.trees.is_empty() {
        return fail(next.0, "there are no trees");
    }
    for (line, text) in lines {
        if let Some(json) = text.strip_prefix("pandas_categorical:") {
            ensemble.categories = pandas(line, json)?;
        }
    }
    Ok(ensemble)
}

/// The keys up to the next heading, and the heading.
fn paragraph<'a>(
    line: usize,
    lines: &mut impl Iterator<Item = (usize, &'a str)>,
) -> Result<(Keys<'a>, (usize, &'a str)), TreeError> {
    let mut keys = Keys { line, values: BTreeMap::new() };
    let mut last = line;
    for (line, text) in lines {
        last = line;
        match text {
            "" => {}
            "end of trees" => return Ok((keys, (line, text))),
            _ if text.starts_with("Tree=") => return Ok((keys, (line, text))),
            _ => keys.insert(line, text)?,
        }
    }
    fail(last, "the file ends here, before \"end of trees\"")
}

fn head(keys: &Keys<'_>) -> Result<Ensemble, TreeError> {
    let (line, version) = keys.text("version")?;
    if !matches!(version, "v3" | "v4") {
        return fail(line, format!("version {version:?}; v3 and v4 are read"));
    }
    for key in ["num_class", "num_tree_per_iteration"] {
        let (line, number) = keys.number(key)?;
        if number != 1 {
            return fail(
                line,
                format!("{key} is {number}; a head of a bundle has one output, so train one model a head"),
            );
        }
    }
    let (line, last) = keys.number("max_feature_idx")?;
    if last >= TREE_FEATURES_MAX {
        return fail(line, format!("{last} is the last feature, {TREE_FEATURES_MAX} features are possible"));
    }
    let (_, features) = keys.list("feature_names", last + 1)?;
    Ok(Ensemble {
        features,
        objective: objective(keys)?,
        averaged: keys.values.contains_key("average_output"),
        categories: None,
        trees: Vec::new(),
    })
}

fn objective(keys: &Keys<'_>) -> Result<Objective, TreeError> {
    // An objective of one's own writes none.
    let Some((line, text)) = keys.values.get("objective").copied() else { return Ok(Objective::Identity) };
    let mut words = text.split_ascii_whitespace();
    let name = words.next().unwrap_or("");
    let rest: Vec<&str> = words.collect();
    match (name, rest.as_slice()) {
        ("binary", options) => {
            let factor = options.iter().find_map(|o| o.strip_prefix("sigmoid:"));
            match factor.map_or(Ok(1.0), f64::from_str) {
                Ok(factor) if factor.is_finite() && factor > 0.0 => Ok(Objective::Sigmoid(factor)),
                Ok(_) | Err(_) => fail(line, format!("objective {text:?}: the sigmoid is not a factor above 0")),
            }
        }
        ("cross_entropy" | "xentropy", _) => Ok(Objective::Sigmoid(1.0)),
        ("poisson" | "gamma" | "tweedie", _) => Ok(Objective::Exponential),
        (_, options) if options.contains(&"sqrt") => {
            fail(line, format!("objective {text:?}: the square is not supported; train on the root yourself"))
        }
        (
            "regression" | "regression_l1" | "huber" | "fair" | "quantile" | "mape" | "lambdarank" | "rank_xendcg"
            | "custom" | "none",
            _,
        ) => Ok(Objective::Identity),
        _ => fail(line, format!("objective {text:?} is not supported")),
    }
}

/// A tree; `codes` counts those in the sets of the model.
fn tree(keys: &Keys<'_>, features: usize, codes: &mut usize) -> Result<Tree, TreeError> {
    if let Some((line, value)) = keys.values.get("is_linear")
        && *value != "0"
    {
        return fail(*line, "linear trees are not supported; train with linear_tree=false");
    }
    let (line, count) = keys.number("num_leaves")?;
    if !(1..=LEAVES_MAX).contains(&count) {
        return fail(line, format!("{count} leaves, 1 to {LEAVES_MAX} are possible"));
    }
    let (line, leaves) = keys.list::<f64>("leaf_value", count)?;
    if leaves.iter().any(|v| !v.is_finite()) {
        return fail(line, "a leaf's value is not finite");
    }
    if count == 1 {
        return Ok(Tree { splits: Vec::new(), leaves });
    }
    let splits = splits(keys, count - 1, features, codes)?;
    whole(keys, &splits, count)?;
    Ok(Tree { splits, leaves })
}

fn splits(keys: &Keys<'_>, count: usize, features: usize, codes: &mut usize) -> Result<Vec<Split>, TreeError> {
    let (feature_line, of) = keys.list::<usize>("split_feature", count)?;
    let (threshold_line, thresholds) = keys.list::<f64>("threshold", count)?;
    let (kind_line, kinds) = keys.list::<u8>("decision_type", count)?;
    let (left_line, left) = keys.list::<i64>("left_child", count)?;
    let (right_line, right) = keys.list::<i64>("right_child", count)?;
    let mut sets = sets(keys, codes)?;
    let child = |line: usize, to: i64| {
        let (index, limit) = if to < 0 { (!to, count + 1) } else { (to, count) };
        match usize::try_from(index) {
            Ok(i) if i < limit => Ok(if to < 0 { Child::Leaf(i) } else { Child::Split(i) }),
            Ok(_) | Err(_) => fail(line, format!("there is no child {to}")),
        }
    };
    let mut splits = Vec::with_capacity(count);
    for i in 0..count {
        if of[i] >= features {
            return fail(feature_line, format!("feature {} of {features}", of[i]));
        }
        let threshold = thresholds[i];
        if threshold.is_nan() || threshold == f64::NEG_INFINITY {
            return fail(threshold_line, format!("a threshold is {threshold}"));
        }
        let rule = match (kinds[i] & 1, kinds[i] >> 2) {
            // Each split takes its own set out of the list, as LightGBM wrote it there.
            (1, _) => match sets.get_mut(threshold as usize).filter(|_| threshold >= 0.0) {
                Some(set) => match set.take() {
                    Some(codes) => Rule::Category { codes },
                    None => return fail(threshold_line, format!("two splits name the set {threshold} of categories")),
                },
                None => return fail(threshold_line, format!("there is no set {threshold} of categories")),
            },
            (_, missing @ 0..=2) => {
                let missing = [Missing::None, Missing::Zero, Missing::Nan][missing as usize];
                Rule::Number { threshold, missing, default_left: kinds[i] & 2 != 0 }
            }
            _ => return fail(kind_line, format!("a decision of type {}", kinds[i])),
        };
        let (left, right) = (child(left_line, left[i])?, child(right_line, right[i])?);
        splits.push(Split { feature: of[i], rule, left, right });
    }
    Ok(splits)
}

/// The sets of category codes of a tree, from its bits.
fn sets(keys: &Keys<'_>, total: &mut usize) -> Result<Vec<Option<Vec<u32>>>, TreeError> {
    let (line, count) = match keys.values.get("num_cat") {
        Some(_) => keys.number("num_cat")?,
        None => (keys.line, 0),
    };
    if count == 0 {
        return Ok(Vec::new());
    }
    if count > LEAVES_MAX {
        return fail(line, format!("{count} sets of categories, {LEAVES_MAX} are possible"));
    }
    let (line, bounds) = keys.list::<usize>("cat_boundaries", count + 1)?;
    let words = bounds.last().copied().unwrap_or(0);
    if bounds.first() != Some(&0) || !bounds.is_sorted() || words > CATEGORY_CODE_MAX as usize {
        return fail(line, "the bounds of the sets do not rise from 0");
    }
    let (line, words) = keys.list::<u32>("cat_threshold", words)?;
    let mut sets = Vec::with_capacity(count);
    for range in bounds.windows(2) {
        let words = &words[range[0]..range[1]];
        let count = words.iter().map(|word| word.count_ones() as usize).sum::<usize>();
        *total += count;
        if *total > CATEGORY_CODES_MAX {
            return fail(line, format!("more than {CATEGORY_CODES_MAX} categories in the sets of all splits"));
        }
        let mut codes = Vec::with_capacity(count);
        for (at, word) in words.iter().enumerate() {
            if *word != 0 && at as u64 * 32 + 31 > u64::from(CATEGORY_CODE_MAX) {
                return fail(line, format!("a category above {CATEGORY_CODE_MAX}"));
            }
            codes.extend((0..32).filter(|bit| word >> bit & 1 == 1).map(|bit| at as u32 * 32 + bit));
        }
        sets.push(Some(codes));
    }
    Ok(sets)
}

/// Every split and leaf hangs below the root, once.
fn whole(keys: &Keys<'_>, splits: &[Split], leaves: usize) -> Result<(), TreeError> {
    let (mut seen_splits, mut seen_leaves) = (vec![false; splits.len()], vec![false; leaves]);
    let mut open = vec![Child::Split(0)];
    let mut count = 0;
    while let Some(child) = open.pop() {
        let seen = match child {
            Child::Split(i) => {
                open.extend([splits[i].left, splits[i].right]);
                &mut seen_splits[i]
            }
            Child::Leaf(i) => &mut seen_leaves[i],
        };
        if std::mem::replace(seen, true) {
            return fail(keys.line, format!("{child:?} hangs in two places"));
        }
        count += 1;
    }
    if count == splits.len() + leaves { Ok(()) } else { fail(keys.line, "a split or leaf hangs nowhere") }
}

fn pandas(line: usize, json: &str) -> Result<Option<Vec<Vec<String>>>, TreeError> {
    let lists: Option<Vec<Vec<serde_json::Value>>> = match serde_json::from_str(json) {
        Ok(lists) => lists,
        Err(error) => return fail(line, format!("pandas_categorical: {error}")),
    };
    let Some(lists) = lists.filter(|l| !l.is_empty()) else { return Ok(None) };
    if lists.iter().map(Vec::len).sum::<usize>() > CATEGORY_VALUES_MAX {
        return fail(line, format!("pandas_categorical: more than {CATEGORY_VALUES_MAX} values"));
    }
    let text = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => text,
        other @ (serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::Array(_)
        | serde_json::Value::Object(_)) => other.to_string(),
    };
    Ok(Some(lists.into_iter().map(|l| l.into_iter().map(text).collect()).collect()))
}
