//! How are millions of documents sorted in little memory?
//!
//! Each goes to the file of its partition behind a header of fixed width: its keys, where it stood, its length. The
//! headers are read back alone, sorted, and the documents fetched by offset in that order.

use super::LoadError;
use super::reject::Place;
use prost::Message;
use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const HEADER_BYTES: usize = 8 * 4 + 4 + 8 + 4;

/// A partition that is written.
pub(super) struct Spill {
    path: PathBuf,
    writer: BufWriter<File>,
}

/// What the header of a document says. Ordered as the documents are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub key: u64,
    pub second: u64,
    pub third: u64,
    pub fourth: u64,
    pub place: Place,
    offset: u64,
    length: u32,
}

/// A partition that is read.
pub(super) struct Spilled {
    path: PathBuf,
    file: File,
    /// Sorted.
    pub(super) entries: Vec<Entry>,
}

impl Spill {
    pub(super) fn create(path: &Path) -> Result<Self, LoadError> {
        let file = File::create(path).map_err(|e| LoadError::Io(path.to_path_buf(), e))?;
        Ok(Self { path: path.to_path_buf(), writer: BufWriter::with_capacity(128 * 1024, file) })
    }

    pub(super) fn push(&mut self, keys: [u64; 4], place: Place, document: &impl Message) -> Result<(), LoadError> {
        let bytes = document.encode_to_vec();
        let mut header = Vec::with_capacity(HEADER_BYTES);
        for key in keys {
            header.extend_from_slice(&key.to_le_bytes());
        }
        header.extend_from_slice(&place.file.to_le_bytes());
        header.extend_from_slice(&place.line.to_le_bytes());
        // A line has at most LINE_BYTES_MAX, so its document fits.
        header.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        let written = self.writer.write_all(&header).and_then(|()| self.writer.write_all(&bytes));
        written.map_err(|e| LoadError::Io(self.path.clone(), e))
    }

    /// Ends the writing and sorts.
    pub(super) fn into_sorted(self) -> Result<Spilled, LoadError> {
        let path = self.path;
        let failed = |e| LoadError::Io(path.clone(), e);
        drop(self.writer.into_inner().map_err(|e| failed(e.into_error()))?);
        let file = File::open(&path).map_err(failed)?;
        let mut entries = Vec::new();
        let mut reader = BufReader::with_capacity(128 * 1024, &file);
        let mut offset = 0u64;
        let mut header = [0u8; HEADER_BYTES];
        loop {
            match reader.read_exact(&mut header) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => break,
                Err(e) => return Err(failed(e)),
            }
            let entry = parse(&header, offset + HEADER_BYTES as u64);
            reader.seek_relative(i64::from(entry.length)).map_err(failed)?;
            offset = entry.offset + u64::from(entry.length);
            entries.push(entry);
        }
        drop(reader);
        (&file).seek(SeekFrom::Start(0)).map_err(failed)?;
        entries.sort_unstable();
        Ok(Spilled { path, file, entries })
    }
}

fn parse(header: &[u8; HEADER_BYTES], offset: u64) -> Entry {
    let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| header[at + i]));
    let short = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| header[at + i]));
    Entry {
        key: long(0),
        second: long(8),
        third: long(16),
        fourth: long(24),
        place: Place { file: short(32), line: long(36) },
        offset,
        length: short(44),
    }
}

impl Spilled {
    /// Fetches one document.
    pub(super) fn get<M: Message + Default>(&self, entry: &Entry) -> Result<M, LoadError> {
        let mut bytes = vec![0; entry.length as usize];
        let read = self.file.read_exact_at(&mut bytes, entry.offset);
        read.map_err(|e| LoadError::Io(self.path.clone(), e))?;
        M::decode(bytes.as_slice()).map_err(|e| LoadError::Io(self.path.clone(), std::io::Error::other(e)))
    }

    /// Deletes the file.
    pub(super) fn remove(self) {
        // A left-over file costs space until the work folder goes.
        let _ = std::fs::remove_file(&self.path);
    }
}
