//! Which ads answer this request, and at what price?

pub mod merge;

pub mod auction;

pub mod allocation;
