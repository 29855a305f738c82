//! Did somebody whom the cluster trusts sign this bundle?
//!
//! Ed25519 over the message of `gavel_proto::signing`. It is checked twice: by the voter that takes the command, and by
//! every member before it uses the bytes, because a member trusts the keys that the voters agreed on and nothing that
//! came on the way. Where no signature is required, one that is there must still be right.

use crate::random;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use gavel_proto::signing::message;
use gavel_proto::wire::{ModelView, View};

/// Why a bundle is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// It has none.
    #[error("it is not signed, and this cluster takes signed bundles only")]
    Missing,
    /// Nobody trusts the key.
    #[error("it is signed with a key that this cluster does not trust")]
    Key,
    /// The signature is of something else.
    #[error("its signature is not of this bundle and version")]
    Wrong,
}

/// A secret key.
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// A new one, from the system's random source.
    ///
    /// # Errors
    /// When there is none.
    pub fn generate() -> std::io::Result<Self> {
        Ok(Self(SigningKey::from_bytes(&random::secret()?)))
    }

    /// The key of 64 hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        // BLAKE3's parser is one of 32 bytes in hexadecimal digits.
        let bytes = blake3::Hash::from_hex(text.trim()).ok()?;
        Some(Self(SigningKey::from_bytes(bytes.as_bytes())))
    }

    /// In hexadecimal digits, for the file that only its owner reads.
    #[must_use]
    pub fn to_hex(&self) -> String {
        blake3::Hash::from_bytes(self.0.to_bytes()).to_hex().to_string()
    }

    /// What others trust.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// Signs a bundle as a version.
    #[must_use]
    pub fn sign(&self, hash: &[u8; 32], version: u64) -> [u8; 64] {
        self.0.sign(&message(hash, version)).to_bytes()
    }
}

/// Whether this key signed this bundle as this version.
#[must_use]
pub fn is_signed(key: &[u8], signature: &[u8], hash: &[u8; 32], version: u64) -> bool {
    let key = key.try_into().ok().and_then(|key: [u8; 32]| VerifyingKey::from_bytes(&key).ok());
    let signature = signature.try_into().ok().map(|bytes: [u8; 64]| Signature::from_bytes(&bytes));
    // Strict: a weak key, with which one signature fits many messages, is none.
    key.zip(signature).is_some_and(|(key, signature)| key.verify_strict(&message(hash, version), &signature).is_ok())
}

/// Whether a member may use the bundle with this hash, by the policy of the View.
///
/// # Errors
/// Why not.
pub fn check(view: &View, hash: &[u8; 32]) -> Result<(), SignatureError> {
    let named = [&view.active_model, &view.pending_model, &view.previous_model].into_iter().flatten();
    let Some(model) = named.chain(&view.staged_models).find(|m| m.hash == hash) else { return Ok(()) };
    let policy = view.model_policy.clone().unwrap_or_default();
    check_model(model, hash, policy.signature_required, &policy.keys)
}

fn check_model(
    model: &ModelView,
    hash: &[u8; 32],
    signature_required: bool,
    keys: &[Vec<u8>],
) -> Result<(), SignatureError> {
    if model.key.is_empty() && model.signature.is_empty() {
        return if signature_required { Err(SignatureError::Missing) } else { Ok(()) };
    }
    // A version that the cluster allotted was signed as 0.
    let is_right = [model.version, 0].iter().any(|v| is_signed(&model.key, &model.signature, hash, *v));
    if !is_right {
        return Err(SignatureError::Wrong);
    }
    if signature_required && !keys.contains(&model.key) {
        return Err(SignatureError::Key);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gavel_proto::wire::ModelPolicy;

    const HASH: [u8; 32] = [7; 32];

    fn key(seed: u8) -> SecretKey {
        SecretKey(SigningKey::from_bytes(&[seed; 32]))
    }

    fn checked(model: ModelView, policy: Option<ModelPolicy>) -> Result<(), SignatureError> {
        let model = ModelView { hash: HASH.to_vec(), ..model };
        check(&View { active_model: Some(model), model_policy: policy, ..View::default() }, &HASH)
    }

    fn signed(by: &SecretKey, hash: &[u8; 32], as_version: u64, version: u64) -> ModelView {
        let (key, signature) = (by.public().to_vec(), by.sign(hash, as_version).to_vec());
        ModelView { version, key, signature, ..ModelView::default() }
    }

    #[test]
    fn a_policy_takes_what_a_trusted_key_signed_and_nothing_else() {
        let (trusted, other) = (key(1), key(2));
        let policy = || Some(ModelPolicy { signature_required: true, keys: vec![trusted.public().to_vec()] });
        assert_eq!(checked(signed(&trusted, &HASH, 3, 3), policy()), Ok(()));
        assert_eq!(checked(signed(&trusted, &HASH, 0, 3), policy()), Ok(()), "a version that the cluster allotted");
        assert_eq!(checked(ModelView::default(), policy()), Err(SignatureError::Missing));
        assert_eq!(checked(signed(&other, &HASH, 3, 3), policy()), Err(SignatureError::Key));
        assert_eq!(checked(signed(&trusted, &HASH, 2, 3), policy()), Err(SignatureError::Wrong), "of an older version");
        assert_eq!(checked(signed(&trusted, &[8; 32], 3, 3), policy()), Err(SignatureError::Wrong));
        let mut flipped = signed(&trusted, &HASH, 3, 3);
        flipped.signature[9] ^= 1;
        assert_eq!(checked(flipped.clone(), policy()), Err(SignatureError::Wrong));
        assert_eq!(checked(flipped, None), Err(SignatureError::Wrong), "one that is there must be right");
        assert_eq!(checked(ModelView::default(), None), Ok(()));
    }

    #[test]
    fn a_key_survives_its_file() {
        let key = SecretKey::generate().expect("random");
        let again = SecretKey::from_hex(&format!("{}\n", key.to_hex())).expect("a key");
        assert_eq!(again.public(), key.public());
        assert!(SecretKey::from_hex("no key").is_none());
    }
}
