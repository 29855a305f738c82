//! How does the content of a shard get from its blob into a sealed folder?
//!
//! A blob is sorted by item, and the ads of an item follow it, in the same block or a later one; the builder
//! checks the order. Items that no ad shows are kept: their number is coverage's denominator.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use gavel_member::catalogue::BlockReader;

use super::disk::io;
use super::{StagingError, convert};
use crate::segment::{ContentBuilder, ShardKey};

/// Builds the folder from the blob at `path`.
pub fn build(path: &Path, folder: &Path, key: ShardKey) -> Result<(), StagingError> {
    let file = File::open(path).map_err(io(path))?;
    let mut builder = ContentBuilder::new(folder, key)?;
    for block in BlockReader::new(BufReader::new(file)) {
        let block = block?;
        for zone in block.zones {
            builder.push_zone(convert::zone(zone)?)?;
        }
        for item in block.items {
            builder.push_item(convert::item(item)?)?;
        }
        for ad in &block.ads {
            ad.targeting.iter().for_each(|rule| builder.name_dimension(&rule.dimension));
            builder.push_ad(&convert::ad(ad)?)?;
        }
    }
    let summary = builder.seal()?;
    tracing::info!(
        generation = key.generation,
        shard = key.shard,
        items = summary.items,
        ads = summary.ads,
        bytes = summary.bytes,
        "content sealed"
    );
    Ok(())
}
