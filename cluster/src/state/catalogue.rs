//! Which catalogue serves, and where do its shards lie?
//!
//! A generation is numbered and placed here, by the same function on every voter. It stays pending while
//! the placed nodes build it; a newer one takes its place. Shard counts come from the loader's blobs and
//! are coverage's denominator.

use std::collections::BTreeSet;

use gavel_proto::hash::combine;
use gavel_proto::limits::{BLOB_BYTES_MAX, REPLICAS_MAX, SHARD_ITEMS_MAX, SHARDS_MAX};

use super::command::{BeginGeneration, Blob};
use super::types::{Generation, Hash32, ModelPlace, Role};
use super::{State, Verdict, delivery};
use crate::placement;

/// Seed of the placement's hash, so that it shares nothing with other uses of the same numbers.
const PLACEMENT_SEED: u64 = 0x706c_6163_656d_656e;

/// A catalogue is to be built on the nodes.
pub fn begin(state: &mut State, wish: &BeginGeneration) -> Verdict {
    check(wish)?;
    let nodes: Vec<u64> = state.alive_in(Role::Node).filter(|m| !m.draining).map(|m| m.id).collect();
    let number = state.generations.keys().next_back().map_or(1, |last| last + 1);
    // The newest generation is never forgotten, so the numbers only grow.
    let shards = u32::try_from(wish.shards.len()).map_err(|_| "invalid_argument: too many shards")?;
    let replicas =
        placement::place(combine(PLACEMENT_SEED, number), &nodes, shards, wish.replicas).ok_or_else(|| {
            format!("failed_precondition: {} replicas need as many nodes, {} are alive", wish.replicas, nodes.len())
        })?;
    let generation = Generation {
        number,
        shards: wish.shards.clone(),
        campaigns: wish.campaigns,
        users: wish.users,
        copies: wish.replicas,
        replicas,
    };
    state.generations.insert(number, generation);
    state.pending_generation = Some(number);
    state.map_epoch += 1;
    forget_old(state);
    Ok(number)
}

/// The built catalogue is to serve.
pub fn activate(state: &mut State, number: u64) -> Verdict {
    if state.active_generation == Some(number) {
        return Ok(number);
    }
    if state.pending_generation != Some(number) {
        return Err("failed_precondition: the generation is not pending".to_owned());
    }
    let generation = state.pending().ok_or("unknown_generation")?;
    if let Some(lack) = state.generation_lacks(generation) {
        return Err(lack);
    }
    state.active_generation = Some(number);
    state.pending_generation = None;
    delivery::begin_generation(state, number);
    state.map_epoch += 1;
    forget_old(state);
    Ok(number)
}

impl State {
    /// Hashes of the blobs that members may still ask for.
    #[must_use]
    pub fn named_blobs(&self) -> BTreeSet<Hash32> {
        let kept = self.models.values().filter(|m| m.place != ModelPlace::Retired);
        let mut named: BTreeSet<Hash32> = kept.map(|m| m.hash).collect();
        for generation in self.generations.values() {
            named.extend(generation.shards.iter().map(|source| source.hash));
            named.insert(generation.campaigns.hash);
            named.extend(generation.users.map(|users| users.hash));
        }
        named
    }
}

/// Refuses what no node could build.
fn check(wish: &BeginGeneration) -> Result<(), String> {
    if wish.shards.is_empty() || wish.shards.len() > SHARDS_MAX as usize {
        return Err("invalid_argument: shards is out of range".to_owned());
    }
    if wish.replicas == 0 || wish.replicas > REPLICAS_MAX {
        return Err("invalid_argument: replicas is out of range".to_owned());
    }
    if wish.shards.iter().any(|s| s.bytes > BLOB_BYTES_MAX || s.items > SHARD_ITEMS_MAX || s.ads < s.items) {
        return Err("invalid_argument: a shard's counts are out of range".to_owned());
    }
    let too_long = |blob: &Blob| blob.bytes > BLOB_BYTES_MAX;
    if too_long(&wish.campaigns) || wish.users.as_ref().is_some_and(too_long) {
        return Err("invalid_argument: a blob is too long".to_owned());
    }
    Ok(())
}

/// Keeps the active generation, the one before it, and whatever is newer.
fn forget_old(state: &mut State) {
    let Some(active) = state.active_generation else {
        let pending = state.pending_generation;
        state.generations.retain(|number, _| Some(*number) == pending);
        return;
    };
    let before = state.generations.range(..active).next_back().map(|(number, _)| *number);
    let kept = [Some(active), before, state.pending_generation];
    let newest = state.generations.keys().next_back().copied();
    state.generations.retain(|number, _| kept.contains(&Some(*number)) || newest == Some(*number));
}
