//! After how long is an answer of this shard late?
//!
//! A histogram of the last ten seconds per shard, in five windows of two seconds and buckets an eighth of an
//! octave wide (9 % relative error, on the long side). The 95th percentile of it, at least 2 ms, is the hedge
//! delay; before twenty samples it is 10 ms, the delay of the paper "The Tail at Scale".

use gavel_proto::deadline::Instant;
use gavel_proto::ids::ShardId;
use std::collections::HashMap;

/// Windows that are summed.
const WINDOWS: usize = 5;
/// Length of one window.
const WINDOW_US: u64 = 2_000_000;
/// Buckets of one octave, as a power of two.
const OCTAVE_BITS: u32 = 3;
/// Octaves: up to 2^21 us, four times the longest deadline.
const BUCKETS: usize = 22 << OCTAVE_BITS;
/// A quantile of fewer samples says nothing.
const SAMPLES_MIN: u32 = 20;
/// The quantile is computed anew after so many samples.
const RECOUNT_EVERY: u32 = 16;
/// Hedge delay without enough samples.
const DELAY_US_ASSUMED: u64 = 10_000;
/// Shortest hedge delay: below it the hedge would race ordinary jitter.
const DELAY_US_MIN: u64 = 2_000;

struct Window {
    started: u64,
    counts: Box<[u32; BUCKETS]>,
}

struct Shard {
    windows: Vec<Window>,
    since_recount: u32,
    delay_us: u64,
}

/// The latency of every shard as this router sees it.
#[derive(Default)]
pub struct ShardLatency {
    shards: HashMap<ShardId, Shard>,
}

impl ShardLatency {
    /// A call that carried the shard has ended after `latency_us`, well or not.
    pub fn record(&mut self, shard: ShardId, now: Instant, latency_us: u64) {
        let entry = self.shards.entry(shard).or_insert_with(|| Shard {
            windows: Vec::with_capacity(WINDOWS),
            since_recount: 0,
            delay_us: DELAY_US_ASSUMED,
        });
        entry.window(now).counts[bucket(latency_us)] += 1;
        entry.since_recount += 1;
        if entry.since_recount >= RECOUNT_EVERY {
            entry.since_recount = 0;
            entry.delay_us = entry.p95(now).map_or(DELAY_US_ASSUMED, |p95| p95.max(DELAY_US_MIN));
        }
    }

    /// How long to wait for this shard before another replica is asked too.
    #[must_use]
    pub fn hedge_delay_us(&self, shard: ShardId) -> u64 {
        self.shards.get(&shard).map_or(DELAY_US_ASSUMED, |s| s.delay_us)
    }
}

impl Shard {
    fn window(&mut self, now: Instant) -> &mut Window {
        let started = now.0 / WINDOW_US;
        let slot = match self.windows.iter().position(|w| w.started == started) {
            Some(slot) => slot,
            None if self.windows.len() < WINDOWS => {
                self.windows.push(Window { started, counts: Box::new([0; BUCKETS]) });
                self.windows.len() - 1
            }
            None => {
                let oldest = (0..WINDOWS).min_by_key(|i| self.windows[*i].started).unwrap_or(0);
                self.windows[oldest].started = started;
                self.windows[oldest].counts.fill(0);
                oldest
            }
        };
        &mut self.windows[slot]
    }

    /// Upper edge of the bucket that holds the 95th percentile.
    fn p95(&self, now: Instant) -> Option<u64> {
        let oldest = (now.0 / WINDOW_US).saturating_sub(WINDOWS as u64 - 1);
        let live: Vec<&Window> = self.windows.iter().filter(|w| w.started >= oldest).collect();
        let total: u32 = live.iter().map(|w| w.counts.iter().sum::<u32>()).sum();
        if total < SAMPLES_MIN {
            return None;
        }
        let mut above = total / 20;
        for index in (0..BUCKETS).rev() {
            let here: u32 = live.iter().map(|w| w.counts[index]).sum();
            if here > above {
                return Some(upper_edge(index));
            }
            above -= here;
        }
        None
    }
}

fn bucket(us: u64) -> usize {
    let us = us.max(1);
    let octave = us.ilog2();
    let below = if octave >= OCTAVE_BITS { us >> (octave - OCTAVE_BITS) } else { us << (OCTAVE_BITS - octave) };
    let within = (below & ((1 << OCTAVE_BITS) - 1)) as usize;
    (((octave as usize) << OCTAVE_BITS) + within).min(BUCKETS - 1)
}

fn upper_edge(index: usize) -> u64 {
    let octave = index >> OCTAVE_BITS;
    let within = (index & ((1 << OCTAVE_BITS) - 1)) as u64;
    ((1u64 << OCTAVE_BITS) + within + 1) << octave >> OCTAVE_BITS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_is_the_p95_of_the_last_ten_seconds() {
        let mut latency = ShardLatency::default();
        let shard = ShardId(3);
        assert_eq!(latency.hedge_delay_us(shard), DELAY_US_ASSUMED);
        for i in 0..1_600u64 {
            latency.record(shard, Instant(i * 100), if i % 10 == 0 { 40_000 } else { 4_000 });
        }
        let slow = latency.hedge_delay_us(shard);
        assert!((40_000..=45_000).contains(&slow), "{slow}");
        // Eleven seconds later the slow ones are forgotten.
        for i in 0..160u64 {
            latency.record(shard, Instant(12_000_000 + i * 100), 4_000);
        }
        let fast = latency.hedge_delay_us(shard);
        assert!((4_000..=4_500).contains(&fast), "{fast}");
        for i in 0..160u64 {
            latency.record(shard, Instant(30_000_000 + i), 100);
        }
        assert_eq!(latency.hedge_delay_us(shard), DELAY_US_MIN);
    }

    #[test]
    fn every_value_lies_below_its_upper_edge_and_within_an_eighth() {
        for us in (1..3_000u64).chain((3..20).map(|e| 1 << e)).chain([u64::MAX]) {
            let edge = upper_edge(bucket(us));
            if us < 1 << 21 {
                assert!(edge > us.saturating_sub(1) && edge as f64 <= us as f64 * 1.13 + 1.0, "{us} {edge}");
            }
        }
    }
}
