//! What happens to one ad request, in which order?
//!
//! [`Pipeline::answer`] names the stages; each of them is elsewhere. A request pins everything it will use before its
//! first decision, keeps max(10 %, 5 ms) of its time for what comes after the shards, and either answers with a slate
//! and its coverage or says in one code why not.

mod admission;
mod compare;
mod frequency;
mod hold;
mod probe;
mod shadow;
mod stages;
mod trace;

pub use admission::Gate;
pub use probe::{Depth, Probed, ProbedShard};
pub use trace::RequestTrace;

use crate::clearing::served_line;
use crate::clearing_log::ClearingLog;
use crate::ledger::{AdEvent, Bank};
use crate::request::{Arrival, Draft, RequestError, parse};
use crate::respond::{Answer, Decided, Explanation, reasons};
use crate::scored_log::{Course as ScoredCourse, Scored, ScoredLog};
use crate::staging::{Pinned, Staging};
use crate::transport::{AskedFor, Gathered, Transport};
use gavel_member::clock::now_us;
use gavel_member::pool::CpuPool;
use gavel_model::Scratch;
use gavel_proto::hash::value_hash;
use gavel_proto::wire::EventKind;
use shadow::Served;
use stages::Course;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::Semaphore;

/// What a share of the requests leaves behind.
pub struct Logs {
    /// How they were cleared.
    pub clearings: ClearingLog,
    /// What their ads were scored with.
    pub scored: ScoredLog,
}

impl Logs {
    /// Nothing is logged.
    #[must_use]
    pub const fn off() -> Self {
        Self { clearings: ClearingLog::off(), scored: ScoredLog::off() }
    }
}

/// Answers requests.
pub struct Pipeline {
    staging: Arc<Staging>,
    transport: Arc<Transport>,
    pool: CpuPool<Scratch>,
    gate: Gate,
    logs: Logs,
    bank: Arc<Bank>,
    /// Seed and count of the dice that requests throw.
    dice: (u64, AtomicU64),
    /// Room for what is scored again.
    shadows: Arc<Semaphore>,
}

impl Pipeline {
    /// Puts the parts together; `seed` differs between routers and starts.
    #[must_use]
    pub fn new(
        staging: Arc<Staging>,
        transport: Arc<Transport>,
        pool: CpuPool<Scratch>,
        gate: Gate,
        logs: Logs,
        bank: Arc<Bank>,
        seed: u64,
    ) -> Self {
        let shadows = Arc::new(Semaphore::new(shadow::AT_A_TIME));
        Self { staging, transport, pool, gate, logs, bank, dice: (seed, AtomicU64::new(0)), shadows }
    }

    /// True once requests can be answered.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.staging.pin().is_some()
    }

    /// Answers a request with a slate.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn serve(self: &Arc<Self>, draft: Draft, arrival: Arrival) -> Result<Answer, RequestError> {
        let (explanation, shadow) = self.answer(draft, arrival, AskedFor::Candidates).await?;
        if let Some(served) = shadow {
            self.start_shadow(served);
        }
        Ok(explanation.response)
    }

    /// Takes events of ads; a word for each once it is committed.
    pub async fn report(&self, events: Vec<AdEvent>) -> Vec<String> {
        let reported = self.bank.report(events).await;
        for token in reported.iter().filter(|r| r.is_charged()).filter_map(|r| r.token) {
            if token.billed == EventKind::EventClick {
                self.staging.windows().clicked(token.trial, token.model, now_us());
            }
        }
        reported.into_iter().map(|r| r.answer).collect()
    }

    /// Answers a request with a slate and the reason of every ad.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn explain(&self, draft: Draft, arrival: Arrival) -> Result<Explanation, RequestError> {
        let _scan = self.gate.enter_scan()?;
        Ok(self.answer(draft, arrival, AskedFor::Reasons).await?.0)
    }

    /// The life of a request.
    #[tracing::instrument(level = "debug", skip_all)]
    async fn answer(
        &self,
        draft: Draft,
        arrival: Arrival,
        asked_for: AskedFor,
    ) -> Result<(Explanation, Option<Box<Served>>), RequestError> {
        let mut trace = RequestTrace::start(arrival.at, asked_for);
        let answered = async {
            let admitted = self.gate.enter()?;
            let query = parse(draft, arrival)?;
            let choice = self.choose(&query)?;
            let pinned = &*choice.pinned;
            trace.pinned(choice.arm);
            let placement = stages::placement(pinned, &query)?;
            let user = self.user(pinned, &query, &mut trace);
            let (user, screened) = tokio::join!(user, self.screen(pinned, &query));
            let plan = self.plan((pinned, &query), placement, user?, &screened, asked_for)?;
            let course = Course { pinned, query: &query, placement, plan: &plan };
            let mut gathered = self.fan_out(pinned, &plan, query.deadline, admitted.hedging()).await?;
            trace.fanout(now_us());
            let ranking = hold::chargeable(stages::merge(pinned, &mut gathered), plan.authority);
            let coverage = stages::coverage(&gathered, &query, plan.authority, &screened)?;
            trace.merge(now_us());
            trace.shows(stages::shown(pinned, &gathered, &coverage));
            let mut impressions = self.impressions((pinned, &query), &screened, plan.random, asked_for);
            let bank = (&*self.bank, plan.authority);
            let (clearing, holds) = match asked_for {
                AskedFor::Candidates => {
                    self.bank.arrive();
                    hold::clear_and_hold(bank, &mut impressions, &ranking, &plan.rule).await
                }
                AskedFor::Reasons => {
                    let clearing = hold::clear_and_look(bank, &mut impressions, &ranking, &plan.rule).await;
                    (clearing, hold::Holds::none(&self.bank))
                }
                AskedFor::Everything | AskedFor::EverythingExactly => {
                    (crate::auction::clear(&ranking, &plan.rule), hold::Holds::none(&self.bank))
                }
            };
            let refused = impressions.refused();
            trace.auction(now_us());
            let decided = stages::allocate(&course, ranking, clearing, &gathered);
            let creatives = self.creatives(pinned, &decided, &gathered, query.deadline).await;
            trace.allocation(now_us());
            let mut response = stages::respond(&course, &decided, &gathered, coverage, &creatives, &trace);
            if asked_for == AskedFor::Candidates {
                let named = self.named(pinned, &response);
                hold::seal(&decided, &plan.rule, (holds, impressions), named, &mut response.slate);
                self.log_scored(&course, &decided, &gathered, &response);
                trace.expects(stages::expected_clicks(pinned, &response.slate));
            }
            let clearing = self.record(&course, &decided, &gathered, asked_for);
            let (ads, reasons) = match asked_for {
                AskedFor::Reasons => reasons(&pinned.table, (&decided, &refused), &plan.rule, &gathered.bodies),
                AskedFor::Candidates | AskedFor::Everything | AskedFor::EverythingExactly => Default::default(),
            };
            let shadow = choice.shadow.as_ref().filter(|_| asked_for == AskedFor::Candidates);
            let served = shadow.map(|shadow| Served::of(&query, (pinned, shadow), &plan, &gathered));
            let removed = decided.clearing.failed;
            Ok((Explanation { response, ads, reasons, clearing, removed }, served))
        }
        .await;
        trace.end(now_us(), answered, self.staging.windows())
    }
}

impl Pipeline {
    /// What the tokens of an answer have in common.
    fn named(&self, pinned: &Pinned, answer: &Answer) -> hold::Named {
        hold::Named {
            auction: answer.auction_id,
            request: value_hash(&answer.request_id),
            model: pinned.table.epoch.model,
            trial: self.staging.windows().trial(),
        }
    }

    /// Has a sampled clearing logged; returns the line of one whose reasons were asked for.
    fn record(&self, course: &Course<'_>, decided: &Decided, gathered: &Gathered, asked_for: AskedFor) -> String {
        let explained = asked_for == AskedFor::Reasons;
        if !explained && !self.logs.clearings.samples(course.plan.terms.auction_id) {
            return String::new();
        }
        let (inputs, served) = stages::clearing(course, decided, gathered);
        let line = if explained { served_line(inputs.clone(), &served).unwrap_or_default() } else { String::new() };
        self.logs.clearings.take(inputs, served);
        line
    }

    /// Has what a sampled request was scored with logged.
    fn log_scored(&self, course: &Course<'_>, decided: &Decided, gathered: &Gathered, answer: &Answer) {
        let Some(user) = &course.plan.logged else { return };
        let kept = ScoredCourse {
            bundle: &course.pinned.bundle,
            epoch: course.pinned.table.epoch,
            auction: course.plan.terms.auction_id,
            rule: &course.plan.rule,
            user,
            user_id: course.query.user_id.as_deref(),
            placement: &course.query.placement,
        };
        self.logs.scored.take(Scored::of(&kept, decided, &gathered.bodies, answer, self.bank.wall_ms()));
    }
}

#[cfg(test)]
mod tests;
