//! May this voter vote, and does the cluster exist yet?
//!
//! A voter whose disk is empty is either new or has lost what it promised; letting the second kind vote can lose
//! committed entries. Each voter is therefore registered in the state with a mark of its disk, and one that
//! starts empty first asks the others: if the leader knows it with another mark it must not join under its old
//! id, and if nobody has a cluster yet, all are new. Until then it answers no vote and no append. Admission is
//! remembered on the same disk.
//!
//! Formation needs every voter of the initial set once. The lowest id then writes the first entry, and not before
//! a majority with itself says that it is admitted: the entry ends the time in which all are new, and voters that
//! had not seen it would answer nobody for ever. Afterwards each voter beats like any other member, so that people
//! see it in the View.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gavel_member::{clock, disk, telemetry, transport};
use gavel_proto::wire;
use gavel_proto::wire::admin_service_client::AdminServiceClient;
use gavel_proto::wire::control_service_client::ControlServiceClient;
use openraft::BasicNode;
use openraft::error::{InitializeError, RaftError};

use crate::error::ControlError;
use crate::raft::DiskError;
use crate::reconcile::Heard;
use crate::rpc::{Leader, LedgerVoter, NotProposed, Voter};
use crate::state::command::{Body, RegisterMember};
use crate::state::types::{Outcome, Ready, Role};

/// Between two rounds of questions, and between two beats.
const PAUSE: Duration = Duration::from_millis(300);
/// A voter that does not answer by then is asked again in the next round.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// In the data folder of a voter that may vote.
const FILE_NAME: &str = "admitted";

/// In the data folder of a voter whose ledger has had an entry.
const LEDGER_FILE_NAME: &str = "ledger-formed";

/// What admission works with.
pub struct Admission {
    /// This voter.
    pub voter: Arc<Voter>,
    /// Everybody's address, this one's included.
    pub addresses: BTreeMap<u64, String>,
    /// Where admission is remembered.
    pub folder: PathBuf,
    /// See [`disk_mark`].
    pub disk_mark: u64,
}

/// May the voter with this folder vote at once? A log that was written in proves as much as the mark.
#[must_use]
pub fn remembered(folder: &Path, pristine: bool) -> Arc<AtomicBool> {
    Arc::new(AtomicBool::new(!pristine || folder.join(FILE_NAME).exists()))
}

/// Did the voter with this folder have a ledger that is gone? Voting with an empty one could lose acknowledged charges.
#[must_use]
pub fn lost_ledger(folder: &Path, pristine: bool) -> bool {
    pristine && folder.join(LEDGER_FILE_NAME).exists()
}

/// Writes down that the ledger has had an entry, once it has; never returns.
pub async fn remember_ledger_on(books: &LedgerVoter, folder: &Path) {
    let path = folder.join(LEDGER_FILE_NAME);
    while !path.exists() {
        if books.machine.applied().last.is_some()
            && let Err(error) = disk::write_atomic(&path, b"")
        {
            tracing::error!(%error, "it cannot be written down that there is a ledger");
        }
        tokio::time::sleep(PAUSE).await;
    }
    std::future::pending().await
}

/// A number that stays with the disk: another one means another disk.
#[must_use]
pub fn disk_mark(member_key: &str) -> u64 {
    gavel_proto::hash::value_hash(member_key)
}

/// What another said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// It knows no cluster.
    Empty {
        /// It may vote.
        admitted: bool,
    },
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
    while !settled(admission).await? {
        tokio::time::sleep(PAUSE).await;
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

/// One round of questions; true once this voter may vote and need not form the cluster.
async fn settled(admission: &Admission) -> Result<bool, ControlError> {
    let own = admission.voter.own.node_id;
    let forms = admission.addresses.keys().next() == Some(&own);
    let admitted = || admission.voter.admitted.load(Ordering::Acquire);
    let formed = admission.voter.core.raft.is_initialized().await.map_err(|e| ControlError::Raft(e.to_string()))?;
    if admitted() && (formed || !forms) {
        return Ok(true);
    }
    let mut answers = Vec::new();
    for (id, address) in admission.addresses.iter().filter(|(id, _)| **id != own) {
        answers.push(ask(admission, *id, address).await);
    }
    if answers.contains(&Answer::Wiped) {
        return Err(ControlError::Wiped(own));
    }
    let welcome = answers.contains(&Answer::Welcome);
    if !admitted() && (welcome || answers.iter().all(|answer| matches!(answer, Answer::Empty { .. }))) {
        admit(admission)?;
    }
    if !admitted() || welcome || !forms {
        return Ok(admitted());
    }
    let voting = answers.iter().filter(|answer| **answer == Answer::Empty { admitted: true }).count();
    // This one makes it a majority.
    if voting < admission.addresses.len() / 2 {
        return Ok(false);
    }
    form(admission).await?;
    Ok(true)
}

/// Remembers that this voter may vote, and lets it.
fn admit(admission: &Admission) -> Result<(), ControlError> {
    let path = admission.folder.join(FILE_NAME);
    disk::write_atomic(&path, b"").map_err(DiskError::io(format!("write {}", path.display())))?;
    tracing::info!(voter = admission.voter.own.node_id, "admitted");
    admission.voter.admitted.store(true, Ordering::Release);
    Ok(())
}

/// Writes the first entry.
async fn form(admission: &Admission) -> Result<(), ControlError> {
    let members: BTreeMap<u64, BasicNode> =
        admission.addresses.iter().map(|(id, address)| (*id, BasicNode::new(address))).collect();
    match admission.voter.core.raft.initialize(members).await {
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
        None if status.term == 0 && status.applied_index == 0 => Answer::Empty { admitted: status.admitted },
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
