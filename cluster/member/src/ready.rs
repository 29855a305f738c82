//! What is this member ready for?
//!
//! The process writes here what it has loaded, verified and warmed; the heartbeat carries it to the leader. A
//! change wakes the heartbeat, so that an activation does not wait for the next beat.

use gavel_proto::ids::ShardId;
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

/// A shard of a generation that is loaded with a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedShard {
    /// The shard.
    pub shard: ShardId,
    /// Its catalogue generation.
    pub generation: u64,
    /// Hash of the bundle that its vectors and activations were made with.
    pub model_hash: [u8; 32],
    /// Items in it.
    pub items: u64,
    /// Ads in it.
    pub ads: u64,
}

/// What a member refused to serve, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Hash of the bundle or blob.
    pub subject: Vec<u8>,
    /// For people.
    pub reason: String,
    /// Whether it may yet come.
    pub standing: Standing,
}

/// Whether what is refused may yet come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is tried again after a rest: no voter gave it, or the disk was full.
    Rests,
    /// The bytes are what they are, and these are not served.
    Final,
}

/// Everything that a member may be ready for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ready {
    /// Shards that can be searched.
    pub shards: Vec<LoadedShard>,
    /// Bundles that are verified, equal to their golden rows and warm.
    pub models: Vec<[u8; 32]>,
    /// Generations whose users are loaded.
    pub generations: Vec<u64>,
    /// Refusals that stand.
    pub refusals: Vec<Refused>,
    /// The process is on its way out.
    pub draining: bool,
    /// Bundles that are on their way.
    pub phases: Vec<([u8; 32], StagingPhase)>,
    /// What the last window of a rollout looked like; routers only.
    pub window: Option<gavel_proto::wire::RolloutWindow>,
}

/// How far a bundle is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StagingPhase {
    /// Its bytes are coming.
    Fetching,
    /// Items are embedded and built into graphs.
    Building,
}

/// How much of a phase is done; what is counted depends on the phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StagingProgress {
    /// Done.
    pub done: u64,
    /// Of so many.
    pub total: u64,
}

/// Where the bytes of a shard are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardMemory {
    /// The shard.
    pub shard: ShardId,
    /// Its catalogue generation.
    pub generation: u64,
    /// Of sealed files.
    pub mapped: u64,
    /// Of those, in memory.
    pub resident: u64,
    /// Of the process's own memory.
    pub owned: u64,
}

/// Where the bytes of a node's shards are. Apart from [`Ready`], because it changes by itself all the time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeMemory {
    /// What its shards may take.
    pub limit: u64,
    /// By generation and shard.
    pub shards: Vec<ShardMemory>,
}

/// The shared, changing readiness of a process.
#[derive(Debug, Default)]
pub struct ReadyState {
    ready: Mutex<Ready>,
    memory: Mutex<Option<NodeMemory>>,
    progress: Mutex<StagingProgress>,
    changed: Notify,
}

impl ReadyState {
    /// Ready for nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes it, and wakes the heartbeat when that made a difference.
    pub fn update(&self, change: impl FnOnce(&mut Ready)) {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let before = ready.clone();
        change(&mut ready);
        if *ready != before {
            self.changed.notify_one();
        }
    }

    /// Says where the bytes are; the next beat carries it.
    pub fn report_memory(&self, memory: NodeMemory) {
        *self.memory.lock().unwrap_or_else(PoisonError::into_inner) = Some(memory);
    }

    /// Where the bytes were when it was last said; `None` where nobody says it.
    #[must_use]
    pub fn memory(&self) -> Option<NodeMemory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says how far the step of staging that runs has come; the next beat carries it.
    pub fn report_progress(&self, progress: StagingProgress) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = progress;
    }

    /// How far it had come when it was last said.
    #[must_use]
    pub fn progress(&self) -> StagingProgress {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What stands now.
    #[must_use]
    pub fn snapshot(&self) -> Ready {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns after the next change. One listener: the heartbeat.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}
