//! How is the router asked over gRPC?

mod convert;
mod service;

pub use service::{AdRpc, EventRpc, ProbeRpc};
