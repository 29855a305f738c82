//! What has each campaign spent, what may still come, and may it go on?
//!
//! Impressions are paid from a hold that is taken when the ad is served: what is charged never exceeds the budget.
//! Clicks and conversions come late, and are charged while the budget lasts; what comes beyond is delivered for nothing.
//! Until they come their expectation is in flight, and counts as spent for pacing and for whether the campaign goes on.

use super::world::MarketCampaign;

/// Nanos of one campaign and day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    pub budget: i64,
    pub charged: i64,
    pub free: i64,
    /// Expected of events that have not come.
    pub in_flight: i64,
    pub events: u64,
}

impl Account {
    /// Spent, and as good as spent.
    pub const fn committed(&self) -> i64 {
        self.charged + self.in_flight
    }
}

/// Every campaign's account of the day, of the day before for what comes late, and the sums of closed days.
#[derive(Clone, Debug)]
pub struct Accounts {
    pub today: Vec<Account>,
    yesterday: Vec<Account>,
    pub total: Vec<Account>,
    day: u64,
}

impl Accounts {
    /// Opens the first day.
    pub fn open(campaigns: &[MarketCampaign], budgets: Budgets) -> Self {
        let budget = |campaign: &MarketCampaign| match budgets {
            Budgets::Unlimited => i64::MAX / 4,
            Budgets::Kept => campaign.budget_nanos,
        };
        let none = vec![Account::default(); campaigns.len()];
        let open = |campaign| Account { budget: budget(campaign), ..Account::default() };
        Self { today: campaigns.iter().map(open).collect(), yesterday: none.clone(), total: none, day: 0 }
    }

    /// Opens the next day with the same budgets; what is in flight still belongs to the day that ends.
    pub fn next_day(&mut self) {
        self.close_yesterday();
        let fresh = self.today.iter().map(|account| Account { budget: account.budget, ..Account::default() }).collect();
        self.yesterday = std::mem::replace(&mut self.today, fresh);
        self.day += 1;
    }

    /// Closes everything; nothing comes any more.
    pub fn close(&mut self) {
        self.next_day();
        self.close_yesterday();
        self.yesterday.fill(Account::default());
    }

    fn close_yesterday(&mut self) {
        for (day, total) in self.yesterday.iter().zip(&mut self.total) {
            total.budget = total.budget.saturating_add(day.budget);
            total.charged += day.charged;
            total.free += day.free;
            total.events += day.events;
        }
    }

    /// What each campaign was charged over all closed days.
    pub fn spent(&self) -> Vec<i64> {
        self.total.iter().map(|account| account.charged).collect()
    }

    fn of_day(&mut self, day: u64, campaign: u32) -> &mut Account {
        let accounts = if day == self.day { &mut self.today } else { &mut self.yesterday };
        &mut accounts[campaign as usize]
    }

    /// Expects (or, below 0, no longer expects) an amount on a day's account.
    pub fn expect(&mut self, day: u64, campaign: u32, nanos: i64) {
        self.of_day(day, campaign).in_flight += nanos;
    }

    /// Charges an event to the day it was served on: in full or not at all.
    pub fn charge(&mut self, day: u64, campaign: u32, nanos: i64) {
        let account = self.of_day(day, campaign);
        account.events += 1;
        if account.charged + nanos <= account.budget {
            account.charged += nanos;
        } else {
            account.free += nanos;
        }
    }

    /// Whether this much is left today besides what is in flight.
    pub fn has(&self, campaign: u32, nanos: i64) -> bool {
        let account = &self.today[campaign as usize];
        account.committed().saturating_add(nanos) <= account.budget
    }
}

/// Are budgets kept?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budgets {
    /// Nobody runs out: what would be spent.
    Unlimited,
    /// A campaign ends when its budget does.
    Kept,
}

#[cfg(test)]
mod tests {
    use super::*;
    use gavel_proto::money::BidType;

    #[test]
    fn nothing_is_charged_beyond_the_budget_and_late_events_go_to_their_day() {
        let campaign = MarketCampaign { id: 1, advertiser: 1, bid_type: BidType::Cpc, bid_micros: 5, budget_nanos: 10 };
        let mut accounts = Accounts::open(&[campaign], Budgets::Kept);
        accounts.expect(0, 0, 4);
        assert!(accounts.has(0, 6) && !accounts.has(0, 7));
        accounts.charge(0, 0, 7);
        accounts.charge(0, 0, 5);
        accounts.next_day();
        assert!(accounts.has(0, 10), "what is in flight is of the day before");
        accounts.charge(0, 0, 3);
        accounts.charge(1, 0, 1);
        accounts.expect(0, 0, -4);
        accounts.close();
        assert_eq!(accounts.total, [Account { budget: 20, charged: 11, free: 5, in_flight: 0, events: 4 }]);
    }
}
