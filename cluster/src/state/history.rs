//! What happened to model bundles, and why?
//!
//! An operator who finds a bundle gone asks this first, so the reason of a guard is here in its own words. The oldest
//! events go first, on every voter alike.

use gavel_proto::limits::STRING_BYTES_MAX;

use super::State;

/// Events that are remembered. Ours: some hundred rollouts.
pub const EVENTS_MAX: usize = 512;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Happened {
    /// A bundle became known.
    Published,
    /// Members are to hold it.
    Staged,
    /// It serves.
    Activated,
    /// It serves again.
    RolledBack,
    /// It gets a share of requests.
    Began,
    /// It gets a larger share.
    Stepped,
    /// The share went back to nothing by an operator, or because the rollout was over.
    Ended,
    /// It is never to serve again.
    Retired,
    /// The share went back to nothing by a guard.
    Guard,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, as the leader's clock said.
    pub at_ms: u64,
    /// Of which version.
    pub version: u64,
    /// What.
    pub happened: Happened,
    /// Who, from where, or why.
    pub detail: String,
}

/// Remembers an event.
pub fn note(state: &mut State, version: u64, happened: Happened, detail: &str) {
    let detail = detail[..detail.floor_char_boundary(STRING_BYTES_MAX)].to_owned();
    let event = Event { at_ms: state.applied_ms, version, happened, detail };
    state.history.push_back(event);
    if state.history.len() > EVENTS_MAX {
        state.history.pop_front();
    }
}
