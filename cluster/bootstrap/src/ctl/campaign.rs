//! What is in force of a campaign, and how does an operator change it?

use super::failed;
use crate::cli::{CampaignArgs, CampaignCommand, PacingChoice, StrategyChoice, WriteArgs};
use crate::failure::Failure;
use gavel_client::admin::random_id;
use gavel_client::{AdminClient, CampaignClient, catalogue};
use gavel_proto::frequency::{FrequencyRule, FrequencyScope, FrequencyWindow, impressions};
use gavel_proto::money::{BidType, Micros};
use gavel_proto::wire;
use serde_json::{Value, json};
use std::time::Duration;

/// `gavel ctl campaign`.
pub async fn run(admin: &AdminClient, cluster_id: &str, command: CampaignCommand) -> Result<(), Failure> {
    let voters = admin.voters().await.map_err(failed)?;
    let mut client = CampaignClient::new(cluster_id, voters).map_err(failed)?;
    match command {
        CampaignCommand::Get { campaigns } => {
            let list = client.list(campaigns, 0, 0).await.map_err(failed)?;
            let shown: Vec<Value> = list.campaigns.iter().map(shown).collect();
            println!("{:#}", json!({ "delivery_version": list.version, "campaigns": shown }));
            Ok(())
        }
        CampaignCommand::List { after, limit } => {
            let list = client.list(Vec::new(), after, limit).await.map_err(failed)?;
            for campaign in &list.campaigns {
                println!("{}", line(campaign));
            }
            if let Some(last) = list.campaigns.last().filter(|_| list.more) {
                println!("more: gavel ctl campaign list --after {}", last.campaign_id);
            }
            Ok(())
        }
        CampaignCommand::Set(args) => {
            let update = update(&args)?;
            write(&mut client, vec![update], &args.write).await
        }
        CampaignCommand::Pause(args) => {
            let updates = args.campaigns.iter().map(|id| status(*id, wire::CampaignStatus::Paused)).collect();
            write(&mut client, updates, &args.write).await
        }
        CampaignCommand::Resume(args) => {
            let updates = args.campaigns.iter().map(|id| status(*id, wire::CampaignStatus::Active)).collect();
            write(&mut client, updates, &args.write).await
        }
    }
}

fn status(campaign_id: u64, status: wire::CampaignStatus) -> wire::CampaignUpdate {
    let change = wire::DeliveryChange { campaign_id, status: status.into(), ..wire::DeliveryChange::default() };
    wire::CampaignUpdate { change: Some(change), budgets: None }
}

async fn write(
    client: &mut CampaignClient,
    updates: Vec<wire::CampaignUpdate>,
    args: &WriteArgs,
) -> Result<(), Failure> {
    let id = args.request_id.clone().unwrap_or_else(random_id);
    let wait = Duration::from_millis(args.wait_ms);
    let done = client.update_as(&id, updates, wait).await.map_err(failed)?;
    println!("{:#}", json!({ "delivery_version": done.version, "effective": done.effective, "behind": done.behind }));
    if done.effective || args.wait_ms == 0 {
        return Ok(());
    }
    Err(Failure::other(format!("not in force yet on members {:?}: see `gavel ctl status`", done.behind)))
}

fn update(args: &CampaignArgs) -> Result<wire::CampaignUpdate, Failure> {
    let strategy = match (args.strategy, &args.target) {
        (Some(StrategyChoice::TargetCpa), Some(target)) => Some((wire::BidStrategy::TargetCpa, amount(target)?)),
        (Some(StrategyChoice::TargetCpa), None) => {
            return Err(Failure::usage("give --target with the strategy target-cpa"));
        }
        (_, Some(_)) => return Err(Failure::usage("--target goes with --strategy target-cpa")),
        (Some(StrategyChoice::Fixed), None) => Some((wire::BidStrategy::Fixed, 0)),
        (Some(StrategyChoice::MostConversions), None) => Some((wire::BidStrategy::MostConversions, 0)),
        (None, None) => None,
    };
    let pacing = match args.pacing {
        None => wire::CampaignPacing::Unspecified,
        Some(PacingChoice::Bid) => wire::CampaignPacing::Bid,
        Some(PacingChoice::Throttle) => wire::CampaignPacing::Throttle,
    };
    let schedule = match (&args.starts, &args.ends) {
        (None, None) => None,
        (starts, ends) => Some(wire::CampaignSchedule { starts_s: instant(starts)?, ends_s: instant(ends)? }),
    };
    let change = wire::DeliveryChange {
        campaign_id: args.campaign,
        erase: if args.reset { wire::Erase::Operators } else { wire::Erase::Nothing }.into(),
        bid_micros: args.bid.as_deref().map(amount).transpose()?,
        schedule,
        strategy: strategy.map(|(kind, target_micros)| wire::CampaignStrategy { kind: kind.into(), target_micros }),
        pacing: pacing.into(),
        frequency: rules(&args.frequency)?,
        ..wire::DeliveryChange::default()
    };
    let budgets = [&args.daily, &args.weekly, &args.lifetime].map(|text| text.as_deref().map(amount).transpose());
    let [day_micros, week_micros, lifetime_micros] = budgets;
    let zone = args.zone.as_deref().map(catalogue::offsets).transpose().map_err(Failure::usage)?.unwrap_or_default();
    let budgets = wire::CampaignBudgets {
        day_micros: day_micros?,
        week_micros: week_micros?,
        lifetime_micros: lifetime_micros?,
        zone_starts: zone.starts,
        zone_offsets: zone.offset_seconds,
    };
    let budgets = Some(budgets).filter(|b| *b != wire::CampaignBudgets::default());
    Ok(wire::CampaignUpdate { change: Some(change), budgets })
}

fn amount(text: &str) -> Result<u64, Failure> {
    Micros::parse(text).map(|m| m.0).map_err(|e| Failure::usage(format!("{text:?}: {e}")))
}

/// Unix seconds; 0 for none.
fn instant(text: &Option<String>) -> Result<i64, Failure> {
    match text.as_deref() {
        None | Some("none") => Ok(0),
        Some(text) => catalogue::instant(text)
            .ok_or_else(|| Failure::usage(format!("{text:?} is no instant: write it as 2026-12-01T00:00:00Z"))),
    }
}

fn rules(texts: &[String]) -> Result<Option<wire::FrequencyRules>, Failure> {
    match texts {
        [] => Ok(None),
        [none] if none == "none" => Ok(Some(wire::FrequencyRules::default())),
        texts => {
            let rules = texts.iter().map(|text| {
                rule(text).ok_or_else(|| {
                    Failure::usage(format!(
                        "{text:?} is no rule: write it as campaign:24h:3, advertiser:7d:10 or ad:30d:5; windows are \
                         1h to 24h, 1d, 7d and 30d, bounds 1 to 255"
                    ))
                })
            });
            Ok(Some(wire::FrequencyRules { rules: rules.collect::<Result<_, _>>()? }))
        }
    }
}

/// SCOPE:WINDOW:MAX.
fn rule(text: &str) -> Option<wire::FrequencyRule> {
    let mut parts = text.split(':');
    let (scope, window, max) = (parts.next()?, parts.next()?, parts.next()?);
    let max = impressions(max.parse().ok().filter(|_| parts.next().is_none())?).ok()?;
    let rule = FrequencyRule { scope: FrequencyScope::parse(scope)?, window: FrequencyWindow::parse(window)?, max };
    Some(rule.to_wire())
}

fn bid_type(m: &wire::CampaignState) -> Value {
    let known = i32::try_from(m.bid_type).ok().and_then(BidType::from_number);
    json!(known)
}

fn paused(is_paused: bool) -> &'static str {
    if is_paused { "paused" } else { "active" }
}

fn line(m: &wire::CampaignState) -> String {
    let silence = if m.silence.is_empty() { "takes part" } else { &m.silence };
    format!("{}\tadvertiser {}\t{} {}\t{silence}", m.campaign_id, m.advertiser_id, bid_type(m), Micros(m.bid_micros))
}

fn shown(m: &wire::CampaignState) -> Value {
    let said = m.said.clone().unwrap_or_default();
    let strategy = said.strategy.map(|s| {
        let kind = match s.kind() {
            wire::BidStrategy::TargetCpa => "target_cpa",
            wire::BidStrategy::MostConversions => "most_conversions",
            wire::BidStrategy::Fixed | wire::BidStrategy::Unspecified => "fixed",
        };
        json!({ "kind": kind, "target_micros": s.target_micros })
    });
    let rule = |rule: &wire::FrequencyRule| {
        let scope = match rule.scope() {
            wire::FrequencyScope::Advertiser => "advertiser",
            wire::FrequencyScope::Ad => "ad",
            wire::FrequencyScope::Campaign | wire::FrequencyScope::Unspecified => "campaign",
        };
        json!({ "scope": scope, "window_hours": rule.window_hours, "max": rule.max })
    };
    let rules: Vec<Value> = said.frequency.iter().flat_map(|r| &r.rules).map(rule).collect();
    let budgets = m.budgets.as_ref().map(|b| {
        json!({ "daily_micros": b.day_micros, "weekly_micros": b.week_micros, "lifetime_micros": b.lifetime_micros })
    });
    json!({
        "campaign": m.campaign_id,
        "advertiser": m.advertiser_id,
        "bid_type": bid_type(m),
        "bid_micros": m.bid_micros,
        "multiplier_ppm": m.multiplier_ppm,
        "status": paused(m.status() == wire::CampaignStatus::Paused),
        "silence": (!m.silence.is_empty()).then_some(&m.silence),
        "catalogue_bid_micros": m.catalogue_bid_micros,
        "catalogue_status": paused(m.catalogue_paused),
        "schedule": said.schedule.map(|s| json!({ "starts_s": s.starts_s, "ends_s": s.ends_s })),
        "strategy": strategy,
        "pacing": if said.pacing() == wire::CampaignPacing::Throttle { "throttle" } else { "bid" },
        "throttle_ppm": said.throttle_ppm.unwrap_or(1_000_000),
        "frequency": rules,
        "budgets": budgets,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_has_scope_window_and_number() {
        let read = |text| rule(text).map(|r| (r.scope(), r.window_hours, r.max));
        assert_eq!(read("campaign:24h:3"), Some((wire::FrequencyScope::Campaign, 24, 3)));
        assert_eq!(read("ad:30d:5"), Some((wire::FrequencyScope::Ad, 720, 5)));
        for wrong in
            ["", "user:1h:1", "ad:1:1", "ad:1w:1", "ad:25h:1", "ad:1h:x", "ad:1h:0", "ad:1h:256", "ad:1h:1:1", "ad:1h"]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
