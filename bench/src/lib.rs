//! How good and how fast is a cluster, measured from outside?
//!
//! The corpora that it is measured on, the load that is put on it, and the comparison of its answers with the truth.
//! Everything talks to real processes over the public endpoints.

pub mod corpus;
pub mod serve;
pub mod truth;
pub mod workload;

pub mod transport;
