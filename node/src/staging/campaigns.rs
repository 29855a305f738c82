//! What do the campaigns of a generation and their ad groups bid?

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use gavel_member::catalogue::BlockReader;
use gavel_proto::delivery::total_groups;
use gavel_proto::frequency::RuleBook;
use gavel_proto::ids::{AdvertiserId, CampaignId};

use super::disk::io;
use super::{StagingError, convert};
use crate::ranking::delivery::{Counting, Delivery};

/// Reads a campaigns blob: what the catalogue says, before anything else was said.
pub fn read(path: &Path) -> Result<Delivery, StagingError> {
    let file = File::open(path).map_err(io(path))?;
    let (mut rows, mut groups, mut rules) = (Vec::new(), Vec::new(), Vec::new());
    for block in BlockReader::new(BufReader::new(file)) {
        for campaign in &block?.campaigns {
            let (row, of) = (convert::campaign(campaign)?, convert::frequency(campaign)?);
            rules.push((CampaignId(row.campaign), of.0, of.1));
            rows.push(row);
            total_groups(groups.len(), campaign).map_err(StagingError::Unusable)?;
            groups.extend(convert::ad_groups(campaign)?);
        }
    }
    let owners: Vec<AdvertiserId> = rules.iter().map(|(_, advertiser, _)| *advertiser).collect();
    let book = RuleBook::new(rules);
    for (row, advertiser) in rows.iter_mut().zip(owners) {
        if book.is_counted(CampaignId(row.campaign), advertiser) {
            row.counting = Counting::Counted;
        }
    }
    Ok(Delivery::new(0, rows.into_iter().chain(groups)))
}
