//! What has this node loaded, and what does a search of this epoch use?
//!
//! One immutable picture, replaced whole after each step of staging. A search finds its shard by the pinned
//! (generation, model) and its bids by the delivery version; what is not there is said, never substituted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use gavel_model::{Bundle, HeadRole};
use gavel_proto::delivery::Book;
use gavel_proto::epoch::Epoch;

use super::StagingError;
pub use super::bids::ShardDelivery;
use super::plan::{Hash, Held};
use crate::ranking::auction::HeadRoles;
use crate::ranking::delivery::{Delivery, VERSIONS_KEPT};
use crate::ranking::light::LightModel;
use crate::ranking::value::ValueModel;
use crate::segment::{Bitset, Content};
use crate::shard::Shard;

/// A bundle that is verified, with what the funnel needs of its schema.
pub struct LoadedBundle {
    /// The model.
    pub bundle: Bundle,
    /// Which head plays which role.
    pub roles: HeadRoles,
    /// The light order.
    pub light: LightModel,
    /// What ads are worth in retrieval; none where the bundle's weight of value is 0.
    pub value: Option<ValueModel>,
    /// Names of the heads, in the order of the predictions.
    pub head_names: Vec<String>,
}

impl LoadedBundle {
    /// Finds the roles.
    ///
    /// # Errors
    /// When the bundle does not predict clicks.
    pub fn new(bundle: Bundle) -> Result<Self, StagingError> {
        let schema = bundle.schema();
        let click = schema.head(HeadRole::Click);
        let click = click.ok_or_else(|| StagingError::Unusable("no head has the role click".to_owned()))?;
        let roles = HeadRoles {
            heads: schema.heads.len(),
            click,
            conversion: schema.head(HeadRole::ConversionGivenClick),
            hide: schema.head(HeadRole::Hide),
            long_click: schema.head(HeadRole::LongClick),
            prior_conversion: schema.prior_conversion,
        };
        let light = LightModel { prior_conversion: schema.prior_conversion };
        let weight = schema.value_weight;
        let value = (weight != 0.0).then_some(ValueModel { weight, light });
        let head_names = schema.heads.iter().map(|head| head.name.clone()).collect();
        Ok(Self { bundle, roles, light, value, head_names })
    }
}

/// A content folder with its delivery versions, newest last.
pub struct HeldContent {
    /// The sealed folder.
    pub content: Arc<Content>,
    /// At most [`VERSIONS_KEPT`].
    pub deliveries: VecDeque<Arc<ShardDelivery>>,
}

impl HeldContent {
    /// With one more version.
    fn with(&self, newest: ShardDelivery) -> Arc<Self> {
        let mut deliveries = self.deliveries.clone();
        push_version(&mut deliveries, Arc::new(newest));
        Arc::new(Self { content: Arc::clone(&self.content), deliveries })
    }
}

/// A shard that can be searched with one model.
pub struct LoadedShard {
    /// Content, vectors, graph, activations.
    pub shard: Arc<Shard>,
    /// The model that they were made with.
    pub bundle: Arc<LoadedBundle>,
}

/// Everything that is loaded.
#[derive(Clone, Default)]
pub struct Holdings {
    /// By content hash.
    pub bundles: BTreeMap<Hash, Arc<LoadedBundle>>,
    /// By generation, what its catalogue says of campaigns.
    pub campaigns: BTreeMap<u64, Arc<Delivery>>,
    /// What was said of campaigns since; none before it was heard.
    pub book: Option<Arc<Book>>,
    /// By generation, newest version last.
    pub deliveries: BTreeMap<u64, VecDeque<Arc<Delivery>>>,
    /// By generation and shard.
    pub contents: BTreeMap<(u64, u32), Arc<HeldContent>>,
    /// By generation, shard and bundle.
    pub shards: BTreeMap<(u64, u32, Hash), Arc<LoadedShard>>,
}

/// What a search of one shard works with.
#[derive(Clone)]
pub struct Target {
    /// The shard under the pinned generation and model.
    pub loaded: Arc<LoadedShard>,
    /// The pinned bids.
    pub delivery: Arc<ShardDelivery>,
    /// Ads that do not bid.
    pub silent: Arc<Bitset>,
}

impl Target {
    /// The same for one auction at an instant: campaigns are silent outside of their schedules, and those that take part in
    /// a share of the auctions in the others.
    #[must_use]
    pub fn in_auction(&self, auction: u64, unix_s: i64) -> Self {
        let content = self.loaded.shard.content();
        let silent = self.delivery.silent_in(&self.delivery.silent_at(content, unix_s), content, auction);
        Self { loaded: Arc::clone(&self.loaded), delivery: Arc::clone(&self.delivery), silent }
    }
}

/// Why there is no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lack {
    /// The shard is not placed here.
    #[error("shard {0} is not held here")]
    Shard(u32),
    /// A version is not loaded, or not any more.
    #[error("{what} {version} is not available")]
    Version {
        /// Generation, model or delivery.
        what: &'static str,
        /// The version that was asked for.
        version: u64,
    },
}

impl Holdings {
    /// What a search of this epoch uses.
    ///
    /// # Errors
    /// What is lacking.
    pub fn target(&self, epoch: Epoch, shard: u32, model: &Hash) -> Result<Target, Lack> {
        let version = |what, version| Lack::Version { what, version };
        let Some(content) = self.contents.get(&(epoch.generation, shard)) else {
            let known = self.deliveries.contains_key(&epoch.generation);
            return Err(if known { Lack::Shard(shard) } else { version("generation", epoch.generation) });
        };
        let loaded = self.shards.get(&(epoch.generation, shard, *model));
        let loaded = loaded.ok_or(version("model", epoch.model))?;
        let delivery = content.deliveries.iter().rev().find(|d| d.version() == epoch.delivery);
        let delivery = delivery.ok_or(version("delivery", epoch.delivery))?;
        let silent = delivery.silent();
        Ok(Target { loaded: Arc::clone(loaded), delivery: Arc::clone(delivery), silent })
    }

    /// Adds what the catalogue of a generation says of campaigns; it can be searched once a book says what stands.
    pub fn add_campaigns(&mut self, generation: u64, catalogue: Arc<Delivery>) {
        self.campaigns.insert(generation, catalogue);
        self.lay_book(generation);
    }

    /// Puts a book in force for every generation.
    pub fn take_book(&mut self, book: Arc<Book>) {
        let anew = self.book.as_ref().is_some_and(|held| held.formation != book.formation);
        self.book = Some(book);
        let generations: Vec<u64> = self.campaigns.keys().copied().collect();
        for generation in generations {
            if anew {
                // Another control plane counts its versions from the beginning.
                self.deliveries.remove(&generation);
                for (_, held) in self.contents.range_mut((generation, 0)..=(generation, u32::MAX)) {
                    *held = Arc::new(HeldContent { content: Arc::clone(&held.content), deliveries: VecDeque::new() });
                }
            }
            self.lay_book(generation);
        }
    }

    fn lay_book(&mut self, generation: u64) {
        let (Some(book), Some(catalogue)) = (&self.book, self.campaigns.get(&generation)) else { return };
        let before = self.deliveries.get(&generation).and_then(VecDeque::back).cloned();
        if before.as_ref().is_some_and(|before| before.version() == book.version) {
            return;
        }
        let (delivery, changed) = Delivery::overlaid(catalogue, before.as_deref(), book);
        let delivery = Arc::new(delivery);
        let Some((before, changed)) = before.zip(changed) else { return self.add_delivery(generation, delivery) };
        push_version(self.deliveries.entry(generation).or_default(), Arc::clone(&delivery));
        for (_, held) in self.contents.range_mut((generation, 0)..=(generation, u32::MAX)) {
            let last = held.deliveries.back().filter(|last| last.version() == before.version());
            let next = match last {
                Some(last) => last.following(&held.content, &delivery, &changed),
                None => ShardDelivery::new(&held.content, &delivery),
            };
            *held = held.with(next);
        }
    }

    /// Whether every content of a generation here can be searched with a version.
    #[must_use]
    pub fn has_version(&self, generation: u64, version: u64) -> bool {
        let mut contents = self.contents.range((generation, 0)..=(generation, u32::MAX)).map(|(_, held)| held);
        contents.all(|held| held.deliveries.iter().rev().any(|d| d.version() == version))
    }

    /// The versions of a generation that every content of it here can be searched with.
    #[must_use]
    pub fn versions(&self, generation: u64) -> Vec<u64> {
        let known = self.deliveries.get(&generation).into_iter().flatten().map(|delivery| delivery.version());
        known.filter(|version| self.has_version(generation, *version)).collect()
    }

    /// Adds a delivery version of a generation, and resolves it for every shard of it.
    pub fn add_delivery(&mut self, generation: u64, delivery: Arc<Delivery>) {
        push_version(self.deliveries.entry(generation).or_default(), Arc::clone(&delivery));
        for (_, held) in self.contents.range_mut((generation, 0)..=(generation, u32::MAX)) {
            *held = held.with(ShardDelivery::new(&held.content, &delivery));
        }
    }

    /// Adds a content folder, with the newest delivery version of its generation: who pins an older one has not been
    /// told yet that this content is served here.
    pub fn add_content(&mut self, content: Arc<Content>) {
        let key = content.key();
        let newest = self.deliveries.get(&key.generation).and_then(VecDeque::back);
        let deliveries = newest.map(|delivery| Arc::new(ShardDelivery::new(&content, delivery))).into_iter().collect();
        self.contents.insert((key.generation, key.shard), Arc::new(HeldContent { content, deliveries }));
    }

    /// Makes the tables of values that searches of this picture will read.
    fn prepare_values(&self) {
        for ((generation, shard, _), loaded) in self.shards.iter().filter(|(_, loaded)| loaded.bundle.value.is_some()) {
            let held = self.contents.get(&(*generation, *shard));
            for delivery in held.into_iter().flat_map(|held| &held.deliveries) {
                drop(delivery.values(loaded));
            }
        }
    }

    /// The picture that the plan works with.
    #[must_use]
    pub fn held(&self) -> Held {
        Held {
            bundles: self.bundles.keys().copied().collect(),
            campaigns: self.campaigns.keys().copied().collect(),
            contents: self.contents.keys().copied().collect(),
            models: self.shards.keys().copied().collect(),
        }
    }
}

fn push_version<T>(versions: &mut VecDeque<T>, newest: T) {
    if versions.len() == VERSIONS_KEPT {
        versions.pop_front();
    }
    versions.push_back(newest);
}

/// The picture, shared by the threads that load and the searches.
#[derive(Default)]
pub struct SharedHoldings {
    current: ArcSwap<Holdings>,
    /// Held by who changes it: the staging thread or the one that puts bids in force.
    changing: Mutex<()>,
}

impl SharedHoldings {
    /// The picture as it stands.
    #[must_use]
    pub fn current(&self) -> Arc<Holdings> {
        self.current.load_full()
    }

    /// Replaces it by a changed copy.
    pub fn change(&self, change: impl FnOnce(&mut Holdings)) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Holdings::clone(&self.current.load());
        change(&mut next);
        next.prepare_values();
        self.current.store(Arc::new(next));
    }
}
