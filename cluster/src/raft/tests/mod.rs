//! Does the disk keep what it promised, and is anything else noticed?

mod suite;
mod torn;
