//! How does money move within one budget?
//!
//! An account is one budget of one campaign over one period. Its money is in exactly one of four places: available,
//! pending (leased to a router), posted (charged), refunded (charged and given back, not to be spent again). Each
//! step says where money goes, or that there is too little where it should come from; none leaves anything negative.

use gavel_proto::money::Nanos;

use super::check::{Invariant, Violation};

/// One budget over one period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// The budget: everything that was put in.
    pub deposited: Nanos,
    /// Neither leased nor charged.
    pub available: Nanos,
    /// In leases, not charged yet.
    pub pending: Nanos,
    /// Charged and kept.
    pub posted: Nanos,
    /// Charged and given back.
    pub refunded: Nanos,
}

/// A movement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The budget becomes so much.
    Budget(Nanos),
    /// Available to pending: a lease begins.
    Hold(Nanos),
    /// Pending to available: a lease gives back.
    Release(Nanos),
    /// Pending to posted: a charge on a lease.
    PostHeld(Nanos),
    /// Available to posted: a charge without one.
    Post(Nanos),
    /// Posted to refunded.
    Refund(Nanos),
}

impl Account {
    /// The account after a step; `None` when the money is not where it should come from.
    #[must_use]
    pub fn after(self, step: Step) -> Option<Self> {
        let mut next = self;
        match step {
            Step::Budget(budget) => {
                next.deposited = budget;
                next.available = budget.minus(self.committed()?)?;
            }
            Step::Hold(x) => moved(&mut next.available, &mut next.pending, x)?,
            Step::Release(x) => moved(&mut next.pending, &mut next.available, x)?,
            Step::PostHeld(x) => moved(&mut next.pending, &mut next.posted, x)?,
            Step::Post(x) => moved(&mut next.available, &mut next.posted, x)?,
            Step::Refund(x) => moved(&mut next.posted, &mut next.refunded, x)?,
        }
        Some(next)
    }

    /// What a smaller budget cannot take back.
    #[must_use]
    pub fn committed(&self) -> Option<Nanos> {
        self.pending.plus(self.posted)?.plus(self.refunded)
    }

    /// The account holds nothing that may still move by itself.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.pending.0 == 0
    }

    /// Adds the columns of an account that is closed.
    #[must_use]
    pub fn with(self, other: &Self) -> Option<Self> {
        Some(Self {
            deposited: self.deposited.plus(other.deposited)?,
            available: self.available.plus(other.available)?,
            pending: self.pending.plus(other.pending)?,
            posted: self.posted.plus(other.posted)?,
            refunded: self.refunded.plus(other.refunded)?,
        })
    }

    /// Nothing is negative, M1 and M2.
    ///
    /// # Errors
    /// The invariant that does not hold.
    pub fn check(&self) -> Result<(), Violation> {
        let columns = [self.deposited, self.available, self.pending, self.posted, self.refunded];
        let wide = |n: Nanos| i128::from(n.0);
        if columns.iter().any(|n| n.0 < 0) || wide(self.posted) + wide(self.pending) > wide(self.deposited) {
            return Err(Violation::new(Invariant::M1, format!("{self:?}")));
        }
        if columns[1..].iter().map(|n| wide(*n)).sum::<i128>() != wide(self.deposited) {
            return Err(Violation::new(Invariant::M2, format!("{self:?}")));
        }
        Ok(())
    }
}

fn moved(from: &mut Nanos, to: &mut Nanos, amount: Nanos) -> Option<()> {
    if amount.0 < 0 {
        return None;
    }
    (*from, *to) = (from.minus(amount)?, to.plus(amount)?);
    Some(())
}
