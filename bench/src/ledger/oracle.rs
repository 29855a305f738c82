//! What must the ledger hold, given what was answered?
//!
//! A token is charged when one of its copies was answered `charged` or `duplicate`: nothing else is known or needed. Each
//! token is answered for all of its copies before anything is compared, so that no outcome is open.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The kind of an impression.
pub const IMPRESSION: u8 = 1;

/// What became of an impression that was served and never reported.
pub const WITHHELD: &str = "withheld";

/// Issuer, sequence and kind of a charge.
pub type Id = (u64, u64, u8);
/// Who pays, and how much, nanos.
pub type Paid = (u64, i64);

/// A token, with what its charge must cost.
#[derive(Clone, Debug)]
pub struct Sold {
    /// The token as it came.
    pub text: Arc<str>,
    /// Who pays.
    pub campaign: u64,
    /// 1 impression, 2 click, 3 conversion.
    pub kind: u8,
    /// What its charge costs.
    pub price_nanos: i64,
    /// Copies of its event that are sent; 0 of an impression that is never reported.
    pub copies: u64,
    /// Answers to its copies, in their order.
    pub answers: Vec<String>,
}

impl Sold {
    fn count(&self, word: &str) -> usize {
        self.answers.iter().filter(|answer| *answer == word).count()
    }

    /// It is charged.
    #[must_use]
    pub fn is_posted(&self) -> bool {
        self.count("charged") + self.count("duplicate") > 0
    }
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
    /// By campaign: nanos of impressions that were served and not charged.
    pub over_delivered: BTreeMap<u64, u64>,
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
            let (charged, again) = (token.count("charged"), token.count("duplicate"));
            let is_posted = token.is_posted();
            oracle.double += u64::from(charged > 1);
            oracle.contradictory += u64::from(is_posted && charged + again < token.answers.len());
            if is_posted {
                oracle.posted += 1;
                *oracle.charged.entry(token.campaign).or_default() += token.price_nanos;
            } else if token.kind == IMPRESSION {
                *oracle.over_delivered.entry(token.campaign).or_default() += token.price_nanos.unsigned_abs();
            }
            let fate = if is_posted {
                "charged"
            } else if token.copies == 0 {
                WITHHELD
            } else {
                token.answers.first().map_or("unsent", String::as_str)
            };
            *oracle.fates.entry(fate.to_owned()).or_default() += 1;
        }
        oracle
    }
}

/// What was acknowledged, by the ids that the tokens have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// Every charge.
    pub charges: BTreeMap<Id, Paid>,
    /// Charges whose token is not what it was sold as: it cannot be opened, has the id of another one, or says another
    /// price or campaign.
    pub other: u64,
}

impl Acknowledged {
    /// Puts together what tokens were sold as and answered, and what they say.
    #[must_use]
    pub fn of(sold: &[Sold], opened: &[Option<(Id, Paid)>]) -> Self {
        let mut acknowledged = Self::default();
        let all = sold.iter().zip(opened.iter().copied().chain(std::iter::repeat(None)));
        for (token, opened) in all.filter(|(token, _)| token.is_posted()) {
            let sold_as = (token.kind, (token.campaign, token.price_nanos));
            let is_new = match opened.filter(|((.., kind), paid)| (*kind, *paid) == sold_as) {
                Some((id, paid)) => acknowledged.charges.insert(id, paid).is_none(),
                None => false,
            };
            acknowledged.other += u64::from(!is_new);
        }
        acknowledged
    }
}

/// How many charges are missing from one or more books, by id, payer and price; all of them when there is no book.
#[must_use]
pub fn missing(charges: &BTreeMap<Id, Paid>, books: &[BTreeMap<Id, Paid>]) -> u64 {
    let is_missing = |(id, paid): &(&Id, &Paid)| books.is_empty() || books.iter().any(|b| b.get(*id) != Some(*paid));
    charges.iter().filter(is_missing).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::slice::from_ref;

    fn sold(price_nanos: i64, answers: &[&str]) -> Sold {
        let answers = answers.iter().map(|word| (*word).to_owned()).collect();
        Sold { text: "sealed".into(), campaign: 4, kind: 2, price_nanos, copies: 2, answers }
    }

    /// A charge that was lost and another one of the same price that nobody was told of were no difference.
    #[test]
    fn a_loss_and_a_phantom_of_one_price_are_two_differences() {
        let tokens =
            [sold(10, &["charged"]), sold(10, &["duplicate"]), sold(10, &["over_budget"]), sold(5, &["charged"])];
        let id = |sequence| (1, sequence, 2);
        let opened = [Some((id(1), (4, 10))), Some((id(2), (4, 10))), Some((id(3), (4, 10))), None];
        let acknowledged = Acknowledged::of(&tokens, &opened);
        assert_eq!(acknowledged.charges.keys().copied().collect::<Vec<_>>(), [id(1), id(2)]);
        assert_eq!(acknowledged.other, 1, "one cannot be opened");
        let journal = BTreeMap::from([(id(1), (4, 10)), (id(9), (4, 10))]);
        let own = acknowledged.charges;
        let lost = missing(&own, from_ref(&journal));
        let phantoms = missing(&journal, from_ref(&own));
        assert_eq!((lost, phantoms), (1, 1));
        assert_eq!(missing(&own, &[own.clone(), own.clone()]), 0);
        assert_eq!(missing(&own, &[own.clone(), journal]), 1, "one voter of two lost it");
        assert_eq!(missing(&own, &[]), 2, "nobody has a book");
        let dearer = BTreeMap::from([(id(1), (4, 11)), (id(2), (4, 10))]);
        assert_eq!(missing(&own, from_ref(&dearer)), 1);
        // One says another price than was answered, and one has the id of another token.
        let odd = [Some((id(1), (4, 11))), Some((id(2), (4, 10))), None, Some((id(2), (4, 5)))];
        assert_eq!(Acknowledged::of(&tokens, &odd).other, 2);
    }

    #[test]
    fn an_impression_that_is_not_charged_was_over_delivered() {
        let impression = |answers| Sold { kind: IMPRESSION, ..sold(300, answers) };
        let oracle = Oracle::of(&[
            impression(&["charged", "duplicate"]),
            impression(&["lease_closed"]),
            impression(&["expired", "expired"]),
            sold(1_000, &["over_budget"]),
            Sold { copies: 0, ..impression(&[]) },
            impression(&[]),
        ]);
        assert_eq!(oracle.over_delivered, BTreeMap::from([(4, 1_200)]));
        // What is never reported is meant so; what was to be sent and has no answer is a fault of the run.
        assert_eq!((oracle.fates.get(WITHHELD), oracle.fates.get("unsent")), (Some(&1), Some(&1)));
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
