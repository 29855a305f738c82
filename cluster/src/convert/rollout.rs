//! How do rollouts, their guards, windows and history travel?

use gavel_proto::wire;

use super::{Malformed, malformed};
use crate::guards::{Arm, Shadow, Window};
use crate::state::types::{
    ModelPlace, ModelPolicy, Rollout, RolloutGuards, RolloutMode, RolloutPlan, RolloutStep, Signature,
};
use crate::state::{Event, Happened};

/// How long a router counts when a plan does not say it: a guard then acts within ten seconds.
const WINDOW_MS: u64 = 2_000;

/// Reads a plan.
pub fn plan(m: &wire::RolloutPlan) -> Result<RolloutPlan, Malformed> {
    let mode = match wire::RolloutMode::try_from(m.mode) {
        Ok(wire::RolloutMode::RolloutCanary) => RolloutMode::Canary,
        Ok(wire::RolloutMode::RolloutShadow) => RolloutMode::Shadow,
        Ok(wire::RolloutMode::Unspecified) | Err(_) => return Err(malformed("plan.mode")),
    };
    let guards = m.guards.unwrap_or_default();
    Ok(RolloutPlan {
        mode,
        steps: m.steps.iter().map(|s| RolloutStep { share_ppm: s.share_ppm, hold_ms: s.hold_ms }).collect(),
        guards: RolloutGuards {
            requests_min: guards.requests_min,
            non_finite_ppm_max: guards.non_finite_ppm_max,
            prediction_ratio_max: guards.prediction_ratio_max,
            psi_max: guards.psi_max,
            p99_ratio_max: guards.p99_ratio_max,
            coverage_drop_ppm_max: guards.coverage_drop_ppm_max,
            failed_ppm_max: guards.failed_ppm_max,
            calibration_ratio_max: guards.calibration_ratio_max,
            clicks_min: guards.clicks_min,
        },
        window_ms: if m.window_ms == 0 { WINDOW_MS } else { m.window_ms },
    })
}

/// Writes a plan.
#[must_use]
pub fn plan_to_wire(plan: &RolloutPlan) -> wire::RolloutPlan {
    let guards = &plan.guards;
    wire::RolloutPlan {
        mode: mode_to_wire(plan.mode).into(),
        steps: plan.steps.iter().map(|s| wire::RolloutStep { share_ppm: s.share_ppm, hold_ms: s.hold_ms }).collect(),
        guards: Some(wire::RolloutGuards {
            requests_min: guards.requests_min,
            non_finite_ppm_max: guards.non_finite_ppm_max,
            prediction_ratio_max: guards.prediction_ratio_max,
            psi_max: guards.psi_max,
            p99_ratio_max: guards.p99_ratio_max,
            coverage_drop_ppm_max: guards.coverage_drop_ppm_max,
            failed_ppm_max: guards.failed_ppm_max,
            calibration_ratio_max: guards.calibration_ratio_max,
            clicks_min: guards.clicks_min,
        }),
        window_ms: plan.window_ms,
    }
}

/// Writes a mode.
#[must_use]
pub const fn mode_to_wire(mode: RolloutMode) -> wire::RolloutMode {
    match mode {
        RolloutMode::Canary => wire::RolloutMode::RolloutCanary,
        RolloutMode::Shadow => wire::RolloutMode::RolloutShadow,
    }
}

/// Reads a rollout that runs.
pub(super) fn record(m: &wire::RolloutRecord) -> Result<Rollout, Malformed> {
    let plan = plan(m.plan.as_ref().ok_or(malformed("rollout.plan"))?)?;
    Ok(Rollout { version: m.version, baseline: m.baseline, plan, step: m.step, since_ms: m.since_ms })
}

/// Writes a rollout that runs.
pub(super) fn record_to_wire(r: &Rollout) -> wire::RolloutRecord {
    let plan = Some(plan_to_wire(&r.plan));
    wire::RolloutRecord { version: r.version, baseline: r.baseline, step: r.step, since_ms: r.since_ms, plan }
}

/// Reads an event.
pub(super) fn event(m: &wire::RolloutEvent) -> Result<Event, Malformed> {
    let happened = match wire::RolloutKind::try_from(m.kind) {
        Ok(wire::RolloutKind::RolloutPublished) => Happened::Published,
        Ok(wire::RolloutKind::RolloutStaged) => Happened::Staged,
        Ok(wire::RolloutKind::RolloutActivated) => Happened::Activated,
        Ok(wire::RolloutKind::RolloutRolledBack) => Happened::RolledBack,
        Ok(wire::RolloutKind::RolloutBegan) => Happened::Began,
        Ok(wire::RolloutKind::RolloutStepped) => Happened::Stepped,
        Ok(wire::RolloutKind::RolloutEnded) => Happened::Ended,
        Ok(wire::RolloutKind::RolloutRetired) => Happened::Retired,
        Ok(wire::RolloutKind::RolloutGuard) => Happened::Guard,
        Ok(wire::RolloutKind::Unspecified) | Err(_) => return Err(malformed("history.kind")),
    };
    Ok(Event { at_ms: m.at_ms, version: m.version, happened, detail: m.detail.clone() })
}

/// Writes an event.
#[must_use]
pub fn event_to_wire(e: &Event) -> wire::RolloutEvent {
    let kind = match e.happened {
        Happened::Published => wire::RolloutKind::RolloutPublished,
        Happened::Staged => wire::RolloutKind::RolloutStaged,
        Happened::Activated => wire::RolloutKind::RolloutActivated,
        Happened::RolledBack => wire::RolloutKind::RolloutRolledBack,
        Happened::Began => wire::RolloutKind::RolloutBegan,
        Happened::Stepped => wire::RolloutKind::RolloutStepped,
        Happened::Ended => wire::RolloutKind::RolloutEnded,
        Happened::Retired => wire::RolloutKind::RolloutRetired,
        Happened::Guard => wire::RolloutKind::RolloutGuard,
    };
    wire::RolloutEvent { at_ms: e.at_ms, version: e.version, kind: kind.into(), detail: e.detail.clone() }
}

/// Reads a policy.
pub fn policy(m: &wire::ModelPolicy) -> Result<ModelPolicy, Malformed> {
    let key = |k: &Vec<u8>| k.as_slice().try_into().map_err(|_| malformed("model_policy.keys"));
    let keys = m.keys.iter().map(key).collect::<Result<_, _>>()?;
    Ok(ModelPolicy { signature_required: m.signature_required, keys })
}

/// Writes a policy.
#[must_use]
pub fn policy_to_wire(p: &ModelPolicy) -> wire::ModelPolicy {
    wire::ModelPolicy { signature_required: p.signature_required, keys: p.keys.iter().map(|k| k.to_vec()).collect() }
}

/// Reads a signature; absent when both its parts are.
pub(super) fn signature(key: &[u8], bytes: &[u8]) -> Result<Option<Signature>, Malformed> {
    if key.is_empty() && bytes.is_empty() {
        return Ok(None);
    }
    let (Ok(key), Ok(bytes)) = (key.try_into(), bytes.try_into()) else { return Err(malformed("signature")) };
    Ok(Some(Signature { key, bytes }))
}

/// Key and bytes of a signature.
pub(super) fn signature_to_wire(signature: Option<&Signature>) -> (Vec<u8>, Vec<u8>) {
    signature.map(|s| (s.key.to_vec(), s.bytes.to_vec())).unwrap_or_default()
}

/// Reads where a bundle is kept; a snapshot of an older version does not say it.
pub(super) fn place(value: i32) -> Option<ModelPlace> {
    match wire::ModelPlace::try_from(value) {
        Ok(wire::ModelPlace::ModelRegistered) => Some(ModelPlace::Registered),
        Ok(wire::ModelPlace::ModelStaged) => Some(ModelPlace::Staged),
        Ok(wire::ModelPlace::ModelRetired) => Some(ModelPlace::Retired),
        Ok(wire::ModelPlace::Unspecified) | Err(_) => None,
    }
}

/// Writes where a bundle is kept.
#[must_use]
pub const fn place_to_wire(place: ModelPlace) -> wire::ModelPlace {
    match place {
        ModelPlace::Registered => wire::ModelPlace::ModelRegistered,
        ModelPlace::Staged => wire::ModelPlace::ModelStaged,
        ModelPlace::Retired => wire::ModelPlace::ModelRetired,
    }
}

/// Reads a router's window.
#[must_use]
pub fn window(m: &wire::RolloutWindow) -> Window {
    Window {
        version: m.version,
        step: m.step,
        sequence: m.sequence,
        active: m.active.as_ref().map(arm).unwrap_or_default(),
        candidate: m.candidate.as_ref().map(arm).unwrap_or_default(),
        shadow: m.shadow.map(shadow).unwrap_or_default(),
    }
}

fn arm(m: &wire::ArmWindow) -> Arm {
    let mut arm = Arm {
        requests: m.requests,
        failed: m.failed,
        ranked: m.ranked,
        non_finite: m.non_finite,
        predicted: m.predicted,
        prediction_sum: m.prediction_sum,
        coverage_parts: m.coverage_parts,
        expected_clicks: m.expected_clicks,
        clicks: m.clicks,
        ..Arm::default()
    };
    arm.predictions.iter_mut().zip(&m.predictions).for_each(|(to, from)| *to = *from);
    arm.latencies.iter_mut().zip(&m.latencies).for_each(|(to, from)| *to = *from);
    arm
}

/// Reads what shadow requests showed.
#[must_use]
pub const fn shadow(m: wire::ShadowWindow) -> Shadow {
    Shadow {
        requests: m.requests,
        failed: m.failed,
        candidates: m.candidates,
        rank_correlation_sum: m.rank_correlation_sum,
        active_prediction_sum: m.active_prediction_sum,
        candidate_prediction_sum: m.candidate_prediction_sum,
        active_revenue_sum: m.active_revenue_sum,
        candidate_revenue_sum: m.candidate_revenue_sum,
        active_rank_us: m.active_rank_us,
        candidate_rank_us: m.candidate_rank_us,
    }
}

/// Writes a window.
#[must_use]
pub fn window_to_wire(w: &Window) -> wire::RolloutWindow {
    let arm = |a: &Arm| wire::ArmWindow {
        requests: a.requests,
        failed: a.failed,
        ranked: a.ranked,
        non_finite: a.non_finite,
        predicted: a.predicted,
        prediction_sum: a.prediction_sum,
        predictions: a.predictions.to_vec(),
        latencies: a.latencies.to_vec(),
        coverage_parts: a.coverage_parts,
        expected_clicks: a.expected_clicks,
        clicks: a.clicks,
    };
    let s = &w.shadow;
    wire::RolloutWindow {
        version: w.version,
        step: w.step,
        sequence: w.sequence,
        active: Some(arm(&w.active)),
        candidate: Some(arm(&w.candidate)),
        shadow: Some(wire::ShadowWindow {
            requests: s.requests,
            failed: s.failed,
            candidates: s.candidates,
            rank_correlation_sum: s.rank_correlation_sum,
            active_prediction_sum: s.active_prediction_sum,
            candidate_prediction_sum: s.candidate_prediction_sum,
            active_revenue_sum: s.active_revenue_sum,
            candidate_revenue_sum: s.candidate_revenue_sum,
            active_rank_us: s.active_rank_us,
            candidate_rank_us: s.candidate_rank_us,
        }),
    }
}
