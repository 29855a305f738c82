//! How good and how fast is a cluster, and its ranker?
//!
//! The corpora that it is measured on, the load that is put on it, and the comparison of its answers with the truth:
//! all of this talks to real processes over the public endpoints. A storm of rollouts and one of charges start processes of their own. The
//! ranker and the auction are measured alone, in this process; the logs of routers are joined here, too.

pub mod arrays;
pub mod auction;
pub mod corpus;
pub mod delivery;
pub mod fleet;
pub mod frequency;
pub mod gate;
pub mod join;
pub mod ledger;
pub mod market;
pub mod rank;
pub mod rollout;
pub mod serve;
pub mod truth;
pub mod workload;

pub mod transport;

mod clock;
mod lines;
