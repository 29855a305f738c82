//! How does a router reach whichever voter leads the ledger?

use gavel_member::member::Voters;
use gavel_member::transport::{MESSAGE_BYTES_MAX, control_channel};
use gavel_proto::wire::ledger_service_client::LedgerServiceClient;
use gavel_proto::wire::ledger_wish::Body;
use gavel_proto::wire::{LedgerReply, LedgerRequest, LedgerWish};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tonic::transport::Channel;

/// One voter may take so long: longer than it waits itself, so that its word is heard.
const TRY_TIMEOUT: Duration = Duration::from_millis(3_500);
/// Between two tries.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// The voters, and which of them led last.
#[derive(Debug)]
pub struct Post {
    cluster_id: String,
    voters: Arc<Voters>,
    clients: Mutex<BTreeMap<String, LedgerServiceClient<Channel>>>,
    leader: Mutex<Option<String>>,
}

impl Post {
    pub fn new(cluster_id: &str, voters: Arc<Voters>) -> Self {
        Self { cluster_id: cluster_id.to_owned(), voters, clients: Mutex::default(), leader: Mutex::default() }
    }

    /// Has wishes entered; `None` when no leader took them within so many tries. The same may be sent again.
    pub async fn post(&self, wishes: Vec<Body>, tries: usize) -> Option<LedgerReply> {
        let wishes = wishes.into_iter().map(|body| LedgerWish { body: Some(body) }).collect();
        let request = LedgerRequest { cluster_id: self.cluster_id.clone(), wishes };
        let addresses = self.voters.addresses();
        for turn in 0..tries {
            let hinted = self.leader.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let address = hinted.unwrap_or_else(|| addresses[turn % addresses.len()].clone());
            let Some(mut client) = self.client(&address) else { continue };
            let asked = tokio::time::timeout(TRY_TIMEOUT, client.post(request.clone())).await;
            let next = match asked {
                Ok(Ok(reply)) if reply.get_ref().leader_address.is_empty() => {
                    self.lead(Some(address));
                    return Some(reply.into_inner());
                }
                Ok(Ok(reply)) => Some(reply.into_inner().leader_address).filter(|leader| *leader != address),
                Ok(Err(status)) => {
                    tracing::debug!(%address, %status, "the ledger was not reached");
                    None
                }
                Err(_) => None,
            };
            metrics::counter!("gavel_router_ledger_retries_total").increment(1);
            let is_known = next.is_some();
            self.lead(next);
            if !is_known || turn > addresses.len() {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
        None
    }

    fn lead(&self, address: Option<String>) {
        *self.leader.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }

    fn client(&self, address: &str) -> Option<LedgerServiceClient<Channel>> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(address) {
            return Some(client.clone());
        }
        let channel = control_channel(address).ok()?;
        let client = LedgerServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        clients.insert(address.to_owned(), client.clone());
        Some(client)
    }
}
