//! Which bundles are known, which are held by members, which serves, and which may come back?
//!
//! Versions only grow; the same bytes published twice are the same version. A bundle is registered (voters keep its
//! bytes), staged (members hold it, or are on the way) or retired (never again). Activation and rollback are
//! compare-and-set entries without I/O: everything was loaded before they are accepted (decision 8).
//!
//! Members hold few bundles: what serves, what served before, and one more. Staging the next one makes room by
//! itself, of what nobody needs; `retire` makes room at once.

use gavel_proto::limits::{BLOB_BYTES_MAX, MODEL_REPORT_BYTES_MAX};

use super::command::{PublishModel, Staging};
use super::history::{Happened, note};
use super::types::{Model, ModelPlace, ModelPolicy};
use super::{State, Verdict, check_text, rollout};

/// Bundles that are remembered beside those in use. Ours: enough to name the last year's.
const MODELS_KEPT: usize = 64;
/// Bundles that members hold at once: active, previous and one more. Each costs a folder of vectors, graph and
/// activations a shard, so this is a bound on memory.
pub const MODELS_STAGED_MAX: usize = 3;
/// A replica that has not become ready so long after its bundle was staged no longer holds an activation up, as long
/// as its shard is covered. Ours: a shard of a million items builds within it.
const STAGE_DEADLINE_MS: u64 = 15 * 60 * 1_000;
/// Keys of a policy: a few teams and their rotations.
const KEYS_MAX: usize = 16;

/// A bundle becomes known and, unless it is only to be registered, is staged everywhere.
pub fn publish(state: &mut State, wish: &PublishModel) -> Verdict {
    check_text("name", &wish.name)?;
    if wish.uploader.len() > gavel_proto::limits::STRING_BYTES_MAX {
        return Err("invalid_argument: uploader is too long".to_owned());
    }
    if wish.report.len() > MODEL_REPORT_BYTES_MAX {
        return Err("invalid_argument: report is too long".to_owned());
    }
    if wish.bytes == 0 || wish.bytes > BLOB_BYTES_MAX {
        return Err("invalid_argument: bytes is out of range".to_owned());
    }
    if wish.staging == Staging::AtOnce {
        // Before anything is written: a command that is refused changes nothing.
        spare(state)?;
    }
    let version = match state.models.values().find(|m| m.hash == wish.hash) {
        Some(known) if known.place == ModelPlace::Retired => {
            return Err(format!("failed_precondition: these bytes are version {}, which is retired", known.version));
        }
        Some(known) if wish.version != 0 && wish.version != known.version => {
            return Err(format!("failed_precondition: these bytes are version {} already", known.version));
        }
        Some(known) => known.version,
        None => register(state, wish)?,
    };
    match wish.staging {
        Staging::AtOnce => stage(state, version),
        Staging::Later => Ok(version),
    }
}

/// Gives new bytes their version.
fn register(state: &mut State, wish: &PublishModel) -> Verdict {
    let newest = state.models.keys().next_back().copied().unwrap_or(0);
    if wish.version != 0 && wish.version <= newest {
        return Err(format!("failed_precondition: version {} is not above {newest}: versions only grow", wish.version));
    }
    let signed = wish.signature.is_some_and(|s| state.model_policy.keys.contains(&s.key));
    if state.model_policy.signature_required && !signed {
        return Err("failed_precondition: bundles must be signed with a key that the cluster trusts".to_owned());
    }
    let version = if wish.version == 0 { newest + 1 } else { wish.version };
    let model = Model {
        version,
        hash: wish.hash,
        bytes: wish.bytes,
        name: wish.name.clone(),
        uploader: wish.uploader.clone(),
        published_ms: state.applied_ms,
        signature: wish.signature,
        place: ModelPlace::Registered,
        staged_ms: 0,
        report: wish.report.clone(),
    };
    state.models.insert(version, model);
    forget_old(state);
    note(state, version, Happened::Published, &wish.uploader);
    Ok(version)
}

/// Members are to hold this bundle.
pub fn stage(state: &mut State, version: u64) -> Verdict {
    let known = state.models.get(&version).ok_or("unknown_model")?;
    match known.place {
        ModelPlace::Retired => return Err("failed_precondition: the model is retired".to_owned()),
        ModelPlace::Registered => {
            if let Some(spare) = spare(state)? {
                unstage(state, spare, ModelPlace::Registered);
            }
            let staged_ms = state.applied_ms;
            if let Some(model) = state.models.get_mut(&version) {
                (model.place, model.staged_ms) = (ModelPlace::Staged, staged_ms);
            }
            state.map_epoch += 1;
            note(state, version, Happened::Staged, "");
        }
        ModelPlace::Staged => {}
    }
    if state.active_model != Some(version) && state.pending_model != Some(version) {
        state.pending_model = Some(version);
        state.map_epoch += 1;
    }
    Ok(version)
}

/// The staged bundle that would make room for another, if one has to go.
fn spare(state: &State) -> Result<Option<u64>, String> {
    let staged: Vec<(u64, u64)> = state.staged().map(|m| (m.staged_ms, m.version)).collect();
    if staged.len() < MODELS_STAGED_MAX {
        return Ok(None);
    }
    let needed = [state.active_model, state.previous_model, state.rollout.as_ref().map(|r| r.version)];
    let oldest = staged.into_iter().filter(|(_, v)| !needed.contains(&Some(*v))).min();
    match oldest {
        Some((_, version)) => Ok(Some(version)),
        None => Err("failed_precondition: all held models are in use: end the rollout first".to_owned()),
    }
}

/// Members let go of a bundle.
fn unstage(state: &mut State, version: u64, place: ModelPlace) {
    if let Some(model) = state.models.get_mut(&version) {
        model.place = place;
    }
    if state.pending_model == Some(version) {
        state.pending_model = None;
    }
    if state.previous_model == Some(version) {
        state.previous_model = None;
    }
    state.map_epoch += 1;
}

/// The bundle is never to serve again.
pub fn retire(state: &mut State, version: u64) -> Verdict {
    let known = state.models.get(&version).ok_or("unknown_model")?;
    if state.active_model == Some(version) {
        return Err("failed_precondition: the model serves: activate another first".to_owned());
    }
    if state.rollout.as_ref().is_some_and(|r| r.version == version) {
        return Err("failed_precondition: a rollout of the model runs: end it first".to_owned());
    }
    if known.place != ModelPlace::Retired {
        unstage(state, version, ModelPlace::Retired);
        note(state, version, Happened::Retired, "");
    }
    Ok(version)
}

/// A staged bundle is to serve.
pub fn activate(state: &mut State, version: u64, expect_active: u64) -> Verdict {
    expect(state, expect_active)?;
    if state.active_model == Some(version) {
        return Err("failed_precondition: the model serves already".to_owned());
    }
    serve(state, version)?;
    note(state, version, Happened::Activated, &format!("after {expect_active}"));
    Ok(version)
}

/// The previous bundle is to serve again; the one that served becomes the previous.
pub fn rollback(state: &mut State, expect_active: u64) -> Verdict {
    expect(state, expect_active)?;
    let previous = state.previous_model.ok_or("failed_precondition: there is no previous model")?;
    serve(state, previous)?;
    note(state, previous, Happened::RolledBack, &format!("from {expect_active}"));
    Ok(previous)
}

/// The one entry that switches everybody.
fn serve(state: &mut State, version: u64) -> Result<(), String> {
    let model = state.models.get(&version).ok_or("unknown_model")?;
    if model.place != ModelPlace::Staged {
        return Err("failed_precondition: the model is not staged".to_owned());
    }
    let overdue = state.applied_ms > model.staged_ms.saturating_add(STAGE_DEADLINE_MS);
    if let Some(lack) = state.model_lacks(model.hash, overdue.into()) {
        return Err(lack);
    }
    state.previous_model = state.active_model;
    state.active_model = Some(version);
    if state.pending_model == Some(version) {
        state.pending_model = None;
    }
    rollout::over(state, version);
    state.map_epoch += 1;
    Ok(())
}

/// The compare of compare-and-set.
pub fn expect(state: &State, expect_active: u64) -> Result<(), String> {
    let active = state.active_model.unwrap_or_default();
    if active != expect_active {
        return Err(format!("failed_precondition: the active model is {active}"));
    }
    Ok(())
}

/// Whose bundles are taken from now on.
pub fn set_policy(state: &mut State, wish: &ModelPolicy) -> Verdict {
    if wish.keys.len() > KEYS_MAX {
        return Err(format!("invalid_argument: more than {KEYS_MAX} keys"));
    }
    if wish.signature_required && wish.keys.is_empty() {
        return Err("invalid_argument: signatures are required and no key is named".to_owned());
    }
    if state.model_policy != *wish {
        state.model_policy = wish.clone();
        state.map_epoch += 1;
    }
    Ok(0)
}

impl State {
    /// Bundles that members hold, or are on the way to.
    pub fn staged(&self) -> impl Iterator<Item = &Model> {
        self.models.values().filter(|m| m.place == ModelPlace::Staged)
    }
}

/// Drops the oldest versions that nothing names. The newest stays, because it is the counter.
fn forget_old(state: &mut State) {
    while state.models.len() > MODELS_KEPT {
        let newest = state.models.keys().next_back().copied();
        let old = state.models.values().find(|m| m.place != ModelPlace::Staged && newest != Some(m.version));
        let Some(old) = old.map(|m| m.version) else { return };
        state.models.remove(&old);
    }
}
