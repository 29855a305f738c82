//! Does the auction keep what it promises, against oracles that are too slow to serve?
//!
//! The properties A1 to A16 and the further published facts of the auction chapter. Cases come from a
//! seeded generator with few distinct amounts, so that ties, full limits and empty slots are common; a
//! failure names its seed.

mod assignment;
mod blending;
mod cascade;
mod equilibrium;
mod limits;
mod market;
mod published;
mod second_price;
mod shards;
mod threshold;
mod vcg;
mod weighted_pages;
