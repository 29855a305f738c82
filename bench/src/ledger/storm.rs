//! What happens to a cluster that charges, and what is compared at the end?

use super::LedgerArgs;
use super::audited::{Audited, Held, audit};
use super::kills::{kill, whole};
use super::load::Load;
use super::oracle::{Acknowledged, Oracle, Sold, missing};
use super::report::Report;
use crate::clock::monotonic_us;
use crate::fleet::{CLUSTER, Fleet, FleetError, RETRY, Role, WHOLE_MAX};
use crate::workload::TimedRequest;
use gavel_client::{AdminClient, LedgerClient};
use gavel_proto::hash::combine;
use gavel_proto::wire::ledger_wish::Body;
use gavel_proto::wire::{BalancesReply, LedgerAnswer, SetBudgets};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Wishes of one request.
const WISHES_MAX: usize = 256;
/// One currency unit, in nanos.
const UNIT: i64 = 1_000_000_000;
/// Routers ask every two seconds whether there are budgets; until they know, no lease holds what they serve.
const HEARD: Duration = Duration::from_secs(5);

/// What happened.
pub struct Seen {
    sold: Vec<Sold>,
    sent: u64,
    failed_requests: u64,
    report_us: Vec<u64>,
    kills: BTreeMap<String, u64>,
    took_us: u64,
}

/// Sets budgets, charges and kills; returns when every event is answered and the routers have ended.
pub async fn run(args: &LedgerArgs, fleet: &mut Fleet, requests: Vec<TimedRequest>) -> Result<Seen, FleetError> {
    let admin = AdminClient::new(CLUSTER, fleet.addresses(Role::Control))?;
    whole(&admin).await?;
    let mut ledger = LedgerClient::new(CLUSTER, fleet.addresses(Role::Control))?;
    set_budgets(args, &mut ledger).await?;
    tokio::time::sleep(HEARD).await;
    let load = Load::new(args, &fleet.addresses(Role::Router), requests, monotonic_us)?;
    let (began, is_over) = (monotonic_us(), AtomicBool::new(false));
    let killing = kill(args, fleet, (&admin, &ledger), (&*load, &is_over));
    let charging = async {
        let telling = async {
            loop {
                tokio::time::sleep(Duration::from_secs(10)).await;
                eprintln!(
                    "{} of {} tokens, {} events sent",
                    load.count(),
                    args.charges,
                    load.sent.load(Ordering::Relaxed)
                );
            }
        };
        tokio::select! {
            () = load.run(args.askers) => {}
            () = telling => {}
        }
        is_over.store(true, Ordering::Release);
    };
    let ((), kills) = tokio::join!(charging, killing);
    let (kills, took_us) = (kills?, monotonic_us() - began);
    // Each says its last word on its leases: what is open then is not what a router that lives may still spend.
    tokio::task::block_in_place(|| fleet.end(Role::Router))?;
    let report_us = std::mem::take(&mut *load.report_us.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    Ok(Seen {
        sold: load.take(),
        sent: load.sent.load(Ordering::Relaxed),
        failed_requests: load.failed.load(Ordering::Relaxed),
        report_us,
        kills,
        took_us,
    })
}

/// A budget for every campaign of the catalogue: one in five is small for its life, one for the day.
async fn set_budgets(args: &LedgerArgs, ledger: &mut LedgerClient) -> Result<(), FleetError> {
    let path = args.fleet.catalogue.join("campaigns.jsonl.zst");
    let file = std::fs::File::open(&path).map_err(FleetError::io(&path))?;
    let text = zstd::decode_all(file).map_err(FleetError::io(&path))?;
    let mut wishes = Vec::new();
    for line in String::from_utf8_lossy(&text).lines().filter(|line| !line.trim().is_empty()) {
        let wrong = |e: serde_json::Error| FleetError::Process(format!("{}: {e}", path.display()));
        let campaign: serde_json::Value = serde_json::from_str(line).map_err(wrong)?;
        let number = |name: &str| campaign[name].as_u64().unwrap_or_default();
        let id = number("campaign_id");
        let (day, lifetime) = match combine(args.seed, id) % 5 {
            0 => (1_000_000 * UNIT, 2 * UNIT),
            1 => (3 * UNIT, 1_000_000 * UNIT),
            _ => (100_000 * UNIT, 1_000_000 * UNIT),
        };
        wishes.push(Body::SetBudgets(SetBudgets {
            campaign_id: id,
            advertiser_id: number("advertiser_id"),
            day_nanos: Some(day),
            lifetime_nanos: Some(lifetime),
            ..SetBudgets::default()
        }));
    }
    for part in wishes.chunks(WISHES_MAX) {
        let reply = ledger.post(part.to_vec()).await?;
        if let Some(wrong) = reply.verdicts.iter().find(|v| v.answer() != LedgerAnswer::LedgerDone) {
            return Err(FleetError::Process(format!("a budget was refused: {}", wrong.reason)));
        }
    }
    eprintln!("{} campaigns have budgets", wishes.len());
    Ok(())
}

/// Compares the oracle, the voters and the audit.
pub async fn compare(fleet: &Fleet, seen: Seen) -> Result<Report, FleetError> {
    let oracle = Oracle::of(&seen.sold);
    let balances = agreed(fleet).await?;
    let audited = audit(fleet, &seen.sold)?;
    let charges = seen.sold.iter().filter(|token| token.copies > 0).count();
    let mut report = Report {
        charges: charges as u64,
        sent: seen.sent,
        posted: balances.first().and_then(|reply| reply.counts).map_or(0, |counts| counts.charges),
        double: oracle.double,
        contradictory: oracle.contradictory,
        voters_equal: balances.windows(2).all(|w| w[0].state_digest == w[1].state_digest),
        audit_clean: audited.clean && audited.faults.is_empty(),
        campaigns: oracle.charged.len() as u64,
        exhausted: balances.first().map_or(0, |r| r.campaigns.iter().filter(|c| c.free_events > 0).count() as u64),
        charged_nanos: oracle.charged.values().sum(),
        kills: seen.kills,
        failed_requests: seen.failed_requests,
        seconds: seen.took_us as f64 / 1e6,
        charges_per_s: charges as f64 * 1e6 / seen.took_us.max(1) as f64,
        ..Report::default()
    };
    report.double += audited.double;
    report.overspend_micros = audited.overspend_nanos.div_ceil(1_000);
    let acknowledged = Acknowledged::of(&seen.sold, &audited.tokens);
    report.lost_acknowledged = acknowledged.other + missing(&acknowledged.charges, &audited.charges);
    let unheard = |voter| missing(voter, std::slice::from_ref(&acknowledged.charges));
    report.unacknowledged = audited.charges.iter().map(unheard).max().unwrap_or(0);
    report.differences = balances.iter().flat_map(|reply| differences(&oracle, reply)).collect();
    report.oracle_equal = report.differences.is_empty() && report.posted == oracle.posted;
    hold_against_leases(&mut report, &oracle, &audited);
    report.differences.extend(audited.faults);
    let mut report_us = seen.report_us;
    report_us.sort_unstable();
    let at = |share: f64| {
        let place = (report_us.len() as f64 * share) as usize;
        report_us.get(place.min(report_us.len().saturating_sub(1))).map_or(0.0, |us| *us as f64 / 1e3)
    };
    (report.report_ms_p50, report.report_ms_p99) = (at(0.5), at(0.99));
    (report.fates, report.answers) = (oracle.fates, oracle.answers);
    Ok(report)
}

/// What was served and not charged, beside what the leases of its campaign held.
fn hold_against_leases(report: &mut Report, oracle: &Oracle, audited: &Audited) {
    let of_all = |part: fn(&Held) -> u64| audited.held.values().map(part).sum::<u64>().div_ceil(1_000);
    report.over_delivered_micros = oracle.over_delivered.values().sum::<u64>().div_ceil(1_000);
    report.lease_bound_micros = of_all(Held::bound);
    report.unreported_lease_micros = of_all(|held| held.unreported);
    report.open_lease_micros = of_all(|held| held.open);
    report.unreported_leases = audited.unreported;
    for (campaign, served) in &oracle.over_delivered {
        let held = audited.held.get(campaign).map_or(0, Held::bound);
        if *served > held {
            report.beyond_leases += 1;
            report
                .differences
                .push(format!("campaign {campaign}: {served} nanos were served free, leases held {held}"));
        }
    }
}

/// What a voter holds that the oracle does not.
fn differences(oracle: &Oracle, reply: &BalancesReply) -> Vec<String> {
    let mut differences = Vec::new();
    for campaign in &reply.campaigns {
        let wanted = oracle.charged.get(&campaign.campaign_id).copied().unwrap_or(0);
        let id = campaign.campaign_id;
        if campaign.charged_nanos != wanted {
            differences.push(format!("campaign {id}: charged {}, {wanted} is right", campaign.charged_nanos));
        }
        let mut by_span: BTreeMap<i32, i64> = BTreeMap::new();
        for account in &campaign.accounts {
            *by_span.entry(account.span).or_default() += account.posted_nanos;
            let spent = account.posted_nanos + account.pending_nanos + account.refunded_nanos;
            if spent > account.deposited_nanos || spent + account.available_nanos != account.deposited_nanos {
                differences.push(format!("campaign {id}: {account:?} does not add up"));
            }
        }
        if by_span.values().any(|posted| *posted != wanted) {
            differences.push(format!("campaign {id}: {by_span:?} is posted, {wanted} is right"));
        }
    }
    let held: i64 = reply.campaigns.iter().map(|c| c.charged_nanos).sum();
    if held != oracle.charged.values().sum::<i64>() {
        differences.push(format!("{held} is charged in all"));
    }
    differences
}

/// The balances of all voters at one entry.
async fn agreed(fleet: &Fleet) -> Result<Vec<BalancesReply>, FleetError> {
    let addresses = fleet.addresses(Role::Control);
    let ledger = LedgerClient::new(CLUSTER, addresses.clone())?;
    let from = monotonic_us();
    loop {
        let mut replies = Vec::new();
        for address in &addresses {
            replies.extend(ledger.balances_at(address, Vec::new()).await.ok());
        }
        let same = replies.windows(2).all(|w| w[0].applied_index == w[1].applied_index);
        let whole = replies.len() == addresses.len() && replies.iter().all(|r| !r.state_digest.is_empty());
        if same && whole {
            return Ok(replies);
        }
        if Duration::from_micros(monotonic_us() - from) > WHOLE_MAX {
            return Err(FleetError::Process("the voters do not come to one entry".to_owned()));
        }
        tokio::time::sleep(RETRY).await;
    }
}
