//! How long did each stage of this request take, and how did it end?

use crate::request::RequestError;
use crate::respond::Timings;
use crate::staging::{Arm, Shown, Windows};
use crate::transport::AskedFor;
use gavel_proto::deadline::Instant;

/// The stopwatch of one request.
#[derive(Clone, Debug)]
pub struct RequestTrace {
    started: Instant,
    lap: Instant,
    asked_for: AskedFor,
    timings: Timings,
    arm: Option<Arm>,
    shown: Option<Shown>,
}

impl RequestTrace {
    /// Starts at the arrival.
    #[must_use]
    pub fn start(at: Instant, asked_for: AskedFor) -> Self {
        Self { started: at, lap: at, asked_for, timings: Timings::default(), arm: None, shown: None }
    }

    /// The bundle is chosen: from here on the request counts for it.
    pub fn pinned(&mut self, arm: Arm) {
        self.arm = Some(arm);
    }

    /// What the answer shows of the bundle.
    pub fn shows(&mut self, shown: Shown) {
        self.shown = Some(shown);
    }

    /// Clicks that the page expects of ads that pay for them.
    pub fn expects(&mut self, clicks: f64) {
        if let Some(shown) = &mut self.shown {
            shown.expected_clicks = clicks;
        }
    }

    /// Parsing, pinning and the features end.
    pub fn features(&mut self, now: Instant) {
        self.timings.features_us = self.stage("features", now);
    }

    /// The user's part of the model ends.
    pub fn user_tower(&mut self, now: Instant) {
        self.timings.user_tower_us = self.stage("user_tower", now);
    }

    /// The last shard has ended.
    pub fn fanout(&mut self, now: Instant) {
        self.timings.fanout_us = self.stage("fanout", now);
    }

    /// There is one list.
    pub fn merge(&mut self, now: Instant) {
        self.timings.merge_us = self.stage("merge", now);
    }

    /// Winners and prices are known.
    pub fn auction(&mut self, now: Instant) {
        self.timings.auction_us = self.stage("auction", now);
    }

    /// The page stands, creatives included.
    pub fn allocation(&mut self, now: Instant) {
        self.timings.allocation_us = self.stage("allocation", now);
    }

    /// So far; the total up to the last lap.
    #[must_use]
    pub fn timings(&self) -> Timings {
        Timings { total_us: self.lap.0.saturating_sub(self.started.0), ..self.timings.clone() }
    }

    /// Counts the end.
    ///
    /// # Errors
    /// The request's own.
    pub fn end<T>(self, now: Instant, answered: Result<T, RequestError>, windows: &Windows) -> Result<T, RequestError> {
        let code = answered.as_ref().map_or_else(|e| e.code().name(), |_| "ok");
        let kind = match self.asked_for {
            AskedFor::Candidates => "serve",
            AskedFor::Reasons => "explain",
            AskedFor::Everything | AskedFor::EverythingExactly => "probe",
        };
        metrics::counter!("gavel_router_requests_total", "code" => code, "kind" => kind).increment(1);
        let us = now.0.saturating_sub(self.started.0);
        metrics::histogram!("gavel_router_request_us").record(us as f64);
        // What a caller did wrong says nothing of a bundle.
        let counts = !matches!(answered, Err(RequestError::Invalid(_) | RequestError::Full(_)));
        if let Some(arm) = self.arm.filter(|_| counts && self.asked_for == AskedFor::Candidates) {
            let shown = self.shown.as_ref().filter(|_| answered.is_ok());
            windows.record(arm, us, shown, now);
        }
        if let Err(RequestError::Fault(reason)) = &answered {
            tracing::error!(%reason, "a request failed by a fault of ours");
        }
        answered
    }

    fn stage(&mut self, name: &'static str, now: Instant) -> u64 {
        let us = now.0.saturating_sub(self.lap.0);
        self.lap = now;
        metrics::histogram!("gavel_router_stage_us", "stage" => name).record(us as f64);
        tracing::debug!(stage = name, us, "a stage ended");
        us
    }
}
