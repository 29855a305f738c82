//! In which order are versions switched and processes killed?

use super::RolloutArgs;
use super::load::{Answered, Load};
use crate::clock::{monotonic_us, wall_us};
use crate::fleet::{self, CLUSTER, DOWN, Fleet, FleetError, RETRY, Role, WHOLE_MAX};
use crate::workload::{Seeded, TimedRequest};
use gavel_client::{AdminClient, ClientError};
use gavel_proto::epoch::fingerprint;
use gavel_proto::wire::command::Body;
use gavel_proto::wire::{ActivateModel, RollbackModel, StatusResponse};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Every fourth switch is a rollback.
const ROLLBACK_EVERY: u64 = 4;
/// Longest wait for a router's answer to a balancer.
const LOOK_MAX: Duration = Duration::from_secs(1);

/// A process that was away.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Its role.
    pub role: Role,
    /// Its place among the routers; routers only.
    pub router: Option<usize>,
    /// From just before the signal to when the process had ended, microseconds since the storm began.
    pub killed: (u64, u64),
    /// From the signal to when the balancer sent nothing more there.
    pub offered: (u64, u64),
    /// From the signal to when every member lived again and could serve every version.
    pub away: (u64, u64),
}

/// What happened.
#[derive(Debug)]
pub struct Seen {
    /// Accepted activations.
    pub activations: u64,
    /// Accepted rollbacks.
    pub rollbacks: u64,
    /// Switches that were refused at first because somebody was not ready.
    pub waited: u64,
    /// Microseconds from the proposal to its answer.
    pub commit_us: Vec<u64>,
    /// Kills.
    pub faults: Vec<Fault>,
    /// By version, the first bytes of its bundle's hash.
    pub bundles: BTreeMap<u64, u64>,
    /// What the load got.
    pub answered: Answered,
    /// Wall clock of the beginning, microseconds since 1970.
    pub began_wall_us: u64,
    /// How long it took, microseconds.
    pub took_us: u64,
}

/// Runs load, switches and kills; returns when all switches were made.
pub async fn run(args: &RolloutArgs, fleet: &mut Fleet, requests: Vec<TimedRequest>) -> Result<Seen, FleetError> {
    let mut admin = AdminClient::new(CLUSTER, fleet.addresses(Role::Control))?;
    let status = whole(&admin).await?;
    let bundles = bundles(&status);
    let load = Arc::new(Load::new(&fleet.addresses(Role::Router), requests, monotonic_us)?);
    let (began_wall_us, began) = (wall_us(), monotonic_us());
    let stop = Arc::new(AtomicBool::new(false));
    let sending = {
        let (load, stop, qps, seed) = (Arc::clone(&load), Arc::clone(&stop), args.qps, args.seed);
        tokio::spawn(async move { load.run(qps, seed, stop).await })
    };
    let switched = Arc::new(AtomicBool::new(false));
    let killing = kills(args, fleet, Arc::clone(&load), Arc::clone(&switched));
    let switching = async {
        let switches = switches(args, &mut admin, &bundles).await;
        switched.store(true, Ordering::Release);
        switches
    };
    let (switches, faults) = tokio::join!(switching, killing);
    stop.store(true, Ordering::Release);
    let _ = sending.await;
    let Switches { activations, rollbacks, waited, commit_us } = switches?;
    let mut answered = load.take();
    // From here on times count from the beginning.
    let since = |(from, to): (u64, u64)| (from.saturating_sub(began), to.saturating_sub(began));
    answered.failed.iter_mut().for_each(|f| f.during = since(f.during));
    answered.partial.iter_mut().for_each(|p| p.during = since(p.during));
    let faults = faults?.into_iter();
    let faults = faults.map(|f| Fault { killed: since(f.killed), away: since(f.away), ..f }).collect();
    let took_us = monotonic_us() - began;
    Ok(Seen { activations, rollbacks, waited, commit_us, faults, bundles, answered, began_wall_us, took_us })
}

struct Switches {
    activations: u64,
    rollbacks: u64,
    waited: u64,
    commit_us: Vec<u64>,
}

/// Activates each of the versions in turn and rolls back in between.
async fn switches(
    args: &RolloutArgs,
    admin: &mut AdminClient,
    bundles: &BTreeMap<u64, u64>,
) -> Result<Switches, FleetError> {
    let versions: Vec<u64> = bundles.keys().copied().collect();
    let mut done = Switches { activations: 0, rollbacks: 0, waited: 0, commit_us: Vec::new() };
    let mut random = Seeded::new(args.seed ^ 0x0073_746f_726d);
    let began = monotonic_us();
    for turn in 0..args.activations {
        // Half regular, half drawn: some switches follow each other at once, and none waits long.
        let due = (turn as f64 + random.unit() * 0.9) * args.seconds * 1e6 / args.activations as f64;
        let wait = (began + due as u64).saturating_sub(monotonic_us());
        tokio::time::sleep(Duration::from_micros(wait)).await;
        let mut was_refused = false;
        loop {
            let active = active(admin).await?;
            let is_rollback = turn % ROLLBACK_EVERY == ROLLBACK_EVERY - 1;
            let next = versions.iter().position(|v| *v == active).map_or(0, |at| (at + 1) % versions.len());
            let body = if is_rollback {
                Body::RollbackModel(RollbackModel { expect_active: active })
            } else {
                Body::ActivateModel(ActivateModel { version: versions[next], expect_active: active })
            };
            let sent = monotonic_us();
            match admin.propose(body).await {
                Ok(_) if is_rollback => done.rollbacks += 1,
                Ok(_) => done.activations += 1,
                Err(ClientError::Refused(_) | ClientError::Unreachable(_)) => {
                    done.waited += u64::from(!was_refused);
                    was_refused = true;
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            done.commit_us.push(monotonic_us() - sent);
            break;
        }
        if (turn + 1) % 20 == 0 {
            eprintln!("{} of {} switches", turn + 1, args.activations);
        }
    }
    // The last one gets its time, too.
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(done)
}

async fn active(admin: &AdminClient) -> Result<u64, FleetError> {
    loop {
        // A voter that is behind says an older version: the compare of the entry finds it out.
        match admin.status().await {
            Ok(status) => return Ok(status.view.unwrap_or_default().active_model.map_or(0, |m| m.version)),
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}

/// Ends one process at a time, a node, a router, the leader, and starts it again.
async fn kills(
    args: &RolloutArgs,
    fleet: &mut Fleet,
    load: Arc<Load>,
    switched: Arc<AtomicBool>,
) -> Result<Vec<Fault>, FleetError> {
    let mut faults = Vec::new();
    let admin = AdminClient::new(CLUSTER, fleet.addresses(Role::Control))?;
    let mut turn = 0usize;
    while args.kill && !switched.load(Ordering::Acquire) {
        tokio::time::sleep(Duration::from_secs_f64(args.kill_every)).await;
        if switched.load(Ordering::Acquire) {
            break;
        }
        let victim = victim(fleet, &admin, turn).await;
        turn += 1;
        let Some(at) = victim else { continue };
        let role = fleet.processes[at].role;
        let router =
            (role == Role::Router).then(|| fleet.processes[..at].iter().filter(|p| p.role == Role::Router).count());
        eprintln!("kill -9 {}", fleet.processes[at].name);
        // A voter's incarnation is its disk's and stays: it is back when it lives again.
        let before = match role {
            Role::Control => None,
            Role::Node | Role::Router => incarnation(&whole(&admin).await?, &fleet.processes[at].address),
        };
        let from = monotonic_us();
        fleet.processes[at].kill();
        let killed = (from, monotonic_us());
        // A balancer notices a router that refuses connections at its next look.
        if let Some(router) = router {
            load.set_up(router, false);
        }
        let offered = (from, monotonic_us());
        tokio::time::sleep(DOWN).await;
        tokio::task::block_in_place(|| fleet.processes[at].start())?;
        whole_after(&admin, (&fleet.processes[at].address, before)).await?;
        if let (Some(router), Some(http)) = (router, &fleet.processes[at].http) {
            let back = async {
                while !answers(http).await {
                    tokio::time::sleep(RETRY).await;
                }
            };
            let late = |_| FleetError::Process(format!("{http} does not come to answer"));
            tokio::time::timeout(WHOLE_MAX, back).await.map_err(late)?;
            load.set_up(router, true);
        }
        faults.push(Fault { role, router, killed, offered, away: (from, monotonic_us()) });
    }
    Ok(faults)
}

/// A node, a router, the leader, another node, and so on.
async fn victim(fleet: &Fleet, admin: &AdminClient, turn: usize) -> Option<usize> {
    let of = |role: Role, nth: usize| {
        let all: Vec<usize> = (0..fleet.processes.len()).filter(|i| fleet.processes[*i].role == role).collect();
        all.get(nth % all.len().max(1)).copied()
    };
    match turn % 3 {
        0 => of(Role::Node, turn / 3),
        1 => of(Role::Router, turn / 3),
        _ => {
            let status = admin.status().await.ok()?;
            let leader = status.voters.iter().find(|v| v.id == status.leader_id)?.address.clone();
            fleet.processes.iter().position(|p| p.address == leader)
        }
    }
}

/// Which start of the process at an address the cluster knows.
fn incarnation(status: &StatusResponse, address: &str) -> Option<u64> {
    status.view.as_ref()?.members.iter().find(|m| m.address == address).map(|m| m.incarnation)
}

/// What a balancer asks a router before it sends requests there.
async fn answers(http: &str) -> bool {
    let asked = async {
        let mut stream = tokio::net::TcpStream::connect(http).await.ok()?;
        stream
            .write_all(format!("GET /readyz HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n").as_bytes())
            .await
            .ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        Some(answer.starts_with(b"HTTP/1.1 200 "))
    };
    tokio::time::timeout(LOOK_MAX, asked).await.ok().flatten().unwrap_or(false)
}

/// Returns once every member lives and every staged version could serve.
async fn whole(admin: &AdminClient) -> Result<StatusResponse, FleetError> {
    whole_after(admin, ("", None)).await
}

/// The same after a process was started again: for a moment the leader may not have noticed that it was away, so it
/// must know the new start.
async fn whole_after(
    admin: &AdminClient,
    (address, before): (&str, Option<u64>),
) -> Result<StatusResponse, FleetError> {
    let from = monotonic_us();
    loop {
        if let Ok(status) = admin.status().await
            && is_whole(&status)
            && before.is_none_or(|before| incarnation(&status, address).is_some_and(|now| now != before))
        {
            return Ok(status);
        }
        if Duration::from_micros(monotonic_us() - from) > WHOLE_MAX {
            return Err(FleetError::Process("the cluster does not become whole".to_owned()));
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn is_whole(status: &StatusResponse) -> bool {
    let view = status.view.clone().unwrap_or_default();
    let staged = status.models.iter().filter(|m| !m.replicas.is_empty());
    fleet::is_served(&view)
        && staged.clone().count() >= 3
        && staged.flat_map(|m| &m.replicas).all(|r| r.state() == gavel_proto::wire::ReplicaState::ReplicaReady)
}

fn bundles(status: &StatusResponse) -> BTreeMap<u64, u64> {
    let models = status.models.iter().filter(|m| !m.replicas.is_empty()).filter_map(|m| m.model.as_ref());
    let of = |hash: &Vec<u8>| hash.as_slice().try_into().map_or(0, |hash: [u8; 32]| fingerprint(&hash));
    models.map(|m| (m.version, of(&m.hash))).collect()
}
