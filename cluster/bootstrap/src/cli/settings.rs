//! What may be said about the rules of the auction, and about where ads stand?

use clap::{Args, Subcommand, ValueEnum};

/// Placements.
#[derive(Debug, Subcommand)]
pub enum PlacementCommand {
    /// Add a placement, or replace the one of this name: what is not given takes its default.
    Set {
        /// Its name, as requests say it.
        name: String,
        /// Most ads in a slate.
        #[arg(long, default_value_t = 4)]
        slots: u32,
        /// The first position of the page, counted from 0, that may hold an ad.
        #[arg(long, default_value_t = 0)]
        first_position: u32,
        /// Organic items between two ads, at least.
        #[arg(long, default_value_t = 0)]
        min_gap: u32,
        /// Largest share of ads among all positions, 0 to 1.
        #[arg(long, default_value_t = 1.0)]
        max_load: f64,
        /// Smallest price, currency per thousand impressions; 0 = none.
        #[arg(long, default_value = "0")]
        reserve_cpm: String,
        /// Positions between two ads of one category, at least; 0 = no rule.
        #[arg(long, default_value_t = 0)]
        category_spacing: u32,
    },
    /// Remove a placement: requests for it are then refused.
    Remove {
        /// Its name.
        name: String,
    },
    /// Print all placements as JSON.
    List,
}

/// How winners pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MechanismChoice {
    /// Generalised second price.
    Gsp,
    /// Vickrey, Clarke, Groves.
    Vcg,
    /// The bid.
    FirstPrice,
}

/// `gavel ctl rules`.
#[derive(Debug, Default, PartialEq, Args)]
pub struct RulesArgs {
    /// How winners pay.
    #[arg(long, value_enum)]
    pub mechanism: Option<MechanismChoice>,
    /// Ads of one advertiser in a slate at most, 1 or more.
    #[arg(long)]
    pub per_advertiser: Option<u32>,
    /// Ads of one category in a slate at most; 0 = no limit.
    #[arg(long)]
    pub per_category: Option<u32>,
    /// Items of a request that are ranked, over all shards, at most 1,000.
    #[arg(long)]
    pub ranked: Option<u32>,
    /// Items of a request that retrieval brings, over all shards, at most 1,000.
    #[arg(long)]
    pub retrieved: Option<u32>,
    /// How often each slot is seen, from most to least, where 1 is what predictions refer to: 1,0.6,0.4. Slots beyond the
    /// list are seen as often as its last.
    #[arg(long, value_delimiter = ',')]
    pub position_factors: Option<Vec<String>>,
    /// Smallest price of any ad, currency per thousand impressions; 0 = none.
    #[arg(long)]
    pub reserve_cpm: Option<String>,
    /// May two ads of one category stand in adjacent slots?
    #[arg(long, value_enum)]
    pub neighbours: Option<NeighboursChoice>,
    /// Squashing, 0 to 1: 0 ranks by expected revenue, 1 by bid alone.
    #[arg(long)]
    pub squashing: Option<f64>,
    /// The event probability that squashing leaves as it is, above 0 and at most 1.
    #[arg(long)]
    pub squashing_pivot: Option<f64>,
    /// Exponent of P(long click) in the weight; 0 = quality is not used.
    #[arg(long)]
    pub quality: Option<f64>,
    /// What an ad is worth less for each hide that is expected of it, currency.
    #[arg(long)]
    pub hide_cost: Option<String>,
    /// What an ad is worth more for each long click that is expected of it, currency.
    #[arg(long)]
    pub user_value: Option<String>,
    /// Least score of a winner, bid, quality and value together: currency per thousand impressions; 0 = none.
    #[arg(long)]
    pub score_floor_cpm: Option<String>,
    /// What showing an ad has to bring, its score times the factor of its slot, currency per mille; 0 = nothing.
    #[arg(long)]
    pub page_threshold_cpm: Option<String>,
    /// Cascading users: how likely (0 to 1) they go on past an ad that no model predicts it for; 0 = slots are separable.
    #[arg(long)]
    pub cascade: Option<f64>,
    /// What one unit of engagement with an organic item is worth, in millionths of the currency.
    #[arg(long)]
    pub shadow_bid: Option<f64>,
    /// Worth of an ad by the organic items since the last one: 0.5,0.8 halves it right behind another ad.
    #[arg(long, value_delimiter = ',')]
    pub gap_effect: Option<Vec<f64>>,
    /// Break ties by a new random key from now on.
    #[arg(long)]
    pub new_tie_key: bool,
}

/// May two ads of one category stand next to each other?
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NeighboursChoice {
    /// They may.
    Any,
    /// Adjacent slots hold different categories.
    Apart,
}
