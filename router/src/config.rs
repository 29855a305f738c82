//! What is a router told at its start?

use std::path::PathBuf;

/// The configuration of a router.
#[derive(Clone, Debug)]
pub struct RouterConfig {
    /// The cluster it joins.
    pub cluster_id: String,
    /// Where it keeps bundles, users and its identity.
    pub data_dir: PathBuf,
    /// HOST:PORT of its gRPC endpoint; port 0 for any.
    pub listen: String,
    /// HOST:PORT of its HTTP endpoint; port 0 for any.
    pub http_listen: String,
    /// What others reach it under; empty = where it listens.
    pub advertise: String,
    /// Addresses of voters.
    pub control: Vec<String>,
    /// For people.
    pub name: String,
    /// Threads that compute the users' part of the model; 0 = one a core.
    pub workers: usize,
    /// Requests in flight at most; more are shed. Two cores answer some hundreds of requests a second, each in some
    /// tens of milliseconds: 256 is ten times what such a machine has in flight, and bounds memory on any other.
    pub requests_in_flight: usize,
    /// Whether anybody may probe, which costs three answers.
    pub probes: ProbePolicy,
    /// Whether campaigns are managed over HTTP: whoever reaches the port may pause them.
    pub campaigns: CampaignPolicy,
    /// Where clearings are logged; `None` = nowhere.
    pub clearing_log: Option<PathBuf>,
    /// Of so many auctions in a million; explained ones always are.
    pub clearing_log_share_ppm: u32,
    /// Where it is logged what ads were scored with; `None` = nowhere.
    pub scored_log: Option<PathBuf>,
    /// Of so many requests in a million.
    pub scored_log_share_ppm: u32,
    /// Of so many of their candidates beside the page in a million.
    pub scored_log_others_ppm: u32,
    /// Where events of ads are logged; `None` = nowhere.
    pub event_log: Option<PathBuf>,
    /// What becomes of full files of these two.
    pub log_files: LogFiles,
}

/// How are full files of the logs of scores and events kept?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogFiles {
    /// As compressed lines.
    #[default]
    Jsonl,
    /// As columns, for what reads tables.
    #[cfg(feature = "parquet")]
    Parquet,
}

impl LogFiles {
    /// The one that is called so.
    ///
    /// # Errors
    /// When none is, or this build does not write it.
    pub fn of(name: &str) -> Result<Self, String> {
        match name {
            "jsonl" => Ok(Self::Jsonl),
            #[cfg(feature = "parquet")]
            "parquet" => Ok(Self::Parquet),
            #[cfg(not(feature = "parquet"))]
            "parquet" => Err("this gavel was built without Parquet: build it with `--features parquet`".to_owned()),
            other => Err(format!("{other:?} is neither jsonl nor parquet")),
        }
    }
}

/// Is `ProbeService` served?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ProbePolicy {
    /// Yes: what `gavel bench truth` asks.
    Answered,
    /// No.
    #[default]
    Refused,
}

/// Are campaigns managed over HTTP here?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CampaignPolicy {
    /// Yes: the port is only reached by who may.
    Answered,
    /// No.
    #[default]
    Refused,
}

impl Default for RouterConfig {
    fn default() -> Self {
        Self {
            cluster_id: "gavel".to_owned(),
            data_dir: PathBuf::from("data/router"),
            listen: "127.0.0.1:7201".to_owned(),
            http_listen: "127.0.0.1:7301".to_owned(),
            advertise: String::new(),
            control: Vec::new(),
            name: String::new(),
            workers: 0,
            requests_in_flight: 256,
            probes: ProbePolicy::default(),
            campaigns: CampaignPolicy::default(),
            clearing_log: None,
            clearing_log_share_ppm: 0,
            scored_log: None,
            scored_log_share_ppm: 0,
            scored_log_others_ppm: 0,
            event_log: None,
            log_files: LogFiles::default(),
        }
    }
}

impl RouterConfig {
    /// Threads for the users' part, resolved.
    #[must_use]
    pub fn workers(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_kept_in_the_forms_that_this_build_has() {
        assert_eq!(LogFiles::of("jsonl"), Ok(LogFiles::Jsonl));
        #[cfg(feature = "parquet")]
        assert_eq!(LogFiles::of("parquet"), Ok(LogFiles::Parquet));
        #[cfg(not(feature = "parquet"))]
        assert!(LogFiles::of("parquet").is_err_and(|message| message.contains("--features parquet")));
        assert!(LogFiles::of("csv").is_err_and(|message| message.contains("jsonl")));
    }
}
