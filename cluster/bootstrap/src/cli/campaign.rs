//! What may be said about campaigns?

use clap::{Args, Subcommand, ValueEnum};

/// `gavel ctl campaign`.
#[derive(Debug, Subcommand)]
pub enum CampaignCommand {
    /// What is in force of campaigns: bid, status, schedule, strategy, frequency rules, budgets, ad groups.
    Get {
        /// The campaigns.
        #[arg(required = true)]
        campaigns: Vec<u64>,
    },
    /// All campaigns of the catalogue with their ad groups, a page at a time.
    List {
        /// The page begins behind this campaign.
        #[arg(long, default_value_t = 0)]
        after: u64,
        /// Campaigns of the page.
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
    /// Change a campaign or one of its ad groups; what is not given stays.
    Set(Box<CampaignArgs>),
    /// Its ads neither win nor set a price from now on.
    Pause(WhichArgs),
    /// Its ads take part again.
    Resume(WhichArgs),
}

/// Which campaigns, and how long to wait.
#[derive(Debug, Args)]
pub struct WhichArgs {
    /// The campaigns.
    #[arg(required = true)]
    pub campaigns: Vec<u64>,
    /// Only this ad group of the campaign; several times.
    #[arg(long)]
    pub ad_group: Vec<u64>,
    #[command(flatten)]
    pub write: WriteArgs,
}

/// How a write is made.
#[derive(Debug, Args)]
pub struct WriteArgs {
    /// Names this wish: the same one under the same name is carried out once.
    #[arg(long)]
    pub request_id: Option<String>,
    /// Wait so many milliseconds until it is in force on every router and node.
    #[arg(long, default_value_t = 5_000)]
    pub wait_ms: u64,
}

/// `gavel ctl campaign set`.
#[derive(Debug, Args)]
pub struct CampaignArgs {
    /// The campaign.
    pub campaign: u64,
    /// Only this ad group of it, of which --bid and --reset are said.
    #[arg(long)]
    pub ad_group: Option<u64>,
    /// Currency for one event of its bid type, as 1.25.
    #[arg(long)]
    pub bid: Option<String>,
    /// Take back what was said of it before, but for what the pacer says.
    #[arg(long)]
    pub reset: bool,
    /// First instant at which it runs: 2026-12-01T00:00:00Z, or `none`.
    #[arg(long)]
    pub starts: Option<String>,
    /// First instant at which it does not run any more, or `none`.
    #[arg(long)]
    pub ends: Option<String>,
    /// How the bid comes about.
    #[arg(long, value_enum)]
    pub strategy: Option<StrategyChoice>,
    /// Currency for a conversion, with the strategy target-cpa.
    #[arg(long)]
    pub target: Option<String>,
    /// How spending is held back to the day's curve.
    #[arg(long, value_enum)]
    pub pacing: Option<PacingChoice>,
    /// SCOPE:WINDOW:MAX, as campaign:24h:3, advertiser:7d:10, ad:30d:5; several times; `none` takes back what was said: the catalogue's stand again.
    #[arg(long)]
    pub frequency: Vec<String>,
    /// Currency for a day of its zone; 0 takes the budget away.
    #[arg(long)]
    pub daily: Option<String>,
    /// Currency for a week from Monday; 0 takes the budget away.
    #[arg(long)]
    pub weekly: Option<String>,
    /// Currency for ever; 0 takes the budget away.
    #[arg(long)]
    pub lifetime: Option<String>,
    /// The zone of its midnight: an IANA name or an offset such as +05:30.
    #[arg(long)]
    pub zone: Option<String>,
    #[command(flatten)]
    pub write: WriteArgs,
}

/// How spending is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PacingChoice {
    /// Lower bids.
    Bid,
    /// Fewer auctions, at full bids.
    Throttle,
}

/// How a bid comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StrategyChoice {
    /// The bid stands.
    Fixed,
    /// At most `--target` for a conversion.
    TargetCpa,
    /// As many conversions as the budget buys.
    MostConversions,
}
