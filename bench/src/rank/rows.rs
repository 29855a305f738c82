//! What stands in a file of rows?
//!
//! One JSON object a line in the form of a bundle's golden rows: `user` and `item` hold raw features, whatever stands
//! beside them is not read. A line is read when it is wanted, so that a file may be larger than the memory.

use super::RankError;
use gavel_model::{Bundle, Example};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Longest line: what a request may carry is below half of it.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// The rows of a file, one after the other; empty lines are left out.
pub struct Rows<'a> {
    bundle: &'a Bundle,
    reader: BufReader<Box<dyn Read>>,
    path: PathBuf,
    line: usize,
}

impl<'a> Rows<'a> {
    /// Opens a file: JSONL, also compressed (`.zst`, `.gz`).
    pub fn open(bundle: &'a Bundle, path: &Path) -> Result<Self, RankError> {
        let io = |source| RankError::Io { path: path.to_path_buf(), source };
        let file = std::fs::File::open(path).map_err(io)?;
        let name = path.to_string_lossy();
        let reader: Box<dyn Read> = if name.ends_with(".zst") {
            Box::new(zstd::Decoder::new(file).map_err(io)?)
        } else if name.ends_with(".gz") {
            Box::new(flate2::read::MultiGzDecoder::new(file))
        } else {
            Box::new(file)
        };
        Ok(Self { bundle, reader: BufReader::new(reader), path: path.to_path_buf(), line: 0 })
    }

    /// The next line that is not empty.
    fn line(&mut self) -> Result<Option<String>, RankError> {
        loop {
            let mut line = String::new();
            self.line += 1;
            let read = (&mut self.reader).take(LINE_BYTES_MAX + 1).read_line(&mut line);
            match read.map_err(|source| RankError::Io { path: self.path.clone(), source })? {
                0 => return Ok(None),
                n if n as u64 > LINE_BYTES_MAX => {
                    return Err(self.wrong(format!("longer than {LINE_BYTES_MAX} bytes")));
                }
                _ if line.trim().is_empty() => {}
                _ => return Ok(Some(line)),
            }
        }
    }

    fn wrong(&self, reason: String) -> RankError {
        RankError::Row { path: self.path.clone(), line: self.line, reason }
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<Example, RankError>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = self.line().transpose()?;
        Some(line.and_then(|line| self.bundle.example(&line).map_err(|e| self.wrong(e.to_string()))))
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
