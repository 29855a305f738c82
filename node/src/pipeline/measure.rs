//! What do the metrics say of a search?
//!
//! The nouns are those of the answer's fields, so that a span, a metric and a field of one stage bear one name.

use gavel_proto::deadline::Instant;
use gavel_proto::money::BidType;

use super::Clock;
use super::search::{ShardAnswer, Timing};
use crate::features::{MatchColumn, MissingValues};
use crate::ranking::light::LightFunnel;

/// A stopwatch over the stages.
pub struct Laps {
    clock: Clock,
    last: Instant,
}

impl Laps {
    /// Starts the first lap.
    pub fn start(clock: Clock) -> Self {
        Self { clock, last: clock() }
    }

    /// Microseconds since the lap before.
    pub fn lap(&mut self) -> u64 {
        let now = (self.clock)();
        let lap = now.0.saturating_sub(self.last.0);
        self.last = now;
        lap
    }
}

/// What the light cut kept by bid type, and which values of which match features were missing.
pub fn count(light: &LightFunnel, columns: &[MatchColumn<'_>], missing: &[MissingValues]) {
    for (bid_type, kept) in BidType::ALL.into_iter().zip(light.kept_by_bid_type) {
        if kept > 0 {
            metrics::counter!("gavel_node_light_kept_total", "bid_type" => bid_type.name()).increment(kept);
        }
    }
    for (bound, missing) in columns.iter().zip(missing) {
        let holes = [("column", missing.column), ("user_set", missing.user_set), ("item_value", missing.item_value)];
        for (what, count) in holes.into_iter().filter(|(_, count)| *count > 0) {
            // At most 256 names, and all of them the bundle's.
            let feature = bound.spec.name.clone();
            metrics::counter!("gavel_node_missing_values_total", "feature" => feature, "what" => what).increment(count);
        }
    }
}

/// One answered part.
pub fn record(answer: &ShardAnswer) {
    let Timing { queue_us, retrieval_us, light_us, features_us, rank_us, auction_us, cpu_us } = answer.timing;
    let stages = [
        ("queue", queue_us),
        ("retrieval", retrieval_us),
        ("light", light_us),
        ("features", features_us),
        ("rank", rank_us),
        ("auction", auction_us),
    ];
    for (stage, took) in stages {
        metrics::histogram!("gavel_node_stage_us", "stage" => stage).record(took as f64);
    }
    metrics::counter!("gavel_node_cpu_us_total").increment(cpu_us);
    metrics::counter!("gavel_node_parts_total", "plan" => answer.plan, "outcome" => answer.outcome.name()).increment(1);
    if answer.funnel.non_finite > 0 {
        metrics::counter!("gavel_node_non_finite_total").increment(answer.funnel.non_finite);
    }
    tracing::trace!(plan = answer.plan, funnel = ?answer.funnel, timing = ?answer.timing, "searched");
}
