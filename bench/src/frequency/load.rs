//! In which order are users counted and asked after?

use super::FrequencyArgs;
use super::report::{Latency, P99_BOUND_US, Report};
use super::transport::{CountingNode, Held, Wanted};
use crate::clock::monotonic_us;
use crate::fleet::{CLUSTER, Fleet, FleetError, RETRY, Role, WHOLE_MAX};
use gavel_client::AdminClient;
use gavel_proto::frequency::{CounterLimit, FrequencyScope, FrequencyWindow, owners};
use gavel_proto::hash::{combine, mix64};
use gavel_proto::ids::MemberId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Calls under way while users are counted for the first time.
const FILLERS: u64 = 16;
/// Distinct campaigns; each has two ads, an advertiser five campaigns.
const CAMPAIGNS: u64 = 500;
/// A bound that is met now and then: a user is asked for many times.
const BOUND: u8 = 20;

/// The nodes by their ids, as the voter knows them.
struct Nodes {
    ids: Vec<MemberId>,
    by_id: HashMap<MemberId, CountingNode>,
}

/// What the timed calls found; times in microseconds.
#[derive(Default)]
struct Seen {
    counts: Vec<u64>,
    reserve: Vec<u64>,
    failed: u64,
    granted: u64,
    asked: u64,
}

/// Fills the nodes and measures them.
pub async fn run(args: &FrequencyArgs, fleet: &Fleet) -> Result<Report, FleetError> {
    let nodes = Arc::new(nodes(fleet).await?);
    let began = monotonic_us();
    fill(args, &nodes).await?;
    let filled = held(&nodes).await?;
    let fill_s = (monotonic_us() - began) as f64 / 1e6;
    let cpu_before = fleet.cpu_us(Role::Node);
    let (began, mut seen) = (monotonic_us(), measure(args, &nodes).await);
    let took_us = monotonic_us() - began;
    let cpu_us = fleet.cpu_us(Role::Node).saturating_sub(cpu_before);
    let calls = (seen.counts.len() + seen.reserve.len()) as u64;
    let (counts, reserve) = (Latency::of(&mut seen.counts), Latency::of(&mut seen.reserve));
    Ok(Report {
        users: args.users,
        rate: args.rate,
        seconds: took_us as f64 / 1e6,
        ads_a_reservation: args.ads,
        p99_bound_us: P99_BOUND_US,
        counts_met: counts.is_within_bound(),
        reserve_met: reserve.is_within_bound(),
        counts,
        reserve,
        failed: seen.failed,
        granted: seen.granted,
        refused: seen.asked - seen.granted,
        node_cpu_us_per_call: cpu_us as f64 / calls.max(1) as f64,
        node_cpu_share: cpu_us as f64 / took_us.max(1) as f64,
        held_users: filled.users,
        counters_per_user: filled.counters as f64 / filled.users.max(1) as f64,
        bytes_per_user: filled.bytes as f64 / filled.users.max(1) as f64,
        fill_seconds: fill_s,
    })
}

/// Waits until both nodes are members and answer for their users.
async fn nodes(fleet: &Fleet) -> Result<Nodes, FleetError> {
    let admin = AdminClient::new(CLUSTER, fleet.addresses(Role::Control))?;
    let wanted = fleet.addresses(Role::Node);
    let from = monotonic_us();
    loop {
        let view = admin.status().await.ok().and_then(|status| status.view);
        let members = view.map(|view| view.members).unwrap_or_default();
        let live: Vec<(MemberId, String)> = members
            .into_iter()
            .filter(|m| m.alive && wanted.contains(&m.address))
            .map(|m| (MemberId(m.member_id), m.address))
            .collect();
        if live.len() == wanted.len() {
            let mut by_id = HashMap::new();
            for (id, address) in &live {
                by_id.insert(*id, CountingNode::connect(address).await?);
            }
            let nodes = Nodes { ids: live.iter().map(|(id, _)| *id).collect(), by_id };
            if held(&nodes).await?.settled {
                return Ok(nodes);
            }
        }
        if Duration::from_micros(monotonic_us() - from) > WHOLE_MAX {
            return Err(FleetError::Process("the nodes do not come to count".to_owned()));
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// All nodes together.
async fn held(nodes: &Nodes) -> Result<Held, FleetError> {
    let mut all = Held { settled: true, ..Held::default() };
    for node in nodes.by_id.values() {
        let held = node.clone().held().await?;
        all = Held {
            users: all.users + held.users,
            counters: all.counters + held.counters,
            bytes: all.bytes + held.bytes,
            settled: all.settled && held.settled,
            waiting: all.waiting + held.waiting,
        };
    }
    Ok(all)
}

/// One impression of each user, and the copies of all of them.
async fn fill(args: &FrequencyArgs, nodes: &Arc<Nodes>) -> Result<(), FleetError> {
    let fillers = (0..FILLERS).map(|filler| {
        let (nodes, args) = (Arc::clone(nodes), args.clone());
        tokio::spawn(async move {
            for n in (filler..args.users).step_by(FILLERS as usize) {
                let (user, ads) = (mix64(n), ads(&args, n, 1));
                let mut node = nodes.owner(user)?;
                node.reserve(user, combine(args.seed, n), &ads).await?;
            }
            Ok::<(), FleetError>(())
        })
    });
    for filler in fillers.collect::<Vec<_>>() {
        filler.await.map_err(|lost| FleetError::Process(lost.to_string()))??;
    }
    while held(nodes).await?.waiting > 0 {
        tokio::time::sleep(RETRY).await;
    }
    Ok(())
}

/// Checks and reservations at the rate that was asked for.
async fn measure(args: &FrequencyArgs, nodes: &Arc<Nodes>) -> Seen {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let began = monotonic_us();
    let ends_us = (args.seconds * 1e6) as u64;
    let (mut sent, mut tasks) = (0u64, tokio::task::JoinSet::new());
    loop {
        let passed_us = monotonic_us() - began;
        if passed_us >= ends_us {
            break;
        }
        // The timer counts milliseconds: what has become due since the last look is sent now.
        while sent * 1_000_000 / u64::from(args.rate.max(1)) <= passed_us {
            let (nodes, args, seen) = (Arc::clone(nodes), args.clone(), Arc::clone(&seen));
            let (number, due_us) = (sent, monotonic_us());
            tasks.spawn(async move { ask(&args, &nodes, number, due_us, &seen).await });
            sent += 1;
        }
        while tasks.try_join_next().is_some() {}
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    while tasks.join_next().await.is_some() {}
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::take(&mut *seen)
}

/// One request: a check, then a reservation.
async fn ask(args: &FrequencyArgs, nodes: &Nodes, number: u64, due_us: u64, seen: &Mutex<Seen>) {
    let drawn = combine(args.seed, number);
    let user = mix64(drawn % args.users.max(1));
    let Ok(mut node) = nodes.owner(user) else { return };
    let checked = node.counts(user).await.is_ok();
    let checked_us = monotonic_us();
    let ads = ads(args, drawn, args.ads);
    // Not the number that filled the same user.
    let reserved = node.reserve(user, combine(drawn, 7), &ads).await;
    let reserved_us = monotonic_us();
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    seen.asked += ads.len() as u64;
    match (checked, reserved) {
        (true, Ok(granted)) => {
            seen.granted += granted;
            seen.counts.push(checked_us - due_us);
            seen.reserve.push(reserved_us - checked_us);
        }
        _ => seen.failed += 1,
    }
}

/// Ads of a slate, each counted for itself in a week, for its campaign in a day, for its advertiser in a month.
fn ads(args: &FrequencyArgs, drawn: u64, count: u64) -> Vec<Wanted> {
    let of = |hours| FrequencyWindow::of_hours(hours).unwrap_or(FrequencyWindow::MONTH);
    let limit = |scope, id, hours| CounterLimit { scope, id, window: of(hours), max: BOUND };
    let one = |n: u64| {
        let ad = combine(combine(args.seed, drawn), n) % (2 * CAMPAIGNS);
        let (campaign, advertiser) = (ad / 2, ad / 10);
        let counters = vec![
            limit(FrequencyScope::Ad, ad, 168),
            limit(FrequencyScope::Campaign, campaign, 24),
            limit(FrequencyScope::Advertiser, advertiser, 720),
        ];
        (ad, campaign, counters)
    };
    (0..count).map(one).collect()
}

impl Nodes {
    /// Who counts for a user.
    fn owner(&self, user: u64) -> Result<CountingNode, FleetError> {
        let owner = owners(&self.ids, user).owner.and_then(|id| self.by_id.get(&id));
        owner.cloned().ok_or_else(|| FleetError::Process("nobody counts".to_owned()))
    }
}
