//! How does a process of one role run?
//!
//! It starts, says on one line of standard output where it listens, and runs until it is told to stop.

use crate::cli::{ControlArgs, LogArgs, NodeArgs, Probes, ProcessArgs, RouterArgs};
use crate::failure::Failure;
use gavel_control::ControlConfig;
use gavel_member::{Shutdown, telemetry};
use gavel_node::{NodeConfig, OraclePolicy};
use gavel_proto::money::PPM;
use gavel_router::{CampaignPolicy, ProbePolicy, RouterConfig};
use std::net::SocketAddr;

/// The metrics page is so far above the gRPC port.
const METRICS_PORT_OFFSET: u16 = 1_000;

/// `gavel control`.
pub async fn control(args: ControlArgs, cluster_id: String) -> Result<(), Failure> {
    let shutdown = started();
    let peers = peers(&args.peers)?;
    let mut config = ControlConfig::new(&cluster_id, args.id, args.process.data_dir.clone(), &args.listen, peers);
    config.blob_store = args.blobs.location().map_err(Failure::usage)?;
    let running = gavel_control::run(config, shutdown.clone()).await.map_err(|e| control_failure(&e))?;
    let metrics = metrics_page(&args.process, running.address, &shutdown).await?;
    println!("READY control grpc={} http=- metrics={metrics}", running.address);
    running.task.await.map_err(Failure::other)?.map_err(|e| control_failure(&e))
}

/// `gavel node`.
pub async fn node(args: NodeArgs, cluster_id: String) -> Result<(), Failure> {
    let shutdown = started();
    let config = NodeConfig {
        cluster_id,
        data_dir: args.process.data_dir.clone(),
        listen: args.listen,
        advertise: args.process.advertise.clone(),
        control: args.control,
        name: args.process.name.clone(),
        search_threads: args.search_threads,
        memory_share: args.memory_share,
        recall_probe_share: args.recall_probe_share,
        recall_alarm: args.recall_alarm,
        staging_cpu_share: args.staging_cpu_share,
        frequency_mib: args.frequency_memory,
        oracle: match args.probes {
            Probes::On => OraclePolicy::Answered,
            Probes::Off => OraclePolicy::Refused,
        },
        ..NodeConfig::default()
    };
    let running = gavel_node::run(config, shutdown.clone()).await.map_err(|e| Failure::of_role(&e))?;
    let metrics = metrics_page(&args.process, running.address, &shutdown).await?;
    println!("READY node grpc={} http=- metrics={metrics}", running.address);
    running.task.await.map_err(Failure::other)
}

/// `gavel router`.
pub async fn router(args: RouterArgs, cluster_id: String) -> Result<(), Failure> {
    let shutdown = started();
    let config = RouterConfig {
        cluster_id,
        data_dir: args.process.data_dir.clone(),
        listen: args.listen,
        http_listen: args.http_listen,
        advertise: args.process.advertise.clone(),
        control: args.control,
        name: args.process.name.clone(),
        workers: args.workers,
        probes: match args.probes {
            Probes::On => ProbePolicy::Answered,
            Probes::Off => ProbePolicy::Refused,
        },
        campaigns: match args.campaigns {
            Probes::On => CampaignPolicy::Answered,
            Probes::Off => CampaignPolicy::Refused,
        },
        clearing_log: args.clearing_log,
        clearing_log_share_ppm: ppm(args.clearing_log_share),
        ..with_logs(&args.logs)
    };
    let running = gavel_router::run(config, shutdown.clone()).await.map_err(|e| Failure::of_role(&e))?;
    let metrics = metrics_page(&args.process, running.address, &shutdown).await?;
    println!("READY router grpc={} http={} metrics={metrics}", running.address, running.http_address);
    running.task.await.map_err(Failure::other)
}

/// The usual router, with these logs.
pub fn with_logs(args: &LogArgs) -> RouterConfig {
    RouterConfig {
        scored_log: args.scored_log.clone(),
        scored_log_share_ppm: ppm(args.scored_log_share),
        scored_log_others_ppm: ppm(args.scored_log_others),
        event_log: args.event_log.clone(),
        log_files: args.log_files,
        ..RouterConfig::default()
    }
}

/// A share in parts per million.
fn ppm(share: f64) -> u32 {
    (share * f64::from(PPM)).round() as u32
}

fn started() -> Shutdown {
    let shutdown = Shutdown::new();
    shutdown.on_signals();
    shutdown
}

/// The code of a voter that does not run.
pub fn control_failure(error: &gavel_control::ControlError) -> Failure {
    Failure::of_role(error).or_code(error.exit_code())
}

fn peers(texts: &[String]) -> Result<Vec<(u64, String)>, Failure> {
    let peer = |text: &String| {
        let (id, address) = text.split_once('=')?;
        Some((id.parse().ok()?, address.to_owned()))
    };
    let parsed = texts.iter().map(|t| peer(t).ok_or_else(|| Failure::usage(format!("{t:?} is not ID=HOST:PORT"))));
    parsed.collect()
}

/// Serves the metrics; a taken default port costs the default, not the process.
pub async fn metrics_page(args: &ProcessArgs, grpc: SocketAddr, shutdown: &Shutdown) -> Result<SocketAddr, Failure> {
    let handle = telemetry::start_metrics().map_err(Failure::other)?;
    if let Some(listen) = &args.metrics_listen {
        let listen = listen.parse().map_err(|e| Failure::usage(format!("{listen:?}: {e}")))?;
        return telemetry::serve_metrics(handle, listen, shutdown.clone()).await.map_err(|e| Failure::of_role(&e));
    }
    let usual = SocketAddr::new(grpc.ip(), grpc.port().checked_add(METRICS_PORT_OFFSET).unwrap_or(0));
    match telemetry::serve_metrics(handle.clone(), usual, shutdown.clone()).await {
        Ok(address) => Ok(address),
        Err(error) => {
            tracing::warn!(%error, "the metrics page takes another port");
            let any = SocketAddr::new(grpc.ip(), 0);
            telemetry::serve_metrics(handle, any, shutdown.clone()).await.map_err(|e| Failure::of_role(&e))
        }
    }
}
