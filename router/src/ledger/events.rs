//! What is answered to an event, and when?
//!
//! Events wait 20 ms for company and go to the ledger 512 at a time; an event is answered when its charge is committed,
//! never before. A batch that nobody took is sent again as it is: its tokens are its ids. After some seconds the answer
//! is `unavailable`, and the client sends the event again, to any router.
//!
//! A notice of a win is never billed and does not reach the ledger: it is answered here, by its token and the time alone.

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
/// Answers to what is no event of ours, or none yet.
const UNTAKEN: [&str; 3] = [UNAVAILABLE, "forged", "invalid"];
/// A token may be ahead of this router's time by as much as the ledger allows.
const EARLY_MS: u64 = 3_600_000;
/// Charged now: it is said once of each event.
const CHARGED: &str = "charged";

/// Something that happened to an ad.
#[derive(Clone, Debug)]
pub struct AdEvent {
    /// What.
    pub kind: EventKind,
    /// The ad's token.
    pub token: String,
}

/// Where the word comes from, or the word itself.
type Answer = Result<oneshot::Receiver<String>, &'static str>;
/// What became of an event.
#[derive(Clone, Debug)]
pub struct Reported {
    /// The word of the answer.
    pub answer: String,
    /// The token, as far as this router could open it.
    pub token: Option<Token>,
}

impl Reported {
    /// True when it was charged, and so for the first time.
    #[must_use]
    pub fn is_charged(&self) -> bool {
        self.answer == CHARGED
    }
}

/// An event that waits for its answer.
#[derive(Debug)]
pub struct Waiting {
    event: SealedEvent,
    done: oneshot::Sender<String>,
}

impl Bank {
    /// Reports events; an answer to each, once they are committed.
    pub async fn report(&self, events: Vec<AdEvent>) -> Vec<Reported> {
        let came_ms = self.wall_ms();
        // All are queued before the first is waited for.
        let enqueue = |event: AdEvent| {
            let taken = self.enqueue(&event);
            (event, taken)
        };
        let taken: Vec<_> = events.into_iter().map(enqueue).collect();
        let mut reported = Vec::with_capacity(taken.len());
        let until = now_us().0 + ANSWER_US;
        for (event, (mut token, answer)) in taken {
            let left = Duration::from_micros(until.saturating_sub(now_us().0));
            let word = match answer {
                Ok(answered) => match tokio::time::timeout(left, answered).await {
                    Ok(Ok(word)) => word,
                    Ok(Err(_)) | Err(_) => UNAVAILABLE.to_owned(),
                },
                Err(word) => word.to_owned(),
            };
            metrics::counter!("gavel_router_events_total", "answer" => word.clone()).increment(1);
            if !UNTAKEN.contains(&word.as_str()) {
                // A key that was not there a moment ago may be now.
                token = token.or_else(|| self.opened(&event.token));
                self.event_log().take(event.kind, token.as_ref(), &word, came_ms);
                // Impressions have no delay to count: requests need not wait for them.
                let is_late = |token: &Token| token.billed != EventKind::EventImpression;
                if let Some(token) = token.filter(|token| word == CHARGED && is_late(token)) {
                    self.served().charged(token.billed, came_ms.saturating_sub(token.issued_ms));
                }
            }
            reported.push(Reported { answer: word, token });
        }
        reported
    }

    /// Puts an event into the queue, or answers it at once; with its token, if it can be opened.
    fn enqueue(&self, event: &AdEvent) -> (Option<Token>, Answer) {
        let Some(bytes) = token::of_text(&event.token) else { return (None, Err("forged")) };
        if event.kind == EventKind::Unspecified {
            return (None, Err("invalid"));
        }
        let keys = self.grant().map(|grant| grant.keys.clone()).unwrap_or_default();
        let token = match Token::open(&bytes, &keys) {
            Ok(token) => Some(token),
            // A key that came after ours: the ledger has all of them.
            Err(TokenError::Forged | TokenError::NoKey) if Token::names_another_key(&bytes, &keys) => None,
            Err(TokenError::Forged | TokenError::NoKey) => return (None, Err("forged")),
        };
        match &token {
            _ if event.kind == EventKind::EventWin => {
                return (token, Err(token.map_or(UNAVAILABLE, |token| noted(&token, self.wall_ms()))));
            }
            Some(known) if known.billed != event.kind => return (token, Err("not_billed")),
            Some(_) | None => {}
        }
        let (done, answered) = oneshot::channel();
        let event = SealedEvent { token: bytes, kind: event.kind.into() };
        let queued = self.queue().try_send(Waiting { event, done });
        (token, queued.map(|()| answered).map_err(|_| UNAVAILABLE))
    }
}

/// The answer to a notice of a win. It changes nothing, so a second one is answered like the first, and its limits are
/// those of the ad's billed event.
const fn noted(token: &Token, now_ms: u64) -> &'static str {
    if token.issued_ms > now_ms.saturating_add(EARLY_MS) {
        "early"
    } else if token.expires_ms < now_ms {
        "expired"
    } else {
        "noted"
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
        LedgerAnswer::LedgerDone => CHARGED.to_owned(),
        LedgerAnswer::LedgerDuplicate => "duplicate".to_owned(),
        LedgerAnswer::LedgerRefused => verdict.reason.clone(),
        LedgerAnswer::LedgerIssuer | LedgerAnswer::LedgerLease | LedgerAnswer::Unspecified => UNAVAILABLE.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_of_a_win_has_the_window_of_its_ad_and_is_answered_again() {
        let token = Token {
            model: 1,
            trial: 0,
            issuer: 1,
            sequence: 2,
            billed: EventKind::EventClick,
            campaign: 3,
            ad: 4,
            slot: 0,
            auction: 5,
            request: 6,
            issued_ms: 10_000_000,
            expires_ms: 10_060_000,
            period_ms: 10_000_000,
            price_nanos: 7,
            bid_nanos: 8,
            lease: 0,
        };
        let at = |now_ms| noted(&token, now_ms);
        assert_eq!([at(10_000_000), at(10_000_000), at(10_060_000)], ["noted"; 3]);
        assert_eq!(at(10_060_001), "expired");
        assert_eq!(at(10_000_000 - EARLY_MS - 1), "early");
        assert_eq!(at(10_000_000 - EARLY_MS), "noted");
    }

    /// Without a grant no token can be opened: a well-formed one is left to the ledger, a notice is sent again.
    #[tokio::test]
    async fn without_keys_nothing_is_taken_for_forged_that_might_not_be() {
        let bank = Bank::off();
        let event = |kind, token: &str| AdEvent { kind, token: token.to_owned() };
        let key = gavel_proto::wire::TokenKey { id: 9, secret: vec![9; 32], since_ms: 0 };
        let sealed = token::to_text(&[1; token::TOKEN_BYTES]);
        let words = bank.report(vec![
            event(EventKind::EventWin, &sealed),
            event(EventKind::EventWin, "no token"),
            event(EventKind::EventWin, &token::to_text(&key.secret)),
            event(EventKind::Unspecified, &sealed),
        ]);
        let answers: Vec<String> = words.await.into_iter().map(|reported| reported.answer).collect();
        assert_eq!(answers, ["unavailable", "forged", "forged", "invalid"]);
    }
}
