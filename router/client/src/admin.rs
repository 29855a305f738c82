//! How does an operator change the cluster?
//!
//! A command carries an id of its own and goes to whichever voter leads: a retry under the same id is answered
//! from the receipt of the first try, so that a lost answer never makes a command happen twice.

use crate::transport::{self, ClientError};
use gavel_proto::limits::INTERNAL_MESSAGE_BYTES_MAX;
use gavel_proto::wire::admin_service_client::AdminServiceClient;
use gavel_proto::wire::command::Body;
use gavel_proto::wire::{Command, ProposeRequest, ProposeResponse, StatusRequest, StatusResponse};
use std::io::Read;
use std::time::Duration;

/// How long one voter may take for one try.
const TRY_TIMEOUT: Duration = Duration::from_secs(3);
/// Between two tries: an election takes about two seconds.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Tries before the command is given up: longer than the worst election with its retries.
const TRIES_MAX: usize = 60;

/// Operates one cluster.
#[derive(Clone, Debug)]
pub struct AdminClient {
    cluster_id: String,
    addresses: Vec<String>,
    leader: Option<String>,
}

/// What came of one try.
enum Try {
    Done(ProposeResponse),
    /// Ask this voter next, or any when it is empty.
    Elsewhere(String),
}

impl AdminClient {
    /// A client of the cluster whose voters are at `addresses`.
    ///
    /// # Errors
    /// When there is no address, or one is none.
    pub fn new(cluster_id: &str, addresses: Vec<String>) -> Result<Self, ClientError> {
        if addresses.is_empty() {
            return Err(ClientError::Address(String::new()));
        }
        Ok(Self { cluster_id: cluster_id.to_owned(), addresses, leader: None })
    }

    /// Has the command executed once, and tells what it allotted.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when the state machine says no, [`ClientError::Unreachable`] when no leader was found.
    pub async fn propose(&mut self, body: Body) -> Result<ProposeResponse, ClientError> {
        let command_id = random_id();
        let command = Command { command_id: command_id.clone(), proposed_ms: wall_ms(), body: Some(body) };
        let request = ProposeRequest { command_id, command: Some(command), cluster_id: self.cluster_id.clone() };
        let mut last = String::new();
        for turn in 0..TRIES_MAX {
            let address = self.leader.clone().unwrap_or_else(|| self.addresses[turn % self.addresses.len()].clone());
            match self.try_at(&address, request.clone(), &mut last).await? {
                Try::Done(reply) => {
                    self.leader = Some(address);
                    return Ok(reply);
                }
                Try::Elsewhere(hint) => {
                    let known = !hint.is_empty() && hint != address;
                    self.leader = known.then_some(hint);
                    if !known {
                        tokio::time::sleep(RETRY_PAUSE).await;
                    }
                }
            }
        }
        Err(ClientError::Unreachable(last))
    }

    async fn try_at(&self, address: &str, request: ProposeRequest, last: &mut String) -> Result<Try, ClientError> {
        let mut client = AdminServiceClient::new(transport::channel(address)?);
        let reply = match tokio::time::timeout(TRY_TIMEOUT, client.propose(request)).await {
            Ok(Ok(reply)) => reply.into_inner(),
            Ok(Err(status)) if will_not_change(&status) => {
                return Err(ClientError::Refused(status.message().to_owned()));
            }
            Ok(Err(status)) => {
                *last = format!("{address}: {status}");
                return Ok(Try::Elsewhere(String::new()));
            }
            Err(_) => {
                *last = format!("{address}: no answer");
                return Ok(Try::Elsewhere(String::new()));
            }
        };
        if reply.accepted {
            return Ok(Try::Done(reply));
        }
        if reply.leader_address.is_empty() && !reply.reason.is_empty() {
            return Err(ClientError::Refused(reply.reason));
        }
        *last = format!("{address} does not lead");
        Ok(Try::Elsewhere(reply.leader_address))
    }

    /// What the cluster looks like, from the first voter that answers.
    ///
    /// # Errors
    /// When none answers.
    pub async fn status(&self) -> Result<StatusResponse, ClientError> {
        let mut last = ClientError::Unreachable("no voter".to_owned());
        for address in self.leader.iter().chain(&self.addresses) {
            let mut client = AdminServiceClient::new(transport::channel(address)?)
                .max_decoding_message_size(INTERNAL_MESSAGE_BYTES_MAX);
            match tokio::time::timeout(TRY_TIMEOUT, client.status(StatusRequest { linearizable: false })).await {
                Ok(Ok(reply)) => return Ok(reply.into_inner()),
                Ok(Err(status)) => last = ClientError::Call(status),
                Err(_) => last = ClientError::Unreachable(format!("{address}: no answer")),
            }
        }
        Err(last)
    }

    /// Addresses of every voter that the cluster names, and of those that we were told.
    ///
    /// # Errors
    /// When no voter answers.
    pub async fn voters(&self) -> Result<Vec<String>, ClientError> {
        let named = self.status().await?.voters;
        let mut all: Vec<String> = named.into_iter().map(|v| v.address).filter(|a| !a.is_empty()).collect();
        if all.is_empty() {
            all.clone_from(&self.addresses);
        }
        all.sort();
        all.dedup();
        Ok(all)
    }
}

fn will_not_change(status: &tonic::Status) -> bool {
    [tonic::Code::InvalidArgument, tonic::Code::PermissionDenied, tonic::Code::Unimplemented].contains(&status.code())
}

/// 128 random bits in hex.
#[must_use]
pub fn random_id() -> String {
    let mut bytes = [0u8; 16];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes));
    // Without the device, time and process keep two operators apart.
    if read.is_err() {
        bytes[..8].copy_from_slice(&wall_ms().to_le_bytes());
        bytes[8..12].copy_from_slice(&std::process::id().to_le_bytes());
    }
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the proposer's clock enters the log inside the command, and nowhere else"
)]
fn wall_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
