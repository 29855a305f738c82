//! What does each campaign owe, and is that right?

mod audit;
mod clearings;
mod refund;
mod tokens;

use super::failed;
use crate::cli::{BudgetArgs, LedgerCommand};
use crate::failure::Failure;
use crate::output;
use gavel_client::{AdminClient, LedgerClient, catalogue};
use gavel_proto::money::{Micros, Nanos};
use gavel_proto::wire::ledger_wish::Body;
use gavel_proto::wire::{BalancesReply, LedgerAccount, LedgerAnswer, SetBudgets};
use serde_json::{Value, json};

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
        LedgerCommand::Refund(args) => {
            let refunds = refund::read(&args)?;
            let mut ledger = client(admin, cluster_id).await?;
            refund::run(&mut ledger, &refunds, args.json).await
        }
        LedgerCommand::Audit(args) => audit::run(admin, cluster_id, &args).await,
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
