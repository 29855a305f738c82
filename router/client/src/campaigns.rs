//! How does a program manage campaigns?
//!
//! Calls go to whichever voter leads the control plane. A write carries a request id: what is not answered is sent again
//! as it was, and is carried out once.

use crate::admin::random_id;
use crate::transport::{self, ClientError};
use gavel_proto::limits::INTERNAL_MESSAGE_BYTES_MAX;
use gavel_proto::wire::campaign_service_client::CampaignServiceClient;
use gavel_proto::wire::{CampaignList, CampaignQuery, CampaignUpdate, CampaignUpdated, CampaignUpdates};
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// How long one voter may take for one try, besides the wait that was asked for.
const TRY_TIMEOUT: Duration = Duration::from_secs(6);
/// Between two tries: an election takes about two seconds.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Tries before the request is given up.
const TRIES_MAX: usize = 60;

/// Manages the campaigns of one cluster.
#[derive(Clone, Debug)]
pub struct CampaignClient {
    cluster_id: String,
    addresses: Vec<String>,
    /// Of the voter that led last, with its connection.
    leader: Option<(String, CampaignServiceClient<Channel>)>,
}

impl CampaignClient {
    /// A client of the cluster whose voters are at `addresses`.
    ///
    /// # Errors
    /// When there is no address.
    pub fn new(cluster_id: &str, addresses: Vec<String>) -> Result<Self, ClientError> {
        if addresses.is_empty() {
            return Err(ClientError::Address(String::new()));
        }
        Ok(Self { cluster_id: cluster_id.to_owned(), addresses, leader: None })
    }

    /// What stands of these campaigns, or a page of all behind `after`.
    ///
    /// # Errors
    /// When no leader was found, or a campaign is not known.
    pub async fn list(&mut self, campaigns: Vec<u64>, after: u64, limit: u32) -> Result<CampaignList, ClientError> {
        let query = CampaignQuery { cluster_id: self.cluster_id.clone(), campaigns, after, limit };
        let ask = async |client: &mut CampaignServiceClient<Channel>| {
            let reply = client.list(query.clone()).await?.into_inner();
            Ok((reply.leader_address.clone(), reply))
        };
        self.ask(ask, TRY_TIMEOUT).await
    }

    /// Has the updates carried out once under a new request id, and waits so long until they are in force everywhere.
    ///
    /// # Errors
    /// When no leader was found, or the updates are refused.
    pub async fn update(
        &mut self,
        updates: Vec<CampaignUpdate>,
        wait: Duration,
    ) -> Result<CampaignUpdated, ClientError> {
        self.update_as(&random_id(), updates, wait).await
    }

    /// The same under a request id of the caller.
    ///
    /// # Errors
    /// When no leader was found, or the updates are refused.
    pub async fn update_as(
        &mut self,
        request_id: &str,
        updates: Vec<CampaignUpdate>,
        wait: Duration,
    ) -> Result<CampaignUpdated, ClientError> {
        let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        let request = CampaignUpdates {
            cluster_id: self.cluster_id.clone(),
            request_id: request_id.to_owned(),
            updates,
            wait_ms,
        };
        let ask = async |client: &mut CampaignServiceClient<Channel>| {
            let reply = client.update(request.clone()).await?.into_inner();
            Ok((reply.leader_address.clone(), reply))
        };
        self.ask(ask, TRY_TIMEOUT + wait).await
    }

    async fn ask<T>(
        &mut self,
        ask: impl AsyncFn(&mut CampaignServiceClient<Channel>) -> Result<(String, T), Status>,
        patience: Duration,
    ) -> Result<T, ClientError> {
        let mut last = String::new();
        for turn in 0..TRIES_MAX {
            let (address, mut client) = match self.leader.take() {
                Some(leader) => leader,
                None => {
                    let address = self.addresses[turn % self.addresses.len()].clone();
                    let client = client(&address)?;
                    (address, client)
                }
            };
            match tokio::time::timeout(patience, ask(&mut client)).await {
                Ok(Ok((leader, reply))) if leader.is_empty() => {
                    self.leader = Some((address, client));
                    return Ok(reply);
                }
                Ok(Ok((leader, _))) => {
                    last = format!("{address} does not lead");
                    if leader != address {
                        self.leader = Some((leader.clone(), self::client(&leader)?));
                        continue;
                    }
                }
                Ok(Err(status)) if stays(&status) => return Err(ClientError::Refused(status.message().to_owned())),
                Ok(Err(status)) => last = format!("{address}: {status}"),
                Err(_) => last = format!("{address}: no answer"),
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        Err(ClientError::Unreachable(last))
    }
}

/// True for what another try will not change.
fn stays(status: &Status) -> bool {
    let refusals = [
        Code::InvalidArgument,
        Code::NotFound,
        Code::FailedPrecondition,
        Code::AlreadyExists,
        Code::ResourceExhausted,
        Code::Unimplemented,
    ];
    refusals.contains(&status.code())
}

fn client(address: &str) -> Result<CampaignServiceClient<Channel>, ClientError> {
    let client = CampaignServiceClient::new(transport::channel(address)?);
    Ok(client.max_decoding_message_size(INTERNAL_MESSAGE_BYTES_MAX))
}
