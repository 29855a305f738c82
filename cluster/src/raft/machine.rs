//! How does openraft drive the state?
//!
//! The state lives in memory behind a lock that is held for microseconds; whoever follows it is told of each
//! applied entry. A command that cannot be read stops this voter: another version wrote it, and guessing would
//! split the cluster. A snapshot is durable before openraft hears of it, and so is the journal, where there is one, up
//! to the snapshot: what comes before it may be purged from the log.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, StorageIOError};
use tokio::sync::watch;

use super::group::Replicated;
use super::journal::{Journal, Line, LineKind};
use super::snapshot::{Kept, SnapshotFolder};
use super::{
    Answer, DiskError, EXIT_DISK_FAILED, Entry, Group, LogId, SnapshotBytes, SnapshotMeta, StorageError,
    StoredMembership, TypeConfig,
};
use crate::convert::ledger::journal_entry;
use crate::convert::snapshot::Position;
use crate::state::State;
use crate::state::types::Hash32;

/// The state and where in the log it stands.
#[derive(Clone, Debug)]
pub struct Applied<S = State> {
    /// What the voters agree on.
    pub state: S,
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
    /// The map epoch of the control state then; entries of the ledger.
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
pub struct Machine<S = State> {
    applied: Arc<RwLock<Applied<S>>>,
    current: Arc<RwLock<Option<Kept>>>,
    folder: SnapshotFolder,
    progress: watch::Sender<Progress>,
    digest: Arc<tokio::sync::Mutex<Option<Digest>>>,
    journal: Option<Journal>,
}

impl<S: Replicated> Machine<S> {
    /// Loads the newest snapshot in `folder`, or starts from nothing.
    ///
    /// # Errors
    /// When the snapshot is damaged or of another cluster.
    pub fn open(folder: &Path, cluster_id: &str) -> Result<Self, DiskError> {
        Self::open_with(folder, cluster_id, None)
    }

    /// The same, with a journal of everything that is applied.
    ///
    /// # Errors
    /// When the snapshot is damaged or of another cluster, or the journal ends before it.
    pub fn open_with(folder: &Path, cluster_id: &str, journal: Option<Journal>) -> Result<Self, DiskError> {
        let snapshots = SnapshotFolder::new(folder, cluster_id);
        let current = snapshots.newest()?;
        let mut applied =
            Applied { state: S::genesis(cluster_id), last: None, membership: StoredMembership::default() };
        if let Some(kept) = &current {
            let damaged = |e: crate::convert::Malformed| DiskError::Corrupt {
                file: "the newest snapshot".to_owned(),
                offset: 0,
                reason: e.to_string(),
            };
            let state = S::decode(&kept.bytes, cluster_id).map_err(damaged)?;
            applied = Applied { state, last: kept.meta.last_log_id, membership: kept.meta.last_membership.clone() };
        }
        if let Some(journal) = &journal {
            journal.covers(applied.last.map(|id| id.index))?;
        }
        let this = Self {
            applied: Arc::new(RwLock::new(applied)),
            current: Arc::new(RwLock::new(current)),
            folder: snapshots,
            progress: watch::Sender::new(Progress::default()),
            digest: Arc::default(),
            journal,
        };
        this.tell();
        Ok(this)
    }

    /// The state now. Do not hold it over an await.
    pub fn applied(&self) -> RwLockReadGuard<'_, Applied<S>> {
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
            Digest { index: applied.last.map_or(0, |id| id.index), hash: applied.state.digest() }
        });
        // The runtime is going down when there is none.
        let digest = made.await.unwrap_or_default();
        *last = Some(digest);
        digest
    }

    /// The journal, where there is one.
    #[must_use]
    pub const fn journal(&self) -> Option<&Journal> {
        self.journal.as_ref()
    }

    fn applied_mut(&self) -> RwLockWriteGuard<'_, Applied<S>> {
        self.applied.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        let applied = self.applied();
        let index = applied.last.map_or(0, |id| id.index);
        self.progress.send_replace(Progress { index, map_epoch: applied.state.epoch() });
        metrics::gauge!("gavel_control_applied_index", "group" => S::GROUP.word()).set(index as f64);
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

/// Applies one entry; also what a journal says of it.
fn apply_one<S: Replicated>(applied: &mut Applied<S>, entry: Entry) -> Result<(Answer, Line), StorageError> {
    let id = entry.log_id;
    let mut payload = Vec::new();
    let answer = match entry.payload {
        EntryPayload::Blank => Answer::Nothing,
        EntryPayload::Membership(membership) => {
            applied.membership = StoredMembership::new(Some(id), membership);
            Answer::Nothing
        }
        EntryPayload::Normal(bytes) => {
            let answer = applied.state.apply(id, &bytes.0)?;
            if let Answer::Ledger(verdicts) = &answer {
                payload = journal_entry(&bytes.0, verdicts);
            }
            answer
        }
    };
    applied.last = Some(id);
    Ok((answer, Line { term: id.leader_id.term, index: id.index, kind: LineKind::Applied, payload }))
}

impl<S: Replicated> RaftStateMachine<TypeConfig> for Machine<S> {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let applied = self.applied();
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Answer>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let apply = || -> Result<(Vec<Answer>, Vec<Line>), StorageError> {
            let mut applied = self.applied_mut();
            entries.into_iter().map(|entry| apply_one(&mut applied, entry)).collect()
        };
        // The ledger looks at everything now and then: the runtime's other tasks do not wait for that.
        let flavor = tokio::runtime::Handle::current().runtime_flavor();
        let aside = S::GROUP == Group::Ledger && flavor == tokio::runtime::RuntimeFlavor::MultiThread;
        let (answers, lines) = if aside { tokio::task::block_in_place(apply)? } else { apply()? };
        if let Some(journal) = &self.journal {
            journal.append(lines).await;
        }
        self.tell();
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotBytes>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: Box<SnapshotBytes>) -> Result<(), StorageError> {
        let cluster_id = self.applied().state.cluster_id().to_owned();
        let state =
            S::decode(&data.0, &cluster_id).map_err(|e| StorageIOError::read_snapshot(Some(meta.signature()), &e))?;
        if meta.last_log_id < self.applied().last {
            let older = std::io::Error::other("the snapshot is older than the state");
            return Err(StorageIOError::read_snapshot(Some(meta.signature()), &older).into());
        }
        if let (Some(journal), Some(last)) = (&self.journal, meta.last_log_id) {
            journal.checkpoint(last.leader_id.term, last.index, Arc::clone(&data.0)).await;
        }
        self.keep(Kept { meta: meta.clone(), bytes: data.0 }).await?;
        *self.applied_mut() = Applied { state, last: meta.last_log_id, membership: meta.last_membership.clone() };
        metrics::counter!("gavel_control_snapshots_installed_total", "group" => S::GROUP.word()).increment(1);
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

impl<S: Replicated> RaftSnapshotBuilder<TypeConfig> for Machine<S> {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        // A copy, so that entries go on while the bytes are made.
        let this = self.clone();
        let copied = tokio::task::spawn_blocking(move || this.applied().clone()).await;
        let applied = copied.map_err(|e| StorageIOError::write_snapshot(None, &e))?;
        let meta = SnapshotMeta {
            last_log_id: applied.last,
            last_membership: applied.membership.clone(),
            snapshot_id: applied.last.map_or_else(|| "0".to_owned(), |id| id.to_string()),
        };
        let position = Position { last: applied.last, membership: applied.membership };
        let encoded = tokio::task::spawn_blocking(move || applied.state.encode(&position)).await;
        let bytes = Arc::new(encoded.map_err(|e| StorageIOError::write_snapshot(None, &e))?);
        if let (Some(journal), Some(last)) = (&self.journal, meta.last_log_id) {
            // First: once a snapshot is made, nothing that led to it is still being written.
            journal.offer(last.leader_id.term, last.index, Arc::clone(&bytes)).await;
            journal.safe_up_to(last.index).await;
        }
        self.keep(Kept { meta: meta.clone(), bytes: Arc::clone(&bytes) }).await?;
        metrics::counter!("gavel_control_snapshots_built_total", "group" => S::GROUP.word()).increment(1);
        Ok(Snapshot { meta, snapshot: Box::new(SnapshotBytes(bytes)) })
    }
}
