//! What does every process do to be a member of the cluster?
//!
//! It keeps an identity, listens with safe limits, joins, follows the View, tells the leader twice a second
//! what it is ready for, fetches content-addressed blobs, runs CPU work on its own threads, and says how it
//! is doing. The three servers share this crate and nothing else but the messages.
//!
//! This is a shell: it owns sockets, files, threads and the clock, and decides nothing about ads.

pub mod blobs;
pub mod catalogue;
pub mod clock;
pub mod delivery;
pub mod disk;
pub mod heartbeat;
pub mod identity;
pub mod kept;
pub mod member;
pub mod pool;
pub mod random;
pub mod ready;
pub mod serve;
pub mod shutdown;
pub mod signing;
pub mod telemetry;
pub mod thread;
pub mod token;
pub mod transport;
pub mod view;

pub use member::{Member, MemberConfig};
pub use ready::{Ready, ReadyState};
pub use shutdown::Shutdown;
