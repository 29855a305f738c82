//! How do a request's calls reach the nodes, and what do the nodes say?
//!
//! The shell of [`crate::fanout`]: it owns channels, tasks and the clock, and asks the kernel after every reply. A
//! call that has lost runs to its end and is discarded: resetting its stream would save the node nothing, since a
//! search is not interrupted, and enough resets would close the connection for everybody. Every call, won or lost,
//! teaches the health and the latency of its node.

mod answer;
mod convert;
mod counts;
mod hydrate;
mod nodes;
mod search;

pub use answer::{Explained, Funnel, Prediction, Predictions, ScoredFeatures, ShardBody, ShardTiming};
pub use convert::{AskedFor, FeatureAnswer, SearchTerms, Shape};
pub use counts::{Grant, Reservation, Taking};
pub use hydrate::{Creative, CreativeKey};
pub use nodes::Nodes;
pub use search::{Gathered, Transport};
