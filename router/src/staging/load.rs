//! How do a bundle and the users of a generation get from a voter into this process, verified?
//!
//! Files: `bundles/<hash>/`, `users/<generation>-<hash>.users` and `campaigns/<hash>` in the data folder; blobs on their way lie in
//! `blobs/` and go once what was made of them is open. What is on disk already is verified again and not fetched.
//! Everything here blocks, and runs on threads that may.

use super::convert;
use super::picture::{ModelRef, UsersRef};
use super::rules::Rules;
use crate::users::{self, UserFile, UserFileError};
use gavel_member::catalogue::{BlockError, BlockReader};
use gavel_member::member::Voters;
use gavel_member::{Shutdown, blobs, kept};
use gavel_model::{Bundle, BundleError, bundle};
use std::fmt::Display;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::runtime::Handle;

/// Why something is not loaded.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    /// It may be there later: no voter has it now, or the disk failed.
    #[error("{0}")]
    Later(String),
    /// The bytes on disk are not what they should be.
    #[error("{0}")]
    Damaged(String),
    /// The bytes are what they should be, and they are no good.
    #[error("{0}")]
    Refused(String),
}

fn later(error: impl Display) -> LoadError {
    LoadError::Later(error.to_string())
}

impl From<BundleError> for LoadError {
    fn from(error: BundleError) -> Self {
        let reason = error.to_string();
        if matches!(error, BundleError::Io { .. }) {
            Self::Later(reason)
        } else if error.is_damage() {
            Self::Damaged(reason)
        } else {
            Self::Refused(reason)
        }
    }
}

impl From<UserFileError> for LoadError {
    fn from(error: UserFileError) -> Self {
        match error {
            UserFileError::Io { .. } => Self::Later(error.to_string()),
            UserFileError::Damaged { .. } => Self::Damaged(error.to_string()),
        }
    }
}

impl LoadError {
    const fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged(_))
    }
}

/// Loads what the View names.
#[derive(Clone)]
pub(super) struct Loader {
    pub data_dir: PathBuf,
    pub voters: Arc<Voters>,
    /// Ends a fetch: nobody else can, since a thread waits for it.
    pub shutdown: Shutdown,
    /// Whether requests are answered meanwhile.
    pub haste: Haste,
}

/// How much of the machine a load may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Haste {
    /// All: nothing can be answered before.
    First,
    /// What requests leave.
    Beside,
}

impl Loader {
    /// A bundle that is open and equal to its golden rows.
    pub(super) fn model(&self, model: &ModelRef) -> Result<Arc<Bundle>, LoadError> {
        let name = hex(&model.hash);
        let blob = self.data_dir.join("blobs").join(&name);
        let open = |folder: &Path| Ok(Bundle::open_verified(folder, &model.hash)?);
        let make = |folder: &Path| {
            kept::remove(folder).map_err(later)?;
            self.fetch(&model.hash, model.bytes, &blob)?;
            make_parent(folder)?;
            Ok(bundle::unpack(&std::fs::read(&blob).map_err(later)?, folder)?)
        };
        let folder = self.data_dir.join("bundles").join(&name);
        let (bundle, golden) = kept::open_or_make(&folder, open, LoadError::is_damage, make)?;
        tracing::info!(bundle = %name, rows = golden.rows, worst = golden.worst, "a bundle is loaded");
        kept::remove(&blob).map_err(later)?;
        Ok(Arc::new(bundle))
    }

    /// The users of a generation.
    pub(super) fn users(&self, users: &UsersRef) -> Result<UserFile, LoadError> {
        let Some((hash, bytes)) = users.blob else { return Ok(UserFile::empty()) };
        let blob = self.data_dir.join("blobs").join(hex(&hash));
        let open = |file: &Path| Ok(UserFile::open(file)?);
        let make = |file: &Path| {
            self.fetch(&hash, bytes, &blob)?;
            make_parent(file)?;
            Ok(users::build(&blob, file)?)
        };
        let file = self.data_dir.join("users").join(users_name(users.generation, &hash));
        let file = kept::open_or_make(&file, open, LoadError::is_damage, make)?;
        tracing::info!(generation = users.generation, users = file.len(), "users are loaded");
        kept::remove(&blob).map_err(later)?;
        Ok(file)
    }

    /// The frequency rules of a generation. Its campaigns stay on disk as they came.
    pub(super) fn rules(&self, users: &UsersRef) -> Result<Rules, LoadError> {
        let Some((hash, bytes)) = users.campaigns else { return Ok(Rules::default()) };
        let blob = self.data_dir.join("blobs").join(hex(&hash));
        let open = |file: &Path| {
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(File::open(file).map_err(later)?).map_err(later)?;
            match hasher.finalize().as_bytes() == &hash {
                true => rules_of(file),
                false => Err(LoadError::Damaged(format!("{} does not have its hash", file.display()))),
            }
        };
        let make = |file: &Path| {
            self.fetch(&hash, bytes, &blob)?;
            make_parent(file)?;
            std::fs::rename(&blob, file).map_err(later)
        };
        let file = self.data_dir.join("campaigns").join(hex(&hash));
        kept::open_or_make(&file, open, LoadError::is_damage, make)
    }

    fn fetch(&self, hash: &[u8; 32], bytes: u64, blob: &Path) -> Result<(), LoadError> {
        make_parent(blob)?;
        Handle::current().block_on(async {
            tokio::select! {
                fetched = blobs::fetch(hash, bytes, blob, &self.voters) => fetched.map_err(later),
                () = self.shutdown.wait() => Err(later("the router stops")),
            }
        })
    }

    /// Removes what the View does not name any more.
    pub(super) fn prune(&self, models: &[ModelRef], generations: &[UsersRef]) {
        let bundles: Vec<String> = models.iter().map(|m| hex(&m.hash)).collect();
        let of_users = || generations.iter().filter_map(|g| Some((g.generation, g.blob?.0)));
        let users: Vec<String> = of_users().map(|(generation, hash)| users_name(generation, &hash)).collect();
        let campaigns: Vec<String> = generations.iter().filter_map(|g| Some(hex(&g.campaigns?.0))).collect();
        let of_users = of_users().map(|(_, hash)| hex(&hash));
        let blobs: Vec<String> = bundles.iter().cloned().chain(of_users).chain(campaigns.iter().cloned()).collect();
        for (folder, wanted) in [("bundles", bundles), ("users", users), ("campaigns", campaigns), ("blobs", blobs)] {
            // A blob that is half here ends in `.part`.
            let stays = |name: &str| wanted.iter().any(|wanted| wanted == name.trim_end_matches(".part"));
            if let Err(error) = kept::sweep(&self.data_dir.join(folder), stays) {
                tracing::warn!(folder, %error, "old files stay on disk");
            }
        }
    }
}

/// The rules in a blob of campaigns.
fn rules_of(file: &Path) -> Result<Rules, LoadError> {
    let mut rules = Vec::new();
    for block in BlockReader::new(BufReader::new(File::open(file).map_err(later)?)) {
        let block = block.map_err(|error| match error {
            BlockError::Io(error) => later(error),
            BlockError::TooLarge { .. } | BlockError::Damaged { .. } => LoadError::Refused(error.to_string()),
        })?;
        rules.extend(convert::rules(&block.campaigns).map_err(LoadError::Refused)?);
    }
    Ok(Rules::new(rules))
}

fn users_name(generation: u64, hash: &[u8; 32]) -> String {
    format!("{generation}-{}.users", &hex(hash)[..16])
}

fn make_parent(path: &Path) -> Result<(), LoadError> {
    path.parent().map_or(Ok(()), |folder| std::fs::create_dir_all(folder).map_err(later))
}

fn hex(hash: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*hash).to_hex().to_string()
}
