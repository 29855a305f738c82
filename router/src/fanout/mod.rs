//! When is which replica asked, and when does the router stop waiting?
//!
//! [`machine::Fanout`] is the life of one request's shards as a state machine: replies, failures and the time go
//! in, calls to send come out. Each shard ends once, with the reply of at most one call, so two replies for one
//! shard cannot be merged. Beyond the first call a shard may cost
//!
//! * one hedge, after the p95 latency of that shard ([`latency`]), at most 5 % of all sends ([`extra`]);
//! * one retry, when the node could not be reached at all;
//! * one call to another replica, when the first one has not the pinned versions.
//!
//! A full node is not asked again elsewhere: that would carry the overload to its neighbour. The machine ends when
//! every shard has ended or the time for shards is over; what was not answered then is lost coverage.
//!
//! Kernel: no clock, no dice, no sockets. The shell is `crate::transport`.

pub mod extra;
pub mod latency;
pub mod machine;

pub use extra::ExtraCalls;
pub use latency::ShardLatency;
pub use machine::{
    CallFailure, CallId, Fanout, Hedging, Input, NodeCall, ReplyStatus, SendReason, ShardEnd, ShardReply,
};
