//! What has this user seen, and may these ads be shown once more?
//!
//! Two nodes hold the counts of a user. The owner is asked first and gets the larger part of the time; one that does not
//! answer, or says that it does not hold the user yet, is followed by the replica, and is asked second for a while.
//! A reservation has a number of its own, so that both may be asked for the same one and it counts once.

use super::search::Transport;
use gavel_member::clock::now_us;
use gavel_member::transport::MESSAGE_BYTES_MAX;
use gavel_proto::deadline::Instant;
use gavel_proto::frequency::{CounterLimit, FrequencyScope, FrequencyWindow, Owners, SeenCount};
use gavel_proto::ids::MemberId;
use gavel_proto::limits::FREQUENCY_COUNTERS_MAX;
use gavel_proto::wire;
use gavel_proto::wire::frequency_service_client::FrequencyServiceClient;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// The first node's part of the time, in percent.
const FIRST_PERCENT: u64 = 60;
/// How long a node that did not answer is asked second: a View without it comes in a few seconds.
const DOUBT_US: u64 = 1_000_000;
/// For what nobody waits for.
const PATIENCE_OF_RELEASE_US: u64 = 200_000;

/// Nodes that did not answer lately, each until when.
#[derive(Debug, Default)]
pub(super) struct Doubts(Mutex<HashMap<MemberId, Instant>>);

/// Impressions that are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Hash of the user's id.
    pub user: u64,
    /// Of the request.
    pub id: u64,
    /// Each with its campaign and what it counts in.
    pub ads: Vec<(u64, u64, Vec<CounterLimit>)>,
    /// Whether it is to count.
    pub taking: Taking,
}

/// Whether impressions that are granted count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taking {
    /// They do: the ads are about to be served.
    Takes,
    /// They do not: somebody asks what would be granted.
    Looks,
}

/// What becomes of one impression that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// It counts.
    Granted,
    /// It does not, and must not be shown.
    Refused,
}

impl Transport {
    /// What a user has seen; `None` when neither node says so in time.
    pub async fn seen(&self, owners: Owners, user: u64, patience_us: u64) -> Option<Vec<SeenCount>> {
        let ask = |channel: Channel| async move {
            let reply = client(channel).counts(Request::new(wire::CountsRequest { user })).await?;
            let seen = reply.into_inner().seen;
            // A node holds more of a user only just after both of its nodes have counted apart.
            let seen = seen.iter().take(2 * FREQUENCY_COUNTERS_MAX).map(seen_count);
            seen.collect::<Option<Vec<_>>>().ok_or_else(|| Status::internal("a count of no known kind"))
        };
        self.either("counts", owners, patience_us, ask).await
    }

    /// Counts impressions, each with its fate; `None` when neither node says so in time: then some may count.
    pub async fn reserve(&self, owners: Owners, wanted: &Reservation, patience_us: u64) -> Option<Vec<Grant>> {
        let message = reserve_request(wanted);
        let ask = |channel: Channel| {
            let message = message.clone();
            async move {
                let verdicts = client(channel).reserve(Request::new(message)).await?.into_inner().verdicts;
                let granted = i32::from(wire::ReserveVerdict::ReserveGranted);
                let grant = |verdict| if verdict == granted { Grant::Granted } else { Grant::Refused };
                let grants: Vec<Grant> = verdicts.into_iter().map(grant).collect();
                let whole = grants.len() == wanted.ads.len();
                if whole { Ok(grants) } else { Err(Status::internal("not one verdict an ad")) }
            }
        };
        self.either("reserve", owners, patience_us, ask).await
    }

    /// Gives impressions back; nobody waits. One node tells the other, so the second is asked only when the first does not
    /// take it.
    pub fn release(self: &Arc<Self>, owners: Owners, user: u64, reservation: u64, ads: Vec<u64>) {
        if ads.is_empty() {
            return;
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let ask = |channel: Channel| {
                let message = wire::ReleaseRequest { user, reservation_id: reservation, ad_ids: ads.clone() };
                async move { client(channel).release(Request::new(message)).await.map(drop) }
            };
            this.either("release", owners, PATIENCE_OF_RELEASE_US, ask).await
        });
    }

    /// Asks one node, and the other when the first does not answer.
    async fn either<T, F: Future<Output = Result<T, Status>>>(
        &self,
        call: &'static str,
        owners: Owners,
        patience_us: u64,
        ask: impl Fn(Channel) -> F,
    ) -> Option<T> {
        let began = now_us();
        let order = self.doubts().order(owners, began);
        for (place, node) in order.iter().enumerate() {
            let left = patience_us.saturating_sub(now_us().0.saturating_sub(began.0));
            let is_last = place + 1 == order.len();
            let time_us = if is_last { left } else { left * FIRST_PERCENT / 100 };
            let Some(channel) = self.nodes().counts_channel(*node) else { continue };
            match tokio::time::timeout(Duration::from_micros(time_us), ask(channel)).await {
                Ok(Ok(answer)) => {
                    self.doubts().forgive(*node);
                    let outcome = if place == 0 { "first" } else { "second" };
                    ended(call, outcome, began);
                    return Some(answer);
                }
                Ok(Err(status)) => {
                    tracing::debug!(%node, %status, call, "a node did not say what a user has seen");
                }
                Err(_) => tracing::debug!(%node, call, "a node did not say in time what a user has seen"),
            }
            self.doubts().doubt(*node, now_us());
        }
        ended(call, "nobody", began);
        None
    }
}

fn ended(call: &'static str, outcome: &'static str, began: Instant) {
    let us = now_us().0.saturating_sub(began.0);
    metrics::histogram!("gavel_router_frequency_us", "call" => call, "outcome" => outcome).record(us as f64);
}

fn client(channel: Channel) -> FrequencyServiceClient<Channel> {
    FrequencyServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

fn seen_count(seen: &wire::SeenCount) -> Option<SeenCount> {
    Some(SeenCount {
        scope: FrequencyScope::from_number(seen.scope)?,
        id: seen.id,
        campaign: seen.campaign_id,
        window: FrequencyWindow::of_hours(seen.window_hours)?,
        count: u8::try_from(seen.count).unwrap_or(u8::MAX),
    })
}

fn reserve_request(wanted: &Reservation) -> wire::ReserveRequest {
    let counter = |limit: &CounterLimit| wire::CounterLimit {
        scope: limit.scope.number(),
        id: limit.id,
        window_hours: limit.window.hours().into(),
        max: limit.max.into(),
    };
    let ad = |(ad, campaign, counters): &(u64, u64, Vec<CounterLimit>)| wire::ReserveAd {
        ad_id: *ad,
        campaign_id: *campaign,
        counters: counters.iter().map(counter).collect(),
    };
    wire::ReserveRequest {
        user: wanted.user,
        reservation_id: wanted.id,
        ads: wanted.ads.iter().map(ad).collect(),
        looks: wanted.taking == Taking::Looks,
    }
}

impl Doubts {
    /// The owner first, unless it did not answer lately and the replica did.
    fn order(&self, owners: Owners, now: Instant) -> Vec<MemberId> {
        let doubted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut order: Vec<MemberId> = owners.iter().collect();
        order.sort_by_key(|node| doubted.get(node).is_some_and(|until| *until > now));
        order
    }

    fn doubt(&self, node: MemberId, now: Instant) {
        let mut doubted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        doubted.retain(|_, until| *until > now);
        doubted.insert(node, Instant(now.0 + DOUBT_US));
    }

    fn forgive(&self, node: MemberId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_did_not_answer_is_asked_second_for_a_while() {
        let (first, second) = (MemberId(4), MemberId(9));
        let owners = Owners { owner: Some(first), replica: Some(second) };
        let doubts = Doubts::default();
        let order = |at| doubts.order(owners, Instant(at));
        assert_eq!(order(0), [first, second]);
        doubts.doubt(first, Instant(10));
        assert_eq!(order(11), [second, first]);
        assert_eq!(order(10 + DOUBT_US), [first, second]);
        doubts.doubt(second, Instant(20));
        assert_eq!(order(21), [first, second], "both: as if neither");
        doubts.forgive(first);
        assert_eq!(order(22), [first, second]);
        assert!(doubts.order(Owners::default(), Instant(0)).is_empty());
    }
}
