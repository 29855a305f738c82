//! Which bytes can nobody guess?

use std::fs::File;
use std::io::{self, Read};

/// A secret from the system's random source.
///
/// # Errors
/// When there is no such source.
pub fn secret() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
