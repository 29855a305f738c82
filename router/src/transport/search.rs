//! Who drives the fan-out of one request?
//!
//! One loop: send what the kernel wants, wait for a reply or its next tick, tell the kernel. Each call is a task of
//! its own that outlives a fan-out which has ended without it.

use super::answer::ShardBody;
use super::convert::{self, SearchTerms};
use super::counts::Doubts;
use super::nodes::Nodes;
use crate::fanout::{CallFailure, CallId, ExtraCalls, Fanout, Hedging, Input, NodeCall, SendReason, ShardEnd};
use crate::fanout::{ReplyStatus, ShardLatency, ShardReply};
use crate::topology::{Choice, Health, RouteTable, Verdict, choose};
use gavel_member::clock::now_us;
use gavel_member::transport::MESSAGE_BYTES_MAX;
use gavel_proto::deadline::Instant;
use gavel_proto::ids::{MemberId, ShardId};
use gavel_proto::limits::MEASURED_BYTES_MAX;
use gavel_proto::wire;
use gavel_proto::wire::shard_service_client::ShardServiceClient;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// What this router has learned of its nodes, and how it reaches them.
pub struct Transport {
    nodes: Arc<Nodes>,
    learned: Mutex<Learned>,
    doubts: Doubts,
}

struct Learned {
    health: Health,
    latency: ShardLatency,
    extra: ExtraCalls,
}

/// The end of a fan-out.
#[derive(Debug, Default)]
pub struct Gathered {
    /// How each shard ended, in the order of the table.
    pub ends: Vec<ShardEnd>,
    /// The bodies of the calls that count.
    pub bodies: HashMap<ShardId, ShardBody>,
    /// CPU time that nodes spent on the answers that came in time.
    pub node_cpu_us: u64,
}

/// How a call ended, for the kernel.
struct Reply {
    call: CallId,
    result: CallResult,
}

type CallResult = Result<NodeAnswer, CallFailure>;

/// What a node said of its shards.
struct NodeAnswer {
    shards: Vec<(ShardReply, Option<ShardBody>)>,
    cpu_us: u64,
}

impl Transport {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(nodes: Arc<Nodes>) -> Arc<Self> {
        let learned =
            Learned { health: Health::default(), latency: ShardLatency::default(), extra: ExtraCalls::new(now_us()) };
        Arc::new(Self { nodes, learned: Mutex::new(learned), doubts: Doubts::default() })
    }

    /// The nodes.
    #[must_use]
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// Whose counts did not come lately.
    pub(super) const fn doubts(&self) -> &Doubts {
        &self.doubts
    }

    /// Asks every shard of the table; returns when all have ended or `ends_at` is reached.
    pub async fn search(
        self: &Arc<Self>,
        table: &RouteTable,
        terms: Arc<SearchTerms>,
        hedging: Hedging,
        ends_at: Instant,
        random: u64,
    ) -> Gathered {
        let template = Arc::new(convert::request(&terms));
        // Each shard costs at most a first call, a hedge, a retry and another replica.
        let (replies, mut inbox) = mpsc::channel(table.shards.len().max(1) * 4);
        let dispatch = |calls: Vec<NodeCall>| {
            for call in calls {
                self.dispatch(call, &template, &terms, replies.clone());
            }
        };
        let (mut fanout, first) = self.start(table, hedging, ends_at, random);
        dispatch(first);
        let mut gathered = Gathered::default();
        let mut held: HashMap<(CallId, ShardId), ShardBody> = HashMap::new();
        loop {
            if let Some(ends) = fanout.ends() {
                for end in &ends {
                    if let Some(body) = end.call.and_then(|call| held.remove(&(call, end.shard))) {
                        gathered.bodies.insert(end.shard, body);
                    }
                }
                gathered.ends = ends;
                return gathered;
            }
            let wait = Duration::from_micros(fanout.wake_at().0.saturating_sub(now_us().0));
            let more = match tokio::time::timeout(wait, inbox.recv()).await {
                Ok(Some(Reply { call, result: Ok(NodeAnswer { shards, cpu_us }) })) => {
                    gathered.node_cpu_us += cpu_us;
                    let shard_replies: Vec<ShardReply> = shards.iter().map(|(reply, _)| *reply).collect();
                    let bodies = shards.into_iter().filter_map(|(reply, body)| Some(((call, reply.shard), body?)));
                    held.extend(bodies);
                    self.step(&mut fanout, Input::Answered(call, &shard_replies))
                }
                Ok(Some(Reply { call, result: Err(failure) })) => self.step(&mut fanout, Input::Failed(call, failure)),
                // The sender is held here, so the channel does not close.
                Ok(None) | Err(_) => self.step(&mut fanout, Input::Tick),
            };
            dispatch(more);
        }
    }

    fn learned(&self) -> MutexGuard<'_, Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self, table: &RouteTable, hedging: Hedging, ends_at: Instant, random: u64) -> (Fanout, Vec<NodeCall>) {
        let now = now_us();
        let mut learned = self.learned();
        let Learned { health, latency, extra } = &mut *learned;
        let choices: Vec<Choice> = choose(table, health, now, random);
        Fanout::start(choices, |shard| latency.hedge_delay_us(shard), hedging, now, ends_at, extra)
    }

    fn step(&self, fanout: &mut Fanout, input: Input<'_>) -> Vec<NodeCall> {
        fanout.step(now_us(), input, &mut self.learned().extra)
    }

    /// Sends one call; its reply goes to the fan-out, what it teaches to everybody.
    fn dispatch(
        self: &Arc<Self>,
        call: NodeCall,
        template: &Arc<wire::SearchRequest>,
        terms: &Arc<SearchTerms>,
        replies: mpsc::Sender<Reply>,
    ) {
        metrics::counter!("gavel_router_sends_total", "reason" => reason_name(call.reason)).increment(1);
        let (this, terms) = (Arc::clone(self), Arc::clone(terms));
        let message = wire::SearchRequest {
            shards: call.shards.iter().map(|s| s.0).collect(),
            deadline_us: call.budget_us,
            ..wire::SearchRequest::clone(template)
        };
        tokio::spawn(async move {
            let sent_at = now_us();
            this.learned().health.sent(call.node, sent_at);
            let result = this.call(&call, message).await;
            let latency_us = now_us().0.saturating_sub(sent_at.0);
            let result = result.map(|mut response| {
                let held = std::mem::take(&mut response.held_deliveries);
                if !held.is_empty() {
                    this.nodes.holds(call.node, terms.epoch.generation, held);
                }
                let cpu_us = response.cpu_us;
                NodeAnswer { shards: convert::answers(call.node, response, &terms), cpu_us }
            });
            this.learn(&call, latency_us, &result);
            // Nobody listens any more when the fan-out has ended: the answer is discarded.
            let _ = replies.send(Reply { call: call.call, result }).await;
        });
    }

    async fn call(&self, call: &NodeCall, message: wire::SearchRequest) -> Result<wire::SearchResponse, CallFailure> {
        let channel = self.nodes.channel(call.node).ok_or(CallFailure::Unreachable)?;
        let bytes_max = if message.return_all_scored { MEASURED_BYTES_MAX } else { MESSAGE_BYTES_MAX };
        let mut client = ShardServiceClient::new(channel)
            .max_decoding_message_size(bytes_max)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        // The node ends its search at the budget and has a little longer for the way back, so that a partial answer
        // gets through; both end before the fan-out does, which gave at most 95 % of its time.
        let patience = Duration::from_micros(call.budget_us + call.budget_us / 25);
        let mut request = tonic::Request::new(message);
        request.set_timeout(patience);
        match tokio::time::timeout(patience, client.search(request)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => {
                tracing::debug!(node = %call.node, %status, "a call failed");
                Err(convert::failure(&status))
            }
            Err(_) => Err(CallFailure::TimedOut),
        }
    }

    fn learn(&self, call: &NodeCall, latency_us: u64, result: &CallResult) {
        let now = now_us();
        metrics::histogram!("gavel_router_call_us").record(latency_us as f64);
        let mut learned = self.learned();
        let ejected = learned.health.ended(call.node, now, latency_us, verdict(result));
        // How long a search takes is learned from searches alone: a quick refusal would bring the hedges forward.
        for (reply, body) in result.iter().flat_map(|answer| &answer.shards) {
            if body.is_some() {
                learned.latency.record(reply.shard, now, latency_us);
            }
        }
        if ejected {
            learned.health.retain(|id| self.nodes.knows(id));
        }
        drop(learned);
        if ejected {
            metrics::counter!("gavel_router_ejections_total").increment(1);
            tracing::warn!(node = %call.node, "a node is ejected for a while");
            self.nodes.redial(call.node);
        }
    }

    /// A node that answered a shard, for a second question.
    pub(super) fn channel(&self, node: MemberId) -> Option<tonic::transport::Channel> {
        self.nodes.channel(node)
    }
}

/// The worst that a node said of any shard: nodes refuse shard by shard, inside an answer.
fn verdict(result: &CallResult) -> Verdict {
    let of_shard = |(reply, _): &(ShardReply, Option<ShardBody>)| match reply.status {
        ReplyStatus::Finished | ReplyStatus::Partial => Verdict::Answered,
        ReplyStatus::Shed | ReplyStatus::VersionUnavailable => Verdict::Refused,
        ReplyStatus::Corrupt | ReplyStatus::Fault => Verdict::Failed,
    };
    match result {
        Ok(answer) => answer.shards.iter().map(of_shard).max().unwrap_or(Verdict::Failed),
        Err(CallFailure::Shed) => Verdict::Refused,
        Err(CallFailure::Unreachable | CallFailure::TimedOut | CallFailure::Fault) => Verdict::Failed,
    }
}

const fn reason_name(reason: SendReason) -> &'static str {
    match reason {
        SendReason::First => "first",
        SendReason::Hedge => "hedge",
        SendReason::Retry => "retry",
        SendReason::OtherReplica => "other_replica",
    }
}

#[cfg(test)]
mod tests;
