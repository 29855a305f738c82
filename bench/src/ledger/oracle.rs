//! What must the ledger hold, given what was answered?
//!
//! A token is charged when one of its copies was answered `charged` or `duplicate`: nothing else is known or needed. Each
//! token is answered for all of its copies before anything is compared, so that no outcome is open.

use std::collections::BTreeMap;

/// A token, with what its charge must cost.
#[derive(Clone, Debug)]
pub struct Sold {
    /// Who pays.
    pub campaign: u64,
    /// 1 impression, 2 click, 3 conversion.
    pub kind: u8,
    /// What its charge costs.
    pub price_nanos: i64,
    /// Answers to its copies, in their order.
    pub answers: Vec<String>,
}

/// What the answers add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Oracle {
    /// Tokens that are charged.
    pub posted: u64,
    /// Tokens that were answered `charged` more than once.
    pub double: u64,
    /// Tokens that were answered both as charged and as not.
    pub contradictory: u64,
    /// By campaign: what is charged.
    pub charged: BTreeMap<u64, i64>,
    /// Each charge: campaign, kind, price, how often.
    pub charges: BTreeMap<(u64, u8, i64), u64>,
    /// Tokens by what became of them.
    pub fates: BTreeMap<String, u64>,
    /// Answers by word.
    pub answers: BTreeMap<String, u64>,
}

impl Oracle {
    /// Adds up.
    #[must_use]
    pub fn of(sold: &[Sold]) -> Self {
        let mut oracle = Self::default();
        for token in sold {
            for answer in &token.answers {
                *oracle.answers.entry(answer.clone()).or_default() += 1;
            }
            let count = |word: &str| token.answers.iter().filter(|answer| *answer == word).count();
            let (charged, again) = (count("charged"), count("duplicate"));
            let is_posted = charged + again > 0;
            oracle.double += u64::from(charged > 1);
            oracle.contradictory += u64::from(is_posted && charged + again < token.answers.len());
            if is_posted {
                oracle.posted += 1;
                *oracle.charged.entry(token.campaign).or_default() += token.price_nanos;
                *oracle.charges.entry((token.campaign, token.kind, token.price_nanos)).or_default() += 1;
            }
            let fate = if is_posted { "charged" } else { token.answers.first().map_or("unsent", String::as_str) };
            *oracle.fates.entry(fate.to_owned()).or_default() += 1;
        }
        oracle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sold(price_nanos: i64, answers: &[&str]) -> Sold {
        let answers = answers.iter().map(|word| (*word).to_owned()).collect();
        Sold { campaign: 4, kind: 2, price_nanos, answers }
    }

    #[test]
    fn answers_add_up() {
        let oracle = Oracle::of(&[
            sold(10, &["duplicate", "charged"]),
            // The answer to the first copy was lost with its router.
            sold(20, &["duplicate", "duplicate"]),
            sold(30, &["over_budget"]),
            sold(40, &["charged", "charged"]),
            sold(50, &["charged", "late"]),
        ]);
        assert_eq!((oracle.posted, oracle.double, oracle.contradictory), (4, 1, 1));
        assert_eq!(oracle.charged, BTreeMap::from([(4, 120)]));
        assert_eq!(oracle.fates, BTreeMap::from([("charged".to_owned(), 4), ("over_budget".to_owned(), 1)]));
    }
}
