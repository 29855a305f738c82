//! What may be said about the rules of the auction, and about where ads stand?

use clap::{Args, Subcommand, ValueEnum};

/// Placements.
#[derive(Debug, Subcommand)]
pub enum PlacementCommand {
    /// Add or replace one.
    Set {
        /// Its name, as requests say it.
        name: String,
        /// Most ads in a slate.
        #[arg(long, default_value_t = 4)]
        slots: u32,
        /// No ad above this position.
        #[arg(long, default_value_t = 0)]
        first_position: u32,
        /// Organic items between two ads.
        #[arg(long, default_value_t = 0)]
        min_gap: u32,
        /// Largest share of ads among all positions, 0 to 1.
        #[arg(long, default_value_t = 1.0)]
        max_load: f64,
        /// Floor, currency per mille.
        #[arg(long, default_value = "0")]
        reserve_cpm: String,
        /// Positions between two ads of one category.
        #[arg(long, default_value_t = 0)]
        category_spacing: u32,
    },
    /// Take one away.
    Remove {
        /// Its name.
        name: String,
    },
    /// All of them.
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
    /// Ads of one advertiser in a slate.
    #[arg(long)]
    pub per_advertiser: Option<u32>,
    /// Ads of one category in a slate; 0 = no limit.
    #[arg(long)]
    pub per_category: Option<u32>,
    /// Candidates ranked, over all shards.
    #[arg(long)]
    pub ranked: Option<u32>,
    /// Items retrieved, over all shards.
    #[arg(long)]
    pub retrieved: Option<u32>,
    /// How often each slot is seen, from most to least, where 1 is what predictions refer to: 1,0.6,0.4. Slots beyond the
    /// list are seen as often as its last.
    #[arg(long, value_delimiter = ',')]
    pub position_factors: Option<Vec<String>>,
    /// Floor, currency per mille.
    #[arg(long)]
    pub reserve_cpm: Option<String>,
    /// May two ads of one category stand in adjacent slots?
    #[arg(long, value_enum)]
    pub neighbours: Option<NeighboursChoice>,
    /// Squashing: 0 ranks by expected revenue, 1 by bid alone.
    #[arg(long)]
    pub squashing: Option<f64>,
    /// The event probability that squashing leaves as it is.
    #[arg(long)]
    pub squashing_pivot: Option<f64>,
    /// Exponent of P(long click) in the weight; 0 = quality is not used.
    #[arg(long)]
    pub quality: Option<f64>,
    /// What a hide costs, currency.
    #[arg(long)]
    pub hide_cost: Option<String>,
    /// What a long click is worth to the user, currency.
    #[arg(long)]
    pub user_value: Option<String>,
    /// Least score: bid, quality and value together, currency per mille.
    #[arg(long)]
    pub score_floor_cpm: Option<String>,
    /// Cascading users: how likely they go on past an ad that no model predicts it for; 0 = slots are separable.
    #[arg(long)]
    pub cascade: Option<f64>,
    /// Currency micros per unit of engagement.
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
