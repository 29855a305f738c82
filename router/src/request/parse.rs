//! Does a draft keep every limit?

use super::{AdQuery, Blocked, Draft, DraftOrganic, DraftTerm, DraftValue, Organic, RequestError};
use crate::allocation::Engagement;
use gavel_model::FeatureValue;
use gavel_proto::coverage::WHOLE;
use gavel_proto::deadline::{Deadline, Instant};
use gavel_proto::hash::value_hash;
use gavel_proto::limits::{
    BLOCKED_MAX, DEADLINE_MS_MAX, DEADLINE_MS_MIN, FEATURES_MAX, ORGANIC_MAX, SET_VALUES_MAX, SLOTS_MAX,
    STRING_BYTES_MAX, TERMS_MAX,
};
use std::collections::{BTreeMap, HashSet};

/// Least coverage when the request states none, in ten-thousandths.
const COVERAGE_PARTS_DEFAULT: u32 = 9_000;

/// Latest time of a request: the year 9999. Larger numbers are milliseconds by mistake.
const TS_MAX: i64 = 253_402_300_799;

/// When a request came, and how long its caller will wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// On this process's clock.
    pub at: Instant,
    /// What the transport says the caller waits at most (`grpc-timeout`).
    pub patience_us: Option<u64>,
}

/// Checks a draft.
///
/// # Errors
/// [`RequestError::Invalid`] with what to change; [`RequestError::Late`] when the caller's time is up already.
pub fn parse(draft: Draft, arrival: Arrival) -> Result<AdQuery, RequestError> {
    let deadline = deadline(draft.deadline_ms, arrival)?;
    text("request_id", &draft.request_id)?;
    text("user_id", &draft.user_id)?;
    name("placement", &draft.placement)?;
    if draft.slots > SLOTS_MAX {
        return invalid(format!("slots is {}: ask for at most {SLOTS_MAX}", draft.slots));
    }
    Ok(AdQuery {
        request_id: draft.request_id,
        user_id: Some(draft.user_id).filter(|id| !id.is_empty()),
        user_features: features("user_features", draft.user_features)?,
        context: features("context", draft.context)?,
        terms: terms(draft.terms)?,
        unix_s: time(draft.ts)?,
        placement: draft.placement,
        slots: draft.slots,
        organic: organic(draft.organic)?,
        deadline,
        coverage_parts_min: coverage_parts(draft.min_coverage)?,
        blocked: blocked(draft.blocked_advertisers, &draft.blocked_categories, draft.blocked_campaigns)?,
        seed: Some(draft.seed).filter(|seed| *seed != 0),
    })
}

/// Checks and hashes the value of a feature; `what` names it in the error.
///
/// # Errors
/// [`RequestError::Invalid`] with what to change.
pub fn feature_value(what: &str, value: DraftValue) -> Result<FeatureValue, RequestError> {
    match value {
        DraftValue::Category(category) => {
            text(what, &category)?;
            Ok(FeatureValue::Category(value_hash(&category)))
        }
        DraftValue::Dense(number) => {
            // The model computes in f32: what overflows there is as little a number as infinity.
            let narrow = number as f32;
            if !narrow.is_finite() {
                return invalid(format!("{what} is {number}: give a finite number, or leave it out"));
            }
            Ok(FeatureValue::Dense(narrow))
        }
        DraftValue::Set { values, weights } => set(what, &values, &weights),
        DraftValue::List(values) => set(what, &values, &[]),
    }
}

fn set(what: &str, values: &[String], weights: &[f32]) -> Result<FeatureValue, RequestError> {
    at_most(what, values.len(), SET_VALUES_MAX)?;
    if !weights.is_empty() && weights.len() != values.len() {
        let (values, weights) = (values.len(), weights.len());
        return invalid(format!("{what} has {values} values and {weights} weights: give as many, or no weights"));
    }
    if let Some(weight) = weights.iter().find(|w| !w.is_finite()) {
        return invalid(format!("{what} has a weight of {weight}: give finite weights"));
    }
    let mut pairs: Vec<(u64, f32)> = Vec::with_capacity(values.len());
    for (index, value) in values.iter().enumerate() {
        text(what, value)?;
        pairs.push((value_hash(value), weights.get(index).copied().unwrap_or(1.0)));
    }
    // In the order given, with repetitions: the model may want a sequence.
    Ok(FeatureValue::Set(pairs))
}

fn deadline(deadline_ms: u64, arrival: Arrival) -> Result<Deadline, RequestError> {
    let Some(Deadline(own)) = Deadline::of_request(arrival.at, deadline_ms) else {
        return invalid(format!("deadline_ms is {deadline_ms}: give {DEADLINE_MS_MIN} to {DEADLINE_MS_MAX}, or 0"));
    };
    let Some(patience_us) = arrival.patience_us else { return Ok(Deadline(own)) };
    if patience_us == 0 {
        return Err(RequestError::Late("the way here"));
    }
    // Strictly before the caller gives up (RQ2).
    let patient = Instant(arrival.at.0.saturating_add(patience_us - patience_us.div_ceil(20)));
    Ok(Deadline(own.min(patient)))
}

fn coverage_parts(min_coverage: f64) -> Result<u32, RequestError> {
    if min_coverage == 0.0 {
        return Ok(COVERAGE_PARTS_DEFAULT);
    }
    if !(0.0..=1.0).contains(&min_coverage) {
        return invalid(format!("min_coverage is {min_coverage}: give a fraction from 0 to 1"));
    }
    // Within 0..=10,000; what is asked for is rounded up, less what binary fractions add to decimal ones.
    Ok((min_coverage * f64::from(WHOLE) - 1e-6).ceil() as u32)
}

fn features(side: &str, features: BTreeMap<String, DraftValue>) -> Result<Vec<(String, FeatureValue)>, RequestError> {
    at_most(side, features.len(), FEATURES_MAX)?;
    let one = |(feature, value): (String, DraftValue)| {
        name(&format!("a name in {side}"), &feature)?;
        let value = feature_value(&format!("{side}.{feature}"), value)?;
        Ok((feature, value))
    };
    features.into_iter().map(one).collect()
}

fn terms(drafts: Vec<DraftTerm>) -> Result<Vec<DraftTerm>, RequestError> {
    at_most("terms", drafts.len(), TERMS_MAX)?;
    let mut dimensions = HashSet::with_capacity(drafts.len());
    for draft in &drafts {
        name("a dimension in terms", &draft.dimension)?;
        let what = format!("terms of {}", draft.dimension);
        at_most(&what, draft.values.len(), SET_VALUES_MAX)?;
        draft.values.iter().try_for_each(|value| text(&what, value))?;
        if !dimensions.insert(draft.dimension.as_str()) {
            return invalid(format!("terms name {} twice: put its values into one entry", draft.dimension));
        }
    }
    Ok(drafts)
}

fn time(ts: u64) -> Result<Option<i64>, RequestError> {
    match i64::try_from(ts) {
        Ok(0) => Ok(None),
        Ok(seconds) if seconds <= TS_MAX => Ok(Some(seconds)),
        _ => invalid(format!("ts is {ts}: give unix seconds, or 0 for now")),
    }
}

fn organic(drafts: Vec<DraftOrganic>) -> Result<Vec<Organic>, RequestError> {
    at_most("organic", drafts.len(), ORGANIC_MAX)?;
    let one = |draft: DraftOrganic| {
        name("an id in organic", &draft.id)?;
        match Engagement::from_units(draft.utility) {
            Some(engagement) => Ok(Organic { id: draft.id, engagement }),
            None => invalid(format!("the utility of {} is {}: give a finite number", draft.id, draft.utility)),
        }
    };
    drafts.into_iter().map(one).collect()
}

fn blocked(advertisers: Vec<u64>, categories: &[String], campaigns: Vec<u64>) -> Result<Blocked, RequestError> {
    at_most("blocked_advertisers", advertisers.len(), BLOCKED_MAX)?;
    at_most("blocked_categories", categories.len(), BLOCKED_MAX)?;
    at_most("blocked_campaigns", campaigns.len(), BLOCKED_MAX)?;
    categories.iter().try_for_each(|category| text("a name in blocked_categories", category))?;
    Ok(Blocked { advertisers, categories: categories.iter().map(|c| value_hash(c)).collect(), campaigns })
}

fn at_most(what: &str, found: usize, limit: usize) -> Result<(), RequestError> {
    if found > limit {
        return invalid(format!("{what} has {found} entries: give at most {limit}"));
    }
    Ok(())
}

fn text(what: &str, value: &str) -> Result<(), RequestError> {
    if value.len() > STRING_BYTES_MAX {
        return invalid(format!("{what} has {} bytes: give at most {STRING_BYTES_MAX}", value.len()));
    }
    Ok(())
}

fn name(what: &str, value: &str) -> Result<(), RequestError> {
    if value.is_empty() {
        return invalid(format!("{what} is empty: name one"));
    }
    text(what, value)
}

fn invalid<T>(message: String) -> Result<T, RequestError> {
    Err(RequestError::Invalid(message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Arrival = Arrival { at: Instant(1_000_000), patience_us: None };

    fn draft() -> Draft {
        Draft { placement: "feed".into(), ..Draft::default() }
    }

    fn check(change: impl FnOnce(&mut Draft), expected: &str) {
        let mut draft = draft();
        change(&mut draft);
        let error = parse(draft, NOW).expect_err(expected);
        assert_eq!(error.code(), gavel_proto::code::Code::InvalidArgument);
        assert!(error.to_string().contains(expected), "{error}");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_remedy() {
        check(|d| d.placement.clear(), "placement is empty: name one");
        check(|d| d.slots = 17, "slots is 17: ask for at most 16");
        check(|d| d.deadline_ms = 501, "deadline_ms is 501: give 10 to 500");
        check(|d| d.deadline_ms = 9, "give 10 to 500");
        check(|d| d.min_coverage = 1.5, "min_coverage is 1.5");
        check(|d| d.min_coverage = f64::NAN, "min_coverage is NaN");
        check(|d| d.user_id = "x".repeat(257), "user_id has 257 bytes: give at most 256");
        check(|d| drop(d.context.insert("hour".into(), DraftValue::Dense(f64::INFINITY))), "context.hour is inf");
        check(|d| drop(d.context.insert("hour".into(), DraftValue::Dense(1e300))), "give a finite number");
        check(|d| drop(d.context.insert(String::new(), DraftValue::Dense(1.0))), "a name in context is empty");
        let lopsided = DraftValue::Set { values: vec!["a".into(), "b".into()], weights: vec![1.0] };
        check(|d| drop(d.user_features.insert("s".into(), lopsided)), "2 values and 1 weights");
        let heavy = DraftValue::Set { values: vec!["a".into()], weights: vec![f32::NAN] };
        check(|d| drop(d.user_features.insert("s".into(), heavy)), "weight of NaN");
        let store = DraftTerm { dimension: "store".into(), values: vec!["7".into()], number: None };
        check(|d| d.terms = vec![store.clone(), store], "name store twice");
        check(|d| d.organic = vec![DraftOrganic { id: "o".into(), utility: f64::NAN }], "the utility of o is NaN");
        check(|d| d.blocked_campaigns = vec![1; 1_025], "1025 entries: give at most 1024");
    }

    #[test]
    fn the_caller_s_patience_bounds_the_deadline() {
        let patient = Arrival { at: Instant(0), patience_us: Some(40_000) };
        assert_eq!(parse(draft(), patient).expect("legal").deadline, Deadline(Instant(38_000)));
        assert_eq!(parse(draft(), Arrival { at: Instant(0), patience_us: None }).expect("legal").deadline.0.0, 100_000);
        let late = Arrival { at: Instant(0), patience_us: Some(0) };
        assert_eq!(parse(draft(), late), Err(RequestError::Late("the way here")));
    }

    #[test]
    fn coverage_is_rounded_up_and_defaults_to_nine_tenths() {
        let parts = |min_coverage| parse(Draft { min_coverage, ..draft() }, NOW).expect("legal").coverage_parts_min;
        assert_eq!((parts(0.0), parts(0.9), parts(1.0), parts(0.00001)), (9_000, 9_000, 10_000, 1));
    }

    #[test]
    fn json_mirrors_the_message_and_refuses_misspellings() {
        let text = r#"{"placement": "feed", "user_features": {"age": 30, "city": "Oslo",
            "bought": {"values": ["b", "a", "b"], "weights": [2, 9, 1]}, "seen": ["d", "c", "d"]}, "terms": [{"dimension": "store", "values": ["7"]}]}"#;
        let query = parse(serde_json::from_str(text).expect("a draft"), NOW).expect("legal");
        assert_eq!(query.user_features[0], ("age".into(), FeatureValue::Dense(30.0)));
        let FeatureValue::Set(pairs) = &query.user_features[1].1 else { panic!("a set") };
        let [a, b, c, d] = ["a", "b", "c", "d"].map(value_hash);
        assert_eq!(*pairs, [(b, 2.0), (a, 9.0), (b, 1.0)], "order and repetitions stay");
        assert_eq!(query.user_features[3].1, FeatureValue::Set(vec![(d, 1.0), (c, 1.0), (d, 1.0)]));
        for bad in [r#"{"plaecment": "feed"}"#, r#"{"slots": -1}"#, r#"{"context": {"a": true}}"#, "null", "{"] {
            assert!(serde_json::from_str::<Draft>(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(slots: u32, deadline_ms: u64, min_coverage: f64, number: f64, patience in any::<Option<u64>>(), text: String) {
            let context = BTreeMap::from([(text.clone(), DraftValue::Dense(number))]);
            let organic = vec![DraftOrganic { id: text.clone(), utility: number }];
            let draft = Draft { placement: text, slots, deadline_ms, min_coverage, context, organic, ..Draft::default() };
            let _ = parse(draft, Arrival { at: Instant(5), patience_us: patience });
        }
    }
}
