//! Who is told what is said of campaigns, and who has heard it?
//!
//! One stream a member, from the voter that leads: a change goes out with the entry that was applied, the whole every
//! few seconds. What members answer is kept by member, and routers are told what nodes hold, because they pin what their
//! replicas have. It is not replicated: a new leader hears it again within a moment.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gavel_member::clock;
use gavel_proto::deadline::Instant;
use gavel_proto::limits::{READY_OTHERS_MAX, SHARDS_MAX};
use gavel_proto::wire;
use gavel_proto::wire::delivery_service_server::DeliveryService;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Leader, Voter};
use crate::convert;
use crate::state::State;
use crate::state::types::{Member, Role};

/// The whole is sent so often (decision 7).
const WHOLE_EVERY: Duration = Duration::from_secs(10);
/// Between two messages about what nodes hold: what comes together goes together.
const TOLD_EVERY: Duration = Duration::from_millis(2);
/// Between two looks whether this voter still leads.
const LEAD_LOOK: Duration = Duration::from_millis(200);
/// A member says who it is at once.
const FIRST_WORD_MAX: Duration = Duration::from_secs(2);
/// Pages on their way.
const PAGES_MAX: usize = 4;
/// Versions that a member may name for one generation.
const VERSIONS_MAX: usize = 64;

/// What members hold.
#[derive(Debug)]
pub struct Followers {
    /// By member, with the number of the stream that it said it on.
    members: Mutex<BTreeMap<u64, (u64, wire::DeliveryHeld)>>,
    streams: AtomicU64,
    changed: watch::Sender<u64>,
}

impl Default for Followers {
    fn default() -> Self {
        Self { members: Mutex::default(), streams: AtomicU64::new(0), changed: watch::Sender::new(0) }
    }
}

/// Whether a version is in force, and where not yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// Members that live and do not use it yet.
    pub behind: Vec<u64>,
}

impl Followers {
    fn members(&self) -> MutexGuard<'_, BTreeMap<u64, (u64, wire::DeliveryHeld)>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of everything that a member says.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn hear(&self, stream: u64, held: wire::DeliveryHeld) {
        {
            let mut members = self.members();
            if members.get(&held.member_id).is_some_and(|(newer, _)| *newer > stream) {
                return;
            }
            members.insert(held.member_id, (stream, held));
        }
        self.changed.send_modify(|count| *count += 1);
    }

    /// A stream has ended; what the member said on a later one stays.
    fn forget(&self, member: u64, stream: u64) {
        let mut members = self.members();
        if members.get(&member).is_some_and(|(of, _)| *of == stream) {
            members.remove(&member);
        }
    }

    /// What nodes of the state hold.
    fn nodes(&self, state: &State) -> Vec<wire::DeliveryHeld> {
        let is_node = |id: &u64| state.members.get(id).is_some_and(|m| m.role == Role::Node);
        self.members().iter().filter(|(id, _)| is_node(id)).map(|(_, (_, held))| held.clone()).collect()
    }

    /// Where `version` is not in force yet: a node that serves must hold it or a newer one for the active generation, and
    /// a router must pin one. Members that drain or are dead are not waited for.
    #[must_use]
    pub fn effect(&self, state: &State, version: u64) -> Effect {
        let members = self.members();
        let active = state.active_generation;
        let uses = |member: &Member| {
            let said = members.get(&member.id).map(|(_, held)| held);
            let said = said.filter(|held| held.incarnation == member.incarnation);
            let newest = |h: &wire::HeldDelivery| h.versions.iter().copied().max().unwrap_or(0);
            match member.role {
                Role::Control => true,
                // One that pins nothing yet answers nothing; what it has heard is what it will pin.
                Role::Router => said.is_some_and(|s| s.heard >= version && (s.pinned == 0 || s.pinned >= version)),
                Role::Node => {
                    let serves = member.ready.shards.keys().any(|key| Some(key.generation) == active);
                    let of = |h: &wire::HeldDelivery| Some(h.generation) == active && newest(h) >= version;
                    !serves || said.is_some_and(|said| said.held.iter().any(of))
                }
            }
        };
        let live = state.members.values().filter(|m| m.alive && !m.draining);
        let behind = live.filter(|m| !uses(m)).map(|m| m.id).collect();
        Effect { behind }
    }
}

/// Answers members.
pub struct DeliveryEndpoint(pub Arc<Voter>);

#[tonic::async_trait]
impl DeliveryService for DeliveryEndpoint {
    type FollowStream = ReceiverStream<Result<wire::DeliveryNews, Status>>;

    async fn follow(
        &self,
        request: Request<Streaming<wire::DeliveryHeld>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let voter = Arc::clone(&self.0);
        let (sender, news) = mpsc::channel(PAGES_MAX);
        match voter.leader() {
            Leader::Own => {}
            Leader::Unknown => return Err(Status::unavailable("no leader")),
            Leader::Other { address, .. } => {
                let elsewhere = wire::DeliveryNews { leader_address: address, ..wire::DeliveryNews::default() };
                // The channel has room.
                let _ = sender.send(Ok(elsewhere)).await;
                return Ok(Response::new(ReceiverStream::new(news)));
            }
        }
        let mut sayings = request.into_inner();
        let first = match timeout(FIRST_WORD_MAX, sayings.message()).await {
            Ok(first) => first?.ok_or_else(|| Status::invalid_argument("a member says who it is"))?,
            Err(_) => return Err(Status::deadline_exceeded("a member says at once who it is")),
        };
        voter.check_cluster(&first.cluster_id)?;
        check(&first)?;
        let member = voter.machine.applied().state.members.get(&first.member_id).map(|m| (m.incarnation, m.role));
        let Some((incarnation, role)) = member.filter(|(incarnation, _)| *incarnation == first.incarnation) else {
            return Err(Status::failed_precondition("this member has not joined yet"));
        };
        let id = first.member_id;
        let (wants, wanted) = watch::channel(false);
        let told = Told { formation: first.formation, version: first.heard };
        let stream = voter.followers.streams.fetch_add(1, Ordering::Relaxed);
        voter.followers.hear(stream, first);
        tokio::spawn(async move {
            tokio::select! {
                () = speak(&voter, &sender, role, told, wanted) => {}
                () = listen(&voter, &mut sayings, (id, incarnation, stream), &wants) => {}
                () = leads_no_more(&voter) => {}
                () = voter.shutdown.wait() => {}
            }
            voter.followers.forget(id, stream);
        });
        Ok(Response::new(ReceiverStream::new(news)))
    }
}

fn check(held: &wire::DeliveryHeld) -> Result<(), Status> {
    let generations = held.held.len() <= READY_OTHERS_MAX.min(SHARDS_MAX as usize);
    if generations && held.held.iter().all(|h| h.versions.len() <= VERSIONS_MAX) {
        return Ok(());
    }
    Err(Status::invalid_argument("more versions than a member holds"))
}

async fn leads_no_more(voter: &Voter) {
    // A leader that no majority answers may have been followed by another already.
    while voter.leader() == Leader::Own && voter.is_led() {
        tokio::time::sleep(LEAD_LOOK).await;
    }
}

/// Hears what one member holds, until it has gone.
async fn listen(
    voter: &Voter,
    sayings: &mut Streaming<wire::DeliveryHeld>,
    (id, incarnation, stream): (u64, u64, u64),
    wants: &watch::Sender<bool>,
) {
    while let Ok(Some(saying)) = sayings.message().await {
        if check(&saying).is_err() || saying.member_id != id || saying.incarnation != incarnation {
            return;
        }
        if saying.wants_whole {
            metrics::counter!("gavel_control_delivery_gaps_total").increment(1);
            wants.send_replace(true);
        }
        voter.followers.hear(stream, saying);
    }
}

fn later(wait: Duration) -> Instant {
    Instant(clock::now_us().0.saturating_add(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX)))
}

fn left(until: Instant) -> Duration {
    Duration::from_micros(until.0.saturating_sub(clock::now_us().0))
}

/// What a member was told last.
struct Told {
    formation: u64,
    version: u64,
}

/// Tells one member of everything, until it has gone.
async fn speak(
    voter: &Voter,
    sender: &mpsc::Sender<Result<wire::DeliveryNews, Status>>,
    role: Role,
    mut told: Told,
    mut wanted: watch::Receiver<bool>,
) {
    let mut progress = voter.machine.progress();
    let mut heard = voter.followers.subscribe();
    let mut whole_at = later(WHOLE_EVERY);
    heard.mark_changed();
    loop {
        let is_wanted = wanted.has_changed().unwrap_or(false);
        wanted.mark_unchanged();
        progress.mark_unchanged();
        let is_due = is_wanted || clock::now_us() >= whole_at;
        let (pages, now) = {
            let applied = voter.machine.applied();
            let state = &applied.state;
            let pages = if is_due {
                convert::delivery::whole(state)
            } else {
                convert::delivery::news(state, told.formation, told.version)
            };
            (pages, Told { formation: state.formation, version: state.delivery.version })
        };
        told = now;
        for page in pages {
            if sender.send(Ok(page)).await.is_err() {
                return;
            }
        }
        if is_due {
            whole_at = later(WHOLE_EVERY);
        }
        if role == Role::Router && heard.has_changed().unwrap_or(false) {
            heard.mark_unchanged();
            let members = voter.followers.nodes(&voter.machine.applied().state);
            let news = wire::DeliveryNews { members, ..wire::DeliveryNews::default() };
            if !news.members.is_empty() && sender.send(Ok(news)).await.is_err() {
                return;
            }
            tokio::time::sleep(TOLD_EVERY).await;
        }
        tokio::select! {
            changed = progress.changed() => if changed.is_err() { return },
            changed = heard.changed(), if role == Role::Router => {
                if changed.is_err() { return }
                heard.mark_changed();
            }
            changed = wanted.changed() => {
                if changed.is_err() { return }
                wanted.mark_changed();
            }
            () = tokio::time::sleep(left(whole_at)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::types::{Ready, ShardCount, ShardKey};

    fn member(id: u64, role: Role) -> Member {
        let serves = ShardKey { shard: 0, generation: 3, model: [1; 32] };
        Member {
            id,
            key: String::new(),
            role,
            address: String::new(),
            name: String::new(),
            incarnation: 1,
            alive: true,
            draining: false,
            ready: Ready { shards: [(serves, ShardCount::default())].into(), ..Ready::default() },
        }
    }

    fn held(member_id: u64, incarnation: u64, version: u64, pinned: u64) -> wire::DeliveryHeld {
        let held = vec![wire::HeldDelivery { generation: 3, versions: vec![version] }];
        wire::DeliveryHeld { member_id, incarnation, heard: version, held, pinned, ..wire::DeliveryHeld::default() }
    }

    #[test]
    fn a_version_is_in_force_once_everybody_who_serves_uses_it() {
        let mut state = State::genesis("c");
        state.active_generation = Some(3);
        for (id, role) in [(1, Role::Control), (2, Role::Node), (3, Role::Router), (4, Role::Node)] {
            state.members.insert(id, member(id, role));
        }
        let followers = Followers::default();
        let behind = |version| followers.effect(&state, version).behind;
        assert_eq!(behind(5), [2, 3, 4], "nobody has said anything");
        followers.hear(1, held(2, 1, 5, 0));
        followers.hear(1, held(3, 1, 4, 0));
        assert!(behind(5).contains(&3), "it pins nothing, but will pin what it has heard");
        followers.hear(1, held(3, 1, 5, 4));
        followers.hear(1, held(4, 9, 5, 0));
        assert_eq!(behind(5), [3, 4], "heard and not pinned; said by another start of the process");
        followers.hear(1, held(3, 1, 5, 5));
        followers.hear(1, held(4, 1, 6, 0));
        assert_eq!((behind(5), behind(6)), (vec![], vec![2, 3]));
        followers.hear(2, held(2, 1, 5, 0));
        followers.hear(1, held(2, 1, 3, 0));
        followers.forget(2, 1);
        assert!(behind(5).is_empty(), "it has a later stream than the one that ends");
        followers.forget(2, 2);
        assert_eq!(behind(5), [2], "it may serve and not hear");
    }
}
