//! Who could serve this pair of generation and model?
//!
//! Readiness belongs to one incarnation of a member: a restart clears it. A replica counts as serving when
//! it is alive, has the shard under exactly the pair that is asked for (decision 8), and counts in it what the
//! loader counted: coverage is measured against that number (decision 6).

use super::types::{Generation, Hash32, Member, Ready, Role, ShardCount, ShardKey};
use super::{State, Verdict};

impl State {
    /// The placed replicas of `shard` that are alive and ready for (generation, model).
    #[must_use]
    pub fn serving(&self, generation: &Generation, shard: u32, model: Hash32) -> Vec<u64> {
        let key = ShardKey { shard, generation: generation.number, model };
        let at = shard as usize;
        let (Some(placed), Some(source)) = (generation.replicas.get(at), generation.shards.get(at)) else {
            return Vec::new();
        };
        let whole = ShardCount { items: source.items, ads: source.ads };
        let holds = |id: &u64| self.alive(*id).is_some_and(|m| m.ready.shards.get(&key) == Some(&whole));
        placed.iter().copied().filter(holds).collect()
    }

    /// Why a model may not serve yet; `None` when it may.
    #[must_use]
    pub fn model_lacks(&self, model: Hash32) -> Option<String> {
        let router = self.alive_in(Role::Router).find(|m| !m.ready.models.contains(&model));
        if let Some(router) = router {
            return Some(format!("not_ready: router {} has not loaded the model", router.id));
        }
        if let Some(generation) = self.active() {
            return self.shards_lack(generation, model);
        }
        let node = self.alive_in(Role::Node).find(|m| !m.ready.models.contains(&model));
        node.map(|node| format!("not_ready: node {} has not loaded the model", node.id))
    }

    /// Why a generation may not serve yet under the active model; `None` when it may.
    #[must_use]
    pub fn generation_lacks(&self, generation: &Generation) -> Option<String> {
        let Some(model) = self.model(self.active_model) else {
            return Some("not_ready: no model is active".to_owned());
        };
        let router = self.alive_in(Role::Router).find(|m| !m.ready.generations.contains(&generation.number));
        if let Some(router) = router {
            return Some(format!("not_ready: router {} has not loaded generation {}", router.id, generation.number));
        }
        self.shards_lack(generation, model.hash)
    }

    /// Members of a role that answer.
    pub fn alive_in(&self, role: Role) -> impl Iterator<Item = &Member> {
        self.members.values().filter(move |m| m.role == role && m.alive)
    }

    /// The first shard that a live placed replica has not ready, or that none has.
    fn shards_lack(&self, generation: &Generation, model: Hash32) -> Option<String> {
        for (shard, placed) in (0u32..).zip(&generation.replicas) {
            let serving = self.serving(generation, shard, model);
            if serving.is_empty() {
                return Some(format!("not_ready: shard {shard} has no ready replica"));
            }
            let late = placed.iter().find(|id| self.alive(**id).is_some() && !serving.contains(id));
            if let Some(late) = late {
                return Some(format!("not_ready: member {late} has not built shard {shard} as it was loaded"));
            }
        }
        None
    }

    fn alive(&self, id: u64) -> Option<&Member> {
        self.members.get(&id).filter(|m| m.alive)
    }

    /// The serving replicas of every shard that members see: of the active and of the pending generation.
    fn serving_map(&self) -> Vec<Vec<u64>> {
        let Some(model) = self.model(self.active_model) else {
            return Vec::new();
        };
        let seen = [self.active(), self.pending()].into_iter().flatten();
        seen.flat_map(|g| (0u32..).zip(&g.replicas).map(|(shard, _)| self.serving(g, shard, model.hash))).collect()
    }
}

/// Takes what the leader heard from a member.
pub fn report(state: &mut State, member: u64, incarnation: u64, ready: &Ready) -> Verdict {
    let before = state.serving_map();
    let known = state.members.get_mut(&member).ok_or("unknown_member")?;
    if known.incarnation != incarnation {
        return Err("stale_incarnation".to_owned());
    }
    known.ready = ready.clone();
    if state.serving_map() != before {
        state.map_epoch += 1;
    }
    Ok(member)
}
