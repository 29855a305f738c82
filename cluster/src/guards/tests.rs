//! Do the guards stop what they should, and nothing else?

use super::*;
use crate::state::types::{RolloutPlan, RolloutStep};
use gavel_proto::windows::{latency_bin, prediction_bin};

const GUARDS: RolloutGuards = RolloutGuards {
    requests_min: 50,
    non_finite_ppm_max: 1_000,
    prediction_ratio_max: 1.5,
    psi_max: 0.25,
    p99_ratio_max: 1.5,
    coverage_drop_ppm_max: 10_000,
    failed_ppm_max: 10_000,
    calibration_ratio_max: 1.5,
    clicks_min: 100,
};

fn rollout(mode: RolloutMode, step: u32) -> Rollout {
    let steps = [10_000, 1_000_000].map(|share_ppm| RolloutStep { share_ppm, hold_ms: 1_000 }).to_vec();
    let plan = RolloutPlan { mode, steps, guards: GUARDS, window_ms: 2_000 };
    Rollout { version: 2, baseline: 1, plan, step, since_ms: 0 }
}

/// An arm of `requests`, each with ten candidates of this prediction, answered within `us`.
fn arm(requests: u64, prediction: f64, us: u64) -> Arm {
    let mut arm = Arm {
        requests,
        ranked: requests * 100,
        predicted: requests * 10,
        prediction_sum: prediction * (requests * 10) as f64,
        coverage_parts: requests * u64::from(WHOLE),
        ..Arm::default()
    };
    arm.predictions[prediction_bin(prediction).expect("finite")] = requests * 10;
    arm.latencies[latency_bin(us)] = requests;
    arm
}

const ROUTER: Counting = Counting { router: 7, incarnation: 1 };
const OTHER: Counting = Counting { router: 8, incarnation: 1 };

fn window(sequence: u64, step: u32, active: Arm, candidate: Arm) -> Window {
    Window { version: 2, step, sequence, active, candidate, shadow: Shadow::default() }
}

fn judged(candidate: Arm) -> Judged {
    let rollout = rollout(RolloutMode::Canary, 0);
    let mut windows = Windows::default();
    windows.hear(ROUTER, window(1, 0, arm(1_000, 0.02, 5_000), candidate));
    judge(&rollout, &windows.sum(&rollout))
}

#[track_caller]
fn breach(candidate: Arm, guard: &str) {
    match judged(candidate) {
        Judged::Breach(reason) => assert!(reason.starts_with(guard), "{reason}"),
        other @ (Judged::Wait(_) | Judged::Pass) => panic!("{guard} did not act: {other:?}"),
    }
}

#[test]
fn an_equal_candidate_passes_and_each_fault_has_its_guard() {
    let good = || arm(100, 0.02, 5_000);
    assert_eq!(judged(good()), Judged::Pass);
    assert!(matches!(judged(arm(49, 0.02, 5_000)), Judged::Wait(_)));
    breach(Arm { non_finite: 11, ..good() }, "non_finite");
    assert_eq!(judged(Arm { non_finite: 10, ..good() }), Judged::Pass, "at the limit");
    breach(Arm { failed: 2, ..good() }, "failed");
    breach(Arm { coverage_parts: 98 * u64::from(WHOLE), ..good() }, "coverage");
    breach(arm(100, 0.04, 5_000), "prediction_ratio");
    breach(arm(100, 0.01, 5_000), "prediction_ratio");
    breach(Arm { predicted: 0, prediction_sum: 0.0, ..good() }, "prediction_ratio");
    breach(Arm { prediction_sum: f64::NAN, ..good() }, "prediction_ratio");
    breach(arm(100, 0.02, 10_000), "p99");
    let mut spread = good();
    spread.predictions = [0; PREDICTION_BINS];
    (spread.predictions[2], spread.predictions[20]) = (500, 500);
    breach(spread, "psi");
}

#[test]
fn a_limit_of_zero_is_switched_off() {
    let mut off = rollout(RolloutMode::Canary, 0);
    off.plan.guards = RolloutGuards {
        requests_min: 1,
        non_finite_ppm_max: 0,
        prediction_ratio_max: 0.0,
        psi_max: 0.0,
        p99_ratio_max: 0.0,
        coverage_drop_ppm_max: 0,
        failed_ppm_max: 0,
        calibration_ratio_max: 0.0,
        clicks_min: 1,
    };
    let bad = Arm { failed: 99, non_finite: 5_000, prediction_sum: f64::NAN, ..arm(100, 0.5, 1_000_000) };
    assert_eq!(judge(&off, &window(1, 0, arm(100, 0.01, 100), bad)), Judged::Pass);
}

/// A fault that begins late is not diluted by what was fine before, and what was heard twice counts once.
#[test]
fn the_newest_windows_that_suffice_are_judged() {
    let rollout = rollout(RolloutMode::Canary, 0);
    let mut windows = Windows::default();
    for sequence in 0..20 {
        assert!(windows.hear(ROUTER, window(sequence, 0, arm(100, 0.02, 5_000), arm(60, 0.02, 5_000))));
    }
    assert!(!windows.hear(ROUTER, window(19, 0, arm(1, 0.5, 1), arm(1, 0.5, 1))));
    assert_eq!(windows.sum(&rollout).candidate.requests, 60);
    windows.hear(OTHER, window(19, 0, arm(100, 0.02, 5_000), arm(60, 0.04, 5_000)));
    assert!(matches!(judge(&rollout, &windows.sum(&rollout)), Judged::Breach(_)));
    // Few a window: as many windows as it takes.
    let mut slow = Windows::default();
    for sequence in 0..30 {
        slow.hear(ROUTER, window(sequence, 0, arm(100, 0.02, 5_000), arm(3, 0.02, 5_000)));
    }
    assert_eq!(slow.sum(&rollout).candidate.requests, 51);
}

/// It numbers its windows anew, and what it sees of a fault counts at once.
#[test]
fn a_router_that_starts_again_is_heard() {
    let rollout = rollout(RolloutMode::Canary, 0);
    let mut windows = Windows::default();
    for sequence in 1..20 {
        windows.hear(ROUTER, window(sequence, 0, arm(100, 0.02, 5_000), arm(60, 0.02, 5_000)));
    }
    let anew = Counting { incarnation: 2, ..ROUTER };
    assert!(windows.hear(anew, window(1, 0, arm(100, 0.02, 5_000), arm(60, 0.04, 5_000))));
    assert!(!windows.hear(anew, window(1, 0, Arm::default(), Arm::default())));
    assert!(matches!(judge(&rollout, &windows.sum(&rollout)), Judged::Breach(_)));
}

/// At the last step only the candidate has requests: the active bundle is remembered from the steps before.
#[test]
fn the_last_step_is_compared_with_the_ones_before() {
    let last = rollout(RolloutMode::Canary, 1);
    let mut windows = Windows::default();
    windows.hear(ROUTER, window(1, 0, arm(100, 0.02, 5_000), arm(60, 0.02, 5_000)));
    assert!(matches!(judge(&last, &windows.sum(&last)), Judged::Wait(_)), "nothing of this step yet");
    windows.hear(ROUTER, window(2, 1, Arm::default(), arm(200, 0.04, 5_000)));
    assert!(matches!(judge(&last, &windows.sum(&last)), Judged::Breach(_)));
    let mut alone = Windows::default();
    alone.hear(ROUTER, window(2, 1, Arm::default(), arm(200, 0.04, 5_000)));
    assert_eq!(judge(&last, &alone.sum(&last)), Judged::Pass, "a new leader knows no baseline");
    let first = rollout(RolloutMode::Canary, 0);
    alone.hear(ROUTER, window(3, 0, Arm::default(), arm(200, 0.02, 5_000)));
    assert!(matches!(judge(&first, &alone.sum(&first)), Judged::Wait(_)), "before the last step it waits");
}

#[test]
fn a_shadow_is_judged_on_the_same_candidates() {
    let rollout = rollout(RolloutMode::Shadow, 0);
    let shadow = |failed, factor: f64| Shadow {
        requests: 100,
        failed,
        candidates: 1_000,
        active_prediction_sum: 20.0,
        candidate_prediction_sum: 20.0 * factor,
        ..Shadow::default()
    };
    let judged = |shadow| judge(&rollout, &Window { version: 2, shadow, ..Window::default() });
    assert_eq!(judged(shadow(0, 1.2)), Judged::Pass);
    assert!(matches!(judged(shadow(0, 2.0)), Judged::Breach(_)));
    assert!(matches!(judged(shadow(5, 1.0)), Judged::Breach(_)));
    assert!(matches!(judged(Shadow::default()), Judged::Wait(_)));
}

/// Clicks for each expected one, against the active bundle's and not against one; over the whole step.
#[test]
fn outcomes_are_judged_beside_the_active_bundles() {
    let clicked = |expected_clicks: f64, clicks: u64| Arm { expected_clicks, clicks, ..arm(100, 0.02, 5_000) };
    let judged = |active: Arm, candidate: Arm| {
        let (rollout, mut windows) = (rollout(RolloutMode::Canary, 0), Windows::default());
        windows.hear(ROUTER, window(1, 0, active, candidate));
        // Enough requests of newer windows: outcomes of older ones still count.
        windows.hear(ROUTER, window(2, 0, arm(1_000, 0.02, 5_000), arm(100, 0.02, 5_000)));
        judge(&rollout, &windows.sum(&rollout))
    };
    let breaks = |judged: Judged| matches!(judged, Judged::Breach(reason) if reason.starts_with("calibration"));
    // Both bring seven tenths of what they say: winners are those that were overestimated.
    assert_eq!(judged(clicked(1_000.0, 700), clicked(500.0, 350)), Judged::Pass);
    assert!(breaks(judged(clicked(1_000.0, 700), clicked(1_000.0, 350))), "it promises twice as much");
    assert!(breaks(judged(clicked(1_000.0, 700), clicked(500.0, 700))), "it promises half");
    assert!(breaks(judged(clicked(1_000.0, 700), clicked(1_000.0, 0))), "nobody clicks");
    assert_eq!(judged(clicked(100.0, 99), clicked(1_000.0, 350)), Judged::Pass, "too few of the active bundle");
    assert_eq!(judged(clicked(1_000.0, 700), clicked(140.0, 40)), Judged::Pass, "too few were due");
    assert_eq!(judged(clicked(150.0, 105), clicked(150.0, 67)), Judged::Pass, "may be chance");
    assert_eq!(judged(Arm::default(), clicked(150.0, 67)), Judged::Pass, "no predictions, no quotient");
}
