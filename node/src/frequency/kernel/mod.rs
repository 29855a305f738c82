//! What does counting decide, without a clock, a socket or a disk?
//!
//! A [`Series`] counts one thing of one user in the buckets of one rolling window. A [`Table`] holds the series of a
//! part of the users, decides reservations, knows the same reservation again, and merges what other nodes say.
//! [`Placement`] says whom this node may answer for.

mod placement;
mod recent;
mod series;
mod table;

pub use placement::Placement;
pub use recent::RECENT_MS;
pub use series::{BUCKETS, KEPT, Series};
pub use table::{AdToCount, Counted, Counter, Op, Table, Verdict};

#[cfg(test)]
mod tests;
