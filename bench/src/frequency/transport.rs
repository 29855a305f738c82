//! How is a node asked what a user has seen?

use crate::transport::{TransportError, connect};
use gavel_proto::frequency::CounterLimit;
use gavel_proto::wire;
use gavel_proto::wire::frequency_service_client::FrequencyServiceClient;
use tonic::transport::Channel;

/// A node that counts.
#[derive(Clone, Debug)]
pub struct CountingNode {
    address: String,
    client: FrequencyServiceClient<Channel>,
}

/// What a node holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Users.
    pub users: u64,
    /// Their counters.
    pub counters: u64,
    /// Memory, as the node reckons it.
    pub bytes: u64,
    /// Whether it answers for all of its users.
    pub settled: bool,
    /// Copies on their way to the other node.
    pub waiting: u64,
}

/// An ad of a reservation, with its campaign.
pub type Wanted = (u64, u64, Vec<CounterLimit>);

impl CountingNode {
    /// Connects.
    pub async fn connect(address: &str) -> Result<Self, TransportError> {
        Ok(Self { address: address.to_owned(), client: FrequencyServiceClient::new(connect(address).await?) })
    }

    /// Counters of a user that are not 0.
    pub async fn counts(&mut self, user: u64) -> Result<u64, TransportError> {
        let reply = self.client.counts(wire::CountsRequest { user }).await;
        Ok(reply.map_err(|status| self.failed(&status))?.into_inner().seen.len() as u64)
    }

    /// How many of a reservation's ads are granted.
    pub async fn reserve(&mut self, user: u64, reservation_id: u64, ads: &[Wanted]) -> Result<u64, TransportError> {
        let counter = |limit: &CounterLimit| wire::CounterLimit {
            scope: limit.scope.number(),
            id: limit.id,
            window_hours: limit.window.hours().into(),
            max: limit.max.into(),
        };
        let ad = |(ad, campaign, counters): &Wanted| wire::ReserveAd {
            ad_id: *ad,
            campaign_id: *campaign,
            counters: counters.iter().map(counter).collect(),
        };
        let request = wire::ReserveRequest { user, reservation_id, ads: ads.iter().map(ad).collect(), looks: false };
        let reply = self.client.reserve(request).await.map_err(|status| self.failed(&status))?.into_inner();
        let granted = i32::from(wire::ReserveVerdict::ReserveGranted);
        Ok(reply.verdicts.into_iter().filter(|verdict| *verdict == granted).count() as u64)
    }

    /// How much it holds.
    pub async fn held(&mut self) -> Result<Held, TransportError> {
        let reply = self.client.held(wire::HeldRequest {}).await.map_err(|status| self.failed(&status))?.into_inner();
        Ok(Held {
            users: reply.users,
            counters: reply.counters,
            bytes: reply.bytes,
            settled: reply.settled,
            waiting: reply.copies_waiting,
        })
    }

    fn failed(&self, status: &tonic::Status) -> TransportError {
        TransportError::Call { address: self.address.clone(), reason: status.to_string() }
    }
}
