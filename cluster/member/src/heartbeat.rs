//! Does the leader know that this member lives, and what it is ready for?
//!
//! Join once per incarnation, then a beat every 500 ms, and at once when readiness changes. A voter that is not
//! the leader names it; a leader that does not know the member makes it join again. On a stop the beats go on until
//! the View tells everybody that this member leaves, so that nobody asks it any more when it stops to listen.

use crate::member::{MemberConfig, Voters};
use crate::ready::{NodeMemory, Ready, StagingPhase, Standing};
use crate::view::ViewFeed;
use crate::{ReadyState, Shutdown, transport};
use gavel_proto::wire;
use gavel_proto::wire::control_service_client::ControlServiceClient;
use gavel_proto::wire::{HeartbeatRequest, HeartbeatResponse, JoinRequest, JoinResponse, ReadyShard, Refusal, Role};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// Between two beats when nothing changes.
const INTERVAL: Duration = Duration::from_millis(500);
/// Between two beats when readiness changes fast.
const INTERVAL_MIN: Duration = Duration::from_millis(20);
/// A voter that takes longer is taken for dead.
const CALL_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Between two attempts to find the leader.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// A stop waits no longer for the View: a commit takes milliseconds, and the control plane may be away.
const LEAVE_MAX: Duration = Duration::from_secs(1);
/// Different reasons for a refused join that are reported, each once.
const REASONS_MAX: usize = 16;

/// What the heartbeat works with.
pub(crate) struct Heartbeat {
    pub config: MemberConfig,
    pub role: Role,
    pub member_key: String,
    pub incarnation: u64,
    pub voters: Arc<Voters>,
    pub feed: Arc<ViewFeed>,
    pub ready: Arc<ReadyState>,
    pub member_id: watch::Sender<u64>,
}

/// The voter that is asked now.
struct Target {
    address: String,
    client: ControlServiceClient<Channel>,
}

/// What to do after an answer.
enum Next {
    /// All is well.
    Beat,
    /// The leader does not know this incarnation.
    Join,
    /// Ask this voter, or the next one in the list when it is empty.
    Ask(String),
}

impl Heartbeat {
    /// Joins and beats until the shutdown, and then until the View shows that this member drains.
    pub(crate) async fn run(self, shutdown: Shutdown) {
        tokio::select! {
            () = self.beat_on() => {}
            () = self.leave(&shutdown) => {}
        }
    }

    /// Waits for the shutdown, says it, and waits until everybody has been told.
    async fn leave(&self, shutdown: &Shutdown) {
        shutdown.wait().await;
        self.ready.update(|ready| ready.draining = true);
        if tokio::time::timeout(LEAVE_MAX, self.shown_as_draining()).await.is_err() {
            tracing::debug!("no View said in time that this member leaves");
        }
    }

    async fn shown_as_draining(&self) {
        let mut changes = self.feed.subscribe();
        loop {
            let own = *self.member_id.borrow();
            let shown = self.feed.current().is_some_and(|v| v.members.iter().any(|m| m.member_id == own && m.draining));
            // One that never joined is in no View; the feed lives as long as this does.
            if own == 0 || shown || changes.changed().await.is_err() {
                return;
            }
        }
    }

    async fn beat_on(&self) {
        let mut reported = BTreeSet::new();
        let mut turn = 0usize;
        let mut joined = false;
        let mut wanted = String::new();
        loop {
            let Some(mut target) = self.target(&wanted, &mut turn) else {
                tokio::time::sleep(RETRY_PAUSE).await;
                continue;
            };
            loop {
                let next =
                    if joined { self.beat(&mut target).await } else { self.join(&mut target, &mut reported).await };
                match next {
                    Next::Beat => {
                        joined = true;
                        self.pause().await;
                    }
                    Next::Join => {
                        joined = false;
                        // A leader that is still applying the join would be asked in a tight loop.
                        tokio::time::sleep(RETRY_PAUSE).await;
                    }
                    Next::Ask(address) => {
                        wanted = address;
                        break;
                    }
                }
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// The voter at `wanted`, or the next of the list.
    fn target(&self, wanted: &str, turn: &mut usize) -> Option<Target> {
        let address = if wanted.is_empty() {
            let addresses = self.voters.addresses();
            *turn += 1;
            addresses[*turn % addresses.len()].clone()
        } else {
            wanted.to_owned()
        };
        match transport::control_channel(&address) {
            Ok(channel) => Some(Target { client: ControlServiceClient::new(channel), address }),
            Err(error) => {
                tracing::warn!(%error, "a voter's address is no address");
                None
            }
        }
    }

    async fn pause(&self) {
        tokio::time::sleep(INTERVAL_MIN).await;
        // Whichever comes first: the next beat, or news for the leader.
        let _ = tokio::time::timeout(INTERVAL.saturating_sub(INTERVAL_MIN), self.ready.changed()).await;
    }

    async fn join(&self, target: &mut Target, reported: &mut BTreeSet<String>) -> Next {
        let request = JoinRequest {
            cluster_id: self.config.cluster_id.clone(),
            member_key: self.member_key.clone(),
            role: self.role.into(),
            address: self.config.address.clone(),
            incarnation: self.incarnation,
            name: self.config.name.clone(),
        };
        match timed(target.client.join(request)).await {
            Ok(JoinResponse { member_id, leader_address, .. }) => {
                if member_id != 0 {
                    self.member_id.send_replace(member_id);
                    tracing::info!(member_id, voter = %target.address, "joined");
                    return Next::Beat;
                }
                Next::Ask(if leader_address == target.address { String::new() } else { leader_address })
            }
            Err(status) => {
                tracing::debug!(voter = %target.address, %status, "not joined");
                // It goes on like this until a person mends it: another cluster, a key that is another role's.
                let refused = matches!(status.code(), Code::FailedPrecondition | Code::InvalidArgument);
                if refused && reported.len() < REASONS_MAX && reported.insert(status.message().to_owned()) {
                    let reason = status.message();
                    tracing::error!(voter = %target.address, reason, "the cluster does not take this member");
                }
                Next::Ask(String::new())
            }
        }
    }

    async fn beat(&self, target: &mut Target) -> Next {
        let mut request =
            request_of(self.ready.snapshot(), *self.member_id.borrow(), self.incarnation, self.feed.map_epoch());
        request.memory = self.ready.memory().map(memory_of);
        let progress = self.ready.progress();
        for phase in &mut request.model_phases {
            (phase.done, phase.total) = (progress.done, progress.total);
        }
        match timed(target.client.heartbeat(request)).await {
            Ok(HeartbeatResponse { known: true, .. }) => Next::Beat,
            Ok(HeartbeatResponse { leader_address, .. })
                if !leader_address.is_empty() && leader_address != target.address =>
            {
                Next::Ask(leader_address)
            }
            Ok(_) => {
                tracing::info!(voter = %target.address, "the leader does not know this member: joining again");
                Next::Join
            }
            Err(status) => {
                metrics::counter!("gavel_heartbeat_failures_total").increment(1);
                tracing::debug!(voter = %target.address, %status, "beat not taken");
                Next::Ask(String::new())
            }
        }
    }
}

async fn timed<T>(call: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(reply) => Ok(reply?.into_inner()),
        Err(_) => Err(Status::deadline_exceeded("no answer")),
    }
}

fn phase_of((hash, phase): ([u8; 32], StagingPhase)) -> wire::ModelPhase {
    let phase = match phase {
        StagingPhase::Fetching => wire::StagingPhase::StagingFetching,
        StagingPhase::Building => wire::StagingPhase::StagingBuilding,
    };
    wire::ModelPhase { hash: hash.to_vec(), phase: phase.into(), done: 0, total: 0 }
}

fn request_of(ready: Ready, member_id: u64, incarnation: u64, view_epoch: u64) -> HeartbeatRequest {
    let shards = ready.shards.into_iter().map(|s| ReadyShard {
        shard: s.shard.0,
        generation: s.generation,
        model_hash: s.model_hash.to_vec(),
        items: s.items,
        ads: s.ads,
    });
    HeartbeatRequest {
        member_id,
        incarnation,
        draining: ready.draining,
        ready_shards: shards.collect(),
        ready_models: ready.models.iter().map(|m| m.to_vec()).collect(),
        ready_generations: ready.generations,
        view_epoch,
        refusals: ready
            .refusals
            .into_iter()
            .map(|r| Refusal { subject: r.subject, reason: r.reason, rests: r.standing == Standing::Rests })
            .collect(),
        model_phases: ready.phases.into_iter().map(phase_of).collect(),
        rollout: ready.window,
        resident_bytes: crate::telemetry::resident_bytes(),
        memory: None,
    }
}

fn memory_of(memory: NodeMemory) -> wire::NodeMemory {
    let shards = memory.shards.into_iter().map(|s| wire::ShardMemory {
        shard: s.shard.0,
        generation: s.generation,
        mapped_bytes: s.mapped,
        resident_bytes: s.resident,
        owned_bytes: s.owned,
    });
    wire::NodeMemory { limit_bytes: memory.limit, shards: shards.collect() }
}
