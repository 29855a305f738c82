//! Does the leader know the campaigns of the catalogue that serves, and is anything said of others, or of ad groups that
//! they do not have?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gavel_proto::delivery::{Change, Erase, GroupChange, Override};
use gavel_proto::limits::{AD_GROUP_CHANGES_MAX, AD_GROUPS_MAX, DELIVERY_CHANGES_MAX};

use crate::blobs::Shelf;
use crate::catalogue::Catalogue;
use crate::rpc::{Leader, Voter};
use crate::state::Since;
use crate::state::command::{Body, PublishDelivery};
use crate::state::types::Outcome;

/// Between two looks when nothing is applied, and after a failure.
const ROUND: Duration = Duration::from_millis(500);

/// Reads the campaigns of each generation that comes to serve, and takes back what is said of campaigns and ad groups that
/// it has not.
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
    let (version, gone) = {
        let applied = voter.machine.applied();
        let delivery = &applied.state.delivery;
        // A generation's campaigns never change: what was clean stays so until something else is said of it.
        let held = clean.filter(|(of, _)| *of == generation);
        let since = held.map_or(Since::Unknown, |(_, version)| delivery.since(version));
        (delivery.version, gone(&delivery.overrides, &since, &catalogue))
    };
    if gone.is_empty() {
        *clean = Some((generation, version));
        return;
    }
    let campaigns = gone.len();
    let body = Body::PublishDelivery(PublishDelivery { changes: gone, generation, beside: Vec::new() });
    match voter.propose_own(&body).await.map(|written| written.data) {
        Ok(Outcome::Done(version)) => {
            tracing::info!(campaigns, version, "what was said of campaigns and ad groups that are gone is taken back")
        }
        // The next look tries again.
        Ok(Outcome::Refused(reason)) => tracing::debug!(reason, "overrides of campaigns that are gone stay for now"),
        Err(error) => tracing::debug!(?error, "overrides of campaigns that are gone stay for now"),
    }
}

/// One command's share of what is said of campaigns and ad groups that are not there, among those that have changed.
fn gone(overrides: &BTreeMap<u64, Override>, since: &Since, catalogue: &Catalogue) -> Vec<Change> {
    let (all, named) = match since {
        Since::Nothing => (None, &[][..]),
        Since::Campaigns(changed) => (None, changed.as_slice()),
        Since::Unknown => (Some(overrides), &[][..]),
    };
    let named = named.iter().filter_map(|id| overrides.get_key_value(id));
    let (mut changes, mut groups) = (Vec::new(), 0);
    for (id, said) in all.into_iter().flatten().chain(named) {
        let Some(change) = without(*id, said, catalogue) else { continue };
        groups += change.ad_groups.len();
        changes.push(change);
        // Room for the groups of one more campaign.
        if changes.len() == DELIVERY_CHANGES_MAX || groups > AD_GROUP_CHANGES_MAX - AD_GROUPS_MAX {
            break;
        }
    }
    changes
}

/// What takes back what is not there of a campaign; nothing when all of it is.
fn without(campaign: u64, said: &Override, catalogue: &Catalogue) -> Option<Change> {
    if !catalogue.campaigns.contains_key(&campaign) {
        return Some(Change { campaign, erase: Erase::All, ..Change::default() });
    }
    let gone = said.ad_groups.iter().map(|(id, _)| *id).filter(|id| !catalogue.has_group(campaign, *id));
    let reset = |ad_group| GroupChange { ad_group, reset: true, ..GroupChange::default() };
    let ad_groups: Vec<GroupChange> = gone.map(reset).collect();
    (!ad_groups.is_empty()).then(|| Change { campaign, ad_groups, ..Change::default() })
}

#[cfg(test)]
mod tests {
    use gavel_proto::delivery::GroupOverride;
    use gavel_proto::wire;

    use super::*;

    fn said(groups: impl Iterator<Item = u64>) -> Override {
        let group = GroupOverride { bid_micros: Some(5), status: None };
        Override { bid_micros: Some(9), ad_groups: groups.map(|id| (id, group)).collect(), ..Override::default() }
    }

    fn catalogue(campaigns: std::ops::Range<u64>) -> Catalogue {
        let group = wire::AdGroup { ad_group_id: 3, ..Default::default() };
        let campaign = |id| (id, wire::Campaign { campaign_id: id, ad_groups: vec![group], ..Default::default() });
        Catalogue { generation: 2, campaigns: campaigns.map(campaign).collect() }
    }

    #[test]
    fn what_is_not_in_the_catalogue_is_taken_back_and_nothing_else() {
        let overrides = BTreeMap::from([(7, said(2..5)), (8, said(3..4)), (9, said(3..4))]);
        let changes = gone(&overrides, &Since::Unknown, &catalogue(1..9));
        assert_eq!(changes.iter().map(|c| c.campaign).collect::<Vec<_>>(), [7, 9]);
        assert_eq!(changes[0].after(said(2..5)), said(3..4));
        assert!(changes[1].after(said(3..4)).is_empty());
    }

    #[test]
    fn only_what_has_changed_is_looked_at_again() {
        let overrides = BTreeMap::from([(7, said(2..5)), (8, said(3..4)), (9, said(3..4))]);
        let among = |since| gone(&overrides, &since, &catalogue(1..9)).iter().map(|c| c.campaign).collect::<Vec<_>>();
        assert_eq!(among(Since::Nothing), [0; 0]);
        // Of 6 nothing is said any more.
        assert_eq!(among(Since::Campaigns(vec![6, 7, 8])), [7]);
        assert_eq!(among(Since::Unknown), [7, 9]);
    }

    #[test]
    fn a_share_is_one_command_and_the_shares_end() {
        let all = |id| (id, said(4..4 + AD_GROUPS_MAX as u64));
        let mut overrides: BTreeMap<u64, Override> = (1..100).map(all).collect();
        for share in 0.. {
            assert!(share < 10, "{} are left", overrides.len());
            let changes = gone(&overrides, &Since::Unknown, &catalogue(1..100));
            if changes.is_empty() {
                break;
            }
            assert!(changes.iter().map(|c| c.ad_groups.len()).sum::<usize>() <= AD_GROUP_CHANGES_MAX);
            for change in changes {
                assert!(change.check().is_ok());
                let after = change.after(overrides.remove(&change.campaign).unwrap());
                overrides.insert(change.campaign, after);
            }
        }
        assert!(overrides.values().all(|stands| *stands == said(0..0)));
    }
}
