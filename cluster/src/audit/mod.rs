//! Is every balance what the journal says?
//!
//! The auditor reads the entries of the journal in their order and computes every balance again, by rules that are
//! written down a second time and as plainly as possible: it keeps every charge that it ever saw in one map, adds in
//! 128 bits, and derives what is available instead of keeping it. It shares with the ledger the types of an entry, and no
//! rule. What it answers to each event must be what the voters answered, and its balances must be theirs.
//!
//! It needs memory for all charges of the journal: it runs where an operator asks for it, not in a voter.

mod book;
mod charged;
mod compare;
mod loans;
mod rest;
mod restore;

pub use book::{Book, Line, Row};
pub use charged::Outcome;
pub use rest::LeaseRest;

use crate::ledger::command::Batch;
use crate::ledger::types::Verdict;

/// What the auditor found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Entries read.
    pub entries: u64,
    /// Events in them.
    pub events: u64,
    /// Charges posted.
    pub charges: u64,
    /// Events of charges that were posted already.
    pub repeated: u64,
    /// Events delivered free.
    pub free: u64,
    /// Refunds.
    pub refunds: u64,
    /// Charges that the voters posted a second time.
    pub double: u64,
    /// The most by which an account was ever charged beyond its budget, nanos.
    pub overspend: i128,
    /// What does not hold, in words; the first hundred.
    pub faults: Vec<String>,
}

/// Entries between two looks at everything; in between only what an entry moved is looked at, so that a journal is read in
/// a time that grows with its length alone.
const LOOK_ENTRIES: u64 = 10_000;
/// Faults that are told one by one.
const FAULTS_MAX: usize = 100;

impl Findings {
    /// Notes a fault. Its words are made for one that is told: a journal of another ledger has one in every entry.
    pub fn fault(&mut self, what: impl FnOnce() -> String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(what());
        }
    }

    /// Nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.faults.is_empty() && self.double == 0 && self.overspend == 0
    }
}

/// Reads one entry into a book, and compares its answers with those of the voters.
pub fn read(book: &mut Book, findings: &mut Findings, index: u64, batch: &Batch, answered: &[Verdict]) {
    findings.entries += 1;
    findings.events += batch.events.len() as u64;
    book.pass(batch.elapsed_ms, batch.wall_ms);
    if batch.events.len() != answered.len() {
        findings.fault(|| format!("entry {index}: {} answers to {} events", answered.len(), batch.events.len()));
    }
    for (at, (event, answered)) in batch.events.iter().zip(answered).enumerate() {
        let own = book.enter(event, answered, findings);
        if own != *answered {
            findings.fault(|| format!("entry {index}, event {at}: {answered:?} was answered, {own:?} is right"));
        }
    }
    book.look(index, findings);
    if findings.entries.is_multiple_of(LOOK_ENTRIES) {
        book.look_at_all(index, findings);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_made_for_faults_that_are_told() {
        let (mut findings, mut made) = (Findings::default(), 0);
        for _ in 0..2 * FAULTS_MAX {
            findings.fault(|| {
                made += 1;
                "wrong".to_owned()
            });
        }
        assert_eq!((findings.faults.len(), made), (FAULTS_MAX, FAULTS_MAX));
        assert!(!findings.is_clean());
    }
}
