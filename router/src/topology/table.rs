//! Which shards does the pinned map have, how large are they, and who serves them?

use gavel_proto::epoch::Epoch;
use gavel_proto::ids::{MemberId, ShardId};

/// One shard of the pinned map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardRoute {
    /// The shard.
    pub shard: ShardId,
    /// Its items at this map epoch: the denominator of coverage.
    pub items: u64,
    /// Its ads at this map epoch.
    pub ads: u64,
    /// Members that hold it for the pinned pair of generation and model, and are alive.
    pub serving: Vec<MemberId>,
}

/// The shards of one View, immutable.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RouteTable {
    /// What a request that uses this table pins.
    pub epoch: Epoch,
    /// Every shard, ascending, each once.
    pub shards: Vec<ShardRoute>,
}

impl RouteTable {
    /// Items of the whole generation.
    #[must_use]
    pub fn items(&self) -> u64 {
        self.shards.iter().map(|s| s.items).sum()
    }

    /// Ads of the whole generation.
    #[must_use]
    pub fn ads(&self) -> u64 {
        self.shards.iter().map(|s| s.ads).sum()
    }
}
