//! How does an operator say what a canary or a shadow is to do?

use super::{failed, registry};
use crate::cli::{CanaryArgs, GuardArgs, ShadowArgs};
use crate::failure::Failure;
use gavel_client::AdminClient;
use gavel_proto::wire::command::Body;
use gavel_proto::wire::{BeginRollout, EndRollout, RolloutGuards, RolloutMode, RolloutPlan, RolloutStep};

/// `gavel ctl model canary`.
pub async fn canary(admin: &mut AdminClient, args: &CanaryArgs, expect_active: u64) -> Result<(), Failure> {
    let steps = args.steps.iter().map(|text| step(text)).collect::<Result<Vec<_>, _>>()?;
    let shown = shares(&steps);
    let plan = plan(RolloutMode::RolloutCanary, steps, &args.guards)?;
    let wish = BeginRollout { version: args.version, expect_active, plan: Some(plan) };
    admin.propose(Body::BeginRollout(wish)).await.map_err(failed)?;
    println!("version {} answers {shown}; follow it: gavel ctl model status --watch", args.version);
    Ok(())
}

/// `gavel ctl model shadow`.
pub async fn shadow(admin: &mut AdminClient, args: &ShadowArgs, expect_active: u64) -> Result<(), Failure> {
    let steps = vec![step(&args.share)?];
    let shown = shares(&steps);
    let plan = plan(RolloutMode::RolloutShadow, steps, &args.guards)?;
    let wish = BeginRollout { version: args.version, expect_active, plan: Some(plan) };
    admin.propose(Body::BeginRollout(wish)).await.map_err(failed)?;
    println!("version {} scores {shown}; follow it: gavel ctl model status --watch", args.version);
    Ok(())
}

/// Ends the rollout that runs. What a shadow has shown goes into the history with it.
pub async fn end(admin: &mut AdminClient, version: u64) -> Result<(), Failure> {
    let runs = admin.status().await.map_err(failed)?.rollout;
    let shown = runs.as_ref().and_then(registry::comparison).map(|shown| format!(": {shown}")).unwrap_or_default();
    let wish = EndRollout { version, reason: format!("ended by an operator{shown}"), guard: false };
    admin.propose(Body::EndRollout(wish)).await.map_err(failed)?;
    println!("the rollout of version {version} is over: it gets no requests");
    Ok(())
}

fn shares(steps: &[RolloutStep]) -> String {
    let shares: Vec<String> = steps.iter().map(|s| format!("{} %", f64::from(s.share_ppm) / 1e4)).collect();
    format!("{} of requests", shares.join(", then "))
}

fn plan(mode: RolloutMode, steps: Vec<RolloutStep>, guards: &GuardArgs) -> Result<RolloutPlan, Failure> {
    let ppm = |name: &str, percent: f64| {
        let is_share = (0.0..=100.0).contains(&percent);
        // Within 0 to 1,000,000.
        is_share.then_some((percent * 1e4) as u32).ok_or_else(|| Failure::usage(format!("--{name}: 0 to 100 percent")))
    };
    Ok(RolloutPlan {
        mode: mode.into(),
        steps,
        guards: Some(RolloutGuards {
            requests_min: guards.requests_min,
            non_finite_ppm_max: ppm("non-finite-max", guards.non_finite_max)?,
            prediction_ratio_max: guards.prediction_ratio_max,
            psi_max: guards.psi_max,
            p99_ratio_max: guards.p99_ratio_max,
            coverage_drop_ppm_max: ppm("coverage-drop-max", guards.coverage_drop_max)?,
            failed_ppm_max: ppm("failed-max", guards.failed_max)?,
            calibration_ratio_max: guards.calibration_ratio_max,
            clicks_min: guards.clicks_min,
        }),
        // Saturates; the state machine knows the range.
        window_ms: (guards.window * 1_000.0) as u64,
    })
}

/// A share with the time that it holds: `1:10m`, or `1`.
fn step(text: &str) -> Result<RolloutStep, Failure> {
    let wrong = || Failure::usage(format!("{text:?} is no step: write a share in percent and a time, as 1:10m"));
    let (share, hold) = text.split_once(':').unwrap_or((text, "0s"));
    let share: f64 = share.parse().map_err(|_| wrong())?;
    let unit = hold.chars().last().ok_or_else(wrong)?;
    let (number, factor) = match unit {
        's' => (hold.trim_end_matches('s'), 1.0),
        'm' => (hold.trim_end_matches('m'), 60.0),
        'h' => (hold.trim_end_matches('h'), 3_600.0),
        _ => return Err(wrong()),
    };
    let hold: f64 = number.parse().map_err(|_| wrong())?;
    if !(share > 0.0 && share <= 100.0 && hold >= 0.0 && hold.is_finite()) {
        return Err(wrong());
    }
    Ok(RolloutStep { share_ppm: (share * 1e4).round() as u32, hold_ms: (hold * factor * 1_000.0) as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_a_share_and_a_time() {
        let read = |text| step(text).ok().map(|s| (s.share_ppm, s.hold_ms));
        assert_eq!(read("1:10m"), Some((10_000, 600_000)));
        assert_eq!(read("0.5:1.5s"), Some((5_000, 1_500)));
        assert_eq!(read("100:2h"), Some((1_000_000, 7_200_000)));
        assert_eq!(read("5"), Some((50_000, 0)));
        for wrong in ["", "x", "0:1m", "101:1m", "1:5", "1:m", "1:-1s", "nan:1s", "1:nans"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
