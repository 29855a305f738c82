//! What does a voter answer about money?
//!
//! A request brings up to 512 wishes. Tokens are opened here, before anything is proposed: `apply` sees only what a
//! router of this cluster sealed. What remains of all requests goes together into entries ([`drive`]), and each wish is
//! answered when its entry is applied, hence committed. A voter that does not lead names the one that does.

mod drive;
mod wall;
mod wishes;

pub use drive::Waiting;
pub use drive::drive;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use gavel_member::clock;
use gavel_proto::ids::CampaignId;
use gavel_proto::limits::{CHUNK_BYTES_MAX, COMMAND_BYTES_MAX, LEDGER_EVENTS_MAX};
use gavel_proto::wire;
use gavel_proto::wire::ledger_service_server::LedgerService;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Core, Leader, NotProposed};
use crate::convert::ledger::{events_bytes, key_to_wire};
use crate::convert::ledger_snapshot::{balance, counts_to_wire};
use crate::ledger::Ledger;
use crate::ledger::types::Verdict;
use crate::raft::group::Replicated;
use crate::raft::machine::Machine;
use wishes::Parsed;

/// Requests that may wait for an entry.
const WAITING_MAX: usize = 1_024;
/// A request that waits longer has an unknown outcome for its caller, who sends it again.
const POST_TIMEOUT: Duration = Duration::from_secs(3);
/// Campaigns in one answer: with three accounts each it stays far below a message's limit.
const BALANCES_MAX: usize = 5_000;
/// Chunks of a journal on their way.
const CHUNKS_MAX: usize = 4;

/// This voter's part in the ledger's group.
pub struct LedgerVoter {
    /// Consensus.
    pub core: Arc<Core>,
    /// The ledger.
    pub machine: Machine<Ledger>,
    waiting: mpsc::Sender<Waiting>,
}

impl LedgerVoter {
    /// The part, and what [`drive`] works off.
    #[must_use]
    pub fn new(core: Arc<Core>, machine: Machine<Ledger>) -> (Self, mpsc::Receiver<Waiting>) {
        let (waiting, receiver) = mpsc::channel(WAITING_MAX);
        (Self { core, machine, waiting }, receiver)
    }

    /// Whether this voter leads and has applied everything of the leaders before it: only then are its keys whole.
    fn is_settled(&self) -> bool {
        let term = self.core.raft.metrics().borrow().current_term;
        self.machine.applied().last.is_some_and(|last| last.leader_id.term == term)
    }
}

/// Answers routers and operators about money.
pub struct LedgerEndpoint(pub Arc<LedgerVoter>);

#[tonic::async_trait]
impl LedgerService for LedgerEndpoint {
    type ReadJournalStream = ReceiverStream<Result<wire::JournalChunk, Status>>;

    async fn post(&self, request: Request<wire::LedgerRequest>) -> Result<Response<wire::LedgerReply>, Status> {
        let request = request.into_inner();
        self.0.core.check_cluster(&request.cluster_id)?;
        if request.wishes.len() > LEDGER_EVENTS_MAX {
            return Err(Status::invalid_argument("more than 512 wishes: send them in parts"));
        }
        match self.0.core.leader() {
            Leader::Own if self.0.is_settled() => {}
            Leader::Own | Leader::Unknown => return Err(Status::unavailable("no leader")),
            Leader::Other { address, .. } => return Ok(elsewhere(address)),
        }
        let wants_keys =
            request.wishes.iter().any(|wish| matches!(wish.body, Some(wire::ledger_wish::Body::GrantIssuer(_))));
        let parsed = {
            let keys: Vec<wire::TokenKey> = self.0.machine.applied().state.keys.iter().map(key_to_wire).collect();
            Parsed::of(&request.wishes, &keys)
        };
        if request.wishes.is_empty() {
            return self.place().await.map(Response::new);
        }
        let (verdicts, log_index) = match self.commit(parsed.events.clone()).await {
            Ok(committed) => committed,
            Err(NotProposed::Elsewhere(Leader::Other { address, .. })) => return Ok(elsewhere(address)),
            Err(NotProposed::Elsewhere(Leader::Own | Leader::Unknown)) => return Err(Status::unavailable("no leader")),
            Err(NotProposed::Status(status)) => return Err(status),
        };
        let applied = self.0.machine.applied();
        let keys = if wants_keys { applied.state.keys.iter().map(key_to_wire).collect() } else { Vec::new() };
        let verdicts = parsed.answers(&verdicts);
        for verdict in &verdicts {
            count(verdict);
        }
        let (wall_ms, campaigns) = (applied.state.wall_ms, applied.state.campaigns.len() as u64);
        Ok(Response::new(wire::LedgerReply {
            leader_address: String::new(),
            verdicts,
            wall_ms,
            keys,
            log_index,
            campaigns,
        }))
    }

    async fn balances(&self, request: Request<wire::BalancesRequest>) -> Result<Response<wire::BalancesReply>, Status> {
        let wire::BalancesRequest { campaigns: wanted, from, limit } = request.into_inner();
        let limit = match limit as usize {
            0 => BALANCES_MAX,
            limit => limit.min(BALANCES_MAX),
        };
        let wanted: BTreeSet<u64> = wanted.into_iter().collect();
        // It is of the whole ledger: once is enough for an answer in parts.
        let state_digest = if from == 0 { Some(self.0.machine.digest().await) } else { None };
        let metrics = self.0.core.raft.metrics().borrow().clone();
        let applied = self.0.machine.applied();
        let ledger = &applied.state;
        let is_wanted = |id: &CampaignId| wanted.is_empty() || wanted.contains(&id.0);
        let mut found = ledger.campaigns.range(CampaignId(from)..).filter(|(id, _)| is_wanted(id));
        let campaigns = found.by_ref().take(limit).map(|(id, c)| balance(ledger, *id, c)).collect();
        // Never 0: a smaller one was sent.
        let next = found.next().map_or(0, |(id, _)| id.0);
        let applied_index = applied.last.map_or(0, |id| id.index);
        // Entries may have come since the digest was made: then it says nothing.
        let state_digest = state_digest.filter(|digest| digest.index == applied_index);
        Ok(Response::new(wire::BalancesReply {
            applied_index,
            state_digest: state_digest.map_or_else(Vec::new, |digest| digest.hash.to_vec()),
            campaigns,
            next,
            leader_id: metrics.current_leader.unwrap_or_default(),
            term: metrics.current_term,
            counts: Some(counts_to_wire(ledger.counts)),
            wall_ms: ledger.wall_ms,
            leases: ledger.leases.len() as u64,
        }))
    }

    async fn clock(&self, request: Request<wire::ClockRequest>) -> Result<Response<wire::ClockReply>, Status> {
        self.0.core.check_cluster(&request.into_inner().cluster_id)?;
        Ok(Response::new(wire::ClockReply { wall_ms: clock::wall_ms() }))
    }

    async fn read_journal(
        &self,
        request: Request<wire::JournalRequest>,
    ) -> Result<Response<Self::ReadJournalStream>, Status> {
        self.0.core.check_cluster(&request.into_inner().cluster_id)?;
        let (sender, chunks) = mpsc::channel(CHUNKS_MAX);
        let books = Arc::clone(&self.0);
        tokio::spawn(async move {
            if let Err(status) = send_journal(&books, &sender).await {
                // The reader may have gone.
                let _ = sender.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(chunks)))
    }
}

impl LedgerEndpoint {
    /// How far the ledger is: of everything that was committed before the question, the last entry.
    async fn place(&self) -> Result<wire::LedgerReply, Status> {
        self.0.core.linearize().await?;
        let applied = self.0.machine.applied();
        Ok(wire::LedgerReply {
            wall_ms: applied.state.wall_ms,
            log_index: applied.last.map_or(0, |last| last.index),
            campaigns: applied.state.campaigns.len() as u64,
            ..wire::LedgerReply::default()
        })
    }

    /// Has events committed and applied; their answers and the last entry that holds one of them.
    async fn commit(&self, events: Vec<crate::ledger::command::Event>) -> Result<(Vec<Verdict>, u64), NotProposed> {
        if events.is_empty() {
            return Ok((Vec::new(), 0));
        }
        let bytes = events_bytes(&events);
        if bytes > COMMAND_BYTES_MAX {
            let status = Status::invalid_argument("the wishes are too large for one entry: send them in parts");
            return Err(NotProposed::Status(status));
        }
        let (done, answered) = oneshot::channel();
        let full = |_| NotProposed::Status(Status::resource_exhausted("too many requests wait for the ledger"));
        self.0.waiting.try_send(Waiting { events, bytes, done }).map_err(full)?;
        let unknown = || NotProposed::Status(Status::unavailable("unknown outcome: send the same again"));
        match tokio::time::timeout(POST_TIMEOUT, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(unknown()),
        }
    }
}

fn elsewhere(address: String) -> Response<wire::LedgerReply> {
    Response::new(wire::LedgerReply { leader_address: address, ..Default::default() })
}

/// Counts an answer.
fn count(verdict: &wire::LedgerVerdict) {
    let answer = match verdict.answer() {
        wire::LedgerAnswer::LedgerDone => "done",
        wire::LedgerAnswer::LedgerDuplicate => "duplicate",
        wire::LedgerAnswer::LedgerIssuer => "issuer",
        wire::LedgerAnswer::LedgerLease => "lease",
        wire::LedgerAnswer::LedgerRefused | wire::LedgerAnswer::Unspecified => &verdict.reason,
    };
    metrics::counter!("gavel_ledger_answers_total", "answer" => answer.to_owned()).increment(1);
}

/// Work on the disk, or over the whole ledger, off the async threads.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Status::internal(e.to_string()))?.map_err(|e| Status::internal(e.to_string()))
}

/// The state first, so that the journal reaches it; then the files; then the state.
async fn send_journal(
    books: &LedgerVoter,
    sender: &mpsc::Sender<Result<wire::JournalChunk, Status>>,
) -> Result<(), Status> {
    let journal = books.machine.journal().ok_or_else(|| Status::internal("no journal"))?;
    let machine = books.machine.clone();
    let (state, index) = off_thread(move || {
        let applied = machine.applied().clone();
        let index = applied.last.map_or(0, |id| id.index);
        let position = crate::convert::snapshot::Position { last: applied.last, membership: applied.membership };
        Ok((applied.state.encode(&position), index))
    })
    .await?;
    journal.safe_up_to(index).await;
    let folder = journal.folder().to_owned();
    let gone = |_| Status::cancelled("the reader has gone");
    let listed = folder.clone();
    let names = off_thread(move || {
        let name = |entry: std::io::Result<std::fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
        let mut names = std::fs::read_dir(listed)?.map(name).collect::<std::io::Result<Vec<String>>>()?;
        names.sort();
        Ok(names)
    })
    .await?;
    for name in names {
        let path = folder.join(&name);
        let bytes = off_thread(move || std::fs::read(path)).await?;
        for data in bytes.chunks(CHUNK_BYTES_MAX) {
            let chunk = wire::JournalChunk { file: name.clone(), data: data.to_vec(), state: Vec::new() };
            sender.send(Ok(chunk)).await.map_err(gone)?;
        }
    }
    for data in state.chunks(CHUNK_BYTES_MAX) {
        let chunk = wire::JournalChunk { state: data.to_vec(), ..Default::default() };
        sender.send(Ok(chunk)).await.map_err(gone)?;
    }
    Ok(())
}
