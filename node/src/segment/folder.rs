//! How does a folder come to be there whole or not at all?
//!
//! Files are written into a temporary folder beside the target, hashed on the way and fsynced; the manifest
//! goes last; then the folder is renamed and its parent fsynced. Opening goes the other way: the manifest's
//! own checksum, then length and BLAKE3 over every byte of each file, and only then the map (SE1).

use super::{
    codec,
    container::{Container, FileKind, Sections, ShardKey, Storage},
    error::SegmentError,
};
use memmap2::Mmap;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    fs::{self, File, OpenOptions},
    io::{BufWriter, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

const MANIFEST: &str = "manifest";
/// Bytes read at a time while a file is hashed: large enough for BLAKE3's widest kernel.
const READ_BYTES: usize = 1 << 20;

/// One file as its manifest names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileEntry {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) blake3: [u8; 32],
}

/// What a folder is called while it is written; the name of its target comes before.
pub const BUILDING: &str = ".building";

/// A folder that is being written.
pub(crate) struct FolderWriter {
    target: PathBuf,
    temporary: PathBuf,
    files: Vec<FileEntry>,
}

impl FolderWriter {
    /// Starts a folder; what an interrupted writer left is removed.
    pub(crate) fn create(target: &Path) -> Result<Self, SegmentError> {
        if target.exists() {
            return Err(SegmentError::Exists(target.to_path_buf()));
        }
        let temporary = temporary(target);
        match fs::remove_dir_all(&temporary) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(SegmentError::io(&temporary, e)),
        }
        fs::create_dir_all(&temporary).map_err(|e| SegmentError::io(&temporary, e))?;
        Ok(Self { target: target.to_path_buf(), temporary, files: Vec::new() })
    }

    /// Goes on with what an interrupted writer left, of which only these files count; `None` when there is nothing.
    pub(crate) fn resume(target: &Path, kept: &[&str]) -> Option<Self> {
        let temporary = temporary(target);
        let is_left = !target.exists() && temporary.is_dir();
        let folder = is_left.then(|| Self { target: target.to_path_buf(), temporary, files: Vec::new() })?;
        for entry in fs::read_dir(&folder.temporary).ok()? {
            let name = entry.ok()?.file_name();
            if !kept.iter().any(|kept| name == *kept) {
                fs::remove_file(folder.temporary.join(name)).ok()?;
            }
        }
        Some(folder)
    }

    /// Where files are while the folder is written.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.temporary.join(name)
    }

    /// Goes on with a file of which the beginning is as it was written down; what comes after that is cut off.
    pub(crate) fn file_after(&self, begun: &FileEntry) -> Result<HashedFile, SegmentError> {
        HashedFile::resume(self.path(&begun.name), begun)
    }

    /// Starts a file.
    pub(crate) fn file(&self, name: &str) -> Result<HashedFile, SegmentError> {
        HashedFile::create(self.temporary.join(name), name)
    }

    /// Ends a file.
    pub(crate) fn finish(&mut self, file: HashedFile) -> Result<(), SegmentError> {
        self.files.push(file.finish()?);
        Ok(())
    }

    /// Writes a container from memory; its bytes.
    pub(crate) fn container(
        &mut self,
        name: &str,
        kind: FileKind,
        key: ShardKey,
        sections: Sections,
    ) -> Result<u64, SegmentError> {
        let mut file = self.file(name)?;
        sections.write(kind, key, |bytes| file.write(bytes))?;
        let bytes = file.bytes();
        self.finish(file)?;
        Ok(bytes)
    }

    /// Opens a file that has ended, before the folder is sealed.
    pub(crate) fn reopen(&self, name: &str, kind: FileKind, key: ShardKey) -> Result<Container, SegmentError> {
        open_container(&self.temporary, &self.files, name, kind, key)
    }

    /// Takes a file out again that is no part of the folder.
    fn remove(&self, name: &str) -> Result<(), SegmentError> {
        match fs::remove_file(self.path(name)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(SegmentError::io(&self.path(name), e)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Writes the manifest that `with` makes of the files, and puts the folder in its place.
    /// Answers its hash and its bytes.
    pub(crate) fn seal<M: Serialize>(
        self,
        with: impl FnOnce(Vec<FileEntry>) -> M,
    ) -> Result<([u8; 32], u64), SegmentError> {
        self.seal_without(&[], with)
    }

    /// The same, without the files that only an interrupted writer would need; they go last, so that it has them for
    /// as long as anything can still interrupt it.
    pub(crate) fn seal_without<M: Serialize>(
        mut self,
        scratch: &[&str],
        with: impl FnOnce(Vec<FileEntry>) -> M,
    ) -> Result<([u8; 32], u64), SegmentError> {
        let bytes = self.files.iter().map(|f| f.bytes).sum();
        let (manifest, hash) = codec::encode(&with(std::mem::take(&mut self.files)))?;
        let mut file = HashedFile::create(self.temporary.join(MANIFEST), MANIFEST)?;
        file.write(&manifest)?;
        file.finish()?;
        for name in scratch {
            self.remove(name)?;
        }
        sync_folder(&self.temporary)?;
        fs::rename(&self.temporary, &self.target).map_err(|e| SegmentError::io(&self.target, e))?;
        if let Some(parent) = self.target.parent() {
            sync_folder(parent)?;
        }
        Ok((hash, bytes))
    }
}

fn temporary(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_os_string();
    name.push(BUILDING);
    target.with_file_name(name)
}

pub(super) fn sync_folder(path: &Path) -> Result<(), SegmentError> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path).and_then(|dir| dir.sync_all()).map_err(|e| SegmentError::io(path, e))
}

/// A file that is hashed while it is written.
pub(crate) struct HashedFile {
    path: PathBuf,
    name: String,
    out: BufWriter<File>,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl HashedFile {
    fn create(path: PathBuf, name: &str) -> Result<Self, SegmentError> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(|e| SegmentError::io(&path, e))?;
        let out = BufWriter::with_capacity(READ_BYTES, file);
        Ok(Self { path, name: name.into(), out, hasher: blake3::Hasher::new(), bytes: 0 })
    }

    fn resume(path: PathBuf, begun: &FileEntry) -> Result<Self, SegmentError> {
        let io = |e| SegmentError::io(&path, e);
        // It had ended when its folder had not.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(io)?;
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(io)?;
        if file.metadata().map_err(io)?.len() < begun.bytes {
            return Err(SegmentError::damaged(&path, "shorter than it was"));
        }
        file.set_len(begun.bytes).map_err(io)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(&file).map_err(io)?;
        if hasher.finalize() != begun.blake3 {
            return Err(SegmentError::damaged(&path, "its beginning is not what was written"));
        }
        let out = BufWriter::with_capacity(READ_BYTES, file);
        Ok(Self { name: begun.name.clone(), out, hasher, bytes: begun.bytes, path })
    }

    /// Makes what was written so far safe; what it is then.
    pub(crate) fn checkpoint(&mut self) -> Result<FileEntry, SegmentError> {
        self.out.flush().and_then(|()| self.out.get_ref().sync_data()).map_err(|e| SegmentError::io(&self.path, e))?;
        Ok(FileEntry { name: self.name.clone(), bytes: self.bytes, blake3: *self.hasher.finalize().as_bytes() })
    }

    /// Bytes so far.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), SegmentError> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        self.out.write_all(bytes).map_err(|e| SegmentError::io(&self.path, e))
    }

    fn finish(mut self) -> Result<FileEntry, SegmentError> {
        let io = |e| SegmentError::io(&self.path, e);
        self.out.flush().map_err(io)?;
        let file = self.out.get_ref();
        // Nobody opens it for writing again: a truncated map would kill the process.
        file.set_permissions(fs::Permissions::from_mode(0o400)).map_err(io)?;
        file.sync_all().map_err(io)?;
        Ok(FileEntry { name: self.name, bytes: self.bytes, blake3: *self.hasher.finalize().as_bytes() })
    }
}

/// Reads and checks the manifest of a folder.
pub(crate) fn read_manifest<M: DeserializeOwned>(folder: &Path) -> Result<(M, [u8; 32]), SegmentError> {
    let path = folder.join(MANIFEST);
    let length = fs::metadata(&path).map_err(|e| SegmentError::io(&path, e))?.len();
    if length > codec::BYTES_MAX as u64 {
        return Err(SegmentError::damaged(&path, "longer than any manifest"));
    }
    let bytes = fs::read(&path).map_err(|e| SegmentError::io(&path, e))?;
    codec::decode(&path, &bytes)
}

/// Verifies every byte of a file, then maps it and checks its table.
pub(crate) fn open_container(
    folder: &Path,
    files: &[FileEntry],
    name: &str,
    kind: FileKind,
    key: ShardKey,
) -> Result<Container, SegmentError> {
    let path = folder.join(name);
    let entry = files.iter().find(|f| f.name == name);
    let entry = entry.ok_or_else(|| SegmentError::damaged(folder, format!("the manifest names no {name}")))?;
    let mut file = File::open(&path).map_err(|e| SegmentError::io(&path, e))?;
    verify(&path, &mut file, entry)?;
    // SAFETY: the file is sealed: written once with mode 0400, renamed into place and never opened for
    // writing again by this program; it has just been verified whole through the same descriptor.
    let map = unsafe { Mmap::map(&file) }.map_err(|e| SegmentError::io(&path, e))?;
    if map.len() as u64 != entry.bytes {
        return Err(SegmentError::damaged(&path, "it changed while it was opened"));
    }
    Container::new(&path, Storage::Mapped(map), kind, key)
}

fn verify(path: &Path, file: &mut File, entry: &FileEntry) -> Result<(), SegmentError> {
    let length = file.metadata().map_err(|e| SegmentError::io(path, e))?.len();
    if length != entry.bytes {
        return Err(SegmentError::damaged(path, format!("{length} bytes instead of {}", entry.bytes)));
    }
    let (mut hasher, mut buffer) = (blake3::Hasher::new(), vec![0; READ_BYTES]);
    loop {
        let read = file.read(&mut buffer).map_err(|e| SegmentError::io(path, e))?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
    }
    if hasher.finalize() == entry.blake3 { Ok(()) } else { Err(SegmentError::damaged(path, "its checksum")) }
}
