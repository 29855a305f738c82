//! Which arithmetic must router and node share, to the last bit of their agreement?
//!
//! A bundle is one version of everything that must agree: user tower, item tower, ranker, calibration, feature
//! schema and golden rows. This crate reads it ([`Bundle::open`]), splits its ranker by what each tensor depends on
//! (user, item, their meeting) and runs the parts: [`Bundle::run_user`] once a request on the router,
//! [`Bundle::run_items`] once an item at staging, [`Bundle::rank`] on the candidates of a request.
//!
//! Everything is a pure function of the bundle and its inputs: no clock, no threads, no random source. The files
//! come from outside, so every read is bounded and nothing in them can make this crate panic.

#[cfg(test)]
mod allocations;
pub mod author;
pub mod blocks;
pub mod bundle;
mod calibration;
mod error;
mod exec;
mod feature;
pub mod fit;
mod graph;
mod limits;
mod onnx;
mod partition;
pub mod schema;
pub mod trees;

pub use bundle::{
    Bundle, BundleCheck, EncodedRequest, Example, GoldenReport, ItemOutput, LightLogits, PartCost, PartitionReport,
    Scratch, UserOutput,
};
pub use error::{BundleError, GraphError, ModelError};
pub use exec::{DenseLayer, Isa};
pub use feature::{FeatureRow, FeatureValue, table_row};
pub use schema::{
    ActivationFormat, Calibration, CrossSpec, FeatureKind, FeatureSpec, HeadKind, HeadRole, HeadSpec, Light, Metric,
    Precision, RankerOptions, Scaling, Schema, Side, Transform,
};
