//! How do the bytes of a bundle's file come into memory?
//!
//! Small files are read. Large ones are mapped: the tables inside them are then pages of the file, which all
//! processes of a host share and which the system may drop and read again. Either way the caller verifies the
//! checksum before anything in the bytes is used (MO1).

use crate::error::BundleError;
use crate::limits::FILE_BYTES_MAX;
use memmap2::Mmap;
use prost::bytes::Bytes;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Bytes from which on a file is mapped. A mapping costs some microseconds and a page of address space more than a
/// read of a small file; a file that can hold a table is larger than this.
const MAPPED_BYTES_MIN: u64 = crate::graph::TABLE_BYTES_MIN as u64;

/// The bytes of a file of at most [`FILE_BYTES_MAX`].
pub(super) fn read(path: &Path) -> Result<Bytes, BundleError> {
    let io = |e| BundleError::io(path, e);
    let file = File::open(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    if length < MAPPED_BYTES_MIN {
        let mut bytes = Vec::with_capacity(length as usize);
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(io)?;
        return Ok(bytes.into());
    }
    // SAFETY: a bundle's files are written once, under another name, and renamed into place (`unpack`); no process of
    // ours writes to one again. Whoever changes or cuts them by hand breaks this, as with every sealed file.
    let map = unsafe { Mmap::map(&file) }.map_err(io)?;
    Ok(Bytes::from_owner(map))
}
