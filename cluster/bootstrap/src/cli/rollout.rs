//! What may be asked of model bundles in a running cluster?

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Model bundles.
#[derive(Debug, Subcommand)]
pub enum Model {
    /// Upload a bundle folder and stage it; the first one activates by itself.
    Publish(PublishArgs),
    /// Show the bundles that the cluster knows: versions, who published them, where they stand.
    List,
    /// Have members hold a bundle that was published with --no-stage, or was let go of since.
    Stage {
        /// Its version.
        version: u64,
        /// End when it is accepted, without waiting until every member is ready.
        #[arg(long)]
        no_wait: bool,
    },
    /// Serve a staged version on every router from now on.
    Activate {
        /// Its version.
        version: u64,
        /// Refuse when another version serves; by default the one that serves when the command is given.
        #[arg(long)]
        expect: Option<u64>,
    },
    /// Let a staged version answer a growing share of requests, and serve it after the last step.
    Canary(CanaryArgs),
    /// Let a staged version score what the active one has answered, and compare.
    Shadow(ShadowArgs),
    /// End the canary or shadow that runs; when none runs, serve the previous version again.
    Rollback,
    /// Never serve a version again; members let go of it.
    Retire {
        /// Its version.
        version: u64,
    },
    /// Show versions, what each member does with them, the rollout that runs and what happened.
    Status {
        /// Show it again and again until interrupted.
        #[arg(long)]
        watch: bool,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Set whose bundles are taken: keys that must have signed them.
    Policy(PolicyArgs),
    /// Make a key pair for signing bundles: FILE gets the secret key, the public one is printed.
    Keygen {
        /// Must not exist.
        file: PathBuf,
    },
}

/// `gavel ctl model publish`.
#[derive(Debug, Args)]
pub struct PublishArgs {
    /// The folder with bundle.toml.
    pub dir: PathBuf,
    /// End when it is accepted, without waiting until every member is ready.
    #[arg(long)]
    pub no_wait: bool,
    /// Only register it: voters keep its bytes, members do not hold it.
    #[arg(long)]
    pub no_stage: bool,
    /// Its version, above every known one; by default the next.
    #[arg(long, default_value_t = 0)]
    pub version: u64,
    /// Who publishes it.
    #[arg(long, env = "USER", default_value = "")]
    pub uploader: String,
    /// Sign it with the secret key in this file.
    #[arg(long)]
    pub sign: Option<PathBuf>,
    /// Do not fetch the bundle that serves and measure what a mixed pair with it would find.
    #[arg(long)]
    pub no_skew: bool,
}

/// What ends a rollout by itself; 0 switches a guard off.
#[derive(Debug, Args)]
pub struct GuardArgs {
    /// Requests of each bundle before anything is judged.
    #[arg(long, default_value_t = 200)]
    pub requests_min: u64,
    /// Share of ranked candidates without a finite prediction, percent.
    #[arg(long, default_value_t = 0.1)]
    pub non_finite_max: f64,
    /// Mean prediction against the active bundle's, either way, as a ratio.
    #[arg(long, default_value_t = 1.5)]
    pub prediction_ratio_max: f64,
    /// Population stability index of the predictions.
    #[arg(long, default_value_t = 0.25)]
    pub psi_max: f64,
    /// 99th percentile of latency against the active bundle's, as a ratio.
    #[arg(long, default_value_t = 2.0)]
    pub p99_ratio_max: f64,
    /// Mean coverage below the active bundle's, percent points.
    #[arg(long, default_value_t = 1.0)]
    pub coverage_drop_max: f64,
    /// Failed requests above the active bundle's share, percent points.
    #[arg(long, default_value_t = 1.0)]
    pub failed_max: f64,
    /// Charged clicks for each expected one against the active bundle's, either way, over a step.
    #[arg(long, default_value_t = 1.5)]
    pub calibration_ratio_max: f64,
    /// Clicks of each bundle before that is judged.
    #[arg(long, default_value_t = 100)]
    pub clicks_min: u32,
    /// Seconds that routers count before they report.
    #[arg(long, default_value_t = 2.0)]
    pub window: f64,
}

/// `gavel ctl model canary`.
#[derive(Debug, Args)]
pub struct CanaryArgs {
    /// The version.
    pub version: u64,
    /// Shares in percent with the time that each holds, as 1:10m (s, m, h).
    #[arg(long, value_delimiter = ',', default_value = "1:10m,10:30m,50:30m,100:10m")]
    pub steps: Vec<String>,
    #[command(flatten)]
    pub guards: GuardArgs,
}

/// `gavel ctl model shadow`.
#[derive(Debug, Args)]
pub struct ShadowArgs {
    /// The version.
    pub version: u64,
    /// Share of requests in percent, with its time: 1:10m. Without a time until it is ended.
    #[arg(long, default_value = "1")]
    pub share: String,
    #[command(flatten)]
    pub guards: GuardArgs,
}

/// `gavel ctl model policy`.
#[derive(Debug, Args)]
pub struct PolicyArgs {
    /// Refuse bundles that none of the keys has signed.
    #[arg(long)]
    pub require_signature: bool,
    /// Public keys in hex; several times. They take the place of those that were trusted.
    #[arg(long)]
    pub key: Vec<String>,
}
