//! Where do the users of a generation lie?
//!
//! In one file written once: `GAVELUS2`, the dimensions of the catalogue (u32 length and their message), the records,
//! an index of (u64 hash of the id, u64 offset, u32 length) sorted by hash, the offset of the index, and the BLAKE3 of
//! everything before. It is verified when it is opened; the index (20 bytes a user) stays in memory, records are read
//! where they lie.

use super::convert;
use super::record::{self, StoredUser};
use crate::request::Dimensions;
use gavel_proto::hash::value_hash;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Version 1 had the values of a list sorted and no dimensions: such a file is made again.
const MAGIC: &[u8; 8] = b"GAVELUS2";
const ENTRY_BYTES: u64 = 20;
/// Offset of the index and the hash.
const TAIL_BYTES: u64 = 8 + 32;

/// Why users cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum UserFileError {
    /// The disk said no.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What.
        source: io::Error,
    },
    /// The bytes are not what was written.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: u64,
    offset: u64,
    bytes: u32,
}

/// The users of one generation, read-only.
#[derive(Debug)]
pub struct UserFile {
    path: PathBuf,
    file: Option<File>,
    index: Vec<Entry>,
    dimensions: Dimensions,
}

impl UserFile {
    /// A generation without users.
    #[must_use]
    pub fn empty() -> Self {
        Self { path: PathBuf::new(), file: None, index: Vec::new(), dimensions: Dimensions::default() }
    }

    /// What the ads of the generation are targeted by.
    #[must_use]
    pub fn dimensions(&self) -> Dimensions {
        self.dimensions.clone()
    }

    /// Users in it.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.index.len()
    }

    /// True without users.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Verifies and opens a file.
    ///
    /// # Errors
    /// When there is none, or it is not whole.
    pub fn open(path: &Path) -> Result<Self, UserFileError> {
        let io = |source| UserFileError::Io { path: path.to_path_buf(), source };
        let damaged = |reason: &str| UserFileError::Damaged { path: path.to_path_buf(), reason: reason.to_owned() };
        let file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let body = length.checked_sub(TAIL_BYTES).ok_or_else(|| damaged("it is too short"))?;
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(BufReader::new(&file).take(body + 8)).map_err(io)?;
        let mut tail = [0u8; TAIL_BYTES as usize];
        file.read_exact_at(&mut tail, body).map_err(io)?;
        if hasher.finalize().as_bytes() != &tail[8..] {
            return Err(damaged("its checksum does not match"));
        }
        let mut word = [0u8; 8];
        file.read_exact_at(&mut word, 0).map_err(io)?;
        if word != *MAGIC {
            return Err(damaged("it is of another version"));
        }
        word.copy_from_slice(&tail[..8]);
        let index_at = u64::from_le_bytes(word);
        let index_bytes = body.checked_sub(index_at).filter(|b| b % ENTRY_BYTES == 0);
        let index_bytes = index_bytes.ok_or_else(|| damaged("its index is not where it says"))?;
        let dimensions = dimensions(&file, index_at).map_err(io)?;
        let dimensions = dimensions.ok_or_else(|| damaged("it has no dimensions, or is of another version"))?;
        let mut bytes = vec![0u8; usize::try_from(index_bytes).map_err(|_| damaged("its index is too large"))?];
        file.read_exact_at(&mut bytes, index_at).map_err(io)?;
        let index = bytes.chunks_exact(20).map(entry).collect();
        Ok(Self { path: path.to_path_buf(), file: Some(file), index, dimensions })
    }

    /// Writes users to a file, whole or not at all, and opens it. Of two users with one id the first stands.
    ///
    /// # Errors
    /// When a user cannot be read or the disk says no.
    pub fn build(
        path: &Path,
        dimensions: &[u8],
        users: impl Iterator<Item = Result<StoredUser, UserFileError>>,
    ) -> Result<Self, UserFileError> {
        let partial = path.with_extension("partial");
        let io = |source| UserFileError::Io { path: partial.clone(), source };
        let mut out =
            Hashed { out: BufWriter::new(File::create(&partial).map_err(io)?), hasher: blake3::Hasher::new() };
        out.write_all(MAGIC).map_err(io)?;
        // They came in one block, which is far below 4 GiB.
        out.write_all(&(dimensions.len() as u32).to_le_bytes()).map_err(io)?;
        out.write_all(dimensions).map_err(io)?;
        let mut offset = (MAGIC.len() + 4 + dimensions.len()) as u64;
        let mut index = Vec::new();
        let mut bytes = Vec::new();
        for user in users {
            let user = user?;
            bytes.clear();
            record::write(&user, &mut bytes);
            out.write_all(&bytes).map_err(io)?;
            // At most 256 features of 1,024 pairs: far below 4 GiB.
            index.push(Entry { hash: value_hash(&user.user_id), offset, bytes: bytes.len() as u32 });
            offset += bytes.len() as u64;
        }
        index.sort_by_key(|e| e.hash);
        for entry in &index {
            out.write_all(&entry.hash.to_le_bytes()).map_err(io)?;
            out.write_all(&entry.offset.to_le_bytes()).map_err(io)?;
            out.write_all(&entry.bytes.to_le_bytes()).map_err(io)?;
        }
        out.write_all(&offset.to_le_bytes()).map_err(io)?;
        out.finish().map_err(io)?;
        std::fs::rename(&partial, path).map_err(io)?;
        gavel_member::disk::sync_folder_of(path).map_err(io)?;
        Self::open(path)
    }

    /// The user with this id.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn find(&self, user_id: &str) -> Result<Option<StoredUser>, UserFileError> {
        let Some(file) = &self.file else { return Ok(None) };
        let hash = value_hash(user_id);
        let first = self.index.partition_point(|e| e.hash < hash);
        for entry in self.index[first..].iter().take_while(|e| e.hash == hash) {
            let mut bytes = vec![0u8; entry.bytes as usize];
            let read = file.read_exact_at(&mut bytes, entry.offset);
            read.map_err(|source| UserFileError::Io { path: self.path.clone(), source })?;
            let user = record::read(&bytes).ok_or_else(|| UserFileError::Damaged {
                path: self.path.clone(),
                reason: format!("the record at {}", entry.offset),
            })?;
            if user.user_id == user_id {
                return Ok(Some(user));
            }
        }
        Ok(None)
    }
}

/// The dimensions in front of the records, which end before `end`; `None` when they are not what was written.
fn dimensions(file: &File, end: u64) -> io::Result<Option<Dimensions>> {
    let mut head = [0u8; 12];
    if end < head.len() as u64 {
        return Ok(None);
    }
    file.read_exact_at(&mut head, 0)?;
    let length = head[8..].first_chunk().map_or(0, |b| u32::from_le_bytes(*b));
    if head[..8] != *MAGIC || u64::from(length) > end - head.len() as u64 {
        return Ok(None);
    }
    let mut bytes = vec![0u8; length as usize];
    file.read_exact_at(&mut bytes, head.len() as u64)?;
    Ok(convert::dimensions(&bytes))
}

fn entry(bytes: &[u8]) -> Entry {
    let word = |at: usize| bytes[at..].first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b));
    let length = bytes[16..].first_chunk::<4>().map_or(0, |b| u32::from_le_bytes(*b));
    Entry { hash: word(0), offset: word(8), bytes: length }
}

/// Writes and hashes.
struct Hashed {
    out: BufWriter<File>,
    hasher: blake3::Hasher,
}

impl Hashed {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.out.write_all(bytes)
    }

    fn finish(mut self) -> io::Result<()> {
        self.out.write_all(self.hasher.finalize().as_bytes())?;
        self.out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gavel_model::FeatureValue;

    fn users(count: u32) -> impl Iterator<Item = Result<StoredUser, UserFileError>> {
        (0..count).map(|i| {
            let features = vec![("age".into(), FeatureValue::Dense(i as f32))];
            Ok(StoredUser { user_id: format!("user-{i}"), features })
        })
    }

    #[test]
    fn users_are_found_and_strangers_are_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("users");
        let file = UserFile::build(&path, &[], users(1_000)).expect("built");
        assert_eq!(file.len(), 1_000);
        for i in [0, 1, 500, 999] {
            let user = file.find(&format!("user-{i}")).expect("read").expect("known");
            assert_eq!(user.features[0].1, FeatureValue::Dense(i as f32));
        }
        assert_eq!(file.find("user-1000").expect("read"), None);
        assert!(UserFile::build(&path, &[], users(0)).expect("built").is_empty());
        assert_eq!(UserFile::empty().find("x").expect("read"), None);
    }

    #[test]
    fn a_flipped_bit_or_a_short_file_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("users");
        UserFile::build(&path, &[], users(20)).expect("built");
        let whole = std::fs::read(&path).expect("read");
        for at in (0..whole.len()).step_by(7) {
            let mut bent = whole.clone();
            bent[at] ^= 1;
            std::fs::write(&path, &bent).expect("written");
            assert!(UserFile::open(&path).is_err(), "{at}");
            std::fs::write(&path, &whole[..at]).expect("written");
            assert!(UserFile::open(&path).is_err(), "{at}");
        }
    }
}
