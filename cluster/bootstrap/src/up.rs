//! How does a whole cluster start with one command?
//!
//! One voter, some nodes and a router, each as in its own process: own data folder, own sockets on the loopback
//! interface, the same messages between them. Then what an operator would do: publish the bundle, load the catalogue,
//! wait until it serves, ask. A folder that was kept starts with what it holds.

mod ask;
mod folder;

use crate::cli::{Format, UpArgs};
use crate::ctl::{failed, load, model};
use crate::demo::{self, Demo};
use crate::failure::Failure;
use crate::roles;
use folder::DataFolder;
use gavel_client::{AdminClient, ClientError};
use gavel_control::ControlConfig;
use gavel_member::{Shutdown, telemetry};
use gavel_node::{NodeConfig, OraclePolicy};
use gavel_router::{CampaignPolicy, ProbePolicy, RouterConfig};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// Between two looks at the cluster while it comes up.
const LOOK: Duration = Duration::from_millis(50);
/// Looks before the start is given up: two minutes.
const LOOKS_MAX: usize = 20 * 120;
/// Any free port of the loopback interface.
const ANY_PORT: &str = "127.0.0.1:0";

/// Where the embedded cluster listens.
struct Addresses {
    control: SocketAddr,
    router: SocketAddr,
    http: SocketAddr,
}

/// What runs.
#[derive(Default)]
struct Parts {
    voter: Option<Task>,
    voter_stop: Shutdown,
    members: Vec<Task>,
}

type Task = tokio::task::JoinHandle<()>;

impl Parts {
    /// Waits until nothing runs any more: the members leave first, which takes a voter that hears them.
    async fn stop(self, shutdown: &Shutdown) {
        shutdown.trigger();
        for task in self.members {
            // Each part reports its own faults.
            let _ = task.await;
        }
        self.voter_stop.trigger();
        if let Some(task) = self.voter {
            let _ = task.await;
        }
    }
}

/// `gavel up`.
pub async fn run(args: UpArgs, cluster_id: String) -> Result<(), Failure> {
    let shutdown = Shutdown::new();
    shutdown.on_signals();
    let folder = DataFolder::open(args.data_dir.clone()).map_err(Failure::io)?;
    let mut parts = Parts::default();
    let served = tokio::select! {
        // What was asked for first: an answer that came with the signal still counts.
        biased;
        served = Box::pin(serve(&args, &cluster_id, folder.path(), &shutdown, &mut parts)) => served,
        () = shutdown.wait() => Ok(()),
    };
    parts.stop(&shutdown).await;
    served
}

async fn serve(
    args: &UpArgs,
    cluster_id: &str,
    folder: &Path,
    shutdown: &Shutdown,
    parts: &mut Parts,
) -> Result<(), Failure> {
    let metrics = telemetry::start_metrics().map_err(Failure::other)?;
    let addresses = start(args, cluster_id, folder, shutdown, parts).await?;
    let any = SocketAddr::new(addresses.control.ip(), 0);
    let metrics = telemetry::serve_metrics(metrics, any, shutdown.clone()).await.map_err(|e| Failure::of_role(&e))?;
    note(&format!("1 voter, {} nodes, 1 router: {} shards x {} replicas", args.nodes, args.shards, args.replicas));
    let mut admin = AdminClient::new(cluster_id, vec![addresses.control.to_string()]).map_err(failed)?;
    seed(&mut admin, args, folder).await?;
    // The demo's requests name the demo's users.
    let requests = if args.catalogue.is_some() { vec![ask::anybody()] } else { demo::requests() };
    let first = requests.first().cloned().unwrap_or_else(ask::anybody);
    let answer = ask::until_whole(addresses.http, &first).await?;
    if args.once {
        match args.format {
            Format::Json => println!("{answer:#}"),
            Format::Text => print!("{}", ask::table(&answer)),
        }
        return Ok(());
    }
    println!(
        "READY up grpc={} http={} metrics={metrics} control={}",
        addresses.router, addresses.http, addresses.control
    );
    print!("{}", ask::table(&answer));
    println!("\nTry:");
    for request in &requests {
        println!("{}\n", ask::curl(addresses.http, request));
    }
    println!("gavel ctl --control {} status        (Ctrl-C ends it)", addresses.control);
    shutdown.wait().await;
    Ok(())
}

/// Starts every process of the cluster inside this one.
async fn start(
    args: &UpArgs,
    cluster_id: &str,
    folder: &Path,
    shutdown: &Shutdown,
    parts: &mut Parts,
) -> Result<Addresses, Failure> {
    // A voter's address is part of its state: in a kept folder it must be the same again.
    let control_listen = if args.data_dir.is_some() { "127.0.0.1:7001" } else { ANY_PORT };
    let config = ControlConfig::new(cluster_id, 1, folder.join("control"), control_listen, Vec::new());
    let control = gavel_control::run(config, parts.voter_stop.clone()).await.map_err(|e| roles::control_failure(&e))?;
    let voter = control.task;
    parts.voter = Some(tokio::spawn(async move {
        if let Ok(Err(error)) = voter.await {
            tracing::error!(%error, "the voter ended");
        }
    }));
    let voters = vec![control.address.to_string()];
    for number in 1..=args.nodes.max(1) {
        let config = NodeConfig {
            cluster_id: cluster_id.to_owned(),
            data_dir: folder.join(format!("node-{number}")),
            listen: ANY_PORT.to_owned(),
            control: voters.clone(),
            name: format!("node-{number}"),
            oracle: OraclePolicy::Answered,
            // They share the memory of one process.
            memory_share: gavel_node::MEMORY_SHARE_DEFAULT / args.nodes.max(1) as f64,
            ..NodeConfig::default()
        };
        let node = gavel_node::run(config, shutdown.clone()).await.map_err(|e| Failure::of_role(&e))?;
        parts.members.push(node.task);
    }
    let config = RouterConfig {
        cluster_id: cluster_id.to_owned(),
        data_dir: folder.join("router"),
        listen: ANY_PORT.to_owned(),
        http_listen: args.listen.clone().unwrap_or_else(|| ANY_PORT.to_owned()),
        control: voters,
        name: "router-1".to_owned(),
        probes: ProbePolicy::Answered,
        campaigns: CampaignPolicy::Answered,
        ..roles::with_logs(&args.logs)
    };
    let router = gavel_router::run(config, shutdown.clone()).await.map_err(|e| Failure::of_role(&e))?;
    parts.members.push(router.task);
    Ok(Addresses { control: control.address, router: router.address, http: router.http_address })
}

/// Publishes and loads what the cluster does not hold yet.
async fn seed(admin: &mut AdminClient, args: &UpArgs, folder: &Path) -> Result<(), Failure> {
    let wanted = args.nodes.max(1) + 1;
    let view = joined(admin, wanted).await?;
    let work = folder.join("seed");
    let demo = match (&args.bundle, &args.catalogue) {
        (Some(bundle), Some(catalogue)) => Demo { bundle: bundle.clone(), catalogue: catalogue.clone() },
        (Some(_) | None, _) => demo::write(&work).map_err(Failure::io)?,
    };
    if view.active_model.is_none() {
        note("publishing the model");
        let version = model::publish(admin, &demo.bundle, &work).await?;
        model::wait_staged(admin, version).await?;
    }
    if view.active_generation.is_none() {
        note("loading the catalogue");
        let built = load::build(demo.catalogue, args.shards, work.join("load")).await?;
        let number = load::publish(admin, &built, args.replicas).await?;
        load::wait_active(admin, number).await?;
        note(&format!("{} ads of {} items serve; {} lines were refused", built.ads(), built.items(), built.rejected));
    }
    // It can be written again from the binary.
    let _ = std::fs::remove_dir_all(&work);
    Ok(())
}

/// Waits until a leader leads and so many nodes and routers have joined.
async fn joined(admin: &AdminClient, wanted: usize) -> Result<gavel_proto::wire::View, Failure> {
    for _ in 0..LOOKS_MAX {
        if let Ok(status) = admin.status().await {
            let view = status.view.unwrap_or_default();
            let control = i32::from(gavel_proto::wire::Role::Control);
            if view.members.iter().filter(|m| m.alive && m.role != control).count() >= wanted {
                return Ok(view);
            }
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(failed(ClientError::NotActive("not every process has joined".to_owned())))
}

/// What happens meanwhile, on standard error: standard output is for the answer.
fn note(text: &str) {
    eprintln!("gavel up: {text}");
}
