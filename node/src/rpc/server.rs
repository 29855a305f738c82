//! How does a node start, and how does it stop?

use std::net::SocketAddr;
use std::sync::Arc;

use gavel_member::member::MemberError;
use gavel_member::serve::{self, Exposure, Health, ServeError, Serving};
use gavel_member::transport::MESSAGE_BYTES_MAX;
use gavel_member::view::ViewFeed;
use gavel_member::{Member, MemberConfig, Shutdown};
use gavel_proto::limits::MEASURED_BYTES_MAX;
use gavel_proto::wire::Role;
use gavel_proto::wire::frequency_service_server::FrequencyServiceServer;
use gavel_proto::wire::shard_service_server::ShardServiceServer;
use tokio::runtime::Handle;
use tonic::service::Routes;

use super::frequency::FrequencyRpc;
use super::service::ShardRpc;
use crate::config::{NodeConfig, OraclePolicy};
use crate::frequency::{self, CountingConfig, Store, StoreError};
use crate::pipeline::executor::SearchExecutor;
use crate::pipeline::probe::{ProbeSpec, RecallProbe};
use crate::pipeline::thread::{cpu_us, lower_priority};
use crate::staging::holdings::SharedHoldings;
use crate::staging::{DataFolder, Deliver, MemoryBudget, Pace, Stage, Staging, StagingError, Steps};

/// A node that listens.
#[derive(Debug)]
pub struct Running {
    /// Where it listens; the port is the real one also when 0 was asked for.
    pub address: SocketAddr,
    /// Ends when the node has stopped.
    pub task: tokio::task::JoinHandle<()>,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// It cannot listen.
    #[error("{0}")]
    Serve(#[from] ServeError),
    /// It cannot become a member.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// The data folder cannot be used.
    #[error(transparent)]
    Staging(#[from] StagingError),
    /// The counts cannot be kept.
    #[error("frequency counts: {0}")]
    Counts(#[from] StoreError),
    /// A thread cannot be started.
    #[error("threads: {0}")]
    Threads(#[from] std::io::Error),
}

/// Starts a node; returns when it listens. It joins, stages and serves in the background until the shutdown.
///
/// # Errors
/// When it cannot listen, its data folder is not its own, or no control address was given.
pub async fn run(config: NodeConfig, shutdown: Shutdown) -> Result<Running, NodeError> {
    let bound = serve::bind(&config.listen).await?;
    let address = bound.address;
    let advertised = if config.advertise.is_empty() { address.to_string() } else { config.advertise.clone() };
    let member_config = MemberConfig {
        cluster_id: config.cluster_id.clone(),
        data_dir: config.data_dir.clone(),
        control: config.control.clone(),
        address: advertised,
        name: config.name.clone(),
    };
    let member = Member::start(member_config, Role::Node, &shutdown)?;
    let holdings = Arc::new(SharedHoldings::default());
    let threads = config.threads();
    let steps = Steps {
        data: DataFolder::open(&config.data_dir)?,
        voters: Arc::clone(&member.voters),
        runtime: Handle::current(),
        budget: MemoryBudget::of_share(config.memory_share),
        cpu_us,
    };
    let stage = Stage {
        steps,
        holdings: Arc::clone(&holdings),
        ready: Arc::clone(&member.ready),
        view: Arc::clone(&member.view),
        delivery: Arc::clone(&member.delivery),
        member_id: member.member_id.clone(),
        runtime: Handle::current(),
        shutdown: shutdown.clone(),
        pace: Pace::new(config.staging_cpu_share, cpu_us),
    };
    let staging = Staging::start(stage, lower_priority)?;
    // It ends by itself after the shutdown.
    drop(
        Deliver {
            holdings: Arc::clone(&holdings),
            feed: Arc::clone(&member.delivery),
            ready: Arc::clone(&member.ready),
            runtime: Handle::current(),
            shutdown: shutdown.clone(),
        }
        .start()?,
    );
    let probe = ProbeSpec::of_share(config.recall_probe_share, config.recall_alarm);
    let service = ShardRpc {
        holdings: Arc::clone(&holdings),
        executor: Arc::new(SearchExecutor::start(threads, config.search_queue, RecallProbe::start(probe)?)?),
        member_id: member.member_id.clone(),
        oracle: config.oracle,
    };
    let closed = Shutdown::new();
    let counting = CountingConfig {
        folder: config.data_dir.join("frequency"),
        bytes_max: config.frequency_mib.saturating_mul(1024 * 1024),
    };
    let counts = frequency::start(&counting, Arc::clone(&member.view), member.member_id.clone(), shutdown.clone())?;
    let routes = routes(service, config.oracle).add_service(counting_service(&counts));
    let serving = bound.serve(routes, Exposure::Internal, closed.clone()).await?;
    tokio::spawn(follow_health(serving.health(), Arc::clone(&member.view), holdings, shutdown.clone()));
    tracing::info!(%address, threads, "node listens");
    let task = tokio::spawn(stop(serving, (staging, counts), member, shutdown, closed));
    Ok(Running { address, task })
}

fn routes(service: ShardRpc, oracle: OraclePolicy) -> Routes {
    let answer_bytes = match oracle {
        OraclePolicy::Answered => MEASURED_BYTES_MAX,
        OraclePolicy::Refused => MESSAGE_BYTES_MAX,
    };
    let service = ShardServiceServer::new(service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(answer_bytes);
    Routes::new(service)
}

fn counting_service(counts: &Arc<Store>) -> FrequencyServiceServer<FrequencyRpc> {
    FrequencyServiceServer::new(FrequencyRpc(Arc::clone(counts))).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// Health says SERVING while at least one shard of the active generation can be searched.
async fn follow_health(health: Health, view: Arc<ViewFeed>, holdings: Arc<SharedHoldings>, shutdown: Shutdown) {
    let mut beat = tokio::time::interval(std::time::Duration::from_millis(200));
    let mut serving = false;
    loop {
        tokio::select! {
            _ = beat.tick() => {}
            () = shutdown.wait() => return health.not_ready().await,
        }
        let active = view.current().and_then(|v| v.active_generation.as_ref().map(|g| g.generation));
        let ready = holdings.current().shards.keys().any(|(generation, _, _)| active == Some(*generation));
        if ready != serving {
            serving = ready;
            if ready { health.ready().await } else { health.not_ready().await }
        }
    }
}

/// Waits for the shutdown and for everything that it ends. The node listens until everybody has been told that it
/// leaves.
async fn stop(
    serving: Serving,
    (staging, counts): (Staging, Arc<Store>),
    mut member: Member,
    shutdown: Shutdown,
    closed: Shutdown,
) {
    shutdown.wait().await;
    member.left().await;
    closed.trigger();
    // Each of them reports its own faults.
    let _ = serving.task.await;
    let joined = tokio::task::spawn_blocking(move || {
        staging.join();
        counts.close();
    });
    let _ = joined.await;
    tracing::info!("node stopped");
}
