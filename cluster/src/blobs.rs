//! Where does a voter have bundles and catalogues, and which of them count as there?
//!
//! `folder` is its own disk: a file per BLAKE3. `store` is an object store that all voters share, if one is configured.
//! `shelf` is both together and what `rpc` speaks with: what came over the wire is verified on the disk, put into the
//! store, read back from there, and only then has its name. What is on the disk beside a store is a copy that may go.
//! See docs/design/0009-object-store.md.

mod folder;
mod location;
mod shelf;
mod store;

use std::io;

pub use folder::{Arrived, BlobFolder, Held, Upload, WholePart};
pub use location::{Addressing, Keys, StoreLocation};
pub use shelf::{Begun, Shelf, Sweeper};
pub use store::{Object, Store};

/// Why a blob was not taken or given.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// Larger than any blob may be.
    #[error("{0} bytes are more than a blob may have")]
    TooLarge(u64),
    /// All blobs together would be more than a voter, or the store, may hold.
    #[error("there is no room for {0} bytes: blobs that nobody names go after some hours")]
    NoRoom(u64),
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
    /// The object store did not do what it was asked in time, or said no.
    #[error("the object store: {0}")]
    Store(String),
}

/// Does work on the disk off the async threads.
pub(crate) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, BlobError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| io::Error::other("the work was cut off"))?
}
