//! What does a voter do with a message from a peer?
//!
//! It checks whom the message is for, parses all of it, and only then gives it to the consensus core. A voter
//! that has not been admitted yet (an empty disk that may once have been full) answers nothing at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gavel_proto::limits::{CHUNK_BYTES_MAX, SNAPSHOT_BYTES_MAX};
use gavel_proto::wire;
use gavel_proto::wire::raft_service_server::RaftService;
use openraft::Snapshot;
use tonic::{Request, Response, Status, Streaming};

use super::Identity;
use crate::consensus::{Group, Raft, SnapshotBytes, SnapshotMeta, TypeConfig, Vote};
use crate::convert::{Malformed, envelope};
use wire::raft_envelope::Body;
use wire::raft_reply::Body as ReplyBody;

/// A sender that goes silent inside a snapshot.
const CHUNK_SILENCE_MAX: Duration = Duration::from_secs(5);

/// The receiving end of a voter.
#[derive(Clone)]
pub struct RaftEndpoint {
    own: Identity,
    control: Raft,
    ledger: Raft,
    admitted: Arc<AtomicBool>,
}

impl RaftEndpoint {
    /// An endpoint that answers once `admitted` is set.
    #[must_use]
    pub const fn new(own: Identity, control: Raft, ledger: Raft, admitted: Arc<AtomicBool>) -> Self {
        Self { own, control, ledger, admitted }
    }

    /// The group that a message is for.
    fn group(&self, number: u32) -> Result<(Group, &Raft), Status> {
        match Group::of(number) {
            Some(Group::Control) => Ok((Group::Control, &self.control)),
            Some(Group::Ledger) => Ok((Group::Ledger, &self.ledger)),
            None => Err(Status::invalid_argument("no such group")),
        }
    }

    /// Why a message is not for us.
    fn refuse(&self, cluster_id: &str, target_id: u64) -> Option<String> {
        if cluster_id != self.own.cluster_id {
            return Some(format!("this is cluster {:?}", self.own.cluster_id));
        }
        if target_id != self.own.node_id {
            return Some(format!("this is voter {}", self.own.node_id));
        }
        (!self.admitted.load(Ordering::Acquire)).then(|| "not admitted yet".to_owned())
    }

    /// Reads a whole snapshot and checks it.
    async fn receive(
        &self,
        mut chunks: Streaming<wire::SnapshotChunk>,
    ) -> Result<(Group, Vote, Snapshot<TypeConfig>), Status> {
        let mut first = next(&mut chunks).await?;
        if let Some(reason) = self.refuse(&first.cluster_id, first.target_id) {
            return Err(Status::failed_precondition(reason));
        }
        let mut bytes = std::mem::take(&mut first.data);
        let (mut last, mut hash) = (first.last, first.blake3.clone());
        while !last {
            let chunk = next(&mut chunks).await?;
            if chunk.data.len() > CHUNK_BYTES_MAX || bytes.len() + chunk.data.len() > SNAPSHOT_BYTES_MAX {
                return Err(Status::resource_exhausted("the snapshot is too large"));
            }
            bytes.extend_from_slice(&chunk.data);
            (last, hash) = (chunk.last, chunk.blake3);
        }
        if blake3::hash(&bytes).as_bytes().as_slice() != hash {
            return Err(Status::data_loss("the snapshot does not match its checksum"));
        }
        let meta = SnapshotMeta {
            last_log_id: first.last_log_id.map(envelope::log_id),
            last_membership: envelope::stored_membership(first.membership.as_ref(), first.membership_log_id),
            snapshot_id: first.snapshot_id,
        };
        // What cannot be decoded would stop this voter when it is installed: refuse it here.
        let (group, _) = self.group(first.group)?;
        crate::convert::check_snapshot(group, &bytes, &self.own.cluster_id).map_err(wrong)?;
        let vote = envelope::vote(first.vote).map_err(wrong)?;
        Ok((group, vote, Snapshot { meta, snapshot: Box::new(SnapshotBytes(Arc::new(bytes))) }))
    }
}

async fn next(chunks: &mut Streaming<wire::SnapshotChunk>) -> Result<wire::SnapshotChunk, Status> {
    let chunk = tokio::time::timeout(CHUNK_SILENCE_MAX, chunks.message()).await;
    chunk.map_err(|_| Status::deadline_exceeded("silent inside a snapshot"))??.ok_or_else(|| Status::aborted("cut off"))
}

fn wrong(error: Malformed) -> Status {
    Status::invalid_argument(error.to_string())
}

fn stopped(error: &impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

fn refused(reason: String) -> Response<wire::RaftReply> {
    Response::new(wire::RaftReply { refused: reason, body: None })
}

fn replied(body: ReplyBody) -> Response<wire::RaftReply> {
    Response::new(wire::RaftReply { refused: String::new(), body: Some(body) })
}

#[tonic::async_trait]
impl RaftService for RaftEndpoint {
    async fn append(&self, request: Request<wire::RaftEnvelope>) -> Result<Response<wire::RaftReply>, Status> {
        let message = request.into_inner();
        if let Some(reason) = self.refuse(&message.cluster_id, message.target_id) {
            return Ok(refused(reason));
        }
        let Some(Body::Append(append)) = message.body else {
            return Err(Status::invalid_argument("an append was expected"));
        };
        let (group, raft) = self.group(message.group)?;
        let append = envelope::append(group, append).map_err(wrong)?;
        let reply = raft.append_entries(append).await.map_err(|e| stopped(&e))?;
        Ok(replied(ReplyBody::Append(envelope::append_reply_to_wire(reply))))
    }

    async fn vote(&self, request: Request<wire::RaftEnvelope>) -> Result<Response<wire::RaftReply>, Status> {
        let message = request.into_inner();
        if let Some(reason) = self.refuse(&message.cluster_id, message.target_id) {
            return Ok(refused(reason));
        }
        let Some(Body::Vote(vote)) = message.body else {
            return Err(Status::invalid_argument("a vote was expected"));
        };
        let (_, raft) = self.group(message.group)?;
        let reply = raft.vote(envelope::vote_request(vote).map_err(wrong)?).await.map_err(|e| stopped(&e))?;
        Ok(replied(ReplyBody::Vote(envelope::vote_reply_to_wire(&reply))))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<wire::SnapshotChunk>>,
    ) -> Result<Response<wire::RaftReply>, Status> {
        let (group, vote, snapshot) = self.receive(request.into_inner()).await?;
        let (_, raft) = self.group(group.number())?;
        let reply = raft.install_full_snapshot(vote, snapshot).await.map_err(|e| stopped(&e))?;
        Ok(replied(ReplyBody::Snapshot(envelope::vote_to_wire(&reply.vote))))
    }
}
