//! On which thread does a part of a search run, and is it let in at all?
//!
//! One part is one shard of one call. Threads and queue come from the member crate; what is added here is
//! the decision at the door ([`super::admission`]), a second look at the deadline when a thread takes the
//! part, and the account of CPU time.

use std::sync::Arc;

use gavel_member::clock;
use gavel_member::pool::CpuPool;
use gavel_proto::deadline::Instant;
use tokio::sync::oneshot;

use super::admission::Admission;
use super::probe::RecallProbe;
use super::search::{Reasons, Search, ShardAnswer};
use super::{SearchFault, SearchScratch, measure, search_shard, thread};
use crate::retrieval::Mode;
use crate::staging::holdings::Target;

/// The threads that search.
pub struct SearchExecutor {
    pool: CpuPool<SearchScratch>,
    threads: usize,
    admission: Arc<Admission>,
    probe: Arc<RecallProbe>,
}

/// Why a part was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Shed {
    /// The queue is full.
    #[error("the search queue is full")]
    Full,
    /// It would end after its deadline.
    #[error("{left_us} us are left where {needed_us} us would be needed")]
    NoTime {
        /// Queue and search.
        needed_us: u64,
        /// To the deadline.
        left_us: u64,
    },
}

impl Shed {
    const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::NoTime { .. } => "no_time",
        }
    }
}

/// How a part ended.
pub type PartResult = Result<ShardAnswer, PartFault>;

/// Why a part that was let in has no answer.
#[derive(Debug, thiserror::Error)]
pub enum PartFault {
    /// The deadline passed in the queue.
    #[error("the deadline passed in the queue")]
    Late,
    /// The search failed.
    #[error(transparent)]
    Search(#[from] SearchFault),
}

impl SearchExecutor {
    /// Starts the threads.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(threads: usize, queue: usize, probe: RecallProbe) -> std::io::Result<Self> {
        let pool = CpuPool::new("search", threads, queue, SearchScratch::default)?;
        Ok(Self { pool, threads, admission: Arc::default(), probe: Arc::new(probe) })
    }

    /// Queues a part.
    ///
    /// # Errors
    /// [`Shed`] when there is no room or no time for it.
    pub fn submit(&self, target: Target, search: Arc<Search>) -> Result<oneshot::Receiver<PartResult>, Shed> {
        let arrived = clock::now_us();
        let submitted = self.admit(&search, arrived).and_then(|()| {
            let (admission, probe) = (Arc::clone(&self.admission), Arc::clone(&self.probe));
            let job = move |scratch: &mut SearchScratch| {
                let result = run(scratch, &target, &search, arrived, &admission);
                if let Ok(answer) = &result {
                    probe.offer(&target, &search, answer, &scratch.found);
                }
                result
            };
            self.pool.submit(job).map_err(|_| Shed::Full)
        });
        if let Err(shed) = &submitted {
            metrics::counter!("gavel_node_shed_total", "why" => shed.name()).increment(1);
        }
        submitted
    }

    fn admit(&self, search: &Search, now: Instant) -> Result<(), Shed> {
        let left_us = search.deadline.left_us(now);
        let admitted = self.admission.admit(self.pool.queued(), self.threads, left_us);
        admitted.map_err(|no| Shed::NoTime { needed_us: no.needed_us, left_us: no.left_us })
    }
}

/// A part on its thread.
fn run(
    scratch: &mut SearchScratch,
    target: &Target,
    search: &Search,
    arrived: Instant,
    admission: &Admission,
) -> PartResult {
    let started = clock::now_us();
    if search.deadline.passed(started) {
        metrics::counter!("gavel_node_shed_total", "why" => "late").increment(1);
        return Err(PartFault::Late);
    }
    let cpu = thread::cpu_us();
    let mut answer = search_shard(scratch, target, search, clock::now_us)?;
    answer.timing.queue_us = started.0.saturating_sub(arrived.0);
    answer.timing.cpu_us = thread::cpu_us().saturating_sub(cpu);
    if search.auction.cut.is_some() && search.mode == Mode::Auto && search.reasons == Reasons::Unasked {
        // Neither the oracle's searches nor explained ones say what serving costs.
        admission.learn(clock::now_us().0.saturating_sub(started.0));
    }
    measure::record(&answer);
    Ok(answer)
}
