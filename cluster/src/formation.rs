//! May this voter vote, and does the cluster exist yet?
//!
//! A voter whose disk is empty is either new or has lost what it promised; letting the second kind vote can lose
//! committed entries. Each voter is therefore registered in the state with a mark of its disk, and one that
//! starts empty first asks the others: if the leader knows it with another mark it must not join under its old
//! id, and if nobody has a cluster yet, all are new. Until then it answers no vote and no append.
//!
//! Formation needs every voter of the initial set once; the lowest id then writes the first entry. Afterwards
//! each voter beats like any other member, so that people see it in the View.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gavel_member::{clock, telemetry, transport};
use gavel_proto::wire;
use gavel_proto::wire::admin_service_client::AdminServiceClient;
use gavel_proto::wire::control_service_client::ControlServiceClient;
use openraft::BasicNode;
use openraft::error::{InitializeError, RaftError};

use crate::reconcile::Heard;
use crate::rpc::{Leader, NotProposed, Voter};
use crate::run::ControlError;
use crate::state::command::{Body, RegisterMember};
use crate::state::types::{Outcome, Ready, Role};

/// Between two rounds of questions, and between two beats.
const PAUSE: Duration = Duration::from_millis(300);
/// A voter that does not answer by then is asked again in the next round.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// What admission works with.
pub struct Admission {
    /// This voter.
    pub voter: Arc<Voter>,
    /// Everybody's address, this one's included.
    pub addresses: BTreeMap<u64, String>,
    /// Set once this voter may vote.
    pub admitted: Arc<AtomicBool>,
    /// See [`disk_mark`].
    pub disk_mark: u64,
}

/// A number that stays with the disk: another one means another disk.
#[must_use]
pub fn disk_mark(member_key: &str) -> u64 {
    gavel_proto::hash::value_hash(member_key)
}

/// What the others said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// It knows no cluster.
    Empty,
    /// It leads, and knows no other disk of ours.
    Welcome,
    /// It knows us with another disk.
    Wiped,
    /// It does not lead, or does not answer.
    NoMatter,
}

/// Admits, forms and beats; returns only when this voter must end.
///
/// # Errors
/// When this voter lost its disk.
pub async fn run(admission: &Admission) -> Result<(), ControlError> {
    while !admission.admitted.load(Ordering::Acquire) {
        if !admit(admission).await? {
            tokio::time::sleep(PAUSE).await;
        }
    }
    let mut registered = None;
    loop {
        match beat(admission, registered).await {
            Beat::Done(member) => registered = Some(member),
            Beat::Again => registered = None,
            Beat::Wiped => return Err(ControlError::Wiped(admission.voter.own.node_id)),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// One round of questions; true once admitted.
async fn admit(admission: &Admission) -> Result<bool, ControlError> {
    let own = admission.voter.own.node_id;
    let mut all_empty = true;
    let mut welcome = false;
    for (id, address) in admission.addresses.iter().filter(|(id, _)| **id != own) {
        match ask(admission, *id, address).await {
            Answer::Wiped => return Err(ControlError::Wiped(own)),
            Answer::Welcome => welcome = true,
            Answer::Empty => {}
            Answer::NoMatter => all_empty = false,
        }
    }
    if !welcome && !all_empty {
        return Ok(false);
    }
    tracing::info!(voter = own, welcome, "admitted");
    admission.admitted.store(true, Ordering::Release);
    if !welcome && admission.addresses.keys().next() == Some(&own) {
        form(admission).await?;
    }
    Ok(true)
}

/// Writes the first entry.
async fn form(admission: &Admission) -> Result<(), ControlError> {
    let members: BTreeMap<u64, BasicNode> =
        admission.addresses.iter().map(|(id, address)| (*id, BasicNode::new(address))).collect();
    match admission.voter.raft.initialize(members).await {
        // Somebody was faster.
        Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(error) => Err(ControlError::Raft(error.to_string())),
    }
}

async fn ask(admission: &Admission, id: u64, address: &str) -> Answer {
    let Ok(channel) = transport::control_channel(address) else { return Answer::NoMatter };
    let mut client = AdminServiceClient::new(channel).max_decoding_message_size(transport::MESSAGE_BYTES_MAX);
    let asked = tokio::time::timeout(ASK_TIMEOUT, client.status(wire::StatusRequest { linearizable: false })).await;
    let Ok(Ok(status)) = asked else { return Answer::NoMatter };
    let status = status.into_inner();
    let Some(view) = status.view else { return Answer::NoMatter };
    if view.cluster_id != admission.voter.own.cluster_id {
        return Answer::NoMatter;
    }
    let name = name_of(admission.voter.own.node_id);
    let known = view.members.iter().find(|m| m.role == i32::from(wire::Role::Control) && m.name == name);
    match known {
        Some(known) if known.incarnation != admission.disk_mark => Answer::Wiped,
        _ if status.leader_id == id => Answer::Welcome,
        None if status.term == 0 && status.applied_index == 0 => Answer::Empty,
        Some(_) | None => Answer::NoMatter,
    }
}

fn name_of(voter: u64) -> String {
    format!("voter-{voter}")
}

/// What came of a beat.
enum Beat {
    /// The leader knows this voter under this member id.
    Done(u64),
    /// It does not, or there is none.
    Again,
    /// It knows another disk.
    Wiped,
}

/// Tells the leader that this voter lives; joins first when the leader does not know it.
async fn beat(admission: &Admission, registered: Option<u64>) -> Beat {
    match (admission.voter.leader(), registered) {
        (Leader::Unknown, _) => Beat::Again,
        (Leader::Own, Some(member)) => {
            admission.voter.hearing().hear(member, heard(admission.disk_mark));
            Beat::Done(member)
        }
        (Leader::Own, None) => join_here(admission).await,
        (Leader::Other { address, .. }, Some(member)) => beat_there(admission, &address, member).await,
        (Leader::Other { address, .. }, None) => join_there(admission, &address).await,
    }
}

fn heard(incarnation: u64) -> Heard {
    let resident_bytes = telemetry::resident_bytes();
    Heard { at: clock::now_us(), incarnation, draining: false, ready: Some(Ready::default()), resident_bytes }
}

async fn join_here(admission: &Admission) -> Beat {
    let name = name_of(admission.voter.own.node_id);
    let wish = RegisterMember {
        key: name.clone(),
        role: Role::Control,
        address: admission.voter.address.clone(),
        name,
        incarnation: admission.disk_mark,
    };
    match admission.voter.propose_own(&Body::RegisterMember(wish)).await.map(|written| written.data) {
        Ok(Outcome::Done(member)) => Beat::Done(member),
        Ok(Outcome::Refused(reason)) => refused(&reason),
        Err(NotProposed::Elsewhere(_) | NotProposed::Status(_)) => Beat::Again,
    }
}

fn refused(reason: &str) -> Beat {
    if reason.contains(crate::state::VOTER_WIPED) { Beat::Wiped } else { Beat::Again }
}

async fn join_there(admission: &Admission, address: &str) -> Beat {
    let Ok(channel) = transport::control_channel(address) else { return Beat::Again };
    let name = name_of(admission.voter.own.node_id);
    let request = wire::JoinRequest {
        cluster_id: admission.voter.own.cluster_id.clone(),
        member_key: name.clone(),
        role: wire::Role::Control.into(),
        address: admission.voter.address.clone(),
        incarnation: admission.disk_mark,
        name,
    };
    match tokio::time::timeout(ASK_TIMEOUT, ControlServiceClient::new(channel).join(request)).await {
        Ok(Ok(reply)) => match reply.into_inner().member_id {
            0 => Beat::Again,
            member => Beat::Done(member),
        },
        Ok(Err(status)) => refused(status.message()),
        Err(_) => Beat::Again,
    }
}

async fn beat_there(admission: &Admission, address: &str, member: u64) -> Beat {
    let Ok(channel) = transport::control_channel(address) else { return Beat::Again };
    let request = wire::HeartbeatRequest {
        member_id: member,
        incarnation: admission.disk_mark,
        view_epoch: admission.voter.view.borrow().map_epoch,
        resident_bytes: telemetry::resident_bytes(),
        ..wire::HeartbeatRequest::default()
    };
    match tokio::time::timeout(ASK_TIMEOUT, ControlServiceClient::new(channel).heartbeat(request)).await {
        Ok(Ok(reply)) if reply.get_ref().known => Beat::Done(member),
        Ok(_) | Err(_) => Beat::Again,
    }
}
