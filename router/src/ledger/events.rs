//! What is answered to an event, and when?
//!
//! Events wait 20 ms for company and go to the ledger 512 at a time; an event is answered when its charge is committed,
//! never before. A batch that nobody took is sent again as it is: its tokens are its ids. After some seconds the answer
//! is `unavailable`, and the client sends the event again, to any router.

use super::bank::Bank;
use super::post::Post;
use gavel_member::clock::now_us;
use gavel_member::token::{self, Token, TokenError};
use gavel_proto::limits::LEDGER_EVENTS_MAX;
use gavel_proto::wire::ledger_wish::Body;
use gavel_proto::wire::{EventKind, LedgerAnswer, LedgerVerdict, SealedEvent};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Events of one report.
pub const EVENTS_MAX: usize = LEDGER_EVENTS_MAX;
/// What comes within this time shares a batch (reliability 5.1).
const GATHER: Duration = Duration::from_millis(20);
/// Batches on their way at once.
const BATCHES_MAX: usize = 4;
/// Tries of a batch: with their pauses longer than an election.
const TRIES: usize = 40;
/// An event that is not answered by then may be sent again.
const ANSWER_US: u64 = 8_000_000;
/// Not committed as far as this router knows.
const UNAVAILABLE: &str = "unavailable";

/// Something that happened to an ad.
#[derive(Clone, Debug)]
pub struct AdEvent {
    /// What.
    pub kind: EventKind,
    /// The ad's token.
    pub token: String,
}

/// An event that waits for its answer.
#[derive(Debug)]
pub struct Waiting {
    event: SealedEvent,
    done: oneshot::Sender<String>,
}

impl Bank {
    /// Reports events; a word for each, once they are committed.
    pub async fn report(&self, events: Vec<AdEvent>) -> Vec<String> {
        let mut answers = Vec::with_capacity(events.len());
        for event in events {
            answers.push(self.enqueue(event));
        }
        let mut words = Vec::with_capacity(answers.len());
        let until = now_us().0 + ANSWER_US;
        for answer in answers {
            let left = Duration::from_micros(until.saturating_sub(now_us().0));
            let word = match answer {
                Ok(answered) => match tokio::time::timeout(left, answered).await {
                    Ok(Ok(word)) => word,
                    Ok(Err(_)) | Err(_) => UNAVAILABLE.to_owned(),
                },
                Err(word) => word.to_owned(),
            };
            metrics::counter!("gavel_router_events_total", "answer" => word.clone()).increment(1);
            words.push(word);
        }
        words
    }

    /// Puts an event into the queue, or answers it at once.
    fn enqueue(&self, event: AdEvent) -> Result<oneshot::Receiver<String>, &'static str> {
        let bytes = token::of_text(&event.token).ok_or("forged")?;
        if event.kind == EventKind::Unspecified {
            return Err("invalid");
        }
        let keys = self.grant().map(|grant| grant.keys.clone()).unwrap_or_default();
        match Token::open(&bytes, &keys) {
            Ok(token) if token.billed != event.kind => return Err("not_billed"),
            Ok(_) => {}
            // A key that came after ours: the ledger has all of them.
            Err(TokenError::Forged | TokenError::NoKey) if Token::names_another_key(&bytes, &keys) => {}
            Err(TokenError::Forged | TokenError::NoKey) => return Err("forged"),
        }
        let (done, answered) = oneshot::channel();
        let event = SealedEvent { token: bytes, kind: event.kind.into() };
        self.queue().try_send(Waiting { event, done }).map_err(|_| UNAVAILABLE)?;
        Ok(answered)
    }
}

/// Works off the queue until it ends.
pub async fn work(post: Arc<Post>, mut queue: mpsc::Receiver<Waiting>) {
    let room = Arc::new(Semaphore::new(BATCHES_MAX));
    while let Some(first) = queue.recv().await {
        let mut batch = vec![first];
        let gather = async {
            while batch.len() < LEDGER_EVENTS_MAX {
                let Some(next) = queue.recv().await else { return };
                batch.push(next);
            }
        };
        // Either the batch is full, or the time is over.
        let _ = tokio::time::timeout(GATHER, gather).await;
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let post = Arc::clone(&post);
        tokio::spawn(async move {
            // Whoever has gone sends again.
            batch.retain(|waiting| !waiting.done.is_closed());
            let wishes = batch.iter().map(|waiting| Body::Event(waiting.event.clone())).collect();
            if let Some(reply) = post.post(wishes, TRIES).await {
                for (waiting, verdict) in batch.into_iter().zip(&reply.verdicts) {
                    // Whoever waited may have gone.
                    let _ = waiting.done.send(word(verdict));
                }
            }
            drop(permit);
        });
    }
}

/// The word of an answer.
fn word(verdict: &LedgerVerdict) -> String {
    match verdict.answer() {
        LedgerAnswer::LedgerDone => "charged".to_owned(),
        LedgerAnswer::LedgerDuplicate => "duplicate".to_owned(),
        LedgerAnswer::LedgerRefused => verdict.reason.clone(),
        LedgerAnswer::LedgerIssuer | LedgerAnswer::LedgerLease | LedgerAnswer::Unspecified => UNAVAILABLE.to_owned(),
    }
}
