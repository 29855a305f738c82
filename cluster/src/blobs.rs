//! Which bundles and catalogues does this voter hold, and are they whole?
//!
//! A file per BLAKE3. What is still arriving has another name and is renamed only when its hash has matched
//! over all of it, so a name is a promise. An upload goes on where it broke off; two uploads of one blob at a
//! time are refused rather than interleaved.

use std::collections::BTreeSet;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use gavel_member::disk;
use gavel_proto::limits::{BLOB_BYTES_MAX, CHUNK_BYTES_MAX};

use crate::state::types::Hash32;

/// Why a blob was not taken or given.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// Larger than any blob may be.
    #[error("{0} bytes are more than a blob may have")]
    TooLarge(u64),
    /// A chunk that does not come next; the bytes held so far.
    #[error("the chunk does not follow the {0} bytes that are held")]
    OutOfPlace(u64),
    /// A chunk whose checksum is wrong.
    #[error("the chunk does not match its checksum")]
    Damaged,
    /// All bytes are there, and they are others.
    #[error("the bytes do not have the hash that was promised")]
    OtherBytes,
    /// Another upload of the same blob runs.
    #[error("another upload of this blob runs")]
    Busy,
    /// Not here.
    #[error("this voter does not hold it")]
    Unknown,
    /// The disk said no.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// How much of a blob is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// All of it: its length.
    Whole(u64),
    /// The first bytes of it.
    Part(u64),
}

/// The folder of blobs.
#[derive(Clone, Debug)]
pub struct BlobFolder {
    folder: PathBuf,
    arriving: Arc<Mutex<BTreeSet<Hash32>>>,
}

/// An upload that runs; others of the same blob are refused while it lives.
#[derive(Debug)]
pub struct Upload {
    folder: BlobFolder,
    hash: Hash32,
    total: u64,
    held: u64,
    file: std::fs::File,
}

impl BlobFolder {
    /// Opens the folder, making it when it does not exist.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn open(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.to_owned(), arriving: Arc::default() })
    }

    /// How much of a blob is here.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn held(&self, hash: &Hash32) -> io::Result<Held> {
        if let Some(bytes) = length_of(&self.path(hash))? {
            return Ok(Held::Whole(bytes));
        }
        Ok(Held::Part(length_of(&self.part(hash))?.unwrap_or(0)))
    }

    /// Where a whole blob lies.
    #[must_use]
    pub fn path(&self, hash: &Hash32) -> PathBuf {
        self.folder.join(blake3::Hash::from_bytes(*hash).to_hex().as_str())
    }

    fn part(&self, hash: &Hash32) -> PathBuf {
        self.path(hash).with_extension("part")
    }

    /// Begins, or goes on with, an upload of `total` bytes.
    ///
    /// # Errors
    /// When it is too large, or another upload of it runs.
    pub fn upload(&self, hash: Hash32, total: u64) -> Result<Upload, BlobError> {
        if total == 0 || total > BLOB_BYTES_MAX {
            return Err(BlobError::TooLarge(total));
        }
        if !self.arriving.lock().unwrap_or_else(PoisonError::into_inner).insert(hash) {
            return Err(BlobError::Busy);
        }
        let opened = self.open_part(&hash, total);
        match opened {
            Ok((file, held)) => Ok(Upload { folder: self.clone(), hash, total, held, file }),
            Err(error) => {
                self.arriving.lock().unwrap_or_else(PoisonError::into_inner).remove(&hash);
                Err(error.into())
            }
        }
    }

    fn open_part(&self, hash: &Hash32, total: u64) -> io::Result<(std::fs::File, u64)> {
        let mut file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(self.part(hash))?;
        if file.metadata()?.len() > total {
            file.set_len(0)?;
        }
        let held = file.seek(SeekFrom::End(0))?;
        Ok((file, held))
    }

    /// Up to one chunk of a whole blob from `offset`, and its length.
    ///
    /// # Errors
    /// When it is not here whole.
    pub fn read(&self, hash: &Hash32, offset: u64) -> Result<(Vec<u8>, u64), BlobError> {
        let mut file = match std::fs::File::open(self.path(hash)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(BlobError::Unknown),
            Err(e) => return Err(e.into()),
        };
        let total = file.metadata()?.len();
        file.seek(SeekFrom::Start(offset.min(total)))?;
        let mut bytes = Vec::new();
        file.take(CHUNK_BYTES_MAX as u64).read_to_end(&mut bytes)?;
        Ok((bytes, total))
    }
}

impl Upload {
    /// Bytes held so far.
    #[must_use]
    pub const fn held(&self) -> u64 {
        self.held
    }

    /// Takes the chunk that comes next.
    ///
    /// # Errors
    /// When it is damaged, out of place or too long.
    pub fn take(&mut self, offset: u64, data: &[u8], crc32: u32) -> Result<(), BlobError> {
        if data.len() > CHUNK_BYTES_MAX || self.held + data.len() as u64 > self.total {
            return Err(BlobError::TooLarge(self.held + data.len() as u64));
        }
        if offset != self.held {
            return Err(BlobError::OutOfPlace(self.held));
        }
        if crc32fast::hash(data) != crc32 {
            return Err(BlobError::Damaged);
        }
        self.file.write_all(data)?;
        self.held += data.len() as u64;
        Ok(())
    }

    /// Makes what came safe; when all of it is there, checks it and gives it its name.
    ///
    /// # Errors
    /// When the bytes are not those that were promised; they are then thrown away.
    pub fn finish(self) -> Result<Held, BlobError> {
        self.file.sync_all()?;
        if self.held < self.total {
            return Ok(Held::Part(self.held));
        }
        let part = self.folder.part(&self.hash);
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(std::fs::File::open(&part)?)?;
        if hasher.finalize().as_bytes() != &self.hash {
            std::fs::remove_file(&part)?;
            return Err(BlobError::OtherBytes);
        }
        let path = self.folder.path(&self.hash);
        std::fs::rename(&part, &path)?;
        disk::sync_folder_of(&path)?;
        metrics::counter!("gavel_control_blobs_received_total").increment(1);
        Ok(Held::Whole(self.total))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.folder.arriving.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.hash);
    }
}

fn length_of(path: &Path) -> io::Result<Option<u64>> {
    match std::fs::metadata(path) {
        Ok(found) => Ok(Some(found.len())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_goes_on_where_it_broke_off_and_only_the_right_bytes_get_the_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = BlobFolder::open(folder.path()).expect("opened");
        let bytes: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        let hash = *blake3::hash(&bytes).as_bytes();
        let total = bytes.len() as u64;
        let (front, back) = bytes.split_at(1_000);

        let mut upload = blobs.upload(hash, total).expect("begun");
        assert!(matches!(blobs.upload(hash, total), Err(BlobError::Busy)));
        upload.take(0, front, crc32fast::hash(front)).expect("taken");
        assert_eq!(upload.finish().expect("kept"), Held::Part(1_000));
        assert_eq!(blobs.held(&hash).expect("asked"), Held::Part(1_000));

        let mut upload = blobs.upload(hash, total).expect("goes on");
        assert!(matches!(upload.take(0, front, crc32fast::hash(front)), Err(BlobError::OutOfPlace(1_000))));
        assert!(matches!(upload.take(1_000, back, 7), Err(BlobError::Damaged)));
        upload.take(1_000, back, crc32fast::hash(back)).expect("taken");
        assert_eq!(upload.finish().expect("whole"), Held::Whole(total));
        assert_eq!(blobs.read(&hash, 1_000).expect("read"), (back.to_vec(), total));

        let lie = *blake3::hash(b"else").as_bytes();
        let mut upload = blobs.upload(lie, 1_000).expect("begun");
        upload.take(0, front, crc32fast::hash(front)).expect("taken");
        assert!(matches!(upload.finish(), Err(BlobError::OtherBytes)));
        assert_eq!(blobs.held(&lie).expect("asked"), Held::Part(0));
        assert!(matches!(blobs.read(&lie, 0), Err(BlobError::Unknown)));
        assert!(matches!(blobs.upload(lie, BLOB_BYTES_MAX + 1), Err(BlobError::TooLarge(_))));
    }
}
