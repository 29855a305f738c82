//! Which columns has an event?

use super::group::{Cell, Column, Group, Kind};
use super::{Columnar, damaged};
use crate::logged::{EventLine, TokenId};
use std::io;

const COLUMNS: [Column; 14] = [
    Column::required("format", Kind::Unsigned),
    Column::required("kind", Kind::Text),
    Column::required("answer", Kind::Text),
    Column::required("time_ms", Kind::Unsigned),
    Column::required("issued_ms", Kind::Unsigned),
    Column::required("token_issuer", Kind::Unsigned),
    Column::required("token_sequence", Kind::Unsigned),
    Column::required("auction_id", Kind::Unsigned),
    Column::required("request", Kind::Unsigned),
    Column::required("ad", Kind::Unsigned),
    Column::required("campaign", Kind::Unsigned),
    Column::required("slot", Kind::Unsigned),
    Column::required("billed", Kind::Text),
    Column::required("price_nanos", Kind::Signed),
];

impl Columnar for EventLine {
    fn columns() -> Vec<Column> {
        COLUMNS.to_vec()
    }

    fn put(line: &[u8], group: &mut Group) -> io::Result<()> {
        let line: Self = serde_json::from_slice(line).map_err(damaged)?;
        let cells: [Cell; COLUMNS.len()] = [
            Cell::of(line.format.into()),
            Cell::word(line.kind)?,
            Cell::text(&line.answer),
            Cell::of(line.time_ms),
            Cell::of(line.issued_ms),
            Cell::of(line.token.issuer),
            Cell::of(line.token.sequence),
            Cell::of(line.auction_id),
            Cell::of(line.request),
            Cell::of(line.ad),
            Cell::of(line.campaign),
            Cell::of(line.slot.into()),
            Cell::word(line.billed)?,
            Cell::Integer(line.price_nanos),
        ];
        group.push(cells);
        Ok(())
    }

    fn take(group: &Group, row: &mut usize) -> io::Result<Self> {
        let mut cells = group.row(*row, 0);
        *row += 1;
        // Fields are evaluated as they are written: in the order of the columns.
        Ok(Self {
            format: cells.small()?,
            kind: cells.word()?,
            answer: cells.text()?.to_owned(),
            time_ms: cells.unsigned()?,
            issued_ms: cells.unsigned()?,
            token: TokenId { issuer: cells.unsigned()?, sequence: cells.unsigned()? },
            auction_id: cells.unsigned()?,
            request: cells.unsigned()?,
            ad: cells.unsigned()?,
            campaign: cells.unsigned()?,
            slot: cells.small()?,
            billed: cells.word()?,
            price_nanos: cells.signed()?,
        })
    }
}
