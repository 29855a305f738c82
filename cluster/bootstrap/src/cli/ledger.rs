//! What may be said about money?

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `gavel ctl ledger`.
#[derive(Debug, Subcommand)]
pub enum LedgerCommand {
    /// Set the budgets of a campaign; those that are not given are taken away.
    Budget(BudgetArgs),
    /// What each budget holds: available, leased, charged, refunded.
    Balances {
        /// Only this campaign; several times.
        #[arg(long)]
        campaign: Vec<u64>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Compute every balance anew from the journal of each voter, by other code, and compare; ends with 65 at a difference.
    Audit {
        /// Audit the files in this folder instead, without a cluster.
        #[arg(long)]
        journal: Option<PathBuf>,
        /// Write every charged token: to FILE, and of several voters to one beside it for each.
        #[arg(long)]
        charges: Option<PathBuf>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

/// `gavel ctl ledger budget`.
#[derive(Debug, Args)]
pub struct BudgetArgs {
    /// The campaign.
    pub campaign: u64,
    /// Who pays; stays with the campaign.
    #[arg(long)]
    pub advertiser: u64,
    /// Currency for a day of the campaign's zone.
    #[arg(long)]
    pub daily: Option<String>,
    /// Currency for a week from Monday.
    #[arg(long)]
    pub weekly: Option<String>,
    /// Currency for ever.
    #[arg(long)]
    pub lifetime: Option<String>,
    /// The zone of its midnight: an IANA name or an offset such as +05:30.
    #[arg(long, default_value = "UTC")]
    pub zone: String,
}
