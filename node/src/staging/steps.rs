//! How is each step of the plan carried out?
//!
//! First look whether the result is on disk and whole; if not, fetch the blob, build, and throw the blob
//! away: the folder is checksummed itself, and a voter has the blob.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use gavel_member::blobs;
use gavel_member::member::Voters;
use gavel_model::Bundle;
use tokio::runtime::Handle;

use super::disk::{DataFolder, io, remove};
use super::holdings::{LoadedBundle, LoadedShard, SharedHoldings};
use super::plan::{Blob, Hash, Step};
use super::{StagingError, campaigns, content, model};
use crate::segment::ShardKey;
use crate::shard::Shard;

/// Carries steps out.
pub struct Steps {
    /// Where everything lies.
    pub data: DataFolder,
    /// Who has the blobs.
    pub voters: Arc<Voters>,
    /// For waiting on the network.
    pub runtime: Handle,
    /// Threads that may walk a graph at the same time.
    pub search_threads: usize,
}

impl Steps {
    /// Carries one step out and publishes what it loaded.
    pub fn carry_out(&self, step: Step, holdings: &SharedHoldings) -> Result<(), StagingError> {
        match step {
            Step::LoadBundle(blob) => {
                let bundle = Arc::new(self.bundle(&blob)?);
                holdings.change(|h| drop(h.bundles.insert(blob.hash, bundle)));
            }
            Step::LoadCampaigns { generation, version, blob } => {
                let path = self.data.campaigns(generation)?;
                self.fetch(&blob, &path)?;
                let delivery = Arc::new(campaigns::read(&path, version)?);
                tracing::info!(generation, version, campaigns = delivery.len(), "bids loaded");
                holdings.change(|h| h.add_delivery(generation, delivery));
            }
            Step::LoadContent { generation, shard, blob } => {
                let key = ShardKey { generation, shard };
                let folder = self.data.content(generation, shard)?;
                let content = match content::reopen(&folder, key)? {
                    Some(content) => content,
                    None => {
                        let path = self.data.blob(&blob.hash);
                        self.fetch(&blob, &path)?;
                        let built = content::build(&path, &folder, key);
                        remove(&path)?;
                        built?
                    }
                };
                holdings.change(|h| h.add_content(content));
            }
            Step::LoadModel { generation, shard, bundle } => {
                let loaded = Arc::new(self.shard(generation, shard, &bundle, holdings)?);
                holdings.change(|h| drop(h.shards.insert((generation, shard, bundle), loaded)));
            }
        }
        Ok(())
    }

    fn fetch(&self, blob: &Blob, path: &Path) -> Result<(), StagingError> {
        Ok(self.runtime.block_on(blobs::fetch(&blob.hash, blob.bytes, path, &self.voters))?)
    }

    fn bundle(&self, blob: &Blob) -> Result<LoadedBundle, StagingError> {
        let folder = self.data.bundle(&blob.hash);
        if folder.exists() {
            match open_bundle(&folder, &blob.hash) {
                Err(error @ StagingError::Bundle(_)) => {
                    tracing::error!(%error, folder = %folder.display(), "the bundle on disk is fetched again");
                    remove(&folder)?;
                }
                opened => return opened,
            }
        }
        let path = self.data.blob(&blob.hash);
        self.fetch(blob, &path)?;
        let packed = fs::read(&path).map_err(io(&path))?;
        let beside = folder.with_extension("tmp");
        remove(&beside)?;
        gavel_model::bundle::unpack(&packed, &beside)?;
        fs::rename(&beside, &folder).map_err(io(&folder))?;
        remove(&path)?;
        open_bundle(&folder, &blob.hash)
    }

    fn shard(
        &self,
        generation: u64,
        shard: u32,
        bundle: &Hash,
        holdings: &SharedHoldings,
    ) -> Result<LoadedShard, StagingError> {
        let held = holdings.current();
        let content = &held.contents.get(&(generation, shard)).ok_or(StagingError::Missing("the content"))?.content;
        let loaded = held.bundles.get(bundle).ok_or(StagingError::Missing("the bundle"))?;
        let folder = self.data.model(generation, shard, bundle)?;
        let model = match model::reopen(&folder, content, bundle, self.search_threads)? {
            Some(model) => model,
            None => {
                model::build(&folder, content, loaded)?;
                model::open(&folder, content, bundle, self.search_threads)?
            }
        };
        let shard = Shard::sealed(Arc::clone(content), Arc::new(model))?;
        shard.prefault();
        Ok(LoadedShard { shard: Arc::new(shard), bundle: Arc::clone(loaded) })
    }
}

/// Opens a bundle's folder and runs its golden rows (MO1).
fn open_bundle(folder: &Path, hash: &Hash) -> Result<LoadedBundle, StagingError> {
    let bundle = Bundle::open(folder)?;
    if bundle.hash() != *hash {
        return Err(StagingError::Unusable("it is not the bundle that was published".to_owned()));
    }
    let golden = bundle.verify_golden()?;
    tracing::info!(bundle = bundle.schema().name, rows = golden.rows, worst = golden.worst, "golden rows are equal");
    LoadedBundle::new(bundle)
}
