//! Who carries the steps of staging out?
//!
//! One thread. It asks the plan for the next step, carries it out, publishes what it has loaded, and waits
//! for the View to change when nothing is left to do. It computes for minutes at a time, so it is a plain
//! thread and waits for the network by blocking on the runtime.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use gavel_member::delivery::DeliveryFeed;
use gavel_member::ready::{LoadedShard as ReadyShard, Refused, StagingPhase, StagingProgress, Standing};
use gavel_member::view::ViewFeed;
use gavel_member::{ReadyState, Shutdown, clock, signing};
use gavel_proto::deadline::Instant;
use gavel_proto::ids::ShardId;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::StagingError;
use super::deliver::acknowledge;
use super::holdings::{Holdings, SharedHoldings};
use super::plan::{Step, Wanted};
use super::steps::Steps;
use super::{Pace, convert, memory};

/// Searches that pinned the generation before may still come so long after a switch: many times the longest
/// deadline, and what a router that lost the control plane needs to notice.
const GRACE_US: u64 = 60_000_000;
/// First rest of a step that failed; it doubles up to [`REST_US_MAX`].
const REST_US: u64 = 1_000_000;
/// A refused bundle stays refused, but a voter may come back.
const REST_US_MAX: u64 = 30_000_000;
/// Between two looks at the pages in memory: a look at 100 GB of maps takes the kernel some tens of milliseconds.
const SAMPLE_US: u64 = 10_000_000;
/// The longest wait without news.
const IDLE: Duration = Duration::from_secs(1);

/// What the thread works with.
pub struct Stage {
    /// Carries steps out.
    pub steps: Steps,
    /// Where loaded things are published.
    pub holdings: Arc<SharedHoldings>,
    /// What the heartbeat reports.
    pub ready: Arc<ReadyState>,
    /// What to follow.
    pub view: Arc<ViewFeed>,
    /// Told which versions of bids are held.
    pub delivery: Arc<DeliveryFeed>,
    /// Who we are; 0 before the first join.
    pub member_id: watch::Receiver<u64>,
    /// For waiting on the network.
    pub runtime: Handle,
    /// Ends the thread after the step that runs.
    pub shutdown: Shutdown,
    /// How much of a core it may take once there is something to serve.
    pub pace: Pace,
}

/// The thread.
pub struct Staging {
    thread: std::thread::JoinHandle<()>,
}

impl Staging {
    /// Starts the thread; `step_back` lowers its priority and is called on it once there is something to serve:
    /// until then nothing is worth more than to become ready.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(stage: Stage, step_back: fn()) -> std::io::Result<Self> {
        let follower = Follower {
            stage,
            step_back: Some(step_back),
            failures: BTreeMap::new(),
            last_active: None,
            kept: None,
            swept: None,
            sampled: None,
        };
        let thread = std::thread::Builder::new().name("staging".to_owned()).spawn(move || follower.follow())?;
        Ok(Self { thread })
    }

    /// Waits for the end of the step that runs.
    pub fn join(self) {
        // A panic has been reported by the hook already.
        let _ = self.thread.join();
    }
}

/// A step that failed.
struct Failure {
    reason: String,
    standing: Standing,
    attempts: u32,
    rests_until: Instant,
}

/// The thread's memory.
struct Follower {
    stage: Stage,
    step_back: Option<fn()>,
    failures: BTreeMap<Step, Failure>,
    last_active: Option<u64>,
    /// The generation that was active before, and until when it stays.
    kept: Option<(u64, Instant)>,
    swept: Option<(Wanted, Option<u64>)>,
    /// When the memory was looked at.
    sampled: Option<Instant>,
}

impl Follower {
    fn follow(mut self) {
        while !self.stage.shutdown.is_triggered() {
            let node = *self.stage.member_id.borrow();
            let Some(view) = self.stage.view.current().filter(|_| node != 0) else {
                self.wait();
                continue;
            };
            self.sample();
            let wanted = convert::wanted(&view, node);
            self.release(&wanted);
            let held = self.stage.holdings.current().held();
            if wanted.is_served_by(&held)
                && let Some(step_back) = self.step_back.take()
            {
                step_back();
                self.stage.pace.begin();
            }
            let now = clock::now_us();
            let resting: BTreeSet<Step> =
                self.failures.iter().filter(|(_, f)| f.rests_until > now).map(|(step, _)| *step).collect();
            match wanted.next_step(&held, &resting) {
                Some(step) => self.take(step),
                None => self.wait(),
            }
        }
    }

    /// Carries a step out and publishes what came of it.
    fn take(&mut self, step: Step) {
        let started = clock::now_us();
        self.announce(&step);
        let span = tracing::info_span!("staging", phase = step.name());
        let done = span.in_scope(|| self.carry_out(step));
        self.stage.ready.update(|ready| ready.phases.clear());
        let took_us = clock::now_us().0.saturating_sub(started.0);
        metrics::histogram!("gavel_node_staging_us", "phase" => step.name()).record(took_us as f64);
        match done {
            Err(StagingError::Cancelled) => tracing::info!(?step, "no longer wanted"),
            Ok(()) => {
                self.failures.remove(&step);
                let took_ms = took_us / 1_000;
                tracing::info!(?step, took_ms, "staged");
            }
            Err(error) => self.rest(step, &error),
        }
        self.report();
        // What could not be paced while it ran is rested for now.
        self.stage.pace.rest(&self.stage.shutdown);
    }

    /// Tells the heartbeat what is about to be done.
    fn announce(&self, step: &Step) {
        let phase = match step {
            Step::LoadBundle(_) => StagingPhase::Fetching,
            Step::LoadModel { .. } => StagingPhase::Building,
            Step::LoadCampaigns { .. } | Step::LoadContent { .. } => return,
        };
        self.stage.ready.report_progress(StagingProgress::default());
        self.stage.ready.update(|ready| ready.phases = vec![(step.subject(), phase)]);
    }

    /// Carries a step out, at its pace and as long as somebody wants it.
    fn carry_out(&mut self, step: Step) -> Result<(), StagingError> {
        let Stage { steps, holdings, ready, view, member_id, shutdown, pace, .. } = &mut self.stage;
        if let (Step::LoadBundle(blob), Some(view)) = (&step, view.current()) {
            signing::check(&view, &blob.hash)?;
        }
        let mut watch = |done, total| {
            ready.report_progress(StagingProgress { done, total });
            let node = *member_id.borrow();
            let is_wanted = view.current().is_none_or(|view| {
                let wanted = convert::wanted(&view, node);
                is_wanted(&step, &wanted.generations(), &wanted.bundles())
            });
            if shutdown.is_triggered() || !is_wanted {
                return Err(StagingError::Cancelled);
            }
            pace.rest(shutdown);
            Ok(())
        };
        steps.carry_out(step, holdings, &mut watch)
    }

    fn rest(&mut self, step: Step, error: &StagingError) {
        let attempts = self.failures.get(&step).map_or(0, |failure| failure.attempts) + 1;
        let rest_us = REST_US.saturating_mul(1 << attempts.min(10)).min(REST_US_MAX);
        tracing::error!(?step, %error, attempts, "not staged");
        metrics::counter!("gavel_node_staging_failures_total").increment(1);
        let rests_until = Instant(clock::now_us().0 + rest_us);
        let (reason, standing) = (error.to_string(), error.standing());
        self.failures.insert(step, Failure { reason, standing, attempts, rests_until });
    }

    /// Says where the bytes are, now and then: the pages of a map come and go by themselves.
    fn sample(&mut self) {
        let now = clock::now_us();
        if self.sampled.is_none_or(|at| now.0 >= at.0 + SAMPLE_US) {
            self.sampled = Some(now);
            let memory = memory::report(&self.stage.holdings.current(), self.stage.steps.budget);
            self.stage.ready.report_memory(memory);
        }
    }

    /// Tells the heartbeat what is loaded and what is refused.
    fn report(&mut self) {
        self.sampled = None;
        self.sample();
        let refusals: Vec<Refused> = self
            .failures
            .iter()
            .map(|(step, failure)| Refused {
                subject: step.subject().to_vec(),
                reason: failure.reason.clone(),
                standing: failure.standing,
            })
            .collect();
        self.stage.ready.update(|ready| {
            // Under the lock of what is written: another thread puts bids in force meanwhile.
            let holdings = self.stage.holdings.current();
            ready.shards = ready_shards(&holdings);
            ready.models = holdings.bundles.keys().copied().collect();
            ready.refusals = refusals;
        });
        acknowledge(&self.stage.holdings, &self.stage.delivery);
    }

    /// Lets go of what nobody can ask for any more, in memory and on disk.
    fn release(&mut self, wanted: &Wanted) {
        let (now, active) = (clock::now_us(), wanted.active.as_ref().map(|g| g.generation));
        if active != self.last_active {
            self.kept = self.last_active.map(|before| (before, Instant(now.0 + GRACE_US)));
            self.last_active = active;
        }
        self.kept = self.kept.filter(|(_, until)| *until > now);
        let kept = self.kept.map(|(generation, _)| generation);
        let picture = Some((wanted.clone(), kept));
        if self.swept == picture {
            return;
        }
        let (generations, bundles) = (wanted.generations(), wanted.bundles());
        let stays =
            |generation: u64, shard: u32| kept == Some(generation) || wanted.shards_of(generation).contains(&shard);
        self.stage.holdings.change(|holdings| {
            holdings.campaigns.retain(|g, _| kept == Some(*g) || generations.contains(g));
            holdings.deliveries.retain(|g, _| kept == Some(*g) || generations.contains(g));
            holdings.contents.retain(|(g, shard), _| stays(*g, *shard));
            holdings.shards.retain(|(g, shard, bundle), _| stays(*g, *shard) && bundles.contains(bundle));
            holdings.bundles.retain(|bundle, _| bundles.contains(bundle));
        });
        if let Err(error) = self.stage.steps.data.sweep(wanted, kept) {
            tracing::warn!(%error, "old folders stay on disk");
        }
        self.failures.retain(|step, _| is_wanted(step, &generations, &bundles));
        self.swept = picture;
        self.report();
    }

    fn wait(&mut self) {
        let stage = &mut self.stage;
        let mut news = stage.view.subscribe();
        // A View that came since the loop looked is seen by the next round, after at most one idle wait.
        stage.runtime.block_on(async {
            tokio::select! {
                _ = news.changed() => {}
                _ = stage.member_id.changed() => {}
                () = tokio::time::sleep(IDLE) => {}
                () = stage.shutdown.wait() => {}
            }
        });
    }
}

fn is_wanted(step: &Step, generations: &BTreeSet<u64>, bundles: &BTreeSet<super::plan::Hash>) -> bool {
    match step {
        Step::LoadBundle(blob) => bundles.contains(&blob.hash),
        Step::LoadCampaigns { generation, .. } | Step::LoadContent { generation, .. } => {
            generations.contains(generation)
        }
        Step::LoadModel { generation, bundle, .. } => generations.contains(generation) && bundles.contains(bundle),
    }
}

/// A shard is ready when it has its bids as well.
pub(super) fn ready_shards(holdings: &Holdings) -> Vec<ReadyShard> {
    let with_bids =
        holdings.shards.iter().filter(|((generation, _, _), _)| holdings.deliveries.contains_key(generation));
    let ready = with_bids.map(|((generation, shard, bundle), loaded)| {
        let content = loaded.shard.content();
        ReadyShard {
            shard: ShardId(*shard),
            generation: *generation,
            model_hash: *bundle,
            items: content.items().into(),
            ads: content.ads().into(),
        }
    });
    ready.collect()
}
