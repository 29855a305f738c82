//! Who could serve this pair of generation and model?
//!
//! Readiness belongs to one incarnation of a member: a restart clears it. A replica counts as serving when
//! it is alive, has the shard under exactly the pair that is asked for (decision 8), and counts in it what the
//! loader counted: coverage is measured against that number (decision 6).
//!
//! A member that comes back serves only when it could follow the next switch as well: it has what is active, what was
//! active before, and the candidate of a rollout. When nobody has all of them, those serve who have what is active:
//! a switch that waits costs less than a shard that nobody answers for.

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

    /// The replicas of `shard` that requests are sent to under the active model.
    #[must_use]
    pub fn serving_active(&self, generation: &Generation, shard: u32) -> Vec<u64> {
        let Some(active) = self.model(self.active_model) else { return Vec::new() };
        let ready = self.serving(generation, shard, active.hash);
        let others = [self.previous_model, self.rollout.as_ref().map(|r| r.version)];
        let whole = others.iter().filter_map(|v| self.model(*v)).fold(ready.clone(), |mut whole, model| {
            let has = self.serving(generation, shard, model.hash);
            whole.retain(|id| has.contains(id));
            whole
        });
        if whole.is_empty() { ready } else { whole }
    }

    /// Why a model may not serve yet; `None` when it may.
    #[must_use]
    pub fn model_lacks(&self, model: Hash32, overdue: Overdue) -> Option<String> {
        let router = self.alive_in(Role::Router).find(|m| !m.ready.models.contains(&model));
        if let Some(router) = router {
            return Some(format!("not_ready: router {} has not loaded the model", router.id));
        }
        if let Some(generation) = self.active() {
            return self.replicas_lack(generation, model, overdue);
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

    /// The first shard of the active generation that no replica has under the model, or that one of those that serve
    /// it now has not. A replica that does not serve now is not waited for, nor one that has had its time.
    fn replicas_lack(&self, generation: &Generation, model: Hash32, overdue: Overdue) -> Option<String> {
        for (shard, placed) in (0u32..).zip(&generation.replicas) {
            let ready = self.serving(generation, shard, model);
            if ready.is_empty() {
                return Some(format!("not_ready: shard {shard} has no ready replica"));
            }
            let serves_now = self.serving_active(generation, shard);
            let waited_for = if self.active_model.is_some() { &serves_now } else { placed };
            let late = waited_for.iter().find(|id| self.alive(**id).is_some() && !ready.contains(id));
            if let (Some(late), Overdue::No) = (late, overdue) {
                return Some(format!("not_ready: member {late} has not built shard {shard} as it was loaded"));
            }
        }
        None
    }

    fn alive(&self, id: u64) -> Option<&Member> {
        self.members.get(&id).filter(|m| m.alive)
    }

    /// The serving replicas of every shard that members see: of the active and of the pending generation, and of the
    /// active one under the candidate.
    fn serving_map(&self) -> Vec<Vec<u64>> {
        let seen = [self.active(), self.pending()].into_iter().flatten();
        let shards = seen.flat_map(|g| (0u32..).zip(&g.replicas).map(|(shard, _)| self.serving_active(g, shard)));
        shards.chain(self.serving_candidate().into_iter().map(|(_, serving)| serving)).collect()
    }

    /// Who could answer with the candidate of a rollout, by shard of the active generation.
    #[must_use]
    pub fn serving_candidate(&self) -> Vec<(u32, Vec<u64>)> {
        let candidate = self.rollout.as_ref().and_then(|r| self.models.get(&r.version));
        let (Some(candidate), Some(active)) = (candidate, self.active()) else { return Vec::new() };
        (0u32..).zip(&active.replicas).map(|(shard, _)| (shard, self.serving(active, shard, candidate.hash))).collect()
    }
}

/// Whether a model has been staged for so long that replicas which are late are no longer waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// It has.
    Yes,
    /// It has not.
    No,
}

impl From<bool> for Overdue {
    fn from(is_overdue: bool) -> Self {
        if is_overdue { Self::Yes } else { Self::No }
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
