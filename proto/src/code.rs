//! What went wrong, in one word that a program can act on?
//!
//! The same code travels as the gRPC status, the HTTP status, the log field and the metric label.

/// Why a request was refused or could not be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// The request is wrong and will stay wrong: gRPC INVALID_ARGUMENT, HTTP 400.
    InvalidArgument,
    /// What it names does not exist: NOT_FOUND, 404.
    NotFound,
    /// The deadline passed: DEADLINE_EXCEEDED, 504.
    DeadlineExceeded,
    /// Shed for lack of room, try again later: RESOURCE_EXHAUSTED, 429.
    ResourceExhausted,
    /// Not able to answer now: UNAVAILABLE, 503.
    Unavailable,
    /// A compare-and-set did not hold, or a precondition is missing: FAILED_PRECONDITION, 409.
    FailedPrecondition,
    /// A fault of ours: INTERNAL, 500.
    Internal,
}

impl Code {
    /// The word on the wire, in logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidArgument => "invalid_argument",
            Self::NotFound => "not_found",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::ResourceExhausted => "resource_exhausted",
            Self::Unavailable => "unavailable",
            Self::FailedPrecondition => "failed_precondition",
            Self::Internal => "internal",
        }
    }

    /// The HTTP status.
    #[must_use]
    pub const fn http(self) -> u16 {
        match self {
            Self::InvalidArgument => 400,
            Self::NotFound => 404,
            Self::DeadlineExceeded => 504,
            Self::ResourceExhausted => 429,
            Self::Unavailable => 503,
            Self::FailedPrecondition => 409,
            Self::Internal => 500,
        }
    }

    /// The gRPC status.
    #[must_use]
    pub const fn grpc(self) -> tonic::Code {
        match self {
            Self::InvalidArgument => tonic::Code::InvalidArgument,
            Self::NotFound => tonic::Code::NotFound,
            Self::DeadlineExceeded => tonic::Code::DeadlineExceeded,
            Self::ResourceExhausted => tonic::Code::ResourceExhausted,
            Self::Unavailable => tonic::Code::Unavailable,
            Self::FailedPrecondition => tonic::Code::FailedPrecondition,
            Self::Internal => tonic::Code::Internal,
        }
    }
}
