//! What should the leader propose next?
//!
//! Compares what it hears with what is agreed. A member that is silent for two seconds is dead, one that
//! beats again is alive, news of readiness is reported, and a generation that is ready everywhere is activated
//! without an operator; so is the first model. Later models are an operator's decision, and so is the plan of their
//! rollout; its steps, its end by a guard and the activation after its last step follow from what routers report.
//!
//! A new leader has heard nobody yet and would declare everybody dead: it waits a whole window first. What it
//! heard is its own and is never replicated; only the conclusions are.

use std::collections::BTreeMap;

use gavel_proto::deadline::Instant;

use crate::guards::{Counting, Judged, Window, Windows, judge};
use crate::state::command::{Body, EndedBy, Liveness, SetAlive};
use crate::state::types::{Member, Ready, Role, Rollout, RolloutMode};
use crate::state::{Overdue, State};

/// A member that is silent for so long is dead: four missed beats.
pub const SILENCE_US_MAX: u64 = 2_000_000;
/// A new leader declares nobody dead before: one window of silence and a beat to find the new leader.
pub const NEW_LEADER_PATIENCE_US: u64 = 3_000_000;
/// Commands in one round, so that a round ends before the next begins.
const COMMANDS_MAX: usize = 64;

const _: () = assert!(NEW_LEADER_PATIENCE_US > SILENCE_US_MAX, "a member must have had the chance to beat once");

/// The last that a member said.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    /// When.
    pub at: Instant,
    /// Of which process start.
    pub incarnation: u64,
    /// It is about to leave.
    pub draining: bool,
    /// What it is ready for; `None` when it only joined.
    pub ready: Option<Ready>,
    /// Its memory.
    pub resident_bytes: u64,
}

/// What this voter has heard since it became the leader.
#[derive(Clone, Debug, Default)]
pub struct Hearing {
    leader_since: Instant,
    heard: BTreeMap<u64, Heard>,
    windows: Windows,
    /// Version, step and begin of the step of the rollout that the windows are of.
    attended: Option<(u64, u32, u64)>,
}

impl Hearing {
    /// Forgets everything: this voter has just become the leader.
    pub fn begin(&mut self, now: Instant) {
        self.leader_since = now;
        self.heard.clear();
        self.windows.clear();
        self.attended = None;
    }

    /// Windows are of the rollout that runs: what was heard of one that ended says nothing about the next, of the same
    /// version neither. Within one rollout steps only go up, and a step has one begin.
    pub fn attend(&mut self, rollout: Option<&Rollout>) {
        let runs = rollout.map(|r| (r.version, r.step, r.since_ms));
        let Some(now) = runs else { return };
        let goes_on = self.attended.is_some_and(|before| before.0 == now.0 && (before.1 < now.1 || before == now));
        if !goes_on {
            self.windows.clear();
        }
        self.attended = runs;
    }

    /// Takes a window of a router, and says whether it is news; one of another version than the rollout's is none.
    pub fn hear_window(&mut self, by: Counting, window: Window) -> News {
        let is_attended = self.attended.is_some_and(|(version, ..)| version == window.version);
        if is_attended && self.windows.hear(by, window) { News::Yes } else { News::No }
    }

    /// What the guards of a rollout look at.
    #[must_use]
    pub fn seen(&self, rollout: &Rollout) -> Window {
        self.windows.sum(rollout)
    }

    /// Takes what a member said, and says whether it is news.
    pub fn hear(&mut self, member: u64, said: Heard) -> News {
        let before = self.heard.get(&member);
        let same = before
            .is_some_and(|b| b.incarnation == said.incarnation && b.draining == said.draining && b.ready == said.ready);
        self.heard.insert(member, said);
        if same { News::No } else { News::Yes }
    }

    /// The last that a member said.
    #[must_use]
    pub fn last(&self, member: u64) -> Option<&Heard> {
        self.heard.get(&member)
    }
}

/// Whether a beat said anything new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It did.
    Yes,
    /// It did not.
    No,
}

/// The commands that bring what is agreed nearer to what is heard.
#[must_use]
pub fn reconcile(state: &State, hearing: &Hearing, now: Instant, wall_ms: u64) -> Vec<Body> {
    let mut commands: Vec<Body> =
        state.members.values().flat_map(|member| about(member, hearing, now)).take(COMMANDS_MAX).collect();
    // They come after the news about members; `apply` refuses one that the news has overtaken.
    commands.extend(first_model(state));
    commands.extend(generation(state));
    commands.extend(state.rollout.as_ref().and_then(|rollout| next_of(rollout, hearing, wall_ms)));
    commands
}

/// What to say about one member: whether it answers, then what it is ready for.
fn about(member: &Member, hearing: &Hearing, now: Instant) -> Vec<Body> {
    let since = |at: Instant| now.0.saturating_sub(at.0);
    let set = |liveness| Body::SetAlive(SetAlive { member: member.id, incarnation: member.incarnation, liveness });
    let heard = hearing.last(member.id).filter(|heard| heard.incarnation == member.incarnation);
    let Some(heard) = heard.filter(|heard| since(heard.at) <= SILENCE_US_MAX) else {
        let patient = since(hearing.leader_since) >= NEW_LEADER_PATIENCE_US;
        return if member.alive && patient { vec![set(Liveness::Dead)] } else { Vec::new() };
    };
    let mut commands = Vec::new();
    if !member.alive || member.draining != heard.draining {
        commands.push(set(if heard.draining { Liveness::Draining } else { Liveness::Serving }));
    }
    if let Some(ready) = heard.ready.as_ref().filter(|ready| **ready != member.ready) {
        commands.push(Body::ReportReady { member: member.id, incarnation: member.incarnation, ready: ready.clone() });
    }
    commands
}

/// The first model, once a node and a router have it and nobody lacks it.
fn first_model(state: &State) -> Option<Body> {
    let pending = state.model(state.pending_model).filter(|_| state.active_model.is_none())?;
    let peopled = [Role::Node, Role::Router].iter().all(|role| state.alive_in(*role).next().is_some());
    let ready = peopled && state.model_lacks(pending.hash, Overdue::No).is_none();
    ready.then_some(Body::ActivateModel { version: pending.version, expect_active: 0 })
}

/// The next step of a rollout, or its end.
fn next_of(rollout: &Rollout, hearing: &Hearing, wall_ms: u64) -> Option<Body> {
    let version = rollout.version;
    match judge(rollout, &hearing.seen(rollout)) {
        Judged::Breach(reason) => return Some(Body::EndRollout { version, reason, by: EndedBy::Guard }),
        Judged::Wait(_) => return None,
        Judged::Pass => {}
    }
    let hold_ms = rollout.plan.steps.get(rollout.step as usize).map_or(0, |step| step.hold_ms);
    if wall_ms < rollout.since_ms.saturating_add(hold_ms) {
        return None;
    }
    if rollout.step as usize + 1 < rollout.plan.steps.len() {
        return Some(Body::StepRollout { version, step: rollout.step + 1 });
    }
    match rollout.plan.mode {
        RolloutMode::Canary => Some(Body::ActivateModel { version, expect_active: rollout.baseline }),
        // Without a time it goes on until somebody ends it.
        RolloutMode::Shadow if hold_ms == 0 => None,
        RolloutMode::Shadow => {
            let reason = format!("the shadow has held its time: {}", hearing.windows.compared(rollout).in_words());
            Some(Body::EndRollout { version, reason, by: EndedBy::Operator })
        }
    }
}

/// The pending generation, once nobody lacks it.
fn generation(state: &State) -> Option<Body> {
    let pending = state.pending()?;
    let ready = state.generation_lacks(pending).is_none();
    ready.then_some(Body::ActivateGeneration { generation: pending.number })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::apply;
    use crate::state::command::{Command, PublishModel, RegisterMember, Staging};

    const SECOND: u64 = 1_000_000;

    fn say(state: &mut State, index: u64, body: Body) {
        apply(state, index, &Command { id: String::new(), digest: [0; 32], proposed_ms: 0, body });
    }

    fn peopled() -> State {
        let mut state = State::genesis("reconcile");
        for (index, role) in [(1, Role::Node), (2, Role::Router)] {
            let (key, address) = (format!("k{index}"), format!("h:{index}"));
            let name = key.clone();
            say(&mut state, index, Body::RegisterMember(RegisterMember { key, role, address, name, incarnation: 1 }));
        }
        state
    }

    fn publish(hash: u8) -> Body {
        Body::PublishModel(PublishModel {
            hash: [hash; 32],
            bytes: 1,
            name: "m".to_owned(),
            uploader: String::new(),
            staging: Staging::AtOnce,
            version: 0,
            signature: None,
            report: String::new(),
        })
    }

    fn beat(at: u64, ready: Option<Ready>) -> Heard {
        Heard { at: Instant(at), incarnation: 1, draining: false, ready, resident_bytes: 0 }
    }

    fn set(member: u64, liveness: Liveness) -> Body {
        Body::SetAlive(SetAlive { member, incarnation: 1, liveness })
    }

    #[test]
    fn a_new_leader_is_patient_and_then_declares_the_silent_dead() {
        let mut state = peopled();
        let mut hearing = Hearing::default();
        hearing.begin(Instant(10 * SECOND));
        assert_eq!(reconcile(&state, &hearing, Instant(12 * SECOND + 900_000), 0), []);
        hearing.hear(1, beat(12 * SECOND, None));
        assert_eq!(reconcile(&state, &hearing, Instant(13 * SECOND), 0), [set(2, Liveness::Dead)]);
        say(&mut state, 3, set(2, Liveness::Dead));
        assert_eq!(reconcile(&state, &hearing, Instant(14 * SECOND), 0), []);
        assert_eq!(reconcile(&state, &hearing, Instant(14 * SECOND + 1), 0), [set(1, Liveness::Dead)]);
        hearing.hear(2, beat(14 * SECOND, None));
        assert!(reconcile(&state, &hearing, Instant(14 * SECOND), 0).contains(&set(2, Liveness::Serving)));
        let draining = Heard { draining: true, ..beat(14 * SECOND, None) };
        assert_eq!(hearing.hear(1, draining), News::Yes);
        assert!(reconcile(&state, &hearing, Instant(14 * SECOND), 0).contains(&set(1, Liveness::Draining)));
        let old = Heard { incarnation: 0, ..beat(16 * SECOND, None) };
        hearing.hear(1, old);
        assert_eq!(reconcile(&state, &hearing, Instant(16 * SECOND), 0)[0], set(1, Liveness::Dead), "another process");
    }

    #[test]
    fn readiness_is_reported_first_and_the_first_model_follows_by_itself() {
        let mut state = peopled();
        say(&mut state, 3, publish(7));
        let mut hearing = Hearing::default();
        let ready = Ready { models: [[7; 32]].into(), ..Ready::default() };
        hearing.hear(1, beat(SECOND, Some(ready.clone())));
        hearing.hear(2, beat(SECOND, Some(ready.clone())));
        assert_eq!(hearing.hear(2, beat(SECOND, Some(ready.clone()))), News::No);
        let reports = reconcile(&state, &hearing, Instant(SECOND), 0);
        assert_eq!(reports.len(), 2);
        for (index, body) in (4..).zip(reports) {
            say(&mut state, index, body);
        }
        let activate = Body::ActivateModel { version: 1, expect_active: 0 };
        assert_eq!(reconcile(&state, &hearing, Instant(SECOND), 0), std::slice::from_ref(&activate));
        say(&mut state, 6, activate);
        say(&mut state, 7, publish(8));
        let both = Ready { models: [[7; 32], [8; 32]].into(), ..Ready::default() };
        for member in [1, 2] {
            hearing.hear(member, beat(SECOND, Some(both.clone())));
        }
        for (index, body) in (8..).zip(reconcile(&state, &hearing, Instant(SECOND), 0)) {
            say(&mut state, index, body);
        }
        assert_eq!(reconcile(&state, &hearing, Instant(SECOND), 0), [], "a later model is an operator's decision");
    }

    /// What one member says does not keep the others from going on.
    #[test]
    fn news_about_a_member_does_not_gate_an_activation() {
        let mut state = peopled();
        say(&mut state, 3, publish(7));
        let ready = Ready { models: [[7; 32]].into(), ..Ready::default() };
        for (index, member) in [(4, 1), (5, 2)] {
            say(&mut state, index, Body::ReportReady { member, incarnation: 1, ready: ready.clone() });
        }
        let mut hearing = Hearing::default();
        let more = Ready { generations: [9].into(), ..ready };
        hearing.hear(1, beat(SECOND, Some(more)));
        let commands = reconcile(&state, &hearing, Instant(SECOND), 0);
        assert!(commands.contains(&Body::ActivateModel { version: 1, expect_active: 0 }), "{commands:?}");
        assert_eq!(commands.len(), 2);
    }

    /// A canary goes through its plan by itself, waits for evidence at each step, and ends with an activation; a guard
    /// ends it with its reason.
    #[test]
    fn a_rollout_steps_activates_or_ends_by_itself() {
        use crate::guards::{Arm, Counting, Window};
        use crate::state::types::{RolloutGuards, RolloutPlan, RolloutStep};
        let mut state = peopled();
        say(&mut state, 3, publish(7));
        let both = Ready { models: [[7; 32], [8; 32]].into(), ..Ready::default() };
        for (index, member) in [(4, 1), (5, 2)] {
            say(&mut state, index, Body::ReportReady { member, incarnation: 1, ready: both.clone() });
        }
        say(&mut state, 6, Body::ActivateModel { version: 1, expect_active: 0 });
        say(&mut state, 7, publish(8));
        let guards = RolloutGuards {
            requests_min: 10,
            non_finite_ppm_max: 1_000,
            prediction_ratio_max: 1.5,
            psi_max: 0.0,
            p99_ratio_max: 0.0,
            coverage_drop_ppm_max: 0,
            failed_ppm_max: 0,
            calibration_ratio_max: 1.5,
            clicks_min: 100,
        };
        let steps = [10_000, 1_000_000].map(|share_ppm| RolloutStep { share_ppm, hold_ms: 500 }).to_vec();
        let plan = RolloutPlan { mode: RolloutMode::Canary, steps, guards, window_ms: 2_000 };
        say(&mut state, 8, Body::BeginRollout { version: 2, expect_active: 1, plan: plan.clone() });
        assert!(state.rollout.is_some());
        let mut hearing = Hearing::default();
        hearing.attend(state.rollout.as_ref());
        for member in [1, 2] {
            hearing.hear(member, beat(SECOND, Some(both.clone())));
        }
        let go = |state: &State, hearing: &Hearing, wall_ms| reconcile(state, hearing, Instant(SECOND), wall_ms);
        let arm = |mean: f64| Arm { requests: 10, predicted: 100, prediction_sum: 100.0 * mean, ..Arm::default() };
        let window = |step, candidate| Window {
            version: 2,
            step,
            sequence: step.into(),
            active: arm(0.1),
            candidate,
            ..Window::default()
        };
        assert_eq!(go(&state, &hearing, 10_000), [], "no evidence");
        assert_eq!(hearing.hear_window(Counting { router: 2, incarnation: 1 }, window(0, arm(0.1))), News::Yes);
        assert_eq!(go(&state, &hearing, 499), [], "the step has not held");
        let step = Body::StepRollout { version: 2, step: 1 };
        assert_eq!(go(&state, &hearing, 500), std::slice::from_ref(&step));
        say(&mut state, 9, step);
        hearing.attend(state.rollout.as_ref());
        assert_eq!(go(&state, &hearing, 10_000), [], "no evidence at the new share");
        let mut drifted = hearing.clone();
        hearing.hear_window(Counting { router: 2, incarnation: 1 }, window(1, arm(0.1)));
        assert_eq!(go(&state, &hearing, 500), [Body::ActivateModel { version: 2, expect_active: 1 }]);
        drifted.hear_window(Counting { router: 2, incarnation: 1 }, window(1, arm(0.2)));
        let end = go(&state, &drifted, 0);
        let [Body::EndRollout { version: 2, reason, by: EndedBy::Guard }] = &end[..] else { panic!("{end:?}") };
        assert!(reason.starts_with("prediction_ratio: 2.000"), "{reason}");
        say(&mut state, 10, end[0].clone());
        assert!(state.rollout.is_none());
        assert_eq!(state.history.back().map(|e| &e.detail), Some(reason));

        // Begun again, it is judged by what comes, not by what ended it.
        drifted.attend(None);
        assert_eq!(
            drifted.hear_window(Counting { router: 2, incarnation: 1 }, Window { version: 3, ..window(2, arm(0.2)) }),
            News::No,
            "a window of no rollout"
        );
        say(&mut state, 11, Body::BeginRollout { version: 2, expect_active: 1, plan });
        drifted.attend(state.rollout.as_ref());
        assert_eq!(go(&state, &drifted, 10_000), [], "no evidence of this rollout");
    }
}
