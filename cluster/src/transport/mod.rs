//! How does one voter reach another?
//!
//! Two connections per peer: one for appends and votes, one for snapshots, because a snapshot would hold the
//! window of a shared one. Every call has a hard deadline (openraft#1810). Every message names the cluster and
//! its target, and what was meant for somebody else is refused: a voter that talks to itself through a wrong
//! address panics the leader.

mod receive;
mod send;

pub use receive::RaftEndpoint;
pub use send::Peers;

/// Sends and answers name the voter that a message is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's name.
    pub cluster_id: String,
    /// This voter.
    pub node_id: u64,
}
