//! How does a node come to hold what the View asks of it?
//!
//! One background thread, of low priority once there is something to serve, follows the View and carries out
//! one step at a time ([`plan`]): fetch a bundle and run its golden rows, fetch campaigns, build or reopen the
//! content of a shard, build or reopen its model folder. Whatever verifies on disk is opened and not built
//! again; whatever is damaged is deleted and built again. What is loaded is published as one immutable picture
//! ([`holdings`]), from which searches take what their epoch names, and reported to the leader by the heartbeat.
//!
//! * A switch of generation or model needs nothing from here: old and new are both loaded, and a search
//!   names the one it wants. What nobody can ask for any more is dropped after a grace.
//! * What would take more memory than shards may is refused before it is built ([`memory`]); a shard is ready only
//!   once its pages have been read and are still there.
//! * Embedding a shard's items keeps to a share of a core once the node serves ([`pace`]), says how far it is, and
//!   ends at once when nobody wants the bundle any more.
//! * Items that are embedded are made safe every few seconds: a node that ends while it stages goes on with them, and
//!   with every shard and bundle that it had finished.
//! * A step that fails is reported as a refusal with its reason and rests a while; others go on.
//!
//! It does not decide what is active: the control plane does.

pub mod holdings;
pub mod plan;

mod bids;
mod campaigns;
mod content;
mod convert;
mod deliver;
mod disk;
mod memory;
mod model;
mod pace;
mod steps;
mod values;
mod worker;

use gavel_member::ready::Standing;

pub use content::build as build_content;
pub use deliver::Deliver;
pub use disk::DataFolder;
pub use memory::MemoryBudget;
pub use pace::Pace;
pub use steps::Steps;
pub use worker::{Stage, Staging};

/// Why a step was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum StagingError {
    /// No voter gave the bytes.
    #[error("fetch: {0}")]
    Fetch(#[from] gavel_member::blobs::FetchError),
    /// A catalogue block cannot be read.
    #[error("catalogue: {0}")]
    Catalogue(#[from] gavel_member::catalogue::BlockError),
    /// A document cannot be kept.
    #[error("document {id}: {reason}")]
    Document {
        /// Item, ad or campaign id.
        id: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A folder cannot be written or read.
    #[error(transparent)]
    Segment(#[from] crate::segment::SegmentError),
    /// The bundle is damaged or not supported.
    #[error("bundle: {0}")]
    Bundle(#[from] gavel_model::BundleError),
    /// The bundle refused an item.
    #[error("item tower: {0}")]
    Model(#[from] gavel_model::ModelError),
    /// Nobody whom the cluster trusts has signed the bundle.
    #[error("signature: {0}")]
    Signature(#[from] gavel_member::signing::SignatureError),
    /// A bundle or a catalogue that is sound but not usable here.
    #[error("not usable: {0}")]
    Unusable(String),
    /// It would take more memory than shards may.
    #[error("memory: {0}")]
    Memory(String),
    /// Its pages do not stay in memory.
    #[error("only {resident} of {mapped} bytes stay in memory: the machine has too little for what runs on it")]
    Cold {
        /// In memory after every page was read.
        resident: u64,
        /// Of the mapped files.
        mapped: u64,
    },
    /// Nobody wants it any more, or the node stops.
    #[error("no longer wanted")]
    Cancelled,
    /// Something that the step needs is not loaded.
    #[error("{0} is not loaded")]
    Missing(&'static str),
    /// The disk said no.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: std::path::PathBuf,
        /// What.
        source: std::io::Error,
    },
}

impl StagingError {
    /// Whether it is worth trying again. Bytes that are not sound stay so; bytes, memory and disk may come.
    const fn standing(&self) -> Standing {
        match self {
            Self::Catalogue(_)
            | Self::Document { .. }
            | Self::Bundle(_)
            | Self::Model(_)
            | Self::Signature(_)
            | Self::Unusable(_) => Standing::Final,
            Self::Fetch(_)
            | Self::Segment(_)
            | Self::Memory(_)
            | Self::Cold { .. }
            | Self::Cancelled
            | Self::Missing(_)
            | Self::Io { .. } => Standing::Rests,
        }
    }
}

impl StagingError {
    /// True when what lies on disk is to be made again.
    fn is_damage(&self) -> bool {
        match self {
            Self::Segment(error) => error.is_damage(),
            Self::Bundle(error) => error.is_damage(),
            Self::Fetch(_)
            | Self::Catalogue(_)
            | Self::Document { .. }
            | Self::Model(_)
            | Self::Unusable(_)
            | Self::Memory(_)
            | Self::Cold { .. }
            | Self::Cancelled
            | Self::Signature(_)
            | Self::Missing(_)
            | Self::Io { .. } => false,
        }
    }
}
