//! Why is there no slate?

use gavel_proto::code::Code;

/// Why a request is not answered with a slate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The request is wrong; the text says what and what to do.
    #[error("{0}")]
    Invalid(String),
    /// The deadline passed before there was an answer.
    #[error("the deadline passed during {0}: allow more time, or ask for less")]
    Late(&'static str),
    /// No room for another request.
    #[error("the router is full ({0}): try again later")]
    Full(&'static str),
    /// Nothing is active here yet.
    #[error("no catalogue generation and model are active on this router yet: load a catalogue and publish a model")]
    NotReady,
    /// Too little of the catalogue was searched.
    #[error("coverage {found} is below the {wanted} asked for (ten-thousandths): lower min_coverage, or try again")]
    Coverage {
        /// Found.
        found: u32,
        /// Asked for.
        wanted: u32,
    },
    /// A fault of ours.
    #[error("internal: {0}")]
    Fault(String),
}

impl RequestError {
    /// The code of both endpoints.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Invalid(_) => Code::InvalidArgument,
            Self::Late(_) => Code::DeadlineExceeded,
            Self::Full(_) => Code::ResourceExhausted,
            Self::NotReady | Self::Coverage { .. } => Code::Unavailable,
            Self::Fault(_) => Code::Internal,
        }
    }
}
