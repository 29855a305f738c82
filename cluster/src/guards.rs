//! Is the candidate of a rollout as good as what serves, as far as can be seen so far?
//!
//! Routers count both bundles in windows of a few seconds and report each when it ends; the leader keeps them and asks
//! here. The candidate is judged by its newest windows of the running step, as many as it takes to have enough
//! requests, so that a fault that begins late is not diluted by an hour that was fine. The active bundle is judged by
//! its newest windows of any step: at the last step it has no requests any more.
//!
//! Everything here is a function of the plan and the windows. What a guard finds is said in numbers, because that
//! sentence is all that an operator finds in the morning.
//!
//! Outcomes are judged as clicks for each one that was expected, one bundle against the other and not against one: ads
//! that won are those whose predictions were too high, a click comes later than its ad, and both hold for both bundles.
//! They need time, so all of a step counts, and only ads that were placed in it.

mod compared;

pub use compared::Compared;

use std::collections::VecDeque;

use gavel_proto::coverage::WHOLE;
use gavel_proto::windows::{LATENCY_BINS, PREDICTION_BINS, latency_quantile_us, stability_index};

use crate::state::types::{Rollout, RolloutGuards, RolloutMode};

/// Windows that are kept: a thousand seconds of two routers at two seconds each.
const WINDOWS_MAX: usize = 1_024;

/// What one bundle did in a window.
#[derive(Clone, Debug, PartialEq)]
pub struct Arm {
    /// Requests that it was to answer.
    pub requests: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// Candidates that the ranker scored.
    pub ranked: u64,
    /// Those of them that were dropped for a number that is none.
    pub non_finite: u64,
    /// Candidates that shards returned.
    pub predicted: u64,
    /// Sum of their click predictions.
    pub prediction_sum: f64,
    /// Histogram of their log-odds.
    pub predictions: [u64; PREDICTION_BINS],
    /// Histogram of the latencies of answered requests.
    pub latencies: [u64; LATENCY_BINS],
    /// Sum of the coverage of answered requests, in ten-thousandths.
    pub coverage_parts: u64,
    /// Clicks that were expected of placed ads that pay for them.
    pub expected_clicks: f64,
    /// Those that were charged.
    pub clicks: u64,
}

impl Default for Arm {
    fn default() -> Self {
        Self {
            requests: 0,
            failed: 0,
            ranked: 0,
            non_finite: 0,
            predicted: 0,
            prediction_sum: 0.0,
            predictions: [0; PREDICTION_BINS],
            latencies: [0; LATENCY_BINS],
            coverage_parts: 0,
            expected_clicks: 0.0,
            clicks: 0,
        }
    }
}

/// What shadow requests showed, both bundles on the same candidates.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shadow {
    /// Requests that both scored.
    pub requests: u64,
    /// Requests that the candidate did not score.
    pub failed: u64,
    /// Candidates.
    pub candidates: u64,
    /// Sum of Spearman's correlation, one a request.
    pub rank_correlation_sum: f64,
    /// Click predictions of the active bundle.
    pub active_prediction_sum: f64,
    /// Click predictions of the candidate.
    pub candidate_prediction_sum: f64,
    /// Expected revenue of the winners under the active bundle, currency micros.
    pub active_revenue_sum: f64,
    /// Expected revenue of the winners under the candidate.
    pub candidate_revenue_sum: f64,
    /// Time of the ranker, active bundle.
    pub active_rank_us: u64,
    /// Time of the ranker, candidate.
    pub candidate_rank_us: u64,
}

/// What one router saw in one window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Window {
    /// The candidate.
    pub version: u64,
    /// The step of its rollout.
    pub step: u32,
    /// Of the router's windows.
    pub sequence: u64,
    /// The active bundle.
    pub active: Arm,
    /// The candidate.
    pub candidate: Arm,
    /// Both on the same candidates.
    pub shadow: Shadow,
}

/// The windows that the leader has heard, newest last.
#[derive(Clone, Debug, Default)]
pub struct Windows(VecDeque<(Counting, Window)>);

/// Which start of which router counted: one that starts again numbers its windows anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counting {
    /// The member.
    pub router: u64,
    /// Its start.
    pub incarnation: u64,
}

/// What the guards say.
#[derive(Clone, Debug, PartialEq)]
pub enum Judged {
    /// There is too little to say.
    Wait(String),
    /// Nothing speaks against the next step.
    Pass,
    /// It ends, and why.
    Breach(String),
}

impl Windows {
    /// Takes a window of a router, each once.
    pub fn hear(&mut self, by: Counting, window: Window) -> bool {
        let key = (window.version, window.sequence);
        let known = self.0.iter().rev().any(|(from, w)| *from == by && (w.version, w.sequence) == key);
        if known {
            return false;
        }
        self.0.push_back((by, window));
        if self.0.len() > WINDOWS_MAX {
            self.0.pop_front();
        }
        true
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// What the guards look at: the newest windows of each bundle that suffice.
    #[must_use]
    pub fn sum(&self, rollout: &Rollout) -> Window {
        let (enough, step) = (rollout.plan.guards.requests_min.max(1), rollout.step);
        let mut sum = Window { version: rollout.version, step, ..Window::default() };
        for (_, window) in self.0.iter().rev().filter(|(_, w)| w.version == rollout.version) {
            if sum.active.requests < enough {
                sum.active.add(&window.active);
            }
            if window.step == step && sum.candidate.requests < enough {
                sum.candidate.add(&window.candidate);
            }
            if window.step == step {
                sum.active.add_outcomes(&window.active);
                sum.candidate.add_outcomes(&window.candidate);
            }
            if window.step == step && sum.shadow.requests + sum.shadow.failed < enough {
                sum.shadow.add(&window.shadow);
            }
        }
        sum
    }
}

impl Arm {
    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.ranked += other.ranked;
        self.non_finite += other.non_finite;
        self.predicted += other.predicted;
        self.prediction_sum += other.prediction_sum;
        self.coverage_parts += other.coverage_parts;
        self.predictions.iter_mut().zip(other.predictions).for_each(|(to, from)| *to += from);
        self.latencies.iter_mut().zip(other.latencies).for_each(|(to, from)| *to += from);
    }

    /// Outcomes are added apart: they count over a whole step.
    fn add_outcomes(&mut self, other: &Self) {
        self.expected_clicks += other.expected_clicks;
        self.clicks += other.clicks;
    }

    fn answered(&self) -> u64 {
        self.requests.saturating_sub(self.failed)
    }

    fn coverage(&self) -> f64 {
        share(self.coverage_parts, self.answered().saturating_mul(u64::from(WHOLE)))
    }
}

impl Shadow {
    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.candidates += other.candidates;
        self.rank_correlation_sum += other.rank_correlation_sum;
        self.active_prediction_sum += other.active_prediction_sum;
        self.candidate_prediction_sum += other.candidate_prediction_sum;
        self.active_revenue_sum += other.active_revenue_sum;
        self.candidate_revenue_sum += other.candidate_revenue_sum;
        self.active_rank_us += other.active_rank_us;
        self.candidate_rank_us += other.candidate_rank_us;
    }
}

/// What the guards of a rollout say about what was seen.
#[must_use]
pub fn judge(rollout: &Rollout, seen: &Window) -> Judged {
    let guards = &rollout.plan.guards;
    let enough = guards.requests_min.max(1);
    match rollout.plan.mode {
        RolloutMode::Shadow => {
            let asked = seen.shadow.requests + seen.shadow.failed;
            if asked < enough {
                return Judged::Wait(format!("{asked} of {enough} shadow requests"));
            }
            breached([failed_in_shadow(guards, &seen.shadow), shadow_ratio(guards, &seen.shadow)])
        }
        RolloutMode::Canary => {
            let (active, candidate) = (&seen.active, &seen.candidate);
            if candidate.requests < enough {
                return Judged::Wait(format!("{} of {enough} requests of the candidate", candidate.requests));
            }
            let alone = [non_finite(guards, candidate)];
            if active.requests < enough {
                // The last step after a change of the leader, who has never heard of the active bundle's requests.
                return match breached(alone) {
                    Judged::Pass if rollout.step + 1 < steps(rollout) => {
                        Judged::Wait(format!("{} of {enough} requests of the active bundle", active.requests))
                    }
                    judged @ (Judged::Pass | Judged::Breach(_) | Judged::Wait(_)) => judged,
                };
            }
            let beside = [
                failed(guards, active, candidate),
                coverage(guards, active, candidate),
                ratio(guards, active, candidate),
                stability(guards, active, candidate),
                latency(guards, active, candidate),
                calibration(guards, active, candidate),
            ];
            breached(alone.into_iter().chain(beside))
        }
    }
}

fn steps(rollout: &Rollout) -> u32 {
    u32::try_from(rollout.plan.steps.len()).unwrap_or(u32::MAX)
}

fn breached(found: impl IntoIterator<Item = Option<String>>) -> Judged {
    found.into_iter().flatten().next().map_or(Judged::Pass, Judged::Breach)
}

/// A part of a whole; 0 of nothing.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn ppm(limit: u32) -> Option<f64> {
    (limit > 0).then(|| f64::from(limit) / 1e6)
}

fn non_finite(guards: &RolloutGuards, candidate: &Arm) -> Option<String> {
    let (limit, found) = (ppm(guards.non_finite_ppm_max)?, share(candidate.non_finite, candidate.ranked));
    (found > limit)
        .then(|| format!("non_finite: {:.4} % of ranked candidates, limit {:.4} %", found * 100.0, limit * 100.0))
}

fn failed(guards: &RolloutGuards, active: &Arm, candidate: &Arm) -> Option<String> {
    let limit = ppm(guards.failed_ppm_max)?;
    let (before, found) = (share(active.failed, active.requests), share(candidate.failed, candidate.requests));
    (found > before + limit).then(|| {
        let [before, found, limit] = [before, found, limit].map(|x| x * 100.0);
        format!("failed: {found:.3} % of requests against {before:.3} %, limit {limit:.3} % more")
    })
}

fn coverage(guards: &RolloutGuards, active: &Arm, candidate: &Arm) -> Option<String> {
    let limit = ppm(guards.coverage_drop_ppm_max)?;
    if active.answered() == 0 || candidate.answered() == 0 {
        return None;
    }
    let (before, found) = (active.coverage(), candidate.coverage());
    (found < before - limit).then(|| format!("coverage: {found:.4} against {before:.4}, limit {limit:.4} less"))
}

/// Means with a factor between them, said in either direction; a candidate without predictions has none.
fn apart(before: f64, found: f64, limit: f64) -> bool {
    let ratio = found / before;
    // Written so that NaN is apart.
    !(ratio <= limit && ratio >= 1.0 / limit)
}

fn ratio(guards: &RolloutGuards, active: &Arm, candidate: &Arm) -> Option<String> {
    let limit = Some(guards.prediction_ratio_max).filter(|limit| *limit > 0.0)?;
    if active.predicted == 0 {
        return None;
    }
    let mean = |arm: &Arm| if arm.predicted == 0 { 0.0 } else { arm.prediction_sum / arm.predicted as f64 };
    let (before, found) = (mean(active), mean(candidate));
    apart(before, found, limit).then(|| {
        format!("prediction_ratio: {:.3} (mean {found:.5} against {before:.5}), limit {limit:.3}", found / before)
    })
}

fn stability(guards: &RolloutGuards, active: &Arm, candidate: &Arm) -> Option<String> {
    let limit = Some(guards.psi_max).filter(|limit| *limit > 0.0)?;
    if active.predicted == 0 || candidate.predicted == 0 {
        return None;
    }
    let found = stability_index(&active.predictions, &candidate.predictions);
    (found.is_nan() || found > limit).then(|| format!("psi: {found:.3}, limit {limit:.3}"))
}

fn latency(guards: &RolloutGuards, active: &Arm, candidate: &Arm) -> Option<String> {
    let limit = Some(guards.p99_ratio_max).filter(|limit| *limit > 0.0)?;
    let quantile = |arm: &Arm| latency_quantile_us(&arm.latencies, 0.99);
    let (before, found) = (quantile(active), quantile(candidate));
    (before > 0.0 && found > before * limit).then(|| {
        let [before, found] = [before, found].map(|us| us / 1_000.0);
        format!("p99: {found:.1} ms against {before:.1} ms, limit {limit:.2} times")
    })
}

/// Standard deviations by which a difference of two counts must be beyond chance: the guards look every few seconds.
const BEYOND_CHANCE: f64 = 3.5;

fn calibration(guards: &RolloutGuards, active: &Arm, candidate: &Arm) -> Option<String> {
    let limit = Some(guards.calibration_ratio_max).filter(|limit| *limit > 0.0)?;
    let (enough, clicks) = (f64::from(guards.clicks_min.max(1)), active.clicks as f64);
    // What the candidate's predictions would have brought if they were worth as much as the active bundle's.
    let due = candidate.expected_clicks * clicks / active.expected_clicks;
    if clicks < enough || !due.is_finite() || due < enough {
        return None;
    }
    let found = candidate.clicks as f64 / due;
    // Two Poisson counts: the deviation of the logarithm of their quotient. Half a click stands for none.
    let (apart, chance) = (found.max(0.5 / due).ln().abs(), (1.0 / clicks + 1.0 / due).sqrt());
    (apart > limit.max(1.0).ln() && apart > BEYOND_CHANCE * chance).then(|| {
        let each = |arm: &Arm| arm.clicks as f64 / arm.expected_clicks;
        let (before, now) = (each(active), each(candidate));
        format!(
            "calibration: {now:.3} clicks for each expected one against {before:.3}, {found:.3} times, limit {limit:.3}, \
             after {} and {} clicks",
            candidate.clicks, active.clicks
        )
    })
}

fn failed_in_shadow(guards: &RolloutGuards, shadow: &Shadow) -> Option<String> {
    let (limit, found) = (ppm(guards.failed_ppm_max)?, share(shadow.failed, shadow.requests + shadow.failed));
    (found > limit).then(|| format!("failed: {:.3} % of shadow requests, limit {:.3} %", found * 100.0, limit * 100.0))
}

fn shadow_ratio(guards: &RolloutGuards, shadow: &Shadow) -> Option<String> {
    let limit = Some(guards.prediction_ratio_max).filter(|limit| *limit > 0.0)?;
    if shadow.candidates == 0 {
        return None;
    }
    let (before, found) = (shadow.active_prediction_sum, shadow.candidate_prediction_sum);
    apart(before, found, limit)
        .then(|| format!("prediction_ratio: {:.3} on the same candidates, limit {limit:.3}", found / before))
}

#[cfg(test)]
mod tests;
