//! What have the last seconds shown of the active bundle and of the candidate beside it?
//!
//! Counted in windows as long as the rollout's plan says. A window that has ended is handed over whole and reported
//! with the next heartbeat, which it wakes; a window in which nothing happened is not reported.

use std::sync::{Mutex, MutexGuard, PoisonError};

use gavel_proto::deadline::Instant;
use gavel_proto::windows::{LATENCY_BINS, PREDICTION_BINS, latency_bin, prediction_bin};
use gavel_proto::wire::{ArmWindow, RolloutWindow, ShadowWindow};
use tokio::sync::Notify;

/// Which of the two bundles answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arm {
    /// The one that serves.
    Active,
    /// The one that has a share.
    Candidate,
}

impl Arm {
    /// The word in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Candidate => "candidate",
        }
    }
}

/// What a request showed of the bundle that answered it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shown {
    /// Candidates that the ranker scored.
    pub ranked: u64,
    /// Those of them that were dropped for a number that is none.
    pub non_finite: u64,
    /// Click predictions of the candidates that shards returned.
    pub predictions: Vec<f32>,
    /// Ten-thousandths.
    pub coverage_parts: u32,
    /// Clicks that are expected of the placed ads that pay for them.
    pub expected_clicks: f64,
}

/// What both bundles said of the same candidates.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Compared {
    /// Candidates.
    pub candidates: u64,
    /// Spearman's, -1 to 1.
    pub rank_correlation: f64,
    /// Sums of the click predictions.
    pub predictions: (f64, f64),
    /// Expected currency micros of the winners.
    pub revenue: (f64, f64),
    /// Time of the ranker for these candidates.
    pub rank_us: (u64, u64),
}

/// Which rollout is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The candidate.
    pub version: u64,
    /// The step of its plan.
    pub step: u32,
    /// How long a window is.
    pub window_us: u64,
}

/// The windows of this router.
#[derive(Default)]
pub struct Windows {
    open: Mutex<Open>,
    ended: Notify,
}

#[derive(Default)]
struct Open {
    counted: Option<Counted>,
    ends_at: Instant,
    window: RolloutWindow,
    last: Option<RolloutWindow>,
}

impl Windows {
    /// What is to be counted from now on; what is half counted of something else is thrown away.
    pub fn count(&self, counted: Option<Counted>, now: Instant) {
        let mut open = self.open();
        if open.counted == counted {
            return;
        }
        let begins_anew = open.counted.map(|c| c.version) != counted.map(|c| c.version);
        open.counted = counted;
        if begins_anew {
            open.last = None;
        }
        open.begin(now);
        drop(open);
        self.ended.notify_one();
    }

    /// A request ended: how long it took, and what it showed; `None` for one that failed.
    pub fn record(&self, arm: Arm, us: u64, shown: Option<&Shown>, now: Instant) {
        self.with(now, |window| {
            let arm = match arm {
                Arm::Active => window.active.get_or_insert_with(empty_arm),
                Arm::Candidate => window.candidate.get_or_insert_with(empty_arm),
            };
            add(arm, us, shown);
        });
    }

    /// The step that is counted, as tokens name it; 0 = none. Clicks of an earlier step say nothing of this one: when a
    /// share grows, the clicks of the bundle that had it before go on for a while.
    #[must_use]
    pub fn trial(&self) -> u64 {
        self.open().counted.map_or(0, |counted| trial(counted.version, counted.step))
    }

    /// A click was charged for an ad that was placed in a step, scored by a model.
    pub fn clicked(&self, step: u64, model: u64, now: Instant) {
        self.with(now, |window| {
            if trial(window.version, window.step) == step {
                let arm = if model == window.version { &mut window.candidate } else { &mut window.active };
                arm.get_or_insert_with(empty_arm).clicks += 1;
            }
        });
    }

    /// A shadow request ended; `None` for one that the candidate did not score.
    pub fn record_shadow(&self, compared: Option<&Compared>, now: Instant) {
        self.with(now, |window| {
            let shadow = window.shadow.get_or_insert_with(ShadowWindow::default);
            let Some(c) = compared else {
                shadow.failed += 1;
                return;
            };
            shadow.requests += 1;
            shadow.candidates += c.candidates;
            shadow.rank_correlation_sum += c.rank_correlation;
            shadow.active_prediction_sum += c.predictions.0;
            shadow.candidate_prediction_sum += c.predictions.1;
            shadow.active_revenue_sum += c.revenue.0;
            shadow.candidate_revenue_sum += c.revenue.1;
            shadow.active_rank_us += c.rank_us.0;
            shadow.candidate_rank_us += c.rank_us.1;
        });
    }

    /// The window that ended last.
    #[must_use]
    pub fn last(&self) -> Option<RolloutWindow> {
        self.open().last.clone()
    }

    /// Returns when another window has ended. One listener: what reports them.
    pub async fn ended(&self) {
        self.ended.notified().await;
    }

    /// Adds to the open window; one whose time is over is handed over first.
    fn with(&self, now: Instant, add: impl FnOnce(&mut RolloutWindow)) {
        let mut open = self.open();
        if open.counted.is_none() {
            return;
        }
        let is_over = now >= open.ends_at;
        if is_over {
            open.last = Some(open.window.clone());
            open.begin(now);
        }
        add(&mut open.window);
        drop(open);
        if is_over {
            self.ended.notify_one();
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn begin(&mut self, now: Instant) {
        let Counted { version, step, window_us } =
            self.counted.unwrap_or(Counted { version: 0, step: 0, window_us: 0 });
        self.ends_at = Instant(now.0 + window_us);
        let sequence = self.window.sequence + 1;
        self.window = RolloutWindow { version, step, sequence, ..RolloutWindow::default() };
    }
}

/// A number for each step of each candidate; versions are counted and never reach 2^32.
const fn trial(version: u64, step: u32) -> u64 {
    (version << 32) | (step as u64 + 1)
}

fn empty_arm() -> ArmWindow {
    ArmWindow { predictions: vec![0; PREDICTION_BINS], latencies: vec![0; LATENCY_BINS], ..ArmWindow::default() }
}

fn add(arm: &mut ArmWindow, us: u64, shown: Option<&Shown>) {
    arm.requests += 1;
    let Some(shown) = shown else {
        arm.failed += 1;
        return;
    };
    if let Some(bin) = arm.latencies.get_mut(latency_bin(us)) {
        *bin += 1;
    }
    arm.ranked += shown.ranked;
    arm.non_finite += shown.non_finite;
    arm.coverage_parts += u64::from(shown.coverage_parts);
    arm.expected_clicks += shown.expected_clicks;
    arm.predicted += shown.predictions.len() as u64;
    for prediction in shown.predictions.iter().map(|p| f64::from(*p)) {
        arm.prediction_sum += prediction;
        if let Some(bin) = prediction_bin(prediction).and_then(|bin| arm.predictions.get_mut(bin)) {
            *bin += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_handed_over_whole_when_its_time_is_over() {
        let windows = Windows::default();
        let shown = Shown {
            ranked: 50,
            non_finite: 1,
            predictions: vec![0.1, 0.3],
            coverage_parts: 10_000,
            expected_clicks: 0.25,
        };
        windows.record(Arm::Active, 900, Some(&shown), Instant(5));
        assert_eq!(windows.last(), None, "nothing is counted without a rollout");
        let counted = Counted { version: 2, step: 0, window_us: 1_000 };
        windows.count(Some(counted), Instant(10));
        windows.record(Arm::Active, 900, Some(&shown), Instant(20));
        windows.record(Arm::Candidate, 900, None, Instant(30));
        windows.record_shadow(Some(&Compared { candidates: 3, ..Compared::default() }), Instant(40));
        assert_eq!(windows.last(), None);
        windows.record(Arm::Active, 900, Some(&shown), Instant(1_010));
        let first = windows.last().expect("over");
        let (active, candidate) = (first.active.expect("one"), first.candidate.expect("one"));
        assert_eq!((active.requests, active.ranked, active.non_finite, active.predicted), (1, 50, 1, 2));
        assert_eq!(active.predictions.iter().sum::<u64>(), 2);
        assert_eq!((candidate.requests, candidate.failed, first.shadow.expect("one").candidates), (1, 1, 3));
        windows.count(Some(Counted { step: 1, ..counted }), Instant(1_500));
        windows.record(Arm::Active, 900, Some(&shown), Instant(3_000));
        let (last, step) = windows.last().map(|w| (w.sequence, w.step)).expect("over");
        assert!(last > first.sequence && step == 1);
        windows.count(None, Instant(4_000));
        assert_eq!(windows.last(), None);
    }

    /// A click counts for the bundle that scored the ad, and only in the step in which the ad was placed.
    #[test]
    fn a_click_counts_in_the_step_of_its_ad() {
        let windows = Windows::default();
        assert_eq!(windows.trial(), 0);
        let counted = Counted { version: 2, step: 0, window_us: 1_000 };
        windows.count(Some(counted), Instant(0));
        let first = windows.trial();
        let shown = Shown { expected_clicks: 0.25, ..Shown::default() };
        windows.record(Arm::Candidate, 900, Some(&shown), Instant(1));
        windows.record(Arm::Candidate, 900, Some(&shown), Instant(2));
        windows.clicked(first, 2, Instant(3));
        windows.clicked(first, 1, Instant(4));
        windows.clicked(first, 1, Instant(5));
        windows.clicked(0, 1, Instant(6));
        windows.record(Arm::Active, 900, None, Instant(2_000));
        let arms = windows.last().map(|w| (w.active.expect("one").clicks, w.candidate.expect("one")));
        let (active, candidate) = arms.expect("over");
        assert_eq!((active, candidate.clicks, candidate.expected_clicks), (2, 1, 0.5));
        windows.count(Some(Counted { step: 1, ..counted }), Instant(2_100));
        windows.clicked(first, 2, Instant(2_200));
        assert_ne!(windows.trial(), first);
        windows.record(Arm::Candidate, 900, None, Instant(4_000));
        assert_eq!(windows.last().and_then(|w| w.candidate), None, "it was placed in the step before");
    }
}
