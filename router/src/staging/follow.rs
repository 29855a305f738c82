//! In which order is what the View names loaded, and when does it take effect?
//!
//! Every View takes effect at once if its active pair is loaded. Loads run one at a time beside it, the active pair
//! first: a bundle's golden rows keep a core busy, and two at once would double their time. What cannot be loaded now
//! rests a while and holds up nothing else.

use super::bids::{Bids, Pinning};
use super::drain::Drain;
use super::load::{Haste, LoadError, Loader};
use super::picture::{CandidatePicture, ModelRef, Picture, UsersRef};
use super::rules::Rules;
use super::windows::Counted;
use super::{Candidate, Pinned, Pins, Staging, Surroundings, convert};
use crate::quota::{quota, share};
use crate::request::Dimensions;
use crate::topology::RouteTable;
use crate::users::{UserCache, UserFile};
use gavel_member::clock::now_us;
use gavel_member::ready::{Refused, StagingPhase, Standing};
use gavel_member::{Shutdown, signing, thread};
use gavel_model::Bundle;
use gavel_proto::deadline::Instant;
use gavel_proto::wire::View;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Rest of a load that may succeed later.
const REST_US: u64 = 2_000_000;
/// The longest wait without news.
const IDLE_US: u64 = 60_000_000;

/// One thing to load. Users are quick, so they come first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    Users(UsersRef),
    Model(ModelRef),
}

/// How a task of staging ended.
enum Ended {
    Model(ModelRef, Result<Arc<Bundle>, LoadError>),
    Users(UsersRef, Result<LoadedUsers, LoadError>),
    Pruned,
}

/// Why something is not loaded yet.
enum Failure {
    /// It is tried again then, and why it has to.
    Rests(Instant, String),
    /// It never will be.
    Refused(String),
}

/// The users of a generation and what its ads are targeted by, which one blob brings, and how often they may be seen.
struct LoadedUsers {
    cache: Arc<UserCache<UserFile>>,
    dimensions: Arc<Dimensions>,
    rules: Rules,
}

#[derive(Default)]
struct Loaded {
    models: HashMap<[u8; 32], Arc<Bundle>>,
    users: HashMap<UsersRef, LoadedUsers>,
    failures: BTreeMap<Item, Failure>,
    /// What was named when the disk was swept.
    pruned: Option<(Vec<ModelRef>, Vec<UsersRef>)>,
}

pub(super) async fn follow(staging: Arc<Staging>, around: Surroundings, shutdown: Shutdown) {
    let loader = Loader {
        data_dir: around.data_dir.clone(),
        voters: Arc::clone(&around.voters),
        shutdown: shutdown.clone(),
        haste: Haste::First,
    };
    let mut changes = around.view.subscribe();
    let mut said = around.delivery.subscribe();
    let mut pinning = Pinning::default();
    let mut loaded = Loaded::default();
    // One at a time.
    let mut tasks: JoinSet<Ended> = JoinSet::new();
    let mut seen: Option<(Arc<View>, Picture)> = None;
    loop {
        // Marked as seen before it is read, so that no change is lost.
        changes.borrow_and_update();
        said.borrow_and_update();
        if let Some(view) = around.view.current()
            && seen.as_ref().is_none_or(|(seen, _)| !Arc::ptr_eq(seen, &view))
        {
            let picture = convert::picture(&view);
            around.nodes.follow(&picture.nodes);
            seen = Some((view, picture));
        }
        if let Some((_, picture)) = &seen {
            loaded.forget(picture);
            loaded.report(&around, picture);
            if let Some(bids) = pinning.bids(picture, &around.delivery, now_us()) {
                staging.put_in_force((picture, &loaded, &bids), &pinning, &around);
            }
            if tasks.is_empty() {
                let haste = if staging.pin().is_some() { Haste::Beside } else { Haste::First };
                loaded.start_next(&Loader { haste, ..loader.clone() }, picture, &around, &mut tasks);
            }
        }
        let rest = Duration::from_micros(loaded.rest_us(now_us()));
        let newer = Duration::from_micros(pinning.rest_us(now_us()));
        tokio::select! {
            () = shutdown.wait() => return,
            changed = changes.changed() => if changed.is_err() { return },
            changed = said.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(newer) => {}
            Some(ended) = tasks.join_next() => match ended {
                Ok(ended) => {
                    around.ready.update(|ready| ready.phases.clear());
                    loaded.ended(ended, now_us());
                }
                Err(error) => tracing::error!(%error, "a task of staging is lost"),
            },
            () = staging.windows.ended() => {
                let window = staging.windows.last();
                around.ready.update(|ready| ready.window = window);
            }
            () = tokio::time::sleep(rest), if tasks.is_empty() => {}
        }
    }
}

impl Staging {
    /// Pins bids, and tells the leader.
    fn put_in_force(
        &self,
        (picture, loaded, bids): (&Picture, &Loaded, &Bids),
        pinning: &Pinning,
        around: &Surroundings,
    ) {
        let first = self.pin().is_none();
        if first {
            // Before anything is answered: whoever waits for a newer version must not take this router for idle.
            pinning.acknowledge(&around.delivery);
        }
        if !self.take(picture, loaded, bids) {
            return;
        }
        pinning.acknowledge(&around.delivery);
        if first {
            // What is said of campaigns goes on meanwhile.
            let (bank, health) = (Arc::clone(&around.bank), around.health.clone());
            tokio::spawn(async move {
                bank.settled().await;
                health.ready().await;
            });
        }
    }

    /// Pins the picture's active pair when it is loaded and there are rules to auction by; true when something is pinned
    /// now.
    fn take(&self, picture: &Picture, loaded: &Loaded, bids: &Bids) -> bool {
        let Some((active, auction)) = picture.active.as_ref().zip(picture.auction.as_ref()) else { return false };
        let pair = loaded.models.get(&active.model.hash).zip(loaded.users.get(&active.users));
        let Some((bundle, users)) = pair else { return false };
        metrics::gauge!("gavel_router_pinned_map_epoch").set(active.table.epoch.map as f64);
        let before = self.pinned.load_full();
        let rules = users.rules.under(&bids.rules);
        metrics::gauge!("gavel_router_frequency_rules_count").set(rules.len() as f64);
        let pinned = |table: &RouteTable, bundle: &Arc<Bundle>| {
            let version = table.epoch.model;
            let drain = before.as_ref().and_then(|pins| pins.drain(version)).cloned();
            // At most 1,024 shards.
            let shards = table.shards.len() as u32;
            Arc::new(Pinned {
                table: table.under(bids.pin.version, &bids.held),
                excluded: Arc::clone(&bids.pin.excluded),
                bundle: Arc::clone(bundle),
                dimensions: Arc::clone(&users.dimensions),
                users: Arc::clone(&users.cache) as _,
                rules: Arc::clone(&rules),
                counting: picture.counting.clone(),
                auction: auction.clone(),
                placements: picture.placements.clone(),
                quota: quota(auction.retrieved_total, shards),
                light_keep: share(auction.ranked_total, shards),
                drain: drain.unwrap_or_else(|| Drain::new(version)),
            })
        };
        // A router that has not loaded the candidate yet answers everything with what serves.
        let candidate = picture.candidate.as_ref().and_then(|c| Some((c, loaded.models.get(&c.model.hash)?)));
        let counted =
            |c: &CandidatePicture| Counted { version: c.table.epoch.model, step: c.step, window_us: c.window_us };
        self.windows.count(candidate.map(|(c, _)| counted(c)), now_us());
        let candidate = candidate.map(|(c, bundle)| Candidate {
            pinned: pinned(&c.table, bundle),
            mode: c.mode,
            share_ppm: c.share_ppm,
        });
        let pins = Arc::new(Pins { active: pinned(&active.table, bundle), candidate });
        self.pinned.store(Some(Arc::clone(&pins)));
        let gone = before.iter().flat_map(|b| b.drains()).filter(|drain| pins.drain(drain.version()).is_none());
        gone.for_each(|drain| drain.leave());
        let version = active.table.epoch.model;
        if before.is_none_or(|b| b.active.table.epoch.model != version) {
            let _span = tracing::info_span!("activate", version).entered();
            // With the voters' lines, how long a switch took.
            tracing::info!(version, map_epoch = active.table.epoch.map, "requests pin another model");
            metrics::counter!("gavel_router_model_switches_total").increment(1);
        }
        true
    }
}

/// Loads something as a phase of staging; once there are requests, on a thread that steps back behind them.
fn staged<T: Send>(
    phase: &'static str,
    haste: Haste,
    load: impl FnOnce() -> Result<T, LoadError> + Send,
) -> Result<T, LoadError> {
    let began = now_us();
    let span = tracing::info_span!("staging", phase);
    let load = || span.in_scope(load);
    let loaded = match haste {
        Haste::First => Ok(load()),
        Haste::Beside => thread::aside("staging", load),
    };
    let took_us = now_us().0.saturating_sub(began.0);
    metrics::histogram!("gavel_router_staging_us", "phase" => phase).record(took_us as f64);
    loaded.unwrap_or_else(|error| Err(LoadError::Later(error.to_string())))
}

impl LoadedUsers {
    fn load(loader: &Loader, users: &UsersRef) -> Result<Self, LoadError> {
        let (file, rules) = (loader.users(users)?, loader.rules(users)?);
        let dimensions = Arc::new(file.dimensions());
        Ok(Self { cache: Arc::new(UserCache::new(file)), dimensions, rules })
    }
}

impl Loaded {
    /// Requests in flight hold what they use, so what the View has dropped can go at once.
    fn forget(&mut self, picture: &Picture) {
        self.models.retain(|hash, _| picture.models.iter().any(|m| m.hash == *hash));
        self.users.retain(|users, _| picture.generations.contains(users));
        self.failures.retain(|item, _| match item {
            Item::Model(model) => picture.models.contains(model),
            Item::Users(users) => picture.generations.contains(users),
        });
    }

    fn report(&self, around: &Surroundings, picture: &Picture) {
        let held = picture.models.iter().map(|m| m.hash).filter(|hash| self.models.contains_key(hash));
        let models: Vec<[u8; 32]> = held.collect();
        let generations = picture.generations.iter().filter(|g| self.users.contains_key(g));
        let generations: Vec<u64> = generations.map(|g| g.generation).collect();
        // What may come yet is said as well: an operator who waits for it looks here.
        let refused = self.failures.iter().filter_map(|(item, failure)| {
            let (reason, standing) = match failure {
                Failure::Refused(reason) => (reason, Standing::Final),
                Failure::Rests(_, reason) => (reason, Standing::Rests),
            };
            Some(Refused { subject: item.hash()?.to_vec(), reason: reason.clone(), standing })
        });
        let refusals: Vec<Refused> = refused.collect();
        around.ready.update(|ready| {
            ready.models = models;
            ready.generations = generations;
            ready.refusals = refusals;
        });
    }

    /// The next thing to load: the active pair, then what is pending or may be active again.
    fn next(&self, picture: &Picture, now: Instant) -> Option<Item> {
        let active = usize::from(picture.active.is_some());
        let (users, pending_users) = picture.generations.split_at_checked(active)?;
        let (models, other_models) = picture.models.split_at_checked(active)?;
        let order = [(users, models), (pending_users, other_models)];
        let mut items = order.into_iter().flat_map(|(users, models)| {
            users.iter().cloned().map(Item::Users).chain(models.iter().cloned().map(Item::Model))
        });
        items.find(|item| {
            let is_loaded = match item {
                Item::Model(model) => self.models.contains_key(&model.hash),
                Item::Users(users) => self.users.contains_key(users),
            };
            let may_load = match self.failures.get(item) {
                None => true,
                Some(Failure::Rests(until, _)) => *until <= now,
                Some(Failure::Refused(_)) => false,
            };
            !is_loaded && may_load
        })
    }

    /// Starts the next load; when nothing is left to load, the disk is swept, once for each set of names.
    fn start_next(&mut self, loader: &Loader, picture: &Picture, around: &Surroundings, tasks: &mut JoinSet<Ended>) {
        let loader = loader.clone();
        match self.next(picture, now_us()) {
            Some(Item::Users(users)) => {
                tasks.spawn_blocking(move || {
                    let loaded = staged("users", loader.haste, || LoadedUsers::load(&loader, &users));
                    Ended::Users(users, loaded)
                });
            }
            Some(Item::Model(model)) => {
                around.ready.update(|ready| ready.phases = vec![(model.hash, StagingPhase::Fetching)]);
                let view = around.view.current();
                tasks.spawn_blocking(move || {
                    let signed = view.map_or(Ok(()), |view| signing::check(&view, &model.hash));
                    let loaded = match signed {
                        Ok(()) => staged("bundle", loader.haste, || loader.model(&model)),
                        Err(unsigned) => Err(LoadError::Refused(format!("signature: {unsigned}"))),
                    };
                    Ended::Model(model, loaded)
                });
            }
            None => {
                let named = (picture.models.clone(), picture.generations.clone());
                if self.pruned.as_ref() != Some(&named) {
                    self.pruned = Some(named.clone());
                    tasks.spawn_blocking(move || {
                        loader.prune(&named.0, &named.1);
                        Ended::Pruned
                    });
                }
            }
        }
    }

    fn ended(&mut self, ended: Ended, now: Instant) {
        let (item, loaded) = match ended {
            Ended::Pruned => return,
            Ended::Model(model, loaded) => {
                let loaded = loaded.map(|bundle| drop(self.models.insert(model.hash, bundle)));
                (Item::Model(model), loaded)
            }
            Ended::Users(users, loaded) => {
                let loaded = loaded.map(|loaded| drop(self.users.insert(users.clone(), loaded)));
                (Item::Users(users), loaded)
            }
        };
        match loaded {
            Ok(()) => drop(self.failures.remove(&item)),
            Err(LoadError::Refused(reason) | LoadError::Damaged(reason)) => {
                tracing::error!(?item, %reason, "refused");
                self.failures.insert(item, Failure::Refused(reason));
            }
            Err(LoadError::Later(reason)) => {
                tracing::warn!(?item, %reason, "not loaded yet");
                self.failures.insert(item, Failure::Rests(Instant(now.0 + REST_US), reason));
            }
        }
    }

    /// Until the first rest is over.
    fn rest_us(&self, now: Instant) -> u64 {
        let rests = self.failures.values().filter_map(|failure| match failure {
            Failure::Rests(until, _) => Some(until.0.saturating_sub(now.0)),
            Failure::Refused(_) => None,
        });
        rests.min().unwrap_or(IDLE_US)
    }
}

impl Item {
    /// What a refusal of it is about.
    fn hash(&self) -> Option<[u8; 32]> {
        match self {
            Self::Model(model) => Some(model.hash),
            Self::Users(users) => users.blob.map(|(hash, _)| hash),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(generation: u64) -> UsersRef {
        UsersRef { generation, blob: Some(([generation as u8; 32], 1)), campaigns: None }
    }

    fn model(n: u8) -> ModelRef {
        ModelRef { hash: [n; 32], bytes: 1 }
    }

    /// Generation 1 with model 1 is active, generation 2 and model 2 are pending.
    fn picture() -> Picture {
        let active = super::super::picture::Active { model: model(1), users: users(1), table: RouteTable::default() };
        Picture {
            active: Some(active),
            models: vec![model(1), model(2)],
            generations: vec![users(1), users(2)],
            ..convert::picture(&gavel_proto::wire::View::default())
        }
    }

    #[test]
    fn the_active_pair_comes_first_and_a_failure_holds_up_nothing_else() {
        let (mut loaded, picture, now) = (Loaded::default(), picture(), Instant(1_000));
        let order = [Item::Users(users(1)), Item::Model(model(1)), Item::Users(users(2)), Item::Model(model(2))];
        for item in &order {
            assert_eq!(loaded.next(&picture, now).as_ref(), Some(item));
            let away = || LoadError::Later("no voter has it".into());
            match item.clone() {
                Item::Users(users) => loaded.ended(Ended::Users(users, Err(away())), now),
                Item::Model(model) => loaded.ended(Ended::Model(model, Err(away())), now),
            }
        }
        assert_eq!((loaded.next(&picture, now), loaded.rest_us(now)), (None, REST_US));
        let later = Instant(now.0 + REST_US);
        assert_eq!(loaded.next(&picture, later).as_ref(), order.first());
        loaded.ended(Ended::Users(users(1), Err(LoadError::Refused("no good".into()))), later);
        assert_eq!(loaded.next(&picture, Instant(later.0 + REST_US)).as_ref(), order.get(1), "refused for good");
        assert_eq!(loaded.rest_us(Instant(later.0 + REST_US)), 0);
        let before = Picture { active: None, ..picture };
        assert_eq!(loaded.next(&before, later).as_ref(), order.get(2), "before anything is active");
    }
}
