//! How does a catalogue get into a cluster?
//!
//! Built here, sent to every voter, proposed; then the nodes build their shards from it and it serves when every
//! replica has it. A load that broke off is run again: equal input gives equal blobs, and voters are sent only what
//! they do not hold.

use super::failed;
use super::progress::Shown;
use crate::cli::LoadArgs;
use crate::failure::Failure;
use gavel_client::catalogue::{self, BuildOptions, Built, LoadError, Progress};
use gavel_client::{AdminClient, CampaignClient, ClientError, upload};
use gavel_member::catalogue::BlockReader;
use gavel_proto::wire::command::Body;
use gavel_proto::wire::{BeginGeneration, Campaign, CampaignBudgets, CampaignUpdate, DeliveryChange};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Between two looks at the cluster.
const LOOK: Duration = Duration::from_millis(250);
/// Updates of one request, as the voter takes them.
const UPDATES_MAX: usize = 512;
/// Looks before the wait is given up: an hour, for the largest catalogue on a slow machine.
const LOOKS_MAX: usize = 4 * 3_600;

/// `gavel ctl load`.
pub async fn run(admin: &mut AdminClient, cluster_id: &str, args: LoadArgs) -> Result<(), Failure> {
    let work_dir = args.work_dir.clone().unwrap_or_else(|| beside(&args.path));
    let built = build(args.path.clone(), args.shards, work_dir.clone()).await?;
    eprintln!(
        "{} lines: {} items, {} ads, {} campaigns, {} users; {} lines refused",
        built.lines,
        built.items(),
        built.ads(),
        built.campaigns,
        built.users,
        built.rejected
    );
    for file in &built.reject_files {
        eprintln!("refused lines with their reasons: {}", file.display());
    }
    let number = publish(admin, &built, args.replicas).await?;
    eprintln!("generation {number} is accepted");
    if !args.no_wait {
        wait_active(admin, number).await?;
        println!("generation {number} serves {} ads", built.ads());
    }
    if args.budgets {
        let taken = budgets(admin, cluster_id, &built).await?;
        println!("the ledger holds the weekly budgets of {taken} campaigns");
    }
    // A left-over work folder costs space and nothing else.
    let _ = std::fs::remove_dir_all(&work_dir);
    Ok(())
}

/// Has the ledger hold the weekly budgets that the catalogue names; other budgets of the campaigns stay.
async fn budgets(admin: &AdminClient, cluster_id: &str, built: &Built) -> Result<u64, Failure> {
    let voters = admin.voters().await.map_err(failed)?;
    let mut client = CampaignClient::new(cluster_id, voters).map_err(failed)?;
    let file = File::open(&built.campaigns_blob.path).map_err(Failure::io)?;
    let mut taken = 0;
    let mut updates: Vec<CampaignUpdate> = Vec::new();
    for block in BlockReader::new(BufReader::new(file)) {
        let campaigns = block.map_err(Failure::damaged)?.campaigns;
        for campaign in campaigns.iter().filter(|campaign| campaign.budget_micros > 0) {
            updates.push(weekly(campaign)?);
        }
        while updates.len() >= UPDATES_MAX {
            let rest = updates.split_off(UPDATES_MAX);
            taken += set(&mut client, std::mem::replace(&mut updates, rest)).await?;
        }
    }
    if !updates.is_empty() {
        taken += set(&mut client, updates).await?;
    }
    Ok(taken)
}

async fn set(client: &mut CampaignClient, updates: Vec<CampaignUpdate>) -> Result<u64, Failure> {
    let count = updates.len() as u64;
    client.update(updates, Duration::ZERO).await.map_err(failed)?;
    Ok(count)
}

fn weekly(campaign: &Campaign) -> Result<CampaignUpdate, Failure> {
    let zone = if campaign.time_zone.is_empty() { "UTC" } else { &campaign.time_zone };
    let zone = catalogue::offsets(zone).map_err(Failure::damaged)?;
    let budgets = CampaignBudgets {
        week_micros: Some(campaign.budget_micros),
        zone_starts: zone.starts,
        zone_offsets: zone.offset_seconds,
        ..CampaignBudgets::default()
    };
    let change = DeliveryChange { campaign_id: campaign.campaign_id, ..DeliveryChange::default() };
    Ok(CampaignUpdate { change: Some(change), budgets: Some(budgets) })
}

/// Builds the blobs, off the async threads.
pub async fn build(path: PathBuf, shards: u32, work_dir: PathBuf) -> Result<Built, Failure> {
    let built = tokio::task::spawn_blocking(move || {
        catalogue::build(&path, &BuildOptions { shards, work_dir }, &mut Shown::default())
    });
    built.await.map_err(Failure::other)?.map_err(|e| match e {
        LoadError::NoFiles(_) | LoadError::Shards(_) => Failure::usage(e),
        LoadError::Empty { .. } | LoadError::Header { .. } | LoadError::AdGroups => Failure::damaged(e),
        LoadError::Io(..) => Failure::io(e),
    })
}

/// Uploads and proposes; returns the number of the generation.
pub async fn publish(admin: &mut AdminClient, built: &Built, replicas: u32) -> Result<u64, Failure> {
    let voters = admin.voters().await.map_err(failed)?;
    upload::upload(&built.blobs(), &voters, &mut Shown::default()).await.map_err(failed)?;
    let wish = BeginGeneration { generation: Some(built.generation()), replicas };
    Ok(admin.propose(Body::BeginGeneration(wish)).await.map_err(failed)?.number)
}

/// Returns once the generation, or a newer one, serves.
pub async fn wait_active(admin: &AdminClient, number: u64) -> Result<(), Failure> {
    let mut shown = Shown::default();
    for _ in 0..LOOKS_MAX {
        if let Ok(status) = admin.status().await {
            let view = status.view.unwrap_or_default();
            if view.active_generation.as_ref().is_some_and(|g| g.generation >= number) {
                return Ok(());
            }
            if view.pending_generation.as_ref().is_some_and(|g| g.generation > number) {
                return Err(failed(ClientError::NotActive(format!("a newer generation took the place of {number}"))));
            }
            let wanted: u64 = view.pending_shards.iter().map(|s| s.replicas.len() as u64).sum();
            let ready = status.health.iter().flat_map(|h| &h.ready_shards).filter(|s| s.generation == number).count();
            shown.step("replicas ready", ready as u64, wanted);
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(failed(ClientError::NotActive(format!("generation {number}: see gavel ctl status"))))
}

/// The default work folder.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".load");
    path.with_file_name(name)
}
