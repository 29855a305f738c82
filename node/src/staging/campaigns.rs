//! What do the campaigns of a generation bid?

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use gavel_member::catalogue::BlockReader;

use super::disk::io;
use super::{StagingError, convert};
use crate::ranking::delivery::Delivery;

/// Reads a campaigns blob as one delivery version.
pub fn read(path: &Path, version: u64) -> Result<Delivery, StagingError> {
    let file = File::open(path).map_err(io(path))?;
    let mut rows = Vec::new();
    for block in BlockReader::new(BufReader::new(file)) {
        for campaign in &block?.campaigns {
            rows.push(convert::campaign(campaign)?);
        }
    }
    Ok(Delivery::new(version, rows))
}
