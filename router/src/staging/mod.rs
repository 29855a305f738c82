//! What may requests be answered from?
//!
//! A [`Pinned`] is everything that one request needs under one epoch: the route table, the bundle, the users, the
//! auction's terms and the placements. It is replaced whole when the View changes, and only by what has been loaded
//! and verified here: when the View activates something that is not (this router was away), the last one stands
//! until it is. What the View announces as pending is loaded ahead and reported ready.
//!
//! Bundles and user files are on disk, and so is the last View: a restart needs no control plane.

mod convert;
mod follow;
mod load;
mod picture;

pub use picture::{AuctionSettings, Picture, Placement};

use crate::request::Dimensions;
use crate::topology::RouteTable;
use crate::users::UserFeatures;
use arc_swap::ArcSwapOption;
use gavel_member::member::Voters;
use gavel_member::serve::Health;
use gavel_member::view::ViewFeed;
use gavel_member::{ReadyState, Shutdown};
use gavel_model::Bundle;
use std::path::PathBuf;
use std::sync::Arc;

/// Everything that a request pins, immutable.
pub struct Pinned {
    /// Epoch and shards.
    pub table: RouteTable,
    /// The active model.
    pub bundle: Arc<Bundle>,
    /// The users of the active generation.
    pub users: Arc<dyn UserFeatures>,
    /// What its ads are targeted by.
    pub dimensions: Arc<Dimensions>,
    /// How auctions are run.
    pub auction: AuctionSettings,
    /// Where ads may stand.
    pub placements: Vec<Placement>,
    /// Items that each shard retrieves.
    pub quota: u32,
    /// Items that each shard ranks.
    pub light_keep: u32,
}

impl Pinned {
    /// A placement by name.
    #[must_use]
    pub fn placement(&self, name: &str) -> Option<&Placement> {
        self.placements.iter().find(|p| p.name == name)
    }
}

/// Follows the View and keeps what requests pin.
pub struct Staging {
    pinned: ArcSwapOption<Pinned>,
}

/// What staging needs of the process.
pub struct Surroundings {
    /// Where files are kept.
    pub data_dir: PathBuf,
    /// The View.
    pub view: Arc<ViewFeed>,
    /// Where readiness is reported.
    pub ready: Arc<ReadyState>,
    /// Where blobs come from.
    pub voters: Arc<Voters>,
    /// Told when the first requests can be answered.
    pub health: Health,
    /// Told where nodes are.
    pub nodes: Arc<crate::transport::Nodes>,
}

impl Staging {
    /// With nothing pinned.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { pinned: ArcSwapOption::empty() })
    }

    /// Follows the View until the shutdown. Call it inside the runtime.
    pub fn follow(self: &Arc<Self>, surroundings: Surroundings, shutdown: Shutdown) -> tokio::task::JoinHandle<()> {
        tokio::spawn(follow::follow(Arc::clone(self), surroundings, shutdown))
    }

    /// What a request that starts now is answered from; `None` before anything is active here.
    #[must_use]
    pub fn pin(&self) -> Option<Arc<Pinned>> {
        self.pinned.load_full()
    }
}
