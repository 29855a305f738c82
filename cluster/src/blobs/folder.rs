//! Which bundles and catalogues are on this voter's disk, and are they whole?
//!
//! A file per BLAKE3. What is still arriving has another name and is renamed only when its hash has matched
//! over all of it, so a name is a promise. An upload goes on where it broke off; two uploads of one blob at a
//! time are refused rather than interleaved.
//!
//! What the state no longer names goes, but not at once: an upload comes before the command that names it. All
//! blobs together have a limit, because anybody who reaches a voter can send some.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use gavel_member::{clock, disk};
use gavel_proto::limits::{BLOB_BYTES_MAX, CHUNK_BYTES_MAX};

use super::BlobError;
use crate::state::types::Hash32;

/// A blob that nobody names stays for so long after it was last sent or asked for: the longest load ends well within.
pub(super) const GRACE_MS: u64 = 6 * 3_600 * 1_000;

/// How much of a blob is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// All of it: its length.
    Whole(u64),
    /// The first bytes of it.
    Part(u64),
}

/// What an upload came to.
#[derive(Debug)]
pub enum Arrived {
    /// The first bytes of it.
    Part(u64),
    /// All of it, with the hash that was promised; it has no name yet.
    Whole(WholePart),
}

/// All bytes of a blob, verified, before they have their name; another upload of it is refused meanwhile.
#[derive(Debug)]
pub struct WholePart(Upload);

/// The folder of blobs.
#[derive(Clone, Debug)]
pub struct BlobFolder {
    folder: PathBuf,
    bytes_max: u64,
    /// With the length that each will have.
    arriving: Arc<Mutex<BTreeMap<Hash32, u64>>>,
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
    /// Opens the folder, making it when it does not exist; it takes at most `bytes_max` bytes.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn open(folder: &Path, bytes_max: u64) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.to_owned(), bytes_max, arriving: Arc::default() })
    }

    /// How much of a blob is here. Whoever asks is about to name it, so a whole one counts as new.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn held(&self, hash: &Hash32) -> io::Result<Held> {
        let path = self.path(hash);
        if let Some(bytes) = length_of(&path)? {
            std::fs::File::open(path)?.set_modified(UNIX_EPOCH + Duration::from_millis(clock::wall_ms()))?;
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
    /// When it is too large, there is no room, or another upload of it runs.
    pub fn upload(&self, hash: Hash32, total: u64) -> Result<Upload, BlobError> {
        if total == 0 || total > BLOB_BYTES_MAX {
            return Err(BlobError::TooLarge(total));
        }
        self.reserve(hash, total)?;
        let opened = self.open_part(&hash, total);
        match opened {
            Ok((file, held)) => Ok(Upload { folder: self.clone(), hash, total, held, file }),
            Err(error) => {
                self.arriving().remove(&hash);
                Err(error.into())
            }
        }
    }

    /// Counts what will be there when all that arrives has arrived.
    fn reserve(&self, hash: Hash32, total: u64) -> Result<(), BlobError> {
        let mut arriving = self.arriving();
        if arriving.contains_key(&hash) {
            return Err(BlobError::Busy);
        }
        let mut bytes = arriving.values().sum::<u64>().saturating_add(total);
        for (held, file) in self.files()? {
            // What arrives is counted with all its bytes.
            if held != hash && !arriving.contains_key(&held) {
                bytes = bytes.saturating_add(file.metadata()?.len());
            }
        }
        if bytes > self.bytes_max {
            return Err(BlobError::NoRoom(total));
        }
        arriving.insert(hash, total);
        Ok(())
    }

    /// Removes blobs, whole or not, that are not `named`, do not arrive and have grown old; says how many.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn sweep(&self, named: &BTreeSet<Hash32>, now_ms: u64) -> io::Result<usize> {
        // Held throughout, so that no upload begins on a file that goes.
        let arriving = self.arriving();
        let mut removed = 0;
        for (hash, file) in self.files()? {
            if named.contains(&hash) || arriving.contains_key(&hash) {
                continue;
            }
            if age_ms(&file.path(), now_ms)? > GRACE_MS {
                std::fs::remove_file(file.path())?;
                metrics::counter!("gavel_control_blobs_removed_total").increment(1);
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Whole blobs of those that are `named`, with their lengths.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn whole(&self, named: &BTreeSet<Hash32>) -> io::Result<Vec<(Hash32, u64)>> {
        let mut found = Vec::new();
        for hash in named {
            if let Some(bytes) = length_of(&self.path(hash))? {
                found.push((*hash, bytes));
            }
        }
        Ok(found)
    }

    /// Removes the copy of a blob that is elsewhere, too, when nobody has sent or asked for it for long. Its age is looked
    /// at only now: somebody may have begun to read it since the blobs were listed.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn let_go_old(&self, hash: &Hash32, now_ms: u64) -> io::Result<()> {
        if age_ms(&self.path(hash), now_ms)? > GRACE_MS { self.let_go(hash) } else { Ok(()) }
    }

    /// Removes the copy of a blob that is elsewhere, too; one that arrives stays.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn let_go(&self, hash: &Hash32) -> io::Result<()> {
        let arriving = self.arriving();
        if !arriving.contains_key(hash) {
            std::fs::remove_file(self.path(hash))?;
        }
        Ok(())
    }

    /// Blobs, whole or not.
    fn files(&self) -> io::Result<Vec<(Hash32, std::fs::DirEntry)>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            let path = entry.path();
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            if let Ok(hash) = blake3::Hash::from_hex(name) {
                files.push((*hash.as_bytes(), entry));
            }
        }
        Ok(files)
    }

    fn arriving(&self) -> MutexGuard<'_, BTreeMap<Hash32, u64>> {
        self.arriving.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// What it will be.
    #[must_use]
    pub const fn hash(&self) -> Hash32 {
        self.hash
    }

    /// The length that it will have.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

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
        match self.verify()? {
            Arrived::Part(held) => Ok(Held::Part(held)),
            Arrived::Whole(whole) => whole.name(),
        }
    }

    /// Makes what came safe, and when all of it is there, checks it.
    ///
    /// # Errors
    /// When the bytes are not those that were promised; they are then thrown away.
    pub fn verify(self) -> Result<Arrived, BlobError> {
        self.file.sync_all()?;
        if self.held < self.total {
            return Ok(Arrived::Part(self.held));
        }
        let part = self.folder.part(&self.hash);
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(std::fs::File::open(&part)?)?;
        if hasher.finalize().as_bytes() != &self.hash {
            std::fs::remove_file(&part)?;
            return Err(BlobError::OtherBytes);
        }
        Ok(Arrived::Whole(WholePart(self)))
    }
}

impl WholePart {
    /// Where the bytes lie.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.0.folder.part(&self.0.hash)
    }

    /// Their number.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.0.total
    }

    /// Gives them their name.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn name(self) -> Result<Held, BlobError> {
        let Self(upload) = &self;
        let path = upload.folder.path(&upload.hash);
        std::fs::rename(upload.folder.part(&upload.hash), &path)?;
        disk::sync_folder_of(&path)?;
        metrics::counter!("gavel_control_blobs_received_total").increment(1);
        Ok(Held::Whole(upload.total))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.folder.arriving().remove(&self.hash);
    }
}

/// The length of a file that is there.
pub(super) fn length_of(path: &Path) -> io::Result<Option<u64>> {
    match std::fs::metadata(path) {
        Ok(found) => Ok(Some(found.len())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// For how long nobody has sent or asked for it.
fn age_ms(path: &Path, now_ms: u64) -> io::Result<u64> {
    let since_epoch = std::fs::metadata(path)?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(now_ms.saturating_sub(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_goes_on_where_it_broke_off_and_only_the_right_bytes_get_the_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = BlobFolder::open(folder.path(), BLOB_BYTES_MAX).expect("opened");
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

    /// Its age was of before the store was spoken with, which takes long: the file went under a reader.
    #[test]
    fn a_copy_that_somebody_has_begun_to_read_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = BlobFolder::open(folder.path(), BLOB_BYTES_MAX).expect("opened");
        let (hash, now_ms) = (*blake3::hash(b"bytes").as_bytes(), clock::wall_ms());
        std::fs::write(blobs.path(&hash), b"bytes").expect("written");
        let age = || {
            let file = std::fs::File::options().append(true).open(blobs.path(&hash)).expect("there");
            file.set_modified(UNIX_EPOCH).expect("aged");
        };
        age();
        assert_eq!(blobs.whole(&BTreeSet::from([hash])).expect("listed"), [(hash, 5)]);
        assert_eq!(blobs.held(&hash).expect("asked"), Held::Whole(5));
        blobs.let_go_old(&hash, now_ms).expect("looked at");
        assert_eq!(blobs.read(&hash, 0).expect("read"), (b"bytes".to_vec(), 5));
        age();
        blobs.let_go_old(&hash, now_ms).expect("let go");
        assert!(matches!(blobs.read(&hash, 0), Err(BlobError::Unknown)));
    }

    #[test]
    fn blobs_have_a_limit_together_and_go_when_nobody_names_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = BlobFolder::open(folder.path(), 10).expect("opened");
        let put = |bytes: &[u8]| -> Result<Hash32, BlobError> {
            let hash = *blake3::hash(bytes).as_bytes();
            let mut upload = blobs.upload(hash, bytes.len() as u64)?;
            upload.take(0, bytes, crc32fast::hash(bytes))?;
            upload.finish()?;
            Ok(hash)
        };
        let named = put(b"named").expect("fits");
        let other = put(b"else").expect("fits");
        assert!(matches!(put(b"more"), Err(BlobError::NoRoom(4))));
        let arriving = blobs.upload([1; 32], 1).expect("the last byte");
        assert!(matches!(put(b"x"), Err(BlobError::NoRoom(1))), "what arrives has its place");

        let later = |ms: u64| blobs.sweep(&BTreeSet::from([named]), clock::wall_ms() + ms).expect("swept");
        assert_eq!(later(0), 0, "a load may be about to name it");
        assert_eq!(later(GRACE_MS + 60_000), 1);
        assert_eq!(blobs.held(&named).expect("asked"), Held::Whole(5));
        assert_eq!(blobs.held(&other).expect("asked"), Held::Part(0));
        drop(arriving);
        assert_eq!(later(GRACE_MS + 60_000), 1, "an upload that broke off");
        put(b"more").expect("there is room again");
    }
}
