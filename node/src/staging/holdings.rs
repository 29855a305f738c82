//! What has this node loaded, and what does a search of this epoch use?
//!
//! One immutable picture, replaced whole after each step of staging. A search finds its shard by the pinned
//! (generation, model) and its bids by the delivery version; what is not there is said, never substituted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arc_swap::ArcSwap;
use gavel_model::{Bundle, HeadRole};
use gavel_proto::epoch::Epoch;

use super::StagingError;
use super::plan::{Hash, Held};
use super::values::ValueTables;
use crate::ranking::auction::HeadRoles;
use crate::ranking::delivery::{Counting, Delivery, DeliveryRow, ResolvedDelivery, VERSIONS_KEPT};
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

/// One delivery version as the ads of one content folder see it.
pub struct ShardDelivery {
    /// Bids by campaign place.
    pub resolved: ResolvedDelivery,
    /// Ads that do not bid: paused, bid 0, or of an unknown campaign.
    pub silent: Bitset,
    /// Campaigns that bid by the thousand impressions, with their paced bids, the highest first.
    pub impression_bids: Vec<(u64, u64)>,
    /// The ads of these.
    pub impression_ads: Bitset,
    /// Ads whose impressions are counted for a frequency rule.
    pub counted: Bitset,
    values: ValueTables,
}

impl ShardDelivery {
    /// Resolves a version for a content folder.
    #[must_use]
    pub fn new(content: &Content, delivery: &Arc<Delivery>) -> Self {
        let campaigns = content.campaigns();
        let resolved = ResolvedDelivery::new(Arc::clone(delivery), campaigns.iter().copied());
        let rows = || (0..).zip(campaigns).map(|(place, campaign)| (*campaign, resolved.row(place)));
        let silent = content.ads_of_campaigns(rows().filter(|(_, row)| !row.bids()).map(|(campaign, _)| campaign));
        let by_impression = rows().filter(|(_, row)| row.bids() && row.is_by_impression());
        let mut impression_bids: Vec<(u64, u64)> = by_impression.map(|(id, row)| (id, row.paced().0)).collect();
        impression_bids.sort_by_key(|(_, bid)| std::cmp::Reverse(*bid));
        let impression_ads = content.ads_of_campaigns(impression_bids.iter().map(|(campaign, _)| *campaign));
        let counted = rows().filter(|(_, row)| row.counting == Counting::Counted).map(|(campaign, _)| campaign);
        let counted = content.ads_of_campaigns(counted);
        Self { resolved, silent, impression_bids, impression_ads, counted, values: ValueTables::default() }
    }

    /// Its number.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.resolved.delivery().version()
    }

    /// What each item of a shard is worth at best; none if the bundle does not weigh value.
    #[must_use]
    pub fn values(&self, loaded: &LoadedShard) -> Option<Arc<[f32]>> {
        self.values.of(&loaded.shard, self, &loaded.bundle)
    }

    /// What the campaign of an ad bids.
    #[inline]
    #[must_use]
    pub fn row(&self, shard: &Shard, ad: u32) -> &DeliveryRow {
        let sealed = shard.content();
        if ad < sealed.ads() {
            return self.resolved.row(sealed.campaign_place(ad));
        }
        // A recent document's campaign may be new to the sealed content: it is looked up.
        let delivery = self.resolved.delivery();
        delivery.row(delivery.row_of(shard.campaign(ad).0))
    }
}

/// A content folder with its delivery versions, newest last.
pub struct HeldContent {
    /// The sealed folder.
    pub content: Arc<Content>,
    /// At most [`VERSIONS_KEPT`].
    pub deliveries: VecDeque<Arc<ShardDelivery>>,
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
    /// Campaigns by generation, newest version last.
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
        Ok(Target { loaded: Arc::clone(loaded), delivery: Arc::clone(delivery) })
    }

    /// Adds a delivery version of a generation, and resolves it for every shard of it.
    pub fn add_delivery(&mut self, generation: u64, delivery: Arc<Delivery>) {
        push_version(self.deliveries.entry(generation).or_default(), Arc::clone(&delivery));
        for (_, held) in self.contents.range_mut((generation, 0)..=(generation, u32::MAX)) {
            let mut deliveries = held.deliveries.clone();
            push_version(&mut deliveries, Arc::new(ShardDelivery::new(&held.content, &delivery)));
            *held = Arc::new(HeldContent { content: Arc::clone(&held.content), deliveries });
        }
    }

    /// Adds a content folder, with every delivery version of its generation.
    pub fn add_content(&mut self, content: Arc<Content>) {
        let key = content.key();
        let known = self.deliveries.get(&key.generation).into_iter().flatten();
        let deliveries = known.map(|delivery| Arc::new(ShardDelivery::new(&content, delivery))).collect();
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
            campaigns: self.deliveries.keys().copied().collect(),
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

/// The picture, shared by the staging thread and the searches.
#[derive(Default)]
pub struct SharedHoldings {
    current: ArcSwap<Holdings>,
}

impl SharedHoldings {
    /// The picture as it stands.
    #[must_use]
    pub fn current(&self) -> Arc<Holdings> {
        self.current.load_full()
    }

    /// Replaces it by a changed copy. One writer: the staging thread.
    pub fn change(&self, change: impl FnOnce(&mut Holdings)) {
        let mut next = Holdings::clone(&self.current.load());
        change(&mut next);
        next.prepare_values();
        self.current.store(Arc::new(next));
    }
}
