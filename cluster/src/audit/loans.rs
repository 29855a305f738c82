//! What is lent to whom, and what of it is charged?

use std::collections::BTreeSet;

use gavel_proto::limits::{LEDGER_AMOUNT_NANOS_MAX, LEDGER_LEASES_MAX};
use gavel_proto::money::Nanos;

use super::book::{Book, Loan, Row};
use crate::ledger::command::{Heir, LeaseWish};
use crate::ledger::types::{Charge, Refusal, Verdict};

impl Book {
    pub(super) fn lend(&mut self, wish: &LeaseWish) -> Result<Verdict, Refusal> {
        self.check_issuer(wish.issuer, self.wall)?;
        let (rate, price) = (i128::from(wish.rate.0), i128::from(wish.price_max.0));
        let most = i128::from(LEDGER_AMOUNT_NANOS_MAX);
        if price < 1 || price > most || rate < 0 || rate > most || wish.routers == 0 {
            return Err(Refusal::Invalid);
        }
        let campaign = wish.campaign.0;
        let customer = self.customers.get(&campaign).ok_or(Refusal::UnknownCampaign)?;
        let open = self.unreported.get(&(wish.issuer, campaign));
        let asked_before = open.into_iter().flatten().filter_map(|id| Some((*id, self.loans.get(id)?)));
        if let Some((id, loan)) = asked_before.into_iter().find(|(_, loan)| wish.wish != 0 && loan.wish == wish.wish) {
            let amount = Nanos(i64::try_from(loan.amount).unwrap_or(i64::MAX));
            return Ok(Verdict::Lease { id, amount, wall_ms: loan.wall });
        }
        if open.map_or(0, BTreeSet::len) >= 2 {
            return Err(Refusal::TooManyLeases);
        }
        if self.loans.len() >= LEDGER_LEASES_MAX {
            return Err(Refusal::Full);
        }
        let lines = self.lines(customer, campaign, self.wall);
        let left = lines.iter().map(|(line, budget)| self.row(*line, *budget).available()).min().unwrap_or(0);
        let fair = (5 * rate).max(price).min(left / (4 * i128::from(wish.routers)));
        let amount = if fair >= price {
            fair
        } else if wish.heir == Heir::Own && left >= price {
            left
        } else {
            return Err(Refusal::OverBudget);
        };
        for (line, budget) in &lines {
            let fresh = Row { budget: *budget, ..Row::default() };
            self.change(*line, fresh).pending += amount;
        }
        let id = self.next_loan;
        self.next_loan += 1;
        let lines = lines.into_iter().map(|(line, _)| line).collect();
        let (issuer, clock, wall, wish) = (wish.issuer, self.clock, self.wall, wish.wish);
        self.loans.insert(id, Loan { issuer, campaign, lines, amount, posted: 0, clock, wall, wish, reported: false });
        self.unreported.entry((issuer, campaign)).or_default().insert(id);
        let amount = Nanos(i64::try_from(amount).unwrap_or(i64::MAX));
        Ok(Verdict::Lease { id, amount, wall_ms: wall })
    }

    pub(super) fn settle(&mut self, issuer: u64, id: u64, issued: i128) -> Result<Verdict, Refusal> {
        let gone = if id < self.next_loan { Refusal::LeaseClosed } else { Refusal::LeaseUnknown };
        let loan = self.loans.get_mut(&id).ok_or(gone)?;
        if loan.issuer != issuer {
            return Err(Refusal::LeaseForeign);
        }
        if loan.reported {
            return Ok(Verdict::Duplicate);
        }
        if issued > loan.amount || issued < loan.posted {
            return Err(Refusal::ExceedsLease);
        }
        let (back, lines, campaign) = (loan.amount - issued, loan.lines.clone(), loan.campaign);
        (loan.amount, loan.reported) = (issued, true);
        self.mark_reported(issuer, campaign, id);
        for line in lines {
            self.change(line, Row::default()).pending -= back;
        }
        Ok(Verdict::Done)
    }

    pub(super) fn pay_from_loan(&mut self, id: u64, charge: &Charge, price: i128) -> Result<(), Refusal> {
        let gone = if id < self.next_loan { Refusal::LeaseClosed } else { Refusal::LeaseUnknown };
        let loan = self.loans.get_mut(&id).ok_or(gone)?;
        let is_own = (loan.issuer, loan.campaign, loan.wall) == (charge.id.issuer, charge.campaign.0, charge.period_ms);
        if !is_own {
            return Err(Refusal::LeaseForeign);
        }
        if loan.posted + price > loan.amount {
            return Err(Refusal::ExceedsLease);
        }
        loan.posted += price;
        for line in loan.lines.clone() {
            let row = self.change(line, Row::default());
            row.pending -= price;
            row.posted += price;
        }
        Ok(())
    }

    pub(super) fn mark_reported(&mut self, issuer: u64, campaign: u64, loan: u64) {
        if let Some(open) = self.unreported.get_mut(&(issuer, campaign)) {
            open.remove(&loan);
            if open.is_empty() {
                self.unreported.remove(&(issuer, campaign));
            }
        }
    }
}
