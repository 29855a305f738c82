//! What should this node do next to hold what the View asks of it?
//!
//! A pure function of what is wanted and what is held: the next step, most urgent first. The worker that
//! carries steps out asks again after each one, so a View that changes meanwhile is followed at once, and a
//! restart needs no journal: what verifies on disk is held again.

use std::collections::BTreeSet;

/// BLAKE3 of a blob or a bundle.
pub type Hash = [u8; 32];

/// A blob at the voters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Blob {
    /// Its content address.
    pub hash: Hash,
    /// Its length.
    pub bytes: u64,
}

/// A shard that is placed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedShard {
    /// Its number.
    pub shard: u32,
    /// Its documents.
    pub documents: Blob,
}

/// A generation with the shards of it that are placed here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedGeneration {
    /// Its number.
    pub generation: u64,
    /// Bids and statuses.
    pub campaigns: Blob,
    /// Placed here.
    pub shards: Vec<WantedShard>,
}

/// What the View asks of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// What requests are served from.
    pub active: Option<WantedGeneration>,
    /// What is being built.
    pub pending: Option<WantedGeneration>,
    /// The bundle that requests are served with.
    pub active_model: Option<Blob>,
    /// The bundle that a rollback goes to.
    pub previous_model: Option<Blob>,
    /// Every bundle that is to be held; those above come first.
    pub staged_models: Vec<Blob>,
}

/// What is loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Bundles.
    pub bundles: BTreeSet<Hash>,
    /// Generations whose campaigns are loaded.
    pub campaigns: BTreeSet<u64>,
    /// Content of (generation, shard).
    pub contents: BTreeSet<(u64, u32)>,
    /// Model folders of (generation, shard, bundle).
    pub models: BTreeSet<(u64, u32, Hash)>,
}

/// One thing to do. The parts that name it come first, so that steps can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Fetch, open and verify a bundle.
    LoadBundle(Blob),
    /// Fetch and decode the campaigns of a generation.
    LoadCampaigns {
        /// The generation.
        generation: u64,
        /// Where they are.
        blob: Blob,
    },
    /// Open or build the content of a shard.
    LoadContent {
        /// The generation.
        generation: u64,
        /// The shard.
        shard: u32,
        /// Its documents.
        blob: Blob,
    },
    /// Open or build the model folder of a shard; its content and the bundle are held.
    LoadModel {
        /// The generation.
        generation: u64,
        /// The shard.
        shard: u32,
        /// The bundle.
        bundle: Hash,
    },
}

impl Step {
    /// The phase in spans and metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::LoadBundle(_) => "bundle",
            Self::LoadCampaigns { .. } => "campaigns",
            Self::LoadContent { .. } => "content",
            Self::LoadModel { .. } => "model",
        }
    }

    /// What a refusal of this step is about.
    #[must_use]
    pub const fn subject(&self) -> Hash {
        match self {
            Self::LoadBundle(blob) | Self::LoadCampaigns { blob, .. } | Self::LoadContent { blob, .. } => blob.hash,
            Self::LoadModel { bundle, .. } => *bundle,
        }
    }
}

impl Wanted {
    /// Pairs of generation and bundle, most urgent first: what is served, what will be, what may be again.
    fn pairs(&self) -> Vec<(Option<&WantedGeneration>, Option<Blob>)> {
        let (active, pending) = (self.active.as_ref(), self.pending.as_ref());
        let first = [(active, self.active_model), (pending, self.active_model), (active, self.previous_model)];
        first.into_iter().chain(self.staged_models.iter().map(|model| (active, Some(*model)))).collect()
    }

    /// The next step that is neither done nor resting after a failure.
    #[must_use]
    pub fn next_step(&self, held: &Held, resting: &BTreeSet<Step>) -> Option<Step> {
        let pairs = self.pairs();
        let steps = pairs.into_iter().flat_map(|(generation, model)| steps_of(generation, model, held));
        steps.into_iter().find(|step| !resting.contains(step))
    }

    /// True when every shard of the active pair that is placed here is loaded, and there is one.
    #[must_use]
    pub fn is_served_by(&self, held: &Held) -> bool {
        let (Some(active), Some(model)) = (&self.active, self.active_model) else { return false };
        let loaded = |shard: &WantedShard| held.models.contains(&(active.generation, shard.shard, model.hash));
        !active.shards.is_empty() && active.shards.iter().all(loaded)
    }

    /// Generations that may stay on disk.
    #[must_use]
    pub fn generations(&self) -> BTreeSet<u64> {
        [&self.active, &self.pending].into_iter().flatten().map(|g| g.generation).collect()
    }

    /// Shards that may stay on disk, of a generation.
    #[must_use]
    pub fn shards_of(&self, generation: u64) -> BTreeSet<u32> {
        let all = [&self.active, &self.pending].into_iter().flatten();
        all.filter(|g| g.generation == generation).flat_map(|g| g.shards.iter().map(|s| s.shard)).collect()
    }

    /// Blobs that may stay on disk.
    #[must_use]
    pub fn blobs(&self) -> BTreeSet<Hash> {
        let shards = [&self.active, &self.pending].into_iter().flatten().flat_map(|g| &g.shards);
        shards.map(|shard| shard.documents.hash).chain(self.bundles()).collect()
    }

    /// Bundles that may stay on disk.
    #[must_use]
    pub fn bundles(&self) -> BTreeSet<Hash> {
        let named = [self.active_model, self.previous_model].into_iter().flatten();
        named.chain(self.staged_models.iter().copied()).map(|b| b.hash).collect()
    }
}

/// What is left to do for one pair, in order.
fn steps_of(generation: Option<&WantedGeneration>, model: Option<Blob>, held: &Held) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Some(model) = model.filter(|m| !held.bundles.contains(&m.hash)) {
        steps.push(Step::LoadBundle(model));
    }
    let Some(wanted) = generation else { return steps };
    let generation = wanted.generation;
    if !held.campaigns.contains(&generation) && !wanted.shards.is_empty() {
        steps.push(Step::LoadCampaigns { generation, blob: wanted.campaigns });
    }
    for WantedShard { shard, documents } in &wanted.shards {
        if !held.contents.contains(&(generation, *shard)) {
            steps.push(Step::LoadContent { generation, shard: *shard, blob: *documents });
        }
    }
    for WantedShard { shard, .. } in &wanted.shards {
        let Some(bundle) = model.map(|m| m.hash).filter(|b| held.bundles.contains(b)) else { continue };
        let built = held.models.contains(&(generation, *shard, bundle));
        if held.contents.contains(&(generation, *shard)) && !built {
            steps.push(Step::LoadModel { generation, shard: *shard, bundle });
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(n: u8) -> Blob {
        Blob { hash: [n; 32], bytes: u64::from(n) }
    }

    fn generation(generation: u64, shards: &[u32]) -> WantedGeneration {
        let shards = shards.iter().map(|s| WantedShard { shard: *s, documents: blob(*s as u8) }).collect();
        WantedGeneration { generation, campaigns: blob(99), shards }
    }

    /// Carries steps out until none is left.
    fn settle(wanted: &Wanted, held: &mut Held) -> Vec<Step> {
        let mut done = Vec::new();
        while let Some(step) = wanted.next_step(held, &BTreeSet::new()) {
            match step {
                Step::LoadBundle(blob) => held.bundles.insert(blob.hash),
                Step::LoadCampaigns { generation, .. } => held.campaigns.insert(generation),
                Step::LoadContent { generation, shard, .. } => held.contents.insert((generation, shard)),
                Step::LoadModel { generation, shard, bundle } => held.models.insert((generation, shard, bundle)),
            };
            done.push(step);
        }
        done
    }

    #[test]
    fn what_is_served_comes_first_and_nothing_twice() {
        let wanted = Wanted {
            active: Some(generation(1, &[0, 1])),
            pending: Some(generation(2, &[1])),
            active_model: Some(blob(50)),
            previous_model: None,
            staged_models: vec![blob(50), blob(51)],
        };
        let mut held = Held::default();
        let done = settle(&wanted, &mut held);
        let model = |generation, shard, n: u8| Step::LoadModel { generation, shard, bundle: [n; 32] };
        let positions =
            [model(1, 0, 50), model(1, 1, 50), model(2, 1, 50), Step::LoadBundle(blob(51)), model(1, 0, 51)]
                .map(|step| done.iter().position(|s| *s == step).expect("done"));
        assert!(positions.is_sorted(), "{done:?}");
        assert!(wanted.is_served_by(&held) && !wanted.is_served_by(&Held::default()));
        assert_eq!(held.models.len(), 5);
        assert_eq!(done.iter().collect::<BTreeSet<_>>().len(), done.len());
        assert_eq!(settle(&wanted, &mut held), Vec::new());
    }

    #[test]
    fn content_is_built_before_there_is_a_model() {
        let wanted = Wanted { pending: Some(generation(1, &[3])), ..Wanted::default() };
        let mut held = Held::default();
        assert_eq!(settle(&wanted, &mut held).len(), 2);
        assert!(held.contents.contains(&(1, 3)));
    }

    #[test]
    fn a_resting_step_does_not_hold_up_others() {
        let wanted = Wanted { active: Some(generation(1, &[0])), active_model: Some(blob(50)), ..Wanted::default() };
        let resting = BTreeSet::from([Step::LoadBundle(blob(50))]);
        let next = wanted.next_step(&Held::default(), &resting);
        assert!(matches!(next, Some(Step::LoadCampaigns { .. })));
    }
}
