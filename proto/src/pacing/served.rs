//! What does a router say of one campaign that it served, and how does that travel?
//!
//! Whole sums, so that a repetition changes nothing, and of what is billed later those by the time of serving that may
//! have changed. What comes in is parsed: beyond its bounds it is no report, and nobody has to look again. What goes out
//! is capped at the same bounds, so that a router's own report is never refused for its amounts.

use super::flight::{BUCKETS_MAX, Bucket, WIDTH_MAX_S};
use crate::ids::CampaignId;
use crate::limits::LEDGER_AMOUNT_NANOS_MAX;
use crate::money::BidType;
use crate::wire;

/// Hours of requests that a router keeps and reports: a week and a day.
pub const HOURS_MAX: usize = 192;

/// One campaign of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Which.
    pub campaign: CampaignId,
    /// In which event it bids.
    pub bid_type: BidType,
    /// Expected spending since the process started.
    pub spend_nanos: i64,
    /// Expected events of the bid, in thousand-millionths.
    pub events_nano: u64,
    /// What must be left for one more, a mean of late.
    pub price_nanos: i64,
    /// What is billed later by the time of serving, in the place of all from the first of these on.
    pub buckets: Vec<Bucket>,
}

impl Line {
    /// For the wire.
    #[must_use]
    pub fn to_wire(&self) -> wire::ServedCampaign {
        let capped = |nanos: i64| nanos.clamp(0, LEDGER_AMOUNT_NANOS_MAX);
        wire::ServedCampaign {
            campaign_id: self.campaign.0,
            bid_type: self.bid_type.number(),
            spend_nanos: capped(self.spend_nanos),
            events_nano: self.events_nano,
            price_nanos: capped(self.price_nanos),
            starts_s: self.buckets.iter().map(|bucket| bucket.start_s).collect(),
            widths_s: self.buckets.iter().map(|bucket| bucket.width_s).collect(),
            nanos: self.buckets.iter().map(|bucket| capped(bucket.nanos)).collect(),
        }
    }

    /// Of the wire.
    ///
    /// # Errors
    /// Names the field whose lists do not fit each other, or that is beyond its bounds.
    pub fn of_wire(m: &wire::ServedCampaign) -> Result<Self, &'static str> {
        let count = m.starts_s.len();
        if count > BUCKETS_MAX || m.widths_s.len() != count || m.nanos.len() != count {
            return Err("served_campaign.starts_s");
        }
        let is_amount = |nanos: &i64| (0..=LEDGER_AMOUNT_NANOS_MAX).contains(nanos);
        if !is_amount(&m.spend_nanos) {
            return Err("served_campaign.spend_nanos");
        }
        if !is_amount(&m.price_nanos) {
            return Err("served_campaign.price_nanos");
        }
        if !m.nanos.iter().all(is_amount) {
            return Err("served_campaign.nanos");
        }
        // A wider bucket would never be old.
        if !m.widths_s.iter().all(|width_s| (1..=WIDTH_MAX_S).contains(width_s)) {
            return Err("served_campaign.widths_s");
        }
        let buckets = m.starts_s.iter().zip(&m.widths_s).zip(&m.nanos);
        let bucket = |((start_s, width_s), nanos): ((&u32, &u32), &i64)| Bucket {
            start_s: *start_s,
            width_s: *width_s,
            nanos: *nanos,
        };
        Ok(Self {
            campaign: CampaignId(m.campaign_id),
            bid_type: BidType::from_number(m.bid_type).ok_or("served_campaign.bid_type")?,
            spend_nanos: m.spend_nanos,
            events_nano: m.events_nano,
            price_nanos: m.price_nanos,
            buckets: buckets.map(bucket).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        let bucket = |start_s: u32, width_s| Bucket { start_s, width_s, nanos: i64::from(start_s) };
        Line {
            campaign: CampaignId(7),
            bid_type: BidType::Cpc,
            spend_nanos: 90,
            events_nano: u64::MAX,
            price_nanos: 11,
            buckets: vec![bucket(0, WIDTH_MAX_S), bucket(21_600, 60), bucket(21_660, 5)],
        }
    }

    #[test]
    fn a_line_comes_back_as_it_went() {
        assert_eq!(Line::of_wire(&line().to_wire()), Ok(line()));
        let large = Line { spend_nanos: i64::MAX, ..line() };
        let capped = Line { spend_nanos: LEDGER_AMOUNT_NANOS_MAX, ..line() };
        assert_eq!(Line::of_wire(&large.to_wire()), Ok(capped), "a router's sums are never refused");
    }

    #[test]
    fn what_is_beyond_its_bounds_is_refused_by_name() {
        let good = || line().to_wire();
        let refused = |m: wire::ServedCampaign| Line::of_wire(&m).unwrap_err();
        assert_eq!(refused(wire::ServedCampaign { nanos: vec![1], ..good() }), "served_campaign.starts_s");
        assert_eq!(refused(wire::ServedCampaign { widths_s: vec![5; 2], ..good() }), "served_campaign.starts_s");
        let many = || vec![1; BUCKETS_MAX + 1];
        let long =
            wire::ServedCampaign { starts_s: many(), widths_s: many(), nanos: vec![1; BUCKETS_MAX + 1], ..good() };
        assert_eq!(refused(long), "served_campaign.starts_s");
        assert_eq!(refused(wire::ServedCampaign { bid_type: 0, ..good() }), "served_campaign.bid_type");
        for width_s in [0, WIDTH_MAX_S + 1, u32::MAX] {
            let wide = wire::ServedCampaign { widths_s: vec![5, width_s, 5], ..good() };
            assert_eq!(refused(wide), "served_campaign.widths_s");
        }
        for nanos in [-1, LEDGER_AMOUNT_NANOS_MAX + 1, i64::MIN, i64::MAX] {
            let buckets = wire::ServedCampaign { nanos: vec![0, nanos, 0], ..good() };
            assert_eq!(refused(buckets), "served_campaign.nanos");
            assert_eq!(refused(wire::ServedCampaign { spend_nanos: nanos, ..good() }), "served_campaign.spend_nanos");
            assert_eq!(refused(wire::ServedCampaign { price_nanos: nanos, ..good() }), "served_campaign.price_nanos");
        }
    }
}
