//! Whom may a request ask, and whom does it ask first?
//!
//! A [`RouteTable`] is the map of one View: every shard of the active generation with its item count and the
//! replicas that serve it. [`health::Health`] is what this router has seen of the nodes: latency, calls in
//! flight, failures in a row. [`choose::choose`] puts both together: for each shard the replicas in the order in
//! which they are tried, the first one by power-of-two-choices.
//!
//! Randomness and time are arguments. Nothing here opens a connection, and nothing here knows where a node listens.

pub mod choose;
pub mod health;
pub mod table;
pub mod versions;

pub use choose::{Choice, choose};
pub use health::{Health, Verdict};
pub use table::{RouteTable, ShardRoute};
pub use versions::{Excluded, Held, Pin, Versions};
