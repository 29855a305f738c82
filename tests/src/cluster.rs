//! How does a test start a real cluster of real processes, and hurt it?
//!
//! Every process is the `gavel` binary that the same `cargo test` built, with a data folder and a log file of its own
//! in a temporary folder. Processes are ended by their id only. A test that fails prints the tails of the logs.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Longest wait for a process to listen.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for the cluster to serve, on two shared cores.
const SERVE_TIMEOUT: Duration = Duration::from_secs(180);
/// Longest wait for a process that was asked to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(50);
/// Lines of each log that a failed test prints.
const TAIL_LINES: usize = 25;

/// Clusters of one test binary run one after the other: two cores are not enough for two.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// How many of what.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Control voters.
    pub controls: usize,
    /// Nodes.
    pub nodes: usize,
    /// Routers.
    pub routers: usize,
    /// Shards of the demo catalogue.
    pub shards: usize,
    /// Replicas of each shard.
    pub replicas: usize,
}

/// The cluster of the reliability chapter: 3 voters, 2 shards x 2 replicas, 2 routers.
pub const REFERENCE: Size = Size { controls: 3, nodes: 4, routers: 2, shards: 2, replicas: 2 };

/// The least that still has what rollouts are about: a voter can die, a shard has two nodes, two routers must agree.
pub const SMALL: Size = Size { controls: 3, nodes: 2, routers: 2, shards: 2, replicas: 2 };

/// What the routers of a cluster log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logging {
    /// Every clearing.
    Clearings,
    /// And what every request was scored with, and events.
    Everything,
    /// The same, with full files of these two as columns.
    #[cfg(feature = "parquet")]
    Columns,
}

/// One process.
#[derive(Debug)]
pub struct Process {
    /// What it was started with.
    arguments: Vec<String>,
    /// For logs.
    pub name: String,
    /// host:port of gRPC.
    pub grpc: String,
    /// host:port of HTTP, routers only.
    pub http: Option<String>,
    /// host:port of the metrics page.
    pub metrics: String,
    /// Its data folder.
    pub data: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

/// A running cluster; it ends with the value.
#[derive(Debug)]
pub struct Cluster {
    /// Voters.
    pub controls: Vec<Process>,
    /// Nodes.
    pub nodes: Vec<Process>,
    /// Routers.
    pub routers: Vec<Process>,
    folder: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

/// The binary beside the test binaries.
#[must_use]
pub fn binary() -> PathBuf {
    let own = std::env::current_exe().expect("a path of our own");
    let folder = own.parent().and_then(Path::parent).expect("target/<profile>/deps/<test>");
    let binary = folder.join("gavel");
    assert!(binary.is_file(), "{} is missing: test with --workspace, which builds it", binary.display());
    binary
}

/// `gavel` with these arguments, ended: its exit code and what it said.
///
/// # Panics
/// When the binary does not start.
#[must_use]
pub fn gavel(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).stdin(Stdio::null()).output().expect("the binary starts")
}

/// Time, for tests.
#[expect(clippy::disallowed_methods, reason = "tests of real processes wait in real time")]
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// Waits until `condition` answers something, or panics with `what`.
pub fn wait_for<T>(what: &str, timeout: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(start.elapsed() < timeout, "waited {timeout:?} for {what}");
        std::thread::sleep(LOOK);
    }
}

impl Cluster {
    /// Starts every process and loads the demo; returns when a router answers with a whole coverage.
    #[must_use]
    pub fn start(size: Size) -> Self {
        Self::start_with(size, &[], 1)
    }

    /// The same with more arguments for each node, and with every so manyth item of the demo.
    #[must_use]
    pub fn start_with(size: Size, of_nodes: &[&str], nth_item: usize) -> Self {
        Self::start_logging(size, of_nodes, nth_item, Logging::Clearings)
    }

    /// The same with a choice of what routers log.
    #[must_use]
    pub fn start_logging(size: Size, of_nodes: &[&str], nth_item: usize, logging: Logging) -> Self {
        Self::start_of(size, of_nodes, logging, |folder| crate::corpus::every(nth_item, folder))
    }

    /// The same with a catalogue that is made in a folder of the cluster's.
    #[must_use]
    pub fn start_of(size: Size, of_nodes: &[&str], logging: Logging, catalogue: impl FnOnce(&Path) -> PathBuf) -> Self {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut cluster = Self { controls: Vec::new(), nodes: Vec::new(), routers: Vec::new(), folder, _alone: alone };
        // Voters must know each other's before they start.
        let ports = gavel_bench::fleet::free_ports(size.controls).expect("free ports");
        let peers: Vec<String> = ports.iter().enumerate().map(|(i, p)| format!("{}=127.0.0.1:{p}", i + 1)).collect();
        for (i, port) in ports.iter().enumerate() {
            let id = (i + 1).to_string();
            let arguments =
                ["control", "--id", &id, "--listen", &format!("127.0.0.1:{port}"), "--peers", &peers.join(",")];
            let process = cluster.process(&format!("control-{id}"), &arguments);
            cluster.controls.push(process);
        }
        let control = ports.iter().map(|p| format!("127.0.0.1:{p}")).collect::<Vec<_>>().join(",");
        for i in 0..size.nodes {
            let arguments = ["node", "--listen", "127.0.0.1:0", "--control", &control, "--probes", "on"];
            let process = cluster.process(&format!("node-{}", i + 1), &[&arguments, of_nodes].concat());
            cluster.nodes.push(process);
        }
        for i in 0..size.routers {
            let clearings = cluster.clearing_log(i).display().to_string();
            let arguments = [
                "router",
                "--listen",
                "127.0.0.1:0",
                "--http-listen",
                "127.0.0.1:0",
                "--control",
                &control,
                "--probes",
                "on",
                "--campaigns",
                "on",
                "--clearing-log",
                &clearings,
                "--clearing-log-share",
                "1",
            ];
            let [scored, events] = ["scored", "events"].map(|log| cluster.log(log, i).display().to_string());
            let more: &[&str] = match logging {
                Logging::Clearings => &[],
                Logging::Everything => &["--scored-log", &scored, "--scored-log-share", "1", "--event-log", &events],
                #[cfg(feature = "parquet")]
                Logging::Columns => &[
                    "--scored-log",
                    &scored,
                    "--scored-log-share",
                    "1",
                    "--event-log",
                    &events,
                    "--log-files",
                    "parquet",
                ],
            };
            let process = cluster.process(&format!("router-{}", i + 1), &[&arguments, more].concat());
            cluster.routers.push(process);
        }
        cluster.seed(size, &catalogue(cluster.folder.path()));
        cluster
    }

    /// Publishes the demo model, loads the catalogue, waits until every router serves it whole.
    fn seed(&self, size: Size, catalogue: &Path) {
        let bundle = crate::repository::demo_bundle();
        self.ctl(&["model", "publish", &bundle.to_string_lossy()]).expect("the model is published");
        let (shards, replicas) = (size.shards.to_string(), size.replicas.to_string());
        let work = self.folder.path().join("load").display().to_string();
        let load =
            ["load", &*catalogue.to_string_lossy(), "--shards", &shards, "--replicas", &replicas, "--work-dir", &work];
        self.ctl(&load).expect("the catalogue is loaded");
        for router in 0..self.routers.len() {
            self.wait_whole(router);
        }
    }

    /// Waits until this router answers with a whole coverage.
    pub fn wait_whole(&self, router: usize) {
        wait_for("a whole answer", SERVE_TIMEOUT, || {
            let (status, body) = self.ask(router, &crate::http::request(1))?;
            (status == 200 && body["coverage"]["fraction"] == 1.0).then_some(())
        });
    }

    fn clearing_log(&self, router: usize) -> PathBuf {
        self.log("clearings", router)
    }

    fn log(&self, name: &str, router: usize) -> PathBuf {
        self.folder.path().join(format!("{name}-of-router-{}", router + 1))
    }

    /// Where routers log what they scored (`scored`), or events (`events`).
    #[must_use]
    pub fn logs(&self, name: &str) -> Vec<PathBuf> {
        (0..self.routers.len()).map(|router| self.log(name, router)).collect()
    }

    /// Where routers log every clearing.
    #[must_use]
    pub fn clearing_logs(&self) -> Vec<PathBuf> {
        (0..self.routers.len()).map(|router| self.clearing_log(router)).collect()
    }

    /// POST /v1/ads to a router; `None` when it cannot be reached.
    #[must_use]
    pub fn ask(&self, router: usize, body: &serde_json::Value) -> Option<(u16, serde_json::Value)> {
        let address = self.routers[router].http.as_deref()?;
        let (status, text) = crate::http::post(address, "/v1/ads", &body.to_string())?;
        Some((status, serde_json::from_str(&text).unwrap_or(serde_json::Value::Null)))
    }

    /// `gavel ctl` with these arguments: its output, or its complaint.
    ///
    /// # Errors
    /// When the command exits with another code than 0.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.ctl_output(arguments);
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// The status as JSON.
    ///
    /// # Errors
    /// When no voter answers.
    pub fn status(&self) -> Result<serde_json::Value, String> {
        serde_json::from_str(&self.ctl(&["status", "--json"])?).map_err(|e| e.to_string())
    }

    /// A folder for what a test writes; it goes with the cluster.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What `gavel ctl model status --json` says; `None` while no voter answers.
    #[must_use]
    pub fn models(&self) -> Option<serde_json::Value> {
        serde_json::from_str(&self.ctl(&["model", "status", "--json"]).ok()?).ok()
    }

    /// Publishes a bundle and waits until every replica is ready for it; its version.
    ///
    /// # Panics
    /// When it is refused, or not ready in time.
    #[must_use]
    pub fn publish(&self, bundle: &Path) -> u64 {
        self.ctl(&["model", "publish", &bundle.to_string_lossy(), "--no-wait"]).expect("the bundle is published");
        let newest = |status: &serde_json::Value| status["models"].as_array().and_then(|m| m.last()).cloned();
        wait_for("every replica to be ready", SERVE_TIMEOUT, || {
            let model = newest(&self.models()?)?;
            let replicas = model["replicas"].as_array()?;
            let ready = !replicas.is_empty() && replicas.iter().all(|r| r["state"] == "ready");
            model["version"].as_u64().filter(|_| ready && model["lacks"] == "")
        })
    }

    fn process(&self, name: &str, arguments: &[&str]) -> Process {
        let mut all: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        let data = self.folder.path().join(name);
        all.extend(["--data-dir".to_owned(), data.display().to_string()]);
        let log = self.folder.path().join(format!("{name}.log"));
        let mut process = Process {
            arguments: all,
            name: name.to_owned(),
            grpc: String::new(),
            http: None,
            metrics: String::new(),
            data,
            log,
            child: None,
        };
        process.start();
        process
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        for process in self.routers.iter_mut().chain(&mut self.nodes).chain(&mut self.controls) {
            process.kill();
            if failed {
                eprintln!("== {}\n{}", process.name, process.log_tail());
            }
        }
    }
}

impl Process {
    /// Starts the process and waits until it listens.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs", self.name);
        let log = std::fs::File::options().create(true).append(true).open(&self.log).expect("a log file");
        let mut child = Command::new(binary())
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        self.child = Some(child);
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Reads on after the test has stopped listening, so that the process never blocks on its output.
                let _ = sender.send(line);
            }
        });
        let ready = loop {
            let line = receiver.recv_timeout(LISTEN_TIMEOUT);
            let line = line.unwrap_or_else(|e| panic!("{} does not listen ({e}):\n{}", self.name, self.log_tail()));
            if line.starts_with("READY ") {
                break line;
            }
        };
        let field = |name: &str| ready.split(' ').find_map(|w| w.strip_prefix(name)).map(str::to_owned);
        self.grpc = field("grpc=").unwrap_or_else(|| panic!("no grpc address in {ready:?}"));
        self.http = field("http=").filter(|a| a.contains(':'));
        self.metrics = field("metrics=").unwrap_or_default();
    }

    /// The sum of a metric over its labels, as its page says it; 0 when it is not there.
    #[must_use]
    pub fn metric(&self, name: &str) -> f64 {
        let page = crate::http::get(&self.metrics, "/metrics").map(|(_, page)| page).unwrap_or_default();
        let of = |line: &str| {
            let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']))?;
            rest.rsplit(' ').next()?.parse::<f64>().ok()
        };
        page.lines().filter_map(of).sum()
    }

    /// Listens where it does now when it is started again: others look for it there while no voter tells them better.
    pub fn keep_address(&mut self) {
        let at = self.arguments.iter().position(|a| a == "--listen").expect("it listens somewhere");
        self.arguments[at + 1].clone_from(&self.grpc);
    }

    /// Ends the process at once, as `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a process of our own");
            child.wait().expect("a process of our own");
        }
    }

    /// Asks the process to end, and waits until it has.
    ///
    /// # Panics
    /// When it has not in time, or did not end in peace.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // A child that was not waited for yet: the id is still its own. The shell's own `kill` is on every system.
        let asked = Command::new("sh").args(["-c", "kill -TERM \"$0\"", &child.id().to_string()]).status();
        assert!(asked.is_ok_and(|status| status.success()), "{} cannot be told to end", self.name);
        let status = wait_for("a process to end", STOP_TIMEOUT, || child.try_wait().expect("a process of our own"));
        assert!(status.success(), "{}: {status}\n{}", self.name, self.log_tail());
    }

    /// The end of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}
