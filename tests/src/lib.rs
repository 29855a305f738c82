//! How is the whole held to its promises?
//!
//! What the tests of this package share: reading the repository's own source, starting real processes,
//! and obvious twins that recompute what the cluster answers.

pub mod calls;
pub mod cluster;
pub mod corpus;
pub mod http;
pub mod onnx;
pub mod poison;
pub mod repository;
pub mod source;
pub mod traffic;
