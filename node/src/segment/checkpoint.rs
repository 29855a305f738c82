//! How far had a writer come that was interrupted, and can its work be used?
//!
//! Embedding the items of a shard takes minutes; a process that ends meanwhile should not lose them. So now and then the
//! builder makes its rows safe and writes down how many there are and what its files were then. After a start the rows
//! are taken when they are of the same items under the same bundle, and every byte of them has the hash that was
//! written down. Everything else is made anew: a checkpoint is a saving, never a source.
//!
//! The graph is not a part of it: the library builds it in its own memory.

use super::{
    codec,
    error::SegmentError,
    folder::{FileEntry, sync_folder},
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

/// The file that it is written to, in the folder that is being built.
pub(super) const PROGRESS: &str = "progress";
/// Rows of another version of this program may differ in their last bits.
const WRITER: &str = env!("CARGO_PKG_VERSION");
/// What the bytes of rows mean: raised by whoever changes what an item tower puts out, how a vector or an activation is
/// stored, or what stands in this file. Two builds of one version may differ in that, and the rows of the other one would
/// be read for what they are not.
pub(super) const FORMAT: u32 = 2;

/// How far a builder has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    format: u32,
    writer: String,
    /// BLAKE3 of what the rows are made from and of their form.
    pub(super) of: [u8; 32],
    /// Rows that are safe.
    pub(super) rows: u32,
    /// The files up to there.
    pub(super) files: Vec<FileEntry>,
}

impl Progress {
    pub(super) fn new(of: [u8; 32], rows: u32, files: Vec<FileEntry>) -> Self {
        Self { format: FORMAT, writer: WRITER.to_owned(), of, rows, files }
    }

    /// As a build of another format would have written it.
    #[cfg(test)]
    pub(super) fn in_format(self, format: u32) -> Self {
        Self { format, ..self }
    }

    /// Takes the place of the one before, whole or not at all.
    pub(super) fn write(&self, path: &Path) -> Result<(), SegmentError> {
        let io = |e| SegmentError::io(path, e);
        let (bytes, _) = codec::encode(self)?;
        let next = path.with_extension("next");
        let written = File::create(&next).and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_all()
        });
        written.map_err(io)?;
        fs::rename(&next, path).map_err(io)?;
        path.parent().map_or(Ok(()), sync_folder)
    }

    /// What was written last, if it is of this and by this version.
    pub(super) fn read(path: &Path, of: &[u8; 32]) -> Option<Self> {
        let length = fs::metadata(path).ok()?.len();
        let bytes = fs::read(path).ok().filter(|_| length <= codec::BYTES_MAX as u64)?;
        let (found, _) = codec::decode::<Self>(path, &bytes).ok()?;
        (found.format == FORMAT && found.writer == WRITER && found.of == *of).then_some(found)
    }

    /// A file as it was then.
    pub(super) fn file(&self, name: &str) -> Option<&FileEntry> {
        self.files.iter().find(|file| file.name == name)
    }
}
