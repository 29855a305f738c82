//! How is each step of the plan carried out?
//!
//! First look whether the result is on disk and whole; if not, fetch the blob and build. Once the result is open the
//! blob goes: the folder is checksummed itself, and a voter has the blob. A blob that cannot be used stays, so that the
//! next attempt does not fetch it again.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use gavel_member::member::Voters;
use gavel_member::{blobs, kept};
use gavel_model::Bundle;
use tokio::runtime::Handle;

use super::disk::{DataFolder, io, remove};
use super::holdings::{LoadedBundle, LoadedShard, SharedHoldings};
use super::model::Watch;
use super::plan::{Blob, Hash, Step};
use super::{MemoryBudget, StagingError, campaigns, content, memory, model, values};
use crate::segment::{Content, ModelFolder, Residency, ShardKey, folder_bytes};
use crate::shard::Shard;

/// Pages that went out while others came in are read once more.
const WARM_ATTEMPTS: usize = 2;

/// Carries steps out.
pub struct Steps {
    /// Where everything lies.
    pub data: DataFolder,
    /// Who has the blobs.
    pub voters: Arc<Voters>,
    /// For waiting on the network.
    pub runtime: Handle,
    /// What shards may take.
    pub budget: MemoryBudget,
    /// CPU microseconds of the calling thread: searches are timed with it when a folder is sealed, beside those that
    /// are served.
    pub cpu_us: fn() -> u64,
}

impl Steps {
    /// Carries one step out and publishes what it loaded.
    pub fn carry_out(&self, step: Step, holdings: &SharedHoldings, watch: Watch<'_>) -> Result<(), StagingError> {
        match step {
            Step::LoadBundle(blob) => {
                let bundle = Arc::new(self.bundle(&blob)?);
                holdings.change(|h| drop(h.bundles.insert(blob.hash, bundle)));
            }
            Step::LoadCampaigns { generation, blob } => {
                let path = self.data.campaigns(generation)?;
                self.fetch(&blob, &path)?;
                let catalogue = Arc::new(campaigns::read(&path)?);
                tracing::info!(generation, campaigns = catalogue.len(), "bids loaded");
                holdings.change(|h| h.add_campaigns(generation, catalogue));
            }
            Step::LoadContent { generation, shard, blob } => {
                let content = Arc::new(self.content(ShardKey { generation, shard }, &blob, holdings)?);
                holdings.change(|h| h.add_content(content));
            }
            Step::LoadModel { generation, shard, bundle } => {
                let loaded = Arc::new(self.shard((generation, shard), &bundle, holdings, watch)?);
                holdings.change(|h| drop(h.shards.insert((generation, shard, bundle), loaded)));
            }
        }
        Ok(())
    }

    fn fetch(&self, blob: &Blob, path: &Path) -> Result<(), StagingError> {
        Ok(self.runtime.block_on(blobs::fetch(&blob.hash, blob.bytes, path, &self.voters))?)
    }

    fn bundle(&self, blob: &Blob) -> Result<LoadedBundle, StagingError> {
        let path = self.data.blob(&blob.hash);
        let open = |folder: &Path| Ok(Bundle::open_verified(folder, &blob.hash)?);
        let make = |folder: &Path| {
            remove(folder)?;
            self.fetch(blob, &path)?;
            let packed = fs::read(&path).map_err(io(&path))?;
            Ok(gavel_model::bundle::unpack(&packed, folder)?)
        };
        let folder = self.data.bundle(&blob.hash);
        let (bundle, golden) = kept::open_or_make(&folder, open, StagingError::is_damage, make)?;
        tracing::info!(
            bundle = bundle.schema().name,
            rows = golden.rows,
            worst = golden.worst,
            "golden rows are equal"
        );
        remove(&path)?;
        LoadedBundle::new(bundle)
    }

    fn content(&self, key: ShardKey, blob: &Blob, holdings: &SharedHoldings) -> Result<Content, StagingError> {
        let (taken, what) = (memory::taken(&holdings.current()), format!("the content of shard {}", key.shard));
        let on_disk = folder_bytes(&self.data.content(key.generation, key.shard)?);
        // Before it is built its size is not known; it is not less than its compressed documents.
        self.budget.admit(&what, taken, if on_disk == 0 { blob.bytes } else { on_disk })?;
        let path = self.data.blob(&blob.hash);
        let make = |folder: &Path| {
            remove(folder)?;
            self.fetch(blob, &path)?;
            content::build(&path, folder, key)
        };
        let folder = self.data.content(key.generation, key.shard)?;
        let open = |folder: &Path| Ok(Content::open(folder, key)?);
        let content = kept::open_or_make(&folder, open, StagingError::is_damage, make)?;
        remove(&path)?;
        self.budget.admit(&what, taken, content.residency().bytes())?;
        Ok(content)
    }

    fn shard(
        &self,
        (generation, shard): (u64, u32),
        bundle: &Hash,
        holdings: &SharedHoldings,
        watch: Watch<'_>,
    ) -> Result<LoadedShard, StagingError> {
        let held = holdings.current();
        let held_content = held.contents.get(&(generation, shard)).ok_or(StagingError::Missing("the content"))?;
        let content = &held_content.content;
        let loaded = held.bundles.get(bundle).ok_or(StagingError::Missing("the bundle"))?;
        let folder = self.data.model(generation, shard, bundle)?;
        let on_disk = folder_bytes(&folder);
        let more = if on_disk == 0 { model::bytes(content, loaded) } else { on_disk };
        self.budget.admit(&format!("the model folder of shard {shard}"), memory::taken(&held), more)?;
        let open = |folder: &Path| Ok(ModelFolder::open(folder, content, *bundle)?);
        let make = |folder: &Path| {
            remove(folder)?;
            // The newest bids: searches add those of their own version.
            let newest = held_content.deliveries.back();
            let values = newest.and_then(|delivery| values::at_seal(content, delivery, loaded));
            model::build(folder, content, loaded, values.as_deref(), self.cpu_us, watch)
        };
        let model = kept::open_or_make(&folder, open, StagingError::is_damage, make)?;
        let shard = Shard::sealed(Arc::clone(content), Arc::new(model))?;
        warm(&shard)?;
        Ok(LoadedShard { shard: Arc::new(shard), bundle: Arc::clone(loaded) })
    }
}

/// Reads every page, and looks whether they are there afterwards: a search must not be the first to wait for the disk.
fn warm(shard: &Shard) -> Result<(), StagingError> {
    for _ in 0..WARM_ATTEMPTS {
        shard.prefault();
        if shard.residency().is_warm() {
            return Ok(());
        }
    }
    let Residency { resident, mapped, .. } = shard.residency();
    Err(StagingError::Cold { resident, mapped })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_that_cannot_be_used_is_not_fetched_again() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let steps = Steps {
            data: DataFolder::open(dir.path()).unwrap(),
            // Nobody listens there.
            voters: Arc::new(Voters::new(vec!["127.0.0.1:1".to_owned()]).unwrap()),
            runtime: runtime.handle().clone(),
            budget: MemoryBudget::of_bytes(1 << 30),
            cpu_us: || 0,
        };
        let bytes = b"no catalogue".as_slice();
        let blob = Blob { hash: *blake3::hash(bytes).as_bytes(), bytes: bytes.len() as u64 };
        let path = steps.data.blob(&blob.hash);
        fs::write(&path, bytes).unwrap();
        for step in [Step::LoadContent { generation: 1, shard: 0, blob }, Step::LoadBundle(blob)] {
            for _ in 0..2 {
                let error = steps.carry_out(step, &SharedHoldings::default(), &mut |_, _| Ok(())).unwrap_err();
                assert!(!matches!(error, StagingError::Fetch(_)), "{error}");
                assert!(path.exists(), "{step:?}");
            }
        }
    }
}
