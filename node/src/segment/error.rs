//! Why could a sealed folder not be written, opened or searched?

use gavel_proto::code::Code;
use std::path::{Path, PathBuf};

/// What can go wrong with a segment.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// What was touched.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The bytes are not those that were sealed.
    #[error("{path}: damaged: {why}")]
    Damaged {
        /// The file or folder.
        path: PathBuf,
        /// What does not hold.
        why: String,
    },
    /// Sealed by a newer version.
    #[error("{path}: format {found} is newer than {known}, which this version reads")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// Sealed by an older version; it is made again from its blob.
    #[error("{path}: format {found} is older than {known}, which this version reads")]
    Older {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// A whole and sound file, but of something else.
    #[error("{path}: foreign: {why}")]
    Foreign {
        /// The file or folder.
        path: PathBuf,
        /// What it is of.
        why: String,
    },
    /// The folder is there already; a sealed folder never changes (SE1).
    #[error("{0}: already sealed")]
    Exists(PathBuf),
    /// A document or a vector that cannot be stored.
    #[error("refused: {0}")]
    Refused(String),
    /// The graph library refused.
    #[error("graph: {0}")]
    Graph(String),
    /// Whoever asked for it wants it no more.
    #[error("interrupted")]
    Interrupted,
}

impl SegmentError {
    /// The code that travels.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Io { .. } => Code::Unavailable,
            Self::Damaged { .. } | Self::Graph(_) => Code::Internal,
            Self::Newer { .. } | Self::Older { .. } | Self::Foreign { .. } | Self::Exists(_) => {
                Code::FailedPrecondition
            }
            Self::Refused(_) => Code::InvalidArgument,
            Self::Interrupted => Code::Unavailable,
        }
    }

    /// True when what lies there is not what was sealed there, so that the folder is to be made again.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::Foreign { .. } | Self::Older { .. } => true,
            Self::Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            Self::Newer { .. } | Self::Exists(_) | Self::Refused(_) | Self::Graph(_) | Self::Interrupted => false,
        }
    }

    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), source }
    }

    pub(crate) fn damaged(path: &Path, why: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_path_buf(), why: why.into() }
    }

    pub(crate) fn foreign(path: &Path, why: impl Into<String>) -> Self {
        Self::Foreign { path: path.to_path_buf(), why: why.into() }
    }
}
