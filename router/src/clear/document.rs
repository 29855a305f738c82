//! Which auctions does this file state?
//!
//! One JSON object, or an array of them. Read per auction: `id`, `mechanism` (gsp, vcg, first_price),
//! `bids` in currency units, `weights` (absent: all equal), `position_factors`, one per slot from most to
//! least seen, `reserve_per_click` (absent or null: none), and `page_threshold` (absent or null: none), which a bid times
//! its weight times the factor of its slot has to reach. Other fields are left alone, so that a file may carry its sources
//! and expectations.

use gavel_proto::limits::{CLEAR_AUCTIONS_MAX, CLEAR_BIDS_MAX, CLEAR_FILE_BYTES_MAX, CLEAR_SLOTS_MAX};
use gavel_proto::money::PPM;
use num_bigint::{BigInt, BigUint};
use num_rational::BigRational;
use num_traits::{One, Zero};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::number::{self, NumberError};
use super::{ClearError, Fault};
use crate::auction::Mechanism;

/// One auction in integers: money in micros, weights and factors scaled together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatedAuction {
    /// Its name, or its place in the file.
    pub id: String,
    /// How prices come about.
    pub mechanism: Mechanism,
    /// Micros.
    pub bids: Vec<u64>,
    /// One per bid, above 0.
    pub weights: Vec<BigUint>,
    /// One per slot, above 0, not rising.
    pub factors: Vec<BigUint>,
    /// Micros per event.
    pub reserve: u64,
    /// A millionth of what micros times weight times factor have to reach in these integers; 0 = nothing.
    pub page_threshold: BigUint,
}

/// Whether the file is one auction or a list of them; the answer takes the same form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One object.
    Single,
    /// An array.
    List,
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    mechanism: Option<&'a RawValue>,
    #[serde(borrow)]
    bids: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    weights: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    position_factors: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    reserve_per_click: Option<&'a RawValue>,
    #[serde(borrow)]
    page_threshold: Option<&'a RawValue>,
}

/// Reads the auctions of a file.
pub fn read(text: &str) -> Result<(Form, Vec<StatedAuction>), ClearError> {
    if text.len() > CLEAR_FILE_BYTES_MAX {
        return Err(ClearError::TooLarge);
    }
    // A byte order mark is no JSON, and some editors write one.
    let text = text.trim_start_matches('\u{feff}').trim();
    let json = |error: serde_json::Error| ClearError::NotJson(error.to_string());
    if text.starts_with('[') {
        let items: Vec<&RawValue> = serde_json::from_str(text).map_err(json)?;
        if items.len() > CLEAR_AUCTIONS_MAX {
            return Err(ClearError::TooManyAuctions(items.len()));
        }
        let auctions: Result<Vec<_>, _> = items.iter().enumerate().map(|(i, raw)| stated(raw.get(), i)).collect();
        return Ok((Form::List, auctions?));
    }
    if text.starts_with('{') {
        return Ok((Form::Single, vec![stated(text, 0)?]));
    }
    Err(ClearError::NotJson("the file holds neither an object nor an array".to_owned()))
}

fn stated(text: &str, index: usize) -> Result<StatedAuction, ClearError> {
    let json = |error: serde_json::Error| ClearError::NotAnAuction { index, reason: error.to_string() };
    let document: Document<'_> = serde_json::from_str(text).map_err(json)?;
    let id = document.id.map_or_else(|| index.to_string(), |raw| plain(raw.get()));
    auction(&document, id.clone()).map_err(|fault| ClearError::Auction { id, fault })
}

fn auction(document: &Document<'_>, id: String) -> Result<StatedAuction, Fault> {
    let raw_bids = document.bids.as_deref().ok_or(Fault::Missing("bids"))?;
    let raw_factors = document.position_factors.as_deref().ok_or(Fault::Missing("position_factors"))?;
    let mechanism = mechanism(document.mechanism.ok_or(Fault::Missing("mechanism"))?.get())?;
    if raw_bids.len() > CLEAR_BIDS_MAX {
        return Err(Fault::TooMany { what: "bids", count: raw_bids.len(), max: CLEAR_BIDS_MAX });
    }
    if raw_factors.len() > CLEAR_SLOTS_MAX {
        return Err(Fault::TooMany { what: "position_factors", count: raw_factors.len(), max: CLEAR_SLOTS_MAX });
    }
    let (mut weights, weight_scale) = match document.weights.as_deref() {
        Some(weights) if weights.len() != raw_bids.len() => {
            return Err(Fault::Lengths { bids: raw_bids.len(), weights: weights.len() });
        }
        Some(weights) => positive("weights", weights)?,
        None => (vec![BigUint::one(); raw_bids.len()], BigRational::one()),
    };
    let (factors, factor_scale) = positive("position_factors", raw_factors)?;
    if let Some(index) = factors.windows(2).position(|pair| pair[1] > pair[0]) {
        return Err(Fault::FactorsRise { index: index + 1 });
    }
    let reserve = document.reserve_per_click.map_or(Ok(0), |raw| match raw.get() {
        "null" => Ok(0),
        _ => number::micros(raw).map_err(|error| Fault::Number { what: "reserve_per_click", index: None, error }),
    })?;
    let threshold = threshold(document.page_threshold)? * (weight_scale * factor_scale * BigInt::from(PPM));
    if !threshold.is_zero() {
        // The auction rounds the least score of a slot up to a whole number: a millionth of a weight is not missed.
        weights.iter_mut().for_each(|weight| *weight *= PPM);
    }
    Ok(StatedAuction {
        id,
        mechanism,
        bids: each("bids", raw_bids, number::micros)?,
        weights,
        factors,
        reserve,
        page_threshold: threshold.ceil().to_integer().magnitude().clone(),
    })
}

fn threshold(stated: Option<&RawValue>) -> Result<BigRational, Fault> {
    match stated {
        Some(raw) if raw.get() != "null" => {
            number::read(raw).map_err(|error| Fault::Number { what: "page_threshold", index: None, error })
        }
        Some(_) | None => Ok(BigRational::zero()),
    }
}

/// Numbers above 0, scaled together, and by how much they were.
fn positive(what: &'static str, raws: &[&RawValue]) -> Result<(Vec<BigUint>, BigRational), Fault> {
    let numbers = each(what, raws, number::read)?;
    match numbers.iter().position(Zero::is_zero) {
        Some(index) => Err(Fault::Zero { what, index }),
        None => {
            let scaled = number::scaled_together(&numbers);
            let both = scaled.first().zip(numbers.first());
            let scale = both.map_or_else(BigRational::one, |(s, n)| BigRational::from(BigInt::from(s.clone())) / n);
            Ok((scaled, scale))
        }
    }
}

fn each<T>(
    what: &'static str,
    raws: &[&RawValue],
    read: impl Fn(&RawValue) -> Result<T, NumberError>,
) -> Result<Vec<T>, Fault> {
    let one = |(index, raw): (usize, &&RawValue)| {
        read(raw).map_err(|error| Fault::Number { what, index: Some(index), error })
    };
    raws.iter().enumerate().map(one).collect()
}

fn mechanism(json: &str) -> Result<Mechanism, Fault> {
    match plain(json).as_str() {
        "gsp" => Ok(Mechanism::Gsp),
        "vcg" => Ok(Mechanism::Vcg),
        "first_price" => Ok(Mechanism::FirstPrice),
        other => Err(Fault::Mechanism(other.to_owned())),
    }
}

/// The content of a JSON string, or the text of any other value.
fn plain(json: &str) -> String {
    serde_json::from_str(json).unwrap_or_else(|_| json.to_owned())
}
