//! What do all processes agree on, and how does everybody learn of it?
//!
//! A small group of voters keeps members, placement, models, auction rules and placements in one replicated
//! state, publishes it as a View, and moves rollouts forward when members report that they are ready. It is
//! never on the path of a request (RQ1): when it is away, everybody serves on with the last View.
//!
//! `placement` says who holds which shard, `state` what a command means, `guards` whether a rollout goes on, `pacing` who is out of budget and how bids are held back, `reconcile` what the leader should
//! propose next, `publish` what members see. Around these kernels, `convert` speaks the wire, `raft` agrees in the
//! types of `consensus` and stores, `transport` reaches the other voters, `rpc` answers, `formation` admits, `lead` keeps things moving, `pace` holds spending to the day's curve, and `run` puts it
//! together.

mod consensus;
mod error;
mod formation;
mod lead;
mod pace;

pub mod audit;
pub mod blobs;
pub mod catalogue;
pub mod convert;
pub mod guards;
pub mod ledger;
pub mod pacing;
pub mod placement;
pub mod publish;
pub mod raft;
pub mod reconcile;
pub mod rpc;
pub mod run;
pub mod state;
pub mod transport;

pub use error::ControlError;
pub use run::{ControlConfig, Pace, Running, run};
