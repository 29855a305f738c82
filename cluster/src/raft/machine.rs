//! How does openraft drive the state?
//!
//! The state lives in memory behind a lock that is held for microseconds; whoever follows it is told of each
//! applied entry. A command that cannot be read stops this voter: another version wrote it, and guessing would
//! split the cluster. A snapshot is durable before openraft hears of it.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, StorageIOError};
use tokio::sync::watch;

use super::snapshot::{Kept, SnapshotFolder};
use super::{
    DiskError, EXIT_DISK_FAILED, Entry, LogId, SnapshotBytes, SnapshotMeta, StorageError, StoredMembership, TypeConfig,
};
use crate::convert::command;
use crate::convert::snapshot::{self, Position};
use crate::state::types::{Hash32, Outcome};
use crate::state::{self, State};

/// The state and where in the log it stands.
#[derive(Clone, Debug)]
pub struct Applied {
    /// What the voters agree on.
    pub state: State,
    /// The last entry in it.
    pub last: Option<LogId>,
    /// The voters as of that entry.
    pub membership: StoredMembership,
}

/// What followers are told after each batch of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Progress {
    /// Index of the last applied entry.
    pub index: u64,
    /// The map epoch then.
    pub map_epoch: u64,
}

/// What voters that applied the same entries have in common (ST1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Digest {
    /// Index of the last applied entry.
    pub index: u64,
    /// BLAKE3 of the state then.
    pub hash: Hash32,
}

/// The state machine of this voter; clones share it.
#[derive(Clone)]
pub struct Machine {
    applied: Arc<RwLock<Applied>>,
    current: Arc<RwLock<Option<Kept>>>,
    folder: SnapshotFolder,
    progress: watch::Sender<Progress>,
    digest: Arc<tokio::sync::Mutex<Option<Digest>>>,
}

impl Machine {
    /// Loads the newest snapshot in `folder`, or starts from nothing.
    ///
    /// # Errors
    /// When the snapshot is damaged or of another cluster.
    pub fn open(folder: &Path, cluster_id: &str) -> Result<Self, DiskError> {
        let snapshots = SnapshotFolder::new(folder, cluster_id);
        let current = snapshots.newest()?;
        let mut applied =
            Applied { state: State::genesis(cluster_id), last: None, membership: StoredMembership::default() };
        if let Some(kept) = &current {
            let damaged = |e: crate::convert::Malformed| DiskError::Corrupt {
                file: "the newest snapshot".to_owned(),
                offset: 0,
                reason: e.to_string(),
            };
            let (state, _) = snapshot::decode(&kept.bytes, cluster_id).map_err(damaged)?;
            applied = Applied { state, last: kept.meta.last_log_id, membership: kept.meta.last_membership.clone() };
        }
        let this = Self {
            applied: Arc::new(RwLock::new(applied)),
            current: Arc::new(RwLock::new(current)),
            folder: snapshots,
            progress: watch::Sender::new(Progress::default()),
            digest: Arc::default(),
        };
        this.tell();
        Ok(this)
    }

    /// The state now. Do not hold it over an await.
    pub fn applied(&self) -> RwLockReadGuard<'_, Applied> {
        self.applied.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes after each batch of entries.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// The last entry that the snapshot on disk holds.
    #[must_use]
    pub fn covered(&self) -> Option<LogId> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).as_ref().and_then(|kept| kept.meta.last_log_id)
    }

    /// The digest of the state now: made off the runtime from a copy, one at a time, and once for each state however
    /// often it is asked for.
    pub async fn digest(&self) -> Digest {
        let mut last = self.digest.lock().await;
        let index = self.applied().last.map_or(0, |id| id.index);
        if let Some(digest) = last.filter(|digest| digest.index == index) {
            return digest;
        }
        let this = self.clone();
        let made = tokio::task::spawn_blocking(move || {
            let applied = this.applied().clone();
            Digest { index: applied.last.map_or(0, |id| id.index), hash: snapshot::digest(&applied.state) }
        });
        // The runtime is going down when there is none.
        let digest = made.await.unwrap_or_default();
        *last = Some(digest);
        digest
    }

    fn applied_mut(&self) -> RwLockWriteGuard<'_, Applied> {
        self.applied.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        let applied = self.applied();
        let index = applied.last.map_or(0, |id| id.index);
        self.progress.send_replace(Progress { index, map_epoch: applied.state.map_epoch });
        metrics::gauge!("gavel_control_applied_index").set(index as f64);
    }

    /// Makes a snapshot durable; a disk that fails stops the process.
    async fn keep(&self, kept: Kept) -> Result<(), StorageError> {
        let (folder, copy) = (self.folder.clone(), kept.clone());
        let written = tokio::task::spawn_blocking(move || folder.keep(&copy)).await;
        match written {
            Ok(Ok(())) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(kept);
                Ok(())
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "the disk failed: stopping");
                std::process::exit(EXIT_DISK_FAILED);
            }
            // The runtime is going down.
            Err(error) => Err(StorageIOError::write_snapshot(None, &error).into()),
        }
    }
}

/// Applies one entry.
fn apply_one(applied: &mut Applied, entry: Entry) -> Result<Outcome, StorageError> {
    let id = entry.log_id;
    let outcome = match entry.payload {
        EntryPayload::Blank => Outcome::Done(0),
        EntryPayload::Membership(membership) => {
            applied.membership = StoredMembership::new(Some(id), membership);
            Outcome::Done(0)
        }
        EntryPayload::Normal(bytes) => {
            let command = command::decode(&bytes.0).map_err(|e| StorageIOError::apply(id, &e))?;
            state::apply(&mut applied.state, id.index, &command)
        }
    };
    applied.last = Some(id);
    Ok(outcome)
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let applied = self.applied();
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcome>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let outcomes = {
            let mut applied = self.applied_mut();
            entries.into_iter().map(|entry| apply_one(&mut applied, entry)).collect::<Result<Vec<_>, _>>()?
        };
        self.tell();
        Ok(outcomes)
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotBytes>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: Box<SnapshotBytes>) -> Result<(), StorageError> {
        let cluster_id = self.applied().state.cluster_id.clone();
        let (state, _) = snapshot::decode(&data.0, &cluster_id)
            .map_err(|e| StorageIOError::read_snapshot(Some(meta.signature()), &e))?;
        if meta.last_log_id < self.applied().last {
            let older = std::io::Error::other("the snapshot is older than the state");
            return Err(StorageIOError::read_snapshot(Some(meta.signature()), &older).into());
        }
        self.keep(Kept { meta: meta.clone(), bytes: data.0 }).await?;
        *self.applied_mut() = Applied { state, last: meta.last_log_id, membership: meta.last_membership.clone() };
        metrics::counter!("gavel_control_snapshots_installed_total").increment(1);
        self.tell();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Ok(current.as_ref().map(|kept| Snapshot {
            meta: kept.meta.clone(),
            snapshot: Box::new(SnapshotBytes(Arc::clone(&kept.bytes))),
        }))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Machine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        // A copy, so that entries go on while the bytes are made.
        let applied = self.applied().clone();
        let meta = SnapshotMeta {
            last_log_id: applied.last,
            last_membership: applied.membership.clone(),
            snapshot_id: applied.last.map_or_else(|| "0".to_owned(), |id| id.to_string()),
        };
        let position = Position { last: applied.last, membership: applied.membership };
        let encoded = tokio::task::spawn_blocking(move || snapshot::encode(&applied.state, &position)).await;
        let bytes = Arc::new(encoded.map_err(|e| StorageIOError::write_snapshot(None, &e))?);
        self.keep(Kept { meta: meta.clone(), bytes: Arc::clone(&bytes) }).await?;
        metrics::counter!("gavel_control_snapshots_built_total").increment(1);
        Ok(Snapshot { meta, snapshot: Box::new(SnapshotBytes(bytes)) })
    }
}
