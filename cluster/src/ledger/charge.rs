//! Is this event charged, to whom, and only once?
//!
//! What is looked at first decides what a repetition hears: an event that was charged is a duplicate whatever became of
//! its lease, its window or its campaign meanwhile, so that sending events again, in any order, changes nothing.

use gavel_proto::limits::LEDGER_AMOUNT_NANOS_MAX;
use gavel_proto::money::Nanos;

use super::account::Step;
use super::types::{Charge, Refusal, Source, Verdict};
use super::{HOUR_MS, Ledger, SeenKey, campaign, lease, roster};

/// The bitmap of a charge.
pub const fn seen_key(charge: &Charge) -> SeenKey {
    (charge.issued_ms / HOUR_MS, charge.id.issuer, charge.id.kind)
}

/// Posts a charge, or says why not.
pub fn charge(ledger: &mut Ledger, charge: &Charge) -> Result<Verdict, Refusal> {
    let key = known(ledger, charge)?;
    let number = charge.id.sequence;
    if let Some(seen) = ledger.seen.get(&key) {
        if seen.charged.contains(number) {
            return Ok(Verdict::Duplicate);
        }
        if seen.free.contains(number) {
            return Err(Refusal::OverBudget);
        }
    }
    if charge.expires_ms > charge.issued_ms.saturating_add(charge.id.kind.window_ms()) {
        return Err(Refusal::Invalid);
    }
    if ledger.wall_ms > charge.expires_ms {
        return Err(Refusal::Expired);
    }
    // M8.
    if charge.price.0 < 0 || charge.price > charge.bid || charge.bid.0 > LEDGER_AMOUNT_NANOS_MAX {
        return Err(Refusal::Price);
    }
    let posted = match charge.source {
        Source::Lease(id) => lease::post(ledger, id, charge),
        Source::Budget => post_from_budget(ledger, charge),
    };
    match posted {
        Ok(()) => {
            let campaign = ledger.campaigns.get_mut(&charge.campaign).ok_or(Refusal::UnknownCampaign)?;
            campaign.charged = campaign.charged.plus(charge.price).ok_or(Refusal::Invalid)?;
            ledger.seen.entry(key).or_default().charged.insert(number);
            ledger.counts.charges += 1;
            Ok(Verdict::Done)
        }
        Err(Refusal::OverBudget) => {
            let campaign = ledger.campaigns.get_mut(&charge.campaign).ok_or(Refusal::UnknownCampaign)?;
            campaign.free_events += 1;
            campaign.free = campaign.free.plus(charge.price).unwrap_or(campaign.free);
            ledger.seen.entry(key).or_default().free.insert(number);
            ledger.counts.free += 1;
            Err(Refusal::OverBudget)
        }
        Err(refusal) => Err(refusal),
    }
}

/// The charge's bitmap, if its issuer may have issued it and its hour is not forgotten.
fn known(ledger: &Ledger, charge: &Charge) -> Result<SeenKey, Refusal> {
    if roster::is_forgotten(ledger, charge.issued_ms / HOUR_MS, charge.id.kind) {
        return Err(Refusal::Late);
    }
    if charge.issued_ms > ledger.wall_ms.saturating_add(HOUR_MS) {
        return Err(Refusal::Early);
    }
    roster::check_issuer(ledger, charge.id.issuer, charge.issued_ms)?;
    Ok(seen_key(charge))
}

fn post_from_budget(ledger: &mut Ledger, charge: &Charge) -> Result<(), Refusal> {
    let campaign = ledger.campaigns.get(&charge.campaign).ok_or(Refusal::UnknownCampaign)?;
    // Days that are over and closed have nothing to pay from.
    let near = charge.period_ms.abs_diff(charge.issued_ms) <= HOUR_MS;
    if !near {
        return Err(Refusal::Invalid);
    }
    let step = Step::Post(charge.price);
    let accounts = campaign::stepped(ledger, charge.campaign, campaign, charge.period_ms, step);
    let accounts = accounts.ok_or(Refusal::OverBudget)?;
    ledger.accounts.extend(accounts);
    Ok(())
}

/// Gives back a charge, or a part of it, once.
pub fn refund(ledger: &mut Ledger, charge: &Charge, amount: Nanos) -> Result<Verdict, Refusal> {
    let key = known(ledger, charge)?;
    let number = charge.id.sequence;
    let seen = ledger.seen.get(&key).filter(|seen| seen.charged.contains(number)).ok_or(Refusal::NotCharged)?;
    if seen.refunded.contains(number) {
        return Ok(Verdict::Duplicate);
    }
    if amount.0 <= 0 || amount > charge.price {
        return Err(Refusal::ExceedsCharge);
    }
    let campaign = ledger.campaigns.get(&charge.campaign).ok_or(Refusal::UnknownCampaign)?;
    let mut accounts = Vec::new();
    for (period, _) in campaign.periods(charge.period_ms) {
        // A budget of another span may have come since: it was never charged.
        let account = ledger.accounts.get(&(charge.campaign, period)).and_then(|a| a.after(Step::Refund(amount)));
        accounts.extend(account.map(|account| ((charge.campaign, period), account)));
    }
    if accounts.is_empty() {
        // No account of the campaign's has it any more: to say that it was given back would not be true.
        return Err(Refusal::NotCharged);
    }
    ledger.accounts.extend(accounts);
    ledger.seen.entry(key).or_default().refunded.insert(number);
    ledger.counts.refunds += 1;
    Ok(Verdict::Done)
}
