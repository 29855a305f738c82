//! How do trees rank as the ranker of a bundle?
//!
//! A head has a LightGBM file of its own. Its features are found in the schema by name, and each is encoded where it
//! is known: the user part holds the codes of user and context features, an item's activations hold the codes of
//! its features, and a match feature is encoded for each candidate.
//!
//! What a tree sees: a number as it came, without the schema's scaling, and NaN where it is missing or not finite; a
//! category as its place in the model's own list of values (pandas), or as its row in the schema's buckets, and NaN
//! where it is missing or not in the list; a match feature as the schema scales it.
//!
//! What a head puts out: the logit of a probability, `log1p` of a value, whatever the objective made of the sum.

use super::Scratch;
use crate::error::{BundleError, ModelError};
use crate::feature::{FeatureRow, FeatureValue, table_row};
use crate::partition::{PartCost, PartitionReport};
use crate::schema::{Calibration, FeatureKind, FeatureSpec, HeadKind, HeadSpec, Schema};
use crate::trees::{Ensemble, Forest, Member, Objective, ROWS};
use gavel_proto::hash::value_hash;
use prost::bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Where an input comes from, in the order of the codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    User(usize),
    Item(usize),
    Cross(usize),
}

/// From a category's hash to its code.
type Dictionary = Arc<BTreeMap<u64, u32>>;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Input {
    source: Source,
    dictionary: Option<Dictionary>,
}

/// One head's model.
#[derive(Debug)]
struct Head {
    ensemble: Ensemble,
    /// The input of each of its features.
    inputs: Vec<usize>,
    /// From its raw score to the head's output.
    objective: Objective,
    /// 1, or the trees over which a random forest takes the mean.
    divisor: f64,
}

/// A ranker of trees.
#[derive(Debug)]
pub(super) struct TreeRanker {
    inputs: Vec<Input>,
    heads: Vec<Head>,
    forest: Forest,
    users: Range<usize>,
    items: Range<usize>,
    crossings: Range<usize>,
    pub hash: [u8; 32],
    pub report: PartitionReport,
}

impl TreeRanker {
    /// A file for each head, by the head's name; `bytes` finds a file by name.
    pub fn new<'a>(
        files: &BTreeMap<String, String>,
        schema: &Schema,
        mut bytes: impl FnMut(&str) -> Result<&'a Bytes, BundleError>,
    ) -> Result<Self, BundleError> {
        if let Some(name) = files.keys().find(|n| schema.heads.iter().all(|h| h.name != **n)) {
            return Err(BundleError::Schema(format!("files.trees names {name}, which is no head")));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"gavel-trees-1\n");
        let mut inputs: Vec<Input> = Vec::new();
        let mut heads = Vec::with_capacity(schema.heads.len());
        for spec in &schema.heads {
            let missing = || BundleError::Schema(format!("files.trees has no file for the head {}", spec.name));
            let file = files.get(&spec.name).ok_or_else(missing)?;
            let bytes = bytes(file)?;
            hasher.update(blake3::hash(bytes).as_bytes());
            let refused = |reason: String| BundleError::Trees { file: file.clone(), reason };
            let ensemble = Ensemble::read(bytes).map_err(|e| refused(e.to_string()))?;
            heads.push(head(ensemble, spec, schema, &mut inputs).map_err(refused)?);
        }
        let order = sort(&mut inputs);
        heads.iter_mut().flat_map(|h| &mut h.inputs).for_each(|i| *i = order.get(*i).copied().unwrap_or(0));
        hasher.update(format!("{inputs:?}").as_bytes());
        let members: Vec<Member<'_>> =
            heads.iter().map(|h| Member { ensemble: &h.ensemble, inputs: &h.inputs }).collect();
        let forest = Forest::of(&members, inputs.len()).map_err(BundleError::Forest)?;
        let until = |last: fn(Source) -> bool| forest.codes().take_while(|i| last(inputs[*i].source)).count();
        let users = until(|s| matches!(s, Source::User(_)));
        let items = until(|s| !matches!(s, Source::Cross(_)));
        let (users, items, crossings) = (0..users, users..items, items..forest.codes().len());
        let report = report(&heads, [&users, &items, &crossings]);
        Ok(Self { inputs, heads, forest, users, items, crossings, hash: *hasher.finalize().as_bytes(), report })
    }

    pub fn user_width(&self) -> usize {
        self.users.len()
    }

    pub fn item_width(&self) -> usize {
        self.items.len()
    }

    /// Appends the codes of the user's features.
    pub fn run_user(&self, schema: &Schema, user: &FeatureRow, part: &mut Vec<f32>) -> Result<(), ModelError> {
        self.encode(self.users.clone(), |source| self.value(source, schema, (user, user), &[]), part)
    }

    /// Appends the codes of items.
    pub fn run_items(&self, schema: &Schema, items: &[FeatureRow], out: &mut Vec<f32>) -> Result<(), ModelError> {
        items.iter().try_for_each(|item| {
            self.encode(self.items.clone(), |source| self.value(source, schema, (item, item), &[]), out)
        })
    }

    fn encode(
        &self,
        slots: Range<usize>,
        value: impl Fn(&Input) -> Result<f32, ModelError>,
        out: &mut Vec<f32>,
    ) -> Result<(), ModelError> {
        for (slot, input) in self.forest.codes().enumerate().skip(slots.start).take(slots.len()) {
            out.push(self.forest.code(slot, value(&self.inputs[input])?));
        }
        Ok(())
    }

    /// Calls `sink` with head and raw output, candidate by candidate.
    pub fn rank(
        &self,
        scratch: &mut Scratch,
        (user_part, activations): (&[f32], &[f32]),
        (cross, columns): (&[f32], usize),
        n: usize,
        mut sink: impl FnMut(usize, f32),
    ) {
        let Scratch { planes, codes, .. } = scratch;
        self.forest.prepare(planes);
        self.forest.fill(self.users.clone(), (user_part, 0), planes);
        let width = self.items.len();
        for first in (0..n).step_by(ROWS) {
            let rows = ROWS.min(n - first);
            if width > 0 {
                let block = &activations[first * width..(first + rows) * width];
                self.forest.fill(self.items.clone(), (block, width), planes);
            }
            if !self.crossings.is_empty() {
                self.cross_codes(&cross[first * columns..(first + rows) * columns], columns, codes);
                self.forest.fill(self.crossings.clone(), (codes, self.crossings.len()), planes);
            }
            self.forest.run(planes);
            for row in 0..rows {
                for (at, (head, sums)) in self.heads.iter().zip(&planes.sums).enumerate() {
                    sink(at, head.output(sums[row]));
                }
            }
        }
    }

    fn cross_codes(&self, cross: &[f32], columns: usize, codes: &mut Vec<f32>) {
        codes.clear();
        for row in cross.chunks_exact(columns) {
            for (slot, input) in self.forest.codes().enumerate().skip(self.crossings.start) {
                if let Source::Cross(i) = self.inputs[input].source {
                    codes.push(self.forest.code(slot, row[i]));
                }
            }
        }
    }

    /// The plain way, from the features of both sides: the twin of the three parts.
    pub fn whole(
        &self,
        schema: &Schema,
        (user, items): (&FeatureRow, &[FeatureRow]),
        (cross, columns): (&[f32], usize),
        mut sink: impl FnMut(usize, f32),
    ) -> Result<(), ModelError> {
        for (row, item) in items.iter().enumerate() {
            let cross = &cross[row * columns..(row + 1) * columns];
            let values = self.inputs.iter().map(|input| self.value(input, schema, (user, item), cross));
            let values = values.collect::<Result<Vec<f32>, _>>()?;
            for (at, head) in self.heads.iter().enumerate() {
                let row: Vec<f64> =
                    head.inputs.iter().map(|i| values.get(*i).copied().map_or(f64::NAN, f64::from)).collect();
                sink(at, head.output(head.ensemble.raw(&row)));
            }
        }
        Ok(())
    }

    /// What a tree sees of an input.
    fn value(
        &self,
        input: &Input,
        schema: &Schema,
        (user, item): (&FeatureRow, &FeatureRow),
        cross: &[f32],
    ) -> Result<f32, ModelError> {
        let (specs, row, at, what) = match input.source {
            Source::Cross(i) => return Ok(cross[i]),
            Source::User(i) => (&schema.user, user, i, "user features"),
            Source::Item(i) => (&schema.item, item, i, "item features"),
        };
        if row.values.len() != specs.len() {
            return Err(ModelError::Width { what, found: row.values.len(), expected: specs.len() });
        }
        let spec = &specs[at];
        match (&spec.kind, &row.values[at]) {
            (_, FeatureValue::Missing) => Ok(f32::NAN),
            (FeatureKind::Dense { .. }, FeatureValue::Dense(x)) => Ok(if x.is_finite() { *x } else { f32::NAN }),
            (FeatureKind::Category { buckets }, FeatureValue::Category(hash)) => Ok(match &input.dictionary {
                Some(codes) => codes.get(hash).map_or(f32::NAN, |code| *code as f32),
                None if *hash == 0 => f32::NAN,
                None => table_row(*hash, *buckets) as f32,
            }),
            (
                FeatureKind::Category { .. }
                | FeatureKind::Dense { .. }
                | FeatureKind::Set { .. }
                | FeatureKind::Sequence { .. },
                _,
            ) => Err(ModelError::Kind { name: spec.name.clone(), expected: spec.kind_name() }),
        }
    }
}

impl Head {
    fn output(&self, raw: f64) -> f32 {
        let raw = raw / self.divisor;
        let output = match self.objective {
            Objective::Identity => raw,
            Objective::Sigmoid(factor) => factor * raw,
            // log1p(e^raw), without overflow.
            Objective::Exponential => raw.max(0.0) + (-raw.abs()).exp().ln_1p(),
        };
        output as f32
    }
}

/// Finds the features of a head's model in the schema.
fn head(ensemble: Ensemble, spec: &HeadSpec, schema: &Schema, inputs: &mut Vec<Input>) -> Result<Head, String> {
    match (spec.kind, ensemble.objective) {
        (HeadKind::Probability, Objective::Exponential) | (HeadKind::Value, Objective::Sigmoid(_)) => {
            return Err(format!("its objective does not predict what the head {} does", spec.name));
        }
        (HeadKind::Probability, Objective::Identity) if spec.calibration == Calibration::None => {
            return Err(format!(
                "its objective gives no probability, and the head {} has no calibration that makes one",
                spec.name
            ));
        }
        (HeadKind::Probability | HeadKind::Value, _) => {}
    }
    let mut dictionaries = dictionaries(&ensemble, schema)?;
    let mut of = Vec::with_capacity(ensemble.features.len());
    for (at, name) in ensemble.features.iter().enumerate() {
        if !ensemble.reads(at) {
            of.push(usize::MAX);
            continue;
        }
        let (source, found) = find(name, schema).ok_or_else(|| format!("no feature of the schema is called {name}"))?;
        if let Some(spec) = found.filter(|f| f.kind.is_weighted()) {
            let kind = spec.kind_name();
            return Err(format!("the feature {name} is a {kind}, and trees read numbers and categories"));
        }
        let input = Input { source, dictionary: dictionaries.remove(&at) };
        let place = inputs.iter().position(|i| *i == input).unwrap_or(inputs.len());
        if place == inputs.len() {
            inputs.push(input);
        }
        of.push(place);
    }
    let divisor = if ensemble.averaged { ensemble.trees() as f64 } else { 1.0 };
    Ok(Head { objective: ensemble.objective, divisor, ensemble, inputs: of })
}

fn find<'a>(name: &str, schema: &'a Schema) -> Option<(Source, Option<&'a FeatureSpec>)> {
    let at = |specs: &'a [FeatureSpec]| specs.iter().enumerate().find(|(_, s)| s.name == name);
    let user = at(&schema.user).map(|(i, s)| (Source::User(i), Some(s)));
    let item = || at(&schema.item).map(|(i, s)| (Source::Item(i), Some(s)));
    let cross = || schema.cross.iter().position(|c| c.name == name).map(|i| (Source::Cross(i), None));
    user.or_else(item).or_else(cross)
}

/// The lists of pandas, one for each category column in the order of the columns, by feature.
fn dictionaries(ensemble: &Ensemble, schema: &Schema) -> Result<BTreeMap<usize, Dictionary>, String> {
    let Some(lists) = ensemble.categories() else { return Ok(BTreeMap::new()) };
    let is_category = |name: &str| {
        matches!(find(name, schema), Some((_, Some(FeatureSpec { kind: FeatureKind::Category { .. }, .. }))))
    };
    let columns: Vec<usize> = (0..ensemble.features.len()).filter(|i| is_category(&ensemble.features[*i])).collect();
    if columns.len() != lists.len() {
        return Err(format!(
            "it lists the values of {} category columns, and the schema has {} categories among its features",
            lists.len(),
            columns.len()
        ));
    }
    let dictionary = |list: &Vec<String>| -> Dictionary {
        Arc::new((0..).zip(list).map(|(code, value)| (value_hash(value), code)).collect())
    };
    Ok(columns.into_iter().zip(lists.iter().map(dictionary)).collect())
}

/// Sorts inputs by side and says where each has gone.
fn sort(inputs: &mut Vec<Input>) -> Vec<usize> {
    let mut order: Vec<usize> = (0..inputs.len()).collect();
    order.sort_by_key(|i| inputs[*i].source);
    let mut place = vec![0; order.len()];
    order.iter().enumerate().for_each(|(to, from)| place[*from] = to);
    *inputs = order.iter().map(|i| inputs[*i].clone()).collect();
    place
}

fn report(heads: &[Head], [users, items, crossings]: [&Range<usize>; 3]) -> PartitionReport {
    let splits: usize = heads.iter().map(|h| h.ensemble.splits()).sum();
    let codes = |slots: &Range<usize>| PartCost { operations: slots.len(), ..PartCost::default() };
    let trees = |slots: usize| PartCost {
        operations: splits + slots,
        // A comparison for each split.
        flops: splits as u64,
        constant_bytes: splits as u64 * 16,
    };
    PartitionReport {
        whole: trees(users.len() + items.len() + crossings.len()),
        user: codes(users),
        item: codes(items),
        candidate: trees(crossings.len()),
    }
}
