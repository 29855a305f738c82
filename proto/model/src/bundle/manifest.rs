//! Does `bundle.toml` describe a model that can be served?
//!
//! The text as it stands in the file, and its checked form, the [`Schema`]. Unknown keys are refused: a key that
//! is silently ignored is a calibration that is silently missing.

use crate::calibration::Calibration;
use crate::error::BundleError;
use crate::limits;
use crate::schema::{
    ActivationFormat, CrossSpec, FeatureKind, FeatureSpec, HeadKind, HeadRole, HeadSpec, Light, Metric, Precision,
    RankerOptions, Scaling, Schema, Side, Transform,
};
use gavel_proto::limits::{FEATURES_MAX, HEADS_MAX, STRING_BYTES_MAX, VECTOR_DIMENSIONS_MAX};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// The files that the schema names.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Files {
    pub user_tower: String,
    pub item_tower: String,
    /// A graph; or, with one head, trees if the name ends in `.txt`.
    #[serde(default)]
    pub ranker: String,
    /// Trees for each head, instead of a graph.
    #[serde(default)]
    pub trees: BTreeMap<String, String>,
    pub golden: String,
    /// The graph of the light order, which `[light]` names.
    #[serde(skip)]
    pub light: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    format: u32,
    name: String,
    dimension: usize,
    metric: MetricText,
    #[serde(default)]
    value_weight: f32,
    #[serde(default)]
    prior_conversion: f32,
    light: LightText,
    files: Files,
    #[serde(default)]
    ranker_options: OptionsText,
    #[serde(default)]
    feature: Vec<FeatureText>,
    #[serde(default)]
    cross: Vec<CrossText>,
    head: Vec<HeadText>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum MetricText {
    Ip,
    Cos,
    L2,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LightText {
    scale: Option<f32>,
    offset: Option<f32>,
    head: Option<String>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct OptionsText {
    precision: Option<PrecisionText>,
    activations: Option<ActivationsText>,
    tolerance: Option<f64>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PrecisionText {
    F32,
    Bf16,
    Int8,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ActivationsText {
    F32,
    Bf16,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SideText {
    User,
    Context,
    Item,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KindText {
    Category,
    Dense,
    Set,
    Sequence,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TransformText {
    None,
    Log1p,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FeatureText {
    name: String,
    side: SideText,
    kind: KindText,
    buckets: Option<u32>,
    max_len: Option<usize>,
    transform: Option<TransformText>,
    mean: Option<f32>,
    std: Option<f32>,
    default: Option<f32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CrossText {
    name: String,
    user: String,
    item: String,
    transform: Option<TransformText>,
    mean: Option<f32>,
    std: Option<f32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadText {
    name: String,
    kind: HeadKindText,
    role: Option<RoleText>,
    negative_rate: Option<f32>,
    calibration: Option<CalibrationText>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum HeadKindText {
    Probability,
    Value,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RoleText {
    Click,
    ConversionGivenClick,
    Hide,
    LongClick,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum CalibrationText {
    None,
    Platt { scale: f32, offset: f32 },
    Isotonic { x: Vec<f32>, y: Vec<f32> },
    Scale { factor: f32 },
}

fn wrong<T>(reason: impl Into<String>) -> Result<T, BundleError> {
    Err(BundleError::Schema(reason.into()))
}

fn check(holds: impl Into<Option<bool>>, reason: impl FnOnce() -> String) -> Result<(), BundleError> {
    if holds.into() == Some(true) { Ok(()) } else { wrong(reason()) }
}

fn limit(what: &str, found: usize, limit: usize) -> Result<(), BundleError> {
    if found <= limit {
        return Ok(());
    }
    Err(BundleError::Limit { what: what.to_owned(), found: found as u64, limit: limit as u64 })
}

/// Reads and checks the text of `bundle.toml`.
pub(crate) fn parse(text: &str) -> Result<(Schema, Files), BundleError> {
    let text: Text = toml::from_str(text).map_err(|e| BundleError::Schema(e.to_string()))?;
    check(text.format == 1, || format!("format {} is not known, this release reads format 1", text.format))?;
    limit("features", text.feature.len() + text.cross.len(), FEATURES_MAX)?;
    limit("heads", text.head.len(), HEADS_MAX)?;
    limit("dimension", text.dimension, VECTOR_DIMENSIONS_MAX)?;
    check(text.dimension > 0, || "dimension is 0".to_owned())?;
    check(!text.head.is_empty(), || "there is no head".to_owned())?;
    let light = light(&text.light)?;
    let numbers = [text.value_weight, text.prior_conversion, light.scale, light.offset];
    check(numbers.iter().all(|x| x.is_finite()), || "a number is not finite".to_owned())?;
    check((0.0..=1.0).contains(&text.prior_conversion), || "prior_conversion is not in [0, 1]".to_owned())?;
    name("the bundle", &text.name)?;
    let features = text.feature.iter().map(feature).collect::<Result<Vec<_>, _>>()?;
    let (item, user): (Vec<_>, Vec<_>) = features.into_iter().partition(|f| f.side == Side::Item);
    let cross = text.cross.iter().map(|c| crossing(c, &user, &item)).collect::<Result<Vec<_>, _>>()?;
    let heads = text.head.into_iter().map(head).collect::<Result<Vec<_>, _>>()?;
    let schema = Schema {
        name: text.name,
        dimension: text.dimension,
        metric: match text.metric {
            MetricText::Ip => Metric::Ip,
            MetricText::Cos => Metric::Cos,
            MetricText::L2 => Metric::L2,
        },
        value_weight: text.value_weight,
        prior_conversion: text.prior_conversion,
        light,
        user,
        item,
        cross,
        heads,
        options: options(text.ranker_options)?,
    };
    distinct(&schema)?;
    let mut files = rankers(text.files, &schema)?;
    files.light = text.light.head;
    Ok((schema, files))
}

/// A line through the similarity, or a graph in its place.
fn light(text: &LightText) -> Result<Light, BundleError> {
    match (text.scale, text.offset, &text.head) {
        (Some(scale), Some(offset), None) => Ok(Light { scale, offset }),
        (None, None, Some(_)) => Ok(Light { scale: 1.0, offset: 0.0 }),
        _ => wrong("light has either scale and offset, or a head"),
    }
}

/// A graph for all heads, or trees for each.
fn rankers(mut files: Files, schema: &Schema) -> Result<Files, BundleError> {
    check(files.ranker.is_empty() != files.trees.is_empty(), || {
        "files has either ranker (a graph, or the trees of one head) or trees (a file for each head)".to_owned()
    })?;
    if files.ranker.ends_with(".txt") {
        let [head] = schema.heads.as_slice() else {
            return wrong("the ranker's trees have one output: name a file for each head in files.trees");
        };
        files.trees.insert(head.name.clone(), std::mem::take(&mut files.ranker));
    }
    let RankerOptions { precision, activations, .. } = schema.options;
    let exact = precision == Precision::F32 && activations == ActivationFormat::F32;
    check(files.trees.is_empty() || exact, || {
        "ranker_options: trees compare numbers exactly, their precision and activations are f32".to_owned()
    })?;
    Ok(files)
}

fn name(what: &str, name: &str) -> Result<(), BundleError> {
    check(!name.is_empty() && name.len() <= STRING_BYTES_MAX, || format!("the name of {what} is empty or too long"))
}

/// Inputs of the graphs have names of their own, and so do heads; a role is played once.
fn distinct(schema: &Schema) -> Result<(), BundleError> {
    let mut seen = BTreeSet::new();
    for spec in schema.user.iter().chain(&schema.item) {
        check(seen.insert(spec.name.clone()), || format!("two features are called {}", spec.name))?;
        if spec.kind.is_weighted() {
            let weights = format!("{}.weight", spec.name);
            check(seen.insert(weights.clone()), || format!("two inputs are called {weights}"))?;
        }
    }
    for cross in &schema.cross {
        check(seen.insert(cross.name.clone()), || format!("two features are called {}", cross.name))?;
    }
    for (i, head) in schema.heads.iter().enumerate() {
        let before = &schema.heads[..i];
        check(before.iter().all(|h| h.name != head.name), || format!("two heads are called {}", head.name))?;
        let again = before.iter().any(|h| h.role.is_some() && h.role == head.role);
        check(!again, || format!("two heads play the role of {}", head.name))?;
    }
    Ok(())
}

fn options(text: OptionsText) -> Result<RankerOptions, BundleError> {
    let activations = match text.activations {
        None | Some(ActivationsText::F32) => ActivationFormat::F32,
        Some(ActivationsText::Bf16) => ActivationFormat::Bf16,
    };
    let precision = match text.precision {
        None | Some(PrecisionText::F32) => Precision::F32,
        Some(PrecisionText::Bf16) => Precision::Bf16,
        Some(PrecisionText::Int8) => Precision::Int8,
    };
    let exact = activations == ActivationFormat::F32 && precision == Precision::F32;
    let most = if exact { RankerOptions::TOLERANCE_EXACT } else { RankerOptions::TOLERANCE_MAX };
    let tolerance = text.tolerance.unwrap_or(RankerOptions::TOLERANCE_EXACT);
    // Written so that NaN fails.
    check(tolerance > 0.0 && tolerance <= most, || {
        format!("ranker_options: a tolerance of {tolerance}, above 0 and up to {most} are possible")
    })?;
    Ok(RankerOptions { precision, activations, tolerance })
}

fn feature(text: &FeatureText) -> Result<FeatureSpec, BundleError> {
    name("a feature", &text.name)?;
    let of = |what: &str| format!("feature {}: {what}", text.name);
    let buckets = |given: Option<u32>| match given {
        Some(b) if (1..=limits::BUCKETS_MAX).contains(&b) => Ok(b),
        Some(b) => wrong(of(&format!("{b} buckets, 1 to {} are possible", limits::BUCKETS_MAX))),
        None => wrong(of("buckets are missing")),
    };
    let dense_keys = text.transform.is_some() || text.mean.is_some() || text.std.is_some() || text.default.is_some();
    let kind = match text.kind {
        KindText::Dense => {
            check(text.buckets.is_none() && text.max_len.is_none(), || of("a dense feature has no buckets"))?;
            let default = text.default.unwrap_or(0.0);
            check(default.is_finite(), || of("the default is not finite"))?;
            FeatureKind::Dense { scaling: scaling(&text.name, text.transform, text.mean, text.std)?, default }
        }
        KindText::Category | KindText::Set | KindText::Sequence if dense_keys => {
            return wrong(of("transform, mean, std and default are dense"));
        }
        KindText::Category => {
            check(text.max_len.is_none(), || of("a category has no max_len"))?;
            FeatureKind::Category { buckets: buckets(text.buckets)? }
        }
        KindText::Set | KindText::Sequence => {
            let max_len = text.max_len.unwrap_or(0);
            check((1..=limits::SET_LENGTH_MAX).contains(&max_len), || {
                of(&format!("max_len is {max_len}, 1 to {} are possible", limits::SET_LENGTH_MAX))
            })?;
            let buckets = buckets(text.buckets)?;
            match text.kind {
                KindText::Sequence => FeatureKind::Sequence { buckets, max_len },
                KindText::Set | KindText::Category | KindText::Dense => FeatureKind::Set { buckets, max_len },
            }
        }
    };
    let side = match text.side {
        SideText::User => Side::User,
        SideText::Context => Side::Context,
        SideText::Item => Side::Item,
    };
    Ok(FeatureSpec { name: text.name.clone(), side, kind })
}

fn scaling(
    name: &str,
    transform: Option<TransformText>,
    mean: Option<f32>,
    std: Option<f32>,
) -> Result<Scaling, BundleError> {
    let (mean, std) = (mean.unwrap_or(0.0), std.unwrap_or(1.0));
    check(mean.is_finite() && std.is_finite() && std > 0.0, || format!("feature {name}: mean {mean}, std {std}"))?;
    let transform = match transform {
        None | Some(TransformText::None) => Transform::None,
        Some(TransformText::Log1p) => Transform::Log1p,
    };
    Ok(Scaling { transform, mean, std })
}

fn crossing(text: &CrossText, user: &[FeatureSpec], item: &[FeatureSpec]) -> Result<CrossSpec, BundleError> {
    name("a cross feature", &text.name)?;
    let of = |what: &str| format!("cross {}: {what}", text.name);
    let set = user.iter().find(|f| f.name == text.user).map(|f| matches!(f.kind, FeatureKind::Set { .. }));
    check(set, || of(&format!("{} is not a set feature of the user", text.user)))?;
    let category = item.iter().find(|f| f.name == text.item).map(|f| matches!(f.kind, FeatureKind::Category { .. }));
    check(category, || of(&format!("{} is not a category feature of the item", text.item)))?;
    let scaling = scaling(&text.name, text.transform, text.mean, text.std)?;
    Ok(CrossSpec { name: text.name.clone(), user: text.user.clone(), item: text.item.clone(), scaling })
}

fn head(text: HeadText) -> Result<HeadSpec, BundleError> {
    name("a head", &text.name)?;
    let kind = match text.kind {
        HeadKindText::Probability => HeadKind::Probability,
        HeadKindText::Value => HeadKind::Value,
    };
    let calibration = calibration(&text.name, kind, text.calibration.unwrap_or(CalibrationText::None))?;
    let role = text.role.map(|r| match r {
        RoleText::Click => HeadRole::Click,
        RoleText::ConversionGivenClick => HeadRole::ConversionGivenClick,
        RoleText::Hide => HeadRole::Hide,
        RoleText::LongClick => HeadRole::LongClick,
    });
    check(role.is_none() || kind == HeadKind::Probability, || format!("head {}: a role is a probability", text.name))?;
    let negative_rate = text.negative_rate.unwrap_or(1.0);
    check(negative_rate > 0.0 && negative_rate <= 1.0, || {
        format!(
            "head {}: negative_rate is the share of the negatives that training kept, above 0 and up to 1",
            text.name
        )
    })?;
    check(text.negative_rate.is_none() || kind == HeadKind::Probability, || {
        format!("head {}: negative_rate is for a probability", text.name)
    })?;
    Ok(HeadSpec { name: text.name, kind, role, negative_rate, calibration })
}

fn calibration(name: &str, kind: HeadKind, text: CalibrationText) -> Result<Calibration, BundleError> {
    let of = |what: &str| format!("head {name}: {what}");
    match (kind, text) {
        (_, CalibrationText::None) => Ok(Calibration::None),
        (HeadKind::Probability, CalibrationText::Platt { scale, offset }) => {
            let fine = scale.is_finite() && scale > 0.0 && offset.is_finite();
            check(fine, || of("a Platt scale is finite and above 0, so that the order of candidates stays"))?;
            Ok(Calibration::Platt { scale, offset })
        }
        (HeadKind::Probability, CalibrationText::Isotonic { x, y }) => {
            limit("isotonic points", x.len(), limits::ISOTONIC_POINTS_MAX)?;
            check(!x.is_empty() && x.len() == y.len(), || of("x and y have one value a point"))?;
            let unit = x.iter().chain(&y).all(|v| (0.0..=1.0).contains(v));
            let rising = x.windows(2).all(|w| w[0] < w[1]) && y.windows(2).all(|w| w[0] <= w[1]);
            check(unit && rising, || of("x rises strictly and y does not fall, both within [0, 1]"))?;
            Ok(Calibration::Isotonic { x, y })
        }
        (HeadKind::Value, CalibrationText::Scale { factor }) => {
            check(factor.is_finite() && factor >= 0.0, || of("the factor is finite and at least 0"))?;
            Ok(Calibration::Scale { factor })
        }
        (HeadKind::Value, CalibrationText::Platt { .. } | CalibrationText::Isotonic { .. }) => {
            wrong(of("a value is calibrated by a factor"))
        }
        (HeadKind::Probability, CalibrationText::Scale { .. }) => wrong(of("a probability has no factor")),
    }
}

#[cfg(test)]
mod tests;
