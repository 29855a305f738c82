//! Does this dimension exist, and may an ad ask this of it?
//!
//! A folder may declare its dimensions in `targeting.toml`. Then a name that is not there is a mistake, here and in
//! requests. Without it the dimensions are those that the ads use, and the first use decides the kind.

use super::LoadError;
use gavel_proto::limits::{BLOCK_BYTES_MAX, DIMENSIONS_MAX, RANGES_MAX, SET_VALUES_MAX, STRING_BYTES_MAX};
use gavel_proto::targeting::{DimensionKind, Interval, keyword, nearest};
use gavel_proto::wire;
use prost::Message;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The file in a catalogue folder.
const FILE: &str = "targeting.toml";
/// Values that a message about a wrong one lists.
const LISTED: usize = 8;

/// The file as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    dimensions: BTreeMap<String, WrittenDimension>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct WrittenDimension {
    kind: Option<String>,
    values: Vec<String>,
}

/// One dimension.
#[derive(Debug, Default)]
struct Dimension {
    kind: DimensionKind,
    /// Empty: any value.
    values: BTreeSet<String>,
}

/// The dimensions of a catalogue.
#[derive(Debug, Default)]
pub(super) struct Dimensions {
    declared: bool,
    known: BTreeMap<String, Dimension>,
}

impl Dimensions {
    /// What the catalogue at `path` declares.
    pub(super) fn of(path: &Path) -> Result<Self, LoadError> {
        let file = path.join(FILE);
        if !file.is_file() {
            return Ok(Self::default());
        }
        let text = std::fs::read_to_string(&file).map_err(|e| LoadError::Io(file.clone(), e))?;
        Self::parse(&text).map_err(|reason| LoadError::Header { path: file, reason })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let written: Written = toml::from_str(text).map_err(|e| e.to_string().trim_end().to_owned())?;
        if written.dimensions.len() > DIMENSIONS_MAX {
            return Err(format!("{} dimensions, at most {DIMENSIONS_MAX}", written.dimensions.len()));
        }
        let mut known = BTreeMap::new();
        for (name, dimension) in written.dimensions {
            let read = dimension.read().map_err(|reason| format!("dimension {name:?}: {reason}"))?;
            if name.is_empty() || name.len() > STRING_BYTES_MAX {
                return Err(format!("dimension {name:?}: a name has 1 to {STRING_BYTES_MAX} bytes"));
            }
            known.insert(name, read);
        }
        let all = Self { declared: true, known };
        // They travel in one block.
        if all.to_wire().encoded_len() > BLOCK_BYTES_MAX / 2 {
            return Err(format!("more than {} bytes of values: leave the largest lists open", BLOCK_BYTES_MAX / 2));
        }
        Ok(all)
    }

    /// Checks what an ad asks for, and puts keywords into their normal form.
    pub(super) fn check(&mut self, ad: &mut wire::Ad) -> Result<(), String> {
        for rule in &mut ad.targeting {
            let of_rule = if rule.ranges.is_empty() { DimensionKind::Set } else { DimensionKind::Number };
            if !self.declared && !self.known.contains_key(&rule.dimension) {
                if self.known.len() == DIMENSIONS_MAX {
                    return Err(format!("dimension {:?} is one more than {DIMENSIONS_MAX}", rule.dimension));
                }
                self.known.insert(rule.dimension.clone(), Dimension { kind: of_rule, ..Dimension::default() });
            }
            let Some(dimension) = self.known.get(&rule.dimension) else {
                return Err(unknown("dimension", &rule.dimension, self.known.keys()));
            };
            dimension.check(rule).map_err(|reason| format!("dimension {:?}: {reason}", rule.dimension))?;
        }
        Ok(())
    }

    /// For the routers.
    pub(super) fn to_wire(&self) -> wire::DimensionSet {
        let dimension = |(name, dimension): (&String, &Dimension)| wire::Dimension {
            name: name.clone(),
            kind: dimension.kind.wire().into(),
            values: dimension.values.iter().cloned().collect(),
        };
        wire::DimensionSet { declared: self.declared, dimensions: self.known.iter().map(dimension).collect() }
    }
}

impl WrittenDimension {
    fn read(self) -> Result<Dimension, String> {
        let named = self.kind.as_deref().unwrap_or("set");
        let kind = DimensionKind::ALL.into_iter().find(|kind| kind.name() == named);
        let kind = kind.ok_or_else(|| format!("kind {named:?} is not one of set, keyword, number"))?;
        if kind == DimensionKind::Number && !self.values.is_empty() {
            return Err("a number has no list of values".to_owned());
        }
        if let Some(value) = self.values.iter().find(|v| v.is_empty() || v.len() > STRING_BYTES_MAX) {
            return Err(format!("value {value:?}: 1 to {STRING_BYTES_MAX} bytes"));
        }
        let normal = |value: String| if kind == DimensionKind::Keyword { keyword(&value) } else { value };
        Ok(Dimension { kind, values: self.values.into_iter().map(normal).collect() })
    }
}

impl Dimension {
    fn check(&self, rule: &mut wire::TargetingRule) -> Result<(), String> {
        let words = rule.any_of.len() + rule.none_of.len();
        match self.kind {
            DimensionKind::Number if words > 0 => return Err("a number has ranges, no any_of and none_of".to_owned()),
            DimensionKind::Set | DimensionKind::Keyword if !rule.ranges.is_empty() => {
                return Err(format!("a {} has any_of and none_of, no ranges", self.kind.name()));
            }
            DimensionKind::Number | DimensionKind::Set | DimensionKind::Keyword => {}
        }
        if words > SET_VALUES_MAX || rule.ranges.len() > RANGES_MAX {
            return Err(format!("more than {SET_VALUES_MAX} values or {RANGES_MAX} ranges"));
        }
        if rule.ranges.iter().any(|range| Interval::of_wire(range).is_none()) {
            return Err(
                "a range needs finite ends with something between them, min or above and max or below".to_owned()
            );
        }
        for value in rule.any_of.iter_mut().chain(&mut rule.none_of) {
            if self.kind == DimensionKind::Keyword {
                let normal = keyword(value);
                if normal.is_empty() {
                    return Err(format!("nothing is left of keyword {value:?} in its normal form"));
                }
                *value = normal;
            }
            if !self.values.is_empty() && !self.values.contains(value.as_str()) {
                return Err(unknown("value", value, self.values.iter()));
            }
        }
        Ok(())
    }
}

fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a String> + Clone) -> String {
    match nearest(name, known.clone().map(String::as_str)) {
        Some(near) => format!("{what} {name:?} is not declared in {FILE}: did you mean {near:?}?"),
        None => {
            let listed: Vec<&str> = known.take(LISTED).map(String::as_str).collect();
            format!("{what} {name:?} is not declared in {FILE}, which has {}", listed.join(", "))
        }
    }
}
