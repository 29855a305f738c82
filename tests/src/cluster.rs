//! How does a test start a real cluster of real processes?
