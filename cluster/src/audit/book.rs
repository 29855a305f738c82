//! What does each campaign owe, computed as plainly as possible?

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Findings;
use super::rest::LeaseRest;
use crate::ledger::command::Event;
use crate::ledger::types::{Charge, EventKind, Origin, Refusal, Source, Verdict};
use gavel_proto::limits::{LEDGER_AMOUNT_NANOS_MAX, LEDGER_CAMPAIGNS_MAX, LEDGER_ISSUERS_MAX, LEDGER_KEYS_MAX};

const HOUR: u64 = 3_600_000;
const DAY: i64 = 86_400_000;
/// The longest window, a week, and a day for repetitions.
const REMEMBERED: u64 = 8 * 24 * HOUR;

/// How long an event may come after its ad, in milliseconds: a minute, a day, a week.
const fn window(kind: EventKind) -> u64 {
    match kind {
        EventKind::Impression => 60_000,
        EventKind::Click => 24 * HOUR,
        EventKind::Conversion => 7 * 24 * HOUR,
    }
}

/// One budget over one period: (campaign, 0 day, 1 week or 2 life, number).
pub type Line = (u64, u8, i64);

/// What was put into a budget, and what became of it. What is available is the difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Put in.
    pub budget: i128,
    /// In leases.
    pub pending: i128,
    /// Charged and kept.
    pub posted: i128,
    /// Charged and given back.
    pub refunded: i128,
}

impl Row {
    /// What is left.
    #[must_use]
    pub const fn available(&self) -> i128 {
        self.budget - self.pending - self.posted - self.refunded
    }
}

#[derive(Clone, Debug)]
pub(super) struct Customer {
    pub advertiser: u64,
    pub budgets: [Option<i128>; 3],
    pub zone: Vec<(i64, i32)>,
}

#[derive(Clone, Debug)]
pub(super) struct Loan {
    pub issuer: u64,
    pub campaign: u64,
    pub lines: Vec<Line>,
    pub amount: i128,
    pub posted: i128,
    pub clock: u64,
    pub wall: u64,
    pub wish: u64,
    pub reported: bool,
}

/// What became of a token: as long as the voters may remember it, and longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Charged { payload: Option<Charge>, refunded: bool },
    Free,
}

/// Everything that the journal says.
#[derive(Clone, Debug, Default)]
pub struct Book {
    pub(super) clock: u64,
    pub(super) wall: u64,
    pub(super) customers: BTreeMap<u64, Customer>,
    /// Every budget that is not settled, or was ever used.
    pub rows: BTreeMap<Line, Row>,
    pub(super) loans: BTreeMap<u64, Loan>,
    pub(super) issuers: BTreeMap<u64, (u64, u64, u64)>,
    pub(super) keys: Vec<(u32, [u8; 32], u64)>,
    /// Keys that the voters have dropped: tokens of long ago are opened with them.
    pub(super) dropped_keys: Vec<(u32, [u8; 32], u64)>,
    pub(super) fates: HashMap<(u64, u64, EventKind, u64), Fate>,
    pub(super) next_loan: u64,
    pub(super) next_issuer: u64,
    /// Loans of an issuer for a campaign that are not reported: all loans are not looked through for each new one.
    pub(super) unreported: HashMap<(u64, u64), BTreeSet<u64>>,
    /// Of (campaign, span), posted and refunded, what the ledger had closed where this book begins.
    pub(super) closed_before: BTreeMap<(u64, u8), (i128, i128)>,
    /// What the last entry moved.
    pub(super) moved: BTreeSet<Line>,
    /// By campaign: what leases held when their time was over.
    pub(super) rests: BTreeMap<u64, LeaseRest>,
}

impl Book {
    /// A book from the ledger's beginning.
    #[must_use]
    pub fn new() -> Self {
        Self { next_loan: 1, next_issuer: 1, ..Self::default() }
    }

    /// Time passes: leases end, and what was issued long ago can be referred to no more.
    pub fn pass(&mut self, elapsed: u64, wall: u64) {
        let hour_before = self.wall / HOUR;
        self.clock = self.clock.saturating_add(elapsed);
        self.wall = self.wall.max(wall);
        // Ids and grants ascend together, so the first that runs is followed by none that has ended.
        while let Some(entry) = self.loans.first_entry().filter(|first| self.clock >= first.get().clock + 77_000) {
            let (id, loan) = entry.remove_entry();
            self.mark_reported(loan.issuer, loan.campaign, id);
            self.rests.entry(loan.campaign).or_default().end(&loan);
            for line in &loan.lines {
                self.change(*line, Row::default()).pending -= loan.amount - loan.posted;
            }
        }
        if self.wall / HOUR != hour_before {
            let oldest = self.wall.saturating_sub(REMEMBERED + 2 * HOUR);
            self.issuers.retain(|_, (_, _, granted)| *granted + 25 * HOUR >= oldest);
            while self.keys.get(1).is_some_and(|(_, _, since)| *since < oldest) {
                let dropped = self.keys.remove(0);
                self.dropped_keys.push(dropped);
            }
        }
    }

    /// Enters an event; what the voters should have answered.
    pub fn enter(&mut self, event: &Event, answered: &Verdict, findings: &mut Findings) -> Verdict {
        let own = match event {
            Event::GrantIssuer { member, incarnation } => self.grant(member.0, *incarnation),
            Event::AddKey(key) => self.add_key(key.id, key.secret),
            Event::SetCampaign { campaign, advertiser, budgets, zone } => {
                let budgets = budgets.map(|budget| budget.map(|b| i128::from(b.0)));
                self.set(campaign.0, advertiser.0, budgets, zone.offsets())
            }
            Event::OpenLease(wish) => self.lend(wish),
            Event::CloseLease { issuer, lease, issued } => self.settle(*issuer, *lease, i128::from(issued.0)),
            Event::Charge(charge) => self.charge(charge, answered, findings),
            Event::Refund { charge, amount } => self.refund(charge, i128::from(amount.0), findings),
        };
        own.unwrap_or_else(Verdict::Refused)
    }

    /// The row of a line, made from `fresh` if it is the first time; it is looked at after the entry.
    pub(super) fn change(&mut self, line: Line, fresh: Row) -> &mut Row {
        self.moved.insert(line);
        self.rows.entry(line).or_insert(fresh)
    }

    /// Every budget that the last entry moved holds.
    pub fn look(&mut self, index: u64, findings: &mut Findings) {
        for line in std::mem::take(&mut self.moved) {
            let row = self.rows.get(&line).copied().unwrap_or_default();
            check(index, &line, &row, findings);
        }
    }

    /// Every budget holds, what is pending is lent, and no lease is charged beyond what it holds.
    pub fn look_at_all(&self, index: u64, findings: &mut Findings) {
        let mut lent: HashMap<Line, i128> = HashMap::new();
        for (id, loan) in &self.loans {
            if loan.posted > loan.amount {
                findings.fault(|| format!("entry {index}: M7: lease {id} is charged beyond its amount"));
            }
            for line in &loan.lines {
                *lent.entry(*line).or_default() += loan.amount - loan.posted;
            }
        }
        for (line, row) in &self.rows {
            check(index, line, row, findings);
            if lent.get(line).copied().unwrap_or(0) != row.pending {
                findings.fault(|| format!("entry {index}: M6: {line:?} holds what is not lent: {row:?}"));
            }
        }
    }

    pub(super) fn lines(&self, customer: &Customer, campaign: u64, at: u64) -> Vec<(Line, i128)> {
        let ms = i64::try_from(at).unwrap_or(i64::MAX / 2);
        let offset = customer.zone.iter().rev().find(|(start, _)| start.saturating_mul(1_000) <= ms);
        let offset = offset.or(customer.zone.first()).map_or(0, |(_, offset)| i64::from(*offset));
        let day = (ms + offset * 1_000).div_euclid(DAY);
        let numbers = [day, (day + 3).div_euclid(7), 0];
        let spans = (0u8..).zip(customer.budgets).zip(numbers);
        spans.filter_map(|((span, budget), number)| Some(((campaign, span, number), budget?))).collect()
    }

    pub(super) fn row(&self, line: Line, budget: i128) -> Row {
        self.rows.get(&line).copied().unwrap_or(Row { budget, ..Row::default() })
    }

    fn grant(&mut self, member: u64, incarnation: u64) -> Result<Verdict, Refusal> {
        let same =
            |(m, i, granted): &(u64, u64, u64)| *m == member && *i == incarnation && self.wall < granted + 12 * HOUR;
        if let Some((id, _)) = self.issuers.iter().rev().find(|(_, issuer)| same(issuer)) {
            return Ok(Verdict::Issuer(*id));
        }
        if self.issuers.len() >= LEDGER_ISSUERS_MAX {
            return Err(Refusal::Full);
        }
        self.issuers.insert(self.next_issuer, (member, incarnation, self.wall));
        self.next_issuer += 1;
        Ok(Verdict::Issuer(self.next_issuer - 1))
    }

    fn add_key(&mut self, id: u32, secret: [u8; 32]) -> Result<Verdict, Refusal> {
        if self.keys.iter().any(|(held, bytes, _)| *held == id && *bytes == secret) {
            return Ok(Verdict::Duplicate);
        }
        if self.keys.iter().any(|(held, ..)| id <= *held) {
            return Err(Refusal::Invalid);
        }
        if self.keys.len() >= LEDGER_KEYS_MAX {
            return Err(Refusal::Full);
        }
        self.keys.push((id, secret, self.wall));
        Ok(Verdict::Done)
    }

    fn set(
        &mut self,
        campaign: u64,
        advertiser: u64,
        budgets: [Option<i128>; 3],
        zone: &[(i64, i32)],
    ) -> Result<Verdict, Refusal> {
        let wrong = |budget: &i128| *budget < 0 || *budget > i128::from(LEDGER_AMOUNT_NANOS_MAX);
        if budgets == [None; 3] || budgets.iter().flatten().any(wrong) {
            return Err(Refusal::Invalid);
        }
        match self.customers.get(&campaign) {
            Some(held) if held.advertiser != advertiser => return Err(Refusal::Invalid),
            None if self.customers.len() >= LEDGER_CAMPAIGNS_MAX => return Err(Refusal::Full),
            Some(_) | None => {}
        }
        let customer = Customer { advertiser, budgets, zone: zone.to_vec() };
        let lines = self.lines(&customer, campaign, self.wall);
        let is_below = |(line, budget): &(Line, i128)| {
            self.rows.get(line).is_some_and(|row| row.pending + row.posted + row.refunded > *budget)
        };
        if lines.iter().any(is_below) {
            return Err(Refusal::BelowCommitted);
        }
        for (line, budget) in lines {
            if let Some(row) = self.rows.get_mut(&line) {
                row.budget = budget;
                self.moved.insert(line);
            }
        }
        self.customers.insert(campaign, customer);
        Ok(Verdict::Done)
    }

    pub(super) fn check_issuer(&self, id: u64, issued: u64) -> Result<(), Refusal> {
        let (_, _, granted) = self.issuers.get(&id).ok_or(Refusal::UnknownIssuer)?;
        let is_its_time = issued + HOUR >= *granted && issued <= granted + 25 * HOUR;
        if is_its_time { Ok(()) } else { Err(Refusal::UnknownIssuer) }
    }

    /// Whether the voters have dropped what they knew of such tokens. They look when an hour begins.
    pub(super) const fn is_forgotten(&self, kind: EventKind, hour: u64) -> bool {
        let end_of_hour = hour.saturating_add(1).saturating_mul(HOUR);
        end_of_hour.saturating_add(window(kind) + 24 * HOUR) <= self.wall / HOUR * HOUR
    }

    /// Late, early or of nobody?
    fn check_time(&self, charge: &Charge) -> Result<(), Refusal> {
        let end_of_hour = (charge.issued_ms / HOUR).saturating_add(1).saturating_mul(HOUR);
        if end_of_hour.saturating_add(window(charge.id.kind) + 24 * HOUR) <= self.wall {
            return Err(Refusal::Late);
        }
        if charge.issued_ms > self.wall + HOUR {
            return Err(Refusal::Early);
        }
        self.check_issuer(charge.id.issuer, charge.issued_ms)
    }

    fn charge(&mut self, charge: &Charge, answered: &Verdict, found: &mut Findings) -> Result<Verdict, Refusal> {
        let id = identity(charge);
        let before = self.fates.get(&id).copied();
        if let (Some(Fate::Charged { payload, .. }), Verdict::Done) = (before, answered) {
            found.double += 1;
            found.fault(|| format!("M3: {:?} is charged again; first as {payload:?}", charge.id));
        }
        self.check_time(charge)?;
        match before {
            Some(Fate::Charged { payload: Some(first), .. }) if !is_same(&first, charge) => {
                found.fault(|| format!("M3: {:?} came as {charge:?} and before as {first:?}", charge.id));
                return Ok(Verdict::Duplicate);
            }
            Some(Fate::Charged { payload, refunded }) => {
                found.repeated += 1;
                if payload.is_some_and(|first| first.origin == Origin::default()) {
                    // An entry of an earlier version did not say where the price was made; this one may.
                    self.fates.insert(id, Fate::Charged { payload: Some(*charge), refunded });
                }
                return Ok(Verdict::Duplicate);
            }
            Some(Fate::Free) => return Err(Refusal::OverBudget),
            None => {}
        }
        if charge.expires_ms > charge.issued_ms.saturating_add(window(charge.id.kind)) {
            return Err(Refusal::Invalid);
        }
        if self.wall > charge.expires_ms {
            return Err(Refusal::Expired);
        }
        if charge.price.0 < 0 || charge.price > charge.bid || charge.bid.0 > LEDGER_AMOUNT_NANOS_MAX {
            return Err(Refusal::Price);
        }
        let price = i128::from(charge.price.0);
        let paid = match charge.source {
            Source::Lease(lease) => self.pay_from_loan(lease, charge, price),
            Source::Budget => self.pay_from_budget(charge, price),
        };
        match paid {
            Ok(()) => {
                found.charges += 1;
                self.fates.insert(id, Fate::Charged { payload: Some(*charge), refunded: false });
                Ok(Verdict::Done)
            }
            Err(Refusal::OverBudget) => {
                found.free += 1;
                self.fates.insert(id, Fate::Free);
                Err(Refusal::OverBudget)
            }
            Err(refusal) => Err(refusal),
        }
    }

    fn pay_from_budget(&mut self, charge: &Charge, price: i128) -> Result<(), Refusal> {
        let customer = self.customers.get(&charge.campaign.0).ok_or(Refusal::UnknownCampaign)?;
        if charge.period_ms.abs_diff(charge.issued_ms) > HOUR {
            return Err(Refusal::Invalid);
        }
        let lines = self.lines(customer, charge.campaign.0, charge.period_ms);
        if lines.iter().any(|(line, budget)| self.row(*line, *budget).available() < price) {
            return Err(Refusal::OverBudget);
        }
        for (line, budget) in lines {
            self.change(line, Row { budget, ..Row::default() }).posted += price;
        }
        Ok(())
    }

    fn refund(&mut self, charge: &Charge, amount: i128, found: &mut Findings) -> Result<Verdict, Refusal> {
        self.check_time(charge)?;
        let id = identity(charge);
        let before = self.fates.get(&id).copied();
        if let Some(Fate::Charged { payload: Some(first), .. }) = before
            && !is_same(&first, charge)
        {
            // The ledger knows the token by its bit and goes by what came: so do the sums here.
            found.fault(|| format!("M3: {:?} is given back as {charge:?} and was charged as {first:?}", charge.id));
        }
        match before {
            Some(Fate::Charged { refunded: true, .. }) => return Ok(Verdict::Duplicate),
            Some(Fate::Charged { .. }) => {}
            Some(Fate::Free) | None => return Err(Refusal::NotCharged),
        }
        if amount < 1 || amount > i128::from(charge.price.0) {
            return Err(Refusal::ExceedsCharge);
        }
        let customer = self.customers.get(&charge.campaign.0).ok_or(Refusal::UnknownCampaign)?;
        let mut moved = false;
        for (line, _) in self.lines(customer, charge.campaign.0, charge.period_ms) {
            if let Some(row) = self.rows.get_mut(&line).filter(|row| row.posted >= amount) {
                row.posted -= amount;
                row.refunded += amount;
                self.moved.insert(line);
                moved = true;
            }
        }
        if !moved {
            return Err(Refusal::NotCharged);
        }
        found.refunds += 1;
        if let Some(Fate::Charged { refunded, .. }) = self.fates.get_mut(&id) {
            *refunded = true;
        }
        Ok(Verdict::Done)
    }
}

/// M1 and M2 of one budget.
fn check(index: u64, line: &Line, row: &Row, findings: &mut Findings) {
    let over = row.posted + row.pending + row.refunded - row.budget;
    if over > 0 {
        findings.overspend = findings.overspend.max(over);
        findings.fault(|| format!("entry {index}: M1: {line:?} is beyond its budget: {row:?}"));
    }
    if row.pending < 0 || row.posted < 0 || row.refunded < 0 {
        findings.fault(|| format!("entry {index}: M2: {line:?} is below nothing: {row:?}"));
    }
}

/// Whether two charges of one id are of one token. Entries of earlier versions do not say where the price was made.
fn is_same(first: &Charge, charge: &Charge) -> bool {
    let is_silent = [first.origin, charge.origin].contains(&Origin::default());
    *first == if is_silent { Charge { origin: first.origin, ..*charge } } else { *charge }
}

/// A token's id, with its hour: the voters remember by hour.
pub(super) const fn identity(charge: &Charge) -> (u64, u64, EventKind, u64) {
    (charge.id.issuer, charge.id.sequence, charge.id.kind, charge.issued_ms / HOUR)
}
