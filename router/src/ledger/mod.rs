//! How does a router spend money that it does not own?
//!
//! It is granted an issuer and leases by the ledger ([`bank`]), holds the price of an ad that is billed at its impression
//! before it serves it ([`purse`]), seals a token for each winner ([`mint`]), and takes the tokens back with events, which
//! it passes on in batches until they are committed ([`events`]). The pacer hears what was served and may still be charged
//! ([`served`], [`report`]). None of it waits for the control plane on the path of a
//! request: without a grant ads go on unpaid, without a lease others stand in the ad's place.

pub mod purse;
pub mod served;

mod bank;
mod event_log;
mod events;
mod mint;
mod post;
mod report;

pub use bank::{Authority, Bank, Surroundings};
pub use event_log::EventLog;
pub use events::{AdEvent, EVENTS_MAX, Reported};
pub use mint::{Delivered, Held, Sale};
