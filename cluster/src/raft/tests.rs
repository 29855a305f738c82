//! Does the disk keep what it promised?
