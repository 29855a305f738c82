//! How do files of documents become a catalogue generation?
//!
//! Lines are read (`source`), checked (`line`, `row`) and spilled to one file per shard (`spill`); then each shard is
//! sorted by an index of keys, checked for references and written as a blob (`blob`), so that memory holds the keys
//! of one shard and never the documents. The same input gives the same bytes, whatever broke off in between.
//! A bad line costs itself and nothing else: it is written, with its number and the reason, beside its file.

mod blob;
mod build;
mod dimensions;
mod frequency;
mod groups;
mod line;
mod reject;
mod row;
mod schedule;
mod source;
mod spill;
mod zones;

#[cfg(test)]
mod tests;

use crate::upload::Blob;
use gavel_proto::limits::CATALOGUE_AD_GROUPS_MAX;
use gavel_proto::wire::{Generation, ShardBlob};
use std::path::PathBuf;

pub use build::build;
pub use zones::{instant, offsets};

/// Told how far a load has come.
pub trait Progress: Send {
    /// `done` of `total` units of this stage; called often.
    fn step(&mut self, stage: &str, done: u64, total: u64);
    /// Something that a person should know.
    fn note(&mut self, text: &str);
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn step(&mut self, _stage: &str, _done: u64, _total: u64) {}
    fn note(&mut self, _text: &str) {}
}

/// What to build and where.
#[derive(Clone, Debug)]
pub struct BuildOptions {
    /// Shards of the generation.
    pub shards: u32,
    /// Folder for spilled lines and finished blobs; kept when the load breaks off, so that the next one goes on.
    pub work_dir: PathBuf,
}

/// Why a catalogue cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Nothing to read.
    #[error("{0}: no catalogue files; expected items, ads, campaigns and users as .jsonl or .csv, plain, .gz or .zst")]
    NoFiles(PathBuf),
    /// Every line was bad, or there was none.
    #[error("no item with an ad is left of {lines} lines; the first reasons are in {rejects}")]
    Empty {
        /// Lines read.
        lines: u64,
        /// Where the reasons are.
        rejects: String,
    },
    /// A header names a column that means nothing, or `targeting.toml` cannot be read.
    #[error("{path}: {reason}")]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The disk, or a damaged compressed file.
    #[error("{0}: {1}")]
    Io(PathBuf, #[source] std::io::Error),
    /// More of them than nodes hold.
    #[error(
        "the campaigns have more than {CATALOGUE_AD_GROUPS_MAX} ad groups together: leave out groups that no ad names, or \
         put ads whose bid is their campaign's directly under it"
    )]
    AdGroups,
    /// More shards than a generation may have, or none.
    #[error("{0} shards are out of range")]
    Shards(u32),
}

/// A generation on disk, ready to upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// By shard.
    pub shards: Vec<BuiltShard>,
    /// Campaigns of the whole generation.
    pub campaigns_blob: Blob,
    /// Users of the whole generation.
    pub users_blob: Blob,
    /// Campaigns in it.
    pub campaigns: u64,
    /// Users in it.
    pub users: u64,
    /// Lines read.
    pub lines: u64,
    /// Lines refused.
    pub rejected: u64,
    /// Files that say why.
    pub reject_files: Vec<PathBuf>,
}

/// One shard of a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltShard {
    /// Its documents.
    pub blob: Blob,
    /// Items in it.
    pub items: u64,
    /// Ads in it.
    pub ads: u64,
}

impl Built {
    /// Every blob of it.
    #[must_use]
    pub fn blobs(&self) -> Vec<Blob> {
        let ends = [self.campaigns_blob.clone(), self.users_blob.clone()];
        self.shards.iter().map(|s| s.blob.clone()).chain(ends).collect()
    }

    /// Ads in it.
    #[must_use]
    pub fn ads(&self) -> u64 {
        self.shards.iter().map(|s| s.ads).sum()
    }

    /// Items in it.
    #[must_use]
    pub fn items(&self) -> u64 {
        self.shards.iter().map(|s| s.items).sum()
    }

    /// What to propose; the control plane allots the number.
    #[must_use]
    pub fn generation(&self) -> Generation {
        let shard_blobs = self.shards.iter().zip(0..).map(|(s, shard)| ShardBlob {
            shard,
            hash: s.blob.hash.to_vec(),
            bytes: s.blob.bytes,
            items: s.items,
            ads: s.ads,
        });
        Generation {
            generation: 0,
            shards: u32::try_from(self.shards.len()).unwrap_or(u32::MAX),
            shard_blobs: shard_blobs.collect(),
            campaigns_blob: self.campaigns_blob.hash.to_vec(),
            users_blob: self.users_blob.hash.to_vec(),
            users: self.users,
            campaigns: self.campaigns,
            users_blob_bytes: self.users_blob.bytes,
            campaigns_blob_bytes: self.campaigns_blob.bytes,
        }
    }
}
