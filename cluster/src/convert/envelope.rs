//! How do the voters' messages travel?
//!
//! openraft's own types on one side, prost on the other. An entry's command stays the bytes that it is in the
//! log; they are read here once, so that a voter never stores a command that it could not apply.

use std::collections::{BTreeMap, BTreeSet};

use gavel_proto::wire;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use openraft::{BasicNode, CommittedLeaderId, EntryPayload};
use wire::append_reply::Result as AppendResult;
use wire::raft_entry::Payload;

use super::{Malformed, check_command, malformed};
use crate::consensus::{Encoded, Entry, Group, LogId, Membership, StoredMembership, TypeConfig, Vote};

/// Writes a place in the log.
#[must_use]
pub const fn log_id_to_wire(id: LogId) -> wire::LogId {
    wire::LogId { term: id.leader_id.term, node_id: id.leader_id.node_id, index: id.index }
}

/// Reads a place in the log.
#[must_use]
pub fn log_id(id: wire::LogId) -> LogId {
    LogId::new(CommittedLeaderId::new(id.term, id.node_id), id.index)
}

/// Writes a vote.
#[must_use]
pub const fn vote_to_wire(vote: &Vote) -> wire::Vote {
    wire::Vote { term: vote.leader_id.term, node_id: vote.leader_id.node_id, committed: vote.committed }
}

/// Reads a vote.
///
/// # Errors
/// When it is absent.
pub fn vote(vote: Option<wire::Vote>) -> Result<Vote, Malformed> {
    let vote = vote.ok_or(malformed("vote"))?;
    let read = if vote.committed { Vote::new_committed } else { Vote::new };
    Ok(read(vote.term, vote.node_id))
}

/// Writes the voters.
#[must_use]
pub fn membership_to_wire(membership: &Membership) -> wire::Membership {
    let configs = membership.get_joint_config().iter().map(|set| wire::VoterSet { ids: set.iter().copied().collect() });
    let nodes = membership.nodes().map(|(id, node)| wire::RaftVoter { id: *id, address: node.addr.clone() });
    wire::Membership { configs: configs.collect(), nodes: nodes.collect() }
}

/// Reads the voters.
#[must_use]
pub fn membership(m: &wire::Membership) -> Membership {
    let configs: Vec<BTreeSet<u64>> = m.configs.iter().map(|set| set.ids.iter().copied().collect()).collect();
    let nodes: BTreeMap<u64, BasicNode> = m.nodes.iter().map(|n| (n.id, BasicNode::new(&n.address))).collect();
    Membership::new(configs, nodes)
}

/// The voters and the entry that set them.
#[must_use]
pub fn stored_membership(m: Option<&wire::Membership>, id: Option<wire::LogId>) -> StoredMembership {
    m.map_or_else(StoredMembership::default, |m| StoredMembership::new(id.map(log_id), membership(m)))
}

/// Writes a request to append.
#[must_use]
pub fn append_to_wire(request: AppendEntriesRequest<TypeConfig>) -> wire::AppendRequest {
    wire::AppendRequest {
        vote: Some(vote_to_wire(&request.vote)),
        prev_log_id: request.prev_log_id.map(log_id_to_wire),
        entries: request.entries.into_iter().map(entry_to_wire).collect(),
        leader_commit: request.leader_commit.map(log_id_to_wire),
    }
}

/// Reads a request to append.
///
/// # Errors
/// When an entry has no place, no payload, or a command of another version.
pub fn append(group: Group, request: wire::AppendRequest) -> Result<AppendEntriesRequest<TypeConfig>, Malformed> {
    Ok(AppendEntriesRequest {
        vote: vote(request.vote)?,
        prev_log_id: request.prev_log_id.map(log_id),
        entries: request.entries.into_iter().map(|e| entry(group, e)).collect::<Result<_, _>>()?,
        leader_commit: request.leader_commit.map(log_id),
    })
}

fn entry_to_wire(entry: Entry) -> wire::RaftEntry {
    let payload = match entry.payload {
        EntryPayload::Blank => Payload::Blank(true),
        EntryPayload::Normal(bytes) => Payload::Command(bytes.0),
        EntryPayload::Membership(membership) => Payload::Membership(membership_to_wire(&membership)),
    };
    wire::RaftEntry { log_id: Some(log_id_to_wire(entry.log_id)), payload: Some(payload) }
}

fn entry(group: Group, entry: wire::RaftEntry) -> Result<Entry, Malformed> {
    let log_id = log_id(entry.log_id.ok_or(malformed("entries.log_id"))?);
    let payload = match entry.payload.ok_or(malformed("entries.payload"))? {
        Payload::Blank(_) => EntryPayload::Blank,
        Payload::Command(bytes) => {
            check_command(group, &bytes)?;
            EntryPayload::Normal(Encoded(bytes))
        }
        Payload::Membership(m) => EntryPayload::Membership(membership(&m)),
    };
    Ok(Entry { log_id, payload })
}

/// Writes an answer to an append.
#[must_use]
pub fn append_reply_to_wire(reply: AppendEntriesResponse<u64>) -> wire::AppendReply {
    let result = match reply {
        AppendEntriesResponse::Success => AppendResult::Success(true),
        AppendEntriesResponse::PartialSuccess(Some(id)) => AppendResult::Partial(log_id_to_wire(id)),
        AppendEntriesResponse::PartialSuccess(None) => AppendResult::PartialNone(true),
        AppendEntriesResponse::Conflict => AppendResult::Conflict(true),
        AppendEntriesResponse::HigherVote(vote) => AppendResult::HigherVote(vote_to_wire(&vote)),
    };
    wire::AppendReply { result: Some(result) }
}

/// Reads an answer to an append.
///
/// # Errors
/// When it is empty.
pub fn append_reply(reply: wire::AppendReply) -> Result<AppendEntriesResponse<u64>, Malformed> {
    Ok(match reply.result.ok_or(malformed("append.result"))? {
        AppendResult::Success(_) => AppendEntriesResponse::Success,
        AppendResult::Partial(id) => AppendEntriesResponse::PartialSuccess(Some(log_id(id))),
        AppendResult::PartialNone(_) => AppendEntriesResponse::PartialSuccess(None),
        AppendResult::Conflict(_) => AppendEntriesResponse::Conflict,
        AppendResult::HigherVote(higher) => AppendEntriesResponse::HigherVote(vote(Some(higher))?),
    })
}

/// Writes a request for a vote.
#[must_use]
pub fn vote_request_to_wire(request: &VoteRequest<u64>) -> wire::VoteRequest {
    wire::VoteRequest { vote: Some(vote_to_wire(&request.vote)), last_log_id: request.last_log_id.map(log_id_to_wire) }
}

/// Reads a request for a vote.
///
/// # Errors
/// When it names no vote.
pub fn vote_request(request: wire::VoteRequest) -> Result<VoteRequest<u64>, Malformed> {
    Ok(VoteRequest { vote: vote(request.vote)?, last_log_id: request.last_log_id.map(log_id) })
}

/// Writes an answer to a request for a vote.
#[must_use]
pub fn vote_reply_to_wire(reply: &VoteResponse<u64>) -> wire::VoteReply {
    wire::VoteReply {
        vote: Some(vote_to_wire(&reply.vote)),
        granted: reply.vote_granted,
        last_log_id: reply.last_log_id.map(log_id_to_wire),
    }
}

/// Reads an answer to a request for a vote.
///
/// # Errors
/// When it names no vote.
pub fn vote_reply(reply: wire::VoteReply) -> Result<VoteResponse<u64>, Malformed> {
    Ok(VoteResponse::new(vote(reply.vote)?, reply.last_log_id.map(log_id), reply.granted))
}
