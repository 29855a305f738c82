//! Over which bytes does a bundle's publisher sign?
//!
//! Over the bundle's hash and its version: a signature for one version says nothing about another, so an older bundle
//! cannot be published again as a newer one. A version of 0 (the cluster allots one) is signed as 0.

/// Stands before everything that is signed, so that a signature of something else never fits.
const DOMAIN: &[u8] = b"gavel model bundle v1\n";

/// The message of a signature.
#[must_use]
pub fn message(hash: &[u8; 32], version: u64) -> Vec<u8> {
    [DOMAIN, hash, &version.to_le_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bundle_and_every_version_has_a_message_of_its_own() {
        let messages = [message(&[1; 32], 1), message(&[1; 32], 2), message(&[2; 32], 1)];
        assert!(messages[0] != messages[1] && messages[0] != messages[2] && messages[1] != messages[2]);
    }
}
