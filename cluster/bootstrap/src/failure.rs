//! With which code does the process end?
//!
//! Scripts tell by it whether to mend the command (64), the files (65), the identity (66), the address (69) or the
//! disk (70).

use gavel_member::identity::IdentityError;
use gavel_member::member::MemberError;
use gavel_member::serve::ServeError;
use gavel_member::telemetry::TelemetryError;
use gavel_router::RouterError;
use std::fmt;
use std::process::ExitCode;

/// The command line is wrong.
pub const USAGE: u8 = 64;
/// A file is damaged, or is not what it should be.
pub const DAMAGED: u8 = 65;
/// The data folder is another cluster's, or another process lives in it.
pub const IDENTITY: u8 = 66;
/// The address is taken, or not ours.
pub const ADDRESS: u8 = 69;
/// The disk failed.
pub const IO: u8 = 70;
/// Anything else.
pub const OTHER: u8 = 1;

/// Why a command ended.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    fn new(code: u8, error: impl fmt::Display) -> Self {
        Self { code, text: error.to_string() }
    }

    /// The command line is wrong.
    pub fn usage(error: impl fmt::Display) -> Self {
        Self::new(USAGE, error)
    }

    /// A file is damaged, or is not what it should be.
    pub fn damaged(error: impl fmt::Display) -> Self {
        Self::new(DAMAGED, error)
    }

    /// The disk failed.
    pub fn io(error: impl fmt::Display) -> Self {
        Self::new(IO, error)
    }

    /// Anything else.
    pub fn other(error: impl fmt::Display) -> Self {
        Self::new(OTHER, error)
    }

    /// A role did not start: the code is that of the cause, found along the chain of sources.
    pub fn of_role(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut text = error.to_string();
        let mut code = OTHER;
        let mut at = Some(error);
        while let Some(cause) = at {
            if code == OTHER {
                code = code_of(cause);
            }
            let said = cause.to_string();
            if !text.contains(&said) {
                text = format!("{text}: {said}");
            }
            at = cause.source();
        }
        Self { code, text }
    }

    /// Takes the code that the role names, unless the cause already said more.
    pub fn or_code(self, code: i32) -> Self {
        let named = u8::try_from(code).unwrap_or(OTHER);
        Self { code: if self.code == OTHER { named } else { self.code }, ..self }
    }

    /// What the process returns.
    pub fn exit_code(&self) -> ExitCode {
        self.code.into()
    }
}

fn code_of(cause: &(dyn std::error::Error + 'static)) -> u8 {
    let identity = cause.downcast_ref::<IdentityError>().or_else(|| match cause.downcast_ref::<MemberError>() {
        Some(MemberError::Identity(identity)) => Some(identity),
        Some(MemberError::NoControl) | None => None,
    });
    match identity {
        Some(IdentityError::Io(..)) => return IO,
        Some(IdentityError::Damaged(..)) => return DAMAGED,
        Some(IdentityError::InUse(_) | IdentityError::Foreign { .. }) => return IDENTITY,
        None => {}
    }
    // Before the system's own error, which would look as if the disk had said it.
    if matches!(cause.downcast_ref(), Some(ServeError::Bind(..)))
        || matches!(cause.downcast_ref(), Some(RouterError::Http(..)))
        || matches!(cause.downcast_ref(), Some(TelemetryError::Page(..)))
    {
        return ADDRESS;
    }
    match cause.downcast_ref::<std::io::Error>() {
        Some(e) if e.kind() == std::io::ErrorKind::InvalidData => DAMAGED,
        Some(_) => IO,
        None => OTHER,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
