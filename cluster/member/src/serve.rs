//! How does a process listen without being at the mercy of its peers?
//!
//! The accept loop caps connections, sets no-delay (tonic does not do that for a given listener), and hands a
//! connection on only after its HTTP/2 preface has come. Streams, headers, frames and windows have limits. Health
//! and reflection come with every server; health says NOT_SERVING until the process says otherwise.
//! A stop lets running calls end, for a while: a watch stream has no end of its own.

mod incoming;

use crate::Shutdown;
use gavel_proto::limits::PROBE_MS;
use incoming::Incoming;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// Finds half-open peers.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;
const FRAME_BYTES_MAX: u32 = 16 * 1024;
/// A call of a stranger must have come and be answered by then: a probe, the longest one, is served and searches twice.
const STRANGER_PATIENCE: Duration = Duration::from_millis(3 * PROBE_MS);
/// How long running calls get after a stop.
const DRAIN: Duration = Duration::from_secs(3);

/// Who may connect: decides how many streams and resets one connection is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// Other processes of the cluster.
    Internal,
    /// Anybody.
    External,
}

impl Exposure {
    const fn concurrent_streams_max(self) -> u32 {
        match self {
            Self::Internal => 256,
            Self::External => 100,
        }
    }

    /// Reset before they were accepted: many from a router that cancels hedges, few from a stranger
    /// (CVE-2023-44487).
    const fn pending_resets_max(self) -> usize {
        match self {
            Self::Internal => 4_096,
            Self::External => 20,
        }
    }
}

/// A server that listens.
#[derive(Debug)]
pub struct Serving {
    /// Where it listens; the port is the real one also when 0 was asked for.
    pub address: SocketAddr,
    /// Ends when the server has stopped.
    pub task: JoinHandle<()>,
    health: HealthReporter,
}

/// Why a process cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken, or not ours.
    #[error("cannot listen on {0}: {1}")]
    Bind(String, #[source] std::io::Error),
    /// The compiled-in descriptors are broken.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// A bound socket that does not accept yet: the real port is known before the services are built.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    /// Where it is bound.
    pub address: SocketAddr,
}

/// Binds `listen` (HOST:PORT, port 0 for any).
///
/// # Errors
/// When the address is taken or not ours.
pub async fn bind(listen: &str) -> Result<Bound, ServeError> {
    let failed = |e| ServeError::Bind(listen.to_owned(), e);
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok(Bound { listener, address })
}

impl Bound {
    /// Starts to accept, with health and reflection beside `routes`, until the shutdown.
    ///
    /// # Errors
    /// When the compiled-in descriptors are broken.
    pub async fn serve(self, routes: Routes, exposure: Exposure, shutdown: Shutdown) -> Result<Serving, ServeError> {
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_service_status("", ServingStatus::NotServing).await;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(gavel_proto::wire::DESCRIPTORS)
            .build_v1()?;
        let routes = routes.add_service(health_service).add_service(reflection).prepare();
        let mut server = Server::builder();
        if exposure == Exposure::External {
            server = server.timeout(STRANGER_PATIENCE);
        }
        let router = server
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
            .max_frame_size(FRAME_BYTES_MAX)
            .max_concurrent_streams(exposure.concurrent_streams_max())
            .http2_max_pending_accept_reset_streams(Some(exposure.pending_resets_max()))
            .add_routes(routes);
        let incoming = Incoming::new(self.listener, shutdown.clone());
        let stop = shutdown.clone();
        let task = tokio::spawn(async move {
            let running = router.serve_with_incoming_shutdown(incoming, async move { stop.wait().await });
            let cut = async {
                shutdown.wait().await;
                tokio::time::sleep(DRAIN).await;
            };
            tokio::select! {
                end = running => if let Err(error) = end {
                    tracing::error!(%error, "the server ended");
                },
                () = cut => tracing::debug!("calls still ran when the drain ended"),
            }
        });
        Ok(Serving { address: self.address, task, health })
    }
}

impl Serving {
    /// Health answers SERVING from now on.
    pub async fn ready(&self) {
        self.health.set_service_status("", ServingStatus::Serving).await;
    }

    /// Health answers NOT_SERVING from now on.
    pub async fn not_ready(&self) {
        self.health.set_service_status("", ServingStatus::NotServing).await;
    }

    /// A handle to change the health later, from another task.
    #[must_use]
    pub fn health(&self) -> Health {
        Health(self.health.clone())
    }
}

/// Changes what health answers.
#[derive(Clone, Debug)]
pub struct Health(HealthReporter);

impl Health {
    /// Health answers SERVING from now on.
    pub async fn ready(&self) {
        self.0.set_service_status("", ServingStatus::Serving).await;
    }

    /// Health answers NOT_SERVING from now on.
    pub async fn not_ready(&self) {
        self.0.set_service_status("", ServingStatus::NotServing).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tonic_health::pb::health_client::HealthClient;

    #[tokio::test]
    async fn health_follows_and_a_stop_ends_it() {
        let shutdown = Shutdown::new();
        let bound = bind("127.0.0.1:0").await.expect("bound");
        let serving = bound.serve(Routes::default(), Exposure::Internal, shutdown.clone()).await.expect("serves");
        let channel = crate::transport::data_channel(&serving.address.to_string()).expect("an address");
        let mut client = HealthClient::new(channel);
        let mut check = async || {
            let reply = client.check(tonic_health::pb::HealthCheckRequest { service: String::new() }).await;
            reply.expect("answers").into_inner().status
        };
        assert_eq!(check().await, 2);
        serving.ready().await;
        assert_eq!(check().await, 1);
        shutdown.trigger();
        serving.task.await.expect("stopped");
    }

    #[tokio::test]
    async fn a_connection_that_speaks_no_http2_is_closed() {
        let shutdown = Shutdown::new();
        let bound = bind("127.0.0.1:0").await.expect("bound");
        let serving = bound.serve(Routes::default(), Exposure::External, shutdown.clone()).await.expect("serves");
        let mut stream = tokio::net::TcpStream::connect(serving.address).await.expect("connected");
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
        let mut answer = Vec::new();
        // Closed by the server, with or without a reset.
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty());
        shutdown.trigger();
    }
}
