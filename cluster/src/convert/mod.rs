//! How do the kernel's values travel?
//!
//! Here, and in `rpc` and `transport`, the generated types are known. What comes in is parsed into types
//! that cannot hold nonsense; a message that cannot be parsed is refused with the name of the field.

pub mod campaign;
pub mod command;
pub mod delivery;
pub mod envelope;
pub mod ledger;
pub mod ledger_snapshot;
pub mod pacing;
pub mod ready;
pub mod rollout;
pub mod snapshot;
pub mod view;

use crate::consensus::Group;
use crate::state::types::{Hash32, Role};
use gavel_proto::wire;

/// A message that does not say what it must.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid_argument: {field}")]
pub struct Malformed {
    /// The field at fault.
    pub field: &'static str,
}

/// Shorthand for a refusal of `field`.
pub const fn malformed(field: &'static str) -> Malformed {
    Malformed { field }
}

/// Whether a command could be applied by its group: what could not would stop this voter.
///
/// # Errors
/// When it could not.
pub fn check_command(group: Group, bytes: &[u8]) -> Result<(), Malformed> {
    match group {
        Group::Control => command::decode(bytes).map(drop),
        Group::Ledger => ledger::decode(bytes).map(drop),
    }
}

/// Whether a snapshot could be installed in its group.
///
/// # Errors
/// When it could not.
pub fn check_snapshot(group: Group, bytes: &[u8], cluster_id: &str) -> Result<(), Malformed> {
    match group {
        Group::Control => snapshot::decode(bytes, cluster_id).map(drop),
        Group::Ledger => ledger_snapshot::decode(bytes, cluster_id).map(drop),
    }
}

/// 32 bytes, no more and no less.
pub fn hash32(bytes: &[u8], field: &'static str) -> Result<Hash32, Malformed> {
    Hash32::try_from(bytes).map_err(|_| malformed(field))
}

/// A role of the wire.
pub fn role(value: i32) -> Result<Role, Malformed> {
    match wire::Role::try_from(value) {
        Ok(wire::Role::Control) => Ok(Role::Control),
        Ok(wire::Role::Node) => Ok(Role::Node),
        Ok(wire::Role::Router) => Ok(Role::Router),
        Ok(wire::Role::Unspecified) | Err(_) => Err(malformed("role")),
    }
}

/// A role for the wire.
pub const fn role_to_wire(role: Role) -> wire::Role {
    match role {
        Role::Control => wire::Role::Control,
        Role::Node => wire::Role::Node,
        Role::Router => wire::Role::Router,
    }
}
