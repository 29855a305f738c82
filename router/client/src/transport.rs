//! How does a client reach a process of the cluster?

use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// Longer than between servers: a client may be far away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Finds half-open connections.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the cluster did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Not an address.
    #[error("{0:?} is no address: write it as host:port")]
    Address(String),
    /// Nobody answered.
    #[error("no voter took the command: {0}")]
    Unreachable(String),
    /// The call failed.
    #[error("{0}")]
    Call(#[from] tonic::Status),
    /// The state machine refused the command; it will refuse it again.
    #[error("refused: {0}")]
    Refused(String),
    /// It did not become active in time.
    #[error("not active in time: {0}")]
    NotActive(String),
    /// A file could not be read.
    #[error("{0}: {1}")]
    File(std::path::PathBuf, #[source] std::io::Error),
}

/// A channel to `host:port`; connects at first use and again after a failure.
///
/// # Errors
/// When it is no address.
pub fn channel(address: &str) -> Result<Channel, ClientError> {
    let wrong = || ClientError::Address(address.to_owned());
    if !address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) {
        return Err(wrong());
    }
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|_| wrong())?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    Ok(endpoint.connect_lazy())
}
