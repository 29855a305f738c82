//! How much may have been served and never charged?
//!
//! An ad that pays for its impression is served from a lease alone. So of a lease whose time is over no more was served
//! free than what it still held then, and of one that runs no more than what it holds: the over-delivery of a campaign is
//! at most the sum, whoever died. It is computed from the leases of the journal, and knows nothing of what was served.

use std::collections::BTreeMap;

use super::book::{Book, Loan};

/// What leases of a campaign held and nobody was charged, nanos.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseRest {
    /// Leases that ended without a report: their routers had died, or did not reach the ledger.
    pub unreported: u64,
    /// What those held in the end.
    pub unreported_nanos: i128,
    /// Of leases that were reported: what was issued, and not charged before their time was over.
    pub uncharged_nanos: i128,
    /// What leases hold that have not ended.
    pub open_nanos: i128,
}

impl LeaseRest {
    /// A lease's time is over.
    pub(super) fn end(&mut self, loan: &Loan) {
        let rest = loan.amount - loan.posted;
        if loan.reported {
            self.uncharged_nanos += rest;
        } else {
            self.unreported += 1;
            self.unreported_nanos += rest;
        }
    }

    /// Both together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self {
            unreported: self.unreported + other.unreported,
            unreported_nanos: self.unreported_nanos + other.unreported_nanos,
            uncharged_nanos: self.uncharged_nanos + other.uncharged_nanos,
            open_nanos: self.open_nanos + other.open_nanos,
        }
    }

    /// The most that was served and cannot be charged, nanos.
    #[must_use]
    pub const fn bound(&self) -> i128 {
        self.unreported_nanos + self.uncharged_nanos + self.open_nanos
    }
}

impl Book {
    /// By campaign: what leases held and nobody was charged, as far as the journal goes back.
    #[must_use]
    pub fn lease_rests(&self) -> BTreeMap<u64, LeaseRest> {
        let mut rests = self.rests.clone();
        for loan in self.loans.values() {
            rests.entry(loan.campaign).or_default().open_nanos += loan.amount - loan.posted;
        }
        rests
    }
}
