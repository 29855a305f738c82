//! What has this router seen of its nodes lately?
//!
//! Per node an EWMA of the latency, the calls in flight, and the failures in a row. What was seen fades: a node that
//! was slow and is asked no more would otherwise stay slow for ever, since nobody would look again. Five failures in a row
//! eject a node for 5 s, then 10 s, and so on up to a minute; one success forgives everything. The ejection is
//! only a wish: [`super::choose`] honours it as long as it leaves enough replicas of each shard.

use gavel_proto::deadline::Instant;
use gavel_proto::ids::MemberId;
use std::collections::HashMap;

/// Failures in a row that eject a node (Envoy's default).
const FAILURES_IN_A_ROW: u32 = 5;
/// First ejection; the n-th lasts n times as long.
const EJECTION_US: u64 = 5_000_000;
/// Longest ejection.
const EJECTION_US_MAX: u64 = 60_000_000;
/// What is assumed of a node that was never asked: fast enough to be tried soon, slow enough not to be flooded.
const LATENCY_US_ASSUMED: f64 = 2_000.0;
/// Weight of the newest sample: about the last ten calls count.
const NEWEST: f64 = 0.2;
/// What is seen of a node counts half after so long without a newer sample, and the assumption the other half.
const HALF_LIFE_US: f64 = 1_000_000.0;
/// The latency that a call without a search stands for: a refusal is quick, and must not look like a fast node.
const FAILURE_LATENCY_US: u64 = 100_000;

/// How a call to a node ended, the better first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It searched.
    Answered,
    /// It lives, but did not search: it had no room, or not the pinned versions.
    Refused,
    /// No connection, no answer in time, a fault or a corrupt segment.
    Failed,
}

#[derive(Clone, Copy, Debug)]
struct NodeHealth {
    latency_us: f64,
    sampled_at: Instant,
    in_flight: u32,
    failures_in_a_row: u32,
    ejections: u32,
    ejected_until: Instant,
}

impl NodeHealth {
    const fn new(now: Instant) -> Self {
        Self {
            latency_us: LATENCY_US_ASSUMED,
            sampled_at: now,
            in_flight: 0,
            failures_in_a_row: 0,
            ejections: 0,
            ejected_until: Instant(0),
        }
    }
}

/// What is known of every node that was ever asked.
#[derive(Clone, Debug, Default)]
pub struct Health {
    nodes: HashMap<MemberId, NodeHealth>,
}

impl Health {
    /// A call goes out.
    pub fn sent(&mut self, node: MemberId, now: Instant) {
        let health = self.nodes.entry(node).or_insert_with(|| NodeHealth::new(now));
        health.in_flight = health.in_flight.saturating_add(1);
    }

    /// A call has ended after `latency_us`. Answers true when this one ejected the node.
    pub fn ended(&mut self, node: MemberId, now: Instant, latency_us: u64, verdict: Verdict) -> bool {
        let health = self.nodes.entry(node).or_insert_with(|| NodeHealth::new(now));
        health.in_flight = health.in_flight.saturating_sub(1);
        let sample_us = match verdict {
            Verdict::Answered => latency_us,
            Verdict::Refused | Verdict::Failed => latency_us.max(FAILURE_LATENCY_US),
        };
        let faded = health.latency_at(now);
        // Latencies are far below 2^52 microseconds.
        health.latency_us = faded + NEWEST * (sample_us as f64 - faded);
        health.sampled_at = now;
        match verdict {
            Verdict::Answered => {
                health.failures_in_a_row = 0;
                health.ejections = 0;
                health.ejected_until = Instant(0);
                false
            }
            Verdict::Refused => false,
            Verdict::Failed => health.failed(now),
        }
    }

    /// The load of a node: expected latency times the queue that a new call would join.
    #[must_use]
    pub fn load(&self, node: MemberId, now: Instant) -> f64 {
        self.nodes.get(&node).map_or(LATENCY_US_ASSUMED, |h| h.latency_at(now) * (1.0 + f64::from(h.in_flight)))
    }

    /// Until when a node should not be asked; in the past for a healthy one.
    #[must_use]
    pub fn ejected_until(&self, node: MemberId) -> Instant {
        self.nodes.get(&node).map_or(Instant(0), |h| h.ejected_until)
    }

    /// Forgets the nodes that are no longer members.
    pub fn retain(&mut self, is_member: impl Fn(MemberId) -> bool) {
        self.nodes.retain(|node, health| is_member(*node) || health.in_flight > 0);
    }
}

impl NodeHealth {
    fn latency_at(&self, now: Instant) -> f64 {
        let age_us = now.0.saturating_sub(self.sampled_at.0) as f64;
        LATENCY_US_ASSUMED + (self.latency_us - LATENCY_US_ASSUMED) * (-age_us / HALF_LIFE_US).exp2()
    }

    fn failed(&mut self, now: Instant) -> bool {
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        if self.failures_in_a_row < FAILURES_IN_A_ROW {
            return false;
        }
        // After an ejection the next failure alone ejects again: the count starts one short.
        self.failures_in_a_row = FAILURES_IN_A_ROW - 1;
        self.ejections = self.ejections.saturating_add(1);
        let length = EJECTION_US.saturating_mul(u64::from(self.ejections)).min(EJECTION_US_MAX);
        self.ejected_until = Instant(now.0.saturating_add(length));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: MemberId = MemberId(7);

    #[test]
    fn five_failures_eject_longer_each_time_and_one_success_forgives() {
        let mut health = Health::default();
        let mut now = Instant(1_000);
        for failure in 1..=5 {
            assert_eq!(health.ended(NODE, now, 10, Verdict::Failed), failure == 5);
        }
        assert_eq!(health.ejected_until(NODE), Instant(now.0 + 5_000_000));
        for n in 2..20 {
            now = health.ejected_until(NODE);
            assert!(health.ended(NODE, now, 10, Verdict::Failed));
            assert_eq!(health.ejected_until(NODE).0 - now.0, (5_000_000 * n).min(60_000_000));
        }
        health.ended(NODE, now, 10, Verdict::Answered);
        assert_eq!(health.ejected_until(NODE), Instant(0));
        assert!(!health.ended(NODE, now, 10, Verdict::Failed));
    }

    #[test]
    fn a_queue_makes_a_node_heavier() {
        let mut health = Health::default();
        let idle = health.load(NODE, Instant(0));
        // Long after the start of the clock: a node that is asked first now has not faded since then.
        let now = Instant(3_600_000_000);
        health.sent(NODE, now);
        health.sent(NODE, now);
        assert!(health.load(NODE, now) > 2.9 * idle);
        health.ended(NODE, now, 2_000, Verdict::Answered);
        health.ended(NODE, now, 2_000, Verdict::Answered);
        assert!((health.load(NODE, now) - idle).abs() < 1e-9);
    }

    #[test]
    fn a_quick_failure_or_refusal_is_slow_and_fades_to_what_is_assumed() {
        for verdict in [Verdict::Failed, Verdict::Refused] {
            let mut health = Health::default();
            health.ended(NODE, Instant(0), 50, verdict);
            let above = |health: &Health, now| health.load(NODE, Instant(now)) - LATENCY_US_ASSUMED;
            let slow = above(&health, 0);
            assert!(slow > 4.0 * LATENCY_US_ASSUMED);
            assert!((above(&health, 2_000_000) - slow / 4.0).abs() < 1e-6);
            assert!(above(&health, 60_000_000).abs() < 1e-6);
            // Nor does a fast node become a free one.
            health.ended(NODE, Instant(60_000_000), 0, Verdict::Answered);
            assert!(above(&health, 60_000_000) < -300.0 && above(&health, 120_000_000).abs() < 1e-6);
        }
    }
}
