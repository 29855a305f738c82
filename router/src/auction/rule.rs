//! Which auction is run?
//!
//! The terms as the control plane states them, checked once. Whatever a rule allows, the auction can
//! clear: it has no error of its own.

use gavel_proto::cut::{CutRule, Neighbours, SPARE};
use gavel_proto::money::PPM;
use serde::{Deserialize, Serialize};

use crate::merge::SCORE_BOUND;

/// How a winner's price comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mechanism {
    /// Generalised second price: the smallest bid that keeps the slot.
    Gsp,
    /// Vickrey-Clarke-Groves: what the others lose by the winner's presence.
    Vcg,
    /// The paced bid.
    FirstPrice,
}

/// What a winner pays who would tie with its runner-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TiePrice {
    /// The tie decides, as it decides the order: who would lose it pays the next higher integer.
    Keyed,
    /// As if the winner won every tie: the quotient rounded up (decision 13, for the command line).
    WinnerWins,
}

/// How users read a slate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserModel {
    /// A slot is seen as often as its factor says, whatever stands in the others.
    Separable,
    /// From the top; after each ad they go on with its continuation probability (Kempe and Mahdian, WINE 2008).
    Cascade,
}

/// The terms of an auction, as stated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuctionTerms {
    /// How prices come about.
    pub mechanism: Mechanism,
    /// Slots to fill at most.
    pub slots: usize,
    /// At most so many ads of one advertiser; at least 1.
    pub per_advertiser: usize,
    /// At most so many ads of one limit category; `None` without a limit.
    pub per_category: Option<usize>,
    /// How often a slot is seen, x_1 >= x_2 >= ... > 0; only ratios count. VCG alone reads it. Slots
    /// beyond the list are seen as often as its last; an empty list sees every slot alike.
    pub position_factors_ppm: Vec<u32>,
    /// Who wins a tie with the runner-up.
    pub tie_price: TiePrice,
    /// Whether neighbours must be of different categories.
    pub neighbours: Neighbours,
    /// How users read the slate; cascading ones do not look at position factors.
    pub users: UserModel,
    /// What showing an ad has to bring, in score units: an ad stands in slot k iff `score * x_k` reaches it, with x_k the
    /// slot's factor as a part of one; 0 = whatever is worth no less than nothing. Left out of a record when it is 0, so
    /// that lines from before there were thresholds come out as they are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub page_threshold: i128,
}

fn is_zero(amount: &i128) -> bool {
    *amount == 0
}

impl AuctionTerms {
    /// The plain case: one ad an advertiser, no other limit, every slot seen alike, ties by their keys, users who look at
    /// each slot by itself.
    #[must_use]
    pub const fn plain(mechanism: Mechanism, slots: usize) -> Self {
        Self {
            mechanism,
            slots,
            per_advertiser: 1,
            per_category: None,
            position_factors_ppm: Vec::new(),
            tie_price: TiePrice::Keyed,
            neighbours: Neighbours::Any,
            users: UserModel::Separable,
            page_threshold: 0,
        }
    }
}

/// Terms that hold together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuctionRule(AuctionTerms);

/// Why terms do not hold together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// A limit of 0 ads is an auction without ads.
    #[error("the limit per {0} is 0: allow at least one ad, or ask for no slots")]
    LimitZero(&'static str),
    /// A slot that is never seen cannot be sold.
    #[error("position factor {0} is 0: every slot needs one above 0")]
    FactorZero(usize),
    /// Slots are sold from the best down.
    #[error("position factor {0} is larger than the one before it: slots go from most to least seen")]
    FactorsRise(usize),
    /// The best slate of cascading users is found by a recursion that knows no limits.
    #[error("cascading users allow one ad an advertiser, no other limit and no page threshold")]
    CascadeLimits,
    /// A threshold below 0 is none, and one beyond every score an auction without ads.
    #[error("the page threshold is below 0 or above every score")]
    PageThreshold,
    /// No generalised second price is defined for them.
    #[error("cascading users need vcg or first_price: a second price has no meaning without an order by score")]
    CascadeGsp,
}

impl AuctionRule {
    /// Checks the terms.
    ///
    /// # Errors
    /// When a limit or a position factor is 0, the factors rise, the page threshold is no amount, or cascading users come
    /// with what they do not go together with.
    pub fn new(terms: AuctionTerms) -> Result<Self, RuleError> {
        if terms.per_advertiser == 0 {
            return Err(RuleError::LimitZero("advertiser"));
        }
        if terms.per_category == Some(0) {
            return Err(RuleError::LimitZero("category"));
        }
        let factors = &terms.position_factors_ppm;
        if let Some(index) = factors.iter().position(|x| *x == 0) {
            return Err(RuleError::FactorZero(index));
        }
        if let Some(index) = factors.windows(2).position(|pair| pair[1] > pair[0]) {
            return Err(RuleError::FactorsRise(index + 1));
        }
        if !(0..=SCORE_BOUND).contains(&terms.page_threshold) {
            return Err(RuleError::PageThreshold);
        }
        if terms.users == UserModel::Cascade {
            let free = terms.per_category.is_none() && terms.neighbours == Neighbours::Any;
            if terms.per_advertiser != 1 || !free || terms.page_threshold > 0 {
                return Err(RuleError::CascadeLimits);
            }
            if terms.mechanism == Mechanism::Gsp {
                return Err(RuleError::CascadeGsp);
            }
        }
        Ok(Self(terms))
    }

    /// The terms.
    #[must_use]
    pub const fn terms(&self) -> &AuctionTerms {
        &self.0
    }

    /// The cut that the shards owe this auction, unless users cascade: then no prefix of the order is safe, because a
    /// low score with a high continuation may belong into the best slate.
    #[must_use]
    pub const fn cut_rule(&self) -> CutRule {
        CutRule {
            slots: self.0.slots,
            per_advertiser: self.0.per_advertiser,
            per_category: self.0.per_category,
            neighbours: self.0.neighbours,
            spare: SPARE,
        }
    }

    /// At most so many ads of one category get a slot; `None` without a limit that could bind.
    #[must_use]
    pub fn category_limit(&self) -> Option<usize> {
        self.cut_rule().category_limit()
    }

    /// x of a slot, 0-based; 0 beyond the last slot.
    #[must_use]
    pub fn factor(&self, slot: usize) -> u32 {
        if slot >= self.0.slots {
            return 0;
        }
        let factors = &self.0.position_factors_ppm;
        factors.get(slot).or(factors.last()).copied().unwrap_or(PPM)
    }

    /// The least score that may stand in a slot: `ceil(page threshold / x)`. It rises from slot to slot, as x falls.
    #[must_use]
    pub fn least_score(&self, slot: usize) -> i128 {
        match self.0.page_threshold {
            0 => 0,
            // At most 2^90 times a million. Nobody asks about a slot beyond the last, whose factor is 0.
            threshold => (threshold * i128::from(PPM) - 1) / i128::from(self.factor(slot).max(1)) + 1,
        }
    }
}
