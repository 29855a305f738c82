//! What has each campaign spent, what may still come, and may it go on?
//!
//! Impressions are paid from a hold that is taken when the ad is served: what is charged never exceeds the budget.
//! Clicks and conversions come late, and are charged while the budget lasts; what comes beyond is delivered for nothing.
//! Until they come their expectation is in flight, and counts as spent for pacing and for whether the campaign goes on:
//! it does while what is left pays for one more event, as the cluster's pacer has it.

use super::world::MarketCampaign;

/// Nanos of one campaign and period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    pub budget: i64,
    pub charged: i64,
    pub free: i64,
    /// Expected of events that have not come, as of the last round of pacing.
    pub in_flight: i64,
    /// That were charged.
    pub events: u64,
}

impl Account {
    /// Spent, and as good as spent.
    pub const fn committed(&self) -> i64 {
        self.charged + self.in_flight
    }
}

/// Every campaign's account of the period, of the one before for what comes late, and the sums of closed ones.
#[derive(Clone, Debug)]
pub struct Accounts {
    pub current: Vec<Account>,
    before: Vec<Account>,
    pub total: Vec<Account>,
    period: u64,
}

impl Accounts {
    /// Opens the first period.
    pub fn open(campaigns: &[MarketCampaign], budgets: Budgets) -> Self {
        let budget = |campaign: &MarketCampaign| match budgets {
            Budgets::Unlimited => i64::MAX / 4,
            Budgets::Kept => campaign.budget_nanos,
        };
        let none = vec![Account::default(); campaigns.len()];
        let open = |campaign| Account { budget: budget(campaign), ..Account::default() };
        Self { current: campaigns.iter().map(open).collect(), before: none.clone(), total: none, period: 0 }
    }

    /// Opens the next period with the same budgets; what is in flight still belongs to the one that ends.
    pub fn next_period(&mut self) {
        self.close_before();
        let fresh =
            self.current.iter().map(|account| Account { budget: account.budget, ..Account::default() }).collect();
        self.before = std::mem::replace(&mut self.current, fresh);
        self.period += 1;
    }

    /// Closes everything; nothing comes any more.
    pub fn close(&mut self) {
        self.next_period();
        self.close_before();
        self.before.fill(Account::default());
    }

    fn close_before(&mut self) {
        for (period, total) in self.before.iter().zip(&mut self.total) {
            total.budget = total.budget.saturating_add(period.budget);
            total.charged += period.charged;
            total.free += period.free;
            total.events += period.events;
        }
    }

    /// What each campaign was charged over all closed periods.
    pub fn spent(&self) -> Vec<i64> {
        self.total.iter().map(|account| account.charged).collect()
    }

    /// What a campaign was charged until now.
    pub fn charged(&self, place: usize) -> i64 {
        self.total[place].charged + self.before[place].charged + self.current[place].charged
    }

    fn of_period(&mut self, period: u64, campaign: u32) -> &mut Account {
        let accounts = if period == self.period { &mut self.current } else { &mut self.before };
        &mut accounts[campaign as usize]
    }

    /// Charges an event to the period it was served in: in full or not at all. Whether it was.
    pub fn charge(&mut self, period: u64, campaign: u32, nanos: i64) -> bool {
        let account = self.of_period(period, campaign);
        let fits = account.charged + nanos <= account.budget;
        if fits {
            account.charged += nanos;
            account.events += 1;
        } else {
            account.free += nanos;
        }
        fits
    }

    /// Whether this much is left besides what is in flight.
    pub fn has(&self, campaign: u32, nanos: i64) -> bool {
        let account = &self.current[campaign as usize];
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
    fn nothing_is_charged_beyond_the_budget_and_late_events_go_to_their_period() {
        let campaign = MarketCampaign { id: 1, advertiser: 1, bid_type: BidType::Cpc, bid_micros: 5, budget_nanos: 10 };
        let mut accounts = Accounts::open(&[campaign], Budgets::Kept);
        accounts.current[0].in_flight = 4;
        assert!(accounts.has(0, 6) && !accounts.has(0, 7));
        assert!(accounts.charge(0, 0, 7) && !accounts.charge(0, 0, 5));
        accounts.next_period();
        assert!(accounts.has(0, 10), "what is in flight is of the period before");
        assert!(accounts.charge(0, 0, 3) && accounts.charge(1, 0, 1));
        assert_eq!(accounts.charged(0), 11);
        accounts.close();
        assert_eq!(accounts.total, [Account { budget: 20, charged: 11, free: 5, in_flight: 0, events: 3 }]);
        assert_eq!(accounts.charged(0), 11);
    }
}
