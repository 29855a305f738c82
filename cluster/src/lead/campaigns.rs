//! Does the leader know the campaigns of the catalogue that serves, and is anything said of others?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gavel_proto::delivery::{Change, Erase};
use gavel_proto::limits::DELIVERY_CHANGES_MAX;

use crate::blobs::Shelf;
use crate::catalogue::Catalogue;
use crate::rpc::{Leader, Voter};
use crate::state::command::{Body, PublishDelivery};
use crate::state::types::Outcome;

/// Between two looks when nothing is applied, and after a failure.
const ROUND: Duration = Duration::from_millis(500);

/// Reads the campaigns of each generation that comes to serve, and takes back what is said of campaigns that it has not.
pub async fn follow_catalogue(voter: &Voter, blobs: &Shelf, voters: &BTreeMap<u64, String>) {
    let mut progress = voter.machine.progress();
    // The generation and the delivery version at which nothing was said of campaigns that are gone.
    let mut clean = None;
    loop {
        progress.borrow_and_update();
        look(voter, blobs, voters, &mut clean).await;
        if let Ok(Err(_)) = tokio::time::timeout(ROUND, progress.changed()).await {
            return;
        }
    }
}

async fn look(voter: &Voter, blobs: &Shelf, voters: &BTreeMap<u64, String>, clean: &mut Option<(u64, u64)>) {
    if voter.leader() != Leader::Own {
        return;
    }
    let active = voter.machine.applied().state.active().map(|g| (g.number, g.campaigns));
    let Some((generation, blob)) = active else { return };
    let held = voter.catalogue.borrow().clone().filter(|held| held.generation == generation);
    let catalogue = match held {
        Some(catalogue) => catalogue,
        None => {
            let others: Vec<String> = voters.values().cloned().collect();
            match Catalogue::read(generation, blob, blobs, &others).await {
                Ok(catalogue) => {
                    let catalogue = Arc::new(catalogue);
                    tracing::info!(generation, campaigns = catalogue.campaigns.len(), "campaigns read");
                    voter.catalogue.send_replace(Some(Arc::clone(&catalogue)));
                    catalogue
                }
                Err(error) => {
                    tracing::warn!(generation, error, "the campaigns cannot be read: nobody can change them");
                    tokio::time::sleep(ROUND).await;
                    return;
                }
            }
        }
    };
    let now = (generation, voter.machine.applied().state.delivery.version);
    if *clean == Some(now) {
        return;
    }
    let gone = gone(voter, &catalogue);
    if gone.is_empty() {
        *clean = Some(now);
        return;
    }
    let campaigns = gone.len();
    let body = Body::PublishDelivery(PublishDelivery { changes: gone, generation, beside: Vec::new() });
    match voter.propose_own(&body).await.map(|written| written.data) {
        Ok(Outcome::Done(version)) => {
            tracing::info!(campaigns, version, "what was said of campaigns that are gone is taken back")
        }
        // The next look tries again.
        Ok(Outcome::Refused(reason)) => tracing::debug!(reason, "overrides of campaigns that are gone stay for now"),
        Err(error) => tracing::debug!(?error, "overrides of campaigns that are gone stay for now"),
    }
}

/// One command's share of the campaigns of which something is said and which are not there.
fn gone(voter: &Voter, catalogue: &Catalogue) -> Vec<Change> {
    let applied = voter.machine.applied();
    let ids = applied.state.delivery.overrides.keys().filter(|id| !catalogue.campaigns.contains_key(id));
    let erase = |id: &u64| Change { campaign: *id, erase: Erase::All, ..Change::default() };
    ids.take(DELIVERY_CHANGES_MAX).map(erase).collect()
}
