//! Which bytes can nobody guess?

use std::fs::File;
use std::io::{self, Read};

/// The system's random source.
pub const SOURCE: &str = "/dev/urandom";

/// A secret from the system's random source.
///
/// # Errors
/// When there is no such source.
pub fn secret<const BYTES: usize>() -> io::Result<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    File::open(SOURCE)?.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_secrets_are_alike() {
        let drawn: [[u8; 16]; 2] = [secret().expect("a source"), secret().expect("a source")];
        assert!(drawn[0] != drawn[1] && !drawn.contains(&[0; 16]));
    }
}
