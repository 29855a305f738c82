//! Which members hold which shard?
//!
//! Each shard takes the R members that hold least so far; among equals the highest rendezvous hash of
//! (seed, shard, member) wins. Taking the least loaded keeps every member within one replica of every
//! other, and the hash keeps two generations from loading the same members first. It is a function of its
//! arguments alone, because every voter computes it for itself.
//!
//! It does not know about racks or weights, and it never moves a shard that is already placed.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use gavel_proto::hash::combine;

/// The members of each shard, shard 0 first; `None` when there are fewer members than replicas.
#[must_use]
pub fn place(seed: u64, members: &[u64], shards: u32, replicas: u32) -> Option<Vec<Vec<u64>>> {
    let replicas = replicas as usize;
    if replicas == 0 || members.len() < replicas {
        return None;
    }
    let mut held: BTreeMap<u64, u32> = members.iter().map(|m| (*m, 0)).collect();
    let placed = (0..shards).map(|shard| {
        let mut order: Vec<(u32, Reverse<u64>, u64)> =
            held.iter().map(|(member, held)| (*held, Reverse(rank(seed, shard, *member)), *member)).collect();
        order.sort_unstable();
        let mut chosen: Vec<u64> = order.into_iter().take(replicas).map(|(_, _, member)| member).collect();
        chosen.sort_unstable();
        for member in &chosen {
            *held.entry(*member).or_default() += 1;
        }
        chosen
    });
    Some(placed.collect())
}

/// Who takes over a replica of `shard`, given what each member that may take it holds already.
#[must_use]
pub fn successor(seed: u64, shard: u32, candidates: &BTreeMap<u64, u32>) -> Option<u64> {
    candidates
        .iter()
        .min_by_key(|(member, held)| (**held, Reverse(rank(seed, shard, **member))))
        .map(|(member, _)| *member)
}

/// The rendezvous weight of a member for a shard.
fn rank(seed: u64, shard: u32, member: u64) -> u64 {
    combine(combine(seed, u64::from(shard)), member)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn replicas_are_distinct_and_balanced(
            seed: u64,
            ids in proptest::collection::btree_set(1u64..10_000, 1..24),
            shards in 1u32..64,
            replicas in 1u32..5,
        ) {
            let members: Vec<u64> = ids.iter().copied().collect();
            let Some(placed) = place(seed, &members, shards, replicas) else {
                prop_assert!(members.len() < replicas as usize);
                return Ok(());
            };
            prop_assert_eq!(placed.len(), shards as usize);
            let mut held: BTreeMap<u64, u32> = members.iter().map(|m| (*m, 0)).collect();
            for chosen in &placed {
                let distinct: BTreeSet<_> = chosen.iter().collect();
                prop_assert_eq!(distinct.len(), replicas as usize);
                for member in chosen {
                    *held.get_mut(member).expect("only members") += 1;
                }
            }
            let (most, least) = (held.values().max(), held.values().min());
            prop_assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1), "{held:?}");
            let mut reversed = members.clone();
            reversed.reverse();
            prop_assert_eq!(Some(placed), place(seed, &reversed, shards, replicas), "the order of the members is no input");
        }
    }

    #[test]
    fn too_few_members_place_nothing() {
        assert_eq!(place(1, &[7], 4, 2), None);
        assert_eq!(place(1, &[7], 4, 0), None);
        assert_eq!(place(1, &[7], 2, 1), Some(vec![vec![7], vec![7]]));
    }

    #[test]
    fn the_least_loaded_candidate_takes_over() {
        assert_eq!(successor(3, 0, &BTreeMap::from([(5, 2), (6, 1), (7, 2)])), Some(6));
        assert_eq!(successor(3, 0, &BTreeMap::new()), None);
    }
}
