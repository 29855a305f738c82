//! How do wishes become entries of the ledger's log, and how does its time pass?
//!
//! What came within 20 ms goes into one entry, 512 events at most, so that one fsync on each voter pays for all of them;
//! a few entries may be on their way at once. An idle leader writes an entry a second while leases run, which ends them,
//! and one in ten seconds else. It also sees to it that there is a key for tokens, and a new one each day.
//!
//! How much time passed is what this voter's own clock says between two entries of one term; a new leader begins at
//! nothing, so that time is never counted twice and leases end late rather than early.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gavel_member::transport::control_channel;
use gavel_member::{clock, random};
use gavel_proto::deadline::Instant;
use gavel_proto::limits::{COMMAND_BYTES_MAX, LEDGER_EVENTS_MAX};
use gavel_proto::wire;
use gavel_proto::wire::ledger_service_client::LedgerServiceClient;
use openraft::BasicNode;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tonic::Status;

use super::super::{Leader, NotProposed, Voter};
use super::LedgerVoter;
use super::wall::Wall;
use crate::consensus::Answer;
use crate::convert::ledger::encode;
use crate::ledger::HOUR_MS;
use crate::ledger::command::{Batch, Event};
use crate::ledger::types::{TokenKey, Verdict};

/// Events that came within this time share an entry (reliability 5.1).
const GATHER: Duration = Duration::from_millis(20);
/// Entries on their way at once.
const ENTRIES_MAX: usize = 4;
/// Between two looks whether time must pass.
const TICK_US: u64 = 500_000;
const TICK: Duration = Duration::from_micros(TICK_US);
/// Between two entries of an idle leader: while leases run, and else.
const IDLE_LEASED_US: u64 = 1_000_000;
const IDLE_US: u64 = 10_000_000;
/// A pause of more between two entries was none of this leader's life: the machine stood still.
const PAUSE_US_MAX: u64 = 20_000_000;
/// Between two questions for the others' clocks, and how long each may take to answer.
const WITNESS_US: u64 = 5_000_000;
const WITNESS_MAX: Duration = Duration::from_millis(500);
/// A key seals for so long.
const KEY_MS: u64 = 24 * HOUR_MS;

/// Events that wait for their entry.
#[derive(Debug)]
pub struct Waiting {
    /// In their order.
    pub events: Vec<Event>,
    /// What they take in an entry.
    pub bytes: usize,
    /// Who waits.
    pub done: oneshot::Sender<Result<(Vec<Verdict>, u64), NotProposed>>,
}

/// The time that this leader has counted.
#[derive(Debug, Default)]
struct Counted {
    term: u64,
    at: Instant,
    wall: Wall,
    /// When the others were asked what time it is.
    asked: Instant,
}

impl Counted {
    /// What passed since the entry before, in whole milliseconds.
    fn elapsed_ms(&mut self, term: u64, now: Instant) -> u64 {
        let passed = now.0.saturating_sub(self.at.0);
        if self.term != term || passed > PAUSE_US_MAX {
            (self.term, self.at) = (term, now);
            return 0;
        }
        // What is less than a millisecond is counted with the next.
        self.at = Instant(now.0 - passed % 1_000);
        passed / 1_000
    }
}

/// Drives the ledger until its wishes end: forms its group, gathers entries, lets time pass.
pub async fn drive(
    books: Arc<LedgerVoter>,
    mut wishes: mpsc::Receiver<Waiting>,
    voter: Arc<Voter>,
    addresses: BTreeMap<u64, String>,
) {
    let (room, mut counted) = (Arc::new(Semaphore::new(ENTRIES_MAX)), Counted::default());
    let (mut held, mut looked_at): (Option<Waiting>, Instant) = (None, Instant(0));
    loop {
        let first = match held.take() {
            Some(waiting) => Some(waiting),
            None => match tokio::time::timeout(TICK, wishes.recv()).await {
                Ok(Some(waiting)) => Some(waiting),
                Ok(None) => return,
                Err(_) => None,
            },
        };
        // Also while wishes never end.
        if clock::now_us().0.saturating_sub(looked_at.0) >= TICK_US {
            looked_at = clock::now_us();
            form(&books, &voter, &addresses).await;
            let others: Vec<String> = addresses
                .iter()
                .filter(|(id, _)| **id != voter.own.node_id)
                .map(|(_, address)| address.clone())
                .collect();
            tick(&books, &mut counted, &voter.own.cluster_id, &others).await;
        }
        let Some(first) = first else { continue };
        let mut gathered = gather(first, &mut wishes, &mut held).await;
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        // Whoever gave up waiting sends the same again: it would only take the place of those who still wait.
        gathered.retain(|waiting| !waiting.done.is_closed());
        if gathered.is_empty() {
            continue;
        }
        let events = gathered.iter().flat_map(|waiting| waiting.events.iter().cloned()).collect();
        let command = encode(&batch(&books, &mut counted, events));
        let books = Arc::clone(&books);
        tokio::spawn(async move {
            tell(gathered, write(&books, command).await);
            drop(permit);
        });
    }
}

/// Whatever comes soon, as far as it fits one entry; what does not is held.
async fn gather(first: Waiting, wishes: &mut mpsc::Receiver<Waiting>, held: &mut Option<Waiting>) -> Vec<Waiting> {
    let (mut count, mut bytes) = (first.events.len(), first.bytes);
    let mut gathered = vec![first];
    let all = async {
        while count < LEDGER_EVENTS_MAX {
            let Some(next) = wishes.recv().await else { return };
            if count + next.events.len() > LEDGER_EVENTS_MAX || bytes + next.bytes > COMMAND_BYTES_MAX {
                *held = Some(next);
                return;
            }
            count += next.events.len();
            bytes += next.bytes;
            gathered.push(next);
        }
    };
    // Either the entry is full, or the time is over.
    let _ = tokio::time::timeout(GATHER, all).await;
    gathered
}

fn batch(books: &LedgerVoter, counted: &mut Counted, events: Vec<Event>) -> Batch {
    let term = books.core.raft.metrics().borrow().current_term;
    let (now, own_ms) = (clock::now_us(), clock::wall_ms());
    let ledger_ms = books.machine.applied().state.wall_ms;
    let wall_ms = counted.wall.claim(term, (now, own_ms), ledger_ms);
    metrics::gauge!("gavel_ledger_wall_ahead_ms").set(own_ms.saturating_sub(wall_ms) as f64);
    Batch { elapsed_ms: counted.elapsed_ms(term, now), wall_ms, events }
}

/// Asks the other voters what time it is, when this one's clock alone says that the ledger is far behind.
async fn ask_for_witnesses(counted: &mut Counted, cluster_id: &str, others: &[String]) {
    let now = clock::now_us();
    if !counted.wall.needs_witnesses() || now.0.saturating_sub(counted.asked.0) < WITNESS_US {
        return;
    }
    counted.asked = now;
    let others_ms = clocks(cluster_id, others).await;
    let own_ms = clock::wall_ms();
    if counted.wall.witness(own_ms, &others_ms, others.len() + 1) {
        tracing::info!(own_ms, ?others_ms, "the ledger's time goes on: the voters' clocks agree");
    } else {
        tracing::error!(own_ms, ?others_ms, "the ledger's wall time stands: set this voter's clock, or the others'");
    }
}

/// What the clocks of those who answer say. All are asked at once, because wishes wait meanwhile.
async fn clocks(cluster_id: &str, others: &[String]) -> Vec<u64> {
    let mut asked = JoinSet::new();
    for address in others {
        let Ok(channel) = control_channel(address) else { continue };
        let request = wire::ClockRequest { cluster_id: cluster_id.to_owned() };
        asked.spawn(async move {
            let mut client = LedgerServiceClient::new(channel);
            let reply = tokio::time::timeout(WITNESS_MAX, client.clock(request)).await;
            Some(reply.ok()?.ok()?.into_inner().wall_ms)
        });
    }
    asked.join_all().await.into_iter().flatten().collect()
}

/// Has an entry applied.
async fn write(books: &LedgerVoter, command: Vec<u8>) -> Result<(Vec<Verdict>, u64), NotProposed> {
    let written = books.core.write(command).await?;
    match written.data {
        Answer::Ledger(verdicts) => Ok((verdicts, written.log_id.index)),
        Answer::Nothing | Answer::Control(_) => {
            Err(NotProposed::Status(Status::internal("an answer of another group")))
        }
    }
}

/// Gives everybody their part of the answers.
fn tell(gathered: Vec<Waiting>, answer: Result<(Vec<Verdict>, u64), NotProposed>) {
    let mut rest = match answer {
        Ok((verdicts, index)) => Ok((verdicts.into_iter(), index)),
        Err(NotProposed::Elsewhere(leader)) => Err((Some(leader), Status::unavailable("no leader"))),
        Err(NotProposed::Status(status)) => Err((None, status)),
    };
    for waiting in gathered {
        let own = match &mut rest {
            Ok((verdicts, index)) => Ok((verdicts.by_ref().take(waiting.events.len()).collect(), *index)),
            Err((Some(leader), _)) => Err(NotProposed::Elsewhere(leader.clone())),
            Err((None, status)) => Err(NotProposed::Status(status.clone())),
        };
        // Whoever waited may have gone.
        let _ = waiting.done.send(own);
    }
}

/// Forms the ledger's group once the control state's has a leader: that one, with the same voters. Should two do it one
/// after the other, they write the same first entry.
async fn form(books: &LedgerVoter, voter: &Voter, addresses: &BTreeMap<u64, String>) {
    if !voter.admitted.load(Ordering::Acquire) || voter.leader() != Leader::Own {
        return;
    }
    if books.core.raft.is_initialized().await.unwrap_or(true) {
        return;
    }
    let members: BTreeMap<u64, BasicNode> =
        addresses.iter().map(|(id, address)| (*id, BasicNode::new(address))).collect();
    match books.core.raft.initialize(members).await {
        Ok(()) => tracing::info!("the ledger's group is formed"),
        Err(error) => tracing::debug!(%error, "the ledger's group is formed already"),
    }
}

/// Lets time pass, and sees to the keys.
async fn tick(books: &LedgerVoter, counted: &mut Counted, cluster_id: &str, others: &[String]) {
    let leads = books.core.leader() == Leader::Own && books.is_settled();
    metrics::gauge!("gavel_ledger_leader").set(if leads { 1.0 } else { 0.0 });
    if !leads {
        return;
    }
    ask_for_witnesses(counted, cluster_id, others).await;
    let (leased, newest, ledger_ms) = {
        let ledger = &books.machine.applied().state;
        tell_metrics(ledger);
        (!ledger.leases.is_empty(), ledger.keys.last().map(|key| (key.id, key.since_ms)), ledger.wall_ms)
    };
    let mut events = Vec::new();
    if is_key_due(newest.map(|(_, since_ms)| since_ms), ledger_ms) {
        events.extend(new_key(newest.map_or(1, |(id, _)| id + 1)).map(Event::AddKey));
    }
    let silent = clock::now_us().0.saturating_sub(counted.at.0);
    let due = if leased { IDLE_LEASED_US } else { IDLE_US };
    if events.is_empty() && silent < due {
        return;
    }
    let command = encode(&batch(books, counted, events));
    if let Err(error) = write(books, command).await {
        tracing::debug!(?error, "the ledger's time stands still");
    }
}

/// Whether tokens need a new key. A key begins at the ledger's time, which may stand behind this voter's clock: by that
/// clock each new key would be old at once.
fn is_key_due(newest_since_ms: Option<u64>, ledger_ms: u64) -> bool {
    newest_since_ms.is_none_or(|since_ms| since_ms.saturating_add(KEY_MS) < ledger_ms)
}

fn tell_metrics(ledger: &crate::ledger::Ledger) {
    metrics::gauge!("gavel_ledger_leases_count").set(ledger.leases.len() as f64);
    metrics::gauge!("gavel_ledger_accounts_count").set(ledger.accounts.len() as f64);
    metrics::gauge!("gavel_ledger_charges_count").set(ledger.counts.charges as f64);
    metrics::gauge!("gavel_ledger_free_count").set(ledger.counts.free as f64);
}

/// A key from the system's random source; without it there is none, and no token.
fn new_key(id: u32) -> Option<TokenKey> {
    match random::secret() {
        Ok(secret) => Some(TokenKey { id, secret, since_ms: 0 }),
        Err(error) => {
            tracing::error!(%error, "no random source: no key for tokens");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_counted_once_and_never_across_terms() {
        let mut counted = Counted::default();
        let at = Instant;
        assert_eq!(counted.elapsed_ms(3, at(5_000_000)), 0, "the first entry of a term");
        assert_eq!(counted.elapsed_ms(3, at(5_020_900)), 20);
        assert_eq!(counted.elapsed_ms(3, at(5_040_100)), 20, "the rest is counted with the next");
        assert_eq!(counted.elapsed_ms(3, at(5_040_100)), 0);
        assert_eq!(counted.elapsed_ms(4, at(6_000_000)), 0, "another leader counted meanwhile");
        assert_eq!(counted.elapsed_ms(4, at(27_000_000)), 0, "it stood still");
        assert_eq!(counted.elapsed_ms(4, at(27_000_000)), 0);
    }

    /// By the leader's clock, a day ahead of a ledger whose time stood, each look made a key until there was no room.
    #[test]
    fn a_key_is_due_a_day_of_the_ledgers_time_after_the_one_before() {
        let since_ms = 400 * KEY_MS;
        assert!(is_key_due(None, 0), "the first");
        assert!(!is_key_due(Some(since_ms), since_ms), "the ledger's time stands");
        assert!(!is_key_due(Some(since_ms), since_ms + KEY_MS));
        assert!(is_key_due(Some(since_ms), since_ms + KEY_MS + 1));
    }

    /// They were asked one after the other, and with each that was silent the ledger stood for half a second.
    #[tokio::test]
    async fn silent_voters_are_waited_for_together() {
        let silent: Vec<_> =
            (0..8).map(|_| std::net::TcpListener::bind("127.0.0.1:0").expect("a listener that says nothing")).collect();
        let others: Vec<String> = silent.iter().map(|l| l.local_addr().expect("bound").to_string()).collect();
        let from_us = clock::now_us().0;
        assert!(clocks("test", &others).await.is_empty());
        let took = Duration::from_micros(clock::now_us().0 - from_us);
        assert!(took < WITNESS_MAX * 4, "{took:?} for eight of them");
    }

    /// Entries were counted by their events alone, and 512 long time zones were more than a command may be.
    #[tokio::test]
    async fn an_entry_is_full_by_its_bytes_as_well() {
        let (sender, mut wishes) = mpsc::channel(4);
        for _ in 0..3 {
            let (done, _) = oneshot::channel();
            let grant = Event::GrantIssuer { member: gavel_proto::ids::MemberId(1), incarnation: 1 };
            let waiting = Waiting { events: vec![grant], bytes: COMMAND_BYTES_MAX / 2, done };
            sender.try_send(waiting).expect("room");
        }
        let first = wishes.recv().await.expect("the first");
        let mut held = None;
        let gathered = gather(first, &mut wishes, &mut held).await;
        assert_eq!((gathered.len(), held.is_some()), (2, true));
    }
}
