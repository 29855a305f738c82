//! Does the search of live requests find what a comparison with every eligible item finds?
//!
//! One request in some thousand is answered a second time, by the oracle, on a thread of its own and of low priority: the
//! request has been answered long before. The queue is short and whatever comes while it is full is dropped and counted,
//! so a busy node probes less and serves the same. What was found against what was to be found is counted by plan and by
//! the share of items that passed the filter; a mean below the threshold is an alarm (`docs/OPERATIONS.md`).
//!
//! Searches that ran into their deadline are not probed: what they lack stands in their coverage already. The list by bid
//! is exact and not a part of this.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use crate::retrieval::recall::{Band, RecallTable, hits};
use crate::retrieval::{Method, Mode, RetrievalQuery, RetrievalScratch};
use crate::segment::{Bitset, SegmentError};
use crate::staging::holdings::Target;

use super::search::{Search, ShardAnswer};
use super::{answer, candidates, targeting, thread};

/// Requests that wait for the oracle. Each holds a picture of the shard alive; a second of waiting is no use to anybody.
const QUEUE: usize = 4;

/// What is probed, and when to ring.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProbeSpec {
    /// One search in so many; 0 = none.
    pub every: u64,
    /// Recall below which there is an alarm.
    pub alarm: f32,
}

impl ProbeSpec {
    /// Of a share of the searches.
    #[must_use]
    pub fn of_share(share: f64, alarm: f64) -> Self {
        let every = if share > 0.0 { (1.0 / share.min(1.0)).round() as u64 } else { 0 };
        Self { every, alarm: alarm as f32 }
    }
}

/// What the inner product found for one search of one shard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FoundItems {
    /// What their places are by.
    places: Vec<f32>,
    /// How they were found.
    method: Option<Method>,
}

impl FoundItems {
    /// Keeps what a search found instead of what an earlier one did.
    pub fn keep(&mut self, found: &candidates::Found) {
        self.places.clear();
        self.places.extend_from_slice(&found.places);
        self.method = Some(found.plan.method);
    }
}

struct Job {
    target: Target,
    search: Arc<Search>,
    found: FoundItems,
}

/// Takes samples.
pub struct RecallProbe {
    every: u64,
    count: AtomicU64,
    queue: Option<SyncSender<Job>>,
}

impl RecallProbe {
    /// Starts its thread, which ends with the last user of this.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(spec: ProbeSpec) -> std::io::Result<Self> {
        if spec.every == 0 {
            return Ok(Self { every: 0, count: AtomicU64::new(0), queue: None });
        }
        let (sender, receiver) = sync_channel(QUEUE);
        let table = RecallTable::new(spec.alarm);
        std::thread::Builder::new().name("recall-probe".to_owned()).spawn(move || run(&receiver, table))?;
        Ok(Self { every: spec.every, count: AtomicU64::new(0), queue: Some(sender) })
    }

    /// Looks at one answered search and takes it or not.
    pub fn offer(&self, target: &Target, search: &Arc<Search>, answer: &ShardAnswer, found: &FoundItems) {
        let Some(queue) = &self.queue else { return };
        let serving = search.mode == Mode::Auto && search.auction.cut.is_some();
        if !serving || answer.outcome != super::search::Outcome::Finished || found.method.is_none() {
            return;
        }
        if !self.count.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.every) {
            return;
        }
        let job = Job { target: target.clone(), search: Arc::clone(search), found: found.clone() };
        let outcome = match queue.try_send(job) {
            Ok(()) => "taken",
            Err(TrySendError::Full(_)) => "dropped",
            // The thread ends only with its sender; if it did not, there is a panic in the log.
            Err(TrySendError::Disconnected(_)) => "lost",
        };
        metrics::counter!("gavel_node_recall_probes_total", "outcome" => outcome).increment(1);
    }
}

fn run(queue: &Receiver<Job>, mut table: RecallTable) {
    thread::lower_priority();
    let mut scratch = RetrievalScratch::default();
    while let Ok(job) = queue.recv() {
        if let Err(error) = probe(&job, &mut table, &mut scratch) {
            tracing::warn!(%error, "a recall probe failed");
        }
    }
}

/// What one probe saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Probed {
    /// Items of the truth that were found.
    pub found: u32,
    /// Items of the truth.
    pub wanted: u32,
    /// Which share passed the filter.
    pub band: Band,
}

fn compare(job: &Job, scratch: &mut RetrievalScratch) -> Result<Probed, SegmentError> {
    let Job { target, search, found } = job;
    // What was silent in that auction, or out of it, was not to be found.
    let target = &target.in_auction(search.auction.auction_id, search.unix_s);
    let order = candidates::ValueOrder::of(target);
    let among = |item, ads: &Bitset| order.as_ref().map_or(0.0, |order| order.among(item, ads));
    let query = RetrievalQuery {
        vector: &search.query,
        targeting: targeting(target, search),
        quota: search.quota,
        mode: Mode::Exact,
        values: order.as_ref().map(|order| order.values(&among)),
        // Nobody waits for this answer.
        expired: &|| false,
        cpu_us: &thread::cpu_us,
    };
    let truth = candidates::nearest(&target.loaded.shard, &target.delivery, &query, scratch)?;
    Ok(Probed {
        found: hits(&found.places, &truth.places),
        wanted: truth.items.len() as u32,
        band: Band::of(truth.eligible_items, target.loaded.shard.items()),
    })
}

fn probe(job: &Job, table: &mut RecallTable, scratch: &mut RetrievalScratch) -> Result<(), SegmentError> {
    let Probed { found, wanted, band } = compare(job, scratch)?;
    let Some(method) = job.found.method else { return Ok(()) };
    let (plan, percent) = (answer::plan_name(method), band.name());
    metrics::counter!("gavel_node_recall_wanted_total", "plan" => plan, "percent" => percent).increment(wanted.into());
    metrics::counter!("gavel_node_recall_found_total", "plan" => plan, "percent" => percent).increment(found.into());
    let Some(noted) = table.note(method, band, found, wanted) else { return Ok(()) };
    let alarm = if noted.alarm { 1.0 } else { 0.0 };
    metrics::gauge!("gavel_node_recall", "plan" => plan, "percent" => percent).set(f64::from(noted.recall));
    metrics::gauge!("gavel_node_recall_alarm", "plan" => plan, "percent" => percent).set(alarm);
    if noted.turned && noted.alarm {
        tracing::error!(plan, percent, recall = noted.recall, "recall is below its threshold: see docs/OPERATIONS.md");
    } else if noted.turned {
        tracing::info!(plan, percent, recall = noted.recall, "recall is above its threshold again");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use gavel_member::clock;
    use gavel_proto::delivery::Schedule;
    use gavel_proto::money::{Leased, PPM};

    use super::super::fixture::{EPOCH, STAGED, campaigns};
    use super::super::{SearchScratch, search_shard};
    use super::*;
    use crate::ranking::delivery::{Delivery, DeliveryRow};
    use crate::staging::holdings::ShardDelivery;

    fn answered(mode: Mode) -> (Target, Arc<Search>, ShardAnswer, FoundItems) {
        let (target, mut search) = (STAGED.target(), STAGED.search());
        search.mode = mode;
        let mut scratch = SearchScratch::default();
        let answer = search_shard(&mut scratch, &target, &search, clock::now_us).unwrap();
        (target, Arc::new(search), answer, scratch.found)
    }

    #[test]
    fn what_was_found_is_compared_with_what_is_there() {
        let (target, search, _, found) = answered(Mode::Auto);
        let mut job = Job { target, search, found };
        let mut scratch = RetrievalScratch::default();
        let whole = compare(&job, &mut scratch).unwrap();
        assert!(whole.wanted > 50 && whole.found == whole.wanted, "{whole:?}: a scan misses nothing");
        job.found.places.remove(0);
        job.found.places.truncate(40);
        assert_eq!(compare(&job, &mut scratch).unwrap(), Probed { found: 40, ..whole });
        let mut table = RecallTable::new(0.95);
        for _ in 0..crate::retrieval::recall::SETTLED {
            probe(&job, &mut table, &mut scratch).unwrap();
        }
        assert!(table.note(job.found.method.unwrap(), whole.band, 40, whole.wanted).unwrap().alarm);
    }

    /// What a delivery version says of each campaign instead.
    type Change = fn(DeliveryRow) -> DeliveryRow;

    const fn ended_if_odd(campaign: u64) -> Schedule {
        Schedule { starts_s: 0, ends_s: (campaign % 2) as i64 }
    }

    /// Ads of campaigns that are not in this auction, do not run at its time or have nothing to charge to are not to be
    /// found.
    #[test]
    fn what_takes_no_part_in_the_auction_is_not_missed() {
        let (target, search, _, found) = answered(Mode::Auto);
        let whole = compare(&Job { target, search, found }, &mut RetrievalScratch::default()).unwrap();
        let cases: [(Change, Leased); 3] = [
            (|row| DeliveryRow { throttle_ppm: PPM / 2, ..row }, Leased::Admitted),
            (|row| DeliveryRow { schedule: ended_if_odd(row.campaign), ..row }, Leased::Admitted),
            (|row| row, Leased::Out),
        ];
        for (change, leased) in cases {
            let (staged, mut search) = (STAGED.target(), STAGED.search());
            search.blocked.leased = leased;
            let delivery = Arc::new(Delivery::new(EPOCH.delivery, campaigns().map(change)));
            let delivery = Arc::new(ShardDelivery::new(staged.loaded.shard.content(), &delivery));
            let target = Target { silent: delivery.silent(), delivery, ..staged };
            let mut scratch = SearchScratch::default();
            search_shard(&mut scratch, &target, &search, clock::now_us).unwrap();
            let job = Job { target, search: Arc::new(search), found: scratch.found };
            let probed = compare(&job, &mut RetrievalScratch::default()).unwrap();
            assert!(probed.wanted > 20 && probed.found == probed.wanted, "{probed:?}: a scan misses nothing");
            assert_ne!(probed, whole, "some ads are out");
        }
    }

    #[test]
    fn a_busy_probe_drops_and_nobody_waits() {
        let (sender, receiver) = sync_channel(QUEUE);
        let probe = RecallProbe { every: 3, count: AtomicU64::new(0), queue: Some(sender) };
        let (target, search, mut answer, found) = answered(Mode::Auto);
        for _ in 0..2 {
            probe.offer(&target, &search, &answer, &found);
        }
        assert_eq!(receiver.try_iter().count(), 1, "one in three");
        for _ in 0..3 * 3 * QUEUE {
            probe.offer(&target, &search, &answer, &found);
        }
        assert_eq!(receiver.try_iter().count(), QUEUE);
        // What is no serving search, or was cut short, says nothing about recall.
        answer.outcome = super::super::search::Outcome::TimedOut;
        let (_, exact, whole, _) = answered(Mode::Exact);
        for _ in 0..30 {
            probe.offer(&target, &search, &answer, &found);
            probe.offer(&target, &exact, &whole, &found);
        }
        assert_eq!(receiver.try_iter().count(), 0);
        let off = RecallProbe::start(ProbeSpec::of_share(0.0, 0.95)).unwrap();
        off.offer(&target, &search, &whole, &found);
        assert_eq!((ProbeSpec::of_share(0.001, 0.95).every, ProbeSpec::of_share(7.0, 0.9).every), (1_000, 1));
    }
}
