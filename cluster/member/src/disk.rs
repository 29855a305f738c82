//! How does a small file change without ever being half written?
//!
//! Written beside its place, fsynced, renamed over the old one, and the folder fsynced: after a crash there is
//! the old content or the new one. A file that must be told from a damaged one starts with its BLAKE3.

use gavel_proto::limits::{AD_GROUP_OVERRIDES_MAX, DELIVERY_OVERRIDES_MAX};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

/// Longest file that [`read_sealed`] takes: a View of the largest cluster is well below it.
const SEALED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Length of a BLAKE3 hash.
const HASH_BYTES: usize = 32;

const _: () = assert!(
    ((DELIVERY_OVERRIDES_MAX * 192 + AD_GROUP_OVERRIDES_MAX * 24) as u64) < SEALED_BYTES_MAX,
    "all that is said of campaigns and their ad groups is read again"
);

/// Replaces the file whole.
///
/// # Errors
/// Whatever the disk says.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("tmp");
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&beside, path)?;
    sync_folder_of(path)
}

/// Makes a rename or creation in the folder of `path` durable.
///
/// # Errors
/// Whatever the disk says.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// Replaces the file whole, its content behind its BLAKE3.
///
/// # Errors
/// Whatever the disk says.
pub fn write_sealed(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut whole = Vec::with_capacity(HASH_BYTES + bytes.len());
    whole.extend_from_slice(blake3::hash(bytes).as_bytes());
    whole.extend_from_slice(bytes);
    write_atomic(path, &whole)
}

/// What [`write_sealed`] wrote; `None` when there is no such file.
///
/// # Errors
/// `InvalidData` when the bytes are not the ones that were written, else whatever the disk says.
pub fn read_sealed(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut whole = Vec::new();
    file.take(SEALED_BYTES_MAX).read_to_end(&mut whole)?;
    let Some((hash, bytes)) = whole.split_at_checked(HASH_BYTES) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "shorter than its checksum"));
    };
    if blake3::hash(bytes).as_bytes() != hash {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the checksum does not match"));
    }
    Ok(Some(bytes.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_told_from_a_missing_one() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("view");
        assert_eq!(read_sealed(&path).expect("readable"), None);
        write_sealed(&path, b"content").expect("written");
        assert_eq!(read_sealed(&path).expect("readable").as_deref(), Some(&b"content"[..]));
        let mut bytes = fs::read(&path).expect("bytes");
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            fs::write(&path, &bytes).expect("written");
            assert_eq!(read_sealed(&path).expect_err("damaged").kind(), io::ErrorKind::InvalidData);
            bytes[at] ^= 1;
        }
        fs::write(&path, &bytes[..20]).expect("written");
        assert_eq!(read_sealed(&path).expect_err("cut").kind(), io::ErrorKind::InvalidData);
    }
}
