//! What budget does a campaign have, and when is a period's account closed?

use gavel_proto::ids::{AdvertiserId, CampaignId};
use gavel_proto::limits::{LEDGER_AMOUNT_NANOS_MAX, LEDGER_CAMPAIGNS_MAX};
use gavel_proto::money::Nanos;

use super::account::{Account, Step};
use super::calendar::{Period, Span, Zone};
use super::types::{Budgets, Campaign, Refusal, Verdict};
use super::{ATTRIBUTION_MS, HOUR_MS, Ledger, RETRY_MS};

/// Sets budgets and zone. What is charged and leased stays: a budget cannot become smaller than that.
pub fn set(
    ledger: &mut Ledger,
    id: CampaignId,
    advertiser: AdvertiserId,
    budgets: Budgets,
    zone: &Zone,
) -> Result<Verdict, Refusal> {
    let possible = |budget: &Nanos| (0..=LEDGER_AMOUNT_NANOS_MAX).contains(&budget.0);
    if budgets.iter().flatten().count() == 0 || !budgets.iter().flatten().all(possible) {
        return Err(Refusal::Invalid);
    }
    let held = ledger.campaigns.get(&id);
    if held.is_none() && ledger.campaigns.len() >= LEDGER_CAMPAIGNS_MAX {
        return Err(Refusal::Full);
    }
    if held.is_some_and(|held| held.advertiser != advertiser) {
        return Err(Refusal::Invalid);
    }
    let mut next = held.cloned().unwrap_or_else(|| Campaign {
        advertiser,
        budgets,
        zone: Zone::default(),
        charged: Nanos::ZERO,
        free_events: 0,
        free: Nanos::ZERO,
        closed: [Account::default(); 3],
    });
    (next.budgets, next.zone) = (budgets, zone.clone());
    let mut changed = Vec::new();
    for (period, budget) in next.periods(ledger.wall_ms) {
        // Accounts that are not open yet begin with their budget when they are needed.
        if let Some(account) = ledger.accounts.get(&(id, period)) {
            changed.push(((id, period), account.after(Step::Budget(budget)).ok_or(Refusal::BelowCommitted)?));
        }
    }
    ledger.accounts.extend(changed);
    ledger.campaigns.insert(id, next);
    Ok(Verdict::Done)
}

/// The accounts that pay at an instant, as they would be after a step on each; nothing is changed yet.
pub fn stepped(
    ledger: &Ledger,
    id: CampaignId,
    campaign: &Campaign,
    ms: u64,
    step: Step,
) -> Option<Vec<((CampaignId, Period), Account)>> {
    let one = |(period, budget): (Period, Nanos)| {
        let account = ledger.accounts.get(&(id, period)).copied().unwrap_or(Account {
            deposited: budget,
            available: budget,
            ..Account::default()
        });
        Some(((id, period), account.after(step)?))
    };
    campaign.periods(ms).map(one).collect()
}

/// The least that any account has available at an instant.
pub fn available(ledger: &Ledger, id: CampaignId, campaign: &Campaign, ms: u64) -> Nanos {
    let accounts = stepped(ledger, id, campaign, ms, Step::Hold(Nanos::ZERO)).unwrap_or_default();
    accounts.iter().map(|(_, account)| account.available).min().unwrap_or(Nanos::ZERO)
}

/// Closes the accounts of days and weeks to which nothing can be charged any more; their sums stay.
pub fn close_periods(ledger: &mut Ledger) {
    let now = i64::try_from(ledger.wall_ms).unwrap_or(i64::MAX);
    let patience = i64::try_from(ATTRIBUTION_MS + RETRY_MS + 2 * HOUR_MS).unwrap_or(i64::MAX);
    let is_over = |period: &Period, account: &Account| {
        account.is_settled() && period.over_ms().is_some_and(|over| over.saturating_add(patience) < now)
    };
    let campaigns = &mut ledger.campaigns;
    ledger.accounts.retain(|(id, period), account| {
        let Some(campaign) = campaigns.get_mut(id).filter(|_| is_over(period, account)) else { return true };
        let closed = &mut campaign.closed[place(period.span)];
        match closed.with(account) {
            Some(sum) => {
                *closed = sum;
                false
            }
            // Sums beyond the largest amount stay apart.
            None => true,
        }
    });
}

const fn place(span: Span) -> usize {
    match span {
        Span::Day => 0,
        Span::Week => 1,
        Span::Lifetime => 2,
    }
}
