//! Which campaigns does the catalogue that serves have?
//!
//! The state names their blob and does not hold them. The voter that leads reads it: to refuse wishes for campaigns that
//! are not there, to say what is in force, and to take back what was said of campaigns that are gone. A voter that does
//! not hold the blob has it from the object store, or else from a voter that holds it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use gavel_member::catalogue::BlockReader;
use gavel_member::member::Voters;
use gavel_proto::delivery::{Override, Status, check_catalogue_groups, total_groups};
use gavel_proto::wire;
use tokio::fs;

use crate::blobs::Shelf;
use crate::state::command::Blob;

/// The file of a copy that another voter gave.
const COPY_NAME: &str = "campaigns";

/// The campaigns of a generation.
#[derive(Debug)]
pub struct Catalogue {
    /// Its number.
    pub generation: u64,
    /// By id, as they were loaded; their ad groups ascending.
    pub campaigns: BTreeMap<u64, wire::Campaign>,
}

impl Catalogue {
    /// Reads the campaigns of a generation.
    ///
    /// # Errors
    /// When neither the object store nor a voter gives the blob, or it cannot be read.
    pub async fn read(generation: u64, blob: Blob, blobs: &Shelf, voters: &[String]) -> Result<Self, String> {
        let here = blobs.at_hand(blob.hash, blob.bytes).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "the campaigns are asked of other voters");
            None
        });
        let campaigns = match here {
            Some(path) => read_aside(path).await,
            None => {
                let copy = blobs.aside(COPY_NAME);
                // What is left of another generation's would be taken for its beginning.
                drop(fs::remove_file(copy.with_extension("part")).await);
                let voters = Voters::new(voters.to_vec()).ok_or("no other voter is known")?;
                let fetched = gavel_member::blobs::fetch(&blob.hash, blob.bytes, &copy, &voters).await;
                fetched.map_err(|e| e.to_string())?;
                let campaigns = read_aside(copy.clone()).await;
                drop(fs::remove_file(copy).await);
                campaigns
            }
        };
        Ok(Self { generation, campaigns: campaigns? })
    }

    /// Whether a campaign has an ad group.
    #[must_use]
    pub fn has_group(&self, campaign: u64, ad_group: u64) -> bool {
        let groups = self.campaigns.get(&campaign).map_or(&[][..], |campaign| campaign.ad_groups.as_slice());
        groups.binary_search_by_key(&ad_group, |group| group.ad_group_id).is_ok()
    }
}

/// Whether an ad group is paused by itself, whatever its campaign is.
#[must_use]
pub fn is_paused(group: &wire::AdGroup, said: Option<&Override>) -> bool {
    let status = said.and_then(|said| said.of_group(group.ad_group_id).status);
    status.map_or(group.paused, |status| status == Status::Paused)
}

async fn read_aside(path: PathBuf) -> Result<BTreeMap<u64, wire::Campaign>, String> {
    tokio::task::spawn_blocking(move || read(&path)).await.map_err(|e| e.to_string())?
}

fn read(path: &Path) -> Result<BTreeMap<u64, wire::Campaign>, String> {
    let file = File::open(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let (mut campaigns, mut groups) = (BTreeMap::new(), 0);
    for block in BlockReader::new(BufReader::new(file)) {
        for campaign in block.map_err(|e| e.to_string())?.campaigns {
            groups = total_groups(groups, &campaign)?;
            campaigns.insert(campaign.campaign_id, checked(campaign)?);
        }
    }
    Ok(campaigns)
}

/// A campaign with its ad groups in order.
fn checked(mut campaign: wire::Campaign) -> Result<wire::Campaign, String> {
    let id = campaign.campaign_id;
    check_catalogue_groups(&campaign.ad_groups).map_err(|reason| format!("campaign {id}: {reason}"))?;
    campaign.ad_groups.sort_unstable_by_key(|group| group.ad_group_id);
    Ok(campaign)
}

#[cfg(test)]
mod tests {
    use gavel_proto::delivery::GroupOverride;

    use super::*;

    fn campaign(ids: &[u64]) -> wire::Campaign {
        let ad_groups = ids.iter().map(|id| wire::AdGroup { ad_group_id: *id, ..Default::default() }).collect();
        wire::Campaign { campaign_id: 7, ad_groups, ..Default::default() }
    }

    #[test]
    fn ad_groups_are_found_whatever_their_order_was() {
        let campaigns = [(7, checked(campaign(&[9, 3, 5])).unwrap()), (8, campaign(&[]))].into();
        let catalogue = Catalogue { generation: 1, campaigns };
        let found = [(7, 3), (7, 5), (7, 9), (7, 4), (8, 3), (6, 3)].map(|(id, group)| catalogue.has_group(id, group));
        assert_eq!(found, [true, true, true, false, false, false]);
        for wrong in [&[3u64, 5, 3][..], &[0, 1]] {
            assert!(checked(campaign(wrong)).unwrap_err().contains("campaign 7"), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_said_of_a_group_stands_above_the_catalogue() {
        let group = |paused| wire::AdGroup { ad_group_id: 3, paused, ..Default::default() };
        let said = |status| {
            let said = GroupOverride { status, bid_micros: Some(1) };
            Override { ad_groups: vec![(3, said)], ..Override::default() }
        };
        let paused = |of, status| is_paused(&group(of), Some(&said(status)));
        assert!(is_paused(&group(true), None) && !is_paused(&group(false), None));
        assert!(paused(true, None) && !paused(false, None));
        assert!(!paused(true, Some(Status::Active)) && paused(false, Some(Status::Paused)));
    }
}
