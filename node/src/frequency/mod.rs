//! How often has each user seen what is capped?
//!
//! Every live node counts for its share of the users: two nodes hold each user, the owner and a replica
//! (`gavel_proto::frequency::owners`), and routers ask the owner, or the replica when it does not answer. Whoever
//! decides copies what it counted to the other at once and behind the answer. The [`kernel`] counts; the [`Store`]
//! keeps its tables behind locks of microseconds, [`journal`] keeps them on disk, [`copies`] sends them on, and
//! [`moves`] follows the View: users that come to this node are answered for when the others have sent them.
//!
//! Not here: rules. A router sends the bounds with each reservation and compares counts with its own pinned rules, so
//! that a changed rule counts from the request that pins it.

pub mod convert;
pub mod copies;
pub mod journal;
pub mod kernel;
pub mod moves;

mod store;
mod transport;

pub use moves::start;
pub use store::{Held, NotHere, Store, StoreError};

use std::path::PathBuf;

/// What counting needs to know at its start.
#[derive(Clone, Debug)]
pub struct CountingConfig {
    /// Where the counts are kept.
    pub folder: PathBuf,
    /// Memory that counts may take.
    pub bytes_max: u64,
}

#[cfg(test)]
mod tests;
