//! Would this clearing come out the same again?
//!
//! A [`ClearingRecord`] holds everything that a clearing was made from (candidates with their integers, the
//! terms, the page, the epoch with its delivery version) and everything that came out (winners, prices, places,
//! and for each other candidate the reason). It travels as one line of JSON. [`replay()`] reads a line, clears
//! it anew from its inputs alone with the code that serves, and writes the line again: the two must be equal
//! byte for byte.
//!
//! The key of the ties is not in the line, only its id and the tie of each candidate, hashes that the key cannot be
//! computed back from: whoever reads a log must not be able to foresee who wins the next tie. An auction's id is the
//! exception: it is the `seed` of a request that has one, and whoever repeats the seed repeats the ties of the line.

mod record;

use gavel_proto::limits::{CLEAR_BIDS_MAX, ORGANIC_MAX, SLOTS_MAX};

pub use record::{ClearingInputs, ClearingRecord, LoggedCandidate, slot_ads};

use crate::allocation::{Placed, allocate};
use crate::auction::{AuctionRule, Clearing, RuleError, outcomes, reclear_without};
use crate::merge::{Candidate, MergeError, OfferError, Ranking};

/// Why a line cannot be cleared anew.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Not a line of ours.
    #[error("not a clearing: {0}")]
    NotARecord(String),
    /// Written by another version.
    #[error("a clearing of format {0}; this version reads format {FORMAT}")]
    Format(u32),
    /// More than any clearing has.
    #[error("{0}: more than a clearing can have")]
    TooMany(&'static str),
    /// The terms contradict each other.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// A candidate cannot be priced.
    #[error(transparent)]
    Offer(#[from] OfferError),
    /// An ad is there twice.
    #[error(transparent)]
    Merge(#[from] MergeError),
}

/// The format of the line.
pub const FORMAT: u32 = 1;

/// Clears a line anew and writes it again.
///
/// # Errors
/// When the line does not hold what a clearing needs.
pub fn replay(line: &str) -> Result<String, ReplayError> {
    let not_a_record = |error: serde_json::Error| ReplayError::NotARecord(error.to_string());
    let record: ClearingRecord = serde_json::from_str(line).map_err(not_a_record)?;
    serde_json::to_string(&clear(record.inputs)?).map_err(not_a_record)
}

/// What a request was answered with.
#[derive(Clone, Debug)]
pub struct Served {
    /// The candidates.
    pub ranking: Ranking,
    /// Winners and prices.
    pub clearing: Clearing,
    /// The page, from the top.
    pub page: Vec<Placed>,
}

/// The line of a clearing as it was served: what came out is what went out, and not what comes out again.
///
/// # Errors
/// When the terms contradict each other.
pub fn served_line(inputs: ClearingInputs, served: &Served) -> Result<String, ReplayError> {
    let rule = AuctionRule::new(inputs.terms.clone())?;
    let outcomes = outcomes(&served.ranking, &rule, &served.clearing);
    let record = record::record(inputs, &served.ranking, &served.clearing, &served.page, &outcomes);
    serde_json::to_string(&record).map_err(|error| ReplayError::NotARecord(error.to_string()))
}

/// Clears the inputs.
///
/// # Errors
/// When they do not hold together.
pub fn clear(inputs: ClearingInputs) -> Result<ClearingRecord, ReplayError> {
    check(&inputs)?;
    let rule = AuctionRule::new(inputs.terms.clone())?;
    let candidates: Vec<Candidate> =
        inputs.candidates.iter().map(|logged| Candidate::new(logged.offer())).collect::<Result<_, _>>()?;
    let ranking = Ranking::sorted(&candidates)?;
    let clearing = reclear_without(&ranking, &rule, &inputs.failed);
    let engagement = |candidate: &Candidate| {
        let logged = inputs.candidates.iter().find(|logged| logged.ad == candidate.offer().ad);
        logged.map(|logged| logged.engagement).unwrap_or_default()
    };
    let ads = slot_ads(&ranking, &clearing, engagement);
    let page = allocate(&ads, &inputs.organic, &inputs.page);
    let outcomes = outcomes(&ranking, &rule, &clearing);
    Ok(record::record(inputs, &ranking, &clearing, &page, &outcomes))
}

/// Nothing larger than what a router writes is computed.
fn check(inputs: &ClearingInputs) -> Result<(), ReplayError> {
    if inputs.format != FORMAT {
        return Err(ReplayError::Format(inputs.format));
    }
    let lengths = [
        ("slots", inputs.terms.slots, SLOTS_MAX as usize),
        ("position factors", inputs.terms.position_factors_ppm.len(), SLOTS_MAX as usize),
        ("candidates", inputs.candidates.len(), CLEAR_BIDS_MAX),
        ("organic items", inputs.organic.len(), ORGANIC_MAX),
        ("positions", inputs.page.positions, ORGANIC_MAX + SLOTS_MAX as usize),
        ("failed ads", inputs.failed.len(), SLOTS_MAX as usize),
    ];
    match lengths.into_iter().find(|(_, length, most)| length > most) {
        Some((what, _, _)) => Err(ReplayError::TooMany(what)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
