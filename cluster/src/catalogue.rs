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
    /// By id, as they were loaded.
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
}

async fn read_aside(path: PathBuf) -> Result<BTreeMap<u64, wire::Campaign>, String> {
    tokio::task::spawn_blocking(move || read(&path)).await.map_err(|e| e.to_string())?
}

fn read(path: &Path) -> Result<BTreeMap<u64, wire::Campaign>, String> {
    let file = File::open(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut campaigns = BTreeMap::new();
    for block in BlockReader::new(BufReader::new(file)) {
        let block = block.map_err(|e| e.to_string())?;
        campaigns.extend(block.campaigns.into_iter().map(|campaign| (campaign.campaign_id, campaign)));
    }
    Ok(campaigns)
}
