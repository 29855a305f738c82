//! How do routers reach this node, and how does the process live?
//!
//! [`run`] binds, joins, stages and serves; [`ShardRpc`] is the service: it checks a call once for all its
//! parts, finds what each part's epoch names, queues the parts and puts their answers side by side. A part
//! that cannot be answered has a status of its own; only a call that is wrong for every shard is refused as
//! a whole.

mod convert;
mod frequency;
mod server;
mod service;

pub use frequency::FrequencyRpc;
pub use server::{NodeError, Running, run};
pub use service::ShardRpc;

#[cfg(test)]
mod tests;
