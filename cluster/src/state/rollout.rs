//! Which share of requests does a bundle get before it serves, and what ends that?
//!
//! A canary answers its share of requests over the whole cluster, never a share of shards; a shadow is scored beside
//! the answer and never shown. The plan is a list of shares with the time that each holds. The leader proposes each
//! next step, and the end when a guard says so ([`crate::guards`]); this module only says what may follow what.
//!
//! A canary whose last step has held is activated by the ordinary entry, with its compare: whatever was activated by
//! hand meanwhile ends the rollout.

use super::history::{Happened, note};
use super::models::expect;
use super::types::{ModelPlace, Rollout, RolloutMode, RolloutPlan};
use super::{State, Verdict};
use gavel_proto::money::PPM;

/// Steps of a plan.
const STEPS_MAX: usize = 16;
/// Longest hold of a step: a month.
const HOLD_MS_MAX: u64 = 31 * 86_400 * 1_000;
/// Windows of a router, shortest and longest: a guard must see something, and must not see it too late.
const WINDOW_MS: std::ops::RangeInclusive<u64> = 200..=60_000;

/// A staged bundle is to get a share of requests.
pub fn begin(state: &mut State, version: u64, expect_active: u64, plan: &RolloutPlan) -> Verdict {
    expect(state, expect_active)?;
    check(plan)?;
    let baseline = state.active_model.ok_or("failed_precondition: no model is active: the first serves by itself")?;
    if baseline == version {
        return Err("failed_precondition: the model serves already".to_owned());
    }
    if let Some(runs) = state.rollout.as_ref() {
        return Err(format!("failed_precondition: a rollout of version {} runs: end it first", runs.version));
    }
    let model = state.models.get(&version).ok_or("unknown_model")?;
    if model.place != ModelPlace::Staged {
        return Err("failed_precondition: the model is not staged".to_owned());
    }
    if let Some(lack) = state.model_lacks(model.hash, super::readiness::Overdue::No) {
        return Err(lack);
    }
    let detail = match plan.mode {
        RolloutMode::Canary => format!("canary, {} ppm", share(plan, 0)),
        RolloutMode::Shadow => format!("shadow, {} ppm", share(plan, 0)),
    };
    let (plan, since_ms) = (plan.clone(), state.applied_ms);
    state.rollout = Some(Rollout { version, baseline, plan, step: 0, since_ms });
    state.map_epoch += 1;
    note(state, version, Happened::Began, &detail);
    Ok(version)
}

/// The next step begins.
pub fn step(state: &mut State, version: u64, step: u32) -> Verdict {
    let now_ms = state.applied_ms;
    let runs = state.rollout.as_mut().filter(|r| r.version == version);
    let runs = runs.ok_or("failed_precondition: no rollout of the model runs")?;
    if runs.step == step {
        return Ok(version);
    }
    if runs.step + 1 != step || step as usize >= runs.plan.steps.len() {
        return Err("failed_precondition: steps follow one another".to_owned());
    }
    (runs.step, runs.since_ms) = (step, now_ms);
    let detail = format!("step {step}, {} ppm", share(&runs.plan, step));
    state.map_epoch += 1;
    note(state, version, Happened::Stepped, &detail);
    Ok(version)
}

/// The share goes back to nothing.
pub fn end(state: &mut State, version: u64, reason: &str, by: Happened) -> Verdict {
    if state.rollout.as_ref().is_none_or(|r| r.version != version) {
        return Err("failed_precondition: no rollout of the model runs".to_owned());
    }
    state.rollout = None;
    state.map_epoch += 1;
    note(state, version, by, reason);
    Ok(version)
}

/// Another bundle has come to serve, so that the comparison has lost its baseline; or the candidate itself has.
pub fn over(state: &mut State, serves: u64) {
    if let Some(runs) = state.rollout.take()
        && runs.version != serves
    {
        note(state, runs.version, Happened::Ended, &format!("version {serves} came to serve"));
    }
}

/// The share of a step.
#[must_use]
pub fn share(plan: &RolloutPlan, step: u32) -> u32 {
    plan.steps.get(step as usize).map_or(0, |s| s.share_ppm)
}

fn check(plan: &RolloutPlan) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("invalid_argument: {what}"));
    if plan.steps.is_empty() || plan.steps.len() > STEPS_MAX {
        return wrong("a plan has 1 to 16 steps");
    }
    if plan.steps.iter().any(|s| s.share_ppm == 0 || s.share_ppm > PPM || s.hold_ms > HOLD_MS_MAX) {
        return wrong("a step has a share above 0 and at most 1, and holds at most a month");
    }
    if plan.steps.windows(2).any(|pair| pair[0].share_ppm > pair[1].share_ppm) {
        return wrong("shares never fall");
    }
    if plan.mode == RolloutMode::Canary && plan.steps.first().is_some_and(|s| s.share_ppm == PPM) {
        return wrong("the first step of a canary leaves requests to the active model: guards compare with them");
    }
    if !WINDOW_MS.contains(&plan.window_ms) {
        return wrong("a window has 200 to 60,000 ms");
    }
    let guards = &plan.guards;
    let ratios = [guards.prediction_ratio_max, guards.p99_ratio_max, guards.calibration_ratio_max];
    if ratios.iter().any(|r| !r.is_finite() || *r != 0.0 && *r <= 1.0) {
        return wrong("a ratio's limit is above 1, or 0 for none");
    }
    if !guards.psi_max.is_finite() || guards.psi_max < 0.0 {
        return wrong("psi_max is a number of at least 0");
    }
    Ok(())
}
