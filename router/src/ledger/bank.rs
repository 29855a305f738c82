//! What does this router know of the ledger?
//!
//! A task asks for an issuer and its keys, again each minute, and a few times a second for the leases that the purse
//! wants; requests only look at what is there. A router that cannot reach the ledger issues tokens as long as its issuer
//! is fresh, and serves paid impressions as long as its leases last.

use super::event_log::EventLog;
use super::events::{self, Waiting};
use super::post::Post;
use super::purse::{Granted, Hold, Purse, Wish};
use arc_swap::ArcSwapOption;
use gavel_member::member::Voters;
use gavel_member::token::{self, Token};
use gavel_member::view::ViewFeed;
use gavel_member::{Shutdown, clock};
use gavel_proto::hash::combine;
use gavel_proto::ids::CampaignId;
use gavel_proto::limits::LEDGER_EVENTS_MAX;
use gavel_proto::wire::ledger_wish::Body;
use gavel_proto::wire::{CloseLease, GrantIssuer, LedgerAnswer, LedgerVerdict, OpenLease, Role, TokenKey, View};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Between two looks at what the purse wants.
const ROUND: Duration = Duration::from_millis(200);
/// Between two questions for issuer and keys.
const GRANT_MS: u64 = 60_000;
/// The same while no campaign has a budget: one that gets the first is held soon.
const GRANT_UNBUDGETED_MS: u64 = 2_000;
/// An issuer that was not confirmed for so long issues nothing more. The ledger confirms one until twelve hours after it
/// granted it, and takes its tokens until a day and an hour after: what is confirmed last may go on for twelve more.
const GRANT_MS_MAX: u64 = 12 * 3_600_000;
/// Events that may wait.
const QUEUE_MAX: usize = 16_384;
/// Tries of a round: what is not answered is asked again in the next.
const TRIES: usize = 4;

/// What the ledger granted.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Issues tokens.
    pub issuer: u64,
    /// Oldest first; the last seals.
    pub keys: Vec<TokenKey>,
    wall_ms: u64,
    at_ms: u64,
    /// Campaigns with a budget.
    campaigns: u64,
}

impl Grant {
    /// The ledger's wall time now, as far as this router can tell.
    pub fn wall_ms(&self, now_ms: u64) -> u64 {
        self.wall_ms + now_ms.saturating_sub(self.at_ms)
    }
}

/// What the bank needs to know of its router.
pub struct Surroundings {
    /// The cluster.
    pub cluster_id: String,
    /// Where voters are.
    pub voters: Arc<Voters>,
    /// Who lives.
    pub view: Arc<ViewFeed>,
    /// 0 until the first join.
    pub member_id: watch::Receiver<u64>,
    /// Of this process.
    pub incarnation: u64,
    /// Where events are logged.
    pub events: EventLog,
}

/// Leases, tokens and events of this router.
#[derive(Debug)]
pub struct Bank {
    purse: Mutex<Purse>,
    grant: ArcSwapOption<Grant>,
    sequence: AtomicU64,
    queue: mpsc::Sender<Waiting>,
    events: EventLog,
}

impl Bank {
    /// A bank without a ledger: no tokens, no leases, ads go on.
    #[must_use]
    pub fn off() -> Arc<Self> {
        Arc::new(Self::new(EventLog::off()).0)
    }

    fn new(events: EventLog) -> (Self, mpsc::Receiver<Waiting>) {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let (purse, grant) = (Mutex::default(), ArcSwapOption::empty());
        let this = Self { purse, grant, sequence: AtomicU64::new(1), queue, events };
        (this, waiting)
    }

    /// Opens the bank; its tasks end with the shutdown.
    #[must_use]
    pub fn start(mut surroundings: Surroundings, shutdown: Shutdown) -> Arc<Self> {
        let events = std::mem::replace(&mut surroundings.events, EventLog::off());
        let (this, waiting) = Self::new(events);
        let this = Arc::new(this);
        let post = Arc::new(Post::new(&surroundings.cluster_id, Arc::clone(&surroundings.voters)));
        let working = events::work(Arc::clone(&post), waiting);
        let following = Arc::clone(&this).follow(surroundings, post);
        tokio::spawn(async move {
            tokio::select! {
                () = working => {}
                () = following => {}
                () = shutdown.wait() => {}
            }
        });
        this
    }

    /// Whether somebody holds budgets for this router.
    #[must_use]
    pub fn has_authority(&self) -> bool {
        self.grant().is_some()
    }

    /// What was granted, as long as it is fresh.
    pub(super) fn grant(&self) -> Option<Arc<Grant>> {
        let now = self.now_ms();
        self.grant.load_full().filter(|grant| now.saturating_sub(grant.at_ms) < GRANT_MS_MAX)
    }

    /// The ledger's wall time as far as this router can tell; its own without a grant.
    #[must_use]
    pub fn wall_ms(&self) -> u64 {
        self.grant().map_or_else(clock::wall_ms, |grant| grant.wall_ms(self.now_ms()))
    }

    /// What a token says, if this router has its key.
    #[must_use]
    pub fn opened(&self, text: &str) -> Option<Token> {
        let grant = self.grant()?;
        Token::open(&token::of_text(text)?, &grant.keys).ok()
    }

    pub(super) const fn event_log(&self) -> &EventLog {
        &self.events
    }

    pub(super) fn now_ms(&self) -> u64 {
        clock::boot_ms()
    }

    pub(super) fn next_sequence(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) const fn queue(&self) -> &mpsc::Sender<Waiting> {
        &self.queue
    }

    fn purse(&self) -> MutexGuard<'_, Purse> {
        // The purse is changed in single steps; a panic elsewhere leaves it whole.
        self.purse.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Campaigns whose impressions are billed are among the candidates, at these largest prices.
    pub fn see(&self, seen: impl Iterator<Item = (CampaignId, i64)>) {
        let now = self.now_ms();
        let mut purse = self.purse();
        for (campaign, price_max) in seen {
            purse.see(campaign, price_max, now);
        }
    }

    /// Holds the price of an impression.
    #[must_use]
    pub fn hold(&self, campaign: CampaignId, nanos: i64) -> Option<Hold> {
        if self.grant.load().as_ref().is_some_and(|grant| grant.campaigns == 0) {
            return Some(Hold::Unbudgeted);
        }
        self.purse().hold(campaign, nanos, self.now_ms())
    }

    /// Gives back a part of a hold.
    pub fn release(&self, campaign: CampaignId, lease: u64, nanos: i64) {
        self.purse().release(campaign, lease, nanos);
    }

    async fn follow(self: Arc<Self>, surroundings: Surroundings, post: Arc<Post>) {
        loop {
            let member = *surroundings.member_id.borrow();
            let is_due = self.grant.load().as_ref().is_none_or(|grant| {
                let every = if grant.campaigns == 0 { GRANT_UNBUDGETED_MS } else { GRANT_MS };
                self.now_ms().saturating_sub(grant.at_ms) >= every
            });
            if member != 0 && is_due {
                self.ask_grant(&post, member, surroundings.incarnation).await;
            }
            if let Some(grant) = self.grant() {
                let view = surroundings.view.current();
                self.round(&post, grant.issuer, (member, view.as_deref())).await;
            }
            tokio::time::sleep(ROUND).await;
        }
    }

    async fn ask_grant(&self, post: &Post, member_id: u64, incarnation: u64) {
        let wish = Body::GrantIssuer(GrantIssuer { member_id, incarnation });
        let Some(reply) = post.post(vec![wish], TRIES).await else { return };
        let Some(issuer) = reply.verdicts.first().filter(|v| v.answer() == LedgerAnswer::LedgerIssuer) else { return };
        if reply.keys.is_empty() {
            return;
        }
        let at_ms = self.now_ms();
        if self.grant.load().as_ref().is_some_and(|held| held.issuer != issuer.id) {
            // Leases are bound to their issuer; those of the old one end by themselves.
            self.purse().clear();
        }
        let (wall_ms, campaigns) = (reply.wall_ms, reply.campaigns);
        let grant = Grant { issuer: issuer.id, keys: reply.keys, wall_ms, at_ms, campaigns };
        tracing::debug!(issuer = grant.issuer, keys = grant.keys.len(), "the ledger granted an issuer");
        self.grant.store(Some(Arc::new(grant)));
    }

    /// Takes what came of wishes; one without an answer is lost.
    fn take(&self, wishes: &[Wish], verdicts: &[LedgerVerdict], asked_ms: u64) {
        let (mut purse, now) = (self.purse(), self.now_ms());
        for (at, wish) in wishes.iter().enumerate() {
            match verdicts.get(at) {
                Some(verdict) => purse.granted(wish.campaign, granted(verdict), asked_ms, now),
                None => purse.lost(wish.campaign, now),
            }
        }
    }

    /// Asks for leases and reports those that are over.
    async fn round(&self, post: &Post, issuer: u64, (own, view): (u64, Option<&View>)) {
        let asked_ms = self.now_ms();
        let (mut wishes, reports) = {
            let mut purse = self.purse();
            let (leases, left) = purse.totals();
            metrics::gauge!("gavel_router_leases_count").set(leases as f64);
            metrics::gauge!("gavel_router_leased_nanos").set(left as f64);
            (purse.wishes(asked_ms), purse.reports(asked_ms))
        };
        let routers = routers(view);
        let close =
            |r: &super::purse::Report| Body::CloseLease(CloseLease { issuer, lease: r.lease, issued_nanos: r.issued });
        let closes: Vec<Body> = reports.iter().map(close).collect();
        for bodies in closes.chunks(LEDGER_EVENTS_MAX) {
            // A report that is lost costs nothing: the lease ends by itself.
            drop(post.post(bodies.to_vec(), TRIES).await);
        }
        while !wishes.is_empty() {
            let rest = wishes.split_off(wishes.len().min(LEDGER_EVENTS_MAX));
            let opens = wishes.iter().map(|wish| Body::OpenLease(open(wish, issuer, own, &routers))).collect();
            // Its time counts from before the first try, so that no lease is used after the ledger took it back.
            let reply = post.post(opens, TRIES).await;
            self.take(&wishes, reply.map(|reply| reply.verdicts).unwrap_or_default().as_slice(), asked_ms);
            wishes = rest;
        }
    }
}

fn granted(verdict: &LedgerVerdict) -> Granted {
    match verdict.answer() {
        LedgerAnswer::LedgerLease => {
            Granted::Lease { id: verdict.id, amount: verdict.amount_nanos, wall_ms: verdict.wall_ms }
        }
        LedgerAnswer::LedgerRefused if verdict.reason == "unknown_campaign" => Granted::Unbudgeted,
        LedgerAnswer::LedgerRefused
        | LedgerAnswer::LedgerDone
        | LedgerAnswer::LedgerDuplicate
        | LedgerAnswer::LedgerIssuer
        | LedgerAnswer::Unspecified => Granted::Refused,
    }
}

/// The routers that live.
fn routers(view: Option<&View>) -> Vec<u64> {
    let members = view.into_iter().flat_map(|view| &view.members);
    members.filter(|m| m.role() == Role::Router && m.alive && !m.draining).map(|m| m.member_id).collect()
}

fn open(wish: &Wish, issuer: u64, own: u64, routers: &[u64]) -> OpenLease {
    // The one with the highest hash of campaign and router: all agree who have the same View.
    let heir = routers.iter().max_by_key(|router| combine(wish.campaign.0, **router));
    OpenLease {
        issuer,
        campaign_id: wish.campaign.0,
        rate_nanos: wish.rate,
        price_max_nanos: wish.price_max.max(1),
        routers: u32::try_from(routers.len().max(1)).unwrap_or(u32::MAX),
        heir: heir.is_none_or(|heir| *heir == own),
    }
}
