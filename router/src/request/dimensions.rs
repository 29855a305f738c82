//! What do the terms of a request mean to the ads of the pinned catalogue?
//!
//! The catalogue says which dimensions there are ([`Dimensions`]). Where it declares them, a name or value that it does
//! not know is a mistake, answered with the nearest one. Where it only gathered them from its ads, another dimension
//! is counted and sent on as it is: the next catalogue may target by it, and no ad of this one does.

use super::{DraftTerm, RequestError, Term};
use gavel_proto::hash::value_hash;
use gavel_proto::targeting::{DimensionKind, keyword, nearest};
use std::collections::{BTreeMap, HashMap};

/// Names that a message about a wrong one lists.
const LISTED: usize = 8;

/// One dimension.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dimension {
    /// What its values are.
    pub kind: DimensionKind,
    /// The only values there are, by their hashes; empty = any.
    pub values: HashMap<u64, String>,
}

/// The dimensions of a catalogue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dimensions {
    /// Whether the catalogue names all there are.
    pub declared: bool,
    /// By name.
    pub known: BTreeMap<String, Dimension>,
}

/// The terms of a request, hashed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resolved {
    /// What the nodes are told.
    pub terms: Vec<Term>,
    /// How many are on dimensions that no ad uses.
    pub unknown: u32,
}

impl Dimensions {
    /// Hashes the terms of a request.
    ///
    /// # Errors
    /// [`RequestError::Invalid`] for what the catalogue does not know.
    pub fn resolve(&self, all: &[DraftTerm]) -> Result<Resolved, RequestError> {
        let mut resolved = Resolved::default();
        for stated in all {
            match self.known.get(&stated.dimension) {
                Some(dimension) => resolved.terms.push(dimension.term(stated)?),
                None if self.declared => return Err(self.unknown(&stated.dimension)),
                None => {
                    resolved.unknown += 1;
                    let kind = if stated.number.is_some() { DimensionKind::Number } else { DimensionKind::Set };
                    resolved.terms.push(Dimension { kind, ..Dimension::default() }.term(stated)?);
                }
            }
        }
        Ok(resolved)
    }

    fn unknown(&self, name: &str) -> RequestError {
        let known = self.known.keys().map(String::as_str);
        let hint = nearest(name, known.clone()).map_or_else(
            || format!("it declares {}", known.take(LISTED).collect::<Vec<_>>().join(", ")),
            |near| format!("did you mean {near}?"),
        );
        RequestError::Invalid(format!("terms name {name}, which the catalogue does not declare: {hint}"))
    }
}

impl Dimension {
    fn term(&self, stated: &DraftTerm) -> Result<Term, RequestError> {
        let name = &stated.dimension;
        let mut term = Term { dimension: value_hash(name), values: Vec::new(), number: None };
        match self.kind {
            DimensionKind::Number => term.number = Some(number(stated)?),
            DimensionKind::Set | DimensionKind::Keyword if stated.number.is_some() => {
                return invalid(format!("terms of {name}: it is no number: give \"values\": [..]"));
            }
            DimensionKind::Set => {
                for value in &stated.values {
                    let hash = value_hash(value);
                    if !self.values.is_empty() && !self.values.contains_key(&hash) {
                        return self.unknown_value(name, value);
                    }
                    term.values.push(hash);
                }
            }
            DimensionKind::Keyword => {
                let normal = stated.values.iter().map(|value| keyword(value)).filter(|normal| !normal.is_empty());
                // A closed list of keywords says which ones ads may use; what people search for is open.
                term.values = normal.map(|normal| value_hash(&normal)).collect();
            }
        }
        Ok(term)
    }

    fn unknown_value<T>(&self, name: &str, value: &str) -> Result<T, RequestError> {
        let near = nearest(value, self.values.values().map(String::as_str));
        let hint = near.map_or_else(|| "see its targeting.toml".to_owned(), |near| format!("did you mean {near}?"));
        invalid(format!("terms of {name}: the catalogue does not declare the value {value}: {hint}"))
    }
}

/// The number of a term: said as one, or as its only value.
fn number(stated: &DraftTerm) -> Result<f64, RequestError> {
    let written = match (stated.number, stated.values.as_slice()) {
        (Some(number), []) => Some(number),
        (None, [text]) => text.trim().parse().ok(),
        _ => None,
    };
    match written.filter(|number| number.is_finite()) {
        Some(number) => Ok(number),
        None => invalid(format!("terms of {}: give one finite number, as \"number\": 34", stated.dimension)),
    }
}

fn invalid<T>(message: String) -> Result<T, RequestError> {
    Err(RequestError::Invalid(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dimensions(declared: bool) -> Dimensions {
        let of = |kind, values: &[&str]| Dimension {
            kind,
            values: values.iter().map(|v| (value_hash(v), (*v).to_owned())).collect(),
        };
        let known = [
            ("store", of(DimensionKind::Set, &[])),
            ("device", of(DimensionKind::Set, &["phone", "tablet"])),
            ("query", of(DimensionKind::Keyword, &["shoes"])),
            ("age", of(DimensionKind::Number, &[])),
        ];
        Dimensions { declared, known: known.into_iter().map(|(name, d)| (name.to_owned(), d)).collect() }
    }

    fn stated(dimension: &str, values: &[&str], number: Option<f64>) -> DraftTerm {
        let values = values.iter().map(|v| (*v).to_owned()).collect();
        DraftTerm { dimension: dimension.to_owned(), values, number }
    }

    #[test]
    fn terms_take_the_form_of_their_kind() {
        let terms = [
            stated("store", &["330", "nowhere"], None),
            stated("query", &["Men's  SHOES", "?"], None),
            stated("age", &[], Some(34.5)),
        ];
        let resolved = dimensions(true).resolve(&terms).expect("known").terms;
        assert_eq!(resolved[0].values, [value_hash("330"), value_hash("nowhere")]);
        assert_eq!(resolved[1].values, [value_hash("mens shoes")]);
        assert_eq!((resolved[2].number, resolved[2].values.len()), (Some(34.5), 0));
        assert_eq!(
            dimensions(true).resolve(&[stated("age", &["34"], None)]).expect("a number").terms[0].number,
            Some(34.0)
        );
    }

    #[test]
    fn what_does_not_exist_is_named() {
        for (term, expected) in [
            (
                stated("stroe", &["1"], None),
                "terms name stroe, which the catalogue does not declare: did you mean store?",
            ),
            (stated("geo", &["1"], None), "does not declare: it declares age, device, query, store"),
            (stated("device", &["fone"], None), "does not declare the value fone: see its targeting.toml"),
            (stated("device", &["Phone"], None), "does not declare the value Phone: did you mean phone?"),
            (stated("age", &["old"], None), "terms of age: give one finite number"),
            (stated("age", &["3"], Some(4.0)), "terms of age: give one finite number"),
            (stated("age", &[], Some(f64::NAN)), "terms of age: give one finite number"),
            (stated("store", &[], Some(4.0)), "terms of store: it is no number"),
        ] {
            let error = dimensions(true).resolve(&[term]).expect_err(expected);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn a_catalogue_that_declares_nothing_takes_other_dimensions() {
        let terms = [stated("geo", &["1"], None), stated("store", &["1"], None), stated("height", &[], Some(1.8))];
        let resolved = dimensions(false).resolve(&terms).expect("taken");
        assert_eq!((resolved.terms.len(), resolved.unknown), (3, 2));
        assert_eq!(
            (resolved.terms[0].values.as_slice(), resolved.terms[2].number),
            (&[value_hash("1")][..], Some(1.8))
        );
    }
}
