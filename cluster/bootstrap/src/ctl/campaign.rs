//! What is in force of a campaign, and how does an operator change it?

use super::failed;
use crate::cli::{CampaignArgs, CampaignCommand, PacingChoice, StrategyChoice, WhichArgs, WriteArgs};
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
                campaign.ad_groups.iter().for_each(|group| println!("{}", group_line(campaign, group)));
            }
            if let Some(last) = list.campaigns.last().filter(|_| list.more) {
                println!("more: gavel ctl campaign list --after {}", last.campaign_id);
            }
            Ok(())
        }
        CampaignCommand::Set(args) => {
            let update = match args.ad_group {
                Some(ad_group) => group_update(&args, ad_group)?,
                None => update(&args)?,
            };
            write(&mut client, vec![update], &args.write).await
        }
        CampaignCommand::Pause(args) => {
            let updates = statuses(&args, wire::CampaignStatus::Paused)?;
            write(&mut client, updates, &args.write).await
        }
        CampaignCommand::Resume(args) => {
            let updates = statuses(&args, wire::CampaignStatus::Active)?;
            write(&mut client, updates, &args.write).await
        }
    }
}

/// A status for campaigns, or for ad groups of one campaign.
fn statuses(args: &WhichArgs, status: wire::CampaignStatus) -> Result<Vec<wire::CampaignUpdate>, Failure> {
    let of_campaign = |campaign_id: &u64| {
        let change = wire::DeliveryChange { status: status.into(), ..of(*campaign_id) };
        wire::CampaignUpdate { change: Some(change), budgets: None }
    };
    if args.ad_group.is_empty() {
        return Ok(args.campaigns.iter().map(of_campaign).collect());
    }
    let [campaign_id] = args.campaigns[..] else {
        return Err(Failure::usage("an ad group belongs to one campaign: give that campaign alone with --ad-group"));
    };
    let of_group = |ad_group_id: &u64| wire::AdGroupChange {
        ad_group_id: *ad_group_id,
        status: status.into(),
        ..wire::AdGroupChange::default()
    };
    let ad_groups = args.ad_group.iter().map(of_group).collect();
    let change = wire::DeliveryChange { ad_groups, ..of(campaign_id) };
    Ok(vec![wire::CampaignUpdate { change: Some(change), budgets: None }])
}

/// A change of a campaign that says nothing yet.
fn of(campaign_id: u64) -> wire::DeliveryChange {
    wire::DeliveryChange { campaign_id, ..wire::DeliveryChange::default() }
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

/// What is said of one ad group.
fn group_update(args: &CampaignArgs, ad_group_id: u64) -> Result<wire::CampaignUpdate, Failure> {
    let of_campaigns = [
        ("--starts", args.starts.is_some()),
        ("--ends", args.ends.is_some()),
        ("--strategy", args.strategy.is_some()),
        ("--target", args.target.is_some()),
        ("--pacing", args.pacing.is_some()),
        ("--frequency", !args.frequency.is_empty()),
        ("--daily", args.daily.is_some()),
        ("--weekly", args.weekly.is_some()),
        ("--lifetime", args.lifetime.is_some()),
        ("--zone", args.zone.is_some()),
    ];
    if let Some((option, _)) = of_campaigns.iter().find(|(_, is_given)| *is_given) {
        return Err(Failure::usage(format!(
            "{option} is for a whole campaign, whose ad groups share it: with --ad-group give --bid or --reset"
        )));
    }
    let group = wire::AdGroupChange {
        ad_group_id,
        bid_micros: args.bid.as_deref().map(amount).transpose()?,
        reset: args.reset,
        ..wire::AdGroupChange::default()
    };
    let change = wire::DeliveryChange { ad_groups: vec![group], ..of(args.campaign) };
    Ok(wire::CampaignUpdate { change: Some(change), budgets: None })
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

/// An ad group of a campaign, below its line.
fn group_line(m: &wire::CampaignState, group: &wire::AdGroupState) -> String {
    let (id, bid, status) = (group.ad_group_id, Micros(group.bid_micros), paused(is_paused(group)));
    format!("\tad group {id}\t{} {bid}\t{status}", bid_type(m))
}

fn is_paused(group: &wire::AdGroupState) -> bool {
    group.status() == wire::CampaignStatus::Paused
}

fn shown_group(group: &wire::AdGroupState) -> Value {
    json!({
        "id": group.ad_group_id,
        "bid_micros": group.bid_micros,
        "status": paused(is_paused(group)),
        "catalogue_bid_micros": Some(group.catalogue_bid_micros).filter(|bid| *bid > 0),
        "catalogue_paused": group.catalogue_paused,
    })
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
        "ad_groups": m.ad_groups.iter().map(shown_group).collect::<Vec<Value>>(),
        "budgets": budgets,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command, Ctl};
    use clap::Parser;

    /// The command of `gavel ctl campaign` with these arguments.
    fn command(arguments: &str) -> CampaignCommand {
        let line = ["gavel", "ctl", "campaign"].into_iter().chain(arguments.split(' '));
        let Command::Ctl(ctl) = Cli::try_parse_from(line).expect("a command").command else { panic!("not of ctl") };
        let Ctl::Campaign(command) = ctl.command else { panic!("not of campaigns") };
        command
    }

    fn set(arguments: &str) -> Result<wire::DeliveryChange, String> {
        let CampaignCommand::Set(args) = command(arguments) else { panic!("not set") };
        let update = group_update(&args, args.ad_group.expect("an ad group")).map_err(|e| e.to_string())?;
        assert_eq!(update.budgets, None);
        Ok(update.change.expect("a change"))
    }

    #[test]
    fn an_ad_group_has_a_bid_and_a_status_and_nothing_of_the_campaign() {
        let group = |ad_group_id| wire::AdGroupChange { ad_group_id, ..Default::default() };
        let change = |ad_groups| wire::DeliveryChange { campaign_id: 17, ad_groups, ..Default::default() };
        let bid = wire::AdGroupChange { bid_micros: Some(1_250_000), ..group(3) };
        assert_eq!(set("set 17 --ad-group 3 --bid 1.25"), Ok(change(vec![bid])));
        let reset = wire::AdGroupChange { reset: true, ..group(3) };
        assert_eq!(set("set 17 --ad-group 3 --reset"), Ok(change(vec![reset])));
        for option in ["--daily 5", "--zone UTC", "--strategy fixed", "--frequency ad:1h:1", "--starts none"] {
            let refused = set(&format!("set 17 --ad-group 3 --bid 1 {option}")).expect_err(option);
            let name = option.split(' ').next().expect("a name");
            assert!(refused.starts_with(name) && refused.contains("whole campaign"), "{refused}");
        }

        let paused = |arguments: &str| {
            let CampaignCommand::Pause(args) = command(arguments) else { panic!("not pause") };
            let updates = statuses(&args, wire::CampaignStatus::Paused).map_err(|e| e.to_string())?;
            Ok::<_, String>(updates.into_iter().filter_map(|update| update.change).collect::<Vec<_>>())
        };
        let status = wire::CampaignStatus::Paused.into();
        let of_group = |id| wire::AdGroupChange { status, ..group(id) };
        assert_eq!(paused("pause 17 --ad-group 3 --ad-group 4"), Ok(vec![change(vec![of_group(3), of_group(4)])]));
        let whole = wire::DeliveryChange { status, ..change(vec![]) };
        assert_eq!(paused("pause 17"), Ok(vec![whole]));
        assert!(paused("pause 17 18 --ad-group 3").expect_err("two campaigns").contains("one campaign"));
    }

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
