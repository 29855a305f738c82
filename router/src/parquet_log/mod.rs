//! How do the lines of a log look as columns?
//!
//! A full file of lines becomes one Parquet file: an event is a row, and of a scored request every candidate is one, with
//! what the request has in common repeated, which costs next to nothing in dictionaries. Numbers and words are columns of
//! their own; features, match weights and predictions are the very text that the line has of them, because a log outlives
//! the schema of one bundle, and because what is read from either form is then read from the same bytes.
//!
//! * `group`: rows in memory, as many as one row group has;
//! * `file`: row groups in a file, by the low-level half of the `parquet` crate;
//! * `event`, `scored`: what is in which column.
//!
//! A line never spans two row groups, so each of them can be read by itself.

mod event;
mod file;
mod group;
mod scored;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

pub use file::Lines;
pub use group::{Column, Group, Kind, Presence};

/// Text of a row group before it is written: what a writer and a reader have in memory is a few times as much.
const GROUP_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Longest line, as for who reads lines: a thousand candidates with features of some KiB each.
const LINE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A line that has a form as rows.
pub trait Columnar: Sized {
    /// Its columns, in their order.
    fn columns() -> Vec<Column>;

    /// Adds the rows of a line: at least one.
    ///
    /// # Errors
    /// When it is no line of this log.
    fn put(line: &[u8], group: &mut Group) -> io::Result<()>;

    /// The line whose rows begin at `row`, which then is behind them.
    ///
    /// # Errors
    /// When the rows are not those of a line.
    fn take(group: &Group, row: &mut usize) -> io::Result<Self>;
}

/// Writes the lines of a file as columns. A last line without its end was cut off by force and is left out.
///
/// # Errors
/// When a file cannot be read or written, or holds a line that is none of this log.
pub fn pack<L: Columnar>(lines: File, packed: &File) -> io::Result<()> {
    let mut lines = BufReader::new(lines);
    let mut writer = file::Writer::begin(packed, L::columns())?;
    let (mut group, mut line, mut bytes) = (Group::of(L::columns().len()), Vec::new(), 0);
    loop {
        line.clear();
        lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        if line.pop() != Some(b'\n') {
            break;
        }
        L::put(&line, &mut group)?;
        bytes += line.len();
        if bytes >= GROUP_BYTES_MAX {
            writer.write(&group)?;
            (group, bytes) = (Group::of(L::columns().len()), 0);
        }
    }
    if !lines.fill_buf()?.is_empty() {
        return Err(damaged("a line is too long"));
    }
    if group.rows() > 0 {
        writer.write(&group)?;
    }
    writer.end()
}

fn damaged(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

#[cfg(test)]
mod tests;
