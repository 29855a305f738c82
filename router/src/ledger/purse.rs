//! May this ad be served from a lease, and which leases are needed?
//!
//! A kernel: time is an argument, milliseconds of a clock that runs on while the machine sleeps. A lease is used until a
//! little before its time is over, counted from when it was asked for, so that the ledger takes nothing back that may
//! still be issued. A campaign is worth a lease while it has been among candidates within a minute (decision 18), and a few
//! that come more rarely are while they have won within a day (docs/design/0012); the next
//! lease is asked for when a third of the one in use is gone, or when its time is soon over. A question whose answer was
//! lost is asked again under the same number, so that the ledger answers with the lease that it granted then; its time
//! counts from the first asking.
//!
//! Campaigns are spread over [`PURSES`] purses by their hash: a look through one of them, several times a second, holds up only
//! the requests for its own campaigns.

use gavel_proto::hash::mix64;
use gavel_proto::ids::CampaignId;
use std::collections::BTreeMap;

/// A lease is issued from for so long after it was asked for: the ledger's 15 s less a margin for clocks.
pub const USE_MS: u64 = 14_500;
/// The next lease is asked for so long before the end.
const AHEAD_MS: u64 = 5_000;
/// Campaigns that nobody has seen for so long get no lease (decision 18), but for a few.
const SEEN_MS: u64 = 60_000;
/// Of them, those that won last, up to so long ago, keep one: who wins once in some minutes would else never find one
/// (docs/design/0012). Ours: a day, the time of most budgets.
const RARE_WON_MS: u64 = 24 * 3_600_000;
/// So many of a purse: 1,024 of a router, whose leases are some 220 entries of the ledger a second.
const RARE_MAX: usize = 64;
/// After a refusal a campaign is not asked for again for so long.
const REFUSED_MS: u64 = 1_000;
/// Campaigns without a budget in the ledger are asked for again after so long.
const UNBUDGETED_MS: u64 = 5_000;
/// Time over which spending is averaged.
const RATE_MS: u64 = 5_000;
/// Purses of a router. Ours: with 100,000 campaigns one look through one of them takes less than a request does.
pub const PURSES: usize = 16;
/// Campaigns that a purse follows; beyond it new ones wait. Ours: 100,000 in all, above what a minute's candidates name.
const CAMPAIGNS_MAX: usize = 100_000 / PURSES;

/// A lease as the router holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lease {
    id: u64,
    amount: i64,
    issued: i64,
    wall_ms: u64,
    until_ms: u64,
}

/// Issues so much from the first lease that has it; its id and wall time.
fn take(leases: &mut [Lease], nanos: i64, now_ms: u64) -> Option<(u64, u64)> {
    let fits = |lease: &&mut Lease| lease.until_ms > now_ms && lease.amount - lease.issued >= nanos;
    let lease = leases.iter_mut().find(fits)?;
    lease.issued += nanos;
    Some((lease.id, lease.wall_ms))
}

/// What is known of one campaign.
#[derive(Clone, Debug, Default, PartialEq)]
struct Wallet {
    leases: Vec<Lease>,
    price_max: i64,
    seen_ms: u64,
    /// When it won last, whether there was a lease for it or not.
    won_ms: Option<u64>,
    /// It comes rarely and keeps a lease; else it is here until its leases are over.
    is_kept: bool,
    /// A request for a lease is on its way.
    asked: bool,
    /// The question that has no answer yet; 0 for none.
    wish: u64,
    /// When it was asked for the first time.
    wish_ms: u64,
    not_before_ms: u64,
    unbudgeted_until_ms: u64,
    /// Held, and wanted without a lease that had it: what would be spent.
    spent: i64,
    spent_since_ms: u64,
    rate: i64,
}

/// What stands behind an ad that is to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// So much of a lease.
    Lease {
        /// Its id.
        id: u64,
        /// The wall time that picked its accounts.
        wall_ms: u64,
        /// How much.
        nanos: i64,
    },
    /// The ledger knows no budget of the campaign: nothing is charged.
    Unbudgeted,
}

/// A lease that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Whose money.
    pub campaign: CampaignId,
    /// Which question; the same when it is asked again.
    pub number: u64,
    /// Spent in a second.
    pub rate: i64,
    /// Of one impression.
    pub price_max: i64,
}

/// A lease whose use is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Which.
    pub lease: u64,
    /// What its tokens cost together.
    pub issued: i64,
}

/// What came of a wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granted {
    /// A lease.
    Lease {
        /// Its id.
        id: u64,
        /// What may be issued.
        amount: i64,
        /// The wall time that picked its accounts.
        wall_ms: u64,
    },
    /// No budget was ever set.
    Unbudgeted,
    /// Not now.
    Refused,
}

/// The purse of a campaign.
#[must_use]
pub const fn purse_of(campaign: CampaignId) -> usize {
    (mix64(campaign.0) % PURSES as u64) as usize
}

/// The leases of this router for some campaigns.
#[derive(Clone, Debug, Default)]
pub struct Purse {
    wallets: BTreeMap<CampaignId, Wallet>,
    over: Vec<Report>,
    /// Questions so far.
    wishes: u64,
}

impl Purse {
    /// A campaign is among the candidates, at most at this price of an impression.
    pub fn see(&mut self, campaign: CampaignId, price_max: i64, now_ms: u64) {
        if !self.wallets.contains_key(&campaign) && self.wallets.len() >= CAMPAIGNS_MAX {
            return;
        }
        let wallet = self.wallets.entry(campaign).or_default();
        // One that is kept for a day follows its bid down, too.
        let before = if wallet.is_lately(now_ms) { wallet.price_max } else { 0 };
        (wallet.price_max, wallet.seen_ms) = (before.max(price_max), now_ms);
    }

    /// Holds the price of an impression; `None` when no lease has so much left.
    pub fn hold(&mut self, campaign: CampaignId, nanos: i64, now_ms: u64) -> Option<Hold> {
        let wallet = self.wallets.get_mut(&campaign)?;
        wallet.won_ms = Some(now_ms);
        if now_ms < wallet.unbudgeted_until_ms {
            return Some(Hold::Unbudgeted);
        }
        wallet.spent = wallet.spent.saturating_add(nanos);
        let (id, wall_ms) = take(&mut wallet.leases, nanos, now_ms)?;
        Some(Hold::Lease { id, wall_ms, nanos })
    }

    /// Whether the prices of impressions, in nanos, could be held one after the other. For a campaign that was no candidate
    /// lately no lease was asked for; one is as soon as it is.
    #[must_use]
    pub fn could_hold(&self, campaign: CampaignId, prices: &[i64], now_ms: u64) -> bool {
        let Some(wallet) = self.wallets.get(&campaign) else { return true };
        if !wallet.is_wanted(now_ms) || now_ms < wallet.unbudgeted_until_ms {
            return true;
        }
        let mut leases = wallet.leases.clone();
        prices.iter().all(|nanos| take(&mut leases, *nanos, now_ms).is_some())
    }

    /// Gives back a part of a hold: the ad does not stand, or costs less than was held.
    pub fn release(&mut self, campaign: CampaignId, lease: u64, nanos: i64) {
        let Some(wallet) = self.wallets.get_mut(&campaign) else { return };
        if let Some(lease) = wallet.leases.iter_mut().find(|held| held.id == lease) {
            lease.issued -= nanos;
            wallet.spent = wallet.spent.saturating_sub(nanos);
        }
    }

    /// The leases that are wanted now; each is asked for once.
    pub fn wishes(&mut self, now_ms: u64) -> Vec<Wish> {
        let mut wishes = Vec::new();
        for (campaign, wallet) in &mut self.wallets {
            wallet.end_interval(now_ms);
            if wallet.is_wanted(now_ms)
                && !wallet.asked
                && now_ms >= wallet.not_before_ms
                && wallet.needs_another(now_ms)
            {
                wallet.asked = true;
                if wallet.wish == 0 || now_ms.saturating_sub(wallet.wish_ms) >= USE_MS {
                    self.wishes += 1;
                    (wallet.wish, wallet.wish_ms) = (self.wishes, now_ms);
                }
                let (number, rate, price_max) = (wallet.wish, wallet.rate_now(), wallet.price_max);
                wishes.push(Wish { campaign: *campaign, number, rate, price_max });
            }
        }
        wishes
    }

    /// What came of the wish that is on its way.
    pub fn granted(&mut self, campaign: CampaignId, granted: Granted, now_ms: u64) {
        let wallet = self.wallets.entry(campaign).or_default();
        let asked_ms = wallet.wish_ms;
        (wallet.asked, wallet.wish) = (false, 0);
        match granted {
            Granted::Lease { id, amount, wall_ms } => {
                wallet.unbudgeted_until_ms = 0;
                wallet.leases.push(Lease { id, amount, issued: 0, wall_ms, until_ms: asked_ms + USE_MS });
            }
            Granted::Unbudgeted => {
                wallet.unbudgeted_until_ms = now_ms + UNBUDGETED_MS + REFUSED_MS;
                wallet.not_before_ms = now_ms + UNBUDGETED_MS;
            }
            Granted::Refused => wallet.not_before_ms = now_ms + REFUSED_MS,
        }
    }

    /// A wish whose outcome is unknown: it is asked again, and a lease that it led to is then heard of.
    pub fn lost(&mut self, campaign: CampaignId, now_ms: u64) {
        let wallet = self.wallets.entry(campaign).or_default();
        (wallet.asked, wallet.not_before_ms) = (false, now_ms + REFUSED_MS);
    }

    /// Every lease, used up or not: this router serves nothing more.
    pub fn last_reports(&mut self) -> Vec<Report> {
        let wallets = std::mem::take(&mut self.wallets);
        let leases = wallets.into_values().flat_map(|wallet| wallet.leases);
        self.over.extend(leases.map(|lease| Report { lease: lease.id, issued: lease.issued }));
        std::mem::take(&mut self.over)
    }

    /// Leases whose use is over, each until it was taken from here.
    pub fn reports(&mut self, now_ms: u64) -> Vec<Report> {
        for wallet in self.wallets.values_mut() {
            wallet.leases.retain(|lease| {
                // What is used up is reported early, so that the next may be asked for.
                let is_over =
                    lease.until_ms <= now_ms || lease.amount - lease.issued < wallet.price_max.min(lease.amount);
                // A hold of the last moment may still be given back.
                let is_settled = is_over && lease.until_ms.saturating_sub(USE_MS) + 1_000 <= now_ms;
                if is_settled {
                    self.over.push(Report { lease: lease.id, issued: lease.issued });
                }
                !is_settled
            });
        }
        self.keep_rare(now_ms);
        self.wallets.retain(|_, wallet| !wallet.leases.is_empty() || wallet.asked || wallet.is_wanted(now_ms));
        std::mem::take(&mut self.over)
    }

    /// Of the campaigns that nobody has seen for a minute, the few that won last keep a lease.
    fn keep_rare(&mut self, now_ms: u64) {
        let won_ms = |wallet: &Wallet| {
            let won_ms = wallet.won_ms.filter(|won_ms| now_ms.saturating_sub(*won_ms) <= RARE_WON_MS);
            won_ms.filter(|_| !wallet.is_lately(now_ms))
        };
        let mut rare: Vec<u64> = self.wallets.values().filter_map(won_ms).collect();
        // Behind the last one that is kept; of those that won at the same instant as the first that is not, none is.
        let since = match rare.len() {
            ..=RARE_MAX => 0,
            _ => *rare.select_nth_unstable_by(RARE_MAX, |a, b| b.cmp(a)).1 + 1,
        };
        for wallet in self.wallets.values_mut() {
            wallet.is_kept = won_ms(wallet).is_some_and(|won_ms| won_ms >= since);
        }
    }

    /// Everything is over: another issuer was granted.
    pub fn clear(&mut self) {
        self.wallets.clear();
        self.over.clear();
    }

    /// Leases, and what they have left.
    #[must_use]
    pub fn totals(&self) -> (usize, i64) {
        let leases = self.wallets.values().flat_map(|wallet| &wallet.leases);
        leases.fold((0, 0), |(count, left), lease| (count + 1, left + (lease.amount - lease.issued)))
    }
}

impl Wallet {
    /// Among candidates within a minute.
    const fn is_lately(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.seen_ms) <= SEEN_MS
    }

    /// Worth another lease.
    const fn is_wanted(&self, now_ms: u64) -> bool {
        self.is_kept || self.is_lately(now_ms)
    }

    fn end_interval(&mut self, now_ms: u64) {
        let passed = now_ms.saturating_sub(self.spent_since_ms);
        if passed >= RATE_MS {
            let passed = i64::try_from(passed).unwrap_or(i64::MAX).max(1);
            self.rate = self.spent.saturating_mul(1_000) / passed;
            (self.spent, self.spent_since_ms) = (0, now_ms);
        }
    }

    /// Of the last interval, or what this one has spent already over a whole one: a burst is not served by the leases of
    /// the calm before it.
    fn rate_now(&self) -> i64 {
        self.rate.max(self.spent.saturating_mul(1_000) / RATE_MS as i64)
    }

    fn needs_another(&self, now_ms: u64) -> bool {
        let used = self.leases.iter().filter(|lease| lease.until_ms > now_ms + AHEAD_MS);
        let (amount, issued) = used.fold((0, 0), |(a, i), lease| (a + lease.amount, i + lease.issued));
        self.leases.len() < 2 && (amount == 0 || issued * 3 > amount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const C: CampaignId = CampaignId(5);

    fn with_lease(amount: i64) -> Purse {
        let mut purse = Purse::default();
        purse.see(C, 10, 1_000);
        assert_eq!(purse.wishes(1_000), vec![Wish { campaign: C, number: 1, rate: 0, price_max: 10 }]);
        assert_eq!(purse.wishes(1_000), vec![], "it is asked for once");
        purse.granted(C, Granted::Lease { id: 1, amount, wall_ms: 77 }, 1_100);
        purse
    }

    #[test]
    fn nothing_is_served_beyond_a_lease_or_after_it() {
        let mut purse = Purse::default();
        assert_eq!(purse.hold(C, 10, 0), None, "never seen");
        purse = with_lease(25);
        let hold = Some(Hold::Lease { id: 1, wall_ms: 77, nanos: 10 });
        assert_eq!([purse.hold(C, 10, 1_200), purse.hold(C, 10, 1_200)], [hold, hold]);
        assert_eq!(purse.hold(C, 10, 1_200), None, "5 are left");
        let could = |prices: &[i64], now_ms| purse.could_hold(C, prices, now_ms);
        assert_eq!([could(&[5], 1_200), could(&[6], 1_200), could(&[3, 3], 1_200)], [true, false, false]);
        assert_eq!([could(&[5], 15_500), could(&[6], 61_001)], [false, true], "late, and forgotten");
        purse.release(C, 1, 5);
        assert_eq!(purse.hold(C, 10, 15_499), hold);
        assert_eq!(purse.hold(C, 0, 15_500), None, "its time is counted from the question");
        assert_eq!(purse.reports(15_600), vec![Report { lease: 1, issued: 25 }]);
        assert_eq!(purse.reports(15_600), vec![]);
    }

    #[test]
    fn the_next_lease_comes_before_the_end_and_no_third() {
        let mut purse = with_lease(100);
        assert_eq!(purse.wishes(2_000), vec![], "it is hardly used");
        for _ in 0..4 {
            purse.hold(C, 10, 2_000);
        }
        assert_eq!(purse.wishes(2_100).len(), 1, "more than a third");
        purse.granted(C, Granted::Lease { id: 2, amount: 100, wall_ms: 78 }, 2_200);
        assert_eq!(purse.wishes(2_300), vec![]);
        purse.see(C, 10, 13_000);
        assert_eq!(purse.wishes(13_000), vec![], "two are open");
        assert_eq!(purse.reports(16_000), vec![Report { lease: 1, issued: 40 }]);
        assert_eq!(purse.wishes(16_000).len(), 1);
        purse.lost(C, 16_000);
        assert_eq!(purse.wishes(73_001), vec![], "nobody has seen it for a minute");
    }

    /// A campaign that comes once in some minutes never found a lease: it was asked for then, and over when it came again.
    #[test]
    fn of_the_campaigns_that_come_rarely_those_that_won_last_keep_a_lease() {
        let (mut purse, all) = (Purse::default(), RARE_MAX as u64 + 6);
        for n in 0..all {
            purse.see(CampaignId(n), 10, 1_000);
            // The first two never win.
            if n >= 2 {
                assert_eq!(purse.hold(CampaignId(n), 10, 1_000 + n), None, "no lease yet");
            }
        }
        let mut wished = |now_ms: u64| {
            assert_eq!(purse.reports(now_ms), vec![]);
            let wishes = purse.wishes(now_ms);
            wishes.iter().for_each(|wish| purse.granted(wish.campaign, Granted::Refused, now_ms));
            wishes.iter().map(|wish| wish.campaign.0).collect::<Vec<_>>()
        };
        assert_eq!(wished(61_000), (0..all).collect::<Vec<_>>(), "candidates within a minute");
        assert_eq!(wished(70_000), (6..all).collect::<Vec<_>>(), "the last winners");
        assert_eq!(wished(1_008 + RARE_WON_MS), (8..all).collect::<Vec<_>>(), "the others won a day ago");
    }

    /// Leases were sized by what had been served, so that a campaign with too small ones got no larger ones.
    #[test]
    fn a_lease_is_sized_by_what_would_be_spent() {
        let mut purse = with_lease(10);
        let held = (0..6).filter(|_| purse.hold(C, 10, 2_000).is_some()).count();
        assert_eq!((held, purse.wishes(2_000)[0].rate), (1, 12), "60 within 5 s");
        purse.granted(C, Granted::Refused, 2_000);
        assert_eq!(purse.wishes(6_000)[0].rate, 10, "60 in 6 s");
        purse.granted(C, Granted::Refused, 6_000);
        assert_eq!(purse.wishes(12_000)[0].rate, 0, "and then nothing");
    }

    /// A bid that was lowered had every later lease of a kept campaign made for the old one.
    #[test]
    fn the_largest_price_is_that_of_the_last_minute() {
        let mut purse = Purse::default();
        for (price, now_ms, expected) in [(50, 1_000, 50), (10, 2_000, 50), (10, 62_001, 10), (20, 63_000, 20)] {
            purse.see(C, price, now_ms);
            assert_eq!(purse.wallets[&C].price_max, expected, "at {now_ms}");
        }
    }

    /// The answer to a question is lost, and the ledger has granted a lease: it was never used, and its money lay idle.
    #[test]
    fn a_question_without_an_answer_is_asked_again_and_its_lease_counts_from_the_first_asking() {
        let mut purse = Purse::default();
        purse.see(C, 10, 1_000);
        let number = |wishes: Vec<Wish>| wishes.first().map(|wish| wish.number);
        assert_eq!(number(purse.wishes(1_000)), Some(1));
        purse.lost(C, 4_000);
        assert_eq!(purse.wishes(4_500), vec![], "not at once");
        assert_eq!(number(purse.wishes(5_000)), Some(1), "the same question");
        purse.granted(C, Granted::Lease { id: 9, amount: 100, wall_ms: 77 }, 5_100);
        assert!(purse.hold(C, 10, 15_499).is_some());
        assert_eq!(purse.hold(C, 10, 15_500), None, "it may have been granted at the first asking");
        // What was lost so long ago that no lease of it can be used is another question.
        purse.see(C, 10, 20_000);
        assert_eq!(number(purse.wishes(20_000)), Some(2));
        purse.lost(C, 24_000);
        assert_eq!(number(purse.wishes(20_000 + USE_MS)), Some(3));
    }

    /// A router that ended left its leases to their time, 77 s, though it would issue nothing more from them.
    #[test]
    fn the_last_reports_name_every_lease() {
        let mut purse = with_lease(100);
        purse.hold(C, 10, 1_200);
        assert_eq!(purse.reports(1_300), vec![]);
        assert_eq!(purse.last_reports(), vec![Report { lease: 1, issued: 10 }]);
        assert_eq!((purse.last_reports(), purse.totals()), (vec![], (0, 0)));
    }

    #[test]
    fn a_refusal_is_not_asked_for_again_at_once_and_no_budget_means_no_charge() {
        let mut purse = Purse::default();
        purse.see(C, 10, 0);
        purse.wishes(0);
        purse.granted(C, Granted::Refused, 100);
        assert_eq!((purse.hold(C, 1, 200), purse.wishes(200).len()), (None, 0));
        assert_eq!(purse.wishes(1_100).len(), 1);
        purse.granted(C, Granted::Unbudgeted, 1_200);
        assert_eq!(purse.hold(C, 1, 1_300), Some(Hold::Unbudgeted));
        assert_eq!((purse.wishes(6_100).len(), purse.wishes(6_200).len()), (0, 1));
        assert_eq!(purse.hold(C, 1, 6_900), Some(Hold::Unbudgeted), "while the answer is on its way");
        assert_eq!(purse.hold(C, 1, 7_200), None);
    }
}
