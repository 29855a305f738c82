//! What may be said on the command line?

mod campaign;
mod ledger;
mod load;
mod log;
mod model;
mod rollout;
mod settings;
mod store;

pub use campaign::{CampaignArgs, CampaignCommand, PacingChoice, StrategyChoice, WhichArgs, WriteArgs};
pub use ledger::{AuditArgs, BudgetArgs, LedgerCommand, RefundArgs};
pub use load::LoadArgs;
pub use log::{LogArgs, LogCommand};
pub use model::{CheckArgs, MadeTowers, ModelCommand, PackArgs};
pub use rollout::{CanaryArgs, GuardArgs, Model, PolicyArgs, PublishArgs, ShadowArgs};
pub use settings::{MechanismChoice, NeighboursChoice, PlacementCommand, RulesArgs};
pub use store::BlobStoreArgs;

use clap::{Args, Parser, Subcommand, ValueEnum};
use gavel_member::telemetry::LogFormat;
use std::path::PathBuf;

/// An ads-serving cluster: retrieval, ranking, auction and allocation in one request.
#[derive(Debug, Parser)]
#[command(name = "gavel", version, about, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// The cluster that processes and commands belong to.
    #[arg(long, global = true, env = "GAVEL_CLUSTER", default_value = "gavel")]
    pub cluster_id: String,
    /// What is logged, in the form of RUST_LOG; by default warn,gavel=info,openraft=off (up: warn,openraft=off).
    #[arg(long, global = true, env = "GAVEL_LOG")]
    pub log: Option<String>,
    /// The form of a log line.
    #[arg(long, global = true, value_enum, default_value_t = LogForm::Text)]
    pub log_format: LogForm,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogForm {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Whether something that not everybody may ask is answered: what `gavel bench truth` asks costs as much as thousands
/// of requests, and who manages campaigns may pause all of them.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Probes {
    /// Answered.
    On,
    /// Refused.
    Off,
}

impl From<LogForm> for LogFormat {
    fn from(form: LogForm) -> Self {
        match form {
            LogForm::Text => Self::Text,
            LogForm::Json => Self::Json,
        }
    }
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a whole cluster in this process, with the demo catalogue and model, and serve.
    Up(UpArgs),
    /// Start one voter of the control plane.
    Control(ControlArgs),
    /// Start one node: it holds replicas of shards.
    Node(NodeArgs),
    /// Start one router: it answers ad requests.
    Router(RouterArgs),
    /// Operate a running cluster.
    Ctl(CtlArgs),
    /// Clear auctions that stand in a file, or logged ones anew, without a cluster.
    #[command(subcommand)]
    Auction(Auction),
    /// Make and check model bundles, without a cluster.
    #[command(subcommand)]
    Model(ModelCommand),
    /// Build corpora, put load on a cluster, compare it with the truth.
    #[command(subcommand)]
    Bench(Bench),
    /// Play markets in virtual time, without a cluster.
    #[command(subcommand)]
    Sim(Sim),
    /// Work with the logs of routers, without a cluster.
    #[command(subcommand, name = "log")]
    Logs(LogCommand),
}

/// `gavel up`.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// Answer one request, print it and end.
    #[arg(long)]
    pub once: bool,
    /// The form of the printed answer.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// Keep everything here; without it a temporary folder is used and removed.
    #[arg(long)]
    pub data_dir: Option<PathBuf>,
    /// HOST:PORT of the HTTP endpoint; port 0 for any.
    #[arg(long)]
    pub listen: Option<String>,
    /// Load this bundle instead of the demo's.
    #[arg(long, requires = "catalogue")]
    pub bundle: Option<PathBuf>,
    /// Load this catalogue (file or folder) instead of the demo's.
    #[arg(long, requires = "bundle")]
    pub catalogue: Option<PathBuf>,
    /// Nodes to start.
    #[arg(long, default_value_t = 2)]
    pub nodes: usize,
    /// Shards of the catalogue.
    #[arg(long, default_value_t = 2)]
    pub shards: u32,
    /// Replicas of each shard.
    #[arg(long, default_value_t = 1)]
    pub replicas: u32,
    #[command(flatten)]
    pub logs: LogArgs,
}

/// What every serving process is told.
#[derive(Debug, Args)]
pub struct ProcessArgs {
    /// Where it keeps its files.
    #[arg(long)]
    pub data_dir: PathBuf,
    /// HOST:PORT under which others reach it; by default where it listens.
    #[arg(long, default_value = "")]
    pub advertise: String,
    /// A name for people.
    #[arg(long, default_value = "")]
    pub name: String,
    /// HOST:PORT of its metrics page; by default its gRPC port + 1000.
    #[arg(long)]
    pub metrics_listen: Option<String>,
}

/// `gavel control`.
#[derive(Debug, Args)]
pub struct ControlArgs {
    /// Its number among the voters, from 1.
    #[arg(long)]
    pub id: u64,
    /// All voters, itself included: 1=HOST:PORT,2=HOST:PORT,...
    #[arg(long, value_delimiter = ',', required = true)]
    pub peers: Vec<String>,
    /// HOST:PORT of its gRPC endpoint.
    #[arg(long, default_value = "127.0.0.1:7001")]
    pub listen: String,
    #[command(flatten)]
    pub blobs: BlobStoreArgs,
    #[command(flatten)]
    pub process: ProcessArgs,
}

/// `gavel node`.
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// HOST:PORT of its gRPC endpoint; port 0 for any.
    #[arg(long, default_value = "127.0.0.1:7101")]
    pub listen: String,
    /// Voters: HOST:PORT,...
    #[arg(long, env = "GAVEL_CONTROL", value_delimiter = ',', default_value = "127.0.0.1:7001")]
    pub control: Vec<String>,
    /// Threads that search; 0 = one a core.
    #[arg(long, default_value_t = 0)]
    pub search_threads: usize,
    /// Whether the searches of `gavel bench truth` are answered.
    #[arg(long, value_enum, default_value_t = Probes::Off)]
    pub probes: Probes,
    /// Share of the memory that the process may use, which its shards may take; what would need more is refused.
    #[arg(long, default_value_t = gavel_node::MEMORY_SHARE_DEFAULT, value_parser = share)]
    pub memory_share: f64,
    /// Share of the searches that are answered exactly as well, off the request path, to measure recall; 0 = none.
    #[arg(long, default_value_t = gavel_node::RECALL_PROBE_SHARE_DEFAULT, value_parser = share_or_none)]
    pub recall_probe_share: f64,
    /// Recall of such searches below which an alarm is raised.
    #[arg(long, default_value_t = gavel_node::RECALL_ALARM_DEFAULT, value_parser = share)]
    pub recall_alarm: f64,
    /// Share of one core that staging a bundle may take while the node serves.
    #[arg(long, default_value_t = gavel_node::STAGING_CPU_SHARE_DEFAULT, value_parser = share)]
    pub staging_cpu_share: f64,
    /// MiB of memory for counts of what users have seen; beyond it new users see nothing that is capped.
    #[arg(long, default_value_t = gavel_node::FREQUENCY_MIB_DEFAULT)]
    pub frequency_memory: u64,
    #[command(flatten)]
    pub process: ProcessArgs,
}

/// Above 0 and at most 1.
fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| *share > 0.0 && *share <= 1.0);
    share.ok_or_else(|| format!("{text:?} is no share: give a number above 0 and at most 1, as 0.8"))
}

/// From 0 to 1.
fn share_or_none(text: &str) -> Result<f64, String> {
    if text.parse() == Ok(0.0) { Ok(0.0) } else { share(text) }
}

/// `gavel router`.
#[derive(Debug, Args)]
pub struct RouterArgs {
    /// HOST:PORT of its gRPC endpoint; port 0 for any.
    #[arg(long, default_value = "127.0.0.1:7201")]
    pub listen: String,
    /// HOST:PORT of its HTTP/JSON endpoint; port 0 for any.
    #[arg(long, default_value = "127.0.0.1:7301")]
    pub http_listen: String,
    /// Voters: HOST:PORT,...
    #[arg(long, env = "GAVEL_CONTROL", value_delimiter = ',', default_value = "127.0.0.1:7001")]
    pub control: Vec<String>,
    /// Threads that compute the user tower; 0 = one a core.
    #[arg(long, default_value_t = 0)]
    pub workers: usize,
    /// Whether `gavel bench truth` is answered.
    #[arg(long, value_enum, default_value_t = Probes::Off)]
    pub probes: Probes,
    /// Whether campaigns are managed over HTTP: only on a port that nobody else reaches.
    #[arg(long, value_enum, default_value_t = Probes::Off)]
    pub campaigns: Probes,
    /// Folder for the log of clearings, which `gavel auction replay` reads; none without it.
    #[arg(long)]
    pub clearing_log: Option<PathBuf>,
    /// Share of the auctions that is logged; explained ones always are.
    #[arg(long, default_value_t = 0.01, value_parser = share)]
    pub clearing_log_share: f64,
    #[command(flatten)]
    pub logs: LogArgs,
    #[command(flatten)]
    pub process: ProcessArgs,
}

/// `gavel ctl`.
#[derive(Debug, Args)]
pub struct CtlArgs {
    /// Voters: HOST:PORT,...
    #[arg(long, env = "GAVEL_CONTROL", value_delimiter = ',', default_value = "127.0.0.1:7001")]
    pub control: Vec<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Ctl,
}

/// Operating a cluster.
#[derive(Debug, Subcommand)]
pub enum Ctl {
    /// Show members with their memory, shards with their replicas, the versions in force, and what members refuse.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Load a catalogue: a folder of items, ads, campaigns and users, or one file; it serves when every replica has it.
    Load(LoadArgs),
    /// Publish, try out, activate and roll back model bundles.
    #[command(subcommand)]
    Model(Model),
    /// Forget members that are lost.
    #[command(subcommand)]
    Member(MemberCommand),
    /// Set, remove or list the places where ads may stand.
    #[command(subcommand)]
    Placement(PlacementCommand),
    /// Show the rules of the auction, or change them; options that are not given stay as they are.
    Rules(RulesArgs),
    /// Set budgets, show balances, give charges back, audit the books.
    #[command(subcommand)]
    Ledger(LedgerCommand),
    /// Show and change bids, statuses, schedules, strategies, frequency rules and budgets of campaigns, without a load.
    #[command(subcommand)]
    Campaign(CampaignCommand),
    /// Ask a router for ads, as an application does, and print the answer: impressions are counted, money is held.
    Ad(AskArgs),
    /// Ask a router why each ad would win or not, and print it; nothing is counted, held or charged.
    Explain(AskArgs),
}

/// Members.
#[derive(Debug, Subcommand)]
pub enum MemberCommand {
    /// Forget a node or router that is dead and does not come back; other nodes take over its replicas.
    Remove {
        /// Its id, as the status shows it.
        member: u64,
    },
}

/// `gavel ctl ad` and `gavel ctl explain`.
#[derive(Debug, Args)]
pub struct AskArgs {
    /// Id of the user, whose stored features are used; without it the model's defaults.
    #[arg(long, default_value = "")]
    pub user: String,
    /// The placement that the ads are for.
    #[arg(long, default_value = "home")]
    pub placement: String,
    /// What targeting sees: DIMENSION=VALUE,VALUE, as store=330; several times.
    #[arg(long)]
    pub term: Vec<String>,
    /// A context feature of the model: NAME=VALUE, as hour=17; several times.
    #[arg(long)]
    pub context: Vec<String>,
    /// Ads wanted at most; 0 = as many as the placement has slots.
    #[arg(long, default_value_t = 0)]
    pub slots: u32,
    /// The auction's id, to ask the same again; 0 = drawn by the router.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Milliseconds within which the answer is due, 10 to 500.
    #[arg(long, default_value_t = 500)]
    pub deadline_ms: u32,
    /// HOST:PORT of a router's gRPC endpoint; by default one that the cluster names.
    #[arg(long)]
    pub router: Option<String>,
}

/// Auctions without a cluster.
#[derive(Debug, Subcommand)]
pub enum Auction {
    /// Print winners and prices, in micros of the currency, of the auctions in a JSON file; - for standard input.
    Clear {
        /// A file with one auction, or an array of them: bids, weights, position factors, mechanism.
        file: PathBuf,
        /// The form of the answer.
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Clear logged clearings anew and compare them byte for byte; ends with 65 when one differs; - for standard input.
    Replay {
        /// A file of the clearing log (.jsonl, also .zst), or a folder of them.
        file: PathBuf,
        /// The form of the report.
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
}

/// Playing.
#[derive(Debug, Subcommand)]
pub enum Sim {
    /// Play a day of visits, or all recorded ones, through auction, allocation, pacing and budgets, and judge the pacing.
    Market(gavel_bench::market::MarketArgs),
}

/// Measuring.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Measure the search over vectors from files: recall, speed, size, filters.
    Ann(crate::ann::AnnArgs),
    /// Write a catalogue folder from the public shopping records.
    Corpus(gavel_bench::corpus::CorpusArgs),
    /// Replay requests against a running cluster, open-loop.
    Serve(gavel_bench::serve::ServeArgs),
    /// Compare a running cluster with brute force and a single auction.
    Truth(gavel_bench::truth::TruthArgs),
    /// Switch models without a pause on a cluster of its own, under load and kills, and look for mixed answers.
    Rollout(gavel_bench::rollout::RolloutArgs),
    /// Charge events many times over on a cluster of its own, under kills, and compare the ledger with its oracle.
    Ledger(gavel_bench::ledger::LedgerArgs),
    /// Time checks and reservations of frequency caps against nodes of its own.
    Frequency(gavel_bench::frequency::FrequencyArgs),
    /// Pause, resume and rebid campaigns on a cluster of its own under load; time it, and look for paused ones in the logs.
    Delivery(gavel_bench::delivery::DeliveryArgs),
    /// Time a bundle's ranker on one thread, or score rows with it.
    Rank(gavel_bench::rank::RankArgs),
    /// Time clearings on one thread, and compare random ones with their obvious twin.
    Auction(gavel_bench::auction::AuctionArgs),
}
