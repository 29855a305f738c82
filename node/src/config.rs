//! What is a node told at its start?

use std::path::PathBuf;

/// Searches that wait for a thread. Each part of a request takes some milliseconds: with two threads a longer
/// queue only holds searches that will miss their deadline.
const SEARCH_QUEUE_DEFAULT: usize = 64;

/// A fifth is left for what searches and staging need of their own, for blobs on their way through the page cache,
/// and for the system.
pub const MEMORY_SHARE_DEFAULT: f64 = 0.8;

/// At 300 searches a second one every three seconds: a mean over a kind of search is new every few minutes, and the
/// oracle, some milliseconds of a scan, takes less than a hundredth of a core.
pub const RECALL_PROBE_SHARE_DEFAULT: f64 = 0.001;

/// What retrieval is to reach under every filter (docs/retrieval.md).
pub const RECALL_ALARM_DEFAULT: f64 = 0.95;
/// A quarter of a core: a new bundle is there in minutes, and searches hardly notice.
pub const STAGING_CPU_SHARE_DEFAULT: f64 = 0.25;

/// Memory for frequency counts. A user with five counters takes 290 bytes: close to a million of these.
pub const FREQUENCY_MIB_DEFAULT: u64 = 256;

/// The configuration of a node.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The cluster it joins.
    pub cluster_id: String,
    /// Where it keeps generations, bundles and its identity.
    pub data_dir: PathBuf,
    /// HOST:PORT of its gRPC endpoint; port 0 for any.
    pub listen: String,
    /// What others reach it under; empty = where it listens.
    pub advertise: String,
    /// Addresses of voters.
    pub control: Vec<String>,
    /// For people.
    pub name: String,
    /// Threads that search; 0 = one a core.
    pub search_threads: usize,
    /// Parts of requests that may wait for a thread; more are shed.
    pub search_queue: usize,
    /// Whether searches may ask for everything that was scored.
    pub oracle: OraclePolicy,
    /// Share of the memory that the process may use, which shards may take.
    pub memory_share: f64,
    /// Share of the searches that are answered exactly as well, off the request path; 0 = none.
    pub recall_probe_share: f64,
    /// Recall below which there is an alarm.
    pub recall_alarm: f64,
    /// Share of one core that staging may take while the node serves.
    pub staging_cpu_share: f64,
    /// Memory for frequency counts, MiB.
    pub frequency_mib: u64,
}

/// May a search ask for more than a serving search needs?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OraclePolicy {
    /// Exact searches without a cut are answered: what `gavel bench truth` compares with.
    Answered,
    /// They are refused.
    #[default]
    Refused,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            cluster_id: "gavel".to_owned(),
            data_dir: PathBuf::from("data/node"),
            listen: "127.0.0.1:7101".to_owned(),
            advertise: String::new(),
            control: Vec::new(),
            name: String::new(),
            search_threads: 0,
            search_queue: SEARCH_QUEUE_DEFAULT,
            oracle: OraclePolicy::default(),
            memory_share: MEMORY_SHARE_DEFAULT,
            recall_probe_share: RECALL_PROBE_SHARE_DEFAULT,
            recall_alarm: RECALL_ALARM_DEFAULT,
            staging_cpu_share: STAGING_CPU_SHARE_DEFAULT,
            frequency_mib: FREQUENCY_MIB_DEFAULT,
        }
    }
}

impl NodeConfig {
    /// Threads that search, resolved.
    #[must_use]
    pub fn threads(&self) -> usize {
        match self.search_threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            given => given,
        }
    }
}
