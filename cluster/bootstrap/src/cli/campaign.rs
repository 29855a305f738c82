//! What may be said about campaigns?

use clap::{Args, Subcommand, ValueEnum};

/// `gavel ctl campaign`.
#[derive(Debug, Subcommand)]
pub enum CampaignCommand {
    /// Show what is in force of campaigns: bid, status, schedule, strategy, frequency rules, budgets, ad groups.
    Get {
        /// The campaigns.
        #[arg(required = true)]
        campaigns: Vec<u64>,
    },
    /// Show all campaigns of the catalogue with their ad groups, a page at a time.
    List {
        /// The page begins behind the campaign with this id.
        #[arg(long, default_value_t = 0)]
        after: u64,
        /// Campaigns of the page at most.
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
    /// Change a campaign or one of its ad groups; what is not given stays.
    Set(Box<CampaignArgs>),
    /// Pause campaigns, or ad groups of one: their ads neither win nor set a price from now on.
    Pause(WhichArgs),
    /// Resume campaigns, or ad groups of one: their ads take part again.
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
    /// Wait until it is in force on every router and node, so many milliseconds at most; 0 = do not wait.
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
    /// Bid in currency, as 1.25: for a thousand impressions (cpm), a click (cpc), a conversion (cpa, ocpm, ocpc).
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
    /// What a conversion is to cost on average, in currency, with the strategy target-cpa.
    #[arg(long)]
    pub target: Option<String>,
    /// How spending is held back to the day's curve.
    #[arg(long, value_enum)]
    pub pacing: Option<PacingChoice>,
    /// SCOPE:WINDOW:MAX, as campaign:24h:3, advertiser:7d:10, ad:30d:5; several times; `none` takes back what was said: the catalogue's stand again.
    #[arg(long)]
    pub frequency: Vec<String>,
    /// Budget for each day of its zone, in currency; 0 takes it away.
    #[arg(long)]
    pub daily: Option<String>,
    /// Budget for each week from Monday, in currency; 0 takes it away.
    #[arg(long)]
    pub weekly: Option<String>,
    /// Budget for its whole life, in currency; 0 takes it away.
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
    /// As many conversions as cost `--target` on average, at most.
    TargetCpa,
    /// As many conversions as the budget buys.
    MostConversions,
}
