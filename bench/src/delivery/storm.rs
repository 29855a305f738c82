//! Which changes are made, and what do the clearing logs say of them?

use super::DeliveryArgs;
use super::load::{Asked, Load};
use super::report::{Report, spread};
use crate::clock::monotonic_us;
use crate::fleet::{self, CLUSTER, Fleet, FleetError, RETRY, Role, WHOLE_MAX};
use crate::workload::TimedRequest;
use gavel_client::{AdminClient, CampaignClient};
use gavel_proto::wire::{CampaignStatus, CampaignUpdate, CampaignUpdated, DeliveryChange};
use serde::Deserialize;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest wait for a change to be in force.
const EFFECT_MAX: Duration = Duration::from_secs(5);
/// The clearing log writes twice a second.
const LOG_FLUSH: Duration = Duration::from_millis(1_500);
/// Load before the first change, so that there are winners.
const WARM: Duration = Duration::from_secs(2);

/// A campaign that was paused, from when it was in force to when it was resumed, microseconds.
#[derive(Clone, Copy, Debug)]
struct Paused {
    campaign: u64,
    sent: u64,
    in_force: u64,
    resumed: u64,
}

/// What the changes took.
#[derive(Debug, Default)]
struct Made {
    pauses: Vec<Paused>,
    in_force_us: Vec<u64>,
    answered_us: Vec<u64>,
    not_in_force: u64,
}

/// Changes under load, and reads the logs.
pub async fn run(args: &DeliveryArgs, fleet: &Fleet, requests: Vec<TimedRequest>) -> Result<Report, FleetError> {
    let admin = AdminClient::new(CLUSTER, fleet.addresses(Role::Control))?;
    whole(&admin).await?;
    let mut client = CampaignClient::new(CLUSTER, fleet.addresses(Role::Control))?;
    let load = Load::new(&fleet.addresses(Role::Router), requests, monotonic_us)?;
    let changing = async {
        tokio::time::sleep(WARM).await;
        let made = change(args, &mut client, &load).await;
        load.stop();
        made
    };
    let ((), made) = tokio::join!(load.run(args.askers), changing);
    let made = made?;
    tokio::time::sleep(LOG_FLUSH).await;
    let clearings = fleet.clearing_logs();
    tokio::task::block_in_place(|| compare(made, load.take(), &clearings))
}

async fn whole(admin: &AdminClient) -> Result<(), FleetError> {
    let began = crate::clock::now();
    while began.elapsed() < WHOLE_MAX {
        if let Ok(status) = admin.status().await
            && status.view.as_ref().is_some_and(fleet::is_served)
        {
            return Ok(());
        }
        tokio::time::sleep(RETRY).await;
    }
    Err(FleetError::Process("the cluster does not become whole".to_owned()))
}

/// Pause, bid, resume, and so on, over campaigns that have just won.
async fn change(args: &DeliveryArgs, client: &mut CampaignClient, load: &Load) -> Result<Made, FleetError> {
    let mut made = Made::default();
    let mut paused: Option<Paused> = None;
    for turn in 0..args.changes {
        let Some(winner) = load.winner(turn) else {
            return Err(FleetError::Process("nobody wins anything".to_owned()));
        };
        match (turn % 3, paused) {
            (0, _) | (_, None) => {
                let sent = monotonic_us();
                update(client, status(winner, CampaignStatus::Paused), &mut made).await?;
                paused = Some(Paused { campaign: winner, sent, in_force: monotonic_us(), resumed: 0 });
            }
            (1, Some(held)) => {
                // Another campaign's bid changes while this one is paused; its catalogue bid comes with the next round.
                let other = if winner == held.campaign { load.winner(turn + 1) } else { Some(winner) };
                let bid = DeliveryChange {
                    campaign_id: other.unwrap_or(winner),
                    bid_micros: Some(100_000 + turn),
                    ..DeliveryChange::default()
                };
                update(client, bid, &mut made).await?;
            }
            (_, Some(held)) => {
                let resumed = monotonic_us();
                update(client, status(held.campaign, CampaignStatus::Active), &mut made).await?;
                made.pauses.push(Paused { resumed, ..held });
                paused = None;
            }
        }
        tokio::time::sleep(Duration::from_millis(args.pause_ms)).await;
    }
    Ok(made)
}

fn status(campaign_id: u64, status: CampaignStatus) -> DeliveryChange {
    DeliveryChange { campaign_id, status: status.into(), ..DeliveryChange::default() }
}

async fn update(client: &mut CampaignClient, change: DeliveryChange, made: &mut Made) -> Result<(), FleetError> {
    let sent = monotonic_us();
    let update = CampaignUpdate { change: Some(change), budgets: None };
    let CampaignUpdated { effective, waited_us, .. } = client.update(vec![update], EFFECT_MAX).await?;
    made.answered_us.push(monotonic_us() - sent);
    made.in_force_us.push(waited_us);
    made.not_in_force += u64::from(!effective);
    Ok(())
}

/// What is read of a clearing.
#[derive(Deserialize)]
struct Clearing {
    inputs: Inputs,
    winners: Vec<Winner>,
}

#[derive(Deserialize)]
struct Inputs {
    request_id: String,
    candidates: Vec<Candidate>,
}

#[derive(Deserialize)]
struct Candidate {
    ad: u64,
    campaign: u64,
}

#[derive(Deserialize)]
struct Winner {
    ad: u64,
}

fn compare(mut made: Made, asked: Asked, folders: &[PathBuf]) -> Result<Report, FleetError> {
    let mut report = Report {
        changes: made.in_force_us.len() as u64,
        pauses: made.pauses.len() as u64,
        not_in_force: made.not_in_force,
        requests: asked.during.len() as u64,
        failed_requests: asked.failed,
        partial_answers: asked.partial,
        in_force_ms: spread(&mut made.in_force_us),
        answered_ms: spread(&mut made.answered_us),
        ..Report::default()
    };
    let mut last_seen: HashMap<u64, u64> = HashMap::new();
    for file in files(folders)? {
        for line in lines(&file)? {
            let line = line.map_err(FleetError::io(&file))?;
            let Ok(clearing) = serde_json::from_str::<Clearing>(&line) else {
                report.unreadable += 1;
                continue;
            };
            let number = clearing.inputs.request_id.strip_prefix("bench-").and_then(|n| n.parse::<u64>().ok());
            let Some(during) = number.and_then(|number| asked.during.get(&number)) else { continue };
            report.clearings += 1;
            look(&clearing, *during, &made.pauses, &mut report, &mut last_seen);
        }
    }
    // How long after the wish was sent a campaign was last a candidate of a request that began then.
    let mut late: Vec<u64> = last_seen.into_values().collect();
    report.last_seen_ms = spread(&mut late);
    Ok(report)
}

fn look(
    clearing: &Clearing,
    (sent, answered): (u64, u64),
    pauses: &[Paused],
    report: &mut Report,
    last_seen: &mut HashMap<u64, u64>,
) {
    let campaigns: HashSet<u64> = clearing.inputs.candidates.iter().map(|c| c.campaign).collect();
    for (at, pause) in (0u64..).zip(pauses) {
        let is_candidate = campaigns.contains(&pause.campaign);
        if is_candidate && sent >= pause.sent && sent < pause.resumed {
            let since = last_seen.entry(at).or_default();
            *since = (*since).max(sent - pause.sent);
        }
        if sent < pause.in_force || answered > pause.resumed {
            continue;
        }
        report.checked += 1;
        if !is_candidate {
            continue;
        }
        report.paused_candidates += 1;
        let ads: HashSet<u64> =
            clearing.inputs.candidates.iter().filter(|c| c.campaign == pause.campaign).map(|c| c.ad).collect();
        report.paused_winners += u64::from(clearing.winners.iter().any(|winner| ads.contains(&winner.ad)));
    }
}

fn files(folders: &[PathBuf]) -> Result<Vec<PathBuf>, FleetError> {
    let mut files = Vec::new();
    for folder in folders {
        for entry in std::fs::read_dir(folder).map_err(FleetError::io(folder))? {
            files.push(entry.map_err(FleetError::io(folder))?.path());
        }
    }
    Ok(files)
}

fn lines(path: &Path) -> Result<Box<dyn Iterator<Item = std::io::Result<String>>>, FleetError> {
    let file = File::open(path).map_err(FleetError::io(path))?;
    if path.extension().is_some_and(|e| e == "zst") {
        let plain = zstd::Decoder::new(file).map_err(FleetError::io(path))?;
        return Ok(Box::new(BufReader::new(plain).lines()));
    }
    Ok(Box::new(BufReader::new(file).lines()))
}
