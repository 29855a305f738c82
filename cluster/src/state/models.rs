//! Which bundle serves, which is being staged, and which may come back?
//!
//! Versions only grow; the same bytes published twice are the same version. Activation and rollback are
//! compare-and-set entries without I/O: everything was loaded before they are accepted (decision 8).

use gavel_proto::limits::BLOB_BYTES_MAX;

use super::command::PublishModel;
use super::types::Model;
use super::{State, Verdict, check_text};

/// Published bundles that are remembered beside those in use. Ours: enough to name the last year's.
const MODELS_KEPT: usize = 64;

/// A bundle is to be staged everywhere.
pub fn publish(state: &mut State, wish: &PublishModel) -> Verdict {
    check_text("name", &wish.name)?;
    if wish.bytes == 0 || wish.bytes > BLOB_BYTES_MAX {
        return Err("invalid_argument: bytes is out of range".to_owned());
    }
    let known = state.models.values().find(|m| m.hash == wish.hash).map(|m| m.version);
    let version = known.unwrap_or_else(|| state.models.keys().next_back().map_or(1, |last| last + 1));
    if known.is_none() {
        let model = Model { version, hash: wish.hash, bytes: wish.bytes, name: wish.name.clone() };
        state.models.insert(version, model);
    }
    if state.active_model != Some(version) && state.pending_model != Some(version) {
        state.pending_model = Some(version);
        state.map_epoch += 1;
    }
    forget_old(state);
    Ok(version)
}

/// The staged bundle is to serve.
pub fn activate(state: &mut State, version: u64, expect_active: u64) -> Verdict {
    expect(state, expect_active)?;
    if state.pending_model != Some(version) {
        return Err("failed_precondition: the model is not pending".to_owned());
    }
    let hash = state.model(Some(version)).map(|m| m.hash).ok_or("unknown_model")?;
    if let Some(lack) = state.model_lacks(hash) {
        return Err(lack);
    }
    state.previous_model = state.active_model;
    state.active_model = Some(version);
    state.pending_model = None;
    state.map_epoch += 1;
    Ok(version)
}

/// The previous bundle is to serve again; the one that served becomes the previous.
pub fn rollback(state: &mut State, expect_active: u64) -> Verdict {
    expect(state, expect_active)?;
    let previous = state.previous_model.ok_or("failed_precondition: there is no previous model")?;
    let hash = state.model(Some(previous)).map(|m| m.hash).ok_or("unknown_model")?;
    if let Some(lack) = state.model_lacks(hash) {
        return Err(lack);
    }
    state.previous_model = state.active_model;
    state.active_model = Some(previous);
    state.map_epoch += 1;
    Ok(previous)
}

/// The compare of compare-and-set.
fn expect(state: &State, expect_active: u64) -> Result<(), String> {
    let active = state.active_model.unwrap_or_default();
    if active != expect_active {
        return Err(format!("failed_precondition: the active model is {active}"));
    }
    Ok(())
}

/// Drops the oldest versions that nothing names. The newest stays, because it is the counter.
fn forget_old(state: &mut State) {
    while state.models.len() > MODELS_KEPT {
        let in_use = [state.active_model, state.previous_model, state.pending_model];
        let newest = state.models.keys().next_back().copied();
        let Some(old) = state.models.keys().copied().find(|v| !in_use.contains(&Some(*v)) && newest != Some(*v)) else {
            return;
        };
        state.models.remove(&old);
    }
}
