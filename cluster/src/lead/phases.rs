//! Through which phases do bundles go, and how long does each take?
//!
//! The phases have one noun each, here, in the logs and in the metrics: publish, stage, ready, begin, step, activate,
//! rollback, guard, end, retire. All but `ready` are events of the history; `ready` is the moment when nobody lacks a
//! staged bundle any more. Every voter tells what it applies; a voter that starts tells nothing of what was before.
//!
//! The time of an event is that from its proposal, as the leader's clock said, to its entry being applied here; that of
//! `ready` counts from the entry that staged the bundle. Between hosts it is as exact as their clocks.

use std::collections::BTreeSet;

use crate::state::{Event, Happened, Overdue, State};

/// What has been told already.
#[derive(Debug, Default)]
pub struct Phases {
    last: Option<Event>,
    ready: BTreeSet<u64>,
    begun: bool,
}

/// Something that happened to a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase {
    /// Its noun.
    pub name: &'static str,
    /// Of which version.
    pub version: u64,
    /// How long it took, milliseconds.
    pub took_ms: u64,
    /// Who, from where, or why.
    pub detail: String,
}

impl Phases {
    /// What has happened since the last look.
    pub fn look(&mut self, state: &State, now_ms: u64) -> Vec<Phase> {
        let fresh = state.history.iter().rev().take_while(|event| self.last.as_ref() != Some(*event));
        let mut found: Vec<Phase> = fresh.map(|event| phase(event, now_ms)).collect();
        found.reverse();
        self.last = state.history.back().cloned();
        let is_ready = |hash| state.model_lacks(hash, Overdue::No).is_none();
        let ready: BTreeSet<u64> = state.staged().filter(|m| is_ready(m.hash)).map(|m| m.version).collect();
        for version in ready.difference(&self.ready) {
            let took_ms = state.models.get(version).map_or(0, |m| now_ms.saturating_sub(m.staged_ms));
            found.push(Phase { name: "ready", version: *version, took_ms, detail: String::new() });
        }
        // Whoever comes back makes it not ready for a moment: only the first time is one of its phases.
        self.ready.extend(ready);
        self.ready.retain(|version| state.models.contains_key(version));
        if std::mem::replace(&mut self.begun, true) { found } else { Vec::new() }
    }
}

fn phase(event: &Event, now_ms: u64) -> Phase {
    let name = match event.happened {
        Happened::Published => "publish",
        Happened::Staged => "stage",
        Happened::Activated => "activate",
        Happened::RolledBack => "rollback",
        Happened::Began => "begin",
        Happened::Stepped => "step",
        Happened::Ended => "end",
        Happened::Retired => "retire",
        Happened::Guard => "guard",
    };
    let took_ms = now_ms.saturating_sub(event.at_ms);
    Phase { name, version: event.version, took_ms, detail: event.detail.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::apply;
    use crate::state::command::{Body, Command, PublishModel, Staging};

    #[test]
    fn each_event_is_told_once_and_none_from_before_the_start() {
        let mut state = State::genesis("phases");
        let say = |state: &mut State, index: u64, body: Body| {
            apply(state, index, &Command { id: String::new(), digest: [0; 32], proposed_ms: index * 10, body });
        };
        let publish = |hash: u8, staging| {
            Body::PublishModel(PublishModel {
                hash: [hash; 32],
                bytes: 1,
                name: "m".to_owned(),
                uploader: "ann".to_owned(),
                staging,
                version: 0,
                signature: None,
                report: String::new(),
            })
        };
        say(&mut state, 1, publish(1, Staging::Later));
        let mut phases = Phases::default();
        assert_eq!(phases.look(&state, 15), [], "it was there before this voter looked");
        say(&mut state, 2, publish(2, Staging::AtOnce));
        let told = phases.look(&state, 25);
        let names: Vec<_> = told.iter().map(|p| (p.name, p.version, p.took_ms)).collect();
        // Without members nobody lacks it.
        assert_eq!(names, [("publish", 2, 5), ("stage", 2, 5), ("ready", 2, 5)]);
        assert_eq!(told[0].detail, "ann");
        assert_eq!(phases.look(&state, 30), []);
        say(&mut state, 3, Body::RetireModel { version: 1 });
        assert_eq!(phases.look(&state, 31).iter().map(|p| p.name).collect::<Vec<_>>(), ["retire"]);
    }
}
