//! Which lines does a log have?

use super::JoinError;
use crate::lines::open;
use serde::de::DeserializeOwned;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

/// Longest line: a thousand candidates with features of some KiB each.
const LINE_BYTES_MAX: u64 = 64 * 1024 * 1024;

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
                return Err(JoinError::Usage(format!("{}: no file {prefix}N.jsonl in it", place.display())));
            }
            files.extend(ours);
        }
        Ok(Self { files })
    }

    /// Reads every line; answers how many could not be read.
    pub fn each<T: DeserializeOwned>(
        &self,
        mut take: impl FnMut(T) -> Result<(), JoinError>,
    ) -> Result<u64, JoinError> {
        let (mut unreadable, mut read) = (0, 0u64);
        for path in &self.files {
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
