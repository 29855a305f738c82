//! How does an auditor begin from a sealed checkpoint?
//!
//! A voter that lagged so far that it took a snapshot has no entries before it; its journal has the snapshot in their
//! place. What was charged before is then known by its bit alone.

use super::book::{Book, Customer, Fate, Loan, Row};
use crate::ledger::Ledger;
use crate::ledger::calendar::{Period, Span};
use crate::ledger::types::LeaseStage;

impl Book {
    /// A book that goes on from a ledger's state.
    #[must_use]
    pub fn from_checkpoint(ledger: &Ledger) -> Self {
        let mut book = Self {
            clock: ledger.clock_ms,
            wall: ledger.wall_ms,
            next_loan: ledger.next_lease,
            next_issuer: ledger.next_issuer,
            ..Self::new()
        };
        for (id, campaign) in &ledger.campaigns {
            let budgets = campaign.budgets.map(|budget| budget.map(|b| i128::from(b.0)));
            let zone = campaign.zone.offsets().to_vec();
            book.customers.insert(id.0, Customer { advertiser: campaign.advertiser.0, budgets, zone });
            for (span, closed) in (0u8..).zip(&campaign.closed) {
                let sums = (i128::from(closed.posted.0), i128::from(closed.refunded.0));
                book.closed_before.insert((id.0, span), sums);
            }
        }
        for ((campaign, period), account) in &ledger.accounts {
            let row = Row {
                budget: i128::from(account.deposited.0),
                pending: i128::from(account.pending.0),
                posted: i128::from(account.posted.0),
                refunded: i128::from(account.refunded.0),
            };
            book.rows.insert(line(campaign.0, *period), row);
        }
        for (id, lease) in &ledger.leases {
            let loan = Loan {
                issuer: lease.issuer,
                campaign: lease.campaign.0,
                lines: lease.periods.iter().map(|period| line(lease.campaign.0, *period)).collect(),
                amount: i128::from(lease.amount.0),
                posted: i128::from(lease.posted.0),
                clock: lease.granted_clock_ms,
                wall: lease.granted_wall_ms,
                wish: lease.wish,
                reported: lease.stage == LeaseStage::Reported,
            };
            if !loan.reported {
                book.unreported.entry((loan.issuer, loan.campaign)).or_default().insert(*id);
            }
            book.loans.insert(*id, loan);
        }
        for (id, issuer) in &ledger.issuers {
            book.issuers.insert(*id, (issuer.member.0, issuer.incarnation, issuer.granted_ms));
        }
        book.keys = ledger.keys.iter().map(|key| (key.id, key.secret, key.since_ms)).collect();
        for ((hour, issuer, kind), seen) in &ledger.seen {
            for number in seen.free.numbers() {
                book.fates.insert((*issuer, number, *kind, *hour), Fate::Free);
            }
            for number in seen.charged.numbers() {
                let refunded = seen.refunded.contains(number);
                book.fates.insert((*issuer, number, *kind, *hour), Fate::Charged { payload: None, refunded });
            }
        }
        book
    }
}

/// A row's place.
pub(super) fn line(campaign: u64, period: Period) -> (u64, u8, i64) {
    let span = match period.span {
        Span::Day => 0,
        Span::Week => 1,
        Span::Lifetime => 2,
    };
    (campaign, span, period.number)
}
