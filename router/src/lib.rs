//! How is one ad request answered?
//!
//! The router is stateless as far as ads go: it pins an epoch, computes the user's part of the model once, asks one
//! replica of each shard, merges, clears, allocates and answers. `topology`, `quota` and `fanout` decide whom to
//! ask and when to stop waiting; `merge`, `auction` and `allocation` decide who wins; the others move bytes.
//! [`pipeline`] names the stages in order: begin there.

pub mod topology;

pub mod quota;

pub mod fanout;

pub mod merge;

pub mod auction;

pub mod allocation;

pub mod clear;

pub mod logged;

pub mod clearing;

pub mod request;

pub mod users;

pub mod features;

pub mod transport;

pub mod ledger;

pub mod campaigns;

pub mod staging;

pub mod respond;

mod line_log;

#[cfg(feature = "parquet")]
pub mod parquet_log;

mod packing;

mod clearing_log;

mod scored_log;

pub mod pipeline;

pub mod rpc;

pub mod http;

mod config;
mod convert;
mod server;

pub use config::{CampaignPolicy, LogFiles, ProbePolicy, RouterConfig};
pub use server::{RouterError, Running, run};
