//! The generated messages and services, unchanged.
//!
//! Only the modules `wire`, `convert`, `rpc` and `transport` of the other crates may use them.

#![allow(missing_docs, clippy::all, clippy::wildcard_enum_match_arm, clippy::large_futures, reason = "generated code")]

tonic::include_proto!("gavel.v1");

/// The encoded `FileDescriptorSet`, for gRPC reflection and for tests that enumerate every RPC.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
