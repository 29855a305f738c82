//! What does this router know of the ledger?
//!
//! A task asks for an issuer and its keys, again each minute, and a few times a second for the leases that the purse
//! wants; requests only look at what is there. A router that cannot reach the ledger issues tokens as long as its issuer
//! is fresh, and serves paid impressions as long as its leases last.

use super::event_log::EventLog;
use super::events::{self, Waiting};
use super::mint::Sale;
use super::post::Post;
use super::purse::{Granted, Hold, PURSES, Purse, Report, Wish, purse_of};
use super::report::Reporter;
use super::served::Served;
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
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
/// A router that cannot hear whether there is a ledger takes requests after so long.
const SETTLE_MAX: Duration = Duration::from_secs(5);
/// The last reports of a router that ends take so long at most: it does not stay for them.
const FAREWELL_MAX: Duration = Duration::from_secs(2);
/// The mark that a ledger was heard of, in the data folder.
const MARK: &str = "ledger-known";
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

/// Who says what this router may spend?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// The ledger, which has granted an issuer.
    Granted,
    /// Nobody yet: no ledger was ever heard of, and ads go on (decision 20).
    Never,
    /// There is a ledger, and it has not confirmed this router for hours, or not since it started: what is billed at the
    /// impression stays out, because nothing could be charged for it.
    Lost,
}

/// What the bank needs to know of its router.
pub struct Surroundings {
    /// The cluster.
    pub cluster_id: String,
    /// Where the router remembers that there is a ledger.
    pub data_dir: PathBuf,
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
    /// By the hash of the campaign.
    purses: [Mutex<Purse>; PURSES],
    /// A ledger was heard of, by this process or one before it.
    known: AtomicBool,
    mark: Option<PathBuf>,
    /// There was a grant, or the time to wait for one is over.
    settled: watch::Sender<bool>,
    post: Option<Arc<Post>>,
    grant: ArcSwapOption<Grant>,
    sequence: AtomicU64,
    queue: mpsc::Sender<Waiting>,
    events: EventLog,
    served: Mutex<Served>,
}

impl Bank {
    /// A bank without a ledger: no tokens, no leases, ads go on.
    #[must_use]
    pub fn off() -> Arc<Self> {
        Arc::new(Self::new(EventLog::off(), None, None).0)
    }

    /// A bank whose ledger does not answer.
    #[cfg(test)]
    pub(crate) fn lost() -> Arc<Self> {
        let this = Self::new(EventLog::off(), None, None).0;
        this.known.store(true, Ordering::Relaxed);
        Arc::new(this)
    }

    fn new(events: EventLog, post: Option<Arc<Post>>, mark: Option<PathBuf>) -> (Self, mpsc::Receiver<Waiting>) {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let this = Self {
            purses: Default::default(),
            known: AtomicBool::new(mark.as_ref().is_some_and(|mark| mark.exists())),
            mark,
            // Without a ledger there is nothing to wait for.
            settled: watch::Sender::new(post.is_none()),
            post,
            grant: ArcSwapOption::empty(),
            sequence: AtomicU64::new(1),
            queue,
            events,
            served: Mutex::default(),
        };
        (this, waiting)
    }

    /// Opens the bank; its tasks end with the shutdown.
    #[must_use]
    pub fn start(mut surroundings: Surroundings, shutdown: Shutdown) -> Arc<Self> {
        let events = std::mem::replace(&mut surroundings.events, EventLog::off());
        let post = Arc::new(Post::new(&surroundings.cluster_id, Arc::clone(&surroundings.voters)));
        let mark = surroundings.data_dir.join(MARK);
        let (this, waiting) = Self::new(events, Some(Arc::clone(&post)), Some(mark));
        let this = Arc::new(this);
        let working = events::work(Arc::clone(&post), waiting);
        let reporting = Reporter::new(&surroundings).report_on(Arc::clone(&this));
        let following = Arc::clone(&this).follow(surroundings, post);
        tokio::spawn(async move {
            tokio::select! {
                () = working => {}
                () = following => {}
                () = reporting => {}
                () = shutdown.wait() => {}
            }
        });
        this
    }

    /// Who says what this router may spend.
    #[must_use]
    pub fn authority(&self) -> Authority {
        match self.grant() {
            Some(_) => Authority::Granted,
            None if self.known.load(Ordering::Relaxed) => Authority::Lost,
            None => Authority::Never,
        }
    }

    /// Returns once there was a grant, or when none came in some seconds: what a router serves before cannot be charged.
    pub async fn settled(&self) {
        let mut settled = self.settled.subscribe();
        // Either it is settled, or it takes too long.
        let _ = tokio::time::timeout(SETTLE_MAX, settled.wait_for(|settled| *settled)).await;
    }

    /// The last word on every lease, when nothing is served any more: the rest is back at once.
    pub async fn farewell(&self) {
        let Some((post, grant)) = self.post.as_ref().zip(self.grant()) else { return };
        let reports: Vec<Report> = (0..PURSES).flat_map(|at| self.purse_at(at).last_reports()).collect();
        if tokio::time::timeout(FAREWELL_MAX, report(post, grant.issuer, &reports, 2)).await.is_err() {
            tracing::warn!(leases = reports.len(), "the leases end by themselves");
        }
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

    /// What was served; changed in single steps like the purse.
    pub(super) fn served(&self) -> MutexGuard<'_, Served> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ledger's wall time, while campaigns have budgets in it.
    pub(super) fn budgeted_wall_ms(&self) -> Option<u64> {
        self.grant().filter(|grant| grant.campaigns > 0).map(|grant| grant.wall_ms(self.now_ms()))
    }

    /// A request is answered: the day's curve is made of these.
    pub fn arrive(&self) {
        if let Some(grant) = self.grant() {
            self.served().arrive(grant.wall_ms(self.now_ms()));
        }
    }

    /// An ad is served: the pacer hears what it may cost.
    pub fn deliver(&self, sale: &Sale<'_>) {
        if let Some(wall_ms) = self.budgeted_wall_ms() {
            self.served().deliver(sale.candidate.offer().campaign, &sale.delivered(), wall_ms);
        }
    }

    fn purse(&self, campaign: CampaignId) -> MutexGuard<'_, Purse> {
        self.purse_at(purse_of(campaign))
    }

    fn purse_at(&self, at: usize) -> MutexGuard<'_, Purse> {
        // A purse is changed in single steps; a panic elsewhere leaves it whole.
        self.purses[at % PURSES].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Campaigns whose impressions are billed are among the candidates, at these largest prices.
    pub fn see(&self, seen: impl Iterator<Item = (CampaignId, i64)>) {
        let now = self.now_ms();
        for (campaign, price_max) in seen {
            self.purse(campaign).see(campaign, price_max, now);
        }
    }

    /// Holds the price of an impression.
    #[must_use]
    pub fn hold(&self, campaign: CampaignId, nanos: i64) -> Option<Hold> {
        if self.grant.load().as_ref().is_some_and(|grant| grant.campaigns == 0) {
            return Some(Hold::Unbudgeted);
        }
        self.purse(campaign).hold(campaign, nanos, self.now_ms())
    }

    /// Whether the prices of impressions could be held, as far as is known: nothing is taken.
    #[must_use]
    pub fn could_hold(&self, campaign: CampaignId, prices: &[i64]) -> bool {
        let is_unbudgeted = self.grant.load().as_ref().is_some_and(|grant| grant.campaigns == 0);
        is_unbudgeted || self.purse(campaign).could_hold(campaign, prices, self.now_ms())
    }

    /// Gives back a part of a hold.
    pub fn release(&self, campaign: CampaignId, lease: u64, nanos: i64) {
        self.purse(campaign).release(campaign, lease, nanos);
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
            (0..PURSES).for_each(|at| self.purse_at(at).clear());
        }
        let (wall_ms, campaigns) = (reply.wall_ms, reply.campaigns);
        let grant = Grant { issuer: issuer.id, keys: reply.keys, wall_ms, at_ms, campaigns };
        tracing::debug!(issuer = grant.issuer, keys = grant.keys.len(), "the ledger granted an issuer");
        self.grant.store(Some(Arc::new(grant)));
        self.settled.send_replace(true);
        if !self.known.swap(true, Ordering::Relaxed)
            && let Some(mark) = self.mark.clone()
        {
            let written = tokio::task::spawn_blocking(move || std::fs::write(mark, b"")).await;
            if let Ok(Err(error)) = written {
                tracing::warn!(%error, "a router that starts without the ledger will not know that there is one");
            }
        }
    }

    /// Takes what came of wishes; one without an answer is asked again.
    fn take(&self, wishes: &[Wish], verdicts: &[LedgerVerdict]) {
        let now = self.now_ms();
        for (at, wish) in wishes.iter().enumerate() {
            let mut purse = self.purse(wish.campaign);
            match verdicts.get(at) {
                Some(verdict) => purse.granted(wish.campaign, granted(verdict), now),
                None => purse.lost(wish.campaign, now),
            }
        }
    }

    /// Reports the leases that are over, and then asks for others: the time of a lease counts from its asking, and
    /// reports to a ledger without a leader may take seconds.
    async fn round(&self, post: &Post, issuer: u64, (own, view): (u64, Option<&View>)) {
        let (mut leases, mut left, mut reports) = (0, 0, Vec::new());
        for at in 0..PURSES {
            let mut purse = self.purse_at(at);
            reports.extend(purse.reports(self.now_ms()));
            let (count, nanos) = purse.totals();
            (leases, left) = (leases + count, left + nanos);
        }
        metrics::gauge!("gavel_router_leases_count").set(leases as f64);
        metrics::gauge!("gavel_router_leased_nanos").set(left as f64);
        // A report that is lost costs nothing: the lease ends by itself.
        report(post, issuer, &reports, TRIES).await;
        let routers = routers(view);
        let wishes: Vec<Wish> = (0..PURSES).flat_map(|at| self.purse_at(at).wishes(self.now_ms())).collect();
        for wishes in wishes.chunks(LEDGER_EVENTS_MAX) {
            let opens = wishes.iter().map(|wish| Body::OpenLease(open(wish, issuer, own, &routers))).collect();
            let reply = post.post(opens, TRIES).await;
            self.take(wishes, reply.map(|reply| reply.verdicts).unwrap_or_default().as_slice());
        }
    }
}

/// Reports leases.
async fn report(post: &Post, issuer: u64, reports: &[Report], tries: usize) {
    for reports in reports.chunks(LEDGER_EVENTS_MAX) {
        let close = |r: &Report| Body::CloseLease(CloseLease { issuer, lease: r.lease, issued_nanos: r.issued });
        drop(post.post(reports.iter().map(close).collect(), tries).await);
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
        wish: wish.number,
        campaign_id: wish.campaign.0,
        rate_nanos: wish.rate,
        price_max_nanos: wish.price_max.max(1),
        routers: u32::try_from(routers.len().max(1)).unwrap_or(u32::MAX),
        heir: heir.is_none_or(|heir| *heir == own),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It served paid impressions unheld and without tokens, as if there had never been a ledger.
    #[test]
    fn a_router_remembers_that_there_is_a_ledger() {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = || Bank::new(EventLog::off(), None, Some(folder.path().join(MARK))).0.authority();
        assert_eq!(authority(), Authority::Never);
        std::fs::write(folder.path().join(MARK), b"").expect("written");
        assert_eq!(authority(), Authority::Lost);
        assert_eq!(Bank::off().authority(), Authority::Never);
    }
}
