//! What came of the charges, for people and for programs?

use super::oracle::WITHHELD;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// One run, in numbers.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Distinct charges: tokens whose event was sent at least once.
    pub charges: u64,
    /// Events sent, copies and tries again included.
    pub sent: u64,
    /// Charges that the ledger holds.
    pub posted: u64,
    /// Charges that were made or acknowledged twice.
    pub double: u64,
    /// Charges that were acknowledged and are not in the ledger under their token's id, payer and price.
    pub lost_acknowledged: u64,
    /// Charges in the ledger that nobody was told of.
    pub unacknowledged: u64,
    /// The most that a budget was ever exceeded by, at any entry.
    pub overspend_micros: u64,
    /// What was served of ads that pay for impressions and is not charged: never reported, too late, or of a dead router.
    pub over_delivered_micros: u64,
    /// The most that this may be, by the leases of the journal: what they held and nobody was charged.
    pub lease_bound_micros: u64,
    /// Of the bound: what leases held in the end whose routers had died.
    pub unreported_lease_micros: u64,
    /// Of the bound: what leases hold that have not ended. Those that live have said their last word on their leases.
    pub open_lease_micros: u64,
    /// Leases that ended without a report.
    pub unreported_leases: u64,
    /// Campaigns of which more was served and not charged than their leases held.
    pub beyond_leases: u64,
    /// Every balance of every voter equals the oracle's.
    pub oracle_equal: bool,
    /// All voters have the same state.
    pub voters_equal: bool,
    /// The audit of every voter's journal found nothing.
    pub audit_clean: bool,
    /// Tokens that were answered both as charged and as not.
    pub contradictory: u64,
    /// Campaigns with a charge.
    pub campaigns: u64,
    /// Campaigns whose budget was used up: an event was delivered free.
    pub exhausted: u64,
    /// What was charged, nanos.
    pub charged_nanos: i64,
    /// Tokens by what became of them.
    pub fates: BTreeMap<String, u64>,
    /// Answers by word.
    pub answers: BTreeMap<String, u64>,
    /// Processes that were killed, by what they were.
    pub kills: BTreeMap<String, u64>,
    /// Requests for ads that failed.
    pub failed_requests: u64,
    /// How long charging took.
    pub seconds: f64,
    /// Distinct charges a second.
    pub charges_per_s: f64,
    /// Milliseconds from a report of events to its answer: median and 99 in a hundred.
    pub report_ms_p50: f64,
    /// See `report_ms_p50`.
    pub report_ms_p99: f64,
    /// What differs, in words.
    pub differences: Vec<String>,
}

impl Report {
    /// Every promise was kept.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        let counts = [
            self.double,
            self.lost_acknowledged,
            self.unacknowledged,
            self.overspend_micros,
            self.contradictory,
            self.beyond_leases,
        ];
        let is_bounded = self.over_delivered_micros <= self.lease_bound_micros;
        // A token that this cluster made is charged, or has one of these reasons not to be; none is forged or foreign.
        let known = ["charged", "over_budget", "expired", "lease_closed", WITHHELD];
        let fates = self.fates.keys().all(|fate| known.contains(&fate.as_str()));
        let is_charged = self.fates.get("charged").is_some_and(|charged| *charged > 0);
        let is_equal = self.oracle_equal && self.voters_equal && self.audit_clean;
        counts == [0; 6] && is_bounded && is_equal && self.differences.is_empty() && fates && is_charged
    }

    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "{} charges, sent {} times in {:.0} s ({:.0} charges/s), kills {:?}",
            self.charges, self.sent, self.seconds, self.charges_per_s, self.kills
        );
        let _ = writeln!(
            out,
            "posted {}  double {}  lost acknowledged {}  overspend {} micros  exhausted campaigns {} of {}",
            self.posted, self.double, self.lost_acknowledged, self.overspend_micros, self.exhausted, self.campaigns
        );
        let _ = writeln!(
            out,
            "over-delivered {} micros, at most {} by leases ({} of {} that were not reported, {} open): {}",
            self.over_delivered_micros,
            self.lease_bound_micros,
            self.unreported_lease_micros,
            self.unreported_leases,
            self.open_lease_micros,
            word(self.over_delivered_micros <= self.lease_bound_micros && self.beyond_leases == 0, "within", "BEYOND")
        );
        let _ = writeln!(
            out,
            "oracle {}  voters {}  audit {}  report p50 {:.0} ms, p99 {:.0} ms",
            word(self.oracle_equal, "equal", "DIFFERENT"),
            word(self.voters_equal, "equal", "DIFFERENT"),
            word(self.audit_clean, "clean", "NOT CLEAN"),
            self.report_ms_p50,
            self.report_ms_p99
        );
        let _ = writeln!(out, "tokens {:?}\nanswers {:?}", self.fates, self.answers);
        for difference in &self.differences {
            let _ = writeln!(out, "  {difference}");
        }
        out
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(std::io::Error::other)?;
        std::fs::write(path, text + "\n")
    }
}

const fn word<'a>(holds: bool, yes: &'a str, no: &'a str) -> &'a str {
    if holds { yes } else { no }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Report {
        Report {
            oracle_equal: true,
            voters_equal: true,
            audit_clean: true,
            over_delivered_micros: 7,
            lease_bound_micros: 7,
            fates: BTreeMap::from([
                ("charged".to_owned(), 3),
                ("lease_closed".to_owned(), 1),
                ("withheld".to_owned(), 1),
            ]),
            ..Report::default()
        }
    }

    /// What is broken.
    type Break = fn(&mut Report);

    #[test]
    fn a_promise_that_is_not_kept_is_an_error() {
        assert!(kept().is_kept() && kept().table().contains("over-delivered 7 micros, at most 7"));
        let breaks: [(&str, Break); 9] = [
            ("double", |r| r.double = 1),
            ("lost", |r| r.lost_acknowledged = 1),
            ("a phantom", |r| r.unacknowledged = 1),
            ("over-delivered", |r| r.over_delivered_micros = 8),
            ("one campaign beyond its leases", |r| r.beyond_leases = 1),
            ("the audit", |r| r.audit_clean = false),
            ("the voters", |r| r.voters_equal = false),
            ("journals that do not say the same", |r| r.differences.push("two voters".to_owned())),
            ("an answer that no token of this cluster has", |r| {
                r.fates.insert("forged".to_owned(), 1);
            }),
        ];
        for (what, wrong) in breaks {
            let mut report = kept();
            wrong(&mut report);
            assert!(!report.is_kept(), "{what}");
        }
    }
}
