//! In which order are a shard's replicas tried?
//!
//! Power of two choices: two replicas are drawn, the one with less load goes first, the others follow by load for
//! a hedge or a retry. Ejected replicas go last, and an ejection is ignored once it would take out more than half
//! of a shard's replicas or the last one: a wrong verdict must cost latency, never coverage.

use super::health::Health;
use super::table::RouteTable;
use gavel_proto::deadline::Instant;
use gavel_proto::hash::combine;
use gavel_proto::ids::{MemberId, ShardId};

/// The replicas of one shard in the order in which this request tries them; empty when nobody serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The shard.
    pub shard: ShardId,
    /// Its items in the pinned map.
    pub items: u64,
    /// Whom to ask, best first.
    pub replicas: Vec<MemberId>,
}

/// One choice for each shard of the table. `random` is fresh for each request.
#[must_use]
pub fn choose(table: &RouteTable, health: &Health, now: Instant, random: u64) -> Vec<Choice> {
    let order = |route: &super::table::ShardRoute| Choice {
        shard: route.shard,
        items: route.items,
        replicas: order(&route.serving, health, now, combine(random, u64::from(route.shard.0))),
    };
    table.shards.iter().map(order).collect()
}

fn order(serving: &[MemberId], health: &Health, now: Instant, random: u64) -> Vec<MemberId> {
    let (mut open, ejected) = split(serving, health, now);
    open.sort_by(|a, b| health.load(*a, now).total_cmp(&health.load(*b, now)).then(a.cmp(b)));
    if open.len() > 2 {
        // Two different positions of the sorted list; the nearer one to its head has less load.
        let count = open.len() as u64;
        let first = random % count;
        let second = (first + 1 + (random >> 32) % (count - 1)) % count;
        let chosen = open.remove(first.min(second) as usize);
        open.insert(0, chosen);
    }
    open.extend(ejected);
    open
}

/// (replicas to use, replicas to avoid), the latter by the end of their ejection and at most half of all.
fn split(serving: &[MemberId], health: &Health, now: Instant) -> (Vec<MemberId>, Vec<MemberId>) {
    let (mut ejected, mut open): (Vec<MemberId>, Vec<MemberId>) =
        serving.iter().partition(|node| health.ejected_until(**node) > now);
    ejected.sort_by_key(|node| (health.ejected_until(*node), *node));
    let allowed = serving.len() / 2;
    // Those whose ejection ends first come back first.
    let back = ejected.len().saturating_sub(allowed);
    open.extend(ejected.drain(..back));
    (open, ejected)
}

#[cfg(test)]
mod tests {
    use super::super::health::Verdict;
    use super::super::table::ShardRoute;
    use super::*;
    use proptest::prelude::*;

    fn table(replicas: &[u64]) -> RouteTable {
        let serving = replicas.iter().copied().map(MemberId).collect();
        RouteTable {
            shards: vec![ShardRoute { shard: ShardId(0), items: 10, ads: 10, serving }],
            ..RouteTable::default()
        }
    }

    fn eject(health: &mut Health, node: u64, now: Instant) {
        for _ in 0..5 {
            health.ended(MemberId(node), now, 100, Verdict::Failed);
        }
    }

    #[test]
    fn the_faster_of_two_goes_first_whatever_the_dice_say() {
        let mut health = Health::default();
        for _ in 0..50 {
            health.ended(MemberId(1), Instant(0), 9_000, Verdict::Answered);
            health.ended(MemberId(2), Instant(0), 1_000, Verdict::Answered);
        }
        for random in 0..100 {
            assert_eq!(choose(&table(&[1, 2]), &health, Instant(0), random)[0].replicas, [MemberId(2), MemberId(1)]);
        }
    }

    #[test]
    fn the_slowest_of_three_is_never_first_and_both_others_are() {
        let mut health = Health::default();
        for (node, latency) in [(1, 1_000), (2, 1_100), (3, 50_000)] {
            for _ in 0..50 {
                health.ended(MemberId(node), Instant(0), latency, Verdict::Answered);
            }
        }
        let firsts: Vec<u64> =
            (0..200).map(|r| choose(&table(&[1, 2, 3]), &health, Instant(0), combine(r, 1))[0].replicas[0].0).collect();
        assert!(firsts.contains(&1) && firsts.contains(&2) && !firsts.contains(&3));
    }

    #[test]
    fn an_ejection_never_takes_the_last_replica_nor_more_than_half() {
        let mut health = Health::default();
        eject(&mut health, 1, Instant(0));
        let order = |health: &Health, nodes: &[u64], now| choose(&table(nodes), health, now, 3)[0].replicas.clone();
        assert_eq!(order(&health, &[1], Instant(1)), [MemberId(1)]);
        assert_eq!(order(&health, &[1, 2], Instant(1)), [MemberId(2), MemberId(1)]);
        eject(&mut health, 2, Instant(10));
        // Both are ejected: the one whose ejection ends first comes back.
        assert_eq!(order(&health, &[1, 2], Instant(11)), [MemberId(1), MemberId(2)]);
        assert_eq!(order(&health, &[1, 2], Instant(60_000_000)).len(), 2);
    }

    proptest! {
        #[test]
        fn every_replica_is_listed_once(
            nodes in proptest::collection::btree_set(0u64..12, 0..8), bad in proptest::collection::vec(0u64..12, 0..8),
            random: u64,
        ) {
            let mut health = Health::default();
            for node in bad {
                eject(&mut health, node, Instant(5));
            }
            let list: Vec<u64> = nodes.iter().copied().collect();
            let mut got: Vec<u64> =
                choose(&table(&list), &health, Instant(6), random)[0].replicas.iter().map(|m| m.0).collect();
            got.sort_unstable();
            prop_assert_eq!(got, list);
        }
    }
}
