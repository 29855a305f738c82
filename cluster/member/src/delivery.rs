//! What is said of campaigns right now, and who must know that this member has heard it?
//!
//! A stream to the voter that leads: it sends the whole at the beginning and every few seconds, and a change as soon as
//! it is applied; the member answers with what it holds. A change of a version that is not held makes it ask for the
//! whole. What was heard is in force at once, then kept on disk, and only then acknowledged: a member that starts while
//! the control plane is away revives no campaign whose pause was acknowledged everywhere. Without a voter the last book
//! stands (RQ1).

use crate::member::{MemberConfig, Voters};
use crate::{Shutdown, disk, transport};
use arc_swap::ArcSwapOption;
use gavel_proto::delivery::{Book, News, Override, Read};
use gavel_proto::limits::{AD_GROUP_OVERRIDES_MAX, DELIVERY_OVERRIDES_MAX};
use gavel_proto::wire;
use gavel_proto::wire::delivery_service_client::DeliveryServiceClient;
use prost::Message;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

/// The whole is sent every 10 s; a stream that is silent for longer is dead.
const SILENCE_MAX: Duration = Duration::from_secs(25);
/// A voter that takes longer to begin is taken for dead.
const BEGIN_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Between two attempts to find the voter that leads.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// What is said may wait for the network so often; the last one counts.
const SAYINGS: usize = 8;
const FILE_NAME: &str = "last_delivery";

/// What a member holds, by generation.
pub type Held = Vec<(u64, Vec<u64>)>;

/// What this member has made of what it heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// Nodes: the versions that searches may name.
    pub held: Held,
    /// Routers: the version that requests name.
    pub pinned: u64,
}

/// The newest book, and a signal for each change.
#[derive(Debug)]
pub struct DeliveryFeed {
    current: ArcSwapOption<Book>,
    changed: watch::Sender<u64>,
    acknowledged: watch::Sender<Acknowledged>,
    /// What others hold, as the leader told it or they said themselves.
    members: Mutex<BTreeMap<u64, Held>>,
}

impl Default for DeliveryFeed {
    fn default() -> Self {
        Self {
            current: ArcSwapOption::empty(),
            changed: watch::Sender::new(0),
            acknowledged: watch::Sender::new(Acknowledged::default()),
            members: Mutex::default(),
        }
    }
}

impl DeliveryFeed {
    /// The newest book; `None` before the first one.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Book>> {
        self.current.load_full()
    }

    /// Tells of every change of the book and of what others hold; the value only grows.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Takes a book that was made elsewhere: from disk, or by a test.
    pub fn offer(&self, book: Book) {
        self.current.store(Some(Arc::new(book)));
        self.tell();
    }

    /// Says what this member has made of what it heard; the leader is told when that is news. It is looked at under the lock
    /// of what is said, so that of two that say it at once the last one has the newest.
    pub fn acknowledge(&self, now: impl FnOnce() -> Acknowledged) {
        self.acknowledged.send_if_modified(|before| {
            let now = now();
            let is_news = *before != now;
            if is_news {
                *before = now;
            }
            is_news
        });
    }

    /// What nodes hold, as far as it is known here.
    #[must_use]
    pub fn members(&self) -> BTreeMap<u64, Held> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes what a node itself said that it holds of a generation: newer than what the leader has heard.
    pub fn learn(&self, member: u64, generation: u64, versions: Vec<u64>) {
        {
            let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
            let known = members.entry(member).or_default();
            if known.iter().any(|(of, held)| *of == generation && *held == versions) {
                // Each answer of a node that lags says so.
                return;
            }
            known.retain(|(of, _)| *of != generation);
            known.push((generation, versions));
        }
        self.tell();
    }

    fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Takes news; true when the whole is needed.
    fn read(&self, news: News) -> Result<Option<Arc<Book>>, Gap> {
        let held = self.current.load_full().unwrap_or_default();
        match held.read(news) {
            Read::Book(book) => {
                let book = Arc::new(book);
                self.current.store(Some(Arc::clone(&book)));
                metrics::gauge!("gavel_delivery_version").set(book.version as f64);
                self.tell();
                Ok(Some(book))
            }
            Read::Old => Ok(None),
            Read::Gap => Err(Gap),
        }
    }

    fn learn_all(&self, members: Vec<wire::DeliveryHeld>) {
        let read = |m: wire::DeliveryHeld| {
            let held = m.held.into_iter().map(|h| (h.generation, h.versions)).collect();
            (m.member_id, held)
        };
        self.members.lock().unwrap_or_else(PoisonError::into_inner).extend(members.into_iter().map(read));
        self.tell();
    }
}

/// News that do not fit what is held.
#[derive(Debug)]
struct Gap;

/// The book that was on disk, if it is whole.
pub(crate) fn load_last(data_dir: &Path) -> Option<Book> {
    let path = data_dir.join(FILE_NAME);
    let bytes = match disk::read_sealed(&path) {
        Ok(bytes) => bytes?,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "what was said of campaigns is not read from disk");
            return None;
        }
    };
    let last = wire::LastDelivery::decode(bytes.as_slice()).ok()?;
    let rows = last.overrides.iter().map(Override::of_wire).collect::<Result<_, _>>().ok()?;
    Some(Book::new(last.formation, last.version, rows))
}

fn keep(path: &Path, book: &Book) -> std::io::Result<()> {
    let overrides = book.rows().iter().map(|(id, row)| row.to_wire(*id)).collect();
    let last = wire::LastDelivery { formation: book.formation, version: book.version, overrides };
    disk::write_sealed(path, &last.encode_to_vec())
}

/// Follows what is said of campaigns until the shutdown.
pub(crate) async fn follow(
    config: MemberConfig,
    incarnation: u64,
    voters: Arc<Voters>,
    feed: Arc<DeliveryFeed>,
    mut member_id: watch::Receiver<u64>,
    shutdown: Shutdown,
) {
    let (mut turn, mut wanted) = (0usize, String::new());
    loop {
        // The sender may have gone with the process.
        let joined = tokio::select! {
            () = shutdown.wait() => return,
            joined = member_id.wait_for(|id| *id != 0) => joined.map(|id| *id),
        };
        let Ok(member_id) = joined else { return };
        let address = if wanted.is_empty() {
            let addresses = voters.addresses();
            turn += 1;
            addresses[turn % addresses.len()].clone()
        } else {
            std::mem::take(&mut wanted)
        };
        let path = config.data_dir.join(FILE_NAME);
        let follower = Follower { cluster_id: &config.cluster_id, member_id, incarnation, feed: &feed, path };
        tokio::select! {
            () = shutdown.wait() => return,
            end = follower.follow_one(&address) => match end {
                End::Elsewhere(leader) if !leader.is_empty() => wanted = leader,
                End::Elsewhere(_) => {}
                End::Reason(reason) => tracing::debug!(%address, reason, "the stream of delivery ended"),
            },
        }
        tokio::select! {
            () = shutdown.wait() => return,
            () = tokio::time::sleep(RETRY_PAUSE) => {}
        }
    }
}

/// Why a stream ended.
enum End {
    /// Another voter leads.
    Elsewhere(String),
    /// For the log.
    Reason(String),
}

struct Follower<'a> {
    cluster_id: &'a str,
    member_id: u64,
    incarnation: u64,
    feed: &'a DeliveryFeed,
    path: PathBuf,
}

impl Follower<'_> {
    /// One stream from one voter.
    async fn follow_one(&self, address: &str) -> End {
        let channel = match transport::control_channel(address) {
            Ok(channel) => channel,
            Err(e) => return End::Reason(e.to_string()),
        };
        let mut client = DeliveryServiceClient::new(channel).max_decoding_message_size(transport::MESSAGE_BYTES_MAX);
        let (say, sayings) = mpsc::channel(SAYINGS);
        let mut acknowledged = self.feed.acknowledged.subscribe();
        // The channel has room for the first one.
        let first = self.saying(&acknowledged.borrow_and_update(), false);
        let _ = say.send(first).await;
        let begun = tokio::time::timeout(BEGIN_TIMEOUT, client.follow(ReceiverStream::new(sayings))).await;
        let mut stream = match begun {
            Ok(Ok(reply)) => reply.into_inner(),
            Ok(Err(status)) => return End::Reason(status.to_string()),
            Err(_) => return End::Reason("no answer".to_owned()),
        };
        let mut pages = Pages::default();
        // Whether the disk has what was heard; the whole is the next attempt.
        let mut kept = true;
        loop {
            let mut wants_whole = false;
            tokio::select! {
                news = tokio::time::timeout(SILENCE_MAX, stream.message()) => {
                    let news = match news {
                        Ok(Ok(Some(news))) => news,
                        Ok(Ok(None)) => return End::Reason("ended by the voter".to_owned()),
                        Ok(Err(status)) => return End::Reason(status.to_string()),
                        Err(_) => return End::Reason("silent".to_owned()),
                    };
                    if !news.leader_address.is_empty() {
                        return End::Elsewhere(news.leader_address);
                    }
                    if !news.members.is_empty() {
                        self.feed.learn_all(news.members);
                        continue;
                    }
                    let Some(whole) = pages.take(news) else { continue };
                    match whole.map(|news| self.feed.read(news)) {
                        Ok(Ok(Some(book))) => kept = self.keep(book).await,
                        // The whole, to one who has it.
                        Ok(Ok(None)) if kept => continue,
                        Ok(Ok(None)) => match self.feed.current() {
                            Some(book) => kept = self.keep(book).await,
                            None => continue,
                        },
                        Ok(Err(Gap)) => wants_whole = true,
                        Err(reason) => return End::Reason(reason),
                    }
                }
                changed = acknowledged.changed() => if changed.is_err() { return End::Reason("the process stops".to_owned()) },
            }
            let saying = self.saying(&acknowledged.borrow_and_update(), wants_whole);
            if !kept && !wants_whole {
                // A restart would not know of it, so it is not acknowledged.
                continue;
            }
            if say.send(saying).await.is_err() {
                return End::Reason("the voter listens no more".to_owned());
            }
        }
    }

    fn saying(&self, acknowledged: &Acknowledged, wants_whole: bool) -> wire::DeliveryHeld {
        let book = self.feed.current();
        let held = acknowledged
            .held
            .iter()
            .map(|(generation, versions)| wire::HeldDelivery { generation: *generation, versions: versions.clone() });
        wire::DeliveryHeld {
            cluster_id: self.cluster_id.to_owned(),
            member_id: self.member_id,
            incarnation: self.incarnation,
            formation: book.as_ref().map_or(0, |book| book.formation),
            heard: book.as_ref().map_or(0, |book| book.version),
            held: held.collect(),
            pinned: acknowledged.pinned,
            wants_whole,
        }
    }

    /// Whether it is on the disk.
    async fn keep(&self, book: Arc<Book>) -> bool {
        let path = self.path.clone();
        match tokio::task::spawn_blocking(move || keep(&path, &book)).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::error!(path = %self.path.display(), %error, "what is said of campaigns cannot be kept");
                false
            }
            // The runtime is going down.
            Err(_) => false,
        }
    }
}

/// News of which not all pages have come, and of how many ad groups they say something.
#[derive(Default)]
struct Pages(Option<(News, usize)>);

impl Pages {
    /// Takes a page; the whole with its last.
    fn take(&mut self, page: wire::DeliveryNews) -> Option<Result<News, String>> {
        let rows: Result<Vec<_>, _> = page.rows.iter().map(Override::of_wire).collect();
        let rows = match rows {
            Ok(rows) => rows,
            // Another version wrote it; guessing would let a paused campaign win.
            Err(reason) => return Some(Err(reason)),
        };
        let fresh = || News { formation: page.formation, version: page.version, since: page.since, rows: Vec::new() };
        let begun = self.0.take().filter(|(news, _)| news.version == page.version);
        let (mut news, mut groups) = begun.unwrap_or_else(|| (fresh(), 0));
        groups += rows.iter().map(|(_, row)| row.ad_groups.len()).sum::<usize>();
        news.rows.extend(rows);
        if news.rows.len() > DELIVERY_OVERRIDES_MAX || groups > AD_GROUP_OVERRIDES_MAX {
            return Some(Err("more campaigns or ad groups than there may be".to_owned()));
        }
        if page.more {
            self.0 = Some((news, groups));
            return None;
        }
        Some(Ok(news))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gavel_proto::delivery::{GroupOverride, Status};

    fn paused(id: u64) -> wire::CampaignOverride {
        Override { status: Some(Status::Paused), ..Override::default() }.to_wire(id)
    }

    #[test]
    fn pages_are_in_force_with_the_last() {
        let mut pages = Pages::default();
        let page = |id, more| wire::DeliveryNews { version: 3, rows: vec![paused(id)], more, ..Default::default() };
        assert!(pages.take(page(1, true)).is_none());
        let news = pages.take(page(2, false)).unwrap().unwrap();
        assert_eq!((news.version, news.rows.len()), (3, 2));
        let feed = DeliveryFeed::default();
        assert!(feed.read(news).unwrap().is_some());
        let change = News { version: 5, since: 4, ..News::default() };
        assert!(feed.read(change).is_err(), "the whole is needed");
    }

    #[test]
    fn a_book_comes_back_from_disk() {
        let dir = tempfile::tempdir().unwrap();
        assert!(load_last(dir.path()).is_none());
        let group = GroupOverride { bid_micros: Some(5), status: Some(Status::Paused) };
        let row = Override { status: Some(Status::Paused), ad_groups: vec![(3, group)], ..Override::default() };
        let book = Book::new(7, 9, vec![(4, row)]);
        keep(&dir.path().join(FILE_NAME), &book).unwrap();
        assert_eq!(load_last(dir.path()), Some(book));
        std::fs::write(dir.path().join(FILE_NAME), "damaged").unwrap();
        assert!(load_last(dir.path()).is_none());
    }
}
