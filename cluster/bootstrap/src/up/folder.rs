//! Where does the embedded cluster keep its files?

use std::io;
use std::path::{Path, PathBuf};

/// A folder that is kept, or a temporary one that goes with the value.
#[derive(Debug)]
pub enum DataFolder {
    /// The user named it.
    Kept(PathBuf),
    /// Ours.
    Temporary(PathBuf),
}

impl DataFolder {
    /// Makes it when it does not exist.
    pub fn open(named: Option<PathBuf>) -> io::Result<Self> {
        let folder = match named {
            Some(path) => Self::Kept(path),
            None => {
                Self::Temporary(std::env::temp_dir().join(format!("gavel-up-{}", gavel_client::admin::random_id())))
            }
        };
        std::fs::create_dir_all(folder.path())?;
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        match self {
            Self::Kept(path) | Self::Temporary(path) => path,
        }
    }
}

impl Drop for DataFolder {
    fn drop(&mut self) {
        match self {
            Self::Kept(_) => {}
            // What is left costs space in the temporary folder until the machine empties it.
            Self::Temporary(path) => drop(std::fs::remove_dir_all(path)),
        }
    }
}
