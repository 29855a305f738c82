//! What did the storm show, for people and for programs?

use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A switch is effective on every router within so long, without faults.
const EFFECTIVE_MS_MAX: f64 = 50.0;

/// One storm, in numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Accepted activations.
    pub activations: u64,
    /// Accepted rollbacks.
    pub rollbacks: u64,
    /// Processes that were killed.
    pub kills: u64,
    /// How long it took.
    pub seconds: f64,
    /// Responses.
    pub responses: u64,
    /// Answers of shards in them.
    pub shard_answers: u64,
    /// Responses that mix versions, or whose shards were scored with another bundle than the version's.
    pub mixed_responses: u64,
    /// Answers that nodes wrote down.
    pub node_log_answers: u64,
    /// Auctions that they belong to.
    pub node_log_auctions: u64,
    /// Auctions whose answers came from two bundles, or from a folder of another bundle.
    pub node_log_mixed: u64,
    /// Responses that name another version than nodes wrote down.
    pub node_log_disagreeing: u64,
    /// Responses of which no node wrote anything.
    pub responses_without_node_log: u64,
    /// Failed requests that were neither under way at a kill of their router or of a node, nor sent to a dead router.
    pub failed_by_rollout: u64,
    /// The same by code.
    pub failed_by_rollout_codes: BTreeMap<String, u64>,
    /// Failed requests that were under way at the kill of their router or of a node.
    pub failed_in_flight_at_a_kill: u64,
    /// Failed requests that were sent to a router after it was killed and before the balancer took it out.
    pub failed_at_a_dead_router: u64,
    /// Requests that were not sent: too many were under way.
    pub unsent: u64,
    /// Responses below full coverage while nothing was away.
    pub partial_without_fault: u64,
    /// Those of them where a shard did not have the version.
    pub version_unavailable_without_fault: u64,
    /// Responses below full coverage while a killed process was away.
    pub partial_by_kill: u64,
    /// Switches that were refused at first because somebody was not ready.
    pub switches_that_waited: u64,
    /// From the entry to the pin, for each router, without a fault around it.
    pub activate_effective_ms_p50: f64,
    /// The same.
    pub activate_effective_ms_p99: f64,
    /// How many were measured.
    pub activate_effective_measured: u64,
    /// Of all switches.
    pub activate_effective_ms_p99_with_faults: f64,
    /// From the proposal to its answer.
    pub commit_ms_p50: f64,
    /// The same.
    pub commit_ms_p99: f64,
    /// Of answered requests.
    pub latency_ms_p50: f64,
    /// The same.
    pub latency_ms_p99: f64,
}

impl Report {
    /// Whether nothing was mixed, nothing failed by a rollout, and switches were in time.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        let none = [self.mixed_responses, self.node_log_mixed, self.node_log_disagreeing, self.failed_by_rollout];
        none.iter().all(|count| *count == 0)
            && self.responses_without_node_log == 0
            && self.activate_effective_ms_p99 <= EFFECTIVE_MS_MAX
            && self.responses > 0
    }

    /// The table that the command prints.
    #[must_use]
    pub fn table(&self) -> String {
        let mut t = String::new();
        let mut row = |name: &str, value: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(t, "{name:<44} {value}");
        };
        row("activations, rollbacks, kills", format!("{}, {}, {}", self.activations, self.rollbacks, self.kills));
        row("seconds", format!("{:.0}", self.seconds));
        row("responses, shard answers", format!("{}, {}", self.responses, self.shard_answers));
        row("mixed responses", self.mixed_responses.to_string());
        let logged = format!("{} of {} auctions", self.node_log_answers, self.node_log_auctions);
        row("answers in the nodes' logs", logged);
        row("mixed auctions in the nodes' logs", self.node_log_mixed.to_string());
        row("responses that disagree with the logs", self.node_log_disagreeing.to_string());
        row("responses without a line in the logs", self.responses_without_node_log.to_string());
        row("failed by a rollout", format!("{} {:?}", self.failed_by_rollout, self.failed_by_rollout_codes));
        let (in_flight, dead) = (self.failed_in_flight_at_a_kill, self.failed_at_a_dead_router);
        row("failed in flight at a kill, at a dead router", format!("{in_flight}, {dead}"));
        row("unsent", self.unsent.to_string());
        row(
            "partial: no fault (version), while one was away",
            format!(
                "{} ({}), {}",
                self.partial_without_fault, self.version_unavailable_without_fault, self.partial_by_kill
            ),
        );
        row("switches that waited for somebody", self.switches_that_waited.to_string());
        row(
            "effective on routers, ms p50/p99 (measured)",
            format!(
                "{:.1} / {:.1} ({})",
                self.activate_effective_ms_p50, self.activate_effective_ms_p99, self.activate_effective_measured
            ),
        );
        row("the same with faults, ms p99", format!("{:.1}", self.activate_effective_ms_p99_with_faults));
        row("commit, ms p50/p99", format!("{:.1} / {:.1}", self.commit_ms_p50, self.commit_ms_p99));
        row("latency, ms p50/p99", format!("{:.1} / {:.1}", self.latency_ms_p50, self.latency_ms_p99));
        t
    }
}
