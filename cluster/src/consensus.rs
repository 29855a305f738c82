//! Which types do the voters agree in?
//!
//! openraft's generic types with ours filled in; `convert` reads and writes them, `raft` stores them. There are two groups
//! of the same voters, the control state and the ledger, each with a log, snapshots and a leader of its own. Both have the
//! same types: a command is bytes, and an answer says which group gave it.

#![allow(clippy::result_large_err, reason = "the error type is openraft's, and its traits ask for it unboxed")]

use std::sync::Arc;

use crate::ledger::types::Verdict;
use crate::state::types::Outcome;

/// A command as it lies in the log: its prost bytes, checked where they came in.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Encoded(pub Vec<u8>);

/// Which of the groups of voters?
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Members, placement, models, rules.
    Control,
    /// Money.
    Ledger,
}

impl Group {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Control => 0,
            Self::Ledger => 1,
        }
    }

    /// The group of a number.
    #[must_use]
    pub const fn of(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Control),
            1 => Some(Self::Ledger),
            _ => None,
        }
    }

    /// The word in metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Ledger => "ledger",
        }
    }
}

/// What came of an entry.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Answer {
    /// It was none of a group's: a leader's first entry, or a change of voters.
    Nothing,
    /// Of the control state.
    Control(Outcome),
    /// Of the ledger: one for each event.
    Ledger(Vec<Verdict>),
}

/// A whole snapshot in memory: control state is small.
#[derive(Clone, Debug, Default)]
pub struct SnapshotBytes(pub Arc<Vec<u8>>);

openraft::declare_raft_types!(
    /// The types that openraft works with here.
    pub TypeConfig:
        D = Encoded,
        R = Answer,
        NodeId = u64,
        Node = openraft::BasicNode,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = SnapshotBytes,
);

/// The consensus core of this voter in one group.
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
