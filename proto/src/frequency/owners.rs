//! Which nodes hold the counts of this user?
//!
//! Every live node draws a number for the user; the highest owns, the second holds the copy (rendezvous hashing). When
//! the owner goes, the second becomes the first: the one that has the counts already. A node that joins takes its
//! share of users from all others alike, and nobody else's move.

use crate::hash::combine;
use crate::ids::MemberId;

/// The two nodes of a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    /// Counts; `None` without a live node.
    pub owner: Option<MemberId>,
    /// Is sent what the owner counts, and counts when the owner does not answer.
    pub replica: Option<MemberId>,
}

impl Owners {
    /// Whether a node is one of them.
    #[must_use]
    pub fn has(&self, node: MemberId) -> bool {
        self.iter().any(|of| of == node)
    }

    /// The other one.
    #[must_use]
    pub fn beside(&self, node: MemberId) -> Option<MemberId> {
        self.iter().find(|of| *of != node)
    }

    /// The owner first.
    pub fn iter(&self) -> impl Iterator<Item = MemberId> {
        [self.owner, self.replica].into_iter().flatten()
    }
}

/// The owners of a user, by the hash of its id, among these nodes; the order of the nodes does not matter.
#[must_use]
pub fn owners(nodes: &[MemberId], user: u64) -> Owners {
    let mut first: Option<(u64, MemberId)> = None;
    let mut second = None;
    for node in nodes {
        let drawn = Some((combine(user, node.0), *node));
        if drawn > first {
            second = first;
            first = drawn;
        } else if drawn > second {
            second = drawn;
        }
    }
    Owners { owner: first.map(|(_, node)| node), replica: second.map(|(_, node)| node) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::mix64;

    fn members(ids: impl IntoIterator<Item = u64>) -> Vec<MemberId> {
        ids.into_iter().map(MemberId).collect()
    }

    #[test]
    fn the_replica_follows_the_owner_and_a_newcomer_takes_its_share_alone() {
        let (all, without_third) = (members(1..=5), members([1, 2, 4, 5]));
        let (mut owned, mut moved) = ([0u32; 6], 0);
        for user in (0..10_000).map(mix64) {
            let (with, without) = (owners(&all, user), owners(&without_third, user));
            let owner = with.owner.expect("an owner");
            owned[owner.0 as usize] += 1;
            if owner == MemberId(3) {
                moved += 1;
                assert_eq!(without.owner, with.replica, "the copy is where it is looked for");
            } else {
                assert_eq!(without.owner, with.owner);
            }
            assert_ne!(with.owner, with.replica);
            assert_eq!(with.beside(owner), with.replica);
        }
        assert_eq!(moved, owned[3]);
        // 2,000 expected, standard deviation 40: five of them.
        assert!(owned[1..].iter().all(|count| (1_800..=2_200).contains(count)), "{owned:?}");
    }

    #[test]
    fn few_nodes_are_enough() {
        assert_eq!(owners(&[], 7), Owners::default());
        let alone = owners(&members([4]), 7);
        assert_eq!((alone.owner, alone.replica), (Some(MemberId(4)), None));
        assert!(alone.has(MemberId(4)) && !alone.has(MemberId(5)));
        assert_eq!(owners(&members([9, 4]), 7), owners(&members([4, 9]), 7));
    }
}
