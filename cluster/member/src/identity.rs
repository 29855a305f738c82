//! Who is this process, over restarts?
//!
//! A key made once and kept in the data folder, and an incarnation that grows at every start: readiness is bound
//! to the pair. The folder belongs to one cluster and to one living process; both are checked before anything
//! else is read from it.

use crate::{clock, disk, random};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

const FILE_NAME: &str = "identity.toml";
const LOCK_NAME: &str = "lock";

/// The identity of a process, and the lock on its data folder.
#[derive(Debug)]
pub struct Identity {
    /// Made once, random; what the control plane knows the member by.
    pub member_key: String,
    /// Grows at every start.
    pub incarnation: u64,
    /// Held while the process lives, so that no second process writes to the folder.
    _lock: File,
}

/// Why a data folder is not ours to use.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Another process lives in it.
    #[error("{0} is used by another process")]
    InUse(PathBuf),
    /// It was made for another cluster.
    #[error("{folder} belongs to cluster {found:?}, not {wanted:?}")]
    Foreign {
        /// The folder.
        folder: PathBuf,
        /// The cluster that the folder names.
        found: String,
        /// The cluster that this process was told to join.
        wanted: String,
    },
    /// The file is not ours.
    #[error("{0} is damaged: {1}")]
    Damaged(PathBuf, String),
    /// The disk said no.
    #[error("{0}: {1}")]
    Io(PathBuf, #[source] io::Error),
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Record {
    cluster_id: String,
    member_key: String,
    incarnation: u64,
}

impl Identity {
    /// Opens the folder, making it when it does not exist, and starts the next incarnation.
    ///
    /// # Errors
    /// When the folder is in use, belongs to another cluster, is damaged, or the disk fails.
    pub fn open(folder: &Path, cluster_id: &str) -> Result<Self, IdentityError> {
        let io_at = |path: &Path| {
            let path = path.to_path_buf();
            move |e| IdentityError::Io(path, e)
        };
        fs::create_dir_all(folder).map_err(io_at(folder))?;
        let lock = File::create(folder.join(LOCK_NAME)).map_err(io_at(folder))?;
        lock.try_lock().map_err(|e| match e {
            TryLockError::WouldBlock => IdentityError::InUse(folder.to_path_buf()),
            TryLockError::Error(e) => IdentityError::Io(folder.to_path_buf(), e),
        })?;
        let path = folder.join(FILE_NAME);
        let mut record = match fs::read_to_string(&path) {
            Ok(text) => parse(&path, &text)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Record {
                cluster_id: cluster_id.to_owned(),
                member_key: random_key().map_err(io_at(Path::new(random::SOURCE)))?,
                incarnation: 0,
            },
            Err(e) => return Err(IdentityError::Io(path, e)),
        };
        if record.cluster_id != cluster_id {
            return Err(IdentityError::Foreign {
                folder: folder.to_path_buf(),
                found: record.cluster_id,
                wanted: cluster_id.to_owned(),
            });
        }
        // Wall time makes it grow even when the file was restored from an old copy.
        record.incarnation = clock::wall_ms().max(record.incarnation + 1);
        disk::write_atomic(&path, render(&record).as_bytes()).map_err(io_at(&path))?;
        Ok(Self { member_key: record.member_key, incarnation: record.incarnation, _lock: lock })
    }
}

fn render(record: &Record) -> String {
    format!(
        "cluster_id = {:?}\nmember_key = {:?}\nincarnation = {}\n",
        record.cluster_id, record.member_key, record.incarnation
    )
}

fn parse(path: &Path, text: &str) -> Result<Record, IdentityError> {
    toml::from_str(text).map_err(|e| IdentityError::Damaged(path.to_path_buf(), e.message().to_owned()))
}

/// 128 random bits in hex.
fn random_key() -> io::Result<String> {
    let bytes: [u8; 16] = random::secret()?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_stays_and_the_incarnation_grows() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = Identity::open(dir.path(), "c1").expect("made");
        assert!(matches!(Identity::open(dir.path(), "c1"), Err(IdentityError::InUse(_))));
        let (key, incarnation) = (first.member_key.clone(), first.incarnation);
        drop(first);
        let second = Identity::open(dir.path(), "c1").expect("opened");
        assert_eq!(second.member_key, key);
        assert!(second.incarnation > incarnation);
        drop(second);
        assert!(matches!(Identity::open(dir.path(), "c2"), Err(IdentityError::Foreign { .. })));
        fs::write(dir.path().join(FILE_NAME), "cluster_id = 3").expect("written");
        assert!(matches!(Identity::open(dir.path(), "c1"), Err(IdentityError::Damaged(..))));
    }
}
