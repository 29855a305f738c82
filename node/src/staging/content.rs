//! How does the content of a shard get from its blob into a sealed folder?
//!
//! A blob is sorted by item, and the ads of an item follow it, in the same block or a later one; the builder
//! checks the order. Items that no ad shows are kept: their number is coverage's denominator.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use gavel_member::catalogue::BlockReader;

use super::disk::{io, remove};
use super::{StagingError, convert};
use crate::segment::{Content, ContentBuilder, ShardKey};

/// The folder, if it is there and whole; a folder that does not verify is deleted.
pub fn reopen(folder: &Path, key: ShardKey) -> Result<Option<Arc<Content>>, StagingError> {
    if !folder.exists() {
        return Ok(None);
    }
    match Content::open(folder, key) {
        Ok(content) => Ok(Some(Arc::new(content))),
        Err(error) => {
            tracing::error!(%error, folder = %folder.display(), "content does not verify and is built again");
            metrics::counter!("gavel_node_folders_rebuilt_total", "folder" => "content").increment(1);
            remove(folder)?;
            Ok(None)
        }
    }
}

/// Builds the folder from the blob at `path` and opens it.
pub fn build(path: &Path, folder: &Path, key: ShardKey) -> Result<Arc<Content>, StagingError> {
    let file = File::open(path).map_err(io(path))?;
    let mut builder = ContentBuilder::new(folder, key)?;
    for block in BlockReader::new(BufReader::new(file)) {
        let block = block?;
        for item in block.items {
            builder.push_item(convert::item(item)?)?;
        }
        for ad in &block.ads {
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
    Ok(Arc::new(Content::open(folder, key)?))
}
