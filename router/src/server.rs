//! How does a router start and stop?

use crate::campaigns::Desk;
use crate::clearing_log::ClearingLog;
use crate::config::{CampaignPolicy, ProbePolicy, RouterConfig};
use crate::http;
use crate::ledger::{self, Bank, EventLog};
use crate::pipeline::{Gate, Logs, Pipeline};
use crate::rpc::{AdRpc, EventRpc, ProbeRpc};
use crate::scored_log::{ScoredLog, Shares};
use crate::staging::{Staging, Surroundings};
use crate::transport::{Nodes, Transport};
use gavel_member::clock::wall_ms;
use gavel_member::member::MemberError;
use gavel_member::pool::CpuPool;
use gavel_member::serve::{self, Exposure, ServeError};
use gavel_member::{Member, MemberConfig, Shutdown};
use gavel_model::Scratch;
use gavel_proto::hash::combine;
use gavel_proto::limits::{AD_REQUEST_BYTES_MAX, INTERNAL_MESSAGE_BYTES_MAX, MEASURED_BYTES_MAX};
use gavel_proto::wire;
use gavel_proto::wire::ad_service_server::AdServiceServer;
use gavel_proto::wire::event_service_server::EventServiceServer;
use gavel_proto::wire::probe_service_server::ProbeServiceServer;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tonic::service::Routes;

/// User parts that may wait for each thread: a part takes well below a millisecond.
const QUEUE_PER_WORKER: usize = 64;

/// Why a router does not start.
#[derive(Debug, thiserror::Error)]
pub enum RouterError {
    /// An endpoint cannot be listened on.
    #[error("{0}")]
    Serve(#[from] ServeError),
    /// The HTTP endpoint cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    Http(String, #[source] std::io::Error),
    /// The data folder or the list of voters is wrong.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// A log cannot be written.
    #[error("a log cannot be kept in {0}: {1}")]
    Log(std::path::PathBuf, #[source] std::io::Error),
    /// No threads.
    #[error("threads cannot be started: {0}")]
    Threads(#[source] std::io::Error),
}

/// A router that listens.
#[derive(Debug)]
pub struct Running {
    /// Of the gRPC endpoint.
    pub address: SocketAddr,
    /// Of the HTTP endpoint.
    pub http_address: SocketAddr,
    /// Ends after the shutdown, when everything has stopped.
    pub task: JoinHandle<()>,
}

/// Starts a router; returns when it listens. It joins, loads and becomes ready in the background.
///
/// # Errors
/// When an endpoint cannot be listened on, or the data folder is not ours.
pub async fn run(config: RouterConfig, shutdown: Shutdown) -> Result<Running, RouterError> {
    let bound = serve::bind(&config.listen).await?;
    let address = bound.address;
    let member = Member::start(member_config(&config, address), wire::Role::Router, &shutdown)?;
    let nodes = Arc::new(Nodes::telling(Arc::clone(&member.delivery)));
    let transport = Transport::new(Arc::clone(&nodes));
    let workers = config.workers();
    let pool = CpuPool::new("user-part", workers, workers * QUEUE_PER_WORKER, Scratch::default);
    let pool = pool.map_err(RouterError::Threads)?;
    let staging = Staging::new();
    let seed = combine(member.incarnation, combine(wall_ms(), u64::from(address.port())));
    let gate = Gate::new(config.requests_in_flight);
    let closed = Shutdown::new();
    let bank = Bank::start(
        ledger::Surroundings {
            cluster_id: config.cluster_id.clone(),
            data_dir: config.data_dir.clone(),
            voters: Arc::clone(&member.voters),
            view: Arc::clone(&member.view),
            member_id: member.member_id.clone(),
            incarnation: member.incarnation,
            events: event_log(&config)?,
        },
        // Events are taken, and leases reported, as long as requests are answered.
        closed.clone(),
    );
    let logs = logs(&config, &bank)?;
    let pipeline = Arc::new(Pipeline::new(Arc::clone(&staging), transport, pool, gate, logs, Arc::clone(&bank), seed));
    let serving = bound.serve(routes(&config, &pipeline), Exposure::External, closed.clone()).await?;
    let surroundings = Surroundings {
        data_dir: config.data_dir.clone(),
        view: Arc::clone(&member.view),
        delivery: Arc::clone(&member.delivery),
        ready: Arc::clone(&member.ready),
        voters: Arc::clone(&member.voters),
        health: serving.health(),
        nodes,
        bank: Arc::clone(&bank),
    };
    let staging_task = staging.follow(surroundings, shutdown.clone());
    let mut pages = http::routes(Arc::clone(&pipeline));
    if config.campaigns == CampaignPolicy::Answered {
        let desk = Desk::new(&config.cluster_id, Arc::clone(&member.voters));
        pages = pages.merge(http::campaigns::routes(Arc::new(desk)));
    }
    let http = http::serve(&config.http_listen, pages, closed.clone()).await;
    let (http_address, http_task) = http.map_err(|e| RouterError::Http(config.http_listen.clone(), e))?;
    tracing::info!(%address, http = %http_address, name = %config.name, "the router listens");
    let task = tokio::spawn(async move {
        // The whole member: it holds the lock on the data folder.
        let mut member = member;
        shutdown.wait().await;
        serving.not_ready().await;
        // Requests are answered until everybody has been told that this router leaves.
        member.left().await;
        closed.trigger();
        for task in [serving.task, http_task, staging_task] {
            let _ = task.await;
        }
        // The other routers have the rest of its leases at once.
        bank.farewell().await;
        // Nobody waits for it but the logs: they write what waits, and pack it if it is to be packed.
        let _ = tokio::task::spawn_blocking(move || drop((pipeline, bank))).await;
    });
    Ok(Running { address, http_address, task })
}

fn event_log(config: &RouterConfig) -> Result<EventLog, RouterError> {
    match &config.event_log {
        Some(folder) => EventLog::start(folder, config.log_files).map_err(|e| RouterError::Log(folder.clone(), e)),
        None => Ok(EventLog::off()),
    }
}

/// What a share of the requests leaves behind.
fn logs(config: &RouterConfig, bank: &Arc<Bank>) -> Result<Logs, RouterError> {
    let failed = |folder: &Path, error| RouterError::Log(folder.to_owned(), error);
    let shares = Shares { requests_ppm: config.scored_log_share_ppm, others_ppm: config.scored_log_others_ppm };
    Ok(Logs {
        clearings: match &config.clearing_log {
            Some(folder) => ClearingLog::start(folder, config.clearing_log_share_ppm).map_err(|e| failed(folder, e))?,
            None => ClearingLog::off(),
        },
        scored: match &config.scored_log {
            Some(folder) => {
                ScoredLog::start(folder, config.log_files, shares, Arc::clone(bank)).map_err(|e| failed(folder, e))?
            }
            None => ScoredLog::off(),
        },
    })
}

fn member_config(config: &RouterConfig, address: SocketAddr) -> MemberConfig {
    let advertised = if config.advertise.is_empty() { address.to_string() } else { config.advertise.clone() };
    MemberConfig {
        cluster_id: config.cluster_id.clone(),
        data_dir: config.data_dir.clone(),
        control: config.control.clone(),
        name: if config.name.is_empty() { format!("router-{}", address.port()) } else { config.name.clone() },
        address: advertised,
    }
}

fn routes(config: &RouterConfig, pipeline: &Arc<Pipeline>) -> Routes {
    let ads = AdServiceServer::new(AdRpc(Arc::clone(pipeline)))
        .max_decoding_message_size(AD_REQUEST_BYTES_MAX)
        .max_encoding_message_size(INTERNAL_MESSAGE_BYTES_MAX);
    let events =
        EventServiceServer::new(EventRpc(Arc::clone(pipeline))).max_decoding_message_size(AD_REQUEST_BYTES_MAX);
    let routes = Routes::default().add_service(ads).add_service(events);
    match config.probes {
        ProbePolicy::Refused => routes,
        ProbePolicy::Answered => {
            let probes = ProbeServiceServer::new(ProbeRpc(Arc::clone(pipeline)))
                .max_decoding_message_size(AD_REQUEST_BYTES_MAX)
                .max_encoding_message_size(MEASURED_BYTES_MAX);
            routes.add_service(probes)
        }
    }
}
