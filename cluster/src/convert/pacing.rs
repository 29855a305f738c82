//! What does a router's report of what it served say?

use gavel_proto::ids::CampaignId;
use gavel_proto::limits::SERVED_LINES_MAX;
use gavel_proto::money::BidType;
use gavel_proto::pacing::Delays;
use gavel_proto::pacing::flight::{BUCKETS_MAX, Bucket};
use gavel_proto::wire;

use super::{Malformed, malformed};
use crate::pacing::heard::{HOURS_MAX, Line, Report};

/// Reads a report.
///
/// # Errors
/// When it is beyond its limits, or its lists do not fit each other.
pub fn report(m: &wire::ServedReport) -> Result<Report, Malformed> {
    if m.campaigns.len() > SERVED_LINES_MAX || m.traffic_hours.len() > HOURS_MAX {
        return Err(malformed("served_report beyond the limits"));
    }
    if m.traffic_hours.len() != m.traffic_requests.len() {
        return Err(malformed("served_report.traffic_requests"));
    }
    Ok(Report {
        lines: m.campaigns.iter().map(line).collect::<Result<_, _>>()?,
        traffic: m.traffic_hours.iter().copied().zip(m.traffic_requests.iter().copied()).collect(),
        clicks: Delays::of(&m.click_delays),
        conversions: Delays::of(&m.conversion_delays),
    })
}

fn line(m: &wire::ServedCampaign) -> Result<Line, Malformed> {
    let count = m.starts_s.len();
    if count > BUCKETS_MAX || m.widths_s.len() != count || m.nanos.len() != count {
        return Err(malformed("served_campaign.starts_s"));
    }
    let buckets = m.starts_s.iter().zip(&m.widths_s).zip(&m.nanos);
    let bucket = |((start_s, width_s), nanos): ((&u32, &u32), &i64)| Bucket {
        start_s: *start_s,
        width_s: *width_s,
        nanos: *nanos,
    };
    Ok(Line {
        campaign: CampaignId(m.campaign_id),
        bid_type: BidType::from_number(m.bid_type).ok_or_else(|| malformed("served_campaign.bid_type"))?,
        spend_nanos: m.spend_nanos,
        events_nano: m.events_nano,
        price_nanos: m.price_nanos,
        buckets: buckets.map(bucket).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_different_lengths_are_refused() {
        let line = wire::ServedCampaign { campaign_id: 1, bid_type: 2, starts_s: vec![5], ..Default::default() };
        let whole = wire::ServedCampaign { widths_s: vec![5], nanos: vec![9], ..line.clone() };
        let read = |line: &wire::ServedCampaign| {
            report(&wire::ServedReport { campaigns: vec![line.clone()], ..Default::default() })
        };
        assert_eq!(read(&whole).unwrap().lines[0].buckets, [Bucket { start_s: 5, width_s: 5, nanos: 9 }]);
        assert!(read(&line).is_err());
        assert!(read(&wire::ServedCampaign { bid_type: 0, ..whole }).is_err());
        assert!(report(&wire::ServedReport { traffic_hours: vec![1], ..Default::default() }).is_err());
    }
}
