//! How does the pacer hear what this router served?
//!
//! Every two seconds, from whichever voter leads the control state, in parts. What nobody took is still news; a voter that
//! holds nothing of this process gets everything. While no campaign has a budget nothing is sent.

use super::bank::{Bank, Surroundings};
use super::served::STEP;
use gavel_member::member::Voters;
use gavel_member::transport::control_channel;
use gavel_proto::ids::CampaignId;
use gavel_proto::limits::SERVED_LINES_MAX;
use gavel_proto::pacing::{Delays, Line};
use gavel_proto::wire::pacing_service_client::PacingServiceClient;
use gavel_proto::wire::{ServedReply, ServedReport};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tonic::transport::Channel;

/// Between two reports: with the pacer's round and the way of a version below ten seconds.
const ROUND: Duration = Duration::from_secs(2);
/// A voter that takes longer is taken for dead.
const CALL_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Voters that are asked in one round, so that a leader is found in it.
const TRIES: usize = 4;

/// Where reports go.
#[derive(Debug)]
pub struct Reporter {
    cluster_id: String,
    voters: Arc<Voters>,
    member_id: watch::Receiver<u64>,
    incarnation: u64,
    /// Who leads, as far as is known.
    leader: Option<(String, PacingServiceClient<Channel>)>,
    turn: usize,
    /// The next report begins anew.
    whole: bool,
}

impl Reporter {
    pub fn new(surroundings: &Surroundings) -> Self {
        Self {
            cluster_id: surroundings.cluster_id.clone(),
            voters: Arc::clone(&surroundings.voters),
            member_id: surroundings.member_id.clone(),
            incarnation: surroundings.incarnation,
            leader: None,
            turn: 0,
            whole: true,
        }
    }

    /// Reports until the task ends.
    pub async fn report_on(mut self, bank: Arc<Bank>) {
        loop {
            tokio::time::sleep(ROUND).await;
            let member_id = *self.member_id.borrow();
            if let Some(wall_ms) = bank.budgeted_wall_ms().filter(|_| member_id != 0) {
                self.round(&bank, wall_ms).await;
            }
        }
    }

    /// Sends all that is news when it begins, in parts; at least one, which says how much traffic came.
    async fn round(&mut self, bank: &Bank, wall_ms: u64) {
        let counts = bank.served().counts();
        metrics::gauge!("gavel_router_served_count").set(counts.0 as f64);
        metrics::counter!("gavel_router_unfollowed_total").absolute(counts.1);
        let (mut news, mut sent, mut renewed) = (bank.served().news(), 0, false);
        while sent < news.len() || sent == 0 {
            let part = &news[sent..news.len().min(sent + SERVED_LINES_MAX)];
            let lines = lines(bank, part, wall_ms);
            let report = self.report(sums(bank), &lines);
            match self.send(report).await {
                Some(ServedReply { known: true, .. }) => {
                    self.whole = false;
                    lines.chunks(STEP).for_each(|lines| bank.served().acknowledged(lines));
                    sent += part.len().max(1);
                }
                Some(_) if !renewed => {
                    // The voter holds nothing of this process: everything, from the beginning.
                    (self.whole, renewed, sent) = (true, true, 0);
                    let mut served = bank.served();
                    served.renew();
                    news = served.news();
                }
                Some(_) | None => {
                    bank.served().returned(&news[sent.min(news.len())..]);
                    return;
                }
            }
        }
        bank.served().forget(wall_ms);
    }

    fn report(&self, (traffic, [clicks, conversions]): Sums, lines: &[Line]) -> ServedReport {
        ServedReport {
            cluster_id: self.cluster_id.clone(),
            member_id: *self.member_id.borrow(),
            incarnation: self.incarnation,
            whole: self.whole,
            campaigns: lines.iter().map(Line::to_wire).collect(),
            traffic_hours: traffic.keys().copied().collect(),
            traffic_requests: traffic.values().copied().collect(),
            click_delays: clicks.counts().to_vec(),
            conversion_delays: conversions.counts().to_vec(),
        }
    }

    /// The answer of the voter that leads; `None` when none was found.
    async fn send(&mut self, report: ServedReport) -> Option<ServedReply> {
        for _ in 0..TRIES {
            let (address, mut client) = match self.leader.take() {
                Some(leader) => leader,
                None => self.next()?,
            };
            match tokio::time::timeout(CALL_TIMEOUT, client.report_served(report.clone())).await {
                Ok(Ok(reply)) if reply.get_ref().leader_address.is_empty() => {
                    self.leader = Some((address, client));
                    return Some(reply.into_inner());
                }
                Ok(Ok(reply)) => self.leader = self.client(reply.into_inner().leader_address),
                Ok(Err(status)) => tracing::debug!(%address, %status, "the pacer was not reached"),
                Err(_) => tracing::debug!(%address, "the pacer does not answer"),
            }
            metrics::counter!("gavel_router_report_retries_total").increment(1);
        }
        None
    }

    /// The next voter of the list.
    fn next(&mut self) -> Option<(String, PacingServiceClient<Channel>)> {
        let addresses = self.voters.addresses();
        self.turn += 1;
        let address = addresses.get(self.turn % addresses.len().max(1))?.clone();
        self.client(address)
    }

    fn client(&self, address: String) -> Option<(String, PacingServiceClient<Channel>)> {
        let channel = control_channel(&address).ok()?;
        Some((address, PacingServiceClient::new(channel)))
    }
}

/// The lines of a part, with room for requests between the steps.
fn lines(bank: &Bank, part: &[CampaignId], wall_ms: u64) -> Vec<Line> {
    part.chunks(STEP).flat_map(|step| bank.served().lines(step, wall_ms)).collect()
}

/// What a report says of all campaigns together: requests by hour, delays of clicks and of conversions.
type Sums = (BTreeMap<u64, u64>, [Delays; 2]);

/// A copy, so that no request waits while a report is written.
fn sums(bank: &Bank) -> Sums {
    let served = bank.served();
    let [clicks, conversions] = served.delays();
    (served.traffic().clone(), [*clicks, *conversions])
}
