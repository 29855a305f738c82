//! Which lines were refused, and why?
//!
//! One file of JSON lines beside each input file that has a bad line, made anew by each load.

use super::LoadError;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// The rejects of a load.
pub(super) struct Rejects {
    inputs: Vec<PathBuf>,
    files: BTreeMap<usize, (PathBuf, BufWriter<File>)>,
    pub(super) count: u64,
}

/// Where a document stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub file: u32,
    pub line: u64,
}

#[derive(serde::Serialize)]
struct Entry<'a> {
    line: u64,
    reason: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    text: &'a str,
}

impl Rejects {
    pub(super) fn new(inputs: &[PathBuf]) -> Self {
        for input in inputs {
            // Reasons of an earlier load would read like reasons of this one.
            let _ = fs::remove_file(beside(input));
        }
        Self { inputs: inputs.to_vec(), files: BTreeMap::new(), count: 0 }
    }

    pub(super) fn push(&mut self, place: Place, reason: &str, text: &str) -> Result<(), LoadError> {
        self.count += 1;
        let file = place.file as usize;
        if !self.files.contains_key(&file) {
            let path = beside(&self.inputs[file]);
            let writer = BufWriter::new(File::create(&path).map_err(|e| LoadError::Io(path.clone(), e))?);
            self.files.insert(file, (path, writer));
        }
        let Some((path, writer)) = self.files.get_mut(&file) else { return Ok(()) };
        serde_json::to_writer(&mut *writer, &Entry { line: place.line, reason, text })
            .map_err(std::io::Error::from)
            .and_then(|()| writer.write_all(b"\n"))
            .map_err(|e| LoadError::Io(path.clone(), e))
    }

    /// Closes the files and names them.
    pub(super) fn finish(self) -> Result<Vec<PathBuf>, LoadError> {
        let close = |(path, mut writer): (PathBuf, BufWriter<File>)| match writer.flush() {
            Ok(()) => Ok(path),
            Err(e) => Err(LoadError::Io(path, e)),
        };
        self.files.into_values().map(close).collect()
    }
}

fn beside(input: &Path) -> PathBuf {
    let mut name = input.file_name().unwrap_or_default().to_os_string();
    name.push(".rejects.jsonl");
    input.with_file_name(name)
}
