//! What does a group of voters replicate?
//!
//! Log, snapshots and transport are the same for every group; what differs is the state, how a command changes it, and
//! how it becomes bytes.

use openraft::{AnyError, StorageIOError};

use super::{Answer, Group, LogId, StorageError};
use crate::convert::snapshot::Position;
use crate::convert::{Malformed, command, ledger as ledger_wire, ledger_snapshot, snapshot};
use crate::ledger::{self, Ledger};
use crate::state::{self, State};

/// A state that a group agrees on.
pub trait Replicated: Clone + Send + Sync + Sized + 'static {
    /// Which group.
    const GROUP: Group;

    /// Before the first entry.
    fn genesis(cluster_id: &str) -> Self;

    /// The cluster's name.
    fn cluster_id(&self) -> &str;

    /// What followers are told beside the index.
    fn epoch(&self) -> u64;

    /// Applies a command.
    ///
    /// # Errors
    /// When it cannot be read, or what it leads to must not be: this voter stops.
    fn apply(&mut self, id: LogId, command: &[u8]) -> Result<Answer, StorageError>;

    /// The bytes of a snapshot.
    fn encode(&self, position: &Position) -> Vec<u8>;

    /// The state of a snapshot's bytes.
    ///
    /// # Errors
    /// When they are none, or of another cluster.
    fn decode(bytes: &[u8], cluster_id: &str) -> Result<Self, Malformed>;

    /// What voters that applied the same entries have in common (ST1).
    fn digest(&self) -> [u8; 32];
}

impl Replicated for State {
    const GROUP: Group = Group::Control;

    fn genesis(cluster_id: &str) -> Self {
        Self::genesis(cluster_id)
    }

    fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    fn epoch(&self) -> u64 {
        self.map_epoch
    }

    fn apply(&mut self, id: LogId, command: &[u8]) -> Result<Answer, StorageError> {
        let command = command::decode(command).map_err(|e| StorageIOError::apply(id, &e))?;
        Ok(Answer::Control(state::apply(self, id.index, &command)))
    }

    fn encode(&self, position: &Position) -> Vec<u8> {
        snapshot::encode(self, position)
    }

    fn decode(bytes: &[u8], cluster_id: &str) -> Result<Self, Malformed> {
        Ok(snapshot::decode(bytes, cluster_id)?.0)
    }

    fn digest(&self) -> [u8; 32] {
        snapshot::digest(self)
    }
}

impl Replicated for Ledger {
    const GROUP: Group = Group::Ledger;

    fn genesis(cluster_id: &str) -> Self {
        Self::genesis(cluster_id)
    }

    fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    fn epoch(&self) -> u64 {
        self.entries
    }

    fn apply(&mut self, id: LogId, command: &[u8]) -> Result<Answer, StorageError> {
        let batch = ledger_wire::decode(command).map_err(|e| StorageIOError::apply(id, &e))?;
        match ledger::apply(self, &batch) {
            Ok(verdicts) => Ok(Answer::Ledger(verdicts)),
            Err(violation) => {
                metrics::counter!("gavel_ledger_violations_total").increment(1);
                tracing::error!(%violation, index = id.index, "the ledger does not add up: stopping");
                Err(StorageIOError::apply(id, AnyError::new(&violation)).into())
            }
        }
    }

    fn encode(&self, position: &Position) -> Vec<u8> {
        ledger_snapshot::encode(self, position.last.map_or(0, |id| id.index))
    }

    fn decode(bytes: &[u8], cluster_id: &str) -> Result<Self, Malformed> {
        ledger_snapshot::decode(bytes, cluster_id)
    }

    fn digest(&self) -> [u8; 32] {
        ledger_snapshot::digest(self)
    }
}
