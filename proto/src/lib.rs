//! What must two processes agree on?
//!
//! The messages of the wire, and the few rules that both ends compute for themselves: ids and their
//! hashes, money, scores and pacing, frequency rules, the serving epoch, deadlines, coverage, error codes and limits. Everything
//! here is a value or a pure function; nothing opens a socket or reads a clock.
//!
//! Generated types stay in [`wire`]; the edges of each process turn them into their own types.

pub mod code;
pub mod coverage;
pub mod cut;
pub mod deadline;
pub mod delivery;
pub mod epoch;
pub mod frequency;
pub mod hash;
pub mod ids;
pub mod limits;
pub mod money;
pub mod pacing;
pub mod score;
pub mod signing;
pub mod targeting;
pub mod windows;
pub mod wire;
