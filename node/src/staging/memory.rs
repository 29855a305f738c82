//! May this node take another shard, and where are the bytes of those that it has?
//!
//! Sealed folders are mapped, so a node that takes more than fits does not fail: its pages push each other out and every
//! search waits for the disk. So staging keeps what it maps and owns below a share of the memory that the process may use,
//! and refuses what would go beyond, by name, before it is built; the refusal stands in the status of the member.

use std::collections::BTreeMap;
use std::fs;

use gavel_member::ready::{NodeMemory, ShardMemory};
use gavel_proto::ids::ShardId;

use super::StagingError;
use super::holdings::Holdings;
use crate::segment::Residency;

const MIB: u64 = 1024 * 1024;

/// What shards may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryBudget {
    limit: u64,
}

impl MemoryBudget {
    /// A share of what the process may use.
    #[must_use]
    pub fn of_share(share: f64) -> Self {
        Self { limit: (total_memory() as f64 * share.clamp(0.0, 1.0)) as u64 }
    }

    /// So many bytes.
    #[must_use]
    pub const fn of_bytes(limit: u64) -> Self {
        Self { limit }
    }

    /// Bytes that shards may take.
    #[must_use]
    pub const fn limit(self) -> u64 {
        self.limit
    }

    /// Whether `more` bytes may be taken beside those that are.
    ///
    /// # Errors
    /// When they are too many.
    pub fn admit(self, what: &str, taken: u64, more: u64) -> Result<(), StagingError> {
        if taken.saturating_add(more) <= self.limit {
            return Ok(());
        }
        let (more, taken, limit) = (more.div_ceil(MIB), taken.div_ceil(MIB), self.limit / MIB);
        Err(StagingError::Memory(format!(
            "{what} needs {more} MiB, and shards take {taken} of the {limit} MiB they may (--memory-share): \
             give the node more memory or a larger share, or add nodes"
        )))
    }
}

/// Bytes that the process may use: the machine's, or less where a control group says so.
fn total_memory() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = machine.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    let machine = kib.map_or(u64::MAX, |kib: u64| kib.saturating_mul(1_024));
    let groups = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limits = groups.into_iter().filter_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
    limits.fold(machine, u64::min)
}

/// Where the bytes of each shard are; content that several models share counts once.
fn by_shard(holdings: &Holdings) -> BTreeMap<(u64, u32), Residency> {
    let mut shards: BTreeMap<(u64, u32), Residency> = BTreeMap::new();
    let contents = holdings.contents.iter().map(|(key, held)| (*key, held.content.residency()));
    let models = holdings.shards.iter().map(|((generation, shard, _), loaded)| {
        let of_model = loaded.shard.model().residency().plus(loaded.shard.delta_residency());
        ((*generation, *shard), of_model)
    });
    for (key, more) in contents.chain(models) {
        let sum = shards.entry(key).or_default();
        *sum = sum.plus(more);
    }
    shards
}

/// Bytes that all shards take.
#[must_use]
pub fn taken(holdings: &Holdings) -> u64 {
    by_shard(holdings).values().map(|residency| residency.bytes()).sum()
}

/// For the heartbeat, and for the metrics on the way.
#[must_use]
pub fn report(holdings: &Holdings, budget: MemoryBudget) -> NodeMemory {
    let shards = by_shard(holdings);
    let all = shards.values().fold(Residency::default(), |sum, more| sum.plus(*more));
    for (kind, bytes) in [("mapped", all.mapped), ("resident", all.resident), ("owned", all.owned)] {
        metrics::gauge!("gavel_node_shard_bytes", "kind" => kind).set(bytes as f64);
    }
    metrics::gauge!("gavel_node_memory_limit_bytes").set(budget.limit as f64);
    let shards = shards.into_iter().map(|((generation, shard), residency)| ShardMemory {
        shard: ShardId(shard),
        generation,
        mapped: residency.mapped,
        resident: residency.resident,
        owned: residency.owned,
    });
    NodeMemory { limit: budget.limit, shards: shards.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_that_does_not_fit_is_refused_by_name() {
        let budget = MemoryBudget::of_bytes(100 * MIB);
        assert!(budget.admit("shard 1", 60 * MIB, 40 * MIB).is_ok());
        let refused = budget.admit("shard 1", 60 * MIB, 40 * MIB + 1).unwrap_err().to_string();
        assert!(refused.starts_with("memory: shard 1 needs 41 MiB, and shards take 60 of the 100 MiB"), "{refused}");
        assert!(refused.len() <= gavel_proto::limits::STRING_BYTES_MAX, "a status cuts longer ones");
        assert!(budget.admit("shard 1", u64::MAX, 1).is_err());
        let (all, half) = (MemoryBudget::of_share(1.0).limit(), MemoryBudget::of_share(0.5).limit());
        assert!(all > 64 * MIB && half.abs_diff(all / 2) < 2_048, "{all} {half}");
    }
}
