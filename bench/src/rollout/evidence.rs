//! Was every promise kept, by what clients got and by what the processes wrote?

use super::logs::{self, Line};
use super::report::Report;
use super::storm::{Fault, Seen};
use crate::fleet::{FleetError, Role};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// What the logs of the nodes say of one auction.
#[derive(Clone, Copy)]
struct Auction {
    bundle: u64,
    is_mixed: bool,
}

/// What all nodes wrote.
#[derive(Default)]
struct NodeLogs {
    answers: u64,
    auctions: HashMap<u64, Auction>,
}

/// A switch as voters and routers wrote it.
#[derive(Clone, Copy)]
struct Switch {
    at_us: u64,
    version: u64,
    map_epoch: u64,
}

/// Puts everything together.
///
/// # Errors
/// When a log cannot be read.
pub fn gather(seen: &Seen, folder: &Path) -> Result<Report, FleetError> {
    let nodes = node_logs(&logs_of(folder, "node")?)?;
    let answered = &seen.answered;
    let foreign: u64 = answered
        .bundles
        .iter()
        .filter(|((version, bundle), _)| seen.bundles.get(version) != Some(bundle))
        .map(|(_, count)| *count)
        .sum();
    let mixed_in_logs = nodes.auctions.values().filter(|a| a.is_mixed).count() as u64;
    // A response against what nodes wrote of its auction.
    let disagreeing = answered
        .versions
        .iter()
        .filter_map(|(auction, version)| Some((nodes.auctions.get(auction)?, version)))
        .filter(|(written, version)| seen.bundles.get(version) != Some(&written.bundle))
        .count() as u64;
    let unwritten = answered.versions.keys().filter(|auction| !nodes.auctions.contains_key(auction)).count() as u64;
    let failures = Failures::of(seen);
    let away_in = |during: (u64, u64)| seen.faults.iter().any(|f| overlaps(f.away, during));
    let degraded: Vec<_> = answered.partial.iter().filter(|p| !away_in(p.during)).collect();
    let (calm, all) = effective(seen, folder)?;
    let mut latency = answered.latency_us.clone();
    latency.sort_unstable();
    Ok(Report {
        activations: seen.activations,
        rollbacks: seen.rollbacks,
        kills: seen.faults.len() as u64,
        seconds: seen.took_us as f64 / 1e6,
        responses: answered.responses,
        shard_answers: answered.shard_answers,
        mixed_responses: answered.mixed + foreign,
        node_log_answers: nodes.answers,
        node_log_auctions: nodes.auctions.len() as u64,
        node_log_mixed: mixed_in_logs,
        node_log_disagreeing: disagreeing,
        responses_without_node_log: unwritten,
        failed_by_rollout: failures.others.values().sum(),
        failed_by_rollout_codes: failures.others,
        failed_in_flight_at_a_kill: failures.in_flight,
        failed_at_a_dead_router: failures.at_dead_router,
        unsent: answered.unsent,
        partial_without_fault: degraded.len() as u64,
        version_unavailable_without_fault: degraded.iter().filter(|p| p.version_unavailable > 0).count() as u64,
        partial_by_kill: answered.partial.len() as u64 - degraded.len() as u64,
        switches_that_waited: seen.waited,
        activate_effective_ms_p50: quantile(&calm, 0.5),
        activate_effective_ms_p99: quantile(&calm, 0.99),
        activate_effective_measured: calm.len() as u64,
        activate_effective_ms_p99_with_faults: quantile(&all, 0.99),
        commit_ms_p50: quantile(&seen.commit_us, 0.5),
        commit_ms_p99: quantile(&seen.commit_us, 0.99),
        latency_ms_p50: f64::from(at(&latency, 0.5)) / 1e3,
        latency_ms_p99: f64::from(at(&latency, 0.99)) / 1e3,
    })
}

fn logs_of(folder: &Path, role: &str) -> Result<Vec<PathBuf>, FleetError> {
    let entries = std::fs::read_dir(folder).map_err(FleetError::io(folder))?;
    let is_log = |path: &PathBuf| {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        name.starts_with(&format!("{role}-")) && name.ends_with(".log")
    };
    Ok(entries.flatten().map(|e| e.path()).filter(is_log).collect())
}

fn node_logs(paths: &[PathBuf]) -> Result<NodeLogs, FleetError> {
    let mut found = NodeLogs::default();
    for path in paths {
        logs::each(path, |line| {
            if line.target != "gavel_node::answers" {
                return;
            }
            found.answers += 1;
            let own = Auction { bundle: line.bundle, is_mixed: line.bundle != line.folder };
            let known = found.auctions.entry(line.auction).or_insert(own);
            known.is_mixed |= own.is_mixed || known.bundle != own.bundle;
        })?;
    }
    Ok(found)
}

/// Failed requests by what explains them.
#[derive(Debug, Default, PartialEq)]
struct Failures {
    /// Under way at the moment of a kill, and the killed process had a part in it: its router, or any node.
    in_flight: u64,
    /// Sent to a router that had been killed, before the balancer took it out.
    at_dead_router: u64,
    /// Everything else, whatever died a moment before, by code.
    others: BTreeMap<String, u64>,
}

impl Failures {
    fn of(seen: &Seen) -> Self {
        let mut found = Self::default();
        for failed in &seen.answered.failed {
            let own_router = |fault: &Fault| fault.role == Role::Router && fault.router == Some(failed.router);
            let in_flight = |fault: &Fault| {
                (own_router(fault) || fault.role == Role::Node) && overlaps(fault.killed, failed.during)
            };
            let to_the_dead = |fault: &Fault| own_router(fault) && contains(fault.offered, failed.during.0);
            if seen.faults.iter().any(in_flight) {
                found.in_flight += 1;
            } else if seen.faults.iter().any(to_the_dead) {
                found.at_dead_router += 1;
            } else {
                *found.others.entry(failed.code.clone()).or_insert(0) += 1;
            }
        }
        found
    }
}

const fn contains(span: (u64, u64), at: u64) -> bool {
    span.0 <= at && at <= span.1
}

const fn overlaps(a: (u64, u64), b: (u64, u64)) -> bool {
    a.0 <= b.1 && b.0 <= a.1
}

/// Microseconds from the moment that the first voter applied a switch to the moment that a router pinned it, for each
/// router: of switches without a fault around them, and of all.
fn effective(seen: &Seen, folder: &Path) -> Result<(Vec<u64>, Vec<u64>), FleetError> {
    let mut applied: BTreeMap<u64, Switch> = BTreeMap::new();
    for path in logs_of(folder, "control")? {
        for switch in switches(&path, "a model is activated")? {
            let first = applied.entry(switch.map_epoch).or_insert(switch);
            first.at_us = first.at_us.min(switch.at_us);
        }
    }
    let (mut calm, mut all) = (Vec::new(), Vec::new());
    let entries: Vec<Switch> = applied.into_values().filter(|s| s.at_us >= seen.began_wall_us).collect();
    for path in logs_of(folder, "router")? {
        let pins = switches(&path, "requests pin another model")?;
        for (n, entry) in entries.iter().enumerate() {
            let next = entries.get(n + 1).map_or(u64::MAX, |e| e.map_epoch);
            let pin =
                pins.iter().find(|p| p.version == entry.version && (entry.map_epoch..next).contains(&p.map_epoch));
            // A router that was away, or that saw two switches as one, has no line of its own.
            let Some(pin) = pin else { continue };
            let took = pin.at_us.saturating_sub(entry.at_us);
            all.push(took);
            let since = entry.at_us - seen.began_wall_us;
            let span = (since, since + took);
            if !seen.faults.iter().any(|f| overlaps(f.away, span)) {
                calm.push(took);
            }
        }
    }
    Ok((calm, all))
}

fn switches(path: &Path, message: &str) -> Result<Vec<Switch>, FleetError> {
    let mut found = Vec::new();
    logs::each(path, |Line { timestamp, message: said, version, map_epoch, .. }| {
        if said == message
            && let Some(at_us) = logs::micros(timestamp)
        {
            found.push(Switch { at_us, version: *version, map_epoch: *map_epoch });
        }
    })?;
    Ok(found)
}

fn at<T: Copy + Default>(sorted: &[T], q: f64) -> T {
    let place = ((sorted.len() as f64 * q).ceil() as usize).saturating_sub(1);
    sorted.get(place).copied().unwrap_or_default()
}

/// In milliseconds.
fn quantile(us: &[u64], q: f64) -> f64 {
    let mut sorted = us.to_vec();
    sorted.sort_unstable();
    at(&sorted, q) as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::super::load::{Answered, Failed};
    use super::*;

    fn failed(router: usize, from: u64, to: u64) -> Failed {
        Failed { router, during: (from, to), code: "Unavailable".to_owned() }
    }

    /// Router 0 and a node are killed at 100, the router is offered until 120, and back at 200; the leader is killed at 300.
    #[test]
    fn a_failure_is_excused_only_by_the_process_that_died_under_it() {
        let fault = |role, router, at| Fault {
            role,
            router,
            killed: (at, at + 1),
            offered: (at, at + 20),
            away: (at, at + 100),
        };
        let of = |failed: Failed| {
            let seen = Seen {
                activations: 0,
                rollbacks: 0,
                waited: 0,
                commit_us: Vec::new(),
                faults: vec![
                    fault(Role::Router, Some(0), 100),
                    fault(Role::Node, None, 1_000),
                    fault(Role::Control, None, 300),
                ],
                bundles: BTreeMap::new(),
                answered: Answered { failed: vec![failed], ..Answered::default() },
                began_wall_us: 0,
                took_us: 0,
            };
            let found = Failures::of(&seen);
            (found.in_flight, found.at_dead_router, found.others.values().sum::<u64>())
        };
        assert_eq!(of(failed(0, 90, 101)), (1, 0, 0), "under way at its own router");
        assert_eq!(of(failed(1, 90, 101)), (0, 0, 1), "under way at the other router");
        assert_eq!(of(failed(0, 115, 160)), (0, 1, 0), "sent to the dead");
        assert_eq!(of(failed(0, 150, 160)), (0, 0, 1), "the balancer had taken it out");
        assert_eq!(of(failed(0, 201, 210)), (0, 0, 1), "its router was back");
        assert_eq!(of(failed(1, 950, 1_000)), (1, 0, 0), "under way when a node died");
        assert_eq!(of(failed(1, 1_002, 1_050)), (0, 0, 1), "sent while a node was away: another has its shards");
        assert_eq!(of(failed(1, 290, 310)), (0, 0, 1), "voters answer no request");
    }
}
