//! What has this router served that may still be charged, and what must the pacer hear of it?
//!
//! A kernel. Of each campaign: what it is expected to spend and to bring since this process started, and, when clicks or
//! conversions are billed, the sums by the time of serving ([`Flight`]). Of all: requests by hour, and how long after
//! their ads charged events came. The pacer gets what has changed since it last acknowledged something, or everything
//! when it holds nothing of this process, as after a change of leaders.

use super::mint::Delivered;
use gavel_proto::ids::CampaignId;
use gavel_proto::money::BidType;
use gavel_proto::pacing::arrival::window_s;
use gavel_proto::pacing::flight::{BUCKETS_MAX, price_of_late};
use gavel_proto::pacing::served::{HOURS_MAX, Line};
use gavel_proto::pacing::{Delays, Flight};
use gavel_proto::wire::EventKind;
use std::collections::{BTreeMap, BTreeSet};

/// Campaigns that are followed; beyond it new ones are not, and pace without expectation. Ours: a flight of a week takes
/// two KiB.
const CAMPAIGNS_MAX: usize = 100_000;
const HOUR_MS: u64 = 3_600_000;
/// A campaign that served nothing is remembered for so long at least: sums that begin anew tell the pacer nothing.
const KEEP_S: u32 = 86_400;
/// Campaigns that are looked at in one step, while requests wait: a whole flight each takes some hundred microseconds.
pub const STEP: usize = 128;

/// What was served of one campaign.
#[derive(Clone, Debug)]
struct Account {
    bid_type: BidType,
    spend_nanos: i64,
    events_nano: u64,
    price_nanos: i64,
    flight: Flight,
    /// What starts before this is known to the pacer.
    acknowledged_s: u32,
    served_s: u32,
}

/// What this router has served.
#[derive(Clone, Debug, Default)]
pub struct Served {
    campaigns: BTreeMap<CampaignId, Account>,
    changed: BTreeSet<CampaignId>,
    /// Requests by hours since 1970.
    traffic: BTreeMap<u64, u64>,
    clicks: Delays,
    conversions: Delays,
    unfollowed: u64,
    /// Where the next look for what may be forgotten begins.
    looked: CampaignId,
}

impl Served {
    /// A request was answered.
    pub fn arrive(&mut self, wall_ms: u64) {
        *self.traffic.entry(wall_ms / HOUR_MS).or_default() += 1;
        while self.traffic.len() > HOURS_MAX {
            self.traffic.pop_first();
        }
    }

    /// An ad was served.
    pub fn deliver(&mut self, campaign: CampaignId, delivered: &Delivered, wall_ms: u64) {
        if !self.campaigns.contains_key(&campaign) && self.campaigns.len() >= CAMPAIGNS_MAX {
            self.unfollowed += 1;
            return;
        }
        let account = self.campaigns.entry(campaign).or_insert_with(|| Account {
            bid_type: delivered.bid_type,
            spend_nanos: 0,
            events_nano: 0,
            price_nanos: 0,
            flight: Flight::default(),
            acknowledged_s: 0,
            served_s: 0,
        });
        (account.bid_type, account.served_s) = (delivered.bid_type, seconds(wall_ms));
        account.price_nanos = price_of_late(account.price_nanos, delivered.price_nanos);
        account.spend_nanos = account.spend_nanos.saturating_add(delivered.spend_nanos);
        account.events_nano = account.events_nano.saturating_add(delivered.events_nano);
        if delivered.billed != EventKind::EventImpression {
            account.flight.record(seconds(wall_ms), delivered.spend_nanos);
            // Reports make flights coarse; while nobody takes them, this does.
            if account.flight.len() >= 2 * BUCKETS_MAX {
                account.flight.compact(seconds(wall_ms), window_s(account.bid_type));
            }
        }
        self.changed.insert(campaign);
    }

    /// An event was charged so long after its ad was served.
    pub fn charged(&mut self, billed: EventKind, delay_ms: u64) {
        match billed {
            EventKind::EventClick => self.clicks.count(delay_ms),
            EventKind::EventConversion => self.conversions.count(delay_ms),
            EventKind::EventImpression | EventKind::EventWin | EventKind::Unspecified => {}
        }
    }

    /// The campaigns of which something is news, and from now on it is none: what is served while they are reported is
    /// for the next report, so that a report ends under any load.
    #[must_use]
    pub fn news(&mut self) -> Vec<CampaignId> {
        std::mem::take(&mut self.changed).into_iter().collect()
    }

    /// The lines of these campaigns.
    pub fn lines(&mut self, campaigns: &[CampaignId], wall_ms: u64) -> Vec<Line> {
        let now_s = seconds(wall_ms);
        let one = |campaign: &CampaignId| {
            let account = self.campaigns.get_mut(campaign)?;
            account.flight.compact(now_s, window_s(account.bid_type));
            Some(Line {
                campaign: *campaign,
                bid_type: account.bid_type,
                spend_nanos: account.spend_nanos,
                events_nano: account.events_nano,
                price_nanos: account.price_nanos,
                buckets: account.flight.since(account.acknowledged_s).collect(),
            })
        };
        campaigns.iter().filter_map(one).collect()
    }

    /// The pacer has these lines.
    pub fn acknowledged(&mut self, lines: &[Line]) {
        for line in lines {
            if let (Some(account), Some(last)) = (self.campaigns.get_mut(&line.campaign), line.buckets.last()) {
                account.acknowledged_s = last.start_s;
            }
        }
    }

    /// Nobody took the lines of these: they are still news.
    pub fn returned(&mut self, campaigns: &[CampaignId]) {
        self.changed.extend(campaigns);
    }

    /// The pacer holds nothing: everything is news.
    pub fn renew(&mut self) {
        for account in self.campaigns.values_mut() {
            account.acknowledged_s = 0;
        }
        self.changed = self.campaigns.keys().copied().collect();
    }

    /// Looks at the next [`STEP`] campaigns, and forgets those of them that served nothing within their window, once they
    /// are known to the pacer.
    pub fn forget(&mut self, wall_ms: u64) {
        let now_s = seconds(wall_ms);
        let over = |account: &Account| account.served_s.saturating_add(window_s(account.bid_type).max(KEEP_S)) <= now_s;
        let looked: Vec<(CampaignId, bool)> =
            self.campaigns.range(self.looked..).take(STEP).map(|(id, account)| (*id, over(account))).collect();
        for (id, _) in looked.iter().filter(|(id, over)| *over && !self.changed.contains(id)) {
            self.campaigns.remove(id);
        }
        let next = looked.last().filter(|_| looked.len() == STEP).map_or(0, |(id, _)| id.0.saturating_add(1));
        self.looked = CampaignId(next);
    }

    /// Requests by hours since 1970.
    #[must_use]
    pub const fn traffic(&self) -> &BTreeMap<u64, u64> {
        &self.traffic
    }

    /// Delays of clicks and of conversions.
    #[must_use]
    pub const fn delays(&self) -> [&Delays; 2] {
        [&self.clicks, &self.conversions]
    }

    /// How many campaigns are followed, and how many ads of others were served.
    #[must_use]
    pub fn counts(&self) -> (usize, u64) {
        (self.campaigns.len(), self.unfollowed)
    }
}

fn seconds(wall_ms: u64) -> u32 {
    u32::try_from(wall_ms / 1_000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const C: CampaignId = CampaignId(7);
    const NOW: u64 = 1_700_000_000_000;

    fn click(spend_nanos: i64) -> Delivered {
        let (bid_type, billed) = (BidType::Cpc, EventKind::EventClick);
        Delivered { bid_type, billed, spend_nanos, events_nano: 10_000, price_nanos: 500 }
    }

    fn total(lines: &[Line]) -> i64 {
        lines.iter().flat_map(|line| &line.buckets).map(|bucket| bucket.nanos).sum()
    }

    /// What is news, and its lines.
    fn report(served: &mut Served, wall_ms: u64) -> Vec<Line> {
        let news = served.news();
        served.lines(&news, wall_ms)
    }

    #[test]
    fn only_what_changed_is_reported_again() {
        let mut served = Served::default();
        served.deliver(C, &click(5), NOW);
        let first = report(&mut served, NOW);
        assert_eq!((first.len(), total(&first), first[0].spend_nanos), (1, 5, 5));
        assert!(report(&mut served, NOW).is_empty());
        served.returned(&[C]);
        assert_eq!(report(&mut served, NOW), first, "nobody took it");
        served.acknowledged(&first);
        served.deliver(C, &click(6), NOW + 60_000);
        let second = report(&mut served, NOW + 60_000);
        assert_eq!((total(&second), second[0].spend_nanos, second[0].events_nano), (11, 11, 20_000));
        served.acknowledged(&second);
        served.deliver(C, &click(1), NOW + 70_000);
        let third = report(&mut served, NOW + 70_000);
        assert_eq!(total(&third), 7, "the bucket that may still grow, and what came after");
        served.renew();
        assert_eq!(total(&report(&mut served, NOW + 70_000)), 12);
    }

    /// A report went on for as long as anything was served meanwhile, which under load is always.
    #[test]
    fn what_is_served_during_a_report_waits_for_the_next() {
        let mut served = Served::default();
        served.deliver(C, &click(5), NOW);
        let news = served.news();
        served.deliver(C, &click(6), NOW);
        served.deliver(CampaignId(1), &click(6), NOW);
        assert_eq!(news, [C]);
        let lines = served.lines(&news, NOW);
        assert_eq!(total(&lines), 11);
        served.acknowledged(&lines);
        served.deliver(C, &click(1), NOW);
        assert_eq!(served.news(), [CampaignId(1), C]);
        assert!(served.news().is_empty());
    }

    #[test]
    fn impressions_have_no_flight_and_forgotten_campaigns_no_memory() {
        let mut served = Served::default();
        let cpm = Delivered { bid_type: BidType::Cpm, billed: EventKind::EventImpression, ..click(9) };
        let cpa = Delivered { bid_type: BidType::Cpa, billed: EventKind::EventConversion, ..click(9) };
        served.deliver(C, &cpm, NOW);
        served.deliver(CampaignId(8), &click(5), NOW);
        served.deliver(CampaignId(9), &cpa, NOW);
        let lines = report(&mut served, NOW);
        assert_eq!((lines[0].buckets.len(), lines[0].spend_nanos, lines[1].buckets.len()), (0, 9, 1));
        served.acknowledged(&lines);
        served.forget(NOW + 600_000);
        assert_eq!(served.counts().0, 3, "a campaign may serve again, and a click come for a day");
        served.forget(NOW + 90_000_000);
        assert_eq!(served.counts().0, 1, "a conversion may come for a week");
        served.deliver(CampaignId(9), &cpa, NOW);
        served.forget(NOW + 900_000_000);
        assert_eq!(served.counts().0, 1, "it is news");
        drop(served.news());
        served.forget(NOW + 900_000_000);
        assert_eq!(served.counts().0, 0);
    }

    /// A flight took a bucket every five seconds for as long as no leader answered.
    #[test]
    fn a_flight_is_bounded_while_nobody_takes_reports() {
        let mut served = Served::default();
        let (rounds, half_way) = (17_280, 8_640);
        for round in 0..rounds {
            served.deliver(C, &click(1), NOW + round * 5_000);
            assert!(served.campaigns[&C].flight.len() < 2 * BUCKETS_MAX, "round {round}");
            if round == half_way {
                // What was reported before is known, and made coarse with what is not.
                let lines = report(&mut served, NOW + round * 5_000);
                served.acknowledged(&lines);
            }
        }
        let lines = report(&mut served, NOW + rounds * 5_000);
        assert!(lines[0].buckets.len() <= BUCKETS_MAX);
        served.renew();
        assert_eq!(total(&report(&mut served, NOW + rounds * 5_000)), 17_280, "all of a day is there");
    }

    #[test]
    fn all_are_looked_at_in_turn() {
        let mut served = Served::default();
        (0..300).for_each(|id| served.deliver(CampaignId(id), &click(5), NOW));
        drop(served.news());
        let mut left = || {
            served.forget(NOW + 90_000_000);
            served.counts().0
        };
        assert_eq!([left(), left(), left()], [300 - STEP, 300 - 2 * STEP, 0]);
    }

    #[test]
    fn a_week_of_hours_is_kept() {
        let mut served = Served::default();
        (0..400).for_each(|hour| served.arrive(NOW + hour * HOUR_MS));
        assert_eq!(served.traffic().len(), HOURS_MAX);
        served.charged(EventKind::EventClick, 3_000);
        assert_eq!(served.delays()[0].counts()[2], 1);
    }
}
