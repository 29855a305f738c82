//! What are the rows of one row group, while they are in memory?

use super::damaged;
use parquet::data_type::ByteArray;
use serde::Serialize;
use serde::de::value::{Error as WordError, StrDeserializer};
use serde::de::{DeserializeOwned, IntoDeserializer};
use std::io;

/// A column of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// As the line calls it.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether every row has a value.
    pub presence: Presence,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Integers of 64 bits without a sign.
    Unsigned,
    /// With one.
    Signed,
    /// Numbers of 64 bits with a fraction.
    Real,
    /// UTF-8.
    Text,
}

/// Whether every row has a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Yes.
    Required,
    /// No.
    Optional,
}

impl Column {
    /// Of a value in every row.
    #[must_use]
    pub const fn required(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, presence: Presence::Required }
    }

    /// Of values that may be missing.
    #[must_use]
    pub const fn optional(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, presence: Presence::Optional }
    }
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    /// None.
    Null,
    /// The bits of an integer, whether it has a sign or not.
    Integer(i64),
    /// A number.
    Real(f64),
    /// UTF-8; clones share the bytes.
    Text(ByteArray),
}

impl Cell {
    pub(super) const fn of(number: u64) -> Self {
        Self::Integer(number.cast_signed())
    }

    pub(super) fn of_some(number: Option<u64>) -> Self {
        number.map_or(Self::Null, Self::of)
    }

    pub(super) fn text(text: &str) -> Self {
        Self::Text(ByteArray::from(text))
    }

    /// The word that a line has for a value.
    pub(super) fn word(value: impl Serialize) -> io::Result<Self> {
        let value = serde_json::to_value(value)?;
        value.as_str().map(Self::text).ok_or_else(|| damaged(format!("{value} is no word")))
    }
}

/// The cells of a row group, column by column.
#[derive(Debug)]
pub struct Group {
    pub(super) columns: Vec<Vec<Cell>>,
}

impl Group {
    /// Of so many columns, without rows.
    #[must_use]
    pub fn of(columns: usize) -> Self {
        Self { columns: vec![Vec::new(); columns] }
    }

    /// How many rows it has.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.columns.first().map_or(0, Vec::len)
    }

    /// Adds a row, the cells in the order of the columns.
    pub(super) fn push(&mut self, cells: impl IntoIterator<Item = Cell>) {
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            column.push(cell);
        }
    }

    /// The cells of a row from a column on, one after the other.
    pub(super) const fn row(&self, row: usize, column: usize) -> Row<'_> {
        Row { group: self, row, column }
    }
}

/// What of a row was not read yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    group: &'a Group,
    row: usize,
    column: usize,
}

impl<'a> Row<'a> {
    fn next(&mut self) -> io::Result<&'a Cell> {
        let cell = self.group.columns.get(self.column).and_then(|cells| cells.get(self.row));
        self.column += 1;
        cell.ok_or_else(|| damaged("a line ends in the middle of its rows"))
    }

    pub(super) fn unsigned_or_none(&mut self) -> io::Result<Option<u64>> {
        match self.next()? {
            Cell::Integer(number) => Ok(Some(number.cast_unsigned())),
            Cell::Null => Ok(None),
            Cell::Real(_) | Cell::Text(_) => Err(damaged("a column of integers holds something else")),
        }
    }

    pub(super) fn unsigned(&mut self) -> io::Result<u64> {
        self.unsigned_or_none()?.ok_or_else(missing)
    }

    /// A number that a line keeps in fewer bits.
    pub(super) fn small(&mut self) -> io::Result<u32> {
        u32::try_from(self.unsigned()?).map_err(damaged)
    }

    pub(super) fn small_or_none(&mut self) -> io::Result<Option<u32>> {
        self.unsigned_or_none()?.map(u32::try_from).transpose().map_err(damaged)
    }

    pub(super) fn signed(&mut self) -> io::Result<i64> {
        Ok(self.unsigned()?.cast_signed())
    }

    pub(super) fn real(&mut self) -> io::Result<f64> {
        match self.next()? {
            Cell::Real(number) => Ok(*number),
            Cell::Null => Err(missing()),
            Cell::Integer(_) | Cell::Text(_) => Err(damaged("a column of numbers holds something else")),
        }
    }

    pub(super) fn text_or_none(&mut self) -> io::Result<Option<&'a str>> {
        match self.next()? {
            Cell::Text(text) => text.as_utf8().map(Some).map_err(damaged),
            Cell::Null => Ok(None),
            Cell::Integer(_) | Cell::Real(_) => Err(damaged("a column of text holds something else")),
        }
    }

    pub(super) fn text(&mut self) -> io::Result<&'a str> {
        self.text_or_none()?.ok_or_else(missing)
    }

    /// What a line has this word for.
    pub(super) fn word<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        let word: StrDeserializer<'_, WordError> = self.text()?.into_deserializer();
        T::deserialize(word).map_err(damaged)
    }

    /// What the line has this JSON for.
    pub(super) fn json<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        serde_json::from_str(self.text()?).map_err(damaged)
    }
}

fn missing() -> io::Error {
    damaged("a value is missing")
}
