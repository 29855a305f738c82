//! What is true in the cluster after this command?
//!
//! `apply` is a function of (state, log index, command) and of nothing else: no clock, no randomness, no
//! hash order (ST1). It is replayed by every voter from the log, so a change here that gives another
//! answer to an old command splits the cluster; add commands, never change what one means.
//!
//! A command that is wrong is refused with a word, and the refusal is itself part of the state: the
//! receipts answer a retry with what was answered first.
//!
//! Rollouts: `stage` has a model loaded by members, who report readiness; `activate` is allowed only when every live
//! router and every serving replica is ready. A generation goes the same way.

pub mod command;
pub mod types;

mod auction;
mod catalogue;
mod delivery;
mod history;
mod members;
mod models;
mod readiness;
mod receipts;
mod rollout;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use command::{Body, Command, EndedBy};
pub use delivery::{Delivery, Delta, Since};
use gavel_proto::hash::combine;
pub use history::{EVENTS_MAX, Event, Happened};
pub use members::VOTER_WIPED;
pub use models::MODELS_STAGED_MAX;
pub use readiness::Overdue;
pub use receipts::EXISTS_DIFFERENT;
pub use rollout::share;
use types::{Auction, Generation, Member, Model, ModelPolicy, Outcome, Placement, Receipt, Rollout};

/// Everything that the voters agree on.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// The cluster's name, stamped on every file and message.
    pub cluster_id: String,
    /// Made of the first entry: another control plane under the same name has another one. 0 before it.
    pub formation: u64,
    /// Grows with every change that members see.
    pub map_epoch: u64,
    /// By id.
    pub members: BTreeMap<u64, Member>,
    /// By number: the pending, the active and the one before it.
    pub generations: BTreeMap<u64, Generation>,
    /// By version.
    pub models: BTreeMap<u64, Model>,
    /// The rules of the auction.
    pub auction: Auction,
    /// By name.
    pub placements: BTreeMap<String, Placement>,
    /// The generation that serves.
    pub active_generation: Option<u64>,
    /// The generation being built.
    pub pending_generation: Option<u64>,
    /// The model that serves.
    pub active_model: Option<u64>,
    /// The model that served before.
    pub previous_model: Option<u64>,
    /// The model that was staged last and has not served since.
    pub pending_model: Option<u64>,
    /// A model that gets a share of requests beside the active one.
    pub rollout: Option<Rollout>,
    /// What happened to models, oldest first.
    pub history: VecDeque<Event>,
    /// Whose models are taken.
    pub model_policy: ModelPolicy,
    /// What is said of campaigns beyond the catalogue.
    pub delivery: Delivery,
    /// Answers already given, by command id.
    pub receipts: BTreeMap<String, Receipt>,
    /// The newest `proposed_ms`; never goes back.
    pub applied_ms: u64,
}

/// What a command's own module says: the number it allotted, or why not.
type Verdict = Result<u64, String>;

impl State {
    /// The state before the first entry.
    #[must_use]
    pub fn genesis(cluster_id: &str) -> Self {
        let home = auction::placement_of_genesis();
        Self {
            cluster_id: cluster_id.to_owned(),
            formation: 0,
            map_epoch: 1,
            members: BTreeMap::new(),
            generations: BTreeMap::new(),
            models: BTreeMap::new(),
            auction: auction::auction_of_genesis(),
            placements: BTreeMap::from([(home.name.clone(), home)]),
            active_generation: None,
            pending_generation: None,
            active_model: None,
            previous_model: None,
            pending_model: None,
            rollout: None,
            history: VecDeque::new(),
            model_policy: ModelPolicy::default(),
            delivery: Delivery::default(),
            receipts: BTreeMap::new(),
            applied_ms: 0,
        }
    }

    /// The active generation.
    #[must_use]
    pub fn active(&self) -> Option<&Generation> {
        self.active_generation.and_then(|number| self.generations.get(&number))
    }

    /// The generation being built.
    #[must_use]
    pub fn pending(&self) -> Option<&Generation> {
        self.pending_generation.and_then(|number| self.generations.get(&number))
    }

    /// A model by version.
    #[must_use]
    pub fn model(&self, version: Option<u64>) -> Option<&Model> {
        version.and_then(|version| self.models.get(&version))
    }
}

/// Applies the entry at `index` of the log.
pub fn apply(state: &mut State, index: u64, command: &Command) -> Outcome {
    state.applied_ms = state.applied_ms.max(command.proposed_ms);
    if state.formation == 0 {
        state.formation = formation_of(command);
        state.map_epoch += 1;
    }
    if let Some(answer) = receipts::answered(state, command) {
        return answer;
    }
    let outcome = match perform(state, index, &command.body) {
        Ok(number) => Outcome::Done(number),
        Err(reason) => Outcome::Refused(reason),
    };
    receipts::remember(state, index, command, &outcome);
    outcome
}

/// The time and the wish of the first entry, which no other formation shares; never 0.
fn formation_of(first: &Command) -> u64 {
    let (wish, _) = first.digest.split_first_chunk().unwrap_or((&[0; 8], &[]));
    combine(first.proposed_ms, u64::from_le_bytes(*wish)).max(1)
}

/// Dispatches to the module that knows the rules.
fn perform(state: &mut State, index: u64, body: &Body) -> Verdict {
    match body {
        Body::RegisterMember(wish) => members::register(state, index, wish),
        Body::SetAlive(wish) => members::set_alive(state, *wish),
        Body::ReportReady { member, incarnation, ready } => readiness::report(state, *member, *incarnation, ready),
        Body::RemoveMember { member } => members::remove(state, *member),
        Body::PublishModel(wish) => models::publish(state, wish),
        Body::StageModel { version } => models::stage(state, *version),
        Body::RetireModel { version } => models::retire(state, *version),
        Body::BeginRollout { version, expect_active, plan } => rollout::begin(state, *version, *expect_active, plan),
        Body::StepRollout { version, step } => rollout::step(state, *version, *step),
        Body::EndRollout { version, reason, by } => {
            let by = match by {
                EndedBy::Operator => Happened::Ended,
                EndedBy::Guard => Happened::Guard,
            };
            rollout::end(state, *version, reason, by)
        }
        Body::SetModelPolicy(wish) => models::set_policy(state, wish),
        Body::ActivateModel { version, expect_active } => models::activate(state, *version, *expect_active),
        Body::RollbackModel { expect_active } => models::rollback(state, *expect_active),
        Body::BeginGeneration(wish) => catalogue::begin(state, wish),
        Body::ActivateGeneration { generation } => catalogue::activate(state, *generation),
        Body::SetAuction(wish) => auction::set_auction(state, wish),
        Body::SetTieKey { key, replaces } => auction::set_tie_key(state, *key, *replaces),
        Body::SetPlacement(wish) => auction::set_placement(state, wish),
        Body::PublishDelivery(wish) => delivery::publish(state, wish),
        Body::RemovePlacement { name } => auction::remove_placement(state, name),
    }
}

/// Refuses a text that is empty or too long.
fn check_text(what: &str, text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > gavel_proto::limits::STRING_BYTES_MAX {
        return Err(format!("invalid_argument: {what} has {} bytes", text.len()));
    }
    Ok(())
}
