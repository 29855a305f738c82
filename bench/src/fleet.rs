//! Which processes are the cluster of a storm, and how are they started, ended and started again?
//!
//! Every process is this binary, with a data folder and a log of its own in the work folder. All of them end with this
//! value; [`ending`] says how.

mod ending;

use crate::transport::TransportError;
use crate::workload::WorkloadError;
use gavel_client::ClientError;
use gavel_model::author::vary::{Variation, vary};
use gavel_proto::wire::View;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub use ending::unless_interrupted;

/// What a cluster of its own is started with.
#[derive(Clone, Debug, clap::Args)]
pub struct FleetArgs {
    /// Folder of the bundle that the cluster begins with.
    #[arg(long, default_value = "cluster/bootstrap/demo/bundle")]
    pub bundle: PathBuf,
    /// Folder of the catalogue that it serves, with the requests to replay.
    #[arg(long, default_value = "cluster/bootstrap/demo/catalogue")]
    pub catalogue: PathBuf,
    /// Keep logs and data here; by default a temporary folder that is removed.
    #[arg(long)]
    pub work_dir: Option<PathBuf>,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The requests cannot be read.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// A router cannot be reached.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A voter cannot be reached, or said no.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A bundle cannot be varied.
    #[error("a bundle cannot be varied: {0}")]
    Bundle(String),
    /// A process did not do what it should.
    #[error("{0}")]
    Process(String),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl FleetError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }
}

/// How many of what.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Voters.
    pub controls: usize,
    /// Nodes.
    pub nodes: usize,
    /// Routers.
    pub routers: usize,
    /// Shards of the catalogue.
    pub shards: u32,
    /// Replicas of each.
    pub replicas: u32,
    /// Candidates ranked, over all shards.
    pub ranked: u32,
    /// Items retrieved, over all shards.
    pub retrieved: u32,
    /// Of a core, for each node's staging while it serves.
    pub staging_cpu_share: f64,
    /// Whether routers log every clearing.
    pub log_clearings: bool,
}

impl Size {
    /// The reference cluster of the reliability chapter, with a light load. Staging takes what it needs: a process that
    /// comes back holds up the next kill, not the load.
    pub const STORM: Self = Self {
        controls: 3,
        nodes: 4,
        routers: 2,
        shards: 8,
        replicas: 2,
        ranked: 80,
        retrieved: 160,
        staging_cpu_share: 1.0,
        log_clearings: false,
    };
}

/// The name of the cluster.
pub const CLUSTER: &str = "gavel";
/// Longest wait for what the cluster should come to by itself.
pub const WHOLE_MAX: Duration = Duration::from_secs(240);
/// Between two looks, and between two tries of what a process on its way back held up.
pub const RETRY: Duration = Duration::from_millis(100);
/// A process that was killed is started again after so long.
pub const DOWN: Duration = Duration::from_millis(1_500);

/// Longest wait for a process to listen.
const LISTEN_MAX: Duration = Duration::from_secs(60);
/// Logs say which bundle scored every answer.
const LOG: &str = "warn,gavel=info,openraft=off,gavel_node::answers=debug";

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A voter.
    Control,
    /// A node.
    Node,
    /// A router.
    Router,
}

/// One process.
pub struct Process {
    /// Its role.
    pub role: Role,
    /// For logs.
    pub name: String,
    /// host:port of its gRPC endpoint; stays over restarts.
    pub address: String,
    /// host:port of its HTTP endpoint, routers only; stays over restarts.
    pub http: Option<String>,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

/// The cluster.
pub struct Fleet {
    /// Voters, nodes, routers.
    pub processes: Vec<Process>,
    folder: PathBuf,
    _temporary: Option<Temporary>,
}

/// A folder that is removed with its value.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // What cannot be removed is left to the system.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Fleet {
    /// Starts everything, publishes the first bundle, loads the catalogue.
    ///
    /// # Errors
    /// When a process does not listen or a command fails.
    pub fn start(args: &FleetArgs, size: Size) -> Result<Self, FleetError> {
        let fleet = Self::bare(args.work_dir.as_deref(), size)?;
        fleet.seed(args, size)?;
        Ok(fleet)
    }

    /// Starts everything, with nothing to serve.
    ///
    /// # Errors
    /// When a process does not listen.
    pub fn bare(work_dir: Option<&Path>, size: Size) -> Result<Self, FleetError> {
        let (folder, temporary) = match work_dir {
            Some(folder) => (folder.to_path_buf(), None),
            None => {
                let folder = std::env::temp_dir().join(format!("gavel-storm-{}", std::process::id()));
                (folder.clone(), Some(Temporary(folder)))
            }
        };
        std::fs::create_dir_all(&folder).map_err(FleetError::io(&folder))?;
        let mut fleet = Self { processes: Vec::new(), folder, _temporary: temporary };
        let Size { controls, nodes, routers, .. } = size;
        let staging_cpu_share = size.staging_cpu_share.to_string();
        let ports = free_ports(controls + nodes + 2 * routers).map_err(FleetError::io(Path::new("127.0.0.1")))?;
        let at = |i: usize| format!("127.0.0.1:{}", ports[i]);
        let peers: Vec<String> = (0..controls).map(|i| format!("{}={}", i + 1, at(i))).collect();
        for i in 0..controls {
            let id = (i + 1).to_string();
            fleet.add(Role::Control, i, &at(i), &["control", "--id", &id, "--peers", &peers.join(",")])?;
        }
        let control = fleet.control();
        for i in 0..nodes {
            fleet.add(
                Role::Node,
                i,
                &at(controls + i),
                &["node", "--control", &control, "--staging-cpu-share", &staging_cpu_share],
            )?;
        }
        for i in 0..routers {
            let (grpc, http) = (at(controls + nodes + i), at(controls + nodes + routers + i));
            let clearings = fleet.clearing_log(i).display().to_string();
            let mut arguments = vec!["router", "--control", &control, "--http-listen", &http];
            if size.log_clearings {
                arguments.extend(["--clearing-log", &clearings, "--clearing-log-share", "1"]);
            }
            fleet.add(Role::Router, i, &grpc, &arguments)?;
        }
        Ok(fleet)
    }

    /// CPU time that the processes of a role have spent, as the system counts it: in hundredths of a second.
    #[must_use]
    pub fn cpu_us(&self, role: Role) -> u64 {
        self.processes.iter().filter(|p| p.role == role).map(Process::cpu_us).sum()
    }

    /// Publishes the first bundle and loads the catalogue.
    fn seed(&self, args: &FleetArgs, size: Size) -> Result<(), FleetError> {
        let shown = |path: &Path| path.display().to_string();
        self.ctl(&["model", "publish", &shown(&args.bundle), "--no-wait"])?;
        let work = shown(&self.folder.join("load"));
        let (shards, replicas) = (size.shards.to_string(), size.replicas.to_string());
        let catalogue = shown(&args.catalogue);
        self.ctl(&["load", &catalogue, "--shards", &shards, "--replicas", &replicas, "--work-dir", &work])?;
        let (ranked, retrieved) = (size.ranked.to_string(), size.retrieved.to_string());
        self.ctl(&["rules", "--ranked", &ranked, "--retrieved", &retrieved])
    }

    /// A bundle that is as good as the first one, in an embedding space of its own.
    ///
    /// # Errors
    /// When the first one cannot be varied.
    pub fn bundle(&self, args: &FleetArgs, seed: u64) -> Result<PathBuf, FleetError> {
        let to = self.folder.join(format!("bundle-{seed}"));
        if !to.exists() {
            let varied = vary(&args.bundle, &to, Variation::Space { seed });
            varied.map_err(|e| FleetError::Bundle(format!("{e:?}")))?;
        }
        Ok(to)
    }

    /// `gavel ctl` with these arguments.
    ///
    /// # Errors
    /// When it does not end with 0.
    pub fn ctl(&self, arguments: &[&str]) -> Result<(), FleetError> {
        let output = self.ask(arguments)?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(FleetError::Process(format!("gavel ctl {}: {said}", arguments.join(" "))))
    }

    /// What `gavel ctl` says to these arguments, whatever it ends with.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn ask(&self, arguments: &[&str]) -> Result<Output, FleetError> {
        Command::new(binary()?)
            .args(["ctl", "--control", &self.control()])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(FleetError::io(Path::new("gavel ctl")))
    }

    /// Addresses of the voters, as a command line has them.
    #[must_use]
    pub fn control(&self) -> String {
        self.addresses(Role::Control).join(",")
    }

    /// Addresses of a role.
    #[must_use]
    pub fn addresses(&self, role: Role) -> Vec<String> {
        self.processes.iter().filter(|p| p.role == role).map(|p| p.address.clone()).collect()
    }

    /// The folder of the logs.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.folder.clone()
    }

    fn clearing_log(&self, router: usize) -> PathBuf {
        self.folder.join(format!("clearings-of-router-{}", router + 1))
    }

    /// Where routers log every clearing, where they do.
    #[must_use]
    pub fn clearing_logs(&self) -> Vec<PathBuf> {
        (0..self.addresses(Role::Router).len()).map(|router| self.clearing_log(router)).collect()
    }

    fn add(&mut self, role: Role, number: usize, listen: &str, arguments: &[&str]) -> Result<(), FleetError> {
        let word = match role {
            Role::Control => "control",
            Role::Node => "node",
            Role::Router => "router",
        };
        let name = format!("{word}-{}", number + 1);
        let mut all: Vec<String> = ["--log", LOG, "--log-format", "json"].map(str::to_owned).to_vec();
        all.extend(arguments.iter().map(|a| (*a).to_owned()));
        let data = self.folder.join(&name).display().to_string();
        all.extend(["--listen", listen, "--metrics-listen", "127.0.0.1:0", "--data-dir", &data].map(str::to_owned));
        let log = self.folder.join(format!("{name}.log"));
        let http = all.iter().skip_while(|a| *a != "--http-listen").nth(1).cloned();
        let address = listen.to_owned();
        let mut process = Process { role, name, address, http, arguments: all, log, child: None };
        process.start()?;
        self.processes.push(process);
        Ok(())
    }
}

impl Process {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(&mut self) -> Result<(), FleetError> {
        let log = std::fs::File::options().create(true).append(true).open(&self.log);
        let log = log.map_err(FleetError::io(&self.log))?;
        let mut child = Command::new(binary()?)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(FleetError::io(&self.log))?;
        let stdout = child.stdout.take();
        self.child = Some(child);
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.into_iter().flat_map(|out| BufReader::new(out).lines().map_while(Result::ok)) {
                // Reads on when nobody listens, so that the process never blocks on its output.
                let _ = sender.send(line);
            }
        });
        loop {
            match receiver.recv_timeout(LISTEN_MAX) {
                Ok(line) if line.starts_with("READY ") => return Ok(()),
                Ok(_) => {}
                Err(_) => {
                    let log = self.log.display();
                    return Err(FleetError::Process(format!("{} does not listen: see {log}", self.name)));
                }
            }
        }
    }

    /// CPU time since its start; 0 where the system does not say.
    #[must_use]
    pub fn cpu_us(&self) -> u64 {
        // Fields 14 and 15 of proc(5), counted behind the name in parentheses, in ticks of 10 ms.
        let Some(id) = self.child.as_ref().map(Child::id) else { return 0 };
        let text = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace();
        fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * 10_000
    }
}

/// Does every member live, and every shard serve from all of its replicas?
#[must_use]
pub fn is_served(view: &View) -> bool {
    let all_replicas = view.shards.iter().all(|s| !s.replicas.is_empty() && s.serving.len() == s.replicas.len());
    all_replicas && !view.shards.is_empty() && view.members.iter().all(|m| m.alive)
}

fn binary() -> Result<PathBuf, FleetError> {
    std::env::current_exe().map_err(FleetError::io(Path::new("this binary")))
}

/// Below those that systems choose from.
const PORTS: std::ops::Range<u32> = 18_000..30_000;

/// Ports that nobody listens at: a process has its address before it starts, and again when it is started again. Not ones
/// that the system chooses: until the process listens, it could give the same port to a connection from here to somewhere.
///
/// # Errors
/// When there are not so many.
pub fn free_ports(count: usize) -> std::io::Result<Vec<u16>> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Each process begins elsewhere, and gives no port twice before it has given all.
    let next = || PORTS.start + (std::process::id() * 31 + NEXT.fetch_add(1, Ordering::Relaxed)) % PORTS.len() as u32;
    let ports = std::iter::repeat_with(next).take(PORTS.len()).filter_map(|port| u16::try_from(port).ok());
    let free: Vec<u16> = ports.filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).take(count).collect();
    if free.len() < count {
        return Err(std::io::ErrorKind::AddrInUse.into());
    }
    Ok(free)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// A port that the system had chosen went to a connection before the voter listened.
    #[test]
    fn free_ports_are_each_given_once_and_none_that_the_system_chooses() {
        let first = free_ports(5).expect("free ones");
        let _taken = TcpListener::bind(("127.0.0.1", first[4] + 1));
        let second = free_ports(5).expect("free ones");
        let all: BTreeSet<u16> = first.iter().chain(&second).copied().collect();
        assert_eq!(all.len(), 10, "{first:?} {second:?}");
        assert!(all.iter().all(|port| PORTS.contains(&u32::from(*port))), "{all:?}");
        assert!(!all.contains(&(first[4] + 1)), "somebody listens there");
    }
}
