//! How long does a request take, part by part?
//!
//! One thread. CPU time of the thread is what a part costs, whatever else runs on the machine; time on the wall is what
//! a request waits. Each is read before the user part, between the parts and at the end, some 300 ns in all, and counted
//! as part of the request.
//!
//! Candidates are ranked by the function that a node ranks by, which gathers the stored rows of a block one by one. What
//! is left out is its look at the deadline between blocks.

use super::request::{Prepared, Requests};
use super::{RankError, Split};
use crate::clock::{cpu_ns, now};
use gavel_model::blocks::{BoundRanker, RankBuffers, rank_in_blocks};
use gavel_model::{Bundle, ModelError, Scratch};
use std::time::{Duration, Instant};

/// Requests before the first that counts, at least; and the share of the measured time, at most.
const WARM_UP_REQUESTS: usize = 3;
const WARM_UP_SHARE: f64 = 0.2;
/// Requests that count, at most: their times are kept.
const REQUESTS_MAX: usize = 1 << 20;

/// What was measured: one entry a request, nanoseconds.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// CPU time of the user part; 0 without the split.
    pub user: Vec<u64>,
    /// CPU time of the candidates' part, or of the whole graph.
    pub candidates: Vec<u64>,
    /// CPU time of both.
    pub request: Vec<u64>,
    /// Time on the wall of both.
    pub wall: Vec<u64>,
    /// BLAKE3 of the predictions of the first request: f32, little-endian, row-major.
    pub scores_hash: String,
}

/// Runs requests, each user in turn, until the time has passed.
pub fn run(bundle: &Bundle, requests: &Requests, split: Split, seconds: f64) -> Result<Measured, RankError> {
    let (scratch, buffers) = (Scratch::default(), RankBuffers::default());
    let mut thread = Thread { bundle, requests, split, scratch, buffers, part: Vec::new(), out: Vec::new() };
    thread.request(&requests.requests[0])?;
    let mut hasher = blake3::Hasher::new();
    thread.out.iter().for_each(|x| {
        hasher.update(&x.to_le_bytes());
    });
    let mut measured = Measured { scores_hash: hasher.finalize().to_hex().to_string(), ..Measured::default() };
    let turns = || requests.requests.iter().cycle();
    let start = now();
    for (i, request) in turns().enumerate() {
        if i >= WARM_UP_REQUESTS && start.elapsed() >= Duration::from_secs_f64(seconds * WARM_UP_SHARE) {
            break;
        }
        thread.request(request)?;
    }
    let start = now();
    for request in turns().take(REQUESTS_MAX) {
        let [before, between, after] = thread.request(request)?;
        measured.user.push(between.0 - before.0);
        measured.candidates.push(after.0 - between.0);
        measured.request.push(after.0 - before.0);
        measured.wall.push(after.1.duration_since(before.1).as_nanos() as u64);
        if start.elapsed() >= Duration::from_secs_f64(seconds) {
            break;
        }
    }
    Ok(measured)
}

/// The thread's CPU time and the time on the wall.
type Reading = (u64, Instant);

/// A thread of a server, with its buffers.
struct Thread<'a> {
    bundle: &'a Bundle,
    requests: &'a Requests,
    split: Split,
    scratch: Scratch,
    buffers: RankBuffers,
    part: Vec<f32>,
    out: Vec<f32>,
}

impl Thread<'_> {
    /// Runs one request up to its predictions and reads the clocks before, between and after its parts.
    fn request(&mut self, request: &Prepared) -> Result<[Reading; 3], ModelError> {
        let Self { bundle, requests, scratch, buffers, part, out, .. } = self;
        let before = reading();
        let between = match self.split {
            Split::On => {
                bundle.run_user_part(scratch, &request.encoded, part)?;
                let between = reading();
                let width = bundle.activation_width();
                let append = |item: u32, out: &mut Vec<f32>| {
                    let from = item as usize * width;
                    out.extend_from_slice(&requests.activations[from..from + width]);
                };
                let mut ranker = BoundRanker { bundle, scratch, user_part: part };
                rank_in_blocks(&mut ranker, &requests.items, append, &request.cross, || false, buffers, out)?;
                between
            }
            Split::Off => {
                bundle.rank_unsplit(scratch, &request.encoded, out)?;
                bundle.calibrate(out);
                before
            }
        };
        Ok([before, between, reading()])
    }
}

fn reading() -> Reading {
    (cpu_ns(), now())
}
