//! How do a bundle and the users of a generation get from a voter into this process, verified?
//!
//! Files: `bundles/<hash>/` and `users/<generation>-<hash>.users` in the data folder; blobs on their way lie in
//! `blobs/` and are removed once used. What is on disk already is verified again and not fetched.

use super::picture::{ModelRef, UsersRef};
use crate::users::{self, UserFile};
use gavel_member::blobs;
use gavel_member::member::Voters;
use gavel_model::{Bundle, bundle};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why something is not loaded.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    /// It may be there later: no voter has it now, or the disk failed.
    #[error("{0}")]
    Later(String),
    /// The bytes are what they should be, and they are no good.
    #[error("{0}")]
    Refused(String),
}

fn later(error: impl std::fmt::Display) -> LoadError {
    LoadError::Later(error.to_string())
}

/// A bundle that is open and equal to its golden rows.
pub(super) async fn model(data_dir: PathBuf, model: ModelRef, voters: Arc<Voters>) -> Result<Arc<Bundle>, LoadError> {
    let name = hex(&model.hash);
    let folder = data_dir.join("bundles").join(&name);
    if !folder.is_dir() {
        let blob = blob_path(&data_dir, &name)?;
        blobs::fetch(&model.hash, model.bytes, &blob, &voters).await.map_err(later)?;
        let to = folder.clone();
        blocking(move || unpack(&blob, &to)).await?;
    }
    blocking(move || open(&folder, model.hash).map(Arc::new)).await
}

fn unpack(blob: &Path, folder: &Path) -> Result<(), LoadError> {
    if let Some(parent) = folder.parent() {
        std::fs::create_dir_all(parent).map_err(later)?;
    }
    let bytes = std::fs::read(blob).map_err(later)?;
    bundle::unpack(&bytes, folder).map_err(|e| LoadError::Refused(e.to_string()))?;
    std::fs::remove_file(blob).map_err(later)
}

fn open(folder: &Path, hash: [u8; 32]) -> Result<Bundle, LoadError> {
    let refused = |e: gavel_model::BundleError| LoadError::Refused(e.to_string());
    let bundle = Bundle::open(folder).map_err(refused)?;
    if bundle.hash() != hash {
        return Err(LoadError::Refused(format!("{} holds another bundle", folder.display())));
    }
    let golden = bundle.verify_golden().map_err(refused)?;
    tracing::info!(bundle = %hex(&hash), rows = golden.rows, worst = golden.worst, "a bundle is loaded");
    Ok(bundle)
}

/// The users of a generation.
pub(super) async fn users(data_dir: PathBuf, users: UsersRef, voters: Arc<Voters>) -> Result<UserFile, LoadError> {
    let Some((hash, bytes)) = users.blob else { return Ok(UserFile::empty()) };
    let name = hex(&hash);
    let file = data_dir.join("users").join(users_name(users.generation, &hash));
    let opened = {
        let file = file.clone();
        blocking(move || UserFile::open(&file).map_err(later)).await
    };
    if let Ok(opened) = opened {
        return Ok(opened);
    }
    let blob = blob_path(&data_dir, &name)?;
    blobs::fetch(&hash, bytes, &blob, &voters).await.map_err(later)?;
    blocking(move || {
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent).map_err(later)?;
        }
        let built = users::open_or_build(&blob, &file).map_err(|e| LoadError::Refused(e.to_string()))?;
        tracing::info!(generation = users.generation, users = built.len(), "users are loaded");
        std::fs::remove_file(&blob).map_err(later)?;
        Ok(built)
    })
    .await
}

/// Removes bundles and user files that the View does not name any more.
pub(super) fn prune(data_dir: &Path, models: &[ModelRef], generations: &[UsersRef]) {
    let bundles: Vec<String> = models.iter().map(|m| hex(&m.hash)).collect();
    let users: Vec<String> =
        generations.iter().filter_map(|g| g.blob.map(|(hash, _)| users_name(g.generation, &hash))).collect();
    for (folder, wanted) in [("bundles", bundles), ("users", users)] {
        let Ok(entries) = std::fs::read_dir(data_dir.join(folder)) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !wanted.contains(&name) {
                let path = entry.path();
                let gone = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
                if let Err(error) = gone {
                    tracing::warn!(path = %path.display(), %error, "cannot be removed");
                }
            }
        }
    }
}

fn users_name(generation: u64, hash: &[u8; 32]) -> String {
    format!("{generation}-{}.users", &hex(hash)[..16])
}

fn blob_path(data_dir: &Path, name: &str) -> Result<PathBuf, LoadError> {
    let folder = data_dir.join("blobs");
    std::fs::create_dir_all(&folder).map_err(later)?;
    Ok(folder.join(name))
}

fn hex(hash: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*hash).to_hex().to_string()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LoadError> + Send + 'static,
) -> Result<T, LoadError> {
    tokio::task::spawn_blocking(work).await.map_err(later)?
}
