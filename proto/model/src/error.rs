//! Why was a bundle refused, and why could an input not be scored?

use gavel_proto::code::Code;

/// Why a bundle was refused. Nothing of a refused bundle is ever used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A file could not be read or written.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A name that is not a flat file name of `[a-z0-9_.-]`.
    #[error("{0:?} is not a name that a file of a bundle may have")]
    Name(String),
    /// The packed form is cut, has bytes left over, or breaks its own order.
    #[error("packed bundle: {0}")]
    Packed(String),
    /// A size or a count is above its limit.
    #[error("{what} is {found}, the limit is {limit}")]
    Limit {
        /// What was counted.
        what: String,
        /// How much there is.
        found: u64,
        /// How much there may be.
        limit: u64,
    },
    /// `BLAKE3SUMS` and the folder do not agree.
    #[error("BLAKE3SUMS: {0}")]
    Checksum(String),
    /// Trees that are sound one by one do not make a ranker together.
    #[error("the trees of all heads: {0}")]
    Forest(String),
    /// The ranker cannot be kept as `[ranker_options]` says.
    #[error("the ranker in {precision}: {reason}")]
    Precision {
        /// What was asked for.
        precision: &'static str,
        /// Why it is not possible.
        reason: String,
    },
    /// `bundle.toml` is wrong.
    #[error("bundle.toml: {0}")]
    Schema(String),
    /// A graph is wrong.
    #[error("{file}: {reason}")]
    Graph {
        /// The ONNX file.
        file: String,
        /// Why.
        reason: GraphError,
    },
    /// A model of trees is wrong.
    #[error("{file}: {reason}")]
    Trees {
        /// The file.
        file: String,
        /// Why, and in which line.
        reason: String,
    },
    /// The golden rows could not be read, or the model does not give them.
    #[error("golden rows: {0}")]
    Golden(String),
}

impl BundleError {
    /// The word that a program can act on.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Io { .. } => Code::Unavailable,
            Self::Name(_)
            | Self::Packed(_)
            | Self::Limit { .. }
            | Self::Checksum(_)
            | Self::Schema(_)
            | Self::Graph { .. }
            | Self::Trees { .. }
            | Self::Forest(_)
            | Self::Precision { .. }
            | Self::Golden(_) => Code::InvalidArgument,
        }
    }

    /// True when the files are not those that were unpacked, so that the folder is to be made again.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        matches!(self, Self::Name(_) | Self::Packed(_) | Self::Checksum(_))
    }

    pub(crate) fn io(file: &std::path::Path, source: std::io::Error) -> Self {
        Self::Io { file: file.display().to_string(), source }
    }
}

/// Why a graph was refused.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// The file is not an ONNX model.
    #[error("not an ONNX model: {0}")]
    Decode(String),
    /// The outputs that are wanted cannot be computed from the inputs alone.
    #[error("what leads to its outputs: {0}")]
    Extract(String),
    /// The graph cannot be split between user, item and candidate.
    #[error("its split between user and item: {0}")]
    Split(String),
    /// The graph cannot be made a program: it is too large to run.
    #[error("as a program: {0}")]
    Compile(String),
    /// An operator outside `docs/model-operators.md`, or a use of one that is outside it.
    #[error("operator {op} of node {node:?}: {reason}")]
    Operator {
        /// The operator.
        op: String,
        /// The name of the node, or its first output.
        node: String,
        /// What is not supported.
        reason: String,
    },
    /// An initialiser is wrong: width, type, external data or a value that is not finite.
    #[error("initialiser {name:?}: {reason}")]
    Initialiser {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// Shapes do not fit.
    #[error("node {node:?}: {reason}")]
    Shape {
        /// The node.
        node: String,
        /// Why.
        reason: String,
    },
    /// A tensor has no source, or two.
    #[error("tensor {name:?}: {reason}")]
    Tensor {
        /// The tensor.
        name: String,
        /// Why.
        reason: String,
    },
    /// An input or output does not agree with the schema.
    #[error("{port} {name:?}: {reason}")]
    Port {
        /// `input` or `output`.
        port: &'static str,
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// Too large.
    #[error("{what} is {found}, the limit is {limit}")]
    Limit {
        /// What was counted.
        what: &'static str,
        /// How much there is.
        found: u64,
        /// How much there may be.
        limit: u64,
    },
}

/// Why an input could not be scored: always a fault of the caller, found before any arithmetic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// A slice has another length than the bundle asks for.
    #[error("{what} has {found} values, the bundle asks for {expected}")]
    Width {
        /// Which argument.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The length asked for.
        expected: usize,
    },
    /// A feature has a value of another kind than its schema.
    #[error("feature {name:?} is a {expected} feature and was given another kind of value")]
    Kind {
        /// The feature.
        name: String,
        /// Its kind.
        expected: &'static str,
    },
}

impl ModelError {
    /// The word that a program can act on.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Width { .. } => Code::FailedPrecondition,
            Self::Kind { .. } => Code::InvalidArgument,
        }
    }
}
