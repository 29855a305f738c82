//! In which order are processes killed, and what is compared at the end?

use super::LedgerArgs;
use super::load::Load;
use super::oracle::{Oracle, Sold};
use super::report::Report;
use crate::clock::monotonic_us;
use crate::fleet::{self, CLUSTER, DOWN, Fleet, FleetError, RETRY, Role, WHOLE_MAX};
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

/// What happened.
pub struct Seen {
    sold: Vec<Sold>,
    sent: u64,
    failed_requests: u64,
    report_us: Vec<u64>,
    kills: BTreeMap<String, u64>,
    took_us: u64,
}

/// Sets budgets, charges and kills; returns when every event is answered.
pub async fn run(args: &LedgerArgs, fleet: &mut Fleet, requests: Vec<TimedRequest>) -> Result<Seen, FleetError> {
    let admin = AdminClient::new(CLUSTER, fleet.addresses(Role::Control))?;
    whole(&admin).await?;
    let mut ledger = LedgerClient::new(CLUSTER, fleet.addresses(Role::Control))?;
    set_budgets(args, &mut ledger).await?;
    let load = Load::new(args, &fleet.addresses(Role::Router), requests, monotonic_us)?;
    let (began, is_over) = (monotonic_us(), AtomicBool::new(false));
    let killing = kills(args, fleet, (&admin, &ledger), &is_over);
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
    let took_us = monotonic_us() - began;
    let report_us = std::mem::take(&mut *load.report_us.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    Ok(Seen {
        sold: load.take(),
        sent: load.sent.load(Ordering::Relaxed),
        failed_requests: load.failed.load(Ordering::Relaxed),
        report_us,
        kills: kills?,
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

/// Kills and starts again, until charging is over.
async fn kills(
    args: &LedgerArgs,
    fleet: &mut Fleet,
    (admin, ledger): (&AdminClient, &LedgerClient),
    is_over: &AtomicBool,
) -> Result<BTreeMap<String, u64>, FleetError> {
    let (mut killed, mut turn) = (BTreeMap::new(), 0usize);
    while args.kill && !is_over.load(Ordering::Acquire) {
        tokio::time::sleep(Duration::from_secs_f64(args.kill_every)).await;
        if is_over.load(Ordering::Acquire) {
            break;
        }
        let (what, victim) = victim(fleet, (admin, ledger), turn).await;
        turn += 1;
        let Some(at) = victim else { continue };
        eprintln!("kill -9 {} ({what})", fleet.processes[at].name);
        fleet.processes[at].kill();
        *killed.entry(what.to_owned()).or_default() += 1;
        tokio::time::sleep(DOWN).await;
        tokio::task::block_in_place(|| fleet.processes[at].start())?;
        whole(admin).await?;
    }
    Ok(killed)
}

/// The ledger's leader, a router, a node, the control state's leader, and so on.
async fn victim(
    fleet: &Fleet,
    (admin, ledger): (&AdminClient, &LedgerClient),
    turn: usize,
) -> (&'static str, Option<usize>) {
    let of = |role: Role, nth: usize| {
        let all: Vec<usize> = (0..fleet.processes.len()).filter(|i| fleet.processes[*i].role == role).collect();
        all.get(nth % all.len().max(1)).copied()
    };
    let place =
        |address: Option<String>| address.and_then(|address| fleet.processes.iter().position(|p| p.address == address));
    let Ok(status) = admin.status().await else { return ("nobody", None) };
    let voter = |id: u64| status.voters.iter().find(|v| v.id == id).map(|v| v.address.clone());
    match turn % 4 {
        0 => {
            let leader = ledger.balances(vec![0]).await.map_or(0, |reply| reply.leader_id);
            ("ledger leader", place(voter(leader)))
        }
        1 => ("router", of(Role::Router, turn / 4)),
        2 => ("node", of(Role::Node, turn / 4)),
        _ => ("control leader", place(voter(status.leader_id))),
    }
}

/// Returns once every member lives and every shard is served by all of its replicas.
async fn whole(admin: &AdminClient) -> Result<(), FleetError> {
    let from = monotonic_us();
    loop {
        if let Ok(status) = admin.status().await
            && status.view.is_some_and(|view| fleet::is_served(&view))
        {
            return Ok(());
        }
        if Duration::from_micros(monotonic_us() - from) > WHOLE_MAX {
            return Err(FleetError::Process("the cluster does not become whole".to_owned()));
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Compares the oracle, the voters and the audit.
pub async fn compare(fleet: &Fleet, seen: Seen) -> Result<Report, FleetError> {
    let oracle = Oracle::of(&seen.sold);
    let balances = agreed(fleet).await?;
    let audited = audit(fleet)?;
    let mut report = Report {
        charges: seen.sold.len() as u64,
        sent: seen.sent,
        posted: balances.first().and_then(|reply| reply.counts).map_or(0, |counts| counts.charges),
        double: oracle.double,
        contradictory: oracle.contradictory,
        voters_equal: balances.windows(2).all(|w| w[0].state_digest == w[1].state_digest),
        audit_clean: audited.clean,
        campaigns: oracle.charged.len() as u64,
        exhausted: balances.first().map_or(0, |r| r.campaigns.iter().filter(|c| c.free_events > 0).count() as u64),
        charged_nanos: oracle.charged.values().sum(),
        kills: seen.kills,
        failed_requests: seen.failed_requests,
        seconds: seen.took_us as f64 / 1e6,
        charges_per_s: seen.sold.len() as f64 * 1e6 / seen.took_us.max(1) as f64,
        ..Report::default()
    };
    report.double += audited.double;
    report.overspend_micros = audited.overspend_nanos.div_ceil(1_000);
    for (charge, count) in &oracle.charges {
        report.lost_acknowledged += count.saturating_sub(audited.charges.get(charge).copied().unwrap_or(0));
    }
    for (charge, count) in &audited.charges {
        report.unacknowledged += count.saturating_sub(oracle.charges.get(charge).copied().unwrap_or(0));
    }
    report.differences = balances.iter().flat_map(|reply| differences(&oracle, reply)).collect();
    report.oracle_equal = report.differences.is_empty() && report.posted == oracle.posted;
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

/// What the audit of all voters says.
#[derive(Debug, Default)]
struct Audited {
    clean: bool,
    double: u64,
    overspend_nanos: u64,
    faults: Vec<String>,
    charges: BTreeMap<(u64, u8, i64), u64>,
}

/// Has the operator's command compute everything anew.
fn audit(fleet: &Fleet) -> Result<Audited, FleetError> {
    let path = fleet.logs().join("charges.txt");
    let output = fleet.ask(&["ledger", "audit", "--json", "--charges", &path.display().to_string()])?;
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).map_err(|e| {
        FleetError::Process(format!("the audit said nothing: {e}: {}", String::from_utf8_lossy(&output.stderr)))
    })?;
    let mut audited = Audited { clean: said["clean"] == true, ..Audited::default() };
    for voter in said["voters"].as_array().into_iter().flatten() {
        audited.double = audited.double.max(voter["double"].as_u64().unwrap_or(0));
        audited.overspend_nanos = audited.overspend_nanos.max(voter["overspend_nanos"].as_u64().unwrap_or(0));
        let lists = ["faults", "differences"].into_iter().filter_map(|list| voter[list].as_array()).flatten();
        audited.faults.extend(lists.filter_map(|fault| fault.as_str()).map(str::to_owned));
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(fleet.logs()).map_err(FleetError::io(&path))? {
        let path = entry.map_err(FleetError::io(&path))?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("charges-")) {
            files.push(path);
        }
    }
    files.sort();
    for (at, file) in files.iter().enumerate() {
        let charges = counted(&std::fs::read_to_string(file).map_err(FleetError::io(file))?);
        if at == 0 {
            audited.charges = charges;
        } else if charges != audited.charges {
            audited.faults.push(format!("{} has other charges than {}", file.display(), files[0].display()));
        }
    }
    if files.is_empty() {
        audited.faults.push("the audit wrote no charges".to_owned());
    }
    Ok(audited)
}

/// Charges by (campaign, kind, price), of a file with a line each.
fn counted(text: &str) -> BTreeMap<(u64, u8, i64), u64> {
    let mut charges = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if let [_, _, kind, campaign, price] = words[..]
            && let (Ok(kind), Ok(campaign), Ok(price)) = (kind.parse(), campaign.parse(), price.parse())
        {
            *charges.entry((campaign, kind, price)).or_default() += 1;
        }
    }
    charges
}
