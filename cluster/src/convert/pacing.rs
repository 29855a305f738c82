//! What does a router's report of what it served say?

use gavel_proto::limits::SERVED_LINES_MAX;
use gavel_proto::pacing::Delays;
use gavel_proto::pacing::served::{HOURS_MAX, Line};
use gavel_proto::wire;

use super::{Malformed, malformed};
use crate::pacing::heard::Report;

/// The last hour whose seconds fit 32 bits, as all times of the pacer do.
const HOUR_LAST: u64 = (u32::MAX / 3_600) as u64;
/// Requests of an hour; more are taken for as many. Ours: 300 million a second.
const REQUESTS_MAX: u64 = 1 << 40;

/// Reads a report.
///
/// # Errors
/// When it or a number of it is beyond its limits, or its lists do not fit each other.
pub fn report(m: &wire::ServedReport) -> Result<Report, Malformed> {
    if m.campaigns.len() > SERVED_LINES_MAX || m.traffic_hours.len() > HOURS_MAX {
        return Err(malformed("served_report beyond the limits"));
    }
    if m.traffic_hours.len() != m.traffic_requests.len() {
        return Err(malformed("served_report.traffic_requests"));
    }
    if m.traffic_hours.iter().any(|hour| *hour > HOUR_LAST) {
        return Err(malformed("served_report.traffic_hours"));
    }
    let lines: Result<Vec<Line>, &'static str> = m.campaigns.iter().map(Line::of_wire).collect();
    let requests = m.traffic_requests.iter().map(|requests| (*requests).min(REQUESTS_MAX));
    Ok(Report {
        lines: lines.map_err(malformed)?,
        traffic: m.traffic_hours.iter().copied().zip(requests).collect(),
        clicks: Delays::of(&m.click_delays),
        conversions: Delays::of(&m.conversion_delays),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pacing::heard::{Begins, Heard, ProcessId};
    use crate::pacing::traffic::{Curves, Traffic};
    use gavel_proto::ids::CampaignId;
    use gavel_proto::limits::LEDGER_AMOUNT_NANOS_MAX;
    use gavel_proto::pacing::flight::Bucket;

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

    fn of_hours(hours: Vec<u64>, requests: u64) -> wire::ServedReport {
        let traffic_requests = vec![requests; hours.len()];
        wire::ServedReport { traffic_hours: hours, traffic_requests, ..Default::default() }
    }

    #[test]
    fn hours_that_never_come_are_refused() {
        for hour in [HOUR_LAST + 1, u64::MAX - 1, u64::MAX] {
            assert_eq!(report(&of_hours(vec![500_000, hour], 1)), Err(malformed("served_report.traffic_hours")));
        }
        assert!(report(&of_hours(vec![0, HOUR_LAST], 1)).is_ok());
    }

    /// Sums of such a report overflowed, which ended every round of the pacer for as long as the report was held.
    #[test]
    fn a_round_survives_the_largest_numbers_that_are_taken() {
        let now_s = 500_000 * 3_600;
        let line = wire::ServedCampaign {
            campaign_id: 1,
            bid_type: 3,
            spend_nanos: LEDGER_AMOUNT_NANOS_MAX,
            events_nano: u64::MAX,
            price_nanos: LEDGER_AMOUNT_NANOS_MAX,
            starts_s: vec![0, now_s - 21_600, u32::MAX],
            widths_s: vec![21_600, 21_600, 21_600],
            nanos: vec![LEDGER_AMOUNT_NANOS_MAX; 3],
        };
        let hours = (0..HOURS_MAX as u64).map(|hour| 500_001 - hour).collect();
        let mut said = wire::ServedReport { campaigns: vec![line; 2], ..of_hours(hours, u64::MAX) };
        (said.click_delays, said.conversion_delays) = (vec![u64::MAX; 30], vec![u64::MAX; 30]);
        let mut heard = Heard::default();
        for member in 1..40 {
            heard.hear(ProcessId { member, incarnation: 1 }, Begins::Anew, report(&said).unwrap(), now_s);
        }
        assert_eq!(heard.traffic().into_values().max(), Some(39 * REQUESTS_MAX));
        let mut curves = Curves::new(Traffic::of(&heard.traffic(), u64::from(now_s) * 1_000));
        let share = curves.share((499_992 * 3_600_000, 7 * 24 * 3_600_000), 500_000 * 3_600_000);
        assert!((share - 8.0 / 168.0).abs() < 1e-3, "{share}");
        let campaign = CampaignId(1);
        assert_eq!(heard.in_flight(campaign, 0, now_s, &heard.arrivals()), i64::MAX);
        assert_eq!(heard.sold(campaign).map(|sold| sold.price_nanos), Some(LEDGER_AMOUNT_NANOS_MAX));
    }
}
