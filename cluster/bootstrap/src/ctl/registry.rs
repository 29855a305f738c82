//! What is there to see of bundles, replicas and rollouts?

use super::failed;
use crate::cli::Format;
use crate::failure::Failure;
use crate::output::hex;
use gavel_client::AdminClient;
use gavel_control::convert;
use gavel_proto::windows::{LATENCY_BINS, PREDICTION_BINS, latency_quantile_us, stability_index};
use gavel_proto::wire::{
    ArmWindow, ModelPlace, ModelStatus, ReplicaState, RolloutEvent, RolloutKind, RolloutMode, RolloutStatus,
    ShadowWindow, StatusResponse, View,
};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::Duration;

/// Between two looks of `--watch`.
const LOOK: Duration = Duration::from_millis(500);
/// Events that are shown to people.
const EVENTS_SHOWN: usize = 12;

/// Whether the picture is shown once or again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looks {
    /// Once.
    One,
    /// Until interrupted, whenever it has changed.
    Many,
}

/// `gavel ctl model status`.
pub async fn status(admin: &AdminClient, looks: Looks, format: Format) -> Result<(), Failure> {
    let mut shown = String::new();
    loop {
        let status = admin.status().await;
        let status = match (status, looks) {
            (Ok(status), _) => status,
            (Err(error), Looks::One) => return Err(failed(error)),
            (Err(_), Looks::Many) => {
                tokio::time::sleep(LOOK).await;
                continue;
            }
        };
        let text = match format {
            Format::Json if looks == Looks::One => format!("{:#}\n", as_json(&status)),
            Format::Json => format!("{}\n", as_json(&status)),
            Format::Text => as_text(&status),
        };
        if text != shown {
            if looks == Looks::Many && format == Format::Text && std::io::stdout().is_terminal() {
                // Clears the screen, so that the picture stays in its place.
                print!("\x1b[2J\x1b[H");
            }
            print!("{text}");
            shown = text;
        }
        match looks {
            Looks::One => return Ok(()),
            Looks::Many => tokio::time::sleep(LOOK).await,
        }
    }
}

/// `gavel ctl model list`.
pub async fn list(admin: &AdminClient) -> Result<(), Failure> {
    let status = admin.status().await.map_err(failed)?;
    let view = status.view.clone().unwrap_or_default();
    for model in &status.models {
        println!("{}", line(model, &view));
    }
    Ok(())
}

fn role(view: &View, version: u64) -> &'static str {
    let is = |m: Option<&gavel_proto::wire::ModelView>| m.is_some_and(|m| m.version == version);
    if is(view.active_model.as_ref()) {
        return "active";
    }
    match view.rollout.as_ref().filter(|r| is(r.model.as_ref())).map(gavel_proto::wire::RolloutView::mode) {
        Some(RolloutMode::RolloutCanary) => return "canary",
        Some(RolloutMode::RolloutShadow) => return "shadow",
        Some(RolloutMode::Unspecified) | None => {}
    }
    if is(view.previous_model.as_ref()) { "previous" } else { "" }
}

fn place(model: &ModelStatus) -> &'static str {
    match model.place() {
        ModelPlace::ModelStaged => "staged",
        ModelPlace::ModelRetired => "retired",
        ModelPlace::ModelRegistered | ModelPlace::Unspecified => "registered",
    }
}

fn line(model: &ModelStatus, view: &View) -> String {
    let m = model.model.clone().unwrap_or_default();
    let by = if m.uploader.is_empty() { String::new() } else { format!("  by {}", m.uploader) };
    let signed = if m.key.is_empty() { String::new() } else { format!("  signed {}", &hex(&m.key)[..8]) };
    let short = hex(&m.hash).chars().take(12).collect::<String>();
    let (place, role) = (place(model), role(view, m.version));
    format!("version {:<4} {place:<11}{role:<9}{}  {short}  {} bytes{by}{signed}", m.version, m.name, m.bytes)
}

fn state(state: ReplicaState) -> &'static str {
    match state {
        ReplicaState::ReplicaAbsent => "absent",
        ReplicaState::ReplicaFetching => "fetching",
        ReplicaState::ReplicaStaging => "staging",
        ReplicaState::ReplicaReady => "ready",
        ReplicaState::ReplicaRefused => "refused",
    }
}

fn kind(kind: RolloutKind) -> &'static str {
    match kind {
        RolloutKind::RolloutPublished => "published",
        RolloutKind::RolloutStaged => "staged",
        RolloutKind::RolloutActivated => "activated",
        RolloutKind::RolloutRolledBack => "rolled back to",
        RolloutKind::RolloutBegan => "rollout began",
        RolloutKind::RolloutStepped => "rollout stepped",
        RolloutKind::RolloutEnded => "rollout ended",
        RolloutKind::RolloutRetired => "retired",
        RolloutKind::RolloutGuard => "stopped by a guard",
        RolloutKind::Unspecified => "",
    }
}

fn as_text(status: &StatusResponse) -> String {
    let view = status.view.clone().unwrap_or_default();
    let mut out = String::new();
    // Writing to a string does not fail.
    for model in &status.models {
        let _ = writeln!(out, "{}", line(model, &view));
        if !model.report.is_empty() {
            let _ = writeln!(out, "    {}", model.report);
        }
        for r in &model.replicas {
            let far = match r.done.checked_mul(100).and_then(|done| done.checked_div(r.total)) {
                Some(percent) => format!(" {percent} %"),
                None => String::new(),
            };
            let why = if r.reason.is_empty() { String::new() } else { format!(": {}", r.reason) };
            let _ = writeln!(out, "    member {:<5} {}{far}{why}", r.member_id, state(r.state()));
        }
        if !model.lacks.is_empty() {
            let _ = writeln!(out, "    may not serve yet: {}", model.lacks);
        }
    }
    if let Some(rollout) = &status.rollout {
        rollout_text(&mut out, rollout);
    }
    let skipped = status.history.len().saturating_sub(EVENTS_SHOWN);
    for e in &status.history[skipped..] {
        let _ = writeln!(out, "{:>13} ms  version {:<4} {}  {}", e.at_ms, e.version, kind(e.kind()), e.detail);
    }
    out
}

fn rollout_text(out: &mut String, rollout: &RolloutStatus) {
    let plan = rollout.plan.clone().unwrap_or_default();
    let mode = if plan.mode() == RolloutMode::RolloutShadow { "shadow" } else { "canary" };
    let share = plan.steps.get(rollout.step as usize).map_or(0.0, |s| f64::from(s.share_ppm) / 1e4);
    let _ = writeln!(
        out,
        "{mode} of version {} beside {}: step {} of {}, {share} % of requests, waits for {}",
        rollout.version,
        rollout.baseline,
        rollout.step + 1,
        plan.steps.len(),
        rollout.waits_for
    );
    let seen = rollout.sum.clone().unwrap_or_default();
    for (name, arm) in [("active", &seen.active), ("candidate", &seen.candidate)] {
        let a = arm.clone().unwrap_or_default();
        let _ = writeln!(
            out,
            "    {name:<10} {} requests, {} failed, mean prediction {:.5}, p99 {:.1} ms, {} clicks of {:.1} expected",
            a.requests,
            a.failed,
            mean(&a),
            p99_us(&a) / 1_000.0,
            a.clicks,
            a.expected_clicks
        );
    }
    if let Some(shown) = comparison(rollout) {
        let _ = writeln!(out, "    on the same candidates: {shown}");
    }
}

/// What the last requests of a shadow show, in words; `None` for a canary.
pub fn comparison(rollout: &RolloutStatus) -> Option<String> {
    let shadow = rollout.plan.as_ref().is_some_and(|plan| plan.mode() == RolloutMode::RolloutShadow);
    let seen = rollout.sum.as_ref().and_then(|sum| sum.shadow).filter(|_| shadow)?;
    Some(convert::rollout::shadow(seen).in_words())
}

fn mean(arm: &ArmWindow) -> f64 {
    if arm.predicted == 0 { 0.0 } else { arm.prediction_sum / arm.predicted as f64 }
}

fn p99_us(arm: &ArmWindow) -> f64 {
    let mut bins = [0; LATENCY_BINS];
    bins.iter_mut().zip(&arm.latencies).for_each(|(to, from)| *to = *from);
    latency_quantile_us(&bins, 0.99)
}

fn bins(arm: &ArmWindow) -> [u64; PREDICTION_BINS] {
    let mut bins = [0; PREDICTION_BINS];
    bins.iter_mut().zip(&arm.predictions).for_each(|(to, from)| *to = *from);
    bins
}

fn compared(s: &ShadowWindow) -> Value {
    let c = convert::rollout::shadow(*s).figures();
    json!({
        "requests": s.requests,
        "failed": s.failed,
        "candidates": s.candidates,
        "rank_correlation": c.rank_correlation,
        "prediction_ratio": c.prediction_ratio,
        "revenue_ratio": c.revenue_ratio,
        "active_rank_ms": c.active_rank_ms,
        "candidate_rank_ms": c.candidate_rank_ms,
    })
}

/// Registry, rollout and history for programs.
pub fn as_json(status: &StatusResponse) -> Value {
    let view = status.view.clone().unwrap_or_default();
    let model = |m: &ModelStatus| {
        let replica = |r: &gavel_proto::wire::ReplicaModel| {
            json!({"member_id": r.member_id, "state": state(r.state()), "reason": r.reason,
                   "done": r.done, "total": r.total})
        };
        let named = m.model.clone().unwrap_or_default();
        json!({
            "version": named.version,
            "name": named.name,
            "hash": hex(&named.hash),
            "bytes": named.bytes,
            "uploader": named.uploader,
            "published_ms": named.published_ms,
            "key": hex(&named.key),
            "place": place(m),
            "role": role(&view, named.version),
            "lacks": m.lacks,
            "report": m.report,
            "replicas": m.replicas.iter().map(replica).collect::<Vec<_>>(),
        })
    };
    let event =
        |e: &RolloutEvent| json!({"at_ms": e.at_ms, "version": e.version, "kind": kind(e.kind()), "detail": e.detail});
    json!({
        "models": status.models.iter().map(model).collect::<Vec<_>>(),
        "rollout": status.rollout.as_ref().map(rollout_json),
        "history": status.history.iter().map(event).collect::<Vec<_>>(),
    })
}

fn rollout_json(r: &RolloutStatus) -> Value {
    let plan = r.plan.clone().unwrap_or_default();
    let seen = r.sum.clone().unwrap_or_default();
    let arm = |a: Option<&ArmWindow>| {
        let a = a.cloned().unwrap_or_default();
        json!({"requests": a.requests, "failed": a.failed, "ranked": a.ranked, "non_finite": a.non_finite,
               "mean_prediction": mean(&a), "p99_us": p99_us(&a), "clicks": a.clicks, "expected_clicks": a.expected_clicks})
    };
    let psi = seen.active.as_ref().zip(seen.candidate.as_ref()).map(|(a, c)| stability_index(&bins(a), &bins(c)));
    json!({
        "version": r.version,
        "baseline": r.baseline,
        "mode": if plan.mode() == RolloutMode::RolloutShadow { "shadow" } else { "canary" },
        "step": r.step,
        "steps": plan.steps.iter().map(|s| json!({"share_ppm": s.share_ppm, "hold_ms": s.hold_ms})).collect::<Vec<_>>(),
        "step_since_ms": r.step_since_ms,
        "waits_for": r.waits_for,
        "active": arm(seen.active.as_ref()),
        "candidate": arm(seen.candidate.as_ref()),
        "psi": psi,
        "shadow": compared(&seen.shadow.unwrap_or_default()),
    })
}
