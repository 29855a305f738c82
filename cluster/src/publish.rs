//! What do members get to see?
//!
//! The immutable picture with an epoch that every member follows. It is a function of the state alone, so
//! every voter publishes the same one for the same epoch. Readiness itself is not in it: only what follows
//! from it, the serving replicas.

use crate::state::types::{Auction, Generation, Member, Model, ModelPolicy, Placement, RolloutMode};
use crate::state::{State, share};

/// The picture.
#[derive(Clone, Debug, PartialEq)]
pub struct View<'a> {
    /// The cluster's name.
    pub cluster_id: &'a str,
    /// Tells one control plane from another of the same name.
    pub formation: u64,
    /// Grows with every change of anything below.
    pub map_epoch: u64,
    /// By id.
    pub members: Vec<&'a Member>,
    /// Of the active generation.
    pub shards: Vec<Shard<'a>>,
    /// Of the pending generation.
    pub pending_shards: Vec<Shard<'a>>,
    /// The generation that serves.
    pub active_generation: Option<&'a Generation>,
    /// The generation being built.
    pub pending_generation: Option<&'a Generation>,
    /// The model that serves.
    pub active_model: Option<&'a Model>,
    /// The model that served before.
    pub previous_model: Option<&'a Model>,
    /// The model that was staged last and has not served since.
    pub pending_model: Option<&'a Model>,
    /// Every model that members hold, the ones above included.
    pub staged_models: Vec<&'a Model>,
    /// A model that gets a share of requests beside the active one.
    pub rollout: Option<Candidate<'a>>,
    /// Whose models are taken.
    pub model_policy: &'a ModelPolicy,
    /// The rules of the auction.
    pub auction: &'a Auction,
    /// By name.
    pub placements: Vec<&'a Placement>,
    /// The version of bids, statuses and multipliers with which the active generation began.
    pub delivery_version: u64,
}

/// A model that gets a share of requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate<'a> {
    /// The model.
    pub model: &'a Model,
    /// What its share is for.
    pub mode: RolloutMode,
    /// Of requests, in millionths.
    pub share_ppm: u32,
    /// The step of its plan.
    pub step: u32,
    /// How long routers count before they report.
    pub window_ms: u64,
    /// Who could answer with it, by shard of the active generation.
    pub serving: Vec<(u32, Vec<u64>)>,
}

/// A shard and who holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard<'a> {
    /// Its number.
    pub shard: u32,
    /// Coverage's denominator.
    pub items: u64,
    /// Ads.
    pub ads: u64,
    /// Members placed on it.
    pub replicas: &'a [u64],
    /// Those of them that are alive and ready for the generation under the active model.
    pub serving: Vec<u64>,
}

/// The picture of a state.
#[must_use]
pub fn view(state: &State) -> View<'_> {
    View {
        cluster_id: &state.cluster_id,
        formation: state.formation,
        map_epoch: state.map_epoch,
        members: state.members.values().collect(),
        shards: state.active().map(|generation| shards(state, generation)).unwrap_or_default(),
        pending_shards: state.pending().map(|generation| shards(state, generation)).unwrap_or_default(),
        active_generation: state.active(),
        pending_generation: state.pending(),
        active_model: state.model(state.active_model),
        previous_model: state.model(state.previous_model),
        pending_model: state.model(state.pending_model),
        staged_models: state.staged().collect(),
        rollout: candidate(state),
        model_policy: &state.model_policy,
        auction: &state.auction,
        placements: state.placements.values().collect(),
        delivery_version: state.delivery.since,
    }
}

fn candidate(state: &State) -> Option<Candidate<'_>> {
    let runs = state.rollout.as_ref()?;
    Some(Candidate {
        model: state.models.get(&runs.version)?,
        mode: runs.plan.mode,
        share_ppm: share(&runs.plan, runs.step),
        step: runs.step,
        window_ms: runs.plan.window_ms,
        serving: state.serving_candidate(),
    })
}

fn shards<'a>(state: &State, generation: &'a Generation) -> Vec<Shard<'a>> {
    let placed = (0u32..).zip(&generation.shards).zip(&generation.replicas);
    placed
        .map(|((shard, source), replicas)| Shard {
            shard,
            items: source.items,
            ads: source.ads,
            replicas,
            serving: state.serving_active(generation, shard),
        })
        .collect()
}
