//! What does a node do?
//!
//! It holds replicas of shards: sealed content, and for each model bundle a folder with vectors, a graph
//! and activations. It answers searches: which ads of this shard could win this request, with which
//! integers. It stages what the control plane announces, and says when it is ready. Beside that it counts for its share of
//! the users how often they have seen what is capped.
//!
//! The modules build on each other in this order; `tests/tidy` holds the arrows.

pub mod config;
pub mod features;
pub mod figures;
pub mod frequency;
pub mod pipeline;
pub mod ranking;
pub mod retrieval;
pub mod rpc;
pub mod segment;
pub mod shard;
pub mod staging;

pub use config::{
    FREQUENCY_MIB_DEFAULT, MEMORY_SHARE_DEFAULT, NodeConfig, OraclePolicy, RECALL_ALARM_DEFAULT,
    RECALL_PROBE_SHARE_DEFAULT, STAGING_CPU_SHARE_DEFAULT,
};
pub use rpc::{NodeError, Running, run};
