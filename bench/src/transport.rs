//! How does the load generator reach a cluster?
//!
//! The only place of this crate where messages of the wire are made and read.

use crate::workload::TimedRequest;
use gavel_proto::wire;
use gavel_proto::wire::admin_service_client::AdminServiceClient;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Why the cluster could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// Not an address.
    #[error("{address} is no address: write it as host:port")]
    Address {
        /// What was given.
        address: String,
    },
    /// No connection.
    #[error("{address} does not answer: {reason}; is the cluster up?")]
    Connect {
        /// Who was asked.
        address: String,
        /// What the transport said.
        reason: String,
    },
    /// The call failed.
    #[error("{address}: {reason}")]
    Call {
        /// Who was asked.
        address: String,
        /// The status.
        reason: String,
    },
}

/// One process of the cluster.
#[derive(Clone, Debug)]
pub struct Member {
    /// control, node or router.
    pub role: &'static str,
    /// host:port of its gRPC endpoint.
    pub address: String,
}

/// Connects to `host:port`.
///
/// # Errors
/// When the address is none or nobody answers there.
pub async fn connect(address: &str) -> Result<Channel, TransportError> {
    let bad = || TransportError::Address { address: address.to_owned() };
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|_| bad())?;
    let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true);
    endpoint.connect().await.map_err(|e| TransportError::Connect { address: address.to_owned(), reason: e.to_string() })
}

/// The members of the cluster that a control voter knows, the voter's group included.
///
/// # Errors
/// When the voter cannot be asked.
pub async fn members(control: &str) -> Result<Vec<Member>, TransportError> {
    let mut client = AdminServiceClient::new(connect(control).await?)
        .max_decoding_message_size(gavel_proto::limits::INTERNAL_MESSAGE_BYTES_MAX);
    let status = client
        .status(wire::StatusRequest { linearizable: false })
        .await
        .map_err(|e| TransportError::Call { address: control.to_owned(), reason: e.message().to_owned() })?
        .into_inner();
    let mut members: Vec<Member> = Vec::new();
    for voter in status.voters {
        members.push(Member { role: "control", address: voter.address });
    }
    for member in status.view.unwrap_or_default().members.into_iter().filter(|m| m.alive) {
        let role = match member.role() {
            wire::Role::Node => "node",
            wire::Role::Router => "router",
            wire::Role::Control | wire::Role::Unspecified => continue,
        };
        members.push(Member { role, address: member.address });
    }
    Ok(members)
}

/// The message of a request of the file.
#[must_use]
pub fn ad_request(request: &TimedRequest, number: u64, deadline_ms: u32, min_coverage: f64) -> wire::AdRequest {
    wire::AdRequest {
        request_id: format!("bench-{number}"),
        user_id: request.user_id.clone(),
        placement: request.placement.clone(),
        terms: request
            .terms
            .iter()
            .map(|t| wire::RequestTerm { dimension: t.dimension.clone(), values: t.values.clone(), number: None })
            .collect(),
        context: request
            .context
            .iter()
            .filter_map(|(name, value)| {
                let value = match value {
                    serde_json::Value::String(s) => wire::feature_value::Value::Category(s.clone()),
                    serde_json::Value::Number(n) => wire::feature_value::Value::Dense(n.as_f64()?),
                    serde_json::Value::Null
                    | serde_json::Value::Bool(_)
                    | serde_json::Value::Array(_)
                    | serde_json::Value::Object(_) => return None,
                };
                Some(wire::Feature { name: name.clone(), value: Some(wire::FeatureValue { value: Some(value) }) })
            })
            .collect(),
        slots: request.slots,
        ts: u64::try_from(request.ts).unwrap_or(0),
        deadline_ms,
        min_coverage,
        seed: number + 1,
        ..wire::AdRequest::default()
    }
}
