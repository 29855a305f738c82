//! How is a connection to another process set up?
//!
//! One channel per purpose and endpoint: searches, control messages and bulk bytes never share a connection,
//! because a slow stream holds the window of its connection (h2#573). The settings are those of the data-plane
//! chapter of the specification: fast connect, no Nagle, keepalive also while idle, and room for many cancelled
//! streams, since a lost hedge is a reset stream. Nothing here balances: the caller picks its replica.

use gavel_proto::limits::{CHUNK_BYTES_MAX, INTERNAL_MESSAGE_BYTES_MAX};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// A peer that does not answer the handshake by then is down.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(250);
/// Finds half-open connections before the next request does.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Streams reset by us that may be remembered at once: cancelled hedges (iota#12930).
const RESET_STREAMS_MAX: usize = 4_096;
const RESET_STREAM_MEMORY: Duration = Duration::from_secs(5);
/// Bytes in flight: a search reply of 1,000 candidates is about 100 KiB.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Header list that we take from a peer.
const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;
/// Limit of an internal message, to set on every generated client.
pub const MESSAGE_BYTES_MAX: usize = INTERNAL_MESSAGE_BYTES_MAX;
/// Limit of a chunk message: the chunk and its envelope.
pub const CHUNK_MESSAGE_BYTES_MAX: usize = CHUNK_BYTES_MAX + 4_096;

/// An address that is no address.
#[derive(Debug, thiserror::Error)]
#[error("{address:?} is not HOST:PORT: {reason}")]
pub struct AddressError {
    /// What was given.
    pub address: String,
    /// What is wrong with it.
    pub reason: String,
}

/// For searches: one of the router's connections to a node. Connects at first use, and again after a failure.
///
/// # Errors
/// When `address` is not HOST:PORT.
pub fn data_channel(address: &str) -> Result<Channel, AddressError> {
    Ok(endpoint(address)?.connect_lazy())
}

/// For joins, heartbeats, the View and operators.
///
/// # Errors
/// When `address` is not HOST:PORT.
pub fn control_channel(address: &str) -> Result<Channel, AddressError> {
    Ok(endpoint(address)?.connect_lazy())
}

/// For blobs and snapshots.
///
/// # Errors
/// When `address` is not HOST:PORT.
pub fn bulk_channel(address: &str) -> Result<Channel, AddressError> {
    Ok(endpoint(address)?.connect_lazy())
}

fn endpoint(address: &str) -> Result<Endpoint, AddressError> {
    let wrong = |reason: String| AddressError { address: address.to_owned(), reason };
    let port = address.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then_some(port));
    if port.and_then(|p| p.parse::<u16>().ok()).is_none() {
        return Err(wrong("no port".to_owned()));
    }
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|e| wrong(e.to_string()))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
        .http2_max_concurrent_reset_streams(RESET_STREAMS_MAX)
        .http2_reset_stream_duration(RESET_STREAM_MEMORY)
        .http2_max_local_error_reset_streams(None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_host_and_port_is_an_address() {
        for good in ["127.0.0.1:7001", "node-1.example:1", "[::1]:7001"] {
            assert!(data_channel(good).is_ok(), "{good}");
        }
        for bad in ["", "7001", ":7001", "host", "host:port", "host:70000", "a b:1"] {
            assert!(data_channel(bad).is_err(), "{bad}");
        }
    }
}
