//! For whom may this node answer?
//!
//! The View says which nodes live, and from that follows who holds a user. When it changes, users come to nodes that do
//! not have their counts yet. Until everybody has said that all was sent, the nodes that held a user before answer
//! for it, and a router that asks the new one is told to ask the other.

use gavel_proto::frequency::{Owners, owners};
use gavel_proto::hash::combine;
use gavel_proto::ids::MemberId;

/// Who holds which user, now and before the last change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    own: MemberId,
    nodes: Vec<MemberId>,
    before: Vec<MemberId>,
    /// Of the nodes with their incarnations; 0 before the first View.
    round: u64,
    settled: bool,
}

impl Placement {
    /// The placement after a View with these live nodes, each with its incarnation; `None` when nothing has changed.
    #[must_use]
    pub fn after(&self, own: MemberId, live: &[(MemberId, u64)]) -> Option<Self> {
        let mut live = live.to_vec();
        live.sort_unstable();
        let round = live.iter().fold(1, |hash, (id, incarnation)| combine(hash, combine(id.0, *incarnation)));
        if self.round == round && self.own == own {
            return None;
        }
        let before = if self.settled { self.nodes.clone() } else { self.before.clone() };
        let nodes: Vec<MemberId> = live.into_iter().map(|(id, _)| id).collect();
        let alone = nodes == [own];
        Some(Self { own, nodes, before, round, settled: alone })
    }

    /// Everything that moved has come.
    #[must_use]
    pub fn settled(&self) -> Self {
        Self { settled: true, ..self.clone() }
    }

    /// Whether it has.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.settled
    }

    /// Names the set of nodes.
    #[must_use]
    pub const fn round(&self) -> u64 {
        self.round
    }

    /// The other nodes.
    pub fn others(&self) -> impl Iterator<Item = MemberId> {
        self.nodes.iter().copied().filter(|node| *node != self.own)
    }

    /// Whether this node may decide for a user.
    #[must_use]
    pub fn answers_for(&self, user: u64) -> bool {
        let nodes = if self.settled { &self.nodes } else { &self.before };
        owners(nodes, user).has(self.own)
    }

    /// The nodes that are sent what this one counts of a user.
    pub fn copy_to(&self, user: u64) -> impl Iterator<Item = MemberId> {
        let now = owners(&self.nodes, user);
        let before = if self.settled { Owners::default() } else { owners(&self.before, user) };
        // One that has gone is on no list of peers: what is for it is dropped there.
        let before = before.iter().filter(|node| !now.has(*node)).collect::<Vec<_>>();
        let own = self.own;
        now.iter().collect::<Vec<_>>().into_iter().chain(before).filter(move |node| *node != own)
    }

    /// Whether a node holds a user from now on.
    #[must_use]
    pub fn holds(&self, node: MemberId, user: u64) -> bool {
        owners(&self.nodes, user).has(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gavel_proto::hash::mix64;

    fn live(ids: &[u64]) -> Vec<(MemberId, u64)> {
        ids.iter().map(|id| (MemberId(*id), 1)).collect()
    }

    fn users() -> impl Iterator<Item = u64> {
        (0..500).map(mix64)
    }

    #[test]
    fn who_held_a_user_answers_until_all_has_moved() {
        let own = MemberId(1);
        let two = Placement::default().after(own, &live(&[1, 2])).expect("new").settled();
        assert_eq!(two.after(own, &live(&[2, 1])), None, "the same nodes");
        assert!(users().all(|user| two.answers_for(user)));
        let four = two.after(own, &live(&[1, 2, 3, 4])).expect("new");
        assert!(!four.is_settled() && users().all(|user| four.answers_for(user)));
        // What is counted meanwhile goes to everybody who holds it now.
        for user in users() {
            let to: Vec<MemberId> = four.copy_to(user).collect();
            let of = owners(&[1, 2, 3, 4].map(MemberId), user);
            assert!(of.iter().filter(|node| *node != own).all(|node| to.contains(&node)) && !to.contains(&own));
        }
        let settled = four.settled();
        let answered = users().filter(|user| settled.answers_for(*user)).count();
        assert!((150..350).contains(&answered), "half of 500: {answered}");
        assert!(users().all(|user| settled.answers_for(user) == settled.holds(own, user)));
    }

    #[test]
    fn one_that_has_just_started_answers_for_nobody_before_the_others_have_spoken() {
        let own = MemberId(3);
        let joined = Placement::default().after(own, &live(&[1, 2, 3])).expect("new");
        assert!(users().all(|user| !joined.answers_for(user)));
        let restarted = joined.settled().after(own, &[(MemberId(1), 2), (MemberId(2), 1), (own, 1)]).expect("new");
        assert_ne!(restarted.round(), joined.round(), "a new incarnation is another round");
        assert!(users().any(|user| restarted.answers_for(user)), "this one has not lost anything");
        let alone = Placement::default().after(own, &live(&[3])).expect("new");
        assert!(alone.is_settled() && users().all(|user| alone.answers_for(user)));
    }
}
