//! Which lines does a log have?
//!
//! A folder may hold files of lines and files of columns beside each other; what a line says is the same in both.

use super::JoinError;
use crate::lines::open;
#[cfg(feature = "parquet")]
use gavel_router::parquet_log::{self, Columnar};
use serde::de::DeserializeOwned;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Longest line: a thousand candidates with features of some KiB each.
const LINE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A line in every form that this build reads.
#[cfg(feature = "parquet")]
pub trait Line: DeserializeOwned + Columnar {}
#[cfg(feature = "parquet")]
impl<L: DeserializeOwned + Columnar> Line for L {}

/// A line in every form that this build reads.
#[cfg(not(feature = "parquet"))]
pub trait Line: DeserializeOwned {}
#[cfg(not(feature = "parquet"))]
impl<L: DeserializeOwned> Line for L {}

/// The files of a log, in order.
#[derive(Clone, Debug)]
pub struct Lines {
    files: Vec<PathBuf>,
}

impl Lines {
    /// Files as they are named, and of folders the files `NAME-*`.
    pub fn of(name: &str, places: &[PathBuf]) -> Result<Self, JoinError> {
        let mut files = Vec::new();
        for place in places {
            if !place.is_dir() {
                files.push(place.clone());
                continue;
            }
            let failed = |source| JoinError::Io { path: place.clone(), source };
            let prefix = format!("{name}-");
            let all = std::fs::read_dir(place).map_err(failed)?.filter_map(|entry| Some(entry.ok()?.path()));
            let is_ours =
                |path: &PathBuf| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&prefix));
            let mut ours: Vec<PathBuf> = all.filter(is_ours).collect();
            ours.sort();
            if ours.is_empty() {
                let text = format!("{}: no file {prefix}N.jsonl or {prefix}N.parquet in it", place.display());
                return Err(JoinError::Usage(text));
            }
            files.extend(ours);
        }
        Ok(Self { files })
    }

    /// Reads every line; answers how many could not be read.
    pub fn each<T: Line>(&self, mut take: impl FnMut(T) -> Result<(), JoinError>) -> Result<u64, JoinError> {
        let (mut unreadable, mut read) = (0, 0u64);
        for path in &self.files {
            if path.extension().is_some_and(|ending| ending == "parquet") {
                read += columns(path, &mut take)?;
                continue;
            }
            let failed = |source| JoinError::Io { path: path.clone(), source };
            let mut reader = BufReader::new(open(path).map_err(failed)?);
            loop {
                let mut line = Vec::new();
                if reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line).map_err(failed)? == 0 {
                    break;
                }
                match serde_json::from_slice(&line) {
                    Ok(line) => {
                        read += 1;
                        take(line)?;
                    }
                    // A process that was ended by force leaves its last line cut off.
                    Err(_) => unreadable += 1,
                }
            }
        }
        if read == 0 && unreadable > 0 {
            let text = format!("{unreadable} lines, and none of this format: which version wrote them?");
            return Err(JoinError::Usage(text));
        }
        Ok(unreadable)
    }
}

/// Reads every line of a file of columns; answers how many there were.
#[cfg(feature = "parquet")]
fn columns<T: Line>(path: &Path, take: &mut impl FnMut(T) -> Result<(), JoinError>) -> Result<u64, JoinError> {
    let failed = |source| JoinError::Io { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut read = 0;
    for line in parquet_log::Lines::of(file).map_err(failed)? {
        take(line.map_err(failed)?)?;
        read += 1;
    }
    Ok(read)
}

#[cfg(not(feature = "parquet"))]
fn columns<T>(path: &Path, _: &mut impl FnMut(T) -> Result<(), JoinError>) -> Result<u64, JoinError> {
    let path = path.display();
    Err(JoinError::Usage(format!("{path}: this gavel was built without Parquet: build it with `--features parquet`")))
}
