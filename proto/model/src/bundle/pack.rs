//! How does a bundle travel as one blob, and what is its address?
//!
//! The packed form is `GAVELBN1`, then for each file in the order of the names: u32 length of the name, the name,
//! u64 length of the bytes, the bytes (all little-endian). BLAKE3 over the packed form is the bundle's hash. The
//! form is canonical: two folders with equal files have one packed form, and a packed form that is out of order
//! is refused. Names are flat, `[a-z0-9_.-]`, and do not start with a dot: no bundle can write outside its folder.

use super::file;
use crate::error::BundleError;
use crate::limits::{FILE_BYTES_MAX, FILES_MAX, NAME_BYTES_MAX};
use prost::bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

const MAGIC: &[u8; 8] = b"GAVELBN1";

/// The files of one bundle by name.
pub(crate) type FileMap = BTreeMap<String, Bytes>;

/// A folder in packed form.
///
/// # Errors
/// When a file cannot be read, has a name that no file may have, or is too large.
pub fn pack(dir: &Path) -> Result<Vec<u8>, BundleError> {
    Ok(packed(&read_folder(dir)?))
}

/// Writes a packed bundle to a folder that does not exist yet, whole or not at all. A folder that is there
/// already is left alone if it holds the same bytes, and refused otherwise.
///
/// # Errors
/// When the packed form is wrong, or the folder cannot be written or differs.
pub fn unpack(bytes: &[u8], dir: &Path) -> Result<(), BundleError> {
    let files = entries(bytes)?;
    if dir.exists() {
        let same = pack(dir)? == bytes;
        return if same { Ok(()) } else { packed_wrong(format!("{} holds something else", dir.display())) };
    }
    let Some(name) = dir.file_name() else {
        return packed_wrong(format!("{} is not a folder's name", dir.display()));
    };
    let mut partial = name.to_os_string();
    partial.push(".partial");
    let partial = dir.with_file_name(partial);
    let io = |path: &Path| {
        let path = path.to_owned();
        move |e| BundleError::io(&path, e)
    };
    // What a crash left behind.
    if partial.exists() {
        fs::remove_dir_all(&partial).map_err(io(&partial))?;
    }
    fs::create_dir_all(&partial).map_err(io(&partial))?;
    for (name, content) in files {
        let path = partial.join(name);
        fs::write(&path, content).map_err(io(&path))?;
        fs::File::open(&path).and_then(|f| f.sync_all()).map_err(io(&path))?;
    }
    fs::rename(&partial, dir).map_err(io(dir))?;
    let parent = dir.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(parent).and_then(|f| f.sync_all()).map_err(io(parent))
}

/// The hash of a folder's packed form.
pub(crate) fn hash(files: &FileMap) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    write(files, |bytes| {
        hasher.update(bytes);
    });
    *hasher.finalize().as_bytes()
}

/// Every file of a folder.
pub(crate) fn read_folder(dir: &Path) -> Result<FileMap, BundleError> {
    let mut files = FileMap::new();
    for entry in fs::read_dir(dir).map_err(|e| BundleError::io(dir, e))? {
        let entry = entry.map_err(|e| BundleError::io(dir, e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        check_name(&name)?;
        let path = entry.path();
        let meta = entry.metadata().map_err(|e| BundleError::io(&path, e))?;
        if !meta.is_file() {
            return packed_wrong(format!("{name} is not a file"));
        }
        check_limit(&name, meta.len(), FILE_BYTES_MAX)?;
        check_limit("files", files.len() as u64 + 1, FILES_MAX as u64)?;
        files.insert(name, file::read(&path)?);
    }
    Ok(files)
}

/// The same without the checksums, which [`write_folder`] makes anew.
pub(crate) fn read_contents(dir: &Path) -> Result<FileMap, BundleError> {
    let mut files = read_folder(dir)?;
    files.remove("BLAKE3SUMS");
    Ok(files)
}

/// Writes files and the checksums of all of them to a folder that is there, as a bundle has them.
///
/// # Errors
/// When a file cannot be written.
pub fn write_folder<'a>(dir: &Path, files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<(), BundleError> {
    let mut sums = String::new();
    let write = |name: &str, content: &[u8]| {
        let path = dir.join(name);
        fs::write(&path, content).map_err(|e| BundleError::io(&path, e))
    };
    for (name, content) in files {
        write(name, content)?;
        let _ = writeln!(sums, "{}  {name}", blake3::hash(content).to_hex());
    }
    write("BLAKE3SUMS", sums.as_bytes())
}

fn packed(files: &FileMap) -> Vec<u8> {
    let size = files.iter().map(|(n, c)| n.len() + c.len() + 12).sum::<usize>() + MAGIC.len();
    let mut out = Vec::with_capacity(size);
    write(files, |bytes| out.extend_from_slice(bytes));
    out
}

fn write(files: &FileMap, mut sink: impl FnMut(&[u8])) {
    sink(MAGIC);
    for (name, content) in files {
        sink(&(name.len() as u32).to_le_bytes());
        sink(name.as_bytes());
        sink(&(content.len() as u64).to_le_bytes());
        sink(content);
    }
}

/// The files of a packed form, which borrows nothing that it has not checked.
fn entries(bytes: &[u8]) -> Result<Vec<(&str, &[u8])>, BundleError> {
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else { return packed_wrong("does not start with GAVELBN1") };
    let mut files: Vec<(&str, &[u8])> = Vec::new();
    while !rest.is_empty() {
        check_limit("files", files.len() as u64 + 1, FILES_MAX as u64)?;
        let length = u32::from_le_bytes(take(&mut rest)?);
        check_limit("bytes of a name", u64::from(length), NAME_BYTES_MAX as u64)?;
        let name = take_slice(&mut rest, u64::from(length))?;
        let name = std::str::from_utf8(name).map_err(|e| BundleError::Packed(e.to_string()))?;
        check_name(name)?;
        if files.last().is_some_and(|(before, _)| *before >= name) {
            return packed_wrong(format!("{name} is out of order"));
        }
        let size = u64::from_le_bytes(take(&mut rest)?);
        check_limit(name, size, FILE_BYTES_MAX)?;
        files.push((name, take_slice(&mut rest, size)?));
    }
    Ok(files)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], BundleError> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or_else(cut)?;
    *rest = tail;
    Ok(*head)
}

fn take_slice<'a>(rest: &mut &'a [u8], length: u64) -> Result<&'a [u8], BundleError> {
    let length = usize::try_from(length).map_err(|_| cut())?;
    let (head, tail) = rest.split_at_checked(length).ok_or_else(cut)?;
    *rest = tail;
    Ok(head)
}

fn cut() -> BundleError {
    BundleError::Packed("ends in the middle of a file".to_owned())
}

fn packed_wrong<T>(reason: impl Into<String>) -> Result<T, BundleError> {
    Err(BundleError::Packed(reason.into()))
}

fn check_limit(what: &str, found: u64, limit: u64) -> Result<(), BundleError> {
    if found <= limit { Ok(()) } else { Err(BundleError::Limit { what: what.to_owned(), found, limit }) }
}

pub(crate) fn check_name(name: &str) -> Result<(), BundleError> {
    let fine = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.' | b'-'))
        || name == "BLAKE3SUMS";
    if fine { Ok(()) } else { Err(BundleError::Name(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn form(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for (name, content) in files {
            out.extend((name.len() as u32).to_le_bytes());
            out.extend(name.as_bytes());
            out.extend((content.len() as u64).to_le_bytes());
            out.extend(*content);
        }
        out
    }

    #[test]
    fn there_and_back() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = form(&[("BLAKE3SUMS", b"x"), ("a.onnx", b""), ("b-1.toml", b"abc")]);
        let to = dir.path().join("bundle");
        unpack(&bytes, &to).unwrap();
        assert_eq!(pack(&to).unwrap(), bytes);
        assert_eq!(hash(&read_folder(&to).unwrap()), *blake3::hash(&bytes).as_bytes());
        unpack(&bytes, &to).unwrap();
        assert!(unpack(&form(&[("a", b"")]), &to).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn a_packed_form_writes_only_flat_names_in_order() {
        for name in ["", "../x", "a/b", "/etc/x", ".", "..", ".hidden", "A", "a b", "a\0b", "ä"] {
            assert!(entries(&form(&[(name, b"x")])).is_err(), "{name:?}");
        }
        assert!(entries(&form(&[("b", b""), ("a", b"")])).is_err());
        assert!(entries(&form(&[("a", b""), ("a", b"")])).is_err());
        assert!(entries(b"GAVELBN2").is_err());
        let mut huge = MAGIC.to_vec();
        huge.extend(1u32.to_le_bytes());
        huge.extend(b"a");
        huge.extend(u64::MAX.to_le_bytes());
        assert!(entries(&huge).is_err());
    }

    proptest! {
        #[test]
        fn a_cut_or_flipped_form_never_panics(at in 0usize..40, bit in 0u8..8) {
            let bytes = form(&[("a.onnx", b"123"), ("b", b"4")]);
            let at = at % bytes.len();
            let cut = entries(&bytes[..at]).is_ok();
            // A cut between two files is a shorter form: the checksums find it.
            prop_assert!(!cut || at == 8 || at == 8 + 4 + 6 + 8 + 3);
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            let _ = entries(&flipped);
        }
    }
}
