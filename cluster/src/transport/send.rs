//! How does a message leave for a peer?

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use gavel_member::transport::{MESSAGE_BYTES_MAX, bulk_channel, control_channel};
use gavel_proto::limits::CHUNK_BYTES_MAX;
use gavel_proto::wire;
use gavel_proto::wire::raft_service_client::RaftServiceClient;
use openraft::error::{Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{BasicNode, OptionalSend, Snapshot};
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::Identity;
use crate::consensus::{Group, TypeConfig, Vote};
use crate::convert::envelope;
use wire::raft_envelope::Body;
use wire::raft_reply::Body as ReplyBody;

/// Between two attempts to reach a peer that is down: short, because it decides how soon it is back.
const BACKOFF: Duration = Duration::from_millis(100);

type CallError = RPCError<u64, BasicNode, RaftError<u64>>;

/// Where the voters are, and how to reach them.
#[derive(Clone, Debug)]
pub struct Peers {
    own: Identity,
    group: Group,
    addresses: Arc<BTreeMap<u64, String>>,
}

impl Peers {
    /// `addresses` of the configuration win over those in the log: a voter may have moved while it was down.
    #[must_use]
    pub fn new(own: Identity, group: Group, addresses: BTreeMap<u64, String>) -> Self {
        Self { own, group, addresses: Arc::new(addresses) }
    }

    /// Where a voter is.
    #[must_use]
    pub fn address<'a>(&'a self, id: u64, logged: &'a str) -> &'a str {
        self.addresses.get(&id).map_or(logged, String::as_str)
    }
}

impl RaftNetworkFactory<TypeConfig> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        let address = self.address(target, &node.addr);
        let limited = |channel| {
            RaftServiceClient::new(channel)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX)
        };
        Peer {
            cluster_id: self.own.cluster_id.clone(),
            group: self.group,
            target,
            // An address that is none is reported by each call, because openraft takes no error here.
            calls: control_channel(address).map(limited).map_err(|e| e.to_string()),
            bulk: bulk_channel(address).map(limited).map_err(|e| e.to_string()),
        }
    }
}

/// One peer.
pub struct Peer {
    cluster_id: String,
    group: Group,
    target: u64,
    calls: Result<RaftServiceClient<Channel>, String>,
    bulk: Result<RaftServiceClient<Channel>, String>,
}

impl Peer {
    fn envelope(&self, body: Body) -> wire::RaftEnvelope {
        wire::RaftEnvelope {
            cluster_id: self.cluster_id.clone(),
            target_id: self.target,
            group: self.group.number(),
            body: Some(body),
        }
    }
}

/// The client, or why there is none.
fn client(client: &Result<RaftServiceClient<Channel>, String>) -> Result<RaftServiceClient<Channel>, std::io::Error> {
    client.clone().map_err(std::io::Error::other)
}

fn unreachable(error: &(impl std::error::Error + 'static)) -> Unreachable {
    metrics::counter!("gavel_control_peer_failures_total").increment(1);
    Unreachable::new(error)
}

/// Waits for an answer, at most `ttl`.
async fn answer(
    ttl: Duration,
    call: impl Future<Output = Result<Response<wire::RaftReply>, Status>>,
) -> Result<ReplyBody, CallError> {
    let reply = match tokio::time::timeout(ttl, call).await {
        Ok(Ok(reply)) => reply.into_inner(),
        Ok(Err(status)) => return Err(unreachable(&status).into()),
        Err(elapsed) => return Err(unreachable(&elapsed).into()),
    };
    reply.body.ok_or_else(|| unreachable(&std::io::Error::other(format!("refused: {}", reply.refused))).into())
}

/// An answer of the wrong kind.
fn confused() -> CallError {
    NetworkError::new(&std::io::Error::other("an answer to another question")).into()
}

impl RaftNetwork<TypeConfig> for Peer {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, CallError> {
        let mut client = client(&self.calls).map_err(|e| unreachable(&e))?;
        let message = self.envelope(Body::Append(envelope::append_to_wire(rpc)));
        match answer(option.hard_ttl(), client.append(message)).await? {
            ReplyBody::Append(reply) => envelope::append_reply(reply).map_err(|_| confused()),
            ReplyBody::Vote(_) | ReplyBody::Snapshot(_) => Err(confused()),
        }
    }

    async fn vote(&mut self, rpc: VoteRequest<u64>, option: RPCOption) -> Result<VoteResponse<u64>, CallError> {
        let mut client = client(&self.calls).map_err(|e| unreachable(&e))?;
        let message = self.envelope(Body::Vote(envelope::vote_request_to_wire(&rpc)));
        match answer(option.hard_ttl(), client.vote(message)).await? {
            ReplyBody::Vote(reply) => envelope::vote_reply(reply).map_err(|_| confused()),
            ReplyBody::Append(_) | ReplyBody::Snapshot(_) => Err(confused()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<TypeConfig, Fatal<u64>>> {
        let mut client = client(&self.bulk).map_err(|e| StreamingError::Unreachable(unreachable(&e)))?;
        let chunks = tokio_stream::iter(chunks(&self.cluster_id, (self.group, self.target), &vote, &snapshot));
        let sent = answer(option.hard_ttl(), client.snapshot(chunks));
        let reply = tokio::select! {
            closed = cancel => return Err(StreamingError::Closed(closed)),
            reply = sent => reply,
        };
        match reply {
            Ok(ReplyBody::Snapshot(higher)) => envelope::vote(Some(higher))
                .map(SnapshotResponse::new)
                .map_err(|e| StreamingError::Network(NetworkError::new(&e))),
            Ok(ReplyBody::Append(_) | ReplyBody::Vote(_)) => {
                Err(StreamingError::Network(NetworkError::new(&std::io::Error::other("an answer to another question"))))
            }
            Err(error) => Err(StreamingError::Unreachable(Unreachable::new(&error))),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACKOFF))
    }
}

/// A snapshot in pieces; the first names it, the last carries its checksum.
fn chunks(
    cluster_id: &str,
    (group, target): (Group, u64),
    vote: &Vote,
    snapshot: &Snapshot<TypeConfig>,
) -> impl Iterator<Item = wire::SnapshotChunk> + use<> {
    let bytes = Arc::clone(&snapshot.snapshot.0);
    let hash = blake3::hash(&bytes).as_bytes().to_vec();
    let meta = &snapshot.meta;
    let first = wire::SnapshotChunk {
        cluster_id: cluster_id.to_owned(),
        target_id: target,
        group: group.number(),
        vote: Some(envelope::vote_to_wire(vote)),
        last_log_id: meta.last_log_id.map(envelope::log_id_to_wire),
        membership_log_id: meta.last_membership.log_id().map(envelope::log_id_to_wire),
        membership: Some(envelope::membership_to_wire(meta.last_membership.membership())),
        snapshot_id: meta.snapshot_id.clone(),
        ..wire::SnapshotChunk::default()
    };
    let pieces = bytes.len().div_ceil(CHUNK_BYTES_MAX).max(1);
    (0..pieces).map(move |piece| {
        let from = piece * CHUNK_BYTES_MAX;
        let to = (from + CHUNK_BYTES_MAX).min(bytes.len());
        let last = piece + 1 == pieces;
        let named = if piece == 0 { first.clone() } else { wire::SnapshotChunk::default() };
        let blake3 = if last { hash.clone() } else { Vec::new() };
        wire::SnapshotChunk { data: bytes[from..to].to_vec(), blake3, last, ..named }
    })
}
