//! What is known of this user?
//!
//! [`UserFeatures`] is asked once a request. The embedded [`UserFile`] answers from the users of the active
//! generation, behind a bounded [`UserCache`]; a store behind the network takes the same place.
//! An unknown user is no error: the model's defaults stand in, and a counter says so.

mod cache;
mod convert;
mod file;
mod record;

pub use cache::UserCache;
pub use file::{UserFile, UserFileError};
pub use record::StoredUser;

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

/// The answer of a store, in a while.
pub type Lookup<'a> = Pin<Box<dyn Future<Output = Result<Option<Arc<StoredUser>>, UserFileError>> + Send + 'a>>;

/// Whoever knows users.
pub trait UserFeatures: Send + Sync {
    /// The features of a user; `None` when the user is unknown.
    fn get<'a>(&'a self, user_id: &'a str) -> Lookup<'a>;
}

impl UserFeatures for UserFile {
    fn get<'a>(&'a self, user_id: &'a str) -> Lookup<'a> {
        // One read of a cached page: microseconds, so it may stay on the async thread.
        Box::pin(std::future::ready(self.find(user_id).map(|user| user.map(Arc::new))))
    }
}

/// Reads the users of a catalogue blob into a file that can be asked.
///
/// # Errors
/// When the blob is damaged or the disk says no.
pub fn build(blob: &Path, file: &Path) -> Result<(), UserFileError> {
    UserFile::build(file, &convert::dimensions_of(blob)?, convert::users(blob)?).map(drop)
}
