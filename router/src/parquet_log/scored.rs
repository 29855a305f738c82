//! Which columns has a candidate of a scored request?
//!
//! What its request has, then what it has itself. A request without candidates is one row without the latter, so that no
//! request is lost.

use super::group::{Cell, Column, Group, Kind, Row};
use super::{Columnar, damaged};
use crate::logged::{ScoredCandidate, ScoredLine, TokenId};
use gavel_proto::epoch::Epoch;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use std::io;

const REQUEST: [Column; 12] = [
    Column::required("format", Kind::Unsigned),
    Column::required("request_id", Kind::Text),
    Column::required("auction_id", Kind::Unsigned),
    Column::required("time_ms", Kind::Unsigned),
    Column::optional("user_id", Kind::Text),
    Column::required("placement", Kind::Text),
    Column::required("epoch_map", Kind::Unsigned),
    Column::required("epoch_generation", Kind::Unsigned),
    Column::required("epoch_model", Kind::Unsigned),
    Column::required("epoch_delivery", Kind::Unsigned),
    Column::required("model", Kind::Text),
    Column::required("user", Kind::Text),
];

/// The first tells where the next request begins: there it is 0, or missing.
const CANDIDATE: [Column; 18] = [
    Column::optional("candidate", Kind::Unsigned),
    Column::optional("ad", Kind::Unsigned),
    Column::optional("item", Kind::Unsigned),
    Column::optional("campaign", Kind::Unsigned),
    Column::optional("advertiser", Kind::Unsigned),
    Column::optional("reason", Kind::Text),
    Column::optional("slot", Kind::Unsigned),
    Column::optional("position", Kind::Unsigned),
    Column::optional("price_micros", Kind::Unsigned),
    Column::optional("bid_type", Kind::Text),
    Column::optional("bid_micros", Kind::Unsigned),
    Column::optional("weight", Kind::Unsigned),
    Column::optional("sampling_weight", Kind::Real),
    Column::optional("token_issuer", Kind::Unsigned),
    Column::optional("token_sequence", Kind::Unsigned),
    Column::optional("predictions", Kind::Text),
    Column::optional("features", Kind::Text),
    Column::optional("matches", Kind::Text),
];

/// A line with the text of what depends on the bundle.
type ScoredText<'a> = ScoredLine<&'a RawValue, &'a RawValue>;

impl<F: DeserializeOwned, W: DeserializeOwned> Columnar for ScoredLine<F, W> {
    fn columns() -> Vec<Column> {
        [&REQUEST[..], &CANDIDATE[..]].concat()
    }

    fn put(line: &[u8], group: &mut Group) -> io::Result<()> {
        let line: ScoredText<'_> = serde_json::from_slice(line).map_err(damaged)?;
        let request = of_request(&line);
        for (number, candidate) in line.candidates.iter().enumerate() {
            group.push(request.iter().cloned().chain(of_candidate(number as u64, candidate)?));
        }
        if line.candidates.is_empty() {
            group.push(request.into_iter().chain(CANDIDATE.map(|_| Cell::Null)));
        }
        Ok(())
    }

    fn take(group: &Group, row: &mut usize) -> io::Result<Self> {
        let mut cells = group.row(*row, 0);
        let mut line = Self {
            format: cells.small()?,
            request_id: cells.text()?.to_owned(),
            auction_id: cells.unsigned()?,
            time_ms: cells.unsigned()?,
            user_id: cells.text_or_none()?.map(str::to_owned),
            placement: cells.text()?.to_owned(),
            epoch: Epoch {
                map: cells.unsigned()?,
                generation: cells.unsigned()?,
                model: cells.unsigned()?,
                delivery: cells.unsigned()?,
            },
            model: cells.text()?.to_owned(),
            user: cells.json()?,
            candidates: Vec::new(),
        };
        let mut number = cells.unsigned_or_none()?;
        if number.unwrap_or(0) != 0 {
            return Err(damaged("the rows of a request are not in their order"));
        }
        *row += 1;
        while number == Some(line.candidates.len() as u64) {
            line.candidates.push(candidate(&mut cells)?);
            if *row == group.rows() {
                break;
            }
            cells = group.row(*row, REQUEST.len());
            number = cells.unsigned_or_none()?;
            // Of the next request when it is another number.
            *row += usize::from(number == Some(line.candidates.len() as u64));
        }
        Ok(line)
    }
}

fn of_request(line: &ScoredText<'_>) -> [Cell; REQUEST.len()] {
    [
        Cell::of(line.format.into()),
        Cell::text(&line.request_id),
        Cell::of(line.auction_id),
        Cell::of(line.time_ms),
        line.user_id.as_deref().map_or(Cell::Null, Cell::text),
        Cell::text(&line.placement),
        Cell::of(line.epoch.map),
        Cell::of(line.epoch.generation),
        Cell::of(line.epoch.model),
        Cell::of(line.epoch.delivery),
        Cell::text(&line.model),
        Cell::text(line.user.get()),
    ]
}

fn of_candidate(number: u64, candidate: &ScoredCandidate<&RawValue, &RawValue>) -> io::Result<[Cell; CANDIDATE.len()]> {
    Ok([
        Cell::of(number),
        Cell::of(candidate.ad),
        Cell::of(candidate.item),
        Cell::of(candidate.campaign),
        Cell::of(candidate.advertiser),
        Cell::word(candidate.reason)?,
        Cell::of_some(candidate.slot.map(u64::from)),
        Cell::of_some(candidate.position.map(u64::from)),
        Cell::of_some(candidate.price_micros),
        Cell::word(candidate.bid_type)?,
        Cell::of(candidate.bid_micros),
        Cell::of(candidate.weight),
        Cell::Real(candidate.sampling_weight),
        Cell::of_some(candidate.token.map(|token| token.issuer)),
        Cell::of_some(candidate.token.map(|token| token.sequence)),
        Cell::text(candidate.predictions.get()),
        Cell::text(candidate.features.get()),
        Cell::text(candidate.matches.get()),
    ])
}

/// From the cells behind its number.
fn candidate<F: DeserializeOwned, W: DeserializeOwned>(cells: &mut Row<'_>) -> io::Result<ScoredCandidate<F, W>> {
    Ok(ScoredCandidate {
        ad: cells.unsigned()?,
        item: cells.unsigned()?,
        campaign: cells.unsigned()?,
        advertiser: cells.unsigned()?,
        reason: cells.word()?,
        slot: cells.small_or_none()?,
        position: cells.small_or_none()?,
        price_micros: cells.unsigned_or_none()?,
        bid_type: cells.word()?,
        bid_micros: cells.unsigned()?,
        weight: cells.unsigned()?,
        sampling_weight: cells.real()?,
        token: match (cells.unsigned_or_none()?, cells.unsigned_or_none()?) {
            (Some(issuer), Some(sequence)) => Some(TokenId { issuer, sequence }),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return Err(damaged("half a token")),
        },
        predictions: cells.json()?,
        features: cells.json()?,
        matches: cells.json()?,
    })
}
