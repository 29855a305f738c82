//! Who wins the auctions of this file?
//!
//! The library part of `gavel auction clear`: a check of published auctions, and a tool to try a
//! mechanism on paper. The file is read exactly, converted to integers once, and cleared by the same
//! [`crate::auction`] that serves; an auction whose numbers outgrow it is cleared by its exact twin.
//!
//! A file has no ads, advertisers or keyed ties: every bid is an advertiser of its own, equal scores go by
//! index, and prices are as if the winner won every tie (decision 13). A VCG price is per event, the total
//! divided by the winner's position factor, in micros rounded down.

mod document;
mod exact;
mod number;

use gavel_proto::code::Code;
use gavel_proto::ids::AdId;
use gavel_proto::limits::{CLEAR_AUCTIONS_MAX, CLEAR_FILE_BYTES_MAX, SLOTS_MAX};
use gavel_proto::money::{BidType, Micros};
use num_traits::ToPrimitive;
use serde::Serialize;

use crate::auction::{self, AuctionRule, AuctionTerms, TiePrice};
use crate::merge::{Candidate, Offer, Ranking};
use document::{Form, StatedAuction};
pub use number::NumberError;

/// What an auction of a file decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClearedAuction {
    /// As stated, or the auction's place in the file.
    pub id: String,
    /// Indexes of the winning bids, by slot.
    pub order: Vec<usize>,
    /// What each of them pays per event, in that order.
    pub price_micros: Vec<u64>,
}

/// Why a file cannot be cleared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClearError {
    /// More bytes than a file may have.
    #[error("the file is larger than {CLEAR_FILE_BYTES_MAX} bytes: split it")]
    TooLarge,
    /// More auctions than a file may have.
    #[error("the file holds {0} auctions, at most {CLEAR_AUCTIONS_MAX} are cleared at once: split it")]
    TooManyAuctions(usize),
    /// No JSON, or of the wrong form.
    #[error("not a file of auctions: {0}. Write one JSON object or an array of them")]
    NotJson(String),
    /// An element of another form.
    #[error("auction {index} of the file cannot be read: {reason}")]
    NotAnAuction {
        /// Place in the file.
        index: usize,
        /// What the reader says.
        reason: String,
    },
    /// One auction is wrong.
    #[error("auction {id}: {fault}")]
    Auction {
        /// Which.
        id: String,
        /// What about it.
        fault: Fault,
    },
}

/// What is wrong with one auction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A field that must be there.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// No such mechanism.
    #[error("mechanism {0} is unknown: use gsp, vcg or first_price")]
    Mechanism(String),
    /// A number that cannot be used.
    #[error("{what}{}: {error}", index.map_or_else(String::new, |i| format!("[{i}]")))]
    Number {
        /// The field.
        what: &'static str,
        /// Its element.
        index: Option<usize>,
        /// What about it.
        error: NumberError,
    },
    /// More elements than are cleared.
    #[error("{count} {what}, at most {max} are cleared")]
    TooMany {
        /// The field.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many may be.
        max: usize,
    },
    /// Weights and bids go together.
    #[error("{bids} bids but {weights} weights: state one weight per bid, or none at all")]
    Lengths {
        /// How many bids.
        bids: usize,
        /// How many weights.
        weights: usize,
    },
    /// Would divide by zero.
    #[error("{what}[{index}] is 0: leave it out or state an amount above 0")]
    Zero {
        /// The field.
        what: &'static str,
        /// Its element.
        index: usize,
    },
    /// Slots go from most to least seen.
    #[error("position_factors[{index}] is larger than the one before it: order slots from most to least seen")]
    FactorsRise {
        /// The larger one.
        index: usize,
    },
}

impl ClearError {
    /// A wrong file stays wrong.
    #[must_use]
    pub const fn code(&self) -> Code {
        Code::InvalidArgument
    }
}

/// Clears every auction of a file.
///
/// # Errors
/// When the file cannot be read exactly; the message says what to change.
pub fn clear_file(text: &str) -> Result<Vec<ClearedAuction>, ClearError> {
    let (_, auctions) = document::read(text)?;
    Ok(auctions.iter().map(clear_one).collect())
}

/// The same as JSON: an object for a file of one object, else an array.
///
/// # Errors
/// As [`clear_file`].
pub fn clear_file_json(text: &str) -> Result<String, ClearError> {
    let (form, auctions) = document::read(text)?;
    let cleared: Vec<ClearedAuction> = auctions.iter().map(clear_one).collect();
    let json = match (form, cleared.as_slice()) {
        (Form::Single, [one]) => serde_json::to_string(one),
        (Form::Single | Form::List, _) => serde_json::to_string(&cleared),
    };
    // Strings and integers always have a JSON form.
    Ok(json.unwrap_or_default())
}

/// One line per winner, for people.
///
/// # Errors
/// As [`clear_file`].
pub fn clear_file_text(text: &str) -> Result<String, ClearError> {
    let mut lines = String::new();
    for auction in clear_file(text)? {
        lines.push_str(&format!("{}\n", auction.id));
        if auction.order.is_empty() {
            lines.push_str("  no winner\n");
        }
        for (slot, (bid, price)) in auction.order.iter().zip(&auction.price_micros).enumerate() {
            lines.push_str(&format!("  slot {slot}  bid {bid}  pays {} per event\n", Micros(*price)));
        }
    }
    Ok(lines)
}

fn clear_one(auction: &StatedAuction) -> ClearedAuction {
    clear_in_integers(auction).unwrap_or_else(|| exact::clear(auction))
}

/// The serving auction; `None` when a number does not fit it, or the slots outgrow a page: pricing counts
/// the picks before each pick, which is quick for the slots of a page alone.
fn clear_in_integers(stated: &StatedAuction) -> Option<ClearedAuction> {
    if stated.factors.len() > SLOTS_MAX as usize {
        return None;
    }
    let weights: Vec<u64> = stated.weights.iter().map(ToPrimitive::to_u64).collect::<Option<_>>()?;
    let factors: Vec<u32> = stated.factors.iter().map(ToPrimitive::to_u32).collect::<Option<_>>()?;
    let page_threshold = stated.page_threshold.to_i128()?;
    let candidate = |(index, (bid, weight)): (usize, (&u64, &u64))| {
        let plain = Offer::plain(AdId(index as u64), BidType::Cpc, Micros(*bid), *weight);
        let offer = Offer { reserve: Micros(stated.reserve), row: u32::try_from(index).ok()?, ..plain };
        Candidate::new(offer).ok()
    };
    let candidates: Option<Vec<Candidate>> = stated.bids.iter().zip(&weights).enumerate().map(candidate).collect();
    let ranking = Ranking::sorted(&candidates?).ok()?;
    let rule = AuctionRule::new(AuctionTerms {
        tie_price: TiePrice::WinnerWins,
        position_factors_ppm: factors,
        page_threshold,
        ..AuctionTerms::plain(stated.mechanism, stated.factors.len())
    });
    let clearing = auction::clear(&ranking, &rule.ok()?);
    Some(ClearedAuction {
        id: stated.id.clone(),
        order: clearing.winners.iter().map(|w| ranking[w.candidate].offer().row as usize).collect(),
        price_micros: clearing.winners.iter().map(|w| w.price.0).collect(),
    })
}

#[cfg(test)]
mod tests;
