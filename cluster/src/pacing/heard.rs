//! What did routers say that they served?
//!
//! Each router's process reports sums of its own; together they say what is in flight of a campaign, what it spends and
//! what that brings, how long events take, and what an hour's traffic is. Reports are the leader's own, like heartbeats: a
//! new leader holds nothing, says so, and has everything again with the next report of each router. What was said of a
//! campaign stays until its windows are over, as long as this leader leads, whether its router lives or has died.

use std::collections::BTreeMap;

use gavel_proto::ids::CampaignId;
use gavel_proto::limits::{MEMBERS_MAX, SERVED_PARTS_MAX};
use gavel_proto::money::BidType;
use gavel_proto::pacing::arrival::{CLICK_S, CONVERSION_S, window_s};
use gavel_proto::pacing::served::{HOURS_MAX, Line};
use gavel_proto::pacing::{Arrivals, Delays, Flight};

/// What claims to be served later than this from now has a wrong clock, and would never age.
const FUTURE_S: u32 = 3_600;
/// A process that is silent for so long while another reports has gone. Ours: thirty reports.
const SILENT_S: u32 = 60;

/// A router's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProcessId {
    /// The router.
    pub member: u64,
    /// New at every start.
    pub incarnation: u64,
}

/// One report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What has changed.
    pub lines: Vec<Line>,
    /// Requests by hours since 1970.
    pub traffic: BTreeMap<u64, u64>,
    /// Delays of charged clicks.
    pub clicks: Delays,
    /// Delays of charged conversions.
    pub conversions: Delays,
}

/// Does a report go on from the one before?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begins {
    /// It holds everything.
    Anew,
    /// It holds what has changed.
    Further,
}

/// Is anything held of the process that reported?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// The report was taken.
    Yes,
    /// It says what changed since something that this leader never heard.
    No,
}

#[derive(Clone, Debug)]
struct Part {
    by: ProcessId,
    /// When it was last said, which is when it had changed.
    told_s: u32,
    bid_type: BidType,
    spend_nanos: i64,
    events_nano: u64,
    price_nanos: i64,
    flight: Flight,
}

#[derive(Clone, Debug, Default)]
struct Process {
    heard_s: u32,
    traffic: BTreeMap<u64, u64>,
    clicks: Delays,
    conversions: Delays,
}

/// What all routers together say of one campaign.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sold {
    /// Expected spending, ever.
    pub spend_nanos: i64,
    /// Expected events of the bid, ever, in thousand-millionths.
    pub events_nano: u64,
    /// What must be left for one more.
    pub price_nanos: i64,
}

/// Everything that this leader heard.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    term: u64,
    processes: BTreeMap<ProcessId, Process>,
    parts: BTreeMap<CampaignId, Vec<Part>>,
    count: usize,
    dropped: u64,
}

impl Heard {
    /// What was heard belongs to one term: a leader that led, lost and leads again has missed what came between.
    pub fn attend(&mut self, term: u64) {
        if self.term != term {
            *self = Self { term, ..Self::default() };
        }
    }

    /// Takes a report.
    pub fn hear(&mut self, by: ProcessId, begins: Begins, report: Report, now_s: u32) -> Known {
        match begins {
            Begins::Anew => self.drop_process(by),
            Begins::Further if !self.processes.contains_key(&by) => return Known::No,
            Begins::Further => {}
        }
        let Report { lines, mut traffic, clicks, conversions } = report;
        while traffic.len() > HOURS_MAX {
            traffic.pop_first();
        }
        self.processes.insert(by, Process { heard_s: now_s, traffic, clicks, conversions });
        if self.processes.len() > 2 * MEMBERS_MAX {
            let oldest = self.processes.iter().min_by_key(|(_, process)| process.heard_s).map(|(id, _)| *id);
            oldest.into_iter().for_each(|id| self.drop_process(id));
        }
        lines.into_iter().for_each(|line| self.take(by, line, now_s));
        Known::Yes
    }

    fn take(&mut self, by: ProcessId, line: Line, now_s: u32) {
        let parts = self.parts.entry(line.campaign).or_default();
        let at = parts.iter().position(|part| part.by == by);
        if at.is_none() && self.count >= SERVED_PARTS_MAX {
            self.dropped += 1;
            if parts.is_empty() {
                self.parts.remove(&line.campaign);
            }
            return;
        }
        let at = at.unwrap_or_else(|| {
            self.count += 1;
            let (bid_type, flight) = (line.bid_type, Flight::default());
            parts.push(Part { by, told_s: now_s, bid_type, spend_nanos: 0, events_nano: 0, price_nanos: 0, flight });
            parts.len() - 1
        });
        let part = &mut parts[at];
        (part.told_s, part.bid_type) = (now_s, line.bid_type);
        (part.spend_nanos, part.events_nano, part.price_nanos) = (line.spend_nanos, line.events_nano, line.price_nanos);
        let latest_s = now_s.saturating_add(FUTURE_S);
        part.flight.replace(line.buckets.into_iter().filter(|b| b.start_s <= latest_s));
        part.flight.compact(now_s, window_s(part.bid_type));
    }

    /// Everything of one process.
    fn drop_process(&mut self, by: ProcessId) {
        if self.processes.remove(&by).is_none() {
            return;
        }
        let count = &mut self.count;
        self.parts.retain(|_, parts| {
            let before = parts.len();
            parts.retain(|part| part.by != by);
            *count -= before - parts.len();
            !parts.is_empty()
        });
    }

    /// Drops what is over of the campaigns after one, at most so many, and names the last that was looked at. A price that
    /// nobody has said again for as long as a click may come is over, too: its campaign serves nothing, perhaps because
    /// of that price. Processes go once nothing of theirs is left.
    pub fn forget(&mut self, after: Option<CampaignId>, max: usize, now_s: u32) -> Option<CampaignId> {
        let from = after.map_or(CampaignId(0), |id| CampaignId(id.0.saturating_add(1)));
        let looked: Vec<CampaignId> = self.parts.range(from..).take(max).map(|(id, _)| *id).collect();
        for id in &looked {
            let Some(parts) = self.parts.get_mut(id) else { continue };
            let before = parts.len();
            parts.retain_mut(|part| {
                let window_s = window_s(part.bid_type);
                part.flight.compact(now_s, window_s);
                !part.flight.is_empty() || now_s.saturating_sub(part.told_s) < window_s.max(CLICK_S)
            });
            self.count -= before - parts.len();
            if parts.is_empty() {
                self.parts.remove(id);
            }
        }
        self.processes.retain(|_, process| now_s.saturating_sub(process.heard_s) < 2 * CONVERSION_S);
        looked.last().copied().filter(|_| looked.len() == max)
    }

    /// Whether a process has reported.
    #[must_use]
    pub fn has_heard(&self, by: ProcessId) -> bool {
        self.processes.contains_key(&by)
    }

    /// What was sold of a campaign. Its price is the lowest of the processes that reported last: those that have gone sold
    /// in another market.
    #[must_use]
    pub fn sold(&self, campaign: CampaignId) -> Option<Sold> {
        let parts = self.parts.get(&campaign)?;
        let heard_s = |part: &Part| self.processes.get(&part.by).map_or(0, |process| process.heard_s);
        let newest_s = parts.iter().map(heard_s).max()?;
        let mut sold = Sold { spend_nanos: 0, events_nano: 0, price_nanos: i64::MAX };
        for part in parts {
            sold.spend_nanos = sold.spend_nanos.saturating_add(part.spend_nanos);
            sold.events_nano = sold.events_nano.saturating_add(part.events_nano);
            if heard_s(part).saturating_add(SILENT_S) >= newest_s {
                sold.price_nanos = sold.price_nanos.min(part.price_nanos);
            }
        }
        Some(sold)
    }

    /// What of a campaign was served from an instant on and is still to come.
    #[must_use]
    pub fn in_flight(&self, campaign: CampaignId, since_s: u32, now_s: u32, arrivals: &Arrivals) -> i64 {
        let parts = self.parts.get(&campaign).map(Vec::as_slice).unwrap_or_default();
        let one = |part: &Part| {
            let arrival = arrivals.of(part.bid_type);
            part.flight.to_come(now_s, since_s, |age| arrival.remaining(age))
        };
        // Far below the cast's range: amounts of the ledger are.
        parts.iter().map(one).sum::<f64>().ceil() as i64
    }

    /// How long events take.
    #[must_use]
    pub fn arrivals(&self) -> Arrivals {
        let (mut clicks, mut conversions) = (Delays::default(), Delays::default());
        for process in self.processes.values() {
            clicks.add(&process.clicks);
            conversions.add(&process.conversions);
        }
        Arrivals::new(&clicks, &conversions)
    }

    /// Requests of all by hours since 1970.
    #[must_use]
    pub fn traffic(&self) -> BTreeMap<u64, u64> {
        let mut sums = BTreeMap::new();
        for (hour, count) in self.processes.values().flat_map(|process| &process.traffic) {
            let sum: &mut u64 = sums.entry(*hour).or_default();
            *sum = sum.saturating_add(*count);
        }
        sums
    }

    /// How many campaigns times processes are held, and how many lines found no place.
    #[must_use]
    pub const fn counts(&self) -> (usize, u64) {
        (self.count, self.dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gavel_proto::pacing::flight::Bucket;

    const C: CampaignId = CampaignId(5);
    const NOW: u32 = 1_700_000_000;

    fn by(member: u64) -> ProcessId {
        ProcessId { member, incarnation: 1 }
    }

    fn report(spend_nanos: i64, at_s: u32) -> Report {
        let buckets = vec![Bucket { start_s: at_s, width_s: 5, nanos: spend_nanos }];
        let (bid_type, price_nanos) = (BidType::Cpc, 10);
        let line = Line { campaign: C, bid_type, spend_nanos, events_nano: 7, price_nanos, buckets };
        Report { lines: vec![line], ..Report::default() }
    }

    fn in_flight(heard: &Heard, since_s: u32) -> i64 {
        heard.in_flight(C, since_s, NOW, &heard.arrivals())
    }

    #[test]
    fn routers_add_up_and_a_repetition_does_not() {
        let mut heard = Heard::default();
        heard.attend(3);
        assert_eq!(heard.hear(by(1), Begins::Further, report(100, NOW), NOW), Known::No);
        assert_eq!(heard.sold(C), None);
        for _ in 0..2 {
            assert_eq!(heard.hear(by(1), Begins::Anew, report(100, NOW), NOW), Known::Yes);
            assert_eq!(heard.hear(by(2), Begins::Anew, report(50, NOW), NOW), Known::Yes);
        }
        let sold = heard.sold(C).unwrap();
        assert_eq!((sold.spend_nanos, sold.events_nano, sold.price_nanos), (150, 14, 10));
        assert_eq!((in_flight(&heard, 0), in_flight(&heard, NOW + 5)), (150, 0));
        heard.attend(3);
        assert!(heard.sold(C).is_some());
        heard.attend(4);
        assert_eq!(heard.sold(C), None, "another term has heard nothing");
    }

    #[test]
    fn what_a_dead_router_served_stays_until_its_window_is_over() {
        let mut heard = Heard::default();
        heard.hear(by(1), Begins::Anew, report(100, NOW), NOW);
        assert_eq!(heard.forget(None, 10, NOW + CLICK_S - 10), None);
        assert_eq!(heard.counts(), (1, 0));
        heard.forget(None, 10, NOW + 8 * CLICK_S);
        assert_eq!(heard.counts(), (0, 0));
        assert_eq!(heard.processes.len(), 1);
        heard.forget(None, 10, NOW + 15 * CLICK_S);
        assert_eq!(heard.processes.len(), 0);
    }

    /// Its router lives and reports every two seconds, of other campaigns: the price of one that it does not serve any
    /// more stayed for good, and with it the campaign stayed out.
    #[test]
    fn what_a_live_router_does_not_say_again_is_dropped() {
        let mut heard = Heard::default();
        heard.hear(by(1), Begins::Anew, report(100, NOW), NOW);
        for hour in 1..48 {
            let now_s = NOW + hour * 3_600;
            assert_eq!(heard.hear(by(1), Begins::Further, Report::default(), now_s), Known::Yes);
            heard.forget(None, 10, now_s);
            assert!(hour >= 24 || heard.sold(C).is_some(), "a click may still come after {hour} hours");
        }
        assert_eq!((heard.sold(C), heard.counts(), heard.has_heard(by(1))), (None, (0, 0), true));
        heard.hear(by(1), Begins::Further, report(150, NOW + 172_800), NOW + 172_800);
        assert_eq!(heard.sold(C).unwrap().spend_nanos, 150, "it is served again");
    }

    #[test]
    fn the_price_is_that_of_the_market_of_today() {
        let mut heard = Heard::default();
        heard.hear(by(1), Begins::Anew, report(100, NOW), NOW);
        let dear = |mut report: Report| {
            report.lines[0].price_nanos = 25;
            report
        };
        heard.hear(by(2), Begins::Anew, dear(report(50, NOW + 30)), NOW + 30);
        assert_eq!(heard.sold(C).unwrap().price_nanos, 10);
        heard.hear(by(2), Begins::Further, dear(report(50, NOW + 90)), NOW + 90);
        assert_eq!(heard.sold(C).unwrap().price_nanos, 25, "the first one has gone");
        assert!(heard.has_heard(by(1)) && !heard.has_heard(by(3)));
    }

    #[test]
    fn half_of_the_clicks_come_in_half_a_minute_before_any_was_seen() {
        let mut heard = Heard::default();
        heard.hear(by(1), Begins::Anew, report(1_000, NOW - 32), NOW);
        let found = in_flight(&heard, 0);
        assert!((470..540).contains(&found), "{found}");
        let mut delays = Delays::default();
        (0..10_000).for_each(|_| delays.count(500_000));
        heard.hear(by(2), Begins::Anew, Report { clicks: delays, ..Report::default() }, NOW);
        assert!(in_flight(&heard, 0) > 980, "they were seen to come later");
    }
}
