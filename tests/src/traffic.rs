//! What do users of a cluster see while something happens to it?
//!
//! One thread a router asks for one user after the other, and every answer is kept with what it says of its version.
//! Requests that fail are kept as well: a test says how many there may be.

use crate::cluster::{Cluster, now};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Users that take turns: enough that a tenth of them is told from a fifth.
pub const USERS: u64 = 400;
/// Between two requests of one thread: two shared cores also hold the cluster.
const PAUSE: Duration = Duration::from_millis(2);

/// One request and what came of it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Since the traffic began.
    pub at: Duration,
    /// Which router.
    pub router: usize,
    /// Which user.
    pub user: u64,
    /// Status of HTTP; 0 when there was no answer.
    pub status: u16,
    /// Of the View.
    pub map_epoch: u64,
    /// That answered.
    pub version: u64,
    /// Bundles that scored its shards.
    pub bundles: BTreeSet<String>,
}

impl Seen {
    fn of(at: Duration, (router, user): (usize, u64), answer: Option<(u16, Value)>) -> Self {
        let (status, body) = answer.unwrap_or((0, Value::Null));
        let number = |name: &str| body["epoch"][name].as_u64().unwrap_or_default();
        let shards = body["timings"]["shards"].as_array().cloned().unwrap_or_default();
        let bundles = shards.iter().filter_map(|s| s["model"].as_str().map(str::to_owned)).collect();
        let (map_epoch, version) = (number("map_epoch"), number("model_version"));
        Self { at, router, user, status, map_epoch, version, bundles }
    }
}

/// Does `work` while every router answers; what it returned, and every request.
pub fn during<T>(cluster: &Cluster, work: impl FnOnce() -> T) -> (T, Vec<Seen>) {
    let (began, stop) = (now(), AtomicBool::new(false));
    let asks = |router: usize| {
        let mut seen = Vec::new();
        for turn in 0u64.. {
            if stop.load(Ordering::Acquire) {
                break;
            }
            let user = (turn + router as u64 * USERS / 2) % USERS;
            let answer = cluster.ask(router, &crate::http::request_of(&user.to_string(), turn + 1));
            seen.push(Seen::of(began.elapsed(), (router, user), answer));
            std::thread::sleep(PAUSE);
        }
        seen
    };
    std::thread::scope(|scope| {
        let stops = Stops(&stop);
        let threads: Vec<_> = (0..cluster.routers.len()).map(|router| scope.spawn(move || asks(router))).collect();
        let done = work();
        drop(stops);
        (done, threads.into_iter().flat_map(|t| t.join().expect("traffic")).collect())
    })
}

/// Ends the traffic, also when the work panics: the scope would wait for ever.
#[derive(Debug)]
pub struct Stops<'a>(pub &'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A share of requests that may be late: two shared cores hold the cluster, its load and whatever else runs there.
const LATE_MAX: f64 = 0.02;

/// No request failed but for a few that were late (504; a 503 says that a shard lacked the version), and no answer was
/// scored with two bundles or with another one than its version's.
///
/// # Panics
/// When one was.
pub fn check_whole(seen: &[Seen]) {
    let late = |s: &&Seen| s.status == 504;
    let failed: Vec<_> = seen.iter().filter(|s| s.status != 200 && !late(s)).collect();
    assert!(failed.is_empty(), "{} of {} failed, first {:?}", failed.len(), seen.len(), failed[0]);
    let late = seen.iter().filter(late).count();
    assert!(late as f64 <= seen.len() as f64 * LATE_MAX, "{late} of {} were late", seen.len());
    let mut bundles = BTreeMap::new();
    for answer in seen.iter().filter(|s| s.status == 200) {
        assert_eq!(answer.bundles.len(), 1, "one bundle a response: {answer:?}");
        let known = bundles.entry(answer.version).or_insert_with(|| answer.bundles.clone());
        assert_eq!(*known, answer.bundles, "one bundle a version: {answer:?}");
    }
}
