//! In which order is what the View names loaded, and when does it take effect?
//!
//! Every View takes effect at once if its active pair is loaded. Loads run one at a time beside it, the active pair
//! first: a bundle's golden rows keep a core busy, and two at once would double their time.

use super::load::{self, LoadError};
use super::picture::{ModelRef, Picture, UsersRef};
use super::{Pinned, Staging, Surroundings, convert};
use crate::quota::{quota, share};
use crate::users::{UserCache, UserFile};
use gavel_member::Shutdown;
use gavel_member::ready::Refused;
use gavel_model::Bundle;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// After a load that may succeed later.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// What one load brought.
enum Arrived {
    Model(ModelRef, Result<Arc<Bundle>, LoadError>),
    Users(UsersRef, Result<UserFile, LoadError>),
    /// A pause is over.
    Again,
}

#[derive(Default)]
struct Loaded {
    models: HashMap<[u8; 32], Arc<Bundle>>,
    users: HashMap<UsersRef, Arc<UserCache<UserFile>>>,
    refused: HashSet<[u8; 32]>,
    refused_users: HashSet<UsersRef>,
}

pub(super) async fn follow(staging: Arc<Staging>, around: Surroundings, shutdown: Shutdown) {
    let mut changes = around.view.subscribe();
    let mut loaded = Loaded::default();
    let mut loads: JoinSet<Arrived> = JoinSet::new();
    loop {
        // Marked as seen before it is read, so that no change is lost.
        changes.borrow_and_update();
        if let Some(view) = around.view.current() {
            let picture = convert::picture(&view);
            around.nodes.follow(&picture.nodes);
            loaded.forget(&picture);
            loaded.report(&around, &picture);
            if staging.take(&picture, &loaded) {
                around.health.ready().await;
            }
            if loads.is_empty() {
                loaded.load_next(&around, &picture, &mut loads);
            }
        }
        tokio::select! {
            () = shutdown.wait() => return,
            changed = changes.changed() => if changed.is_err() { return },
            Some(arrived) = loads.join_next() => loaded.arrived(arrived, &around, &mut loads),
        }
    }
}

impl Staging {
    /// Pins the picture's active pair when it is loaded; true when something is pinned now.
    fn take(&self, picture: &Picture, loaded: &Loaded) -> bool {
        let Some(active) = &picture.active else { return false };
        let pair = loaded.models.get(&active.model.hash).zip(loaded.users.get(&active.users));
        let Some((bundle, users)) = pair else { return false };
        metrics::gauge!("gavel_router_pinned_map_epoch").set(active.table.epoch.map as f64);
        // At most 1,024 shards.
        let shards = active.table.shards.len() as u32;
        self.pinned.store(Some(Arc::new(Pinned {
            table: active.table.clone(),
            bundle: Arc::clone(bundle),
            users: Arc::clone(users) as _,
            auction: picture.auction.clone(),
            placements: picture.placements.clone(),
            quota: quota(picture.auction.retrieved_total, shards),
            light_keep: share(picture.auction.ranked_total, shards),
        })));
        true
    }
}

impl Loaded {
    /// Requests in flight hold what they use, so what the View has dropped can go at once.
    fn forget(&mut self, picture: &Picture) {
        self.models.retain(|hash, _| picture.models.iter().any(|m| m.hash == *hash));
        self.refused.retain(|hash| picture.models.iter().any(|m| m.hash == *hash));
        self.users.retain(|users, _| picture.generations.contains(users));
        self.refused_users.retain(|users| picture.generations.contains(users));
    }

    fn report(&self, around: &Surroundings, picture: &Picture) {
        let held = picture.models.iter().map(|m| m.hash).filter(|hash| self.models.contains_key(hash));
        let models: Vec<[u8; 32]> = held.collect();
        let generations = picture.generations.iter().filter(|g| self.users.contains_key(g));
        let generations: Vec<u64> = generations.map(|g| g.generation).collect();
        around.ready.update(|ready| {
            ready.models = models;
            ready.generations = generations;
            ready.refusals.retain(|r| self.refused.iter().any(|hash| hash.as_slice() == r.subject));
        });
    }

    fn load_next(&self, around: &Surroundings, picture: &Picture, loads: &mut JoinSet<Arrived>) {
        let model =
            picture.models.iter().find(|m| !self.models.contains_key(&m.hash) && !self.refused.contains(&m.hash));
        let missing = |g: &&UsersRef| !self.users.contains_key(g) && !self.refused_users.contains(g);
        let users = picture.generations.iter().find(missing);
        let (data_dir, voters) = (around.data_dir.clone(), Arc::clone(&around.voters));
        // The first of each list is the active one; users are quick, so they go first.
        if let Some(users) = users.cloned() {
            loads.spawn(async move { Arrived::Users(users.clone(), load::users(data_dir, users, voters).await) });
        } else if let Some(model) = model.cloned() {
            loads.spawn(async move { Arrived::Model(model.clone(), load::model(data_dir, model, voters).await) });
        } else {
            load::prune(&data_dir, &picture.models, &picture.generations);
        }
    }

    fn arrived(
        &mut self,
        arrived: Result<Arrived, tokio::task::JoinError>,
        around: &Surroundings,
        loads: &mut JoinSet<Arrived>,
    ) {
        let (what, error) = match arrived {
            Ok(Arrived::Again) => return,
            Ok(Arrived::Model(model, Ok(bundle))) => {
                self.models.insert(model.hash, bundle);
                return;
            }
            Ok(Arrived::Users(users, Ok(file))) => {
                self.users.insert(users, Arc::new(UserCache::new(file)));
                return;
            }
            Ok(Arrived::Model(model, Err(error))) => {
                if let LoadError::Refused(reason) = &error {
                    self.refused.insert(model.hash);
                    let refused = Refused { subject: model.hash.to_vec(), reason: reason.clone() };
                    around.ready.update(|ready| ready.refusals.push(refused));
                }
                ("a bundle", error)
            }
            Ok(Arrived::Users(users, Err(error))) => {
                if matches!(error, LoadError::Refused(_)) {
                    self.refused_users.insert(users);
                }
                ("users", error)
            }
            Err(panicked) => ("a load", LoadError::Later(panicked.to_string())),
        };
        match error {
            LoadError::Refused(reason) => tracing::error!(what, %reason, "refused"),
            LoadError::Later(reason) => {
                tracing::warn!(what, %reason, "not loaded yet");
                loads.spawn(async {
                    tokio::time::sleep(RETRY_PAUSE).await;
                    Arrived::Again
                });
            }
        }
    }
}
