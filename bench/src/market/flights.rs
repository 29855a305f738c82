//! What was served and may still be charged?
//!
//! The sums of a router and the pacer's look at them: expectations by the time of serving, aged by how long after their
//! ads events were seen to come. They are those of the cluster (`gavel_proto::pacing`), with its priors and windows.

use gavel_control::pacing::heard::Sold;
use gavel_proto::money::BidType;
use gavel_proto::pacing::arrival::window_s;
use gavel_proto::pacing::flight::price_of_late;
use gavel_proto::pacing::{Arrivals, Delays, Flight};

/// What of one campaign is under way.
#[derive(Clone, Debug, Default)]
struct Served {
    flight: Flight,
    price: i64,
    /// Expected when served, ever: spending on what is billed later, and events of the bid in thousand-millionths.
    spend: i64,
    events_nano: u64,
}

/// What is under way of all.
#[derive(Clone, Debug)]
pub struct Flights {
    served: Vec<Served>,
    clicks: Delays,
    conversions: Delays,
}

impl Flights {
    /// Nothing.
    pub fn new(campaigns: usize) -> Self {
        Self { served: vec![Served::default(); campaigns], clicks: Delays::default(), conversions: Delays::default() }
    }

    /// An ad was served: its price, and of what is billed later the chance of the event.
    pub fn serve(&mut self, campaign: u32, at_ms: u64, price: i64, chance: f64) {
        let served = &mut self.served[campaign as usize];
        served.price = price_of_late(served.price, price);
        // At most the price, and a thousand million.
        let expected = (price as f64 * chance) as i64;
        served.spend += expected;
        served.events_nano += (chance * 1e9) as u64;
        if expected > 0 {
            served.flight.record(seconds(at_ms), expected);
        }
    }

    /// An event was charged so long after its ad was served.
    pub fn charged(&mut self, bid_type: BidType, delay_ms: u64) {
        match bid_type {
            BidType::Cpc | BidType::Ocpc => self.clicks.count(delay_ms),
            BidType::Cpa => self.conversions.count(delay_ms),
            // Billed at once.
            BidType::Cpm | BidType::Ocpm => {}
        }
    }

    /// What is known of a campaign's sales; `None` when nothing of it was served yet.
    pub fn sold(&self, campaign: u32) -> Option<Sold> {
        let served = &self.served[campaign as usize];
        let sold = Sold { spend_nanos: served.spend, events_nano: served.events_nano, price_nanos: served.price };
        Some(sold).filter(|sold| sold.price_nanos > 0)
    }

    /// How events come.
    pub fn ages(&self) -> Arrivals {
        Arrivals::new(&self.clicks, &self.conversions)
    }

    /// What of a campaign was served from an instant on and is still to come.
    pub fn in_flight(&self, campaign: u32, bid_type: BidType, (since_ms, now_ms): (u64, u64), ages: &Arrivals) -> i64 {
        let arrival = ages.of(bid_type);
        let flight = &self.served[campaign as usize].flight;
        // Far below the cast's range.
        flight.to_come(seconds(now_ms), seconds(since_ms), |age| arrival.remaining(age)).ceil() as i64
    }

    /// Widens what has grown old.
    pub fn compact(&mut self, campaign: u32, bid_type: BidType, now_ms: u64) {
        self.served[campaign as usize].flight.compact(seconds(now_ms), window_s(bid_type));
    }
}

fn seconds(ms: u64) -> u32 {
    u32::try_from(ms / 1_000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_ages_and_belongs_to_its_period() {
        let mut flights = Flights::new(2);
        assert_eq!(flights.sold(0), None);
        flights.serve(0, 1_000, 160, 0.625);
        flights.serve(1, 1_000, 160, 0.625);
        flights.serve(0, 61_000, 320, 0.3125);
        assert_eq!(flights.sold(0), Some(Sold { spend_nanos: 200, events_nano: 937_500_000, price_nanos: 170 }));
        let ages = flights.ages();
        let at = |campaign, bid_type, since_ms, now_s: u64| {
            flights.in_flight(campaign, bid_type, (since_ms, now_s * 1_000), &ages)
        };
        assert!(at(0, BidType::Cpc, 0, 61) < 150, "half of the clicks come in half a minute");
        assert!(at(1, BidType::Cpa, 0, 61) > 95, "half of the conversions in an hour");
        assert_eq!(at(0, BidType::Cpc, 65_000, 65), 0, "of the period before");
    }
}
