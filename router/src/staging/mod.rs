//! What may requests be answered from?
//!
//! A [`Pinned`] is everything that one request needs under one epoch: the route table, the bundle, the users, the
//! auction's terms and the placements. It is replaced whole when the View changes, and only by what has been loaded
//! and verified here: when the View activates something that is not (this router was away), the last one stands
//! until it is. What the View announces as pending is loaded ahead and reported ready.
//!
//! A bundle in a rollout is a second `Pinned` beside the first, for its share of requests; a request uses one of them
//! from its first stage to its last.
//!
//! Bundles and user files are on disk, and so is the last View: a restart needs no control plane.

mod bids;
mod convert;
mod drain;
mod follow;
mod load;
mod picture;
mod rules;
mod share;
mod windows;

pub use picture::{AuctionSettings, Picture, Placement, RolloutMode};
pub use windows::{Arm, Compared, Shown, Windows};

use crate::request::Dimensions;
use crate::topology::{Excluded, RouteTable};
use crate::users::UserFeatures;
use arc_swap::ArcSwapOption;
use drain::Drain;
use gavel_member::delivery::DeliveryFeed;
use gavel_member::member::Voters;
use gavel_member::serve::Health;
use gavel_member::view::ViewFeed;
use gavel_member::{ReadyState, Shutdown};
use gavel_model::Bundle;
use gavel_proto::frequency::RuleBook;
use gavel_proto::ids::MemberId;
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
    /// How often a user may see what.
    pub rules: Arc<RuleBook>,
    /// The nodes that count it.
    pub counting: Vec<MemberId>,
    /// How auctions are run.
    pub auction: AuctionSettings,
    /// Where ads may stand.
    pub placements: Vec<Placement>,
    /// Campaigns that are left out on top of the pinned version.
    pub excluded: Arc<Excluded>,
    /// Items that each shard retrieves.
    pub quota: u32,
    /// Items that each shard ranks.
    pub light_keep: u32,
    /// Ends with the last request of the bundle.
    drain: Arc<Drain>,
}

impl Pinned {
    /// A placement by name.
    #[must_use]
    pub fn placement(&self, name: &str) -> Option<&Placement> {
        self.placements.iter().find(|p| p.name == name)
    }
}

/// What requests that start now are answered from.
struct Pins {
    active: Arc<Pinned>,
    candidate: Option<Candidate>,
}

impl Pins {
    /// What was pinned of a version, if it is.
    fn drain(&self, version: u64) -> Option<&Arc<Drain>> {
        self.drains().find(|drain| drain.version() == version)
    }

    fn drains(&self) -> impl Iterator<Item = &Arc<Drain>> {
        let candidate = self.candidate.as_ref().map(|c| &c.pinned.drain);
        std::iter::once(&self.active.drain).chain(candidate)
    }
}

/// A bundle that has a share of requests.
#[derive(Clone)]
struct Candidate {
    pinned: Arc<Pinned>,
    mode: RolloutMode,
    share_ppm: u32,
}

/// What one request is answered from.
pub struct Choice {
    /// All of it.
    pub pinned: Arc<Pinned>,
    /// As which of the two bundles it counts.
    pub arm: Arm,
    /// The bundle that scores the same candidates afterwards.
    pub shadow: Option<Arc<Pinned>>,
}

/// Follows the View and keeps what requests pin.
pub struct Staging {
    pinned: ArcSwapOption<Pins>,
    windows: Windows,
}

/// What staging needs of the process.
pub struct Surroundings {
    /// Where files are kept.
    pub data_dir: PathBuf,
    /// The View.
    pub view: Arc<ViewFeed>,
    /// What is said of campaigns.
    pub delivery: Arc<DeliveryFeed>,
    /// Where readiness is reported.
    pub ready: Arc<ReadyState>,
    /// Where blobs come from.
    pub voters: Arc<Voters>,
    /// Told when the first requests can be answered.
    pub health: Health,
    /// Told where nodes are.
    pub nodes: Arc<crate::transport::Nodes>,
    /// Leases and tokens: requests wait for them to be settled.
    pub bank: Arc<crate::ledger::Bank>,
}

impl Staging {
    /// With nothing pinned.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { pinned: ArcSwapOption::empty(), windows: Windows::default() })
    }

    /// Follows the View until the shutdown. Call it inside the runtime.
    pub fn follow(self: &Arc<Self>, surroundings: Surroundings, shutdown: Shutdown) -> tokio::task::JoinHandle<()> {
        tokio::spawn(follow::follow(Arc::clone(self), surroundings, shutdown))
    }

    /// What serves now; `None` before anything is active here.
    #[must_use]
    pub fn pin(&self) -> Option<Arc<Pinned>> {
        Some(Arc::clone(&self.pinned.load().as_ref()?.active))
    }

    /// What a request with this stable key that starts now is answered from; `None` before anything is active here.
    #[must_use]
    pub fn choose(&self, key: &str) -> Option<Choice> {
        let pins = self.pinned.load();
        let Pins { active, candidate } = pins.as_deref()?;
        let serves = |shadow| Choice { pinned: Arc::clone(active), arm: Arm::Active, shadow };
        let Some(candidate) = candidate else { return Some(serves(None)) };
        let version = candidate.pinned.table.epoch.model;
        let chosen = Arc::clone(&candidate.pinned);
        Some(match (share::belongs(key, version, candidate.share_ppm), candidate.mode) {
            (false, _) => serves(None),
            (true, RolloutMode::Canary) => Choice { pinned: chosen, arm: Arm::Candidate, shadow: None },
            (true, RolloutMode::Shadow) => serves(Some(chosen)),
        })
    }

    /// What the bundles of a rollout have shown.
    #[must_use]
    pub const fn windows(&self) -> &Windows {
        &self.windows
    }
}
