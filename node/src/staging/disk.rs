//! Where does what lie in the data folder, and what may go?
//!
//! ```text
//! blobs/<hash>, blobs/<hash>.part                  until it has been turned into a folder
//! bundles/<hash>/                                  an unpacked bundle
//! generations/<g>/campaigns                        the campaigns blob
//! generations/<g>/shard-<s>/content/               sealed
//! generations/<g>/shard-<s>/model/<hash>/          sealed
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use gavel_member::kept;

use super::StagingError;
use super::plan::{Hash, Wanted};
use crate::segment::BUILDING;

/// The data folder.
#[derive(Clone, Debug)]
pub struct DataFolder {
    root: PathBuf,
}

impl DataFolder {
    /// The folder at `root`; what is missing of it is made.
    pub fn open(root: &Path) -> Result<Self, StagingError> {
        for name in ["blobs", "bundles", "generations"] {
            make(&root.join(name))?;
        }
        Ok(Self { root: root.to_path_buf() })
    }

    /// Where a blob is fetched to.
    pub fn blob(&self, hash: &Hash) -> PathBuf {
        self.root.join("blobs").join(hex(hash))
    }

    /// An unpacked bundle.
    pub fn bundle(&self, hash: &Hash) -> PathBuf {
        self.root.join("bundles").join(hex(hash))
    }

    /// The campaigns of a generation.
    pub fn campaigns(&self, generation: u64) -> Result<PathBuf, StagingError> {
        let folder = self.generation(generation);
        make(&folder)?;
        Ok(folder.join("campaigns"))
    }

    /// The content of a shard.
    pub fn content(&self, generation: u64, shard: u32) -> Result<PathBuf, StagingError> {
        let folder = self.shard(generation, shard);
        make(&folder)?;
        Ok(folder.join("content"))
    }

    /// The model folder of a shard.
    pub fn model(&self, generation: u64, shard: u32, bundle: &Hash) -> Result<PathBuf, StagingError> {
        let folder = self.shard(generation, shard).join("model");
        make(&folder)?;
        Ok(folder.join(hex(bundle)))
    }

    fn generation(&self, generation: u64) -> PathBuf {
        self.root.join("generations").join(generation.to_string())
    }

    fn shard(&self, generation: u64, shard: u32) -> PathBuf {
        self.generation(generation).join(format!("shard-{shard}"))
    }

    /// Removes what nobody can ask for any more; `kept` is the generation that was active last.
    pub fn sweep(&self, wanted: &Wanted, kept: Option<u64>) -> Result<(), StagingError> {
        let blobs: Vec<String> = wanted.blobs().iter().map(hex).collect();
        sweep_folder(&self.root.join("blobs"), |name| blobs.iter().any(|blob| name.starts_with(blob)))?;
        let bundles = wanted.bundles();
        let wanted_name = |name: &str| bundles.iter().any(|hash| hex(hash) == name);
        sweep_folder(&self.root.join("bundles"), wanted_name)?;
        let generations = wanted.generations();
        let stays = |name: &str| name.parse().is_ok_and(|g| generations.contains(&g) || kept == Some(g));
        sweep_folder(&self.root.join("generations"), stays)?;
        for generation in generations {
            let shards = wanted.shards_of(generation);
            let folder = self.generation(generation);
            sweep_folder(&folder, |name| match name.strip_prefix("shard-") {
                Some(shard) => shard.parse().is_ok_and(|s| shards.contains(&s)),
                None => true,
            })?;
            for shard in shards {
                // What is half built of a wanted bundle is gone on with.
                let stays = |name: &str| wanted_name(name.strip_suffix(BUILDING).unwrap_or(name));
                sweep_folder(&self.shard(generation, shard).join("model"), stays)?;
            }
        }
        Ok(())
    }
}

/// Removes what is in a folder under a name that may not stay.
fn sweep_folder(folder: &Path, stays: impl Fn(&str) -> bool) -> Result<(), StagingError> {
    kept::sweep(folder, stays).map_err(io(folder))
}

/// Removes a file or a folder; one that is not there is removed already.
pub fn remove(path: &Path) -> Result<(), StagingError> {
    kept::remove(path).map_err(io(path))
}

fn make(folder: &Path) -> Result<(), StagingError> {
    fs::create_dir_all(folder).map_err(io(folder))
}

/// Names the path in an error of the disk.
pub fn io(path: &Path) -> impl Fn(std::io::Error) -> StagingError + use<> {
    let path = path.to_path_buf();
    move |source| StagingError::Io { path: path.clone(), source }
}

/// A hash as it stands in names.
pub fn hex(hash: &Hash) -> String {
    blake3::Hash::from_bytes(*hash).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::staging::plan::{Blob, WantedGeneration, WantedShard};

    #[test]
    fn only_what_can_be_asked_for_stays() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataFolder::open(dir.path()).unwrap();
        let (kept, gone) = ([1; 32], [2; 32]);
        for generation in 1..=4 {
            for shard in 0..2 {
                fs::create_dir_all(data.content(generation, shard).unwrap()).unwrap();
                for hash in [kept, gone] {
                    fs::create_dir_all(data.model(generation, shard, &hash).unwrap()).unwrap();
                }
            }
        }
        let parts = [kept, gone].map(|hash| data.blob(&hash).with_extension("part"));
        parts.iter().for_each(|part| fs::write(part, "half").unwrap());
        let blob = Blob { hash: kept, bytes: 1 };
        let active = WantedGeneration {
            generation: 3,
            campaigns: blob,
            shards: vec![WantedShard { shard: 1, documents: blob }],
        };
        let wanted = Wanted { active: Some(active), active_model: Some(blob), ..Wanted::default() };
        data.sweep(&wanted, Some(2)).unwrap();
        assert_eq!(parts.map(|part| part.exists()), [true, false]);
        let there = |generation: u64, shard: u32, hash: &Hash| {
            dir.path().join(format!("generations/{generation}/shard-{shard}/model/{}", hex(hash))).exists()
        };
        assert!(there(3, 1, &kept) && !there(3, 1, &gone) && !there(3, 0, &kept));
        assert!(there(2, 0, &gone), "the generation before stays whole");
        assert!(!there(1, 0, &kept) && !there(4, 0, &kept));
    }
}
