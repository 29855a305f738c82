//! Who answers what a router is asked about campaigns?
//!
//! The voter that leads: a router holds nothing of them that it could answer by. Calls are passed on, with the message
//! of the voter where it refuses.

use gavel_member::member::Voters;
use gavel_member::transport::{MESSAGE_BYTES_MAX, control_channel};
use gavel_proto::limits::CAMPAIGN_WAIT_MS_MAX;
use gavel_proto::wire::campaign_service_client::CampaignServiceClient;
use gavel_proto::wire::{CampaignList, CampaignQuery, CampaignUpdated, CampaignUpdates};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tonic::Status;
use tonic::transport::Channel;

/// Beyond what a voter itself waits.
const TRY_TIMEOUT: Duration = Duration::from_secs(6);
/// Between two tries.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Tries before the caller is told to try again: longer than an election.
const TRIES_MAX: usize = 30;

/// Passes calls on.
#[derive(Debug)]
pub struct Desk {
    cluster_id: String,
    voters: Arc<Voters>,
    leader: Mutex<Option<String>>,
}

impl Desk {
    /// For a cluster.
    #[must_use]
    pub fn new(cluster_id: &str, voters: Arc<Voters>) -> Self {
        Self { cluster_id: cluster_id.to_owned(), voters, leader: Mutex::default() }
    }

    /// What stands of campaigns.
    ///
    /// # Errors
    /// The voter's, or UNAVAILABLE when none leads.
    pub async fn list(&self, query: CampaignQuery) -> Result<CampaignList, Status> {
        let query = CampaignQuery { cluster_id: self.cluster_id.clone(), ..query };
        let ask = move |mut client: CampaignServiceClient<Channel>| {
            let query = query.clone();
            async move {
                let reply = client.list(query).await?.into_inner();
                Ok((reply.leader_address.clone(), reply))
            }
        };
        self.ask(ask, TRY_TIMEOUT).await
    }

    /// Has updates carried out once: their request id tells a retry.
    ///
    /// # Errors
    /// The voter's, or UNAVAILABLE when none leads.
    pub async fn update(&self, updates: CampaignUpdates) -> Result<CampaignUpdated, Status> {
        let updates = CampaignUpdates { cluster_id: self.cluster_id.clone(), ..updates };
        let patience = TRY_TIMEOUT + Duration::from_millis(updates.wait_ms.min(CAMPAIGN_WAIT_MS_MAX).into());
        let ask = move |mut client: CampaignServiceClient<Channel>| {
            let updates = updates.clone();
            async move {
                let reply = client.update(updates).await?.into_inner();
                Ok((reply.leader_address.clone(), reply))
            }
        };
        self.ask(ask, patience).await
    }

    async fn ask<T, F: Future<Output = Result<(String, T), Status>>>(
        &self,
        ask: impl Fn(CampaignServiceClient<Channel>) -> F,
        patience: Duration,
    ) -> Result<T, Status> {
        let addresses = self.voters.addresses();
        let mut last = Status::unavailable("no voter leads: try again");
        for turn in 0..TRIES_MAX {
            let hinted = self.leader.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let address = hinted.unwrap_or_else(|| addresses[turn % addresses.len()].clone());
            let channel = control_channel(&address).map_err(|e| Status::internal(e.to_string()))?;
            let client = CampaignServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
            let next = match tokio::time::timeout(patience, ask(client)).await {
                Ok(Ok((leader, reply))) if leader.is_empty() => {
                    self.lead(Some(address));
                    return Ok(reply);
                }
                Ok(Ok((leader, _))) => Some(leader).filter(|leader| *leader != address),
                Ok(Err(status)) if status.code() == tonic::Code::Unavailable => {
                    last = status;
                    None
                }
                Ok(Err(status)) => return Err(status),
                Err(_) => None,
            };
            let is_known = next.is_some();
            self.lead(next);
            if !is_known || turn > addresses.len() {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
        Err(last)
    }

    fn lead(&self, address: Option<String>) {
        *self.leader.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }
}
