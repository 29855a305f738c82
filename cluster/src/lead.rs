//! What does a voter do all the time?
//!
//! It turns each applied entry that members can see into one View for all of them, and while it leads it asks
//! `reconcile` a few times a second what to propose. It looks whether it is led itself, whether its disk still
//! answers, and which blobs nobody needs any more.

mod campaigns;
mod phases;

pub use campaigns::follow_catalogue;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use gavel_member::serve::Health;
use gavel_member::{clock, random};
use gavel_proto::hash::TieKey;
use gavel_proto::wire;

use crate::blobs::{Shelf, Sweeper};
use crate::raft::EXIT_DISK_FAILED;
use crate::raft::stall::{Advice, WriteClock};
use crate::rpc::{Core, Leader, NotProposed, Voter};
use crate::state::command::{Body, EndedBy};
use crate::state::types::Outcome;
use crate::{convert, publish, reconcile};
use phases::{Phase, Phases};

/// Between two looks at what is heard; beats that say something new are looked at at once.
const ROUND: Duration = Duration::from_millis(200);
/// Between two looks at the disk.
const DISK_ROUND: Duration = Duration::from_millis(250);
/// Between two looks for blobs that can go; also how long a voter that starts has to catch up first.
const SWEEP_ROUND: Duration = Duration::from_secs(600);

/// Says from moment to moment whether this voter is led.
pub async fn look_for_leader(voter: &Voter) {
    let mut metrics = voter.core.raft.metrics();
    loop {
        let is_led = voter.is_led();
        voter.led.send_if_modified(|led| std::mem::replace(led, is_led) != is_led);
        // A majority goes silent without any news.
        if let Ok(Err(_)) = tokio::time::timeout(ROUND, metrics.changed()).await {
            return;
        }
    }
}

/// Publishes the View whenever the map epoch grows, and says that the voter serves while it is led.
pub async fn publish_on(voter: &Voter, health: &Health) {
    let mut progress = voter.machine.progress();
    let mut led = voter.led.subscribe();
    let mut phases = Phases::default();
    let mut serving = false;
    loop {
        let is_led = *led.borrow_and_update();
        if is_led != serving {
            serving = is_led;
            if serving { health.ready().await } else { health.not_ready().await }
        }
        let epoch = progress.borrow_and_update().map_epoch;
        if epoch != voter.view.borrow().map_epoch {
            let view = convert::view::to_wire(&publish::view(&voter.machine.applied().state));
            metrics::gauge!("gavel_control_map_epoch").set(view.map_epoch as f64);
            tell_switch(&voter.view.borrow(), &view);
            voter.view.send_replace(Arc::new(view));
        }
        phases.look(&voter.machine.applied().state, clock::wall_ms()).iter().for_each(tell_phase);
        tokio::select! {
            changed = progress.changed() => if changed.is_err() { return },
            changed = led.changed() => if changed.is_err() { return },
        }
    }
}

/// Writes a phase down and counts it.
fn tell_phase(phase: &Phase) {
    let Phase { name, version, took_ms, detail } = phase;
    let _span = tracing::info_span!("model", phase = name, version).entered();
    tracing::info!(took_ms, detail, "{name}");
    metrics::histogram!("gavel_control_model_us", "phase" => *name).record(*took_ms as f64 * 1e3);
}

/// Writes down that another model serves: with the lines of the routers, how long a switch took.
fn tell_switch(before: &wire::View, after: &wire::View) {
    let version = |view: &wire::View| view.active_model.as_ref().map_or(0, |m| m.version);
    if version(before) != version(after) {
        tracing::info!(version = version(after), map_epoch = after.map_epoch, "a model is activated");
        metrics::counter!("gavel_control_model_switches_total").increment(1);
    }
}

/// Proposes what `reconcile` concludes, while this voter leads.
pub async fn reconcile_on(voter: &Voter) {
    let (mut led_term, mut keyless_term) = (None, None);
    loop {
        // Whichever comes first.
        let _ = tokio::time::timeout(ROUND, voter.news.notified()).await;
        let term = (voter.leader() == Leader::Own).then(|| voter.core.raft.metrics().borrow().current_term);
        metrics::gauge!("gavel_control_leader").set(if term.is_some() { 1.0 } else { 0.0 });
        if term != led_term {
            led_term = term;
            if let Some(term) = term {
                tracing::info!(term, voter = voter.own.node_id, "this voter leads");
                voter.hearing().begin(clock::now_us());
            }
        }
        if let Some(term) = term {
            let own_key = own_tie_key(voter).unwrap_or_else(|error| {
                // Every round tries again, and a term says so once.
                if keyless_term.replace(term) != Some(term) {
                    tracing::error!(%error, "no random source: without a tie key no router serves");
                }
                None
            });
            round(voter, own_key).await;
        }
    }
}

/// One round of conclusions, the key of the ties among them.
async fn round(voter: &Voter, own_key: Option<Body>) {
    let (now, wall_ms) = (clock::now_us(), clock::wall_ms());
    let mut commands = {
        let (applied, mut hearing) = (voter.machine.applied(), voter.hearing());
        hearing.attend(applied.state.rollout.as_ref());
        reconcile::reconcile(&applied.state, &hearing, now, wall_ms)
    };
    commands.extend(own_key);
    for body in commands {
        if let Body::EndRollout { version, reason, by: EndedBy::Guard } = &body {
            tracing::error!(version, reason, "a guard ends the rollout");
            metrics::counter!("gavel_control_guard_stops_total").increment(1);
        }
        match voter.propose_own(&body).await.map(|written| written.data) {
            Ok(Outcome::Done(_)) => tracing::info!(command = ?kind(&body), "proposed"),
            // The state moved on between the look and the entry; the next round looks again.
            Ok(Outcome::Refused(reason)) => tracing::debug!(command = ?kind(&body), reason, "refused"),
            Err(NotProposed::Elsewhere(_)) => return,
            Err(NotProposed::Status(status)) => {
                tracing::warn!(%status, "a conclusion was not committed");
                return;
            }
        }
    }
}

/// A key of the cluster's own for its ties, while the one in force is public: at formation, and in a cluster that was
/// formed before there were others. It is drawn here, because `apply` has no randomness.
fn own_tie_key(voter: &Voter) -> std::io::Result<Option<Body>> {
    let held = voter.machine.applied().state.auction.tie_key;
    if held.public().is_none() {
        return Ok(None);
    }
    let key = TieKey::from_bytes(random::secret()?);
    Ok(Some(Body::SetTieKey { key, replaces: held.id() }))
}

/// The name of a command, without its content.
fn kind(body: &Body) -> String {
    let shown = format!("{body:?}");
    shown.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
}

/// Removes what no generation and no model of the state names, while this voter hears what the state is.
pub async fn sweep_on(voter: &Voter, blobs: &Shelf) {
    loop {
        tokio::time::sleep(SWEEP_ROUND).await;
        if !*voter.led.borrow() {
            continue;
        }
        let named = voter.machine.applied().state.named_blobs();
        let who = if voter.leader() == Leader::Own { Sweeper::Leader } else { Sweeper::Follower };
        match blobs.sweep(named, clock::wall_ms(), who).await {
            Ok(removed) => tracing::debug!(removed, "looked for blobs that nobody needs"),
            Err(error) => tracing::warn!(%error, "blobs that nobody needs stay"),
        }
    }
}

/// Starts the thread that watches the log's writes: one of its own, because a disk that hangs may hold all others.
///
/// # Errors
/// When the system gives no thread.
pub fn watch_disk(core: Weak<Core>, writes: Arc<WriteClock>) -> std::io::Result<()> {
    let watch = move || {
        while let Some(core) = core.upgrade() {
            let advice = writes.advice(clock::now_us());
            if advice == Advice::Exit {
                tracing::error!("a write to the log does not come back: stopping");
                std::process::exit(EXIT_DISK_FAILED);
            }
            let hangs = advice == Advice::StepDown;
            if core.disk_hangs.swap(hangs, Ordering::Relaxed) != hangs {
                if hangs {
                    tracing::error!("a write to the log hangs: this voter leads nobody");
                }
                // Without its heartbeats the others elect a leader; without elections it does not come back too early.
                let settings = core.raft.runtime_config();
                settings.heartbeat(!hangs);
                settings.elect(!hangs);
            }
            drop(core);
            std::thread::sleep(DISK_ROUND);
        }
    };
    std::thread::Builder::new().name("gavel-raft-watch".to_owned()).spawn(watch).map(drop)
}

/// Returns with the reason once the consensus core has ended by itself.
pub async fn core_ended(core: &Core) -> String {
    let mut metrics = core.raft.metrics();
    loop {
        if let Err(fatal) = &metrics.borrow_and_update().running_state {
            return fatal.to_string();
        }
        if metrics.changed().await.is_err() {
            return "it has gone".to_owned();
        }
    }
}
