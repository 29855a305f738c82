//! What may be said about money?

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `gavel ctl ledger`.
#[derive(Debug, Subcommand)]
pub enum LedgerCommand {
    /// Set the budgets of a campaign, in currency; those that are not given are taken away.
    Budget(BudgetArgs),
    /// Show what each budget holds: available, leased, charged, refunded; as JSON in nanos (1e-9 of the currency).
    Balances {
        /// Only this campaign; several times.
        #[arg(long)]
        campaign: Vec<u64>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Give charges back by their tokens, each once; what is given back is not spent again.
    Refund(RefundArgs),
    /// Compute every balance anew from the journal of each voter, by other code, and compare; ends with 65 at a difference.
    Audit(AuditArgs),
}

/// `gavel ctl ledger audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Audit the files in this folder instead, without a cluster.
    #[arg(long, value_name = "DIR")]
    pub journal: Option<PathBuf>,
    /// Logs of clearings, of all routers: every charge whose auction is in them must have the price that was made there.
    #[arg(long, value_name = "DIR", value_delimiter = ',')]
    pub clearings: Vec<PathBuf>,
    /// The logs have every clearing (--clearing-log-share 1, nothing dropped): a charge whose auction is not in them is wrong.
    #[arg(long, requires = "clearings")]
    pub clearings_complete: bool,
    /// Write every charged token: to FILE, and of several voters to one beside it for each.
    #[arg(long, value_name = "FILE")]
    pub charges: Option<PathBuf>,
    /// Write by campaign what leases held in the end and nobody was charged; files as with --charges.
    #[arg(long, value_name = "FILE")]
    pub leases: Option<PathBuf>,
    /// Read tokens from here, one a line, and write beside it what each says and what became of it; files as with --charges.
    #[arg(long, value_name = "FILE")]
    pub tokens: Option<PathBuf>,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// `gavel ctl ledger refund`.
#[derive(Debug, Args)]
pub struct RefundArgs {
    /// Tokens of charged events, as they came with their ads.
    #[arg(value_name = "TOKEN")]
    pub tokens: Vec<String>,
    /// Tokens from a file, one a line.
    #[arg(long)]
    pub file: Option<PathBuf>,
    /// Give back so much of each charge, in currency, as 0.25; without it each is given back whole.
    #[arg(long)]
    pub amount: Option<String>,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// `gavel ctl ledger budget`.
#[derive(Debug, Args)]
pub struct BudgetArgs {
    /// The campaign's id.
    pub campaign: u64,
    /// Id of the advertiser, who pays; it stays with the campaign.
    #[arg(long)]
    pub advertiser: u64,
    /// Budget for each day of the campaign's zone, in currency, as 50.
    #[arg(long)]
    pub daily: Option<String>,
    /// Budget for each week from Monday, in currency.
    #[arg(long)]
    pub weekly: Option<String>,
    /// Budget for the campaign's whole life, in currency.
    #[arg(long)]
    pub lifetime: Option<String>,
    /// The zone of its midnight: an IANA name or an offset such as +05:30.
    #[arg(long, default_value = "UTC")]
    pub zone: String,
}
