//! What does each campaign owe, and is that right?

use super::failed;
use crate::cli::{BudgetArgs, LedgerCommand};
use crate::failure::Failure;
use crate::output;
use gavel_client::{AdminClient, LedgerClient, catalogue};
use gavel_control::convert::ledger_snapshot;
use gavel_control::raft::journal::{Audited, JournalError, audit};
use gavel_proto::money::{Micros, Nanos};
use gavel_proto::wire::ledger_wish::Body;
use gavel_proto::wire::{BalancesReply, LedgerAccount, LedgerAnswer, SetBudgets};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// `gavel ctl ledger`.
pub async fn run(admin: &AdminClient, cluster_id: &str, command: LedgerCommand) -> Result<(), Failure> {
    match command {
        LedgerCommand::Budget(args) => {
            let mut ledger = client(admin, cluster_id).await?;
            budget(&mut ledger, &args).await
        }
        LedgerCommand::Balances { campaign, json } => {
            let reply = client(admin, cluster_id).await?.balances(campaign).await.map_err(failed)?;
            if json {
                println!("{:#}", balances(&reply));
            } else {
                print!("{}", table(&reply));
            }
            Ok(())
        }
        LedgerCommand::Audit { journal: Some(folder), charges, json } => {
            let audited = audit(&folder, cluster_id, None).map_err(|e| unreadable(&e))?;
            write_charges(charges.as_deref(), &audited)?;
            conclude(&[report("journal", &audited, &[])], json)
        }
        LedgerCommand::Audit { journal: None, charges, json } => {
            let mut reports = Vec::new();
            for address in admin.voters().await.map_err(failed)? {
                reports.push(
                    audit_voter(&client(admin, cluster_id).await?, cluster_id, &address, charges.as_deref()).await?,
                );
            }
            conclude(&reports, json)
        }
    }
}

async fn client(admin: &AdminClient, cluster_id: &str) -> Result<LedgerClient, Failure> {
    LedgerClient::new(cluster_id, admin.voters().await.map_err(failed)?).map_err(failed)
}

async fn budget(ledger: &mut LedgerClient, args: &BudgetArgs) -> Result<(), Failure> {
    let amount = |text: &Option<String>| text.as_deref().map(nanos).transpose();
    let zone = catalogue::offsets(&args.zone).map_err(Failure::usage)?;
    let wish = SetBudgets {
        campaign_id: args.campaign,
        advertiser_id: args.advertiser,
        day_nanos: amount(&args.daily)?,
        week_nanos: amount(&args.weekly)?,
        lifetime_nanos: amount(&args.lifetime)?,
        zone_starts: zone.starts,
        zone_offsets: zone.offset_seconds,
    };
    if wish.day_nanos.or(wish.week_nanos).or(wish.lifetime_nanos).is_none() {
        return Err(Failure::usage("give at least one of --daily, --weekly and --lifetime"));
    }
    let reply = ledger.post(vec![Body::SetBudgets(wish)]).await.map_err(failed)?;
    match reply.verdicts.first() {
        Some(verdict) if verdict.answer() == LedgerAnswer::LedgerDone => Ok(()),
        Some(verdict) if verdict.reason == "below_committed" => {
            Err(Failure::other("refused: more is charged and leased than that: see `gavel ctl ledger balances`"))
        }
        Some(verdict) => Err(Failure::other(format!("refused: {}", verdict.reason))),
        None => Err(Failure::other("no answer")),
    }
}

fn nanos(text: &str) -> Result<i64, Failure> {
    let micros = Micros::parse(text).map_err(|e| Failure::usage(format!("{text:?}: {e}")))?;
    let nanos = Nanos::of_micros(micros).ok_or_else(|| Failure::usage(format!("{text:?}: the amount is too large")))?;
    Ok(nanos.0)
}

/// Copies a voter's journal, audits it up to the state that came with it, and compares the two.
async fn audit_voter(
    ledger: &LedgerClient,
    cluster_id: &str,
    address: &str,
    charges: Option<&Path>,
) -> Result<Value, Failure> {
    let folder = std::env::temp_dir().join(format!("gavel-audit-{}-{}", std::process::id(), address.replace(':', "-")));
    std::fs::create_dir_all(&folder).map_err(Failure::io)?;
    let copied = ledger.copy_journal(address, &folder).await;
    let audited = copied.map_err(failed).and_then(|state| {
        let index = ledger_snapshot::index_of(&state).map_err(Failure::damaged)?;
        let held = ledger_snapshot::decode(&state, cluster_id).map_err(Failure::damaged)?;
        let audited = audit(&folder, cluster_id, Some(index)).map_err(|e| unreadable(&e))?;
        let mut differences = audited.book.differences(&held);
        if audited.last.unwrap_or_default() != index {
            differences.push(format!("the journal ends at {:?}, the state is of {index}", audited.last));
        }
        Ok((audited, differences))
    });
    // A copy of what the voter has.
    let _ = std::fs::remove_dir_all(&folder);
    let (audited, differences) = audited?;
    // A file for each voter: what they say may differ.
    write_charges(charges.map(|path| beside(path, address)).as_deref(), &audited)?;
    Ok(report(address, &audited, &differences))
}

fn unreadable(error: &JournalError) -> Failure {
    Failure::damaged(error)
}

/// `charges.txt` of the voter at 10.0.0.1:7001 is `charges-10.0.0.1-7001.txt`.
fn beside(path: &Path, address: &str) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
    path.with_file_name(format!("{stem}-{}{extension}", address.replace([':', '[', ']'], "-")))
}

/// Each charged token once: issuer, sequence, kind and price.
fn write_charges(path: Option<&Path>, audited: &Audited) -> Result<(), Failure> {
    let Some(path) = path else { return Ok(()) };
    let mut lines = String::new();
    for line in audited.book.charged() {
        lines.push_str(&format!("{} {} {} {} {}\n", line.issuer, line.sequence, line.kind, line.campaign, line.price));
    }
    std::fs::write(path, lines).map_err(Failure::io)
}

fn report(voter: &str, audited: &Audited, differences: &[String]) -> Value {
    let found = &audited.findings;
    json!({
        "voter": voter,
        "began_at": audited.began_at,
        "last_index": audited.last,
        "entries": found.entries,
        "events": found.events,
        "charges": found.charges,
        "repeated": found.repeated,
        "free": found.free,
        "refunds": found.refunds,
        "double": found.double,
        "overspend_nanos": i64::try_from(found.overspend).unwrap_or(i64::MAX),
        "faults": found.faults,
        "differences": differences,
        "clean": found.is_clean() && differences.is_empty(),
    })
}

fn conclude(reports: &[Value], as_json: bool) -> Result<(), Failure> {
    let is_clean = reports.iter().all(|report| report["clean"] == true);
    if as_json {
        println!("{:#}", json!({ "clean": is_clean, "voters": reports }));
    } else {
        for report in reports {
            let word = if report["clean"] == true { "right" } else { "WRONG" };
            println!(
                "{}: {word}; {} entries, {} charges, {} again, {} free, {} refunds, {} double",
                report["voter"].as_str().unwrap_or_default(),
                report["entries"],
                report["charges"],
                report["repeated"],
                report["free"],
                report["refunds"],
                report["double"]
            );
            for fault in ["faults", "differences"].iter().flat_map(|list| report[*list].as_array()).flatten() {
                println!("  {}", fault.as_str().unwrap_or_default());
            }
        }
    }
    if is_clean { Ok(()) } else { Err(Failure::damaged("the ledger is not what its journal says")) }
}

/// The balances as JSON.
fn balances(reply: &BalancesReply) -> Value {
    let campaign = |c: &gavel_proto::wire::CampaignBalance| {
        json!({
            "campaign": c.campaign_id,
            "advertiser": c.advertiser_id,
            "charged_nanos": c.charged_nanos,
            "free_events": c.free_events,
            "free_nanos": c.free_nanos,
            "accounts": c.accounts.iter().map(account).collect::<Vec<_>>(),
        })
    };
    let counts = reply.counts.unwrap_or_default();
    json!({
        "applied_index": reply.applied_index,
        "state_digest": output::hex(&reply.state_digest),
        "leader_id": reply.leader_id,
        "wall_ms": reply.wall_ms,
        "leases": reply.leases,
        "charges": counts.charges,
        "free": counts.free,
        "refunds": counts.refunds,
        "campaigns": reply.campaigns.iter().map(campaign).collect::<Vec<_>>(),
    })
}

fn account(a: &LedgerAccount) -> Value {
    json!({
        "span": span(a),
        "number": a.number,
        "deposited_nanos": a.deposited_nanos,
        "available_nanos": a.available_nanos,
        "pending_nanos": a.pending_nanos,
        "posted_nanos": a.posted_nanos,
        "refunded_nanos": a.refunded_nanos,
    })
}

fn span(account: &LedgerAccount) -> &'static str {
    match account.span() {
        gavel_proto::wire::BudgetSpan::BudgetDay => "day",
        gavel_proto::wire::BudgetSpan::BudgetWeek => "week",
        gavel_proto::wire::BudgetSpan::BudgetLifetime => "lifetime",
        gavel_proto::wire::BudgetSpan::Unspecified => "unknown",
    }
}

/// For people, in currency units.
fn table(reply: &BalancesReply) -> String {
    let mut out = format!(
        "entry {}  leader {}  leases {}\n{:>12} {:>10} {:>16} {:>16} {:>16} {:>16} {:>16}\n",
        reply.applied_index,
        reply.leader_id,
        reply.leases,
        "campaign",
        "budget",
        "deposited",
        "available",
        "leased",
        "charged",
        "refunded"
    );
    for account in reply.campaigns.iter().flat_map(|campaign| &campaign.accounts) {
        let columns = [
            account.deposited_nanos,
            account.available_nanos,
            account.pending_nanos,
            account.posted_nanos,
            account.refunded_nanos,
        ];
        let columns: Vec<String> = columns.iter().map(|nanos| format!("{:>16}", units(*nanos))).collect();
        out.push_str(&format!("{:>12} {:>10} {}\n", account.campaign_id, span(account), columns.join(" ")));
    }
    out
}

fn units(nanos: i64) -> String {
    let wide = i128::from(nanos);
    format!("{}{}.{:09}", if wide < 0 { "-" } else { "" }, wide.abs() / 1_000_000_000, wide.abs() % 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One file was written over by each voter, and only the last one was looked at.
    #[test]
    fn each_voter_has_a_file_of_charges() {
        let name = |path: &str, address: &str| beside(Path::new(path), address).display().to_string();
        assert_eq!(name("/tmp/charges.txt", "10.0.0.1:7001"), "/tmp/charges-10.0.0.1-7001.txt");
        assert_eq!(name("charges", "[::1]:7002"), "charges----1--7002");
        assert_ne!(name("charges", "a:1"), name("charges", "a:2"));
    }
}
