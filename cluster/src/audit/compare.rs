//! Is a ledger's state what the book says, in everything that it holds?
//!
//! Not only what is open: what was closed is compared by its sums, and what is remembered of tokens bit for bit, because
//! a bit that is lost is an event that will be charged twice.

use std::collections::BTreeMap;

use super::book::{Book, Fate, Line};
use super::restore::line;
use crate::ledger::Ledger;
use crate::ledger::types::LeaseStage;

impl Book {
    /// Whether a ledger is what this book says; everything that is not, in words.
    #[must_use]
    pub fn differences(&self, ledger: &Ledger) -> Vec<String> {
        let mut found = Vec::new();
        let times = [("interval time", self.clock, ledger.clock_ms), ("wall time", self.wall, ledger.wall_ms)];
        let nexts = [
            ("the next lease", self.next_loan, ledger.next_lease),
            ("the next issuer", self.next_issuer, ledger.next_issuer),
        ];
        for (what, own, held) in times.into_iter().chain(nexts) {
            tell(&mut found, what, &held, &own);
        }
        self.compare_accounts(ledger, &mut found);
        self.compare_sums(ledger, &mut found);
        self.compare_campaigns(ledger, &mut found);
        self.compare_leases(ledger, &mut found);
        let issuers = ledger.issuers.iter().map(|(id, i)| (*id, (i.member.0, i.incarnation, i.granted_ms)));
        tell(&mut found, "issuers", &issuers.collect::<BTreeMap<_, _>>(), &self.issuers);
        let keys: Vec<_> = ledger.keys.iter().map(|key| (key.id, key.secret, key.since_ms)).collect();
        if keys != self.keys {
            // Not shown: they are secrets.
            found.push(format!("{} keys are held, {} others are right", keys.len(), self.keys.len()));
        }
        self.compare_tokens(ledger, &mut found);
        found
    }

    fn compare_accounts(&self, ledger: &Ledger, found: &mut Vec<String>) {
        for ((campaign, period), account) in &ledger.accounts {
            let line = line(campaign.0, *period);
            let row = self.rows.get(&line).copied().unwrap_or_default();
            let held = [account.deposited, account.pending, account.posted, account.refunded, account.available];
            let own = [row.budget, row.pending, row.posted, row.refunded, row.available()];
            if held.map(|n| i128::from(n.0)) != own {
                found.push(format!("{line:?}: {account:?} is held, {row:?} is right"));
            }
        }
        // What is closed holds nothing that could move.
        let open: std::collections::BTreeSet<Line> =
            ledger.accounts.keys().map(|(campaign, period)| line(campaign.0, *period)).collect();
        for (line, row) in self.rows.iter().filter(|(line, row)| row.pending != 0 && !open.contains(*line)) {
            found.push(format!("{line:?}: {row:?} is not held at all"));
        }
    }

    /// What was ever posted and refunded of a campaign over a span, closed periods included.
    fn compare_sums(&self, ledger: &Ledger, found: &mut Vec<String>) {
        let mut own = self.closed_before.clone();
        for ((campaign, span, _), row) in &self.rows {
            let sum = own.entry((*campaign, *span)).or_default();
            *sum = (sum.0 + row.posted, sum.1 + row.refunded);
        }
        let mut held: BTreeMap<(u64, u8), (i128, i128)> = BTreeMap::new();
        let closed = ledger.campaigns.iter().flat_map(|(id, campaign)| {
            (0u8..).zip(&campaign.closed).map(move |(span, account)| ((id.0, span), account))
        });
        let open = ledger.accounts.iter().map(|((campaign, period), account)| {
            let (campaign, span, _) = line(campaign.0, *period);
            ((campaign, span), account)
        });
        for (key, account) in closed.chain(open) {
            let sum = held.entry(key).or_default();
            *sum = (sum.0 + i128::from(account.posted.0), sum.1 + i128::from(account.refunded.0));
        }
        own.retain(|_, sum| *sum != (0, 0));
        held.retain(|_, sum| *sum != (0, 0));
        for key in own.keys().chain(held.keys().filter(|key| !own.contains_key(*key))) {
            let (own, held) = (own.get(key), held.get(key));
            if own != held {
                found
                    .push(format!("campaign and span {key:?}: {held:?} posted and refunded is held, {own:?} is right"));
            }
        }
    }

    fn compare_campaigns(&self, ledger: &Ledger, found: &mut Vec<String>) {
        tell(found, "campaigns", &ledger.campaigns.len(), &self.customers.len());
        for (id, campaign) in &ledger.campaigns {
            let Some(own) = self.customers.get(&id.0) else {
                found.push(format!("campaign {} is held and was never set", id.0));
                continue;
            };
            let budgets = campaign.budgets.map(|budget| budget.map(|b| i128::from(b.0)));
            let held = (campaign.advertiser.0, budgets, campaign.zone.offsets());
            if held != (own.advertiser, own.budgets, own.zone.as_slice()) {
                found.push(format!("campaign {}: {held:?} is held, {own:?} is right", id.0));
            }
        }
    }

    fn compare_leases(&self, ledger: &Ledger, found: &mut Vec<String>) {
        tell(found, "leases", &ledger.leases.len(), &self.loans.len());
        for (id, lease) in &ledger.leases {
            let held = (
                (lease.issuer, lease.campaign.0, lease.wish, lease.stage == LeaseStage::Reported),
                (i128::from(lease.amount.0), i128::from(lease.posted.0)),
                (lease.granted_clock_ms, lease.granted_wall_ms),
                lease.periods.iter().map(|period| line(lease.campaign.0, *period)).collect::<Vec<_>>(),
            );
            let own = self.loans.get(id).map(|loan| {
                let who = (loan.issuer, loan.campaign, loan.wish, loan.reported);
                (who, (loan.amount, loan.posted), (loan.clock, loan.wall), loan.lines.clone())
            });
            if own.as_ref() != Some(&held) {
                found.push(format!("lease {id}: {held:?} is held, {own:?} is right"));
            }
        }
    }

    /// Every token that the ledger still remembers, and no other.
    fn compare_tokens(&self, ledger: &Ledger, found: &mut Vec<String>) {
        let mut remembered = 0;
        for ((hour, issuer, kind), seen) in &ledger.seen {
            let (mut wrong, mut tokens) = (0, 0);
            for number in seen.charged.numbers() {
                tokens += 1;
                let fate = self.fates.get(&(*issuer, number, *kind, *hour));
                let refunded = seen.refunded.contains(number);
                wrong += usize::from(!matches!(fate, Some(Fate::Charged { refunded: own, .. }) if *own == refunded));
            }
            for number in seen.free.numbers() {
                tokens += 1;
                wrong += usize::from(self.fates.get(&(*issuer, number, *kind, *hour)) != Some(&Fate::Free));
            }
            remembered += tokens;
            if wrong > 0 {
                found.push(format!("{wrong} tokens of issuer {issuer} of hour {hour} are held as what they are not"));
            }
        }
        let own = self.fates.keys().filter(|(_, _, kind, hour)| !self.is_forgotten(*kind, *hour)).count();
        tell(found, "remembered tokens", &remembered, &own);
    }
}

fn tell<T: PartialEq + std::fmt::Debug>(found: &mut Vec<String>, what: &str, held: &T, own: &T) {
    if held != own {
        found.push(format!("{what}: {held:?} is held, {own:?} is right"));
    }
}
