//! What stands in a file of rows?
//!
//! One JSON object a line in the form of a bundle's golden rows: `user` and `item` hold raw features, whatever stands
//! beside them is not read. A line is read when it is wanted, so that a file may be larger than the memory.

use super::RankError;
use crate::lines::{LINE_BYTES_MAX, LineError, Lines};
use gavel_model::{Bundle, Example};
use std::path::{Path, PathBuf};

/// The rows of a file, one after the other; empty lines are left out.
pub struct Rows<'a> {
    bundle: &'a Bundle,
    lines: Lines,
    path: PathBuf,
}

impl<'a> Rows<'a> {
    /// Opens a file: JSONL, also compressed (`.zst`, `.gz`).
    pub fn open(bundle: &'a Bundle, path: &Path) -> Result<Self, RankError> {
        let lines = Lines::open(path).map_err(|source| RankError::Io { path: path.to_path_buf(), source })?;
        Ok(Self { bundle, lines, path: path.to_path_buf() })
    }

    fn example(&mut self) -> Result<Option<Example>, RankError> {
        let wrong = |line, reason| RankError::Row { path: self.path.clone(), line, reason };
        let Some((number, line)) = self.lines.next_line().map_err(|e| match e {
            LineError::Io(source) => RankError::Io { path: self.path.clone(), source },
            LineError::TooLong(number) => wrong(number, format!("longer than {LINE_BYTES_MAX} bytes")),
        })?
        else {
            return Ok(None);
        };
        self.bundle.example(&line).map(Some).map_err(|e| wrong(number, e.to_string()))
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<Example, RankError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.example().transpose()
    }
}

/// The rows of a file, or the golden rows when none is named.
pub fn rows<'a>(
    bundle: &'a Bundle,
    path: Option<&Path>,
) -> Result<Box<dyn Iterator<Item = Result<Example, RankError>> + 'a>, RankError> {
    match path {
        Some(path) => Ok(Box::new(Rows::open(bundle, path)?)),
        None => {
            let of_bundle = |source| RankError::Bundle { path: PathBuf::from("golden rows"), source };
            Ok(Box::new(bundle.golden_examples().map_err(of_bundle)?.into_iter().map(Ok)))
        }
    }
}
