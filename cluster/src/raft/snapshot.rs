//! Which snapshot is on disk, and is it whole?
//!
//! ```text
//! "GAVELSN1" | meta length u32 | meta (bincode) | the state's bytes | BLAKE3 of all before, 32 B
//! ```
//! Written beside its place, fsynced, renamed, folder fsynced; only then is an older one removed and the log
//! purged, so every prefix of that sequence starts again. A renamed file that does not match its BLAKE3 was
//! damaged later and stops the start: the log before it may be gone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gavel_member::disk;
use serde::{Deserialize, Serialize};

use super::{DiskError, SnapshotMeta, codec};

const MAGIC: &[u8; 8] = b"GAVELSN1";
const HASH_BYTES: usize = 32;

/// A snapshot with its name.
#[derive(Clone, Debug)]
pub struct Kept {
    /// What names it.
    pub meta: SnapshotMeta,
    /// The state's bytes.
    pub bytes: Arc<Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
struct Front {
    cluster_id: String,
    meta: SnapshotMeta,
}

/// The folder of snapshots.
#[derive(Clone, Debug)]
pub struct SnapshotFolder {
    folder: PathBuf,
    cluster_id: String,
}

impl SnapshotFolder {
    /// The folder of a voter of `cluster_id`.
    #[must_use]
    pub fn new(folder: &Path, cluster_id: &str) -> Self {
        Self { folder: folder.to_owned(), cluster_id: cluster_id.to_owned() }
    }

    /// The newest snapshot. Unfinished files are removed.
    ///
    /// # Errors
    /// When it is damaged, of another cluster, or the disk fails.
    pub fn newest(&self) -> Result<Option<Kept>, DiskError> {
        let names = self.names()?;
        for name in names.iter().filter(|name| name.ends_with(".tmp")) {
            let path = self.folder.join(name);
            std::fs::remove_file(&path).map_err(DiskError::io(format!("remove {}", path.display())))?;
        }
        let newest = names.iter().filter_map(|name| Some((place(name)?, name))).max();
        newest.map(|(_, name)| self.read(&self.folder.join(name))).transpose()
    }

    /// Writes a snapshot and removes the older ones.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn keep(&self, kept: &Kept) -> Result<(), DiskError> {
        let name = name_of(&kept.meta);
        let path = self.folder.join(&name);
        let front = Front { cluster_id: self.cluster_id.clone(), meta: kept.meta.clone() };
        let failed = |what: &str| DiskError::io(format!("{what} {}", path.display()));
        let front = codec::encode(&front).map_err(|e| failed("encode")(std::io::Error::other(e.to_string())))?;
        let length = u32::try_from(front.len()).unwrap_or(u32::MAX);
        let mut out = Vec::with_capacity(MAGIC.len() + 4 + front.len() + kept.bytes.len() + HASH_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&front);
        out.extend_from_slice(&kept.bytes);
        let hash = blake3::hash(&out);
        out.extend_from_slice(hash.as_bytes());
        disk::write_atomic(&path, &out).map_err(failed("write"))?;
        for old in self.names()?.iter().filter(|old| **old != name && place(old).is_some()) {
            let path = self.folder.join(old);
            std::fs::remove_file(&path).map_err(DiskError::io(format!("remove {}", path.display())))?;
        }
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>, DiskError> {
        let failed = || DiskError::io(format!("list {}", self.folder.display()));
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(failed())? {
            let name = entry.map_err(failed())?.file_name().to_string_lossy().into_owned();
            if name.starts_with("snap-") {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn read(&self, path: &Path) -> Result<Kept, DiskError> {
        let shown = path.display().to_string();
        let bytes = std::fs::read(path).map_err(DiskError::io(format!("read {shown}")))?;
        let kept = parse(&bytes).map_err(|reason| DiskError::Corrupt { file: shown.clone(), offset: 0, reason })?;
        if kept.0 != self.cluster_id {
            return Err(DiskError::Foreign { file: shown, found: kept.0, wanted: self.cluster_id.clone() });
        }
        Ok(kept.1)
    }
}

/// Splits a file into its cluster and its snapshot.
fn parse(bytes: &[u8]) -> Result<(String, Kept), String> {
    let cut = bytes.len().checked_sub(HASH_BYTES).ok_or("too short")?;
    let (body, hash) = bytes.split_at(cut);
    if blake3::hash(body).as_bytes().as_slice() != hash {
        return Err("it does not match its checksum".to_owned());
    }
    let rest = body.strip_prefix(MAGIC).ok_or("not a snapshot of this version")?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or("too short")?;
    let (front, state) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or("too short")?;
    let front: Front = codec::decode(front).map_err(|e| e.to_string())?;
    Ok((front.cluster_id, Kept { meta: front.meta, bytes: Arc::new(state.to_vec()) }))
}

/// Zero-padded, so that a listing is in order for people too.
fn name_of(meta: &SnapshotMeta) -> String {
    let (index, term) = meta.last_log_id.map_or((0, 0), |id| (id.index, id.leader_id.term));
    format!("snap-{index:020}-{term:020}")
}

/// Index and term in a name.
fn place(name: &str) -> Option<(u64, u64)> {
    let (index, term) = name.strip_prefix("snap-")?.split_once('-')?;
    Some((index.parse().ok()?, term.parse().ok()?))
}
