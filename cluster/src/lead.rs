//! What does a voter do all the time?
//!
//! It turns each applied entry that members can see into one View for all of them, and while it leads it asks
//! `reconcile` a few times a second what to propose.

use std::sync::Arc;
use std::time::Duration;

use gavel_member::clock;
use gavel_member::serve::Health;

use crate::rpc::{Leader, NotProposed, Voter};
use crate::state::types::Outcome;
use crate::{convert, publish, reconcile};

/// Between two looks at what is heard; beats that say something new are looked at at once.
const ROUND: Duration = Duration::from_millis(200);

/// Publishes the View whenever the map epoch grows, and says that the voter serves once it knows a leader.
pub async fn publish_on(voter: &Voter, health: &Health) {
    let mut progress = voter.machine.progress();
    let mut metrics = voter.raft.metrics();
    let mut serving = false;
    loop {
        let led = metrics.borrow_and_update().current_leader.is_some();
        if led && !serving {
            health.ready().await;
            serving = true;
        }
        let epoch = progress.borrow_and_update().map_epoch;
        if epoch != voter.view.borrow().map_epoch {
            let view = convert::view::to_wire(&publish::view(&voter.machine.applied().state));
            metrics::gauge!("gavel_control_map_epoch").set(view.map_epoch as f64);
            voter.view.send_replace(Arc::new(view));
        }
        tokio::select! {
            changed = progress.changed() => if changed.is_err() { return },
            changed = metrics.changed(), if !serving => if changed.is_err() { return },
        }
    }
}

/// Proposes what `reconcile` concludes, while this voter leads.
pub async fn reconcile_on(voter: &Voter) {
    let mut led_term = None;
    loop {
        // Whichever comes first.
        let _ = tokio::time::timeout(ROUND, voter.news.notified()).await;
        let term = (voter.leader() == Leader::Own).then(|| voter.raft.metrics().borrow().current_term);
        metrics::gauge!("gavel_control_leader").set(if term.is_some() { 1.0 } else { 0.0 });
        if term != led_term {
            led_term = term;
            if let Some(term) = term {
                tracing::info!(term, voter = voter.own.node_id, "this voter leads");
                voter.hearing().begin(clock::now_us());
            }
        }
        if term.is_some() {
            round(voter).await;
        }
    }
}

/// One round of conclusions.
async fn round(voter: &Voter) {
    let commands = reconcile::reconcile(&voter.machine.applied().state, &voter.hearing(), clock::now_us());
    for body in commands {
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

/// The name of a command, without its content.
fn kind(body: &crate::state::command::Body) -> String {
    let shown = format!("{body:?}");
    shown.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
}

/// Returns with the reason once the consensus core has ended by itself.
pub async fn core_ended(voter: &Voter) -> String {
    let mut metrics = voter.raft.metrics();
    loop {
        if let Err(fatal) = &metrics.borrow_and_update().running_state {
            return fatal.to_string();
        }
        if metrics.changed().await.is_err() {
            return "it has gone".to_owned();
        }
    }
}
