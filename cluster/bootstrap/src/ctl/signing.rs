//! How are bundles signed, and whose are taken?

use super::failed;
use crate::cli::PolicyArgs;
use crate::failure::Failure;
use crate::output::hex;
use gavel_client::AdminClient;
use gavel_member::signing::SecretKey;
use gavel_proto::wire::command::Body;
use gavel_proto::wire::{ModelPolicy, SetModelPolicy};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A signature with its public key; both empty without one.
#[derive(Debug, Default)]
pub struct Signed {
    /// The public key.
    pub key: Vec<u8>,
    /// The signature.
    pub signature: Vec<u8>,
}

/// Signs a bundle with the key in a file.
pub fn sign(file: &Path, hash: &[u8; 32], version: u64) -> Result<Signed, Failure> {
    let text = std::fs::read_to_string(file).map_err(|e| Failure::io(format!("{}: {e}", file.display())))?;
    let key = SecretKey::from_hex(&text)
        .ok_or_else(|| Failure::damaged(format!("{} holds no key of 64 hexadecimal digits", file.display())))?;
    Ok(Signed { key: key.public().to_vec(), signature: key.sign(hash, version).to_vec() })
}

/// `gavel ctl model keygen`.
pub fn keygen(file: &Path) -> Result<(), Failure> {
    let key = SecretKey::generate().map_err(Failure::io)?;
    let failed = |e| Failure::io(format!("{}: {e}", file.display()));
    // Only its owner reads it, and an old one is never overwritten.
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(failed)?;
    writeln!(out, "{}", key.to_hex()).and_then(|()| out.sync_all()).map_err(failed)?;
    println!("{}", hex(&key.public()));
    Ok(())
}

/// `gavel ctl model policy`.
pub async fn policy(admin: &mut AdminClient, args: &PolicyArgs) -> Result<(), Failure> {
    let key = |text: &String| {
        let bytes = blake3::Hash::from_hex(text).map_err(|_| {
            Failure::usage(format!("--key {text}: a public key has 64 hexadecimal digits, as `keygen` prints it"))
        })?;
        Ok(bytes.as_bytes().to_vec())
    };
    let keys = args.key.iter().map(key).collect::<Result<Vec<_>, Failure>>()?;
    let trusted = keys.len();
    let policy = ModelPolicy { signature_required: args.require_signature, keys };
    admin.propose(Body::SetModelPolicy(SetModelPolicy { policy: Some(policy) })).await.map_err(failed)?;
    let required = if args.require_signature { "must be signed" } else { "need no signature" };
    println!("bundles {required}; {trusted} keys are trusted");
    Ok(())
}
