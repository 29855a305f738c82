//! What may be asked of model bundles, without a cluster?

use super::Format;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// `gavel model`.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Make a bundle of a ranker that was trained elsewhere, or say everything that is in the way.
    Pack(Box<PackArgs>),
    /// Say whether a bundle would be accepted, everything that is wrong with it, and what its split saves.
    Check(CheckArgs),
}

/// `gavel model check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The folder with bundle.toml.
    #[arg(required_unless_present = "skew")]
    pub bundle: Option<PathBuf>,
    /// Say what a user tower of OLD would find in an index of NEW, and the other way round.
    #[arg(long, num_args = 2, value_names = ["OLD", "NEW"], conflicts_with_all = ["bundle", "against"])]
    pub skew: Vec<PathBuf>,
    /// Say whether the bundle may follow this one; ends with 65 when it may not.
    #[arg(long, requires = "data")]
    pub against: Option<PathBuf>,
    /// Rows to compare on: golden rows' form, with labels beside them for at least one head (JSON lines, .zst, .gz).
    #[arg(long, requires = "against")]
    pub data: Option<PathBuf>,
    /// Relative growth of the loss of any labelled head: log loss, or the squared error of log1p for a value.
    #[arg(long, default_value_t = 0.01)]
    pub log_loss_growth_max: f64,
    /// Drop of the area under the curve of any labelled head of probabilities.
    #[arg(long, default_value_t = 0.005)]
    pub auc_drop_max: f64,
    /// Predictions over labels, either way, of any labelled head.
    #[arg(long, default_value_t = 1.2)]
    pub calibration_max: f64,
    /// Mean prediction of any head against the other bundle's, either way.
    #[arg(long, default_value_t = 1.5)]
    pub prediction_ratio_max: f64,
    /// Population stability index of any head's predictions.
    #[arg(long, default_value_t = 0.25)]
    pub psi_max: f64,
    /// Time of the ranker against the other bundle's.
    #[arg(long, default_value_t = 1.5)]
    pub latency_ratio_max: f64,
    /// The form of the answer.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// `gavel model pack`.
#[derive(Debug, Args)]
pub struct PackArgs {
    /// The ranker: an ONNX file, or LightGBM's model file (.txt); with several heads HEAD=FILE for each.
    #[arg(long, required = true)]
    pub ranker: Vec<String>,
    /// Print the skeleton of a schema for this ranker, and end.
    #[arg(long, conflicts_with_all = ["schema", "out"])]
    pub template: bool,
    /// Which input is which feature, and what the outputs mean (TOML).
    #[arg(long, required_unless_present = "template")]
    pub schema: Option<PathBuf>,
    /// The folder to make.
    #[arg(long, required_unless_present = "template")]
    pub out: Option<PathBuf>,
    /// The user tower, an ONNX file with the output query.
    #[arg(long, requires = "item_tower")]
    pub user_tower: Option<PathBuf>,
    /// The item tower, an ONNX file with the output vector.
    #[arg(long, requires = "user_tower")]
    pub item_tower: Option<PathBuf>,
    /// The light head, an ONNX file over second outputs of the towers (user_light, item_light) and the similarity.
    #[arg(long, requires = "item_tower")]
    pub light: Option<PathBuf>,
    /// Instead of trained towers.
    #[arg(long, value_enum, conflicts_with_all = ["user_tower", "item_tower"])]
    pub towers: Option<MadeTowers>,
    /// Golden rows with what your own runtime gave for them: JSON lines (.zst too).
    #[arg(long, conflicts_with = "golden_from")]
    pub golden: Option<PathBuf>,
    /// Golden rows without outputs, which are computed here: checks the split, not the export.
    #[arg(long)]
    pub golden_from: Option<PathBuf>,
    /// The form of the answer.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// Towers that nobody trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MadeTowers {
    /// Every query and every vector is the same: retrieval tells no item from another.
    Constant,
}
