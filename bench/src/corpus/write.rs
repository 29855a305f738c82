//! How does a catalogue folder get onto the disk?
//!
//! Each file is JSON lines in one zstd stream, written as it is made.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::CorpusError;

/// One file of JSON lines being written.
pub struct LineFile {
    path: PathBuf,
    stream: zstd::Encoder<'static, BufWriter<File>>,
    lines: u64,
}

impl LineFile {
    /// Makes `<folder>/<name>.jsonl.zst`.
    pub fn create(folder: &Path, name: &str, level: i32) -> Result<Self, CorpusError> {
        fs::create_dir_all(folder).map_err(|source| CorpusError::File { path: folder.to_path_buf(), source })?;
        let path = folder.join(format!("{name}.jsonl.zst"));
        let stream = File::create(&path).and_then(|file| zstd::Encoder::new(BufWriter::new(file), level));
        match stream {
            Ok(stream) => Ok(Self { path, stream, lines: 0 }),
            Err(source) => Err(CorpusError::File { path, source }),
        }
    }

    /// Adds a line.
    pub fn push(&mut self, line: &impl Serialize) -> Result<(), CorpusError> {
        let written = serde_json::to_writer(&mut self.stream, line)
            .map_err(std::io::Error::from)
            .and_then(|()| self.stream.write_all(b"\n"));
        self.lines += 1;
        written.map_err(|source| CorpusError::File { path: self.path.clone(), source })
    }

    /// Ends the stream; gives the number of lines.
    pub fn finish(self) -> Result<u64, CorpusError> {
        let Self { path, stream, lines } = self;
        let flushed = stream.finish().and_then(|mut file| file.flush());
        flushed.map(|()| lines).map_err(|source| CorpusError::File { path, source })
    }
}
