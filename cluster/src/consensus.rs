//! Which types do the voters agree in?
//!
//! openraft's generic types with ours filled in; `convert` reads and writes them, `raft` stores them.

#![allow(clippy::result_large_err, reason = "the error type is openraft's, and its traits ask for it unboxed")]

use std::sync::Arc;

use crate::state::types::Outcome;

/// A command as it lies in the log: its prost bytes, checked where they came in.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Encoded(pub Vec<u8>);

/// A whole snapshot in memory: control state is small.
#[derive(Clone, Debug, Default)]
pub struct SnapshotBytes(pub Arc<Vec<u8>>);

openraft::declare_raft_types!(
    /// The types that openraft works with here.
    pub TypeConfig:
        D = Encoded,
        R = Outcome,
        NodeId = u64,
        Node = openraft::BasicNode,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = SnapshotBytes,
);

/// The consensus core of this voter.
pub type Raft = openraft::Raft<TypeConfig>;
/// A place in the log.
pub type LogId = openraft::LogId<u64>;
/// A vote.
pub type Vote = openraft::Vote<u64>;
/// An entry of the log.
pub type Entry = openraft::Entry<TypeConfig>;
/// The voters.
pub type Membership = openraft::Membership<u64, openraft::BasicNode>;
/// The voters and the entry that set them.
pub type StoredMembership = openraft::StoredMembership<u64, openraft::BasicNode>;
/// What names a snapshot.
pub type SnapshotMeta = openraft::SnapshotMeta<u64, openraft::BasicNode>;
/// Why the disk did not do what it should.
pub type StorageError = openraft::StorageError<u64>;
